//! One publication to one server: looking, sending, building, trying; then giving the name, and tidying up whatever happened.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use futures_util::StreamExt;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::names::Names;
use super::{Action, Artifact, Config, Error, Kept, Outcome, Progress, Publication, Step, Told, same};
use crate::backends::ollama::Ollama;
use crate::backends::ollama::shelf::{self, Creation, Listed, Shelf, Shown};
use crate::backends::{Backend, Error as Failure};
use crate::domain::generation::{Event, KeepAlive, Prompt, Request};
use crate::domain::id::ModelName;
use crate::domain::options::Options;

/// Names of the files as the server sees them: it looks at the endings.
const MODEL_FILE: &str = "model.gguf";
const ADAPTER_FILE: &str = "adapter.gguf";
/// What a trial shows of the answer, in characters.
const SHOWN_CHARS: usize = 200;
/// Words of a server that lost a file after it had been sent: it was restarted, and throws away what no model uses.
const GONE: &str = "no such file";

/// One publication to one server.
pub(super) struct Attempt<'a> {
    pub(super) server: &'a Ollama,
    pub(super) shelf: Shelf,
    pub(super) publication: &'a Publication,
    pub(super) config: &'a Config,
    pub(super) names: Names,
    told: Told<'a>,
    uploaded_bytes: AtomicU64,
    pub(super) remarks: Mutex<Vec<String>>,
}

/// How far it got before the name is at stake.
enum Prepared {
    /// This very model has the name already.
    There { version: String },
    /// The model stands under its unfinished name and has been tried.
    Built(Built),
}

struct Built {
    version: String,
    kept: Kept,
    says: String,
}

impl<'a> Attempt<'a> {
    pub fn new(server: &'a Ollama, publication: &'a Publication, config: &'a Config, told: Told<'a>) -> Self {
        Self {
            server,
            shelf: server.shelf(config.patience),
            publication,
            config,
            names: Names::new(publication),
            told,
            uploaded_bytes: AtomicU64::new(0),
            remarks: Mutex::default(),
        }
    }

