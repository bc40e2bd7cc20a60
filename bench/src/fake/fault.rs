//! What can go wrong, and on which request.
//!
//! A [`Fault`] says what happens, a [`Rule`] when. Rules are asked in order for every request they cover; the first that
//! fires wins. Counting is per rule, so "the second request to `/api/chat`" and "the next three of any kind" may stand together.

use std::time::Duration;

/// What happens instead of, or in the middle of, an honest answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A status (500, 429, 503, 404 …) with Ollama's error body.
    Status { code: u16, message: String, retry_after_s: Option<u64> },
    /// The request is read and never answered.
    Hang,
    /// The connection is closed in order (FIN) before any byte of the answer.
    CloseBeforeHeaders,
    /// The connection is reset (RST) before any byte of the answer.
    ResetBeforeHeaders,
    /// The answer breaks after this many tokens, or before its end if it has fewer. Generate, chat and (in lines) create only.
    After(usize, Midway),
    /// So many lines of create, then one that is this error; the model is not made.
    LineOfError(usize, String),
    /// After so many bytes of the request's body the connection is reset…
    ResetInBody(usize),
    /// …or nothing more is read of it.
    StallInBody(usize),
    /// What was asked for is done, then the connection is reset instead of an answer. Copy, delete and blobs only.
    DoneThenReset,
    /// The disk is found to be full when a copy is half written: what had the name is gone. Copy only.
    HalfCopy,
    /// The head of the answer comes byte by byte, this far apart.
    SlowHeaders(Duration),
    /// Every byte of the answer is written by itself.
    SplitBytes,
}

/// What happens in the middle of an answer. Without streaming, "the middle" is the middle of the one JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Midway {
    /// FIN without the end of the body.
    Close,
    /// RST.
    Reset,
    /// Nothing more comes, the connection stays open.
    Stall,
    /// A line `{"error":…}` and the proper end of the body; without streaming a 500.
    ErrorLine,
    /// A line that is not JSON, then the proper end.
    Garbage,
    /// A token of this many bytes, then the answer goes on.
    HugeLine(usize),
    /// Half a JSON object, then the proper end.
    TruncatedJson,
    /// The proper end of the body, without the final object.
    EndWithoutDone,
    /// The runner process dies: all requests on it end with Ollama's text, and the model is no longer loaded.
    RunnerDeath,
}

impl Fault {
    /// A status with the text Ollama or a proxy before it would give.
    pub fn status(code: u16) -> Self {
        let message = match code {
            404 => "model not found",
            429 => "too many requests",
            503 => super::scheduler::BUSY,
            _ => {
                "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, check ollama server logs for details"
            }
        };
        Self::Status { code, message: message.to_owned(), retry_after_s: None }
    }

    /// The same with a `Retry-After` header.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        match self {
            Self::Status { code, message, .. } => Self::Status { code, message, retry_after_s: Some(seconds) },
            other => other,
        }
    }

    pub(super) fn midway(&self) -> Option<(usize, Midway)> {
        match self {
            Self::After(tokens, midway) => Some((*tokens, *midway)),
            _ => None,
        }
    }
}

/// When a rule fires, counted over the requests it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    /// The request of this number, from 0.
    Nth(u64),
    /// This many, from now on.
    Next(u64),
    /// All from this number on, from 0.
    From(u64),
}

/// Which requests a rule covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On {
    /// `generate`, `chat`, `embed`, `embeddings`.
    Inference,
    /// This path alone.
    Path(String),
    Everything,
}

/// One entry of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub on: On,
    pub when: When,
    pub fault: Fault,
}

/// Which requests fail, and how.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    rules: Vec<(Rule, u64)>,
}

impl Plan {
    pub fn none() -> Self {
        Self::default()
    }

    /// Every inference request fails like this.
    pub fn always(fault: Fault) -> Self {
        Self::default().rule(On::Inference, When::Always, fault)
    }

    /// The next `count` inference requests fail like this.
    pub fn next(count: u64, fault: Fault) -> Self {
        Self::default().rule(On::Inference, When::Next(count), fault)
    }

    /// The inference request of this number (from 0) fails like this.
    pub fn nth(number: u64, fault: Fault) -> Self {
        Self::default().rule(On::Inference, When::Nth(number), fault)
    }

    #[must_use]
    pub fn rule(mut self, on: On, when: When, fault: Fault) -> Self {
        self.rules.push((Rule { on, when, fault }, 0));
        self
    }

    /// Counts a request and says what is to happen to it.
    pub(super) fn draw(&mut self, path: &str) -> Option<Fault> {
        let mut drawn = None;
        for (rule, seen) in &mut self.rules {
            if !rule.covers(path) {
                continue;
            }
            let number = std::mem::replace(seen, *seen + 1);
            if drawn.is_none() && rule.fires(number) {
                drawn = Some(rule.fault.clone());
            }
        }
        drawn
    }
}

impl Rule {
    fn covers(&self, path: &str) -> bool {
        match &self.on {
            On::Inference => is_inference(path),
            On::Path(wanted) => wanted == path,
            On::Everything => true,
        }
    }

    fn fires(&self, number: u64) -> bool {
        match self.when {
            When::Always => true,
            When::Nth(n) => number == n,
            When::Next(count) => number < count,
            When::From(n) => number >= n,
        }
    }
}

pub(super) fn is_inference(path: &str) -> bool {
    matches!(path, "/api/generate" | "/api/chat" | "/api/embed" | "/api/embeddings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_count_the_requests_they_cover() {
        let mut plan = Plan::nth(1, Fault::Hang).rule(On::Path("/api/tags".into()), When::Next(1), Fault::SplitBytes);
        assert_eq!(plan.draw("/api/generate"), None);
        assert_eq!(plan.draw("/api/tags"), Some(Fault::SplitBytes));
        assert_eq!(plan.draw("/api/tags"), None);
        assert_eq!(plan.draw("/api/chat"), Some(Fault::Hang));
        assert_eq!(plan.draw("/api/chat"), None);
    }
}
