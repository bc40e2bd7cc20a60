//! The native HTTP interface as the client commands use it. Unknown fields of answers are kept, not required.

mod pieces;
mod upload;

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

pub use pieces::Pieces;

use super::args::Operating;
use super::exit::{Exit, Failure};
use super::sse::Decoder;
use crate::config::{KEY_VARIABLE, URL_VARIABLE, Variables, without_credentials};
use crate::domain::secret::Secret;

/// Where a gateway is when nothing else is said.
pub(super) const DEFAULT_URL: &str = "http://127.0.0.1:8000";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest silence of a stream: the gateway sends heartbeats every 15 s.
const SILENCE_TIMEOUT: Duration = Duration::from_mins(1);

/// Longest wait for short answers.
const SHORT_TIMEOUT: Duration = Duration::from_secs(10);

/// A gateway.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    /// Sent only where something asks for it: not to whoever may listen at an address that is only looked at.
    key: Option<Secret>,
}

/// One thing the gateway says while it generates.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Where the request stands while it waits for its turn.
    Queued(Value),
    Start(Value),
    Token {
        text: String,
        thinking: String,
    },
    Done(Value),
}

/// A failure as the gateway words it (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
    hint: Option<String>,
    code: String,
    problems: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Token {
    text: String,
    thinking: String,
}

fn builder(address: &reqwest::Url) -> reqwest::ClientBuilder {
    let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
    // A proxy that the environment names cannot reach this machine's own addresses.
    if is_loopback(address) { http.no_proxy() } else { http }
}

fn started(http: reqwest::ClientBuilder) -> Result<reqwest::Client, Failure> {
    http.build().map_err(|error| Failure::new(Exit::Failure, format!("the HTTP client does not start: {error}"), ""))
}