    /// # Errors
    /// What kept the model from being published. The server's list is then as it was, unless the error says otherwise.
    pub async fn run(&self, cancel: &CancellationToken) -> Result<Outcome, Error> {
        let begun = Instant::now();
        // Only what comes before the name is at stake can be cancelled: the rest takes no time, and half of it would be no state.
        let prepared = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled { backend: self.backend() }),
            prepared = self.prepare() => prepared,
        };
        let outcome = match prepared {
            Ok(Prepared::There { version }) => Ok(self.outcome(Action::Unchanged, version, Kept::AsSent, None)),
            Ok(Prepared::Built(built)) => self.finish(built).await,
            Err(error) => Err(error),
        };
        let outcome = match outcome {
            Err(error) if error.is_about_a_missing_model() => self.done_by_another(error).await,
            other => other,
        };
        self.tidy(&outcome).await;
        outcome.map(|outcome| Outcome { took: begun.elapsed(), remarks: self.take_remarks(), ..outcome })
    }

    async fn prepare(&self) -> Result<Prepared, Error> {
        self.tell(Step::Looking, None, None);
        let version = self.server.version().await.map_err(|error| self.failed(Step::Looking, error.into()))?;
        self.recover().await?;
        let there = self.shown(&self.names.wanted, Step::Looking).await?;
        if there.is_some_and(|shown| same::is_published(&shown, self.publication)) {
            return Ok(Prepared::There { version });
        }
        let shown = self.built().await?;
        let kept = self.judged(&shown)?;
        let says = self.tried(&shown).await?;
        Ok(Prepared::Built(Built { version, kept, says }))
    }

    /// The same publication may go on twice at a time, and the one that is ready first tidies up what both use.
    async fn done_by_another(&self, error: Error) -> Result<Outcome, Error> {
        let there = self.shown(&self.names.wanted, Step::Naming).await?;
        if !there.is_some_and(|shown| same::is_published(&shown, self.publication)) {
            return Err(error);
        }
        let version = self.server.version().await.unwrap_or_default();
        Ok(self.outcome(Action::Unchanged, version, Kept::AsSent, None))
    }

    async fn finish(&self, built: Built) -> Result<Outcome, Error> {
        self.tell(Step::Naming, None, None);
        let action = self.give_name().await?;
        Ok(self.outcome(action, built.version, built.kept, Some(built.says)))
    }

    /// Sends the files and builds the model. Once more, if the server lost a file in between.
    async fn built(&self) -> Result<Shown, Error> {
        self.send_all().await?;
        match self.create().await {
            Err(Error::Server { source: Failure::Failed { message, .. }, .. }) if message.contains(GONE) => {
                self.send_all().await?;
                self.create().await?;
            }
            other => other?,
        }
        let shown = self.shown(&self.names.unfinished, Step::Building).await?;
        shown.ok_or_else(|| Error::NotThere { backend: self.backend(), name: self.names.unfinished.clone() })
    }

    async fn send_all(&self) -> Result<(), Error> {
        self.send(&self.publication.model).await?;
        match &self.publication.adapter {
            Some(adapter) => self.send(adapter).await,
            None => Ok(()),
        }
    }

    async fn send(&self, artifact: &Artifact) -> Result<(), Error> {
        let failed = |error| self.failed(Step::Uploading, error);
        if self.shelf.has(&artifact.digest).await.map_err(failed)? {
            return Ok(());
        }
        let told = |sent, of| self.tell(Step::Uploading, Some((sent, of)), None);
        let bytes = self.shelf.upload(&artifact.path, &artifact.digest, &told).await.map_err(failed)?;
        self.uploaded_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    async fn create(&self) -> Result<(), Error> {
        let told = |words: &str| self.tell(Step::Building, None, Some(words));
        self.shelf.create(&self.creation(), &told).await.map_err(|error| self.failed(Step::Building, error))?;
        Ok(())
    }

    fn creation(&self) -> Creation {
        let Publication { model, adapter, manifest } = self.publication;
        let adapters = adapter.iter().map(|adapter| (ADAPTER_FILE.to_owned(), adapter.digest));
        Creation {
            model: self.names.unfinished.clone(),
            files: BTreeMap::from([(MODEL_FILE.to_owned(), model.digest)]),
            adapters: adapters.collect(),
            parameters: manifest.parameters.clone().into_iter().filter(|(_, value)| !value.is_null()).collect(),
            system: manifest.system.clone(),
            template: manifest.template.clone(),
            license: manifest.license.clone(),
            messages: manifest.messages.clone(),
        }
    }

    /// Whether what was built is what was sent.
    fn judged(&self, shown: &Shown) -> Result<Kept, Error> {
        let Publication { model, adapter, manifest } = self.publication;
        let not_as_sent = |what| Error::NotAsSent { backend: self.backend(), what };
        for difference in same::differences(shown, manifest) {
            if difference.missing {
                return Err(not_as_sent(difference.what));
            }
            self.remark(format!("the {} differs a little from what was sent; see `ollama show`", difference.what));
        }
        if adapter.is_some() && shown.adapters().is_empty() && !shown.modelfile.is_empty() {
            return Err(not_as_sent("adapter"));
        }
        Ok(match shown.files().first() {
            None => Kept::Unknown,
            Some(digest) if *digest == model.digest => Kept::AsSent,
            Some(digest) => {
                self.remark(format!("the server wrote the file anew, as {digest}: it was not laid out as llama-quantize does"));
                Kept::Rewritten(*digest)
            }
        })
    }

    /// A few words from the model, or one vector. What it says is not judged, only that it says something and comes to an end.
    async fn tried(&self, shown: &Shown) -> Result<String, Error> {
        self.tell(Step::Trying, None, None);
        let said = if shown.only_embeds() { self.embedded().await } else { self.generated().await };
        said.map_err(|error| self.failed(Step::Trying, error.into()))
    }

    async fn generated(&self) -> Result<String, Failure> {
        let mut events = self.server.generate(Arc::new(self.trial())).await?;
        let mut text = String::new();
        while let Some(event) = events.next().await {
            match event? {
                Event::Delta(delta) => text.push_str(if delta.text.is_empty() { &delta.thinking } else { &delta.text }),
                Event::Done(_) => {}
            }
        }
        Ok(text.chars().take(SHOWN_CHARS).collect())
    }

    /// Asked without chance, and so that the model leaves memory again.
    fn trial(&self) -> Request {
        let prompt = Prompt { text: self.config.trial_prompt.clone(), ..Prompt::default() };
        let mut request = Request::new(self.names.unfinished.clone(), prompt);
        let tokens = i64::from(self.config.trial_tokens.max(1));
        request.ask.options = Options { num_predict: Some(tokens), temperature: Some(0.0), seed: Some(1), ..Options::default() };
        request.ask.keep_alive = Some(KeepAlive(json!(0)));
        request
    }

    async fn embedded(&self) -> Result<String, Failure> {
        let vectors = self.server.embed(&self.names.unfinished, vec![self.config.trial_prompt.clone()]).await?;
        let length = vectors.first().map_or(0, Vec::len);
        Ok(format!("a vector of {length} numbers"))
    }

    fn outcome(&self, action: Action, version: String, kept: Kept, says: Option<String>) -> Outcome {
        let uploaded_bytes = self.uploaded_bytes.load(Ordering::Relaxed);
        Outcome { action, version, uploaded_bytes, kept, says, remarks: Vec::new(), took: std::time::Duration::ZERO }
    }

    pub(super) async fn shown(&self, name: &ModelName, step: Step) -> Result<Option<Shown>, Error> {
        self.shelf.show(name).await.map_err(|error| self.failed(step, error))
    }

    pub(super) async fn listed(&self, step: Step) -> Result<Vec<Listed>, Error> {
        self.shelf.list().await.map_err(|error| self.failed(step, error))
    }

    pub(super) fn failed(&self, step: Step, error: shelf::Error) -> Error {
        Error::new(self.server.name(), step, error)
    }

    pub(super) fn backend(&self) -> String {
        self.server.name().to_owned()
    }

    pub(super) fn tell(&self, step: Step, bytes: Option<(u64, u64)>, words: Option<&str>) {
        (self.told)(Progress { backend: self.server.name(), step, bytes, words });
    }

    pub(super) fn remark(&self, text: String) {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn take_remarks(&self) -> Vec<String> {
        std::mem::take(&mut *self.remarks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
