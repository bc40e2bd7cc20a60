//! The embedded engine, where it is compiled in. `no_engine.rs` stands in for this file where it is not.

use std::sync::Arc;

use super::error::Error;
use crate::backends::{Backend, embedded};
use crate::config::Config;

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

/// Loads the configured models, or the demo model where it is needed and there. `None`: there is nothing to load.
pub async fn load(config: &Config, ollama_answers: bool) -> Result<Option<Engine>, Error> {
    let mut embedded = config.embedded.clone();
    if embedded.models.is_empty() && !ollama_answers && config.demo_model.is_file() {
        embedded.models.push(config.demo_model.clone());
    }
    if embedded.models.is_empty() && embedded.embedding_model.as_os_str().is_empty() {
        return Ok(None);
    }
    let loading = tokio::task::spawn_blocking(move || embedded::Engine::load(&embedded));
    match loading.await {
        Ok(engine) => Ok(Some(Engine(Arc::new(engine?)))),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
