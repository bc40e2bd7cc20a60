//! The backends and what each of them offers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::future::join_all;
use tokio::sync::Mutex;

use super::near;
use super::normaliser::Loaded;
use crate::backends::{Backend, Health, Resident};
use crate::domain::id::ModelName;
use crate::domain::model::ModelInfo;

/// The backends of a gateway, in order of preference.
pub type Backends = Vec<Arc<dyn Backend>>;

/// A backend with what the gateway knows of it.
pub struct Entry {
    pub backend: Arc<dyn Backend>,
    in_flight: AtomicUsize,
    models: ArcSwap<Listing>,
    /// What it was last seen to have in memory; `None` before it could be asked.
    resident: ArcSwapOption<Vec<Resident>>,
}

/// What a backend offered when it was last asked. A backend that stops answering keeps its last list: its models are then
/// known, and asking for one says that the backend is down rather than that the model does not exist.
#[derive(Default)]
struct Listing {
    models: Arc<Vec<Arc<ModelInfo>>>,
    /// Why the last attempt to ask failed.
    failure: Option<String>,
}

impl Entry {
    fn new(backend: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { backend, in_flight: AtomicUsize::new(0), models: ArcSwap::default(), resident: ArcSwapOption::default() })
    }

    /// Whether the backend can be relied on now; [`Entry::down`] says why not.
    pub fn is_up(&self) -> bool {
        !matches!(self.backend.health(), Health::Down(_)) && self.models.load().failure.is_none()
    }

    /// Notes what the backend has in memory, and tells which models have left it or were loaded anew with other settings.
    pub fn set_resident(&self, resident: Vec<Resident>) -> Vec<ModelName> {
        let before = self.resident.swap(Some(Arc::new(resident))).unwrap_or_default();
        let now = self.resident.load();
        let stays =
            |one: &Resident| now.iter().any(|all| all.iter().any(|now| now.model == one.model && now.context_length == one.context_length));
        before.iter().filter(|one| !stays(one)).map(|one| one.model.clone()).collect()
    }

    /// What the backend has in memory, as far as is known.
    pub fn resident(&self) -> Option<Arc<Vec<Resident>>> {
        self.resident.load_full()
    }

    /// Whether a model is in memory there, and with which context.
    pub fn loaded(&self, model: &ModelName) -> Loaded {
        match &*self.resident.load() {
            None => Loaded::Unknown,
            Some(all) => all.iter().find(|one| one.model == *model).map_or(Loaded::No, |one| Loaded::Yes(one.context_length)),
        }
    }

    /// Generations running on this backend now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a generation until the returned value is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    pub fn models(&self) -> Arc<Vec<Arc<ModelInfo>>> {
        Arc::clone(&self.models.load().models)
    }

    /// Why the backend cannot be relied on now: what its last check found, or why it could not be asked for its models.
    pub fn down(&self) -> Option<String> {
        match self.backend.health() {
            Health::Down(reason) => Some(reason),
            Health::Up | Health::Unknown => self.failure(),
        }
    }

    /// Why the backend could not be asked for its models, when it could not.
    pub fn failure(&self) -> Option<String> {
        self.models.load().failure.clone()
    }

    async fn refresh(&self) {
        let listing = match self.backend.models().await {
            Ok(models) => Listing { models: Arc::new(models.into_iter().map(Arc::new).collect()), failure: None },
            Err(error) => Listing { models: self.models(), failure: Some(error.to_string()) },
        };
        self.models.store(Arc::new(listing));
    }
}

/// A generation that counts as running. Dropping it ends that.
pub struct InFlight(Arc<Entry>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One model on one backend, as a list shows it.
#[derive(Debug, Clone)]
pub struct View {
    pub backend: String,
    pub kind: &'static str,
    /// Whether the backend answered its last check, or has not been checked yet.
    pub available: bool,
    pub model: ModelInfo,
}

/// Cheap to clone. See the module for what it promises.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    entries: ArcSwap<Vec<Arc<Entry>>>,
    /// When the lists were last asked for; held while asking, so that many misses at once cause one round of questions.
    refreshed: Mutex<Option<Instant>>,
}

