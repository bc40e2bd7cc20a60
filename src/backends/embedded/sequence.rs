//! One answer in the making.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::decoder::Decoder;
use super::prompt::Assembled;
use super::settings::Settings;
use super::stops::Stops;
use crate::backends::Error;
use crate::domain::generation::{Delta, Event, Finish, FinishReason, Remarks, Timing, Truncated, Usage};
use crate::lm::tokenizer::{Detokenizer, Tokenizer};

/// Prompt tokens that are computed together where an answer must be reproducible.
const PIECE: usize = 128;

/// Events that one step can give: a last piece of text and the end.
const EVENTS_A_STEP: usize = 2;

/// A request that was accepted.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) prompt: Assembled,
    pub(super) settings: Settings,
    pub(super) events: Sender<Result<Event, Error>>,
    /// Whether the answer gives back its tokens.
    pub(super) gives_context: bool,
    pub(super) accepted: Instant,
}

impl Job {
    /// Whether someone still waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        !self.events.is_closed()
    }

    /// Tells the client why there is no answer. Its channel is empty, unless it reads too slowly to care.
    pub(super) fn fail(&self, error: Error) {
        let _ = self.events.try_send(Err(error));
    }
}

/// What a slot keeps between answers: a cache, and the tokens in it.
#[derive(Debug)]
pub(super) struct Warm<C> {
    pub(super) cache: C,
    pub(super) tokens: Vec<u32>,
    /// So many of them, from the start, were read in whole pieces: reading them again would give the same to the last bit.
    pub(super) exact: usize,
}

impl<C> Warm<C> {
    pub(super) fn new(cache: C) -> Self {
        Self { cache, tokens: Vec::new(), exact: 0 }
    }

    /// Tokens at the start that need not be read again. The last one is: its logits are wanted.
    pub(super) fn common(&self, prompt: &[u32]) -> usize {
        let same = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        same.min(prompt.len().saturating_sub(1))
    }
}

/// What is to be done with a sequence next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another step.
    Step,
    /// Nothing, until its reader has taken what is there.
    Wait,
    /// Nothing any more: its reader has gone.
    Drop,
}

pub(super) struct Sequence<D: Decoder> {
    job: Job,
    warm: Warm<D::Cache>,
    /// Prompt and answer so far.
    tokens: Vec<u32>,
    /// Tokens of the prompt that were in the cache already.
    reused: usize,
    generated: usize,
    stops: Stops,
    detokenizer: Detokenizer,
    trims: bool,
    prompt_eval: Duration,
    eval: Duration,
}

impl<D: Decoder> Sequence<D> {
    pub(super) fn new(decoder: &D, mut job: Job, mut warm: Warm<D::Cache>) -> Self {
        let tokens = std::mem::take(&mut job.prompt.tokens);
        let mut reused = warm.common(&tokens);
        if job.settings.reproducible {
            let piece = piece(decoder);
            reused = reused.min(warm.exact) / piece * piece;
        }
        if !decoder.truncate(&mut warm.cache, reused) {
            decoder.clear(&mut warm.cache);
            reused = 0;
        }
        warm.tokens.truncate(reused);
        warm.exact = warm.exact.min(reused);
        Self {
            stops: Stops::new(job.settings.stops.iter().cloned()),
            detokenizer: Detokenizer::default(),
            trims: job.settings.trim_start,
            prompt_eval: Duration::ZERO,
            eval: Duration::ZERO,
            generated: 0,
            reused,
            job,
            warm,
            tokens,
        }
    }

    pub(super) fn next(&self) -> Next {
        if !self.job.is_wanted() {
            Next::Drop
        } else if self.job.events.capacity() < EVENTS_A_STEP {
            Next::Wait
        } else {
            Next::Step
        }
    }

    pub(super) fn fail(&self, error: Error) {
        self.job.fail(error);
    }

    /// Since the request was accepted.
    pub(super) fn age(&self) -> Duration {
        self.job.accepted.elapsed()
    }

    /// What remains for the next answer.
    pub(super) fn into_warm(self) -> Warm<D::Cache> {
        self.warm
    }

    /// Reads one chunk of the prompt, or generates one token. True: the answer is over, its end was sent.
    pub(super) fn step(&mut self, decoder: &D, tokenizer: &Tokenizer, chunk: usize) -> Result<bool, Error> {
        let started = Instant::now();
        let failed = |message: String| Error::Failed { status: None, message };
        let upto = self.chunk_end(decoder, chunk);
        let unread = self.tokens[self.warm.tokens.len()..upto].to_vec();
        if upto < self.tokens.len() {
            decoder.read(&unread, &mut self.warm.cache).map_err(failed)?;
            self.was_read(decoder, &unread);
            self.prompt_eval += started.elapsed();
            return Ok(false);
        }
        let logits = decoder.forward(&unread, &mut self.warm.cache).map_err(failed)?;
        self.was_read(decoder, &unread);
        let over = self.advance(logits, tokenizer)?;
        *(if self.generated <= 1 { &mut self.prompt_eval } else { &mut self.eval }) += started.elapsed();
        if let Some(reason) = over {
            self.finish(reason);
        }
        Ok(over.is_some())
    }

