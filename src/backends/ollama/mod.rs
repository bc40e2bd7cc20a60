//! An Ollama server over HTTP.
//!
//! [`Ollama`] promises what [`Backend`] does: one end to every stream, whatever the server, the network or something in between makes of
//! it, and no work left behind on the server when a stream (or the future before it) is dropped. Generations go to `/api/generate` as
//! streams, always; a server that stays silent is given up after bounded times, and one that is stuck on a model is not asked for it
//! until it is cured (`guard`). No prompt is cut without a word: it is refused, or the answer says so.
//! Does not queue, retry, choose a server or count tokens, and leaves `keep_alive` to whoever builds the request.

mod address;
mod client;
mod config;
mod connect;
mod embed;
mod guard;
mod library;
mod ndjson;
mod probe;
mod pulse;
mod refusal;
mod residency;
pub mod shelf;
mod stream;
mod tls;
mod truncation;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::address::Address;
use self::client::Client;
use self::guard::{Guard, Tracked};
use self::library::Library;
use self::probe::Checks;
use self::pulse::Pulse;
use self::shelf::{Patience, Shelf};
use self::stream::Answer;
use super::{Backend, Events, Health, Kind, Probe, Resident, Trouble};
use crate::domain::generation::Request;
use crate::domain::id::ModelName;
use crate::domain::model::ModelInfo;
use crate::telemetry::metrics::{Metrics, Truncation};

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
    guard: Arc<Guard>,
    health: Mutex<Health>,
}

impl Ollama {
    /// Does not connect.
    ///
    /// # Errors
    /// An address that is none, or certificates that cannot be read.
    pub fn new(config: Config) -> Result<Self, Error> {
        let address = Address::parse(&config.url)?;
        let name = config.backend_name().unwrap_or_default();
        let client = Client::new(&config, address)?;
        let pulse = Arc::new(Pulse::new());
        let guard = Arc::new(Guard::new(name.clone(), &config));
        let (library, checks, health) = (Library::default(), Checks::default(), Mutex::new(Health::Unknown));
        Ok(Self { shared: Arc::new(Shared { name, config, client, library, checks, pulse, guard, health }) })
    }

    /// Where loads, prompts that were cut and the times the server was stuck are counted. Only the first call has an effect.
    pub fn count_in(&self, metrics: &Metrics) {
        self.shared.guard.count_in(metrics);
    }

    /// Asks the server which version it is of.
    ///
    /// # Errors
    /// When it cannot be reached or is no Ollama.
    pub async fn version(&self) -> Result<String, super::Error> {
        probe::version(&self.shared.client, &self.shared.config).await
    }

    /// Where the server's models lie: to put some there, look at them and take them away.
    #[must_use]
    pub fn shelf(&self, patience: Patience) -> Shelf {
        Shelf::new(self.shared.client.clone(), self.shared.config.max_line_bytes, patience)
    }

    /// Checks the server, and watches over its answers, for ever at the configured intervals; to be run as one supervised task, and
    /// ended by dropping it.
    pub async fn watch(self) {
        tokio::join!(self.check(), guard::watch(&self.shared));
    }

    async fn check(&self) {
        let config = &self.shared.config;
        let mut ticks = interval(config.probe_interval.max(Duration::from_millis(10)));
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
        let Shared { config, checks, pulse, guard, .. } = &*self.shared;
        let ticket = guard.enter(&request)?;
        let (response, cut_from) = tokio::select! {
            biased;
            answered = self.ask(&request) => answered?,
            () = ticket.let_go() => return Err(ticket.wedged()),
        };
        expect_ollama(response.headers())?;
        ticket.said();
        checks.note(&request);
        let answer = Answer::new(response.into_body(), config.max_line_bytes, config.idle_timeout, Arc::clone(pulse));
        Ok(Tracked::new(answer, ticket, cut_from).boxed())
    }

    /// Asks first without letting the prompt be cut, so that it is known when it would be, and how long it is. Returns its length in
    /// tokens when it was cut.
    async fn ask(&self, request: &Request) -> Result<(Response<Incoming>, Option<u64>), super::Error> {
        let guard = &self.shared.guard;
        match self.post(request, false).await {
            Err(super::Error::ContextTooLong { prompt_tokens, .. }) if request.ask.truncate == Some(true) => {
                guard.count_truncation(Truncation::Allowed);
                Ok((self.post(request, true).await?, Some(prompt_tokens)))
            }
            Err(error @ super::Error::ContextTooLong { .. }) => {
                guard.count_truncation(Truncation::Refused);
                Err(error)
            }
            other => Ok((other?, None)),
        }
    }

    async fn post(&self, request: &Request, truncate: bool) -> Result<Response<Incoming>, super::Error> {
        let Shared { config, client, .. } = &*self.shared;
        let response = client.generate(wire::body(request, truncate)?, &request.id, config.first_token_timeout).await?;
        if response.status() == StatusCode::OK { Ok(response) } else { Err(client::refused(response, request.model.as_str()).await) }
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

    fn resident(&self) -> BoxFuture<'_, Result<Vec<Resident>, super::Error>> {
        Box::pin(residency::resident(&self.shared.client, self.shared.config.probe_timeout))
    }

    fn load(&self, model: ModelName, options: Map<String, Value>, keep_alive: Option<Value>) -> BoxFuture<'_, Result<(), super::Error>> {
        let Shared { client, config, .. } = &*self.shared;
        Box::pin(async move { residency::load(client, &model, options, keep_alive, config.first_token_timeout).await })
    }

    fn unload(&self, model: ModelName) -> BoxFuture<'_, Result<(), super::Error>> {
        let Shared { client, config, .. } = &*self.shared;
        Box::pin(async move { residency::unload(client, &model, config.probe_timeout).await })
    }

    fn slots(&self) -> Option<u32> {
        self.shared.config.slots
    }

    fn max_loaded(&self) -> Option<u32> {
        self.shared.config.max_loaded
    }

    fn troubles(&self) -> Vec<Trouble> {
        self.shared.guard.troubles()
    }

    fn past_troubles(&self) -> Vec<Trouble> {
        self.shared.guard.past_troubles()
    }

    fn booked_after_cancel(&self, spoke: bool) -> Duration {
        guard::booked_after_cancel(&self.shared.config, spoke)
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