impl Registry {
    pub fn new(backends: Backends) -> Self {
        let entries = backends.into_iter().map(Entry::new).collect();
        Self { inner: Arc::new(Inner { entries: ArcSwap::from_pointee(entries), refreshed: Mutex::new(None) }) }
    }

    /// The backends as they are now. They may be others a moment later.
    pub fn entries(&self) -> Arc<Vec<Arc<Entry>>> {
        self.inner.entries.load_full()
    }

    /// Puts other backends in the place of those there are. One that is there already (the very same, not one that looks like it)
    /// keeps what is known of it; what runs on one that goes comes to its end there.
    pub fn replace(&self, backends: Backends) {
        let known = self.entries();
        let keep = |backend: Arc<dyn Backend>| {
            let same = known.iter().find(|entry| Arc::ptr_eq(&entry.backend, &backend));
            same.map_or_else(|| Entry::new(backend), Arc::clone)
        };
        self.inner.entries.store(Arc::new(backends.into_iter().map(keep).collect()));
    }

    /// Asks all backends for their models.
    pub async fn refresh(&self) {
        self.refresh_if_older(Duration::ZERO).await;
    }

    /// Asks all backends for their models unless that was done less than `age` ago.
    pub async fn refresh_if_older(&self, age: Duration) {
        let mut refreshed = self.inner.refreshed.lock().await;
        if refreshed.is_none_or(|at| at.elapsed() >= age) {
            let entries = self.entries();
            join_all(entries.iter().map(|entry| entry.refresh())).await;
            *refreshed = Some(Instant::now());
        }
    }

    /// The backends that have a model, with what they say of it, in order of preference.
    pub fn having(&self, name: &ModelName) -> Vec<(Arc<Entry>, Arc<ModelInfo>)> {
        let find = |entry: &Arc<Entry>| {
            let model = entry.models().iter().find(|model| model.name == *name).cloned()?;
            Some((Arc::clone(entry), model))
        };
        self.entries().iter().filter_map(find).collect()
    }

    /// Everything that can be asked for now.
    pub fn list(&self) -> Vec<View> {
        let views = |entry: &Arc<Entry>| {
            let (backend, kind, available) = (entry.backend.name().to_owned(), entry.backend.kind().as_str(), entry.down().is_none());
            let models = entry.models();
            models
                .iter()
                .map(|model| View { backend: backend.clone(), kind, available, model: ModelInfo::clone(model) })
                .collect::<Vec<_>>()
        };
        self.entries().iter().flat_map(views).collect()
    }