    /// Where the tokens that are read together end. The sums in a chunk come out a little different when it is cut differently, which
    /// can turn a near-tie: what must be reproducible is always cut at the same places, whatever else runs or was read before.
    fn chunk_end(&self, decoder: &D, chunk: usize) -> usize {
        let have = self.warm.tokens.len();
        let end = if self.job.settings.reproducible { (have + 1).next_multiple_of(piece(decoder)) } else { have + chunk.max(1) };
        end.min(self.tokens.len())
    }

    fn was_read(&mut self, decoder: &D, tokens: &[u32]) {
        let is_piece = self.job.settings.reproducible && tokens.len() == piece(decoder);
        if is_piece && self.warm.exact == self.warm.tokens.len() {
            self.warm.exact += tokens.len();
        }
        self.warm.tokens.extend_from_slice(tokens);
    }

    /// Chooses a token and sends its text.
    fn advance(&mut self, mut logits: Vec<f32>, tokenizer: &Tokenizer) -> Result<Option<End>, Error> {
        let step = self.generated as u64;
        let chosen = self.job.settings.sampling.choose(&mut logits, &self.tokens, step);
        let token = chosen.map_err(|error| Error::Failed { status: None, message: error.to_string() })?;
        self.generated += 1;
        if tokenizer.is_end_of_generation(token) {
            return Ok(Some(End::Stop));
        }
        self.tokens.push(token);
        let text = self.detokenizer.push(tokenizer.token_bytes(token));
        let passed = self.stops.push(&text);
        self.send(passed.text);
        let full = self.tokens.len() >= self.job.settings.context;
        let enough = self.job.settings.most_tokens.is_some_and(|most| self.generated >= most);
        Ok(match (passed.stopped, full || enough) {
            (true, _) => Some(End::StopString),
            (false, true) => Some(End::Length),
            (false, false) => None,
        })
    }

    fn send(&mut self, text: String) {
        let text = if self.trims { text.trim_start().to_owned() } else { text };
        if !text.is_empty() {
            self.trims = false;
            // There is room, `next` saw to it; a reader that has gone is noticed before the next step.
            let _ = self.job.events.try_send(Ok(Event::Delta(Delta { text, ..Delta::default() })));
        }
    }

    fn finish(&mut self, end: End) {
        if end != End::StopString {
            let broken = self.detokenizer.flush();
            let passed = self.stops.push(&broken);
            let rest = if passed.stopped { passed.text } else { passed.text + &self.stops.flush() };
            self.send(rest);
        }
        let _ = self.job.events.try_send(Ok(Event::Done(Box::new(self.summary(end)))));
    }

    fn summary(&self, end: End) -> Finish {
        let generated_tokens = self.generated - usize::from(end == End::Stop);
        let prompt_tokens = self.tokens.len() - generated_tokens;
        Finish {
            reason: if end == End::Length { FinishReason::Length } else { FinishReason::Stop },
            context: self.job.gives_context.then(|| self.job.prompt.visible(&self.tokens).to_vec()),
            usage: Usage { prompt_tokens: Some(prompt_tokens as u64), cached_tokens: None, completion_tokens: Some(self.generated as u64) },
            timing: Timing {
                total: Some(self.age()),
                load: Some(Duration::ZERO),
                prompt_eval: Some(self.prompt_eval),
                eval: Some(self.eval),
            },
            remarks: Remarks {
                not_applied: self.job.settings.not_applied.clone(),
                truncated: self.truncated(prompt_tokens),
                changed: Vec::new(),
            },
            // Ollama's own name for it, in versions after the one that is followed here.
            extra: [("prompt_eval_cached_count".to_owned(), self.reused.into())].into_iter().collect(),
        }
    }

    fn truncated(&self, kept_tokens: usize) -> Option<Truncated> {
        let before = self.job.prompt.shortened_from?;
        Some(Truncated { prompt_tokens: before as u64, kept_tokens: kept_tokens as u64 })
    }
}

fn piece<D: Decoder>(decoder: &D) -> usize {
    PIECE.min(decoder.chunk()).max(1)
}

/// Why an answer is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The model said so.
    Stop,
    StopString,
    Length,
}
