//! Connecting within a bound, and saying in words why it failed.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use tower_service::Service;

use super::address::Address;
use crate::domain::span;

type BoxError = Box<dyn StdError + Send + Sync>;

/// A connector whose whole work (look-up, connection, handshake) takes at most this long.
#[derive(Clone)]
pub struct Bounded<C> {
    connector: C,
    patience: Duration,
}

impl<C> Bounded<C> {
    pub fn new(connector: C, patience: Duration) -> Self {
        Self { connector, patience }
    }
}

impl<C> Service<Uri> for Bounded<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
    C::Response: 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.patience, self.connector.call(uri));
        Box::pin(async move { connecting.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) })
    }
}

/// Why there is no connection, and what to look at.
#[must_use]
pub fn explain(error: &(dyn StdError + 'static), address: &Address, patience: Duration) -> String {
    let place = address.authority();
    if let Some(tls) = chain(error).find_map(tls_error) {
        return format!("the TLS handshake with {place} failed: {tls}{}", tls_hint(tls));
    }
    if chain(error).any(|e| e.to_string().starts_with("dns error")) {
        return format!("the name in {place} cannot be resolved ({}): is it written correctly?", root(error));
    }
    match chain(error).find_map(|e| e.downcast_ref::<io::Error>()).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => format!("{place} refuses connections: is Ollama running there?"),
        Some(io::ErrorKind::TimedOut) => {
            let patience = span::format(patience);
            format!("no connection to {place} within {patience}: is the address right, and nothing in between?")
        }
        _ => format!("no connection to {place} ({})", root(error)),
    }
}

/// What lies under an error, in its own words.
#[must_use]
pub fn root(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map_or_else(String::new, ToString::to_string)
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

/// TLS errors travel inside I/O errors, even two of them, whose `source` leaves out what they hold.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref().or_else(|| tls_error(error.downcast_ref::<io::Error>()?.get_ref()?))
}

fn tls_hint(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidMessage(_) => "; does it speak plain http there?",
        rustls::Error::InvalidCertificate(_) => "; a private authority is named with ca_file",
        _ => "",
    }
}
