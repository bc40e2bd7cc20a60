//! From a runner to the wire: waits for a slot, works as long as a model would, and writes the answer, streamed or whole.
//!
//! Timing, counting and the order of events are the same for both endpoints; they differ in the objects, which
//! [`Dialect`] makes. What breaks an answer is in [`super::breakage`].

use super::{
    answer::{Said, Speaker},
    dialect::{Dialect, Totals},
    fault::Midway,
    prefix,
    prepare::Refusal,
    record::{Phase, Ticket},
    scheduler::Lease,
    script::Script,
    wire::{self, NDJSON, Reply, Writer},
};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Next,
    Close,
    Reset,
}

/// The text of a runner that died (Ollama's).
const DIED: &str = "an error was encountered while running the model: unexpected EOF";

/// The runner is gone.
struct Died;

/// One answer in the making.
pub(super) struct Emission<'a> {
    pub script: Arc<Script>,
    pub lease: Lease,
    pub ticket: &'a Ticket,
    pub dialect: Dialect,
    pub speaker: Speaker,
    pub prompt_tokens: usize,
    /// The prompt as text, and how many tokens at its beginning are kept when it is cut.
    pub prompt: (String, usize),
    pub midway: Option<(usize, Midway)>,
    pub stream: bool,
    pub received: Instant,
    pub(super) opened: bool,
    /// When the next token is due.
    next_at: tokio::time::Instant,
    first: tokio::time::Instant,
    said: String,
    /// Tokens whose time is in `next_at`.
    paced: usize,
    totals: Totals,
}

impl<'a> Emission<'a> {
    pub fn new(script: Arc<Script>, lease: Lease, ticket: &'a Ticket, dialect: Dialect, speaker: Speaker) -> Self {
        Self {
            script,
            lease,
            ticket,
            dialect,
            speaker,
            prompt_tokens: 0,
            prompt: (String::new(), 0),
            midway: None,
            stream: true,
            received: Instant::now(),
            opened: false,
            next_at: tokio::time::Instant::now(),
            first: tokio::time::Instant::now(),
            said: String::new(),
            paced: 0,
            totals: Totals::default(),
        }
    }

    pub async fn run(mut self, out: &mut Writer<'_>) -> io::Result<After> {
        self.totals.load = self.received.elapsed();
        let (text, keep) = &self.prompt;
        let prompt = prefix::processed(prefix::ids(text), self.prompt_tokens, *keep);
        let Some(mut slot) = self.lease.slot(&prompt, self.script.leak).await else { return self.died(out).await };
        let _held = self.ticket.hold_slot(&self.lease.model);
        self.ticket.phase(Phase::Prefill);
        if self.prefill(slot.cached).await.is_err() {
            slot.finished = true;
            return self.died(out).await;
        }
        slot.tokens = prompt;
        slot.streaming = self.stream;
        self.ticket.phase(Phase::Streaming);
        let after = if self.stream { self.streamed(out).await? } else { self.whole(out).await? };
        // What was said follows the prompt, as the next turn of a conversation will have it.
        slot.tokens.extend(prefix::ids(&self.said).into_iter().skip(1));
        slot.finished = true;
        Ok(after)
    }

    /// Works on what the runner does not know of the prompt.
    async fn prefill(&mut self, cached: usize) -> Result<(), Died> {
        let started = tokio::time::Instant::now();
        let tokens = u32::try_from(self.prompt_tokens.saturating_sub(cached)).unwrap_or(u32::MAX);
        let work = self.script.prefill + self.script.prefill_per_token.saturating_mul(tokens);
        self.rest(started + work).await?;
        self.totals.prompt_tokens = self.prompt_tokens;
        self.totals.cached = self.script.tells_cached().then_some(cached);
        self.totals.prompt = started.elapsed();
        self.ticket.prefilled(self.prompt_tokens, cached, self.totals.prompt);
        self.first = tokio::time::Instant::now();
        self.next_at = self.first;
        Ok(())
    }

    /// Sleeps, unless the runner dies.
    async fn rest(&self, until: tokio::time::Instant) -> Result<(), Died> {
        let dead = &self.lease.engine.dead;
        if dead.is_cancelled() {
            return Err(Died);
        }
        if until > tokio::time::Instant::now() {
            tokio::select! {
                biased;
                () = dead.cancelled() => return Err(Died),
                () = tokio::time::sleep_until(until) => {}
            }
        }
        if self.lease.engine.is_hung() {
            dead.cancelled().await;
            return Err(Died);
        }
        Ok(())
    }

