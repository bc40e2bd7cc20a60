//! From a runner to the wire: waits for a slot, works as long as a model would, and writes the answer, streamed or whole.
//!
//! Timing, counting and the order of events are the same for both endpoints; they differ in the objects, which
//! [`Dialect`] makes. What breaks an answer is in [`super::breakage`].

use super::{
    answer::{Said, Speaker},
    dialect::{Dialect, Totals},
    fault::Midway,
    prepare::Refusal,
    record::{Phase, Ticket},
    scheduler::Lease,
    script::Script,
    wire::{self, NDJSON, Reply, Writer},
};
use std::{io, sync::Arc, time::Instant};

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
    pub midway: Option<(usize, Midway)>,
    pub stream: bool,
    pub received: Instant,
    pub(super) opened: bool,
    first: tokio::time::Instant,
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
            midway: None,
            stream: true,
            received: Instant::now(),
            opened: false,
            first: tokio::time::Instant::now(),
            totals: Totals::default(),
        }
    }

    pub async fn run(mut self, out: &mut Writer<'_>) -> io::Result<After> {
        self.totals.load = self.received.elapsed();
        let Some(_permit) = self.lease.slot().await else { return self.died(out).await };
        let _held = self.ticket.hold_slot();
        self.ticket.phase(Phase::Prefill);
        let started = Instant::now();
        let tokens = u32::try_from(self.prompt_tokens).unwrap_or(u32::MAX);
        let prefill = self.script.prefill + self.script.prefill_per_token.saturating_mul(tokens);
        if self.rest(tokio::time::Instant::now() + prefill).await.is_err() {
            return self.died(out).await;
        }
        self.totals.prompt_tokens = self.prompt_tokens;
        self.totals.prompt = started.elapsed();
        self.first = tokio::time::Instant::now();
        self.ticket.phase(Phase::Streaming);
        if self.stream { self.streamed(out).await } else { self.whole(out).await }
    }

    /// Sleeps, unless the runner dies.
    async fn rest(&self, until: tokio::time::Instant) -> Result<(), Died> {
        if self.lease.dead.is_cancelled() {
            return Err(Died);
        }
        if until <= tokio::time::Instant::now() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.lease.dead.cancelled() => Err(Died),
            () = tokio::time::sleep_until(until) => Ok(()),
        }
    }

    /// The next piece at its time. Times are counted from the first token, so that they do not drift.
    async fn next(&mut self) -> Result<Said, Died> {
        let number = u32::try_from(self.speaker.spoken).unwrap_or(u32::MAX);
        self.rest(self.first + self.script.token_gap.saturating_mul(number)).await?;
        let before = self.speaker.spoken;
        let said = self.speaker.next();
        if self.speaker.spoken > before {
            self.ticket.token();
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

    async fn streamed(mut self, out: &mut Writer<'_>) -> io::Result<After> {
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

    async fn whole(mut self, out: &mut Writer<'_>) -> io::Result<After> {
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
