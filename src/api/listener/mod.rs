//! The accept loop. Own, because the ready-made one sets neither `TCP_NODELAY` nor any bound.
//!
//! It promises: a head that does not come in time, a connection that says nothing, a peer that does not read and more connections than
//! allowed are each ended; after [`Listener::serve`] was told to stop, running answers finish and nothing new starts.

mod guarded;
mod settled;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequest;

use crate::domain::span;
use crate::telemetry::metrics::Metrics;
use guarded::Guarded;
use settled::settled;

/// Where and how connections are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub listen: SocketAddr,
    /// Whether an address that others can reach may be bound although nothing asks who they are.
    pub insecure_public_bind: bool,
    /// More addresses, each of which stands for one key.
    pub identity: Vec<Identity>,
    /// Whether to start although no backend answers and no model is there to be served.
    pub start_without_backend: bool,
    /// Connections at a time; more are answered 503 and closed.
    pub max_connections: usize,
    /// Time for the head of a request, from the moment the connection could send one. Bounds idle connections too.
    #[serde(with = "span")]
    pub header_timeout: Duration,
    /// Largest head of a request, in bytes (at least 8192).
    pub max_header_bytes: usize,
    /// Longest time a client may leave an answer unread.
    #[serde(with = "span")]
    pub write_stall_timeout: Duration,
    /// Time that running answers have to finish when the process is told to stop.
    #[serde(with = "span")]
    pub shutdown_grace: Duration,
}

/// An address that stands for a key: whoever connects there is its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub listen: SocketAddr,
    pub key_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            insecure_public_bind: false,
            identity: Vec::new(),
            start_without_backend: false,
            max_connections: 10_000,
            header_timeout: Duration::from_secs(30),
            max_header_bytes: 32 << 10,
            write_stall_timeout: Duration::from_mins(1),
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// Connections the kernel holds before they are accepted.
const BACKLOG: u32 = 1024;
/// Pause after the system refused to give a connection, e.g. because all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a connection beyond the bound is told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n\
content-length: 170\r\n\r\n{\"type\":\"urn:arriero:problem:overloaded\",\"title\":\"Too many connections\",\"status\":503,\"code\":\"overloaded\",\
\"detail\":\"too many connections are open\",\"retry_after_seconds\":1}";

/// The other end of the connection that a request came by; in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// A bound socket.
pub struct Listener {
    socket: TcpListener,
    config: Config,
    /// The bound on connections.
    permits: Arc<Semaphore>,
}

impl Listener {
    /// # Errors
    /// Those of the system, e.g. that the address is in use.
    pub fn bind(config: &Config) -> io::Result<Self> {
        let permits = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
        Ok(Self { socket: socket(config.listen)?, config: config.clone(), permits })
    }

    /// Binds another address, under the same bounds: connections count together.
    ///
    /// # Errors
    /// Those of the system.
    pub fn bind_another(&self, address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: socket(address)?, config: self.config.clone(), permits: Arc::clone(&self.permits) })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until `stopping`, then waits for the running answers. Dropping the future ends them at once.
    pub async fn serve(self, routes: Router, metrics: Metrics, stopping: CancellationToken) {
        let connections = Connections::new(&self.config, self.permits, routes, metrics);
        let graceful = GracefulShutdown::new();
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                Some(_) = open.join_next(), if !open.is_empty() => {}
                accepted = self.socket.accept() => match accepted {
                    Ok((socket, peer)) => connections.accept(socket, Peer(peer.ip()), &graceful, &mut open),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.socket);
        graceful.shutdown().await;
        while open.join_next().await.is_some() {}
    }
}

fn socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Without it a restart has to wait for the connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

struct Connections {
    http: http1::Builder,
    routes: Router,
    metrics: Metrics,
    permits: Arc<Semaphore>,
    write_stall_timeout: Duration,
}

impl Connections {
    fn new(config: &Config, permits: Arc<Semaphore>, routes: Router, metrics: Metrics) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout).max_buf_size(config.max_header_bytes.max(8192));
        Self { http, routes, metrics, permits, write_stall_timeout: config.write_stall_timeout }
    }

    fn accept(&self, socket: TcpStream, peer: Peer, graceful: &GracefulShutdown, open: &mut JoinSet<()>) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.connection_refused();
            // Whatever of it the socket's empty buffer does not take is lost: nobody waits for a client beyond the bound.
            let _ = socket.try_write(FULL);
            return;
        };
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection was lost before its first request");
            return;
        }
        let io = TokioIo::new(Guarded::new(socket, self.write_stall_timeout));
        let service = TowerToHyperService::new(MapRequest::new(self.routes.clone(), move |request| from(peer, request)));
        let connection = graceful.watch(self.http.serve_connection(io, service));
        open.spawn(drive(connection, permit, self.metrics.connection_opened()));
    }
}

/// Notes on a request where it came from.
fn from(peer: Peer, mut request: hyper::Request<Incoming>) -> hyper::Request<Incoming> {
    request.extensions_mut().insert(peer);
    request
}

/// Runs one connection to its end, holding what counts it.
async fn drive(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    _permit: OwnedSemaphorePermit,
    _counted: crate::telemetry::metrics::Connection,
) {
    if let Err(error) = settled(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// The routes never fail: every failure is an answer.
const _: fn() = || {
    fn infallible<S: tower::Service<axum::extract::Request, Error = Infallible>>() {}
    infallible::<Router>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_beyond_the_bound_is_as_long_as_it_says() {
        let text = str::from_utf8(FULL).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }
}
