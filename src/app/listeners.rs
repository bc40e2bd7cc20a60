//! The addresses that are listened on: the main one, and one for each identity.

use std::net::SocketAddr;

use axum::Router;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use crate::api;
use crate::api::listener::{Config, Listener};
use crate::auth::Keys;
use crate::telemetry::metrics::Metrics;

/// Bound sockets.
pub struct Listeners {
    main: Listener,
    /// The main one first.
    addresses: Vec<SocketAddr>,
    /// With the name of the key that each stands for.
    identities: Vec<(Listener, String)>,
}

impl Listeners {
    /// # Errors
    /// An address that cannot be listened on.
    pub fn bind(config: &Config) -> Result<Self, Error> {
        let main = Listener::bind(config).map_err(|source| failed(config.listen, source))?;
        let bind = |identity: &api::listener::Identity| {
            let listener = main.bind_another(identity.listen).map_err(|source| failed(identity.listen, source))?;
            Ok((listener, identity.key_name.clone()))
        };
        let identities = config.identity.iter().map(bind).collect::<Result<Vec<_>, Error>>()?;
        let all = std::iter::once(&main).chain(identities.iter().map(|(listener, _)| listener));
        let addresses = all.map(Listener::address).collect::<Result<_, _>>().map_err(|source| failed(config.listen, source))?;
        Ok(Self { main, addresses, identities })
    }

    /// Where they are: the main one, then the identities in their order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Begins to accept on all of them.
    pub fn serve(self, routes: &Router, metrics: &Metrics, stopping: &CancellationToken) -> JoinSet<()> {
        let mut server = JoinSet::new();
        server.spawn(self.main.serve(routes.clone(), metrics.clone(), stopping.clone()));
        for (listener, key_name) in self.identities {
            let routes = api::as_identity(routes.clone(), &key_name);
            server.spawn(listener.serve(routes, metrics.clone(), stopping.clone()));
        }
        server
    }
}

fn failed(address: SocketAddr, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::AddressInUse { address },
        _ => Error::Bind { address, source },
    }
}

/// Whether other machines can reach the main address, and nobody said that this is as it should be.
pub fn exposed(config: &Config) -> bool {
    !config.listen.ip().is_loopback() && !config.insecure_public_bind
}

/// # Errors
/// When others can reach an address where nothing asks who they are.
pub fn refuse_strangers(config: &Config, keys: &Keys) -> Result<(), Error> {
    if exposed(config) && !(keys.required() && (keys.any_usable() || keys.offers_first())) {
        return Err(Error::PublicBind { address: config.listen });
    }
    let public = |identity: &&api::listener::Identity| !identity.listen.ip().is_loopback() && !config.insecure_public_bind;
    match config.identity.iter().find(public) {
        Some(identity) => Err(Error::PublicIdentity { address: identity.listen, key_name: identity.key_name.clone() }),
        None => Ok(()),
    }
}

/// Says which addresses stand for keys that are not valid: every request there is refused.
pub fn warn_of_identities(config: &Config, keys: &Keys) {
    for identity in &config.identity {
        if let Err(denied) = keys.named(&identity.key_name) {
            let (address, key) = (identity.listen, &identity.key_name);
            tracing::warn!(%address, key, why = %denied, "requests to this address are refused: it stands for a key that is not valid; `arriero keys create` makes one");
        }
    }
}