    /// The time of one token: the slot's own, or its share of what the runner makes.
    fn gap(&self) -> Duration {
        if self.script.tokens_per_second > 0.0 {
            return Duration::from_secs_f64(f64::from(self.lease.engine.working().max(1)) / self.script.tokens_per_second);
        }
        self.script.token_gap
    }

    /// The next piece at its time. Times follow from one another, not from the clock, so that they do not drift.
    async fn next(&mut self) -> Result<Said, Died> {
        if self.speaker.spoken > self.paced {
            self.paced = self.speaker.spoken;
            self.next_at += self.gap();
        }
        self.rest(self.next_at).await?;
        let before = self.speaker.spoken;
        let said = self.speaker.next();
        if self.speaker.spoken > before {
            self.ticket.token();
        }
        if let Said::Text(text) = &said {
            self.said.push_str(text);
        }
        if let Said::End(reason) = &said {
            self.totals.reason = reason;
            self.totals.tokens = self.speaker.spoken;
            self.totals.eval = self.first.elapsed();
            self.totals.total = self.received.elapsed();
        }
        Ok(said)
    }

    /// Whether the fault is due: after its number of tokens, or where the answer would have ended before.
    pub(super) fn due(&mut self, at_end: bool) -> Option<Midway> {
        let due = self.midway.is_some_and(|(after, _)| at_end || self.speaker.spoken >= after);
        if due { self.midway.take().map(|(_, midway)| midway) } else { None }
    }

    async fn streamed(&mut self, out: &mut Writer<'_>) -> io::Result<After> {
        let mut at_end: Option<String> = None;
        loop {
            if let Some(midway) = self.due(at_end.is_some()) {
                if let Some(after) = self.break_stream(midway, out).await? {
                    return Ok(after);
                }
                continue;
            }
            if let Some(line) = &at_end {
                self.line(line, out).await?;
                return self.finish(out).await;
            }
            match self.next().await {
                Err(Died) => return self.died(out).await,
                Ok(Said::Held) => {}
                Ok(Said::End(_)) => at_end = Some(self.dialect.last(&self.totals)),
                Ok(said) => {
                    let line = self.dialect.piece(&said);
                    self.line(&line, out).await?;
                }
            }
        }
    }

    /// One line, one chunk, one write; the first takes the head with it.
    pub(super) async fn line(&mut self, line: &str, out: &mut Writer<'_>) -> io::Result<()> {
        let mut data = Vec::with_capacity(line.len() + 1);
        data.extend_from_slice(line.as_bytes());
        data.push(b'\n');
        self.bytes(&data, out).await
    }

    /// Bytes in a chunk of their own.
    pub(super) async fn bytes(&mut self, data: &[u8], out: &mut Writer<'_>) -> io::Result<()> {
        let chunk = if data.is_empty() { Vec::new() } else { wire::chunk(data) };
        if std::mem::replace(&mut self.opened, true) {
            return out.send(&chunk).await;
        }
        let head = wire::head(200, &[("Content-Type", NDJSON.to_owned())], None, out.close);
        out.send_head(head, &chunk).await
    }

    /// The proper end of a stream.
    pub(super) async fn finish(&mut self, out: &mut Writer<'_>) -> io::Result<After> {
        out.send(b"0\r\n\r\n").await?;
        self.ticket.answered(200);
        Ok(After::Next)
    }

    pub(super) async fn died(&mut self, out: &mut Writer<'_>) -> io::Result<After> {
        if self.opened {
            self.line(&serde_json::json!({ "error": DIED }).to_string(), out).await?;
            return self.finish(out).await;
        }
        let refusal = Refusal { status: 500, message: DIED.to_owned(), late: true };
        out.reply(&refusal.reply(self.stream)).await?;
        self.ticket.answered(500);
        Ok(After::Next)
    }

    async fn whole(&mut self, out: &mut Writer<'_>) -> io::Result<After> {
        let mut said = Vec::new();
        loop {
            if let Some(midway) = self.due(false) {
                return self.break_whole(midway, &said, out).await;
            }
            match self.next().await {
                Err(Died) => return self.died(out).await,
                Ok(Said::Held) => {}
                Ok(Said::End(_)) => break,
                Ok(piece) => said.push(piece),
            }
        }
        if let Some(midway) = self.due(true) {
            return self.break_whole(midway, &said, out).await;
        }
        out.reply(&Reply::new(200, wire::JSON, self.dialect.whole(&said, Some(&self.totals)))).await?;
        self.ticket.answered(200);
        Ok(After::Next)
    }
}