    /// Names of models that resemble one that nobody has.
    pub fn near(&self, asked: &ModelName) -> Vec<String> {
        let known = self.list();
        near::near(asked.as_str(), known.iter().map(|view| view.model.name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::backends::{Error, Events, Kind, Probe};
    use crate::domain::generation::Request;

    struct Stub {
        name: &'static str,
        models: std::sync::Mutex<Result<Vec<&'static str>, ()>>,
        asked: AtomicUsize,
    }

    impl Stub {
        fn new(name: &'static str, models: &[&'static str]) -> Arc<Self> {
            Arc::new(Self { name, models: std::sync::Mutex::new(Ok(models.to_vec())), asked: AtomicUsize::new(0) })
        }
    }

    impl Backend for Stub {
        fn name(&self) -> &str {
            self.name
        }
        fn kind(&self) -> Kind {
            Kind::Ollama
        }
        fn describe(&self) -> String {
            self.name.into()
        }
        fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, Error>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let models = self.models.lock().expect("no panic").clone();
            Box::pin(async move {
                let names = models.map_err(|()| Error::Unreachable { message: "refused".into() })?;
                Ok(names.into_iter().map(|n| ModelInfo::named(ModelName::parse(n).expect("valid"))).collect())
            })
        }
        fn probe(&self, _: Probe) -> BoxFuture<'_, Health> {
            Box::pin(async { Health::Up })
        }
        fn health(&self) -> Health {
            Health::Up
        }
        fn generate(&self, _: Arc<Request>) -> BoxFuture<'_, Result<Events, Error>> {
            Box::pin(async { Err(Error::Closed) })
        }
    }

    fn name(text: &str) -> ModelName {
        ModelName::parse(text).expect("valid")
    }

    #[tokio::test]
    async fn a_model_is_found_on_every_backend_that_has_it() {
        let registry = Registry::new(vec![Stub::new("a", &["x", "y:1"]), Stub::new("b", &["X:latest"])]);
        assert!(registry.having(&name("x")).is_empty(), "nothing is known before the first refresh");
        registry.refresh().await;
        assert_eq!(registry.having(&name("x")).len(), 2);
        assert_eq!(registry.having(&name("y:1")).len(), 1);
        assert_eq!(registry.list().len(), 3);
    }

    #[tokio::test]
    async fn a_backend_that_stops_answering_keeps_its_last_list() {
        let stub = Stub::new("a", &["x"]);
        let registry = Registry::new(vec![stub.clone()]);
        registry.refresh().await;
        *stub.models.lock().expect("no panic") = Err(());
        registry.refresh().await;
        assert_eq!(registry.having(&name("x")).len(), 1);
        assert!(registry.entries()[0].failure().is_some());
    }

    #[tokio::test]
    async fn a_crowd_of_misses_asks_once() {
        let stub = Stub::new("a", &["x"]);
        let registry = Registry::new(vec![stub.clone()]);
        join_all((0..20).map(|_| registry.refresh_if_older(Duration::from_mins(1)))).await;
        assert_eq!(stub.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_backend_that_stays_keeps_what_is_known_of_it() {
        let (a, b): (Arc<dyn Backend>, Arc<dyn Backend>) = (Stub::new("a", &["x"]), Stub::new("b", &["y"]));
        let registry = Registry::new(vec![Arc::clone(&a)]);
        registry.refresh().await;
        registry.replace(vec![b, a]);
        assert_eq!(registry.having(&name("x")).len(), 1);
        assert!(registry.having(&name("y")).is_empty(), "nothing is known of the new one before it was asked");
        registry.replace(vec![Stub::new("a", &["x"])]);
        assert!(registry.having(&name("x")).is_empty(), "another one of the same name is another one");
    }

    #[test]
    fn what_leaves_memory_is_told_once() {
        let registry = Registry::new(vec![Stub::new("a", &[])]);
        let entry = &registry.entries()[0];
        let resident = |model: &str, context| Resident {
            model: name(model),
            expires_at_unix_ms: None,
            context_length: Some(context),
            size_bytes: None,
            size_vram_bytes: None,
        };
        assert_eq!(entry.loaded(&name("x")), Loaded::Unknown);
        assert!(entry.set_resident(vec![resident("x", 1), resident("y", 1)]).is_empty());
        assert_eq!((entry.loaded(&name("X:latest")), entry.loaded(&name("z"))), (Loaded::Yes(Some(1)), Loaded::No));
        assert_eq!(entry.set_resident(vec![resident("x", 2)]), [name("x"), name("y")]);
        assert!(entry.set_resident(vec![resident("x", 2)]).is_empty());
    }

    #[test]
    fn in_flight_counts_until_dropped() {
        let registry = Registry::new(vec![Stub::new("a", &[])]);
        let entry = &registry.entries()[0];
        let held = entry.enter();
        assert_eq!(entry.in_flight(), 1);
        drop(held);
        assert_eq!(entry.in_flight(), 0);
    }
}
