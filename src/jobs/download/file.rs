//! One file from the Hub to the disk: from where it stopped, as often as it takes.

use std::path::Path;

use futures_util::StreamExt;
use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;

use super::listing::Entry;
use super::part::{self, Part};
use super::{Error, Hub, Name, error};

pub(super) struct Transfer<'a> {
    pub hub: &'a Hub,
    pub name: &'a Name,
    pub revision: &'a str,
    pub entry: &'a Entry,
    pub into: &'a Path,
    /// Hears how many bytes of this file are there.
    pub told: &'a (dyn Fn(u64) + Sync),
}

impl Transfer<'_> {
    /// The size of the file, and how much of it came over the network now.
    pub async fn run(&self) -> Result<(u64, u64), Error> {
        let target = self.into.join(&self.entry.path);
        if let Some(length) = part::finished(&target, self.entry).await? {
            (self.told)(length);
            return Ok((length, 0));
        }
        let (mut received, mut failures) = (0, 0);
        loop {
            let before = received;
            match self.attempt(&target, &mut received).await {
                Err(error) if error.is_transient() && failures < self.hub.config.retries => {
                    // Bytes that came make up for earlier failures, unless they were thrown away.
                    let forgiven = received > before && !matches!(error, Error::Corrupt { .. });
                    failures = if forgiven { 1 } else { failures + 1 };
                    tracing::debug!(file = self.entry.path, %error, failures, "a fetch goes on after a pause");
                    tokio::time::sleep(self.hub.pause(failures)).await;
                }
                outcome => return outcome.map(|length| (length, received)),
            }
        }
    }

    async fn attempt(&self, target: &Path, received: &mut u64) -> Result<u64, Error> {
        let mut part = Part::open(target).await?;
        if self.entry.size_bytes.is_some_and(|size| part.length > size) {
            part.clear().await?;
        }
        // Without a known size nobody can tell whether a part is the whole.
        if self.entry.size_bytes.is_none() || self.entry.size_bytes != Some(part.length) || part.length == 0 {
            self.receive(&mut part, received).await?;
        }
        part.finish(target, self.entry).await
    }

    async fn receive(&self, part: &mut Part, received: &mut u64) -> Result<(), Error> {
        let from = Some(part.length).filter(|length| *length > 0);
        let response = self.hub.ask(&self.url(), from).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response, part.length) => {}
            // The whole file, whatever was asked for.
            StatusCode::OK => part.clear().await?,
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT => {
                part.clear().await?;
                return Err(self.hub.refused(StatusCode::RANGE_NOT_SATISFIABLE, self.name));
            }
            status => return Err(self.hub.refused(status, self.name)),
        }
        let outcome = self.take(response, part, received).await;
        // Whatever ended it: what came is kept.
        part.flush().await?;
        outcome
    }

    async fn take(&self, response: reqwest::Response, part: &mut Part, received: &mut u64) -> Result<(), Error> {
        let most = self.entry.size_bytes.unwrap_or(self.hub.config.max_bytes);
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| self.broken(error::root(&error)))?;
            if piece.len() as u64 > most.saturating_sub(part.length) {
                part.clear().await?;
                let path = self.into.join(&self.entry.path);
                return Err(Error::Corrupt { path, why: format!("more than {most} bytes") });
            }
            part.push(&piece).await?;
            *received += piece.len() as u64;
            (self.told)(part.length);
        }
        match self.entry.size_bytes {
            Some(size) if part.length < size => Err(self.broken(format!("it ended after {} of {size} bytes", part.length))),
            _ => Ok(()),
        }
    }

    fn broken(&self, why: String) -> Error {
        Error::Network { place: self.hub.config.base().to_owned(), why }
    }

    /// By commit, so that all files are of one state.
    fn url(&self) -> String {
        let path: Vec<String> = self.entry.path.split('/').map(escaped).collect();
        format!("{}/{}/resolve/{}/{}", self.hub.config.base(), self.name.repository, self.revision, path.join("/"))
    }
}

fn escaped(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    part.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect::<Vec<_>>().concat()
}

fn begins_at(response: &reqwest::Response, start: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.trim_start().starts_with(&format!("bytes {start}-")))
}
