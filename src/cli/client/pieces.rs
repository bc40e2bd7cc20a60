//! Answers that are long: files and streams of events.

use super::root_cause;
use crate::cli::exit::{Exit, Failure};
use crate::cli::sse::{Decoder, Event};

/// A long answer on its way.
#[derive(Debug)]
pub struct Pieces {
    response: reqwest::Response,
    decoder: Decoder,
    ready: std::vec::IntoIter<Event>,
}

impl Pieces {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self { response, decoder: Decoder::default(), ready: Vec::new().into_iter() }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the answer breaks off.
    pub async fn piece(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        let broken =
            |error: reqwest::Error| Failure::new(Exit::Gateway, format!("the answer broke off: {}", root_cause(&error)), "ask again");
        self.response.chunk().await.map_err(broken)
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// When the answer breaks off.
    pub async fn event(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = self.ready.next() {
                return Ok(Some(event));
            }
            let Some(piece) = self.piece().await? else { return Ok(None) };
            let events = self.decoder.push(&piece).map_err(|error| Failure::new(Exit::Refused, error.to_string(), ""))?;
            self.ready = events.into_iter();
        }
    }
}
