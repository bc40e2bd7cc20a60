//! The embedded engine, where it is compiled in. `no_engine.rs` stands in for this file where it is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Error;
use crate::backends::{Backend, embedded};
use crate::config::Config;
use crate::gguf::Header;
use crate::jobs::publish::library;

/// The engine, loaded.
pub struct Engine(Arc<embedded::Engine>);

impl Engine {
    pub fn backend(&self) -> Arc<dyn Backend> {
        self.0.clone()
    }

    /// Ends its generations and gives back its memory.
    pub async fn close(self) {
        self.0.close().await;
    }
}

/// Loads the configured models and those of the library, or the demo model where it is needed and there. `None`: there is nothing to load.
///
/// The library is filled by jobs, the configuration by people: a library that cannot be loaded keeps nothing from being served.
pub async fn load(config: &Config, ollama_answers: bool) -> Result<Option<Engine>, Error> {
    let with_library = with_library(config);
    if with_library.models.len() > config.embedded.models.len() {
        match load_all(with_library).await {
            Err(error) => tracing::warn!(%error, "the models of the library are left out: they cannot be loaded with the configured ones"),
            loaded => return loaded,
        }
    }
    let mut embedded = config.embedded.clone();
    if embedded.models.is_empty() && !ollama_answers && config.demo_model.is_file() {
        embedded.models.push(config.demo_model.clone());
    }
    load_all(embedded).await
}

/// The configured models, and the files of the library that do not have the name of one of them.
fn with_library(config: &Config) -> embedded::Config {
    let mut embedded = config.embedded.clone();
    let files = library::files(&config.data_dir.join(library::FOLDER)).unwrap_or_else(|error| {
        tracing::warn!(%error, "the library is left out");
        Vec::new()
    });
    let named = |path: &PathBuf, other: &PathBuf| path.file_stem() == other.file_stem();
    let new = files.into_iter().filter(|path| !embedded.models.iter().any(|model| named(path, model)) && is_sound(path));
    let new: Vec<PathBuf> = new.collect();
    embedded.models.extend(new);
    embedded
}

/// A broken file must not keep the sound ones from being served.
fn is_sound(path: &Path) -> bool {
    let read = Header::read_file(path);
    if let Err(error) = &read {
        tracing::warn!(path = %path.display(), %error, "a file of the library is left out: it cannot be read");
    }
    read.is_ok()
}

async fn load_all(embedded: embedded::Config) -> Result<Option<Engine>, Error> {
    if embedded.models.is_empty() && embedded.embedding_model.as_os_str().is_empty() {
        return Ok(None);
    }
    let loading = tokio::task::spawn_blocking(move || embedded::Engine::load(&embedded));
    match loading.await {
        Ok(engine) => Ok(Some(Engine(Arc::new(engine?)))),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
