//! Keeps the pinned models in memory.
//!
//! [`Pinned::run`] looks at start and then at intervals which pinned models a backend has and does not hold in memory, and has them
//! loaded, to stay for ever. A model that cannot be loaded is tried again at the next look. It waits for nobody and holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::normaliser::{Loaded, Normaliser};
use super::policy::Policies;
use super::registry::{Entry, Registry};
use crate::backends::{Kind, Resident};
use crate::domain::model::ModelInfo;

const INTERVAL: Duration = Duration::from_secs(30);

/// See the module.
pub struct Pinned {
    registry: Registry,
    policies: Arc<Policies>,
    normaliser: Arc<Normaliser>,
}

impl Pinned {
    #[must_use]
    pub fn new(registry: Registry, policies: Arc<Policies>, normaliser: Arc<Normaliser>) -> Self {
        Self { registry, policies, normaliser }
    }

    /// For ever; to be run as one supervised task.
    pub async fn run(self) {
        if !self.policies.pins_any() {
            return std::future::pending().await;
        }
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }

    /// One look at all backends, at the same time: loading may take minutes.
    pub async fn look(&self) {
        let entries = self.registry.entries();
        let up = entries.iter().filter(|entry| entry.backend.kind() == Kind::Ollama && entry.down().is_none());
        join_all(up.map(|entry| self.look_at(entry))).await;
    }

    async fn look_at(&self, entry: &Entry) {
        // Without knowing what is there, loading might disturb what is.
        let Ok(resident) = entry.backend.resident().await else { return };
        for model in missing(&entry.models(), &resident, &self.policies) {
            self.load(entry, model).await;
        }
    }

    async fn load(&self, entry: &Entry, model: &ModelInfo) {
        let policy = self.policies.of(&model.name);
        let options = self.normaliser.loading_options(model, policy, Loaded::No, Instant::now().into_std());
        match entry.backend.load(model.name.clone(), options, Some(json!(-1))).await {
            Ok(()) => tracing::info!(backend = entry.backend.name(), model = %model.name, "a pinned model was loaded"),
            Err(error) => tracing::warn!(backend = entry.backend.name(), model = %model.name, %error, "a pinned model cannot be loaded"),
        }
    }
}

/// The pinned models that a backend has and does not hold in memory.
fn missing<'a>(models: &'a [Arc<ModelInfo>], resident: &[Resident], policies: &Policies) -> Vec<&'a Arc<ModelInfo>> {
    let absent = |model: &&Arc<ModelInfo>| !resident.iter().any(|resident| resident.model == model.name);
    models.iter().filter(|model| policies.of(&model.name).pinned).filter(absent).collect()
}

#[cfg(test)]
mod tests {
    use arriero_bench::fake::{FakeOllama, Script};

    use super::super::policy::Config;
    use super::*;
    use crate::backends::ollama::{self, Ollama};
    use crate::domain::id::ModelName;

    #[tokio::test]
    async fn pinned_models_are_loaded_once_and_again_when_they_have_gone() {
        let fake = FakeOllama::spawn(Script::default()).await.expect("a port");
        let ollama = Ollama::new(ollama::Config { url: fake.url(), ..ollama::Config::default() }).expect("a client");
        let registry = Registry::new(vec![Arc::new(ollama)]);
        registry.refresh().await;
        let section = Config { name: "gemma3:*".to_owned(), num_ctx: Some(8192), pinned: true, ..Config::default() };
        let pinned = Pinned::new(registry.clone(), Arc::new(Policies::new(vec![section])), Arc::default());
        for _ in 0..3 {
            pinned.look().await;
        }
        assert_eq!((fake.loaded(), fake.seen(|seen| seen.loads)), (vec!["gemma3:270m".to_owned()], 1));
        let resident = registry.entries()[0].backend.resident().await.expect("a list");
        assert_eq!(resident[0].context_length, Some(8192));
        fake.kill_runners();
        pinned.look().await;
        assert_eq!(fake.loaded(), ["gemma3:270m"]);
    }

    #[test]
    fn what_is_pinned_and_not_there_is_missing() {
        let named = |name: &str| Arc::new(ModelInfo::named(ModelName::parse(name).expect("a name")));
        let models = [named("a"), named("b"), named("c")];
        let resident = Resident {
            model: ModelName::parse("A:latest").expect("a name"),
            expires_at_unix_ms: None,
            context_length: None,
            size_bytes: None,
            size_vram_bytes: None,
        };
        let pin = |name: &str| Config { name: name.to_owned(), pinned: true, ..Config::default() };
        let policies = Policies::new(vec![pin("a"), pin("b")]);
        assert_eq!(missing(&models, &[resident], &policies), [&models[1]]);
        assert!(!Policies::default().pins_any() && policies.pins_any());
    }
}
