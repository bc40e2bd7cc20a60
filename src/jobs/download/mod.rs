//! Fetching a model by its name from the Hugging Face Hub, or from a mirror that speaks as it does.
//!
//! [`Hub::fetch`] promises: every file that stands under its own name is whole and, where the Hub tells a SHA-256, is that one; a fetch that
//! was cut, cancelled or killed goes on where it stopped; all files are of one revision, the one that was there when it began; what is
//! listed is not trusted: names stay below the folder, and no more bytes are written than were announced.
//! It fetches weights and what describes them, and no code of the model; it does not convert, and it keeps no cache of its own.

mod config;
mod error;
mod file;
mod listing;
mod name;
mod part;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::secret::Secret;

use file::Transfer;
use listing::Listing;

pub use config::Config;
pub use error::Error;
pub use name::{Name, NameError};

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file that is fetched now.
    pub file: &'a str,
    /// Bytes of all files that are there, and how many there are to be, as far as the Hub tells.
    pub done_bytes: u64,
    pub of_bytes: u64,
}

/// Who hears how far it is. Must return at once.
pub type Told<'a> = &'a (dyn Fn(Progress<'_>) + Sync);

/// A model that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The commit that a branch's name stood for.
    pub revision: String,
    /// Paths below the folder, in the Hub's order.
    pub files: Vec<PathBuf>,
    /// Bytes that came over the network now.
    pub received_bytes: u64,
}

/// A place to fetch models from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub {
    http: reqwest::Client,
    config: Config,
    token: Option<Secret>,
}

impl Hub {
    /// Does not connect. The token is sent to the configured address and to nobody it redirects to.
    ///
    /// # Errors
    /// TLS that cannot be set up on this machine.
    pub fn new(config: Config) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("arriero/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.connect_timeout)
            .read_timeout(config.stall_timeout)
            .redirect(reqwest::redirect::Policy::limited(5))
            .build()
            .map_err(|error| Error::Client { why: error::root(&error) })?;
        let token = Some(config.token.as_str()).filter(|token| !token.is_empty()).map(Secret::new);
        Ok(Self { http, config, token })
    }

    /// Fetches what is needed of a model into a folder, which is made if need be. Files that are there already are looked at, not fetched.
    ///
    /// # Errors
    /// A model that is not there or not open, a network that does not come back, a disk that is full; what has come so far stays, and the
    /// next call goes on from there.
    pub async fn fetch(&self, name: &Name, into: &Path, told: Told<'_>, cancel: &CancellationToken) -> Result<Fetched, Error> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            fetched = self.fetch_all(name, into, told) => fetched,
        }
    }

    async fn fetch_all(&self, name: &Name, into: &Path, told: Told<'_>) -> Result<Fetched, Error> {
        let listing = self.listing(name).await?;
        let wanted = listing.wanted(name)?;
        let of_bytes = wanted.iter().filter_map(|entry| entry.size_bytes).fold(0, u64::saturating_add);
        if of_bytes > self.config.max_bytes {
            return Err(Error::TooMuch { name: name.to_string(), bytes: of_bytes, most: self.config.max_bytes });
        }
        let (mut done_bytes, mut received_bytes) = (0, 0);
        for entry in &wanted {
            let hear = |bytes: u64| told(Progress { file: &entry.path, done_bytes: done_bytes + bytes, of_bytes });
            let transfer = Transfer { hub: self, name, revision: &listing.revision, entry, into, told: &hear };
            let (size_bytes, received) = transfer.run().await?;
            done_bytes += size_bytes;
            received_bytes += received;
        }
        let files = wanted.iter().map(|entry| PathBuf::from(&entry.path)).collect();
        Ok(Fetched { revision: listing.revision, files, received_bytes })
    }

    async fn listing(&self, name: &Name) -> Result<Listing, Error> {
        let url = format!("{}/api/models/{}/revision/{}?blobs=true", self.config.base(), name.repository, name.revision);
        let mut failures = 0;
        loop {
            match self.list_once(&url, name).await {
                Err(error) if error.is_transient() && failures < self.config.retries => {
                    failures += 1;
                    tokio::time::sleep(self.pause(failures)).await;
                }
                other => return other,
            }
        }
    }

    async fn list_once(&self, url: &str, name: &Name) -> Result<Listing, Error> {
        let response = self.ask(url, None).await?;
        if !response.status().is_success() {
            return Err(self.refused(response.status(), name));
        }
        Listing::read(response, name).await
    }

    /// One GET, from a byte on where that is said.
    async fn ask(&self, url: &str, from: Option<u64>) -> Result<reqwest::Response, Error> {
        let mut request = self.http.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        if let Some(from) = from {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.send().await.map_err(|error| Error::Network { place: self.config.base().to_owned(), why: error::root(&error) })
    }

    fn refused(&self, status: reqwest::StatusCode, name: &Name) -> Error {
        Error::refused(status.as_u16(), name, self.config.base(), self.token.is_some())
    }

    /// Longer after each failure in a row.
    fn pause(&self, failures: u32) -> Duration {
        self.config.retry_pause.saturating_mul(1 << failures.saturating_sub(1).min(6))
    }
}
