//! The HTTP side: pooled connections, the headers that are sent, and small JSON answers.
//!
//! Promises: every header is written here, so nothing of a client's request is passed on; small writes leave at once
//! (`TCP_NODELAY`); connecting, name look-up and TLS handshake included, is bounded in time; dropping a future or a body closes the connection
//! under it unless the answer was complete. Does not retry and does not follow redirects.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::Address;
use super::connect::{self, Bounded};
use super::shelf::Upload;
use super::{Config, refusal, tls};
use crate::backends::Error;
use crate::domain::id::RequestId;

/// Most that is read of an answer that is a failure, and how long it is waited for.
const ERROR_BODY_BYTES: usize = 64 * 1024;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Most that is read of a list of models or a description of one.
const METADATA_BYTES: usize = 16 * 1024 * 1024;

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson, application/json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("arriero/", env!("CARGO_PKG_VERSION")));

/// What a request carries: bytes that are at hand, or a file that is read while it is sent.
type Carried = Either<Full<Bytes>, Upload>;

/// Connections to one server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<Bounded<HttpsConnector<HttpConnector>>, Carried>,
    address: Arc<Address>,
    connect_timeout: Duration,
}

/// A request in few words.
pub struct Asked<'a> {
    pub method: Method,
    pub path: &'a str,
    pub body: Option<Bytes>,
}

impl Client {
    pub fn new(config: &Config, address: Address) -> Result<Self, tls::TlsError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.connect_timeout));
        tcp.set_keepalive(Some(Duration::from_mins(1)));
        let tls = tls::client_config(&address, config.ca_file.as_deref())?;
        let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.pool_idle_timeout)
            .pool_max_idle_per_host(config.pool_max_idle)
            .build(Bounded::new(https, config.connect_timeout));
        Ok(Self { http, address: Arc::new(address), connect_timeout: config.connect_timeout })
    }

    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Posts a generation and waits for the head of its answer, at most for `patience`.
    ///
    /// # Errors
    /// What kept the head from coming; its status is not looked at.
    pub async fn generate(&self, body: Bytes, id: &RequestId, patience: Duration) -> Result<Response<Incoming>, Error> {
        let mut request = self.request(Method::POST, "/api/generate", NDJSON, Some(body))?;
        if let Ok(id) = HeaderValue::from_str(id.as_str()) {
            request.headers_mut().insert("x-request-id", id);
        }
        let stalled = Error::Stalled { stage: "waiting for the first token", silent: patience };
        timeout(patience, self.send(request)).await.map_err(|_| stalled)?
    }

    /// Asks for a small JSON answer; everything must be there within `patience`.
    pub async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Bytes>, patience: Duration) -> Result<T, Error> {
        let request = self.request(method, path, JSON, body)?;
        let answer = timeout(patience, async {
            let response = self.send(request).await?;
            if response.status() != StatusCode::OK {
                return Err(refused(response, "").await);
            }
            collect(response.into_body(), METADATA_BYTES).await
        });
        let bytes = answer.await.map_err(|_| Error::Stalled { stage: "waiting for a short answer", silent: patience })??;
        serde_json::from_slice(&bytes).map_err(|_| Error::Protocol {
            message: format!("{path} is answered with {}: is this an Ollama server?", refusal::excerpt(&bytes)),
        })
    }

    /// Sends a request and waits for the head of its answer, at most for `patience`; `stage` says what is waited for.
    ///
    /// # Errors
    /// What kept the head from coming; its status is not looked at.
    pub async fn head_of(&self, request: Asked<'_>, stage: &'static str, patience: Duration) -> Result<Response<Incoming>, Error> {
        let request = self.request(request.method, request.path, NDJSON, request.body)?;
        timeout(patience, self.send(request)).await.map_err(|_| Error::Stalled { stage, silent: patience })?
    }

    /// Posts a file. Takes as long as it takes: whoever calls watches whether bytes go out.
    ///
    /// # Errors
    /// As [`Client::head_of`], and when the file cannot be read to its end.
    pub async fn upload(&self, path: &str, upload: Upload) -> Result<Response<Incoming>, Error> {
        let mut request = self.request(Method::POST, path, JSON, None)?.map(|_| Either::Right(upload));
        request.headers_mut().insert(CONTENT_TYPE, OCTETS);
        self.send(request).await
    }

    fn request(&self, method: Method, path: &str, accept: HeaderValue, body: Option<Bytes>) -> Result<Request<Carried>, Error> {
        let broken = |error: http::Error| Error::Unreachable { message: format!("no request can be made for {}: {error}", self.address) };
        let mut request = Request::builder().method(method).uri(self.address.uri(path).map_err(broken)?);
        // The client adds `Host` from the URI: Ollama refuses names it does not know.
        if let Some(headers) = request.headers_mut() {
            headers.insert(ACCEPT, accept);
            headers.insert(USER_AGENT, AGENT);
            if body.is_some() {
                headers.insert(CONTENT_TYPE, JSON);
            }
            if let Some(credentials) = self.address.authorization() {
                headers.insert(AUTHORIZATION, credentials.clone());
            }
        }
        request.body(Either::Left(Full::new(body.unwrap_or_default()))).map_err(broken)
    }

    async fn send(&self, request: Request<Carried>) -> Result<Response<Incoming>, Error> {
        self.http.request(request).await.map_err(|error| {
            if error.is_connect() {
                return Error::Unreachable { message: connect::explain(&error, &self.address, self.connect_timeout) };
            }
            Error::Failed { status: None, message: format!("it ended the connection before it answered ({})", connect::root(&error)) }
        })
    }
}

/// The error that an answer other than 200 stands for. `model` is what was asked for.
pub async fn refused(response: Response<Incoming>, model: &str) -> Error {
    let (head, body) = response.into_parts();
    let mut told = BytesMut::new();
    let until = Instant::now() + ERROR_BODY_TIMEOUT;
    // What has come by then says enough.
    let _ = timeout_at(until, gather(body, &mut told, ERROR_BODY_BYTES)).await;
    refusal::from_answer(head.status, &head.headers, &told, model)
}

/// The whole body.
///
/// # Errors
/// A broken connection, or more than `max_bytes`.
pub async fn collect(body: Incoming, max_bytes: usize) -> Result<Bytes, Error> {
    let mut bytes = BytesMut::new();
    match gather(body, &mut bytes, max_bytes).await {
        Ok(true) => Ok(bytes.freeze()),
        Ok(false) => Err(Error::Protocol { message: format!("an answer has more than {max_bytes} bytes") }),
        Err(error) => Err(Error::Failed {
            status: None,
            message: format!("the connection broke in the middle of an answer ({})", connect::root(&error)),
        }),
    }
}

/// Reads into `into`, at most `max_bytes`. Whether that was all.
async fn gather(mut body: Incoming, into: &mut BytesMut, max_bytes: usize) -> Result<bool, hyper::Error> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = max_bytes - into.len();
        into.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok(false);
        }
    }
    Ok(true)
}