impl Client {
    /// The gateway at the address given by flag or variable, or the default one.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(url: Option<&str>, variables: &Variables) -> Result<Self, Failure> {
        let url = url.or_else(|| variables.get(URL_VARIABLE)).unwrap_or(DEFAULT_URL).trim();
        let base = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let shown = without_credentials(&base);
        let parsed = reqwest::Url::parse(&base).ok().filter(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
        let parsed = parsed.ok_or_else(|| {
            Failure::new(Exit::Usage, format!("`{shown}` is no address of a gateway"), "write it like http://127.0.0.1:8000")
        })?;
        let http = started(builder(&parsed).read_timeout(SILENCE_TIMEOUT))?;
        let key = variables.get(KEY_VARIABLE).map(Secret::new);
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), key })
    }

    /// The gateway that an operator's command names.
    ///
    /// # Errors
    /// When the address is none.
    pub fn of(operating: &Operating, variables: &Variables) -> Result<Self, Failure> {
        Ok(Self::new(operating.url.as_deref(), variables)?.with_key(operating.key.as_deref()))
    }

    /// With this key instead of the variable's.
    #[must_use]
    pub fn with_key(self, key: Option<&str>) -> Self {
        Self { key: key.map(Secret::new).or(self.key), ..self }
    }

    /// Asks the admin API.
    ///
    /// # Errors
    /// When the gateway cannot be reached or refuses.
    pub async fn admin(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.admin_where(method, path, &[], body).await
    }

    /// Asks the admin API, with pairs of a name and a value behind the path. An answer without a body is null.
    ///
    /// # Errors
    /// When the gateway cannot be reached or refuses.
    pub async fn admin_where(&self, method: Method, path: &str, query: &[(&str, &str)], body: Option<&Value>) -> Result<Value, Failure> {
        self.ask(method, &format!("admin/{path}"), query, &[], body).await
    }

    /// Asks for something short; an answer without a body is null.
    ///
    /// # Errors
    /// When the gateway cannot be reached or refuses.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut address = self.address(path)?;
        if !query.is_empty() {
            address.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.bearing_key(self.http.request(method, address).timeout(SHORT_TIMEOUT));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = if let Some(body) = body { request.json(body) } else { request };
        let response = self.accepted(request.send().await).await?;
        let bytes = response.bytes().await.map_err(|error| self.unintelligible(&error))?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| self.unintelligible(&error))
    }

    /// Has the gateway read its configuration anew: what changed, or everything that is wrong with it.
    ///
    /// # Errors
    /// When the gateway cannot be reached or refuses for another reason.
    pub async fn reload(&self) -> Result<Result<Value, Vec<String>>, Failure> {
        let request = self.http.post(self.address("admin/config/reload")?).timeout(SHORT_TIMEOUT);
        let response = self.bearing_key(request).send().await.map_err(|error| self.unreachable(&error))?;
        let succeeded = response.status().is_success();
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.unintelligible(&error))?;
        if succeeded {
            return serde_json::from_slice(&body).map(Ok).map_err(|error| self.unintelligible(&error));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if !problem.problems.is_empty() => Ok(Err(problem.problems)),
            _ => Err(self.refusal(status, &body)),
        }
    }

    fn address(&self, path: &str) -> Result<reqwest::Url, Failure> {
        let wrong = |error| Failure::new(Exit::Usage, format!("{}/{path} is no address: {error}", self.shown()), "");
        reqwest::Url::parse(&format!("{}/{path}", self.base)).map_err(wrong)
    }

    fn bearing_key(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key.reveal()),
            None => request,
        }
    }

    /// Where the gateway is, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        without_credentials(&self.base)
    }

    /// # Errors
    /// When the gateway cannot be reached or does not answer with its list.
    pub async fn models(&self) -> Result<Value, Failure> {
        let request = self.http.get(format!("{}/models", self.base)).timeout(SHORT_TIMEOUT);
        let response = self.bearing_key(request).send().await;
        let response = self.accepted(response).await?;
        response.json().await.map_err(|error| self.unintelligible(&error))
    }

    /// What the gateway says it is.
    ///
    /// # Errors
    /// When it cannot be reached or does not say.
    pub async fn version(&self) -> Result<Value, Failure> {
        let response = self.http.get(format!("{}/version", self.base)).timeout(SHORT_TIMEOUT).send().await;
        let response = self.accepted(response).await?;
        response.json().await.map_err(|error| self.unintelligible(&error))
    }

    /// Whether the gateway is alive.
    ///
    /// # Errors
    /// When it is not.
    pub async fn live(&self) -> Result<(), Failure> {
        let response = self.http.get(format!("{}/livez", self.base)).timeout(SHORT_TIMEOUT).send().await;
        self.accepted(response).await.map(drop)
    }

    /// Starts a generation; dropping the answer stops it.
    ///
    /// # Errors
    /// When the gateway cannot be reached or refuses.
    pub async fn generate(&self, body: &Value) -> Result<Answer, Failure> {
        let request = self.http.post(format!("{}/generate", self.base)).header("accept", "text/event-stream").json(body);
        let response = self.accepted(self.bearing_key(request).send().await).await?;
        Ok(Answer { response, decoder: Decoder::default(), ready: Vec::new().into_iter(), over: false })
    }

    /// Reads something long, piece by piece.
    ///
    /// # Errors
    /// When the gateway cannot be reached or refuses.
    pub async fn fetch(&self, path: &str) -> Result<Pieces, Failure> {
        let response = self.accepted(self.bearing_key(self.http.get(self.address(path)?)).send().await).await?;
        Ok(Pieces::new(response))
    }

    /// Reads events, after the one of this id.
    ///
    /// # Errors
    /// When the gateway cannot be reached or refuses.
    pub async fn events(&self, path: &str, last_id: Option<&str>) -> Result<Pieces, Failure> {
        let mut request = self.bearing_key(self.http.get(self.address(path)?)).header("accept", "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = self.accepted(request.send().await).await?;
        Ok(Pieces::new(response))
    }

    async fn accepted(&self, response: Result<reqwest::Response, reqwest::Error>) -> Result<reqwest::Response, Failure> {
        let response = response.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        Err(self.refusal(status, &body))
    }

    fn refusal(&self, status: http::StatusCode, body: &[u8]) -> Failure {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) if !problem.code.is_empty() => refused(problem),
            _ => Failure::new(Exit::Refused, format!("{} answered {status}", self.shown()), "is it an Arriero? See --url"),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let what = format!("the gateway at {} cannot be reached: {}", self.shown(), root_cause(error));
        Failure::new(Exit::Gateway, what, format!("start it with `arriero serve`, or name it with --url or ${URL_VARIABLE}"))
    }

    fn unintelligible(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        let what = format!("the answer of {} is not understood: {}", self.shown(), root_cause(error));
        Failure::new(Exit::Refused, what, "is it an Arriero? See --url")
    }
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn refused(problem: Problem) -> Failure {
    let what = if problem.detail.is_empty() { problem.title } else { problem.detail };
    Failure::new(Exit::Refused, what, problem.hint.unwrap_or_default())
}

