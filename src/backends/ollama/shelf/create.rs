//! Building a model from files the server has: what is sent, and the stream of words it is answered with.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::{Error, Shelf, bytes};
use crate::backends::Error as Failure;
use crate::backends::ollama::client::{self, Asked};
use crate::backends::ollama::ndjson::Framer;
use crate::backends::ollama::{connect, refusal};
use crate::domain::digest::Digest;
use crate::domain::id::ModelName;

const STAGE: &str = "building a model";
/// The last word of a model that was built.
const SUCCESS: &str = "success";
/// What stands before the digest of each part of a model.
const LAYERS: [&str; 2] = ["using existing layer ", "creating new layer "];
/// Parts of one model that are remembered; it has about ten.
const MAX_LAYERS: usize = 256;

/// A model to be built. What is `None` or empty is not sent: the server then finds its own.
#[derive(Debug, Clone, Serialize)]
pub struct Creation {
    pub model: ModelName,
    /// Relative names, which the server only looks at the endings of, and digests of files it has.
    pub files: BTreeMap<String, Digest>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub adapters: BTreeMap<String, Digest>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub license: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
}

/// One message that every conversation with the model begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A model that was built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Created {
    /// Its parts, in the server's order. A file that the server keeps as it was sent is among them.
    pub layers: Vec<Digest>,
}

/// One line of the answer.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    status: String,
    error: Option<Value>,
}

impl Shelf {
    /// Builds a model. `told` hears the server's words, line by line.
    ///
    /// # Errors
    /// What the server says went wrong, before its stream or in it; a stream that breaks, falls silent or ends without success. The
    /// model may then be there or not.
    pub async fn create(&self, creation: &Creation, told: &(dyn Fn(&str) + Sync)) -> Result<Created, Error> {
        let asked = Asked { method: Method::POST, path: "/api/create", body: Some(bytes(creation)) };
        let response = self.client.head_of(asked, STAGE, self.patience.build_silence).await?;
        if response.status() != StatusCode::OK {
            return Err(client::refused(response, creation.model.as_str()).await.into());
        }
        let mut telling = Telling::new(self.max_line_bytes);
        let mut body = response.into_body();
        while let Some(piece) = next(&mut body, self.patience.build_silence).await? {
            telling.hear(piece, told)?;
        }
        telling.end(told).map_err(Error::from)
    }
}

/// The next bytes of the answer; `None` at its end.
async fn next(body: &mut Incoming, silence: Duration) -> Result<Option<Bytes>, Failure> {
    loop {
        let Some(frame) = timeout(silence, body.frame()).await.map_err(|_| Failure::Stalled { stage: STAGE, silent: silence })? else {
            return Ok(None);
        };
        let broken = |error| Failure::Failed {
            status: None,
            message: format!("the connection broke while it built a model ({})", connect::root(&error)),
        };
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            return Ok(Some(data));
        }
    }
}

/// What the server has told so far.
struct Telling {
    framer: Framer,
    created: Created,
    succeeded: bool,
    last: String,
}

impl Telling {
    fn new(max_line_bytes: usize) -> Self {
        Self { framer: Framer::new(max_line_bytes), created: Created::default(), succeeded: false, last: String::new() }
    }

    fn hear(&mut self, mut piece: Bytes, told: &(dyn Fn(&str) + Sync)) -> Result<(), Failure> {
        let too_long = |error: crate::backends::ollama::ndjson::LineTooLong| Failure::Protocol { message: error.to_string() };
        while let Some(line) = self.framer.next_line(&mut piece).map_err(too_long)? {
            self.line(&line, told)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], told: &(dyn Fn(&str) + Sync)) -> Result<(), Failure> {
        let garbled = |_| Failure::Protocol { message: format!("a line about building a model is none: {}", refusal::excerpt(line)) };
        let line: Line = serde_json::from_slice(line).map_err(garbled)?;
        if let Some(error) = line.error {
            return Err(refusal::in_band(&error));
        }
        self.succeeded |= line.status == SUCCESS;
        let layer: Option<Digest> = LAYERS.iter().find_map(|words| line.status.strip_prefix(words)).and_then(|digest| digest.parse().ok());
        if self.created.layers.len() < MAX_LAYERS {
            self.created.layers.extend(layer);
        }
        told(&line.status);
        self.last = line.status;
        Ok(())
    }

    fn end(mut self, told: &(dyn Fn(&str) + Sync)) -> Result<Created, Failure> {
        if let Some(rest) = self.framer.finish() {
            self.line(&rest, told)?;
        }
        if self.succeeded {
            return Ok(self.created);
        }
        let last = refusal::excerpt(self.last.as_bytes());
        Err(Failure::Protocol { message: format!("it stopped building a model without saying why; its last word was {last}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &str, piece_bytes: usize) -> Result<(Created, Vec<String>), Failure> {
        let words = std::sync::Mutex::new(Vec::new());
        let told = |word: &str| words.lock().expect("unpoisoned").push(word.to_owned());
        let mut telling = Telling::new(4096);
        for piece in text.as_bytes().chunks(piece_bytes) {
            telling.hear(Bytes::copy_from_slice(piece), &told)?;
        }
        let created = telling.end(&told)?;
        Ok((created, words.into_inner().expect("unpoisoned")))
    }

    const LAYER: &str = "sha256:a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818";

    #[test]
    fn parts_are_remembered_however_the_stream_is_cut() {
        let text = format!("{{\"status\":\"parsing GGUF\"}}\n{{\"status\":\"using existing layer {LAYER}\"}}\n{{\"status\":\"success\"}}");
        for piece_bytes in [1, 7, 1000] {
            let (created, words) = heard(&text, piece_bytes).expect("built");
            assert_eq!(created.layers, [LAYER.parse().expect("a digest")]);
            assert_eq!(words.last().map(String::as_str), Some("success"));
        }
    }

    #[test]
    fn an_error_inside_the_stream_is_one_and_so_is_an_end_without_success() {
        let error = heard("{\"status\":\"parsing GGUF\"}\n{\"error\":\"no space left on device\"}\n{\"status\":\"success\"}\n", 9)
            .expect_err("an error");
        assert!(matches!(&error, Failure::Failed { status: None, message } if message == "no space left on device"), "{error}");
        let error = heard("{\"status\":\"writing manifest\"}\n", 9).expect_err("no success");
        assert!(error.to_string().contains("`writing manifest`"), "{error}");
        assert!(matches!(heard("gar\nbage\n", 9), Err(Failure::Protocol { .. })));
        assert!(matches!(heard(&"x".repeat(5000), 100), Err(Failure::Protocol { .. })));
    }

    #[test]
    fn what_is_not_given_is_not_sent() {
        let creation = Creation {
            model: ModelName::parse("m").expect("a name"),
            files: BTreeMap::from([("model.gguf".to_owned(), LAYER.parse().expect("a digest"))]),
            adapters: BTreeMap::new(),
            parameters: Map::new(),
            system: None,
            template: None,
            license: Vec::new(),
            messages: Vec::new(),
        };
        assert_eq!(serde_json::to_value(&creation).expect("JSON"), serde_json::json!({"model": "m", "files": {"model.gguf": LAYER}}));
    }
}
