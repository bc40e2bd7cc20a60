//! The Ollama servers as they are configured now, each checked by a task of its own.
//!
//! [`Fleet::reconcile`] goes from the servers there are to those that shall be: all of it or, on an error, nothing. A server whose
//! configuration stays is not touched; what runs on one that goes comes to its end there.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::{AbortHandle, JoinSet};

use super::error::Error;
use crate::backends::Backend;
use crate::backends::ollama::{self, Ollama};
use crate::models::{Backends, Registry};
use crate::telemetry::metrics::Metrics;

/// Owns the tasks; dropping it ends them.
pub struct Fleet {
    registry: Registry,
    metrics: Metrics,
    /// Not a server, but served beside them.
    engine: Option<Arc<dyn Backend>>,
    servers: Vec<Server>,
    watches: JoinSet<()>,
}

struct Server {
    config: ollama::Config,
    backend: Arc<dyn Backend>,
    watch: AbortHandle,
}

/// A client for a server that is new, and the same as a backend.
type Fresh = (Ollama, Arc<dyn Backend>);

/// What a reconciliation did, by the names of the backends.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changed {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

impl Fleet {
    /// `servers` are those of the registry, in its order.
    pub fn new(
        registry: Registry,
        metrics: Metrics,
        servers: Vec<(ollama::Config, Ollama, Arc<dyn Backend>)>,
        engine: Option<Arc<dyn Backend>>,
    ) -> Self {
        let mut fleet = Self { registry, metrics, engine, servers: Vec::new(), watches: JoinSet::new() };
        fleet.servers = servers.into_iter().map(|(config, ollama, backend)| fleet.watch(config, ollama, backend)).collect();
        fleet
    }

    fn watch(&mut self, config: ollama::Config, ollama: Ollama, backend: Arc<dyn Backend>) -> Server {
        let watch = self.watches.spawn(ollama.watch());
        Server { config, backend, watch }
    }

    /// Waits for a check that ends, which none does by itself.
    pub async fn failure(&mut self) -> String {
        loop {
            match self.watches.join_next().await {
                Some(Err(error)) if error.is_cancelled() => {}
                Some(Err(error)) => return error.to_string(),
                Some(Ok(())) => return "it ended by itself".to_owned(),
                None => std::future::pending().await,
            }
        }
    }

    /// # Errors
    /// A server that cannot be used, or two of one name. Nothing has changed then.
    pub fn reconcile(&mut self, wanted: &[ollama::Config]) -> Result<Changed, Error> {
        let fresh = self.fresh(wanted)?;
        let mut changed = Changed::default();
        let mut old: Vec<Server> = std::mem::take(&mut self.servers);
        for (config, fresh) in wanted.iter().zip(fresh) {
            let server = if let Some((ollama, backend)) = fresh {
                changed.added.push(backend.name().to_owned());
                self.watch(config.clone(), ollama, backend)
            } else {
                let at = old.iter().position(|server| server.config == *config);
                old.swap_remove(at.unwrap_or_default())
            };
            self.servers.push(server);
        }
        for gone in old {
            gone.watch.abort();
            changed.removed.push(gone.backend.name().to_owned());
        }
        self.registry.replace(self.backends());
        Ok(changed)
    }

    /// Clients for the servers that are new; `None` for those that stay.
    fn fresh(&self, wanted: &[ollama::Config]) -> Result<Vec<Option<Fresh>>, Error> {
        let mut names: HashSet<String> = self.engine.iter().map(|engine| engine.name().to_owned()).collect();
        let mut fresh = Vec::new();
        for config in wanted {
            let staying = self.servers.iter().find(|server| server.config == *config);
            let (name, new) = if let Some(server) = staying {
                (server.backend.name().to_owned(), None)
            } else {
                let ollama = super::backends::open(config)?;
                ollama.count_in(&self.metrics);
                let backend: Arc<dyn Backend> = Arc::new(ollama.clone());
                (backend.name().to_owned(), Some((ollama, backend)))
            };
            if !names.insert(name.clone()) {
                return Err(Error::SameName { name });
            }
            fresh.push(new);
        }
        Ok(fresh)
    }

    fn backends(&self) -> Backends {
        self.servers.iter().map(|server| Arc::clone(&server.backend)).chain(self.engine.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(port: u16) -> ollama::Config {
        ollama::Config { url: format!("http://127.0.0.1:{port}"), ..ollama::Config::default() }
    }

    fn names(registry: &Registry) -> Vec<String> {
        registry.entries().iter().map(|entry| entry.backend.name().to_owned()).collect()
    }

    #[tokio::test]
    async fn servers_come_go_and_stay() {
        let registry = Registry::new(Vec::new());
        let mut fleet = Fleet::new(registry.clone(), Metrics::default(), Vec::new(), None);
        assert_eq!(fleet.reconcile(&[config(1), config(2)]).expect("valid").added, ["127.0.0.1:1", "127.0.0.1:2"]);
        let stays = Arc::clone(&registry.entries()[1]);
        let changed = fleet.reconcile(&[config(2), config(3)]).expect("valid");
        assert_eq!((changed.added, changed.removed), (vec!["127.0.0.1:3".to_owned()], vec!["127.0.0.1:1".to_owned()]));
        assert_eq!(names(&registry), ["127.0.0.1:2", "127.0.0.1:3"]);
        assert!(Arc::ptr_eq(&stays, &registry.entries()[0]), "what stays is the same entry");
    }

    #[tokio::test]
    async fn a_wrong_server_changes_nothing() {
        let registry = Registry::new(Vec::new());
        let mut fleet = Fleet::new(registry.clone(), Metrics::default(), Vec::new(), None);
        fleet.reconcile(&[config(1)]).expect("valid");
        let twice = ollama::Config { name: Some("127.0.0.1:1".into()), ..config(2) };
        assert!(matches!(fleet.reconcile(&[config(1), twice]), Err(Error::SameName { .. })));
        assert!(fleet.reconcile(&[ollama::Config { url: "ftp://x".into(), ..config(2) }]).is_err());
        assert_eq!(names(&registry), ["127.0.0.1:1"]);
    }
}