/// The innermost cause says why (e.g. "Connection refused"); the outer ones only repeat the address.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A generation on its way.
#[derive(Debug)]
pub struct Answer {
    response: reqwest::Response,
    decoder: Decoder,
    ready: std::vec::IntoIter<super::sse::Event>,
    over: bool,
}

impl Answer {
    /// The id by which the gateway knows the request, and where it can be read again if it is detached.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.response.headers().get("x-request-id")?.to_str().ok()
    }

    /// What comes next. `None` after [`Event::Done`].
    ///
    /// # Errors
    /// When the gateway reports a failure, or the stream ends or stalls before its end.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        if self.over {
            return Ok(None);
        }
        loop {
            for event in self.ready.by_ref() {
                if let Some(event) = read(&event)? {
                    self.over = matches!(event, Event::Done(_));
                    return Ok(Some(event));
                }
            }
            let broken = |why: &str| Failure::new(Exit::Refused, format!("the answer broke off: {why}"), "ask again");
            let chunk = self.response.chunk().await.map_err(|error| broken(&root_cause(&error)))?;
            let chunk = chunk.ok_or_else(|| broken("the gateway closed the connection"))?;
            self.ready = self.decoder.push(&chunk).map_err(|error| broken(&error.to_string()))?.into_iter();
        }
    }
}

fn read(event: &super::sse::Event) -> Result<Option<Event>, Failure> {
    let wrong = |error: serde_json::Error| Failure::new(Exit::Refused, format!("an event of the answer is not understood: {error}"), "");
    match event.name.as_str() {
        "queued" => Ok(Some(Event::Queued(serde_json::from_str(&event.data).map_err(wrong)?))),
        "start" => Ok(Some(Event::Start(serde_json::from_str(&event.data).map_err(wrong)?))),
        "token" => {
            let Token { text, thinking } = serde_json::from_str(&event.data).map_err(wrong)?;
            Ok(Some(Event::Token { text, thinking }))
        }
        "done" => Ok(Some(Event::Done(serde_json::from_str(&event.data).map_err(wrong)?))),
        "error" => Err(refused(serde_json::from_str(&event.data).map_err(wrong)?)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_in_their_usual_spellings() {
        let base = |url: &str| Client::new(Some(url), &Variables::default()).map(|client| client.base);
        assert_eq!(base("127.0.0.1:9"), Ok("http://127.0.0.1:9".into()));
        assert_eq!(base("https://host/prefix/"), Ok("https://host/prefix".into()));
        for wrong in ["ftp://host", "http://", "a b"] {
            assert_eq!(base(wrong).expect_err(wrong).exit, Exit::Usage);
        }
        let variables = [(URL_VARIABLE, "http://variable:1")].into_iter().collect();
        assert_eq!(Client::new(None, &variables).expect("valid").base, "http://variable:1");
        assert_eq!(Client::new(None, &Variables::default()).expect("valid").base, DEFAULT_URL);
    }

    #[test]
    fn events_are_read_and_unknown_ones_passed_over() {
        let event = |name: &str, data: &str| read(&super::super::sse::Event { id: None, name: name.into(), data: data.into() });
        assert_eq!(event("token", r#"{"text":"a","more":1}"#), Ok(Some(Event::Token { text: "a".into(), thinking: String::new() })));
        assert_eq!(event("future", "?"), Ok(None));
        assert_eq!(event("queued", r#"{"position":2}"#), Ok(Some(Event::Queued(serde_json::json!({"position": 2})))));
        let failure = event("error", r#"{"code":"x","title":"t","detail":"it broke","hint":"mend it"}"#).expect_err("a failure");
        assert_eq!((failure.exit, failure.to_string().as_str()), (Exit::Refused, "it broke; mend it"));
    }
}
