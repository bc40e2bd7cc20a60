//! Keeps queue, routing and caches in step with what the backends have in memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::{MissedTickBehavior, interval};

use super::generate::Gateway;
use crate::backends::{Kind, Resident};
use crate::domain::id::ModelName;
use crate::models::{Entry, Pinned};
use crate::scheduler::BackendView;

/// How often the backends are asked what they have in memory.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether a pinned model has left memory, and whether a model has become another.
const TIDY_INTERVAL: Duration = Duration::from_secs(30);

/// The digests of each model, over all backends.
type Digests = HashMap<String, BTreeSet<String>>;

impl Gateway {
    /// Looks at the backends for ever; to be run as one supervised task. One that takes long to tell does not keep the others from
    /// being looked at, and is heard out: a server that is stuck may notice it only while it is asked.
    pub async fn keep_up(self) {
        let (mut known, mut busy, mut looks) = (HashSet::new(), HashSet::new(), FuturesUnordered::new());
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(name) = looks.next() => {
                    busy.remove(&name);
                }
                _ = ticks.tick() => {
                    known = self.forget_gone(&known);
                    for entry in self.registry().entries().iter().filter(|entry| busy.insert(entry.backend.name().to_owned())) {
                        let (gateway, entry) = (&self, Arc::clone(entry));
                        looks.push(async move {
                            gateway.look_at(&entry).await;
                            entry.backend.name().to_owned()
                        });
                    }
                }
            }
        }
    }

    /// Brings back pinned models and forgets answers of models that have changed, for ever; to be run as one supervised task.
    pub async fn tidy(self) {
        let (mut known, mut told) = (HashMap::new(), false);
        loop {
            told = self.misses_embeddings(told);
            let policies = Arc::new(self.settings().policies.clone());
            if policies.pins_any() {
                Pinned::new(self.registry().clone(), policies, Arc::clone(&self.parts().normaliser)).look().await;
            }
            known = self.forget_old_models(known).await;
            self.parts().semantic.prune(Instant::now());
            tokio::time::sleep(TIDY_INTERVAL).await;
        }
    }

    /// Whether nobody has the model of the semantic cache; says so once.
    fn misses_embeddings(&self, told: bool) -> bool {
        let missing = self.parts().semantic.embedding_model().filter(|model| self.registry().having(model).is_empty());
        if let Some(model) = missing.as_ref().filter(|_| !told) {
            tracing::warn!(%model, "the semantic cache is off: no backend has its embedding model; pull it, or name another as cache.semantic.model");
        }
        missing.is_some()
    }

    /// Answers of a model that was replaced by another of the same name are given to nobody, and only take room.
    async fn forget_old_models(&self, known: Digests) -> Digests {
        let mut now = Digests::new();
        for view in self.registry().list() {
            if let Some(digest) = view.model.digest {
                now.entry(view.model.name.canonical().to_owned()).or_default().insert(digest);
            }
        }
        for (model, digests) in now.iter().filter(|(model, digests)| known.get(*model).is_some_and(|before| before != *digests)) {
            let (Ok(name), joined) = (ModelName::parse(model), super::steps::joined(digests)) else { continue };
            if let Err(error) = self.parts().exact.keep_only_digests(&name, vec![joined]).await {
                tracing::warn!(%error, model, "old answers could not be deleted");
            }
        }
        now
    }

    /// Asks every backend once, and waits for all.
    pub async fn look(&self) {
        join_all(self.registry().entries().iter().map(|entry| self.look_at(entry))).await;
    }

    /// Forgets the backends that are gone since, and tells which there are.
    fn forget_gone(&self, known: &HashSet<String>) -> HashSet<String> {
        let now: HashSet<String> = self.registry().entries().iter().map(|entry| entry.backend.name().to_owned()).collect();
        for gone in known.difference(&now) {
            self.parts().scheduler.remove(gone);
            self.parts().router.forget(gone);
            self.parts().prefixes.forget_backend(gone);
        }
        now
    }

    async fn look_at(&self, entry: &Arc<Entry>) {
        let name = entry.backend.name();
        let resident = entry.backend.resident().await.ok();
        let left = resident.as_ref().map(|resident| entry.set_resident(resident.clone())).unwrap_or_default();
        for model in &left {
            // Whatever it held of prompts left memory with it.
            self.parts().prefixes.forget(name, model);
        }
        self.parts().scheduler.update(name, &view(entry, resident.as_deref()));
    }
}

/// What the queue is told of a backend.
fn view(entry: &Entry, resident: Option<&[Resident]>) -> BackendView {
    BackendView {
        slots: entry.backend.slots(),
        max_loaded: entry.backend.max_loaded(),
        resident: resident.map(|all| all.iter().map(|one| one.model.canonical().into()).collect()),
        available: entry.is_up(),
        exclusive_models: (entry.backend.kind() == Kind::Embedded).then_some(false),
    }
}
