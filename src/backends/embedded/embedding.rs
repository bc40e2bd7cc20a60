//! The model of this process that turns texts into vectors.
//!
//! A bounded number of requests is worked on at a time, a bounded number waits, the others are refused at once. A request that is
//! dropped ends after the text that is being read.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::config::Config;
use super::load::{self, Error as LoadError};
use crate::backends::Error;
use crate::domain::model::ModelInfo;
use crate::lm::bert::{self, Embedder};
use crate::lm::{self, Device};

#[derive(Debug)]
pub(super) struct Embedding {
    pub(super) info: ModelInfo,
    embedder: Arc<Embedder>,
    turns: Semaphore,
    /// Requests that wait or are worked on, and how many there may be.
    present: AtomicUsize,
    most: usize,
}

/// Memory that loading the model of a folder takes.
pub(super) fn needed_bytes(folder: &Path) -> Result<u64, LoadError> {
    if !folder.is_dir() {
        return Err(LoadError::NotFound { path: folder.to_owned() });
    }
    bert::needed_bytes(folder).map_err(|source| LoadError::Model { path: folder.to_owned(), source })
}

impl Embedding {
    pub(super) fn load(folder: &Path, device: &Device, config: &Config) -> Result<Self, LoadError> {
        let embedder = Embedder::open(folder, device).map_err(|source| LoadError::Model { path: folder.to_owned(), source })?;
        let info = ModelInfo {
            family: Some(embedder.config().model_type.clone()),
            parameters: Some(embedder.parameters()),
            context_length: u32::try_from(embedder.config().max_position_embeddings).ok(),
            size_bytes: Some(embedder.size_bytes()),
            loaded: true,
            ..ModelInfo::named(load::name_of(folder)?)
        };
        let slots = config.slots.max(1);
        Ok(Self {
            info,
            embedder: Arc::new(embedder),
            turns: Semaphore::new(slots),
            present: AtomicUsize::new(0),
            most: slots.saturating_add(config.queue),
        })
    }

    /// Takes no more requests.
    pub(super) fn close(&self) {
        self.turns.close();
    }

    pub(super) async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, Error> {
        let _present = self.enter()?;
        let _turn = self.turns.acquire().await.map_err(|_| Error::Closed)?;
        let mut vectors = Vec::with_capacity(texts.len());
        for text in texts {
            let embedder = Arc::clone(&self.embedder);
            let read = tokio::task::spawn_blocking(move || embedder.embed(&text)).await;
            let failed = |message: String| Error::Failed { status: None, message };
            let vector = read.map_err(|_| failed("a text could not be read".to_owned()))?;
            vectors.push(vector.map_err(|error: lm::Error| failed(error.to_string()))?);
        }
        Ok(vectors)
    }

    fn enter(&self) -> Result<Present<'_>, Error> {
        let present = Present(&self.present);
        if self.present.fetch_add(1, Ordering::Relaxed) >= self.most {
            let message = format!("{} requests for vectors wait already", self.most);
            return Err(Error::Overloaded { message, retry_after: None });
        }
        Ok(present)
    }
}

/// A request that counts as present. Dropping it ends that.
struct Present<'a>(&'a AtomicUsize);

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::backends::Backend;
    use crate::backends::embedded::Engine;
    use crate::domain::generation::{Prompt, Request};
    use crate::domain::id::ModelName;

    fn config() -> Config {
        let executable = std::env::current_exe().expect("a path");
        let target = executable.ancestors().find(|path| path.join("models").is_dir()).map(Path::to_owned).expect("`make model` was run");
        Config { embedding_model: target.join("models/all-minilm-l6-v2"), slots: 1, queue: 0, threads: 1, ..Config::default() }
    }

    fn name(text: &str) -> ModelName {
        ModelName::parse(text).expect("a name")
    }

    #[tokio::test]
    async fn it_is_listed_gives_vectors_and_does_not_generate() {
        let engine = Engine::load(&config()).expect("`make model` was run");
        let models = engine.models().await.expect("listed");
        assert_eq!((models.len(), models[0].name.as_str(), models[0].generates()), (1, "all-minilm-l6-v2", false));
        assert_eq!((models[0].context_length, models[0].parameters.is_some_and(|n| n > 22_000_000)), (Some(512), true));

        let texts = vec!["How do I sort a list?".to_owned(), "Sorting lists".to_owned(), String::new()];
        let vectors = engine.embed(&models[0].name, texts).await.expect("vectors");
        assert!(vectors.len() == 3 && vectors.iter().all(|vector| vector.len() == 384));
        assert_eq!(engine.embed(&models[0].name, Vec::new()).await.expect("nothing to do"), Vec::<Vec<f32>>::new());

        let other = engine.embed(&name("other"), vec!["x".to_owned()]).await.expect_err("unknown");
        assert!(matches!(other, Error::ModelNotFound { .. }), "{other}");
        let request = Arc::new(Request::new(models[0].name.clone(), Prompt::default()));
        let refused = engine.generate(request).await.err().expect("refused");
        assert!(matches!(refused, Error::Unsupported { field: "model", .. }), "{refused}");
        engine.close().await;
        let closed = engine.embed(&models[0].name, vec!["x".to_owned()]).await.expect_err("closed");
        assert!(matches!(closed, Error::Closed), "{closed}");
    }

    #[tokio::test]
    async fn more_than_may_wait_are_refused() {
        let device = Device::cpu(Some(1));
        let config = config();
        let embedding = Embedding::load(&config.embedding_model, &device, &config).expect("`make model` was run");
        let present = embedding.enter().expect("room");
        let refused = embedding.embed(vec!["x".to_owned()]).await.expect_err("full");
        assert!(matches!(refused, Error::Overloaded { .. }), "{refused}");
        drop(present);
        assert_eq!(embedding.embed(vec!["x".to_owned()]).await.expect("room again").len(), 1);
    }

    #[test]
    fn a_folder_that_is_missing_is_told() {
        let config = Config { embedding_model: PathBuf::from("/nowhere/model"), ..Config::default() };
        assert!(matches!(Engine::load(&config), Err(LoadError::NotFound { .. })));
    }
}
