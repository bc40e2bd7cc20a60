//! An Ollama server over HTTP.
//!
//! [`Ollama`] promises what [`Backend`] does: one end to every stream, whatever the server, the network or something in between makes of
//! it, and no work left behind on the server when a stream (or the future before it) is dropped. Generations go to `/api/generate` as
//! streams, always; a server that stays silent is given up after bounded times.
//! Does not queue, retry, choose a server or count tokens, and leaves `keep_alive` to whoever builds the request.

mod address;
mod client;
mod config;
mod connect;
mod embed;
mod library;
mod ndjson;
mod probe;
mod pulse;
mod refusal;
mod stream;
mod tls;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::address::Address;
use self::client::Client;
use self::library::Library;
use self::probe::Checks;
use self::pulse::Pulse;
use self::stream::Answer;
use super::{Backend, Events, Health, Kind, Probe};
use crate::domain::generation::Request;
use crate::domain::id::ModelName;
use crate::domain::model::ModelInfo;

pub use address::{AddressError, hide_credentials};
pub use config::Config;
pub use tls::TlsError;

/// Why there can be no client for a configured server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// One server. Cheap to clone; clones share connections and health.
#[derive(Clone)]
pub struct Ollama {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    config: Config,
    client: Client,
    library: Library,
    checks: Checks,
    pulse: Arc<Pulse>,
    health: Mutex<Health>,
}

impl Ollama {
    /// Does not connect.
    ///
    /// # Errors
    /// An address that is none, or certificates that cannot be read.
    pub fn new(config: Config) -> Result<Self, Error> {
        let address = Address::parse(&config.url)?;
        let name = config.name.clone().unwrap_or_else(|| address.authority().to_owned());
        let client = Client::new(&config, address)?;
        let pulse = Arc::new(Pulse::new());
        let health = Mutex::new(Health::Unknown);
        Ok(Self {
            shared: Arc::new(Shared { name, config, client, library: Library::default(), checks: Checks::default(), pulse, health }),
        })
    }

    /// Asks the server which version it is of.
    ///
    /// # Errors
    /// When it cannot be reached or is no Ollama.
    pub async fn version(&self) -> Result<String, super::Error> {
        probe::version(&self.shared.client, &self.shared.config).await
    }

    /// Checks the server for ever at the configured intervals; to be run as one supervised task, and ended by dropping it.
    pub async fn watch(self) {
        let config = &self.shared.config;
        let mut ticks = interval(config.probe_interval.max(std::time::Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_deep = Instant::now() + config.deep_probe_interval;
        loop {
            ticks.tick().await;
            let deep = Instant::now() >= next_deep;
            let health = self.probe(if deep { Probe::Deep } else { Probe::Shallow }).await;
            if deep && health == Health::Up {
                next_deep = Instant::now() + config.deep_probe_interval;
            }
        }
    }

    async fn start(&self, request: Arc<Request>) -> Result<Events, super::Error> {
        let Shared { config, client, checks, pulse, .. } = &*self.shared;
        let response = client.generate(wire::body(&request)?, &request.id, config.first_token_timeout).await?;
        if response.status() != StatusCode::OK {
            return Err(client::refused(response, request.model.as_str()).await);
        }
        expect_ollama(response.headers())?;
        checks.note(&request);
        Ok(Answer::new(response.into_body(), config.max_line_bytes, config.idle_timeout, Arc::clone(pulse)).boxed())
    }
}

impl Backend for Ollama {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn kind(&self) -> Kind {
        Kind::Ollama
    }

    fn describe(&self) -> String {
        self.shared.client.address().to_string()
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, super::Error>> {
        let Shared { library, client, config, .. } = &*self.shared;
        Box::pin(library.models(client, config.probe_timeout))
    }

    fn probe(&self, probe: Probe) -> BoxFuture<'_, Health> {
        Box::pin(async move {
            let Shared { client, config, checks, pulse, .. } = &*self.shared;
            let outcome = match probe {
                Probe::Shallow => probe::shallow(client, config).await,
                Probe::Deep => checks.deep(client, config, pulse).await,
            };
            let health = outcome.map_or_else(|error| Health::Down(error.to_string()), |()| Health::Up);
            *self.shared.health.lock().unwrap_or_else(PoisonError::into_inner) = health.clone();
            health
        })
    }

    fn health(&self) -> Health {
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn generate(&self, request: Arc<Request>) -> BoxFuture<'_, Result<Events, super::Error>> {
        Box::pin(self.start(request))
    }

    fn embed(&self, model: &ModelName, texts: Vec<String>) -> BoxFuture<'_, Result<Vec<Vec<f32>>, super::Error>> {
        let model = model.clone();
        Box::pin(async move { embed::embed(&self.shared.client, &model, &texts, self.shared.config.first_token_timeout).await })
    }
}

/// A 200 in another form than Ollama's comes from something else. No form given is taken for the right one: the lines will tell.
fn expect_ollama(headers: &HeaderMap) -> Result<(), super::Error> {
    let text = |name| headers.get(name).map(HeaderValue::as_bytes);
    let form = text(CONTENT_TYPE).map(<[u8]>::to_ascii_lowercase);
    let known = |form: &[u8]| {
        [&b"application/x-ndjson"[..], b"application/json", b"application/ndjson", b"application/jsonl"].iter().any(|f| form.starts_with(f))
    };
    let message = if let Some(form) = form.filter(|form| !known(form)) {
        format!("the answer is {}, not JSON lines: is the backend's url that of an Ollama server?", refusal::excerpt(&form))
    } else if let Some(coding) = text(CONTENT_ENCODING).filter(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        format!("the answer is encoded as {}, which was not asked for", refusal::excerpt(coding))
    } else {
        return Ok(());
    };
    Err(super::Error::Protocol { message })
}
