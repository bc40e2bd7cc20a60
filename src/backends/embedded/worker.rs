//! The engine's thread: steps the running answers in turn, one chunk of prompt or one token each.
//!
//! A reader that does not keep up holds up its own answer and no other; one that has gone frees its slot before the next step.
//! A panic in a step fails that answer alone.

use std::cmp::Reverse;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::decoder::Decoder;
use super::queue::{Phase, Queue};
use super::sequence::{Job, Next, Sequence, Warm};
use crate::backends::Error;
use crate::lm::tokenizer::Tokenizer;

/// Prompt tokens read at once while other answers wait for their turn: their next tokens come the sooner.
const SHARED_CHUNK: usize = 64;

pub(super) struct Worker<D: Decoder> {
    decoder: D,
    tokenizer: Arc<Tokenizer>,
    queue: Arc<Queue>,
    /// Tokens that a slot has room for.
    context: usize,
    active: Vec<Sequence<D>>,
    /// Caches of slots that are free.
    idle: Vec<Warm<D::Cache>>,
}

impl<D: Decoder> Worker<D> {
    pub(super) fn new(decoder: D, tokenizer: Arc<Tokenizer>, queue: Arc<Queue>, context: usize) -> Self {
        Self { decoder, tokenizer, queue, context, active: Vec::new(), idle: Vec::new() }
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    /// Works until the queue is closed and everything that runs has ended.
    pub(super) fn run(mut self) {
        loop {
            self.drop_unwanted();
            let news = self.queue.take(self.active.len());
            match news.phase {
                Phase::Open => news.jobs.into_iter().for_each(|job| self.start(job)),
                Phase::Closing => news.jobs.iter().for_each(|job| job.fail(Error::Closed)),
                Phase::Stopped => {
                    news.jobs.iter().for_each(|job| job.fail(Error::Closed));
                    self.active.iter().for_each(|sequence| sequence.fail(Error::Closed));
                    return;
                }
            }
            if news.phase == Phase::Closing && self.active.is_empty() {
                return;
            }
            if !self.step_all() {
                self.queue.sleep(news.seen);
            }
        }
    }

    /// Frees the slots of answers that nobody reads any more.
    fn drop_unwanted(&mut self) {
        let unwanted: Vec<_> = self.active.extract_if(.., |sequence| sequence.next() == Next::Drop).collect();
        self.idle.extend(unwanted.into_iter().map(Sequence::into_warm));
    }

    /// Begins an answer, in the free slot that has most of its prompt already.
    fn start(&mut self, job: Job) {
        match self.room(&job.prompt.tokens) {
            Ok(warm) => self.active.push(Sequence::new(&self.decoder, job, warm)),
            Err(message) => job.fail(Error::Failed { status: None, message: format!("no memory for another request: {message}") }),
        }
    }

    /// The free slot with most of a prompt. When none has any of it: a fresh one if there may be more, else the oldest.
    fn room(&mut self, prompt: &[u32]) -> Result<Warm<D::Cache>, String> {
        let best = self.idle.iter().map(|warm| warm.common(prompt)).enumerate().min_by_key(|(_, common)| Reverse(*common));
        let may_grow = self.idle.len() + self.active.len() < self.queue.slots();
        match best {
            Some((index, common)) if common > 0 || !may_grow => Ok(self.idle.remove(index)),
            _ => self.guarded(|worker| worker.decoder.new_cache(worker.context)).map(Warm::new),
        }
    }

    fn guarded<T>(&self, work: impl FnOnce(&Self) -> Result<T, String>) -> Result<T, String> {
        catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|_| Err("the engine failed unexpectedly".to_owned()))
    }

    /// One step of each answer that can take one. False: none could.
    fn step_all(&mut self) -> bool {
        let chunk = if self.active.len() > 1 { SHARED_CHUNK.min(self.decoder.chunk()) } else { self.decoder.chunk() };
        let mut stepped = false;
        let mut index = 0;
        while index < self.active.len() {
            if self.active[index].next() != Next::Step {
                index += 1;
                continue;
            }
            stepped = true;
            let (sequence, decoder, tokenizer) = (&mut self.active[index], &self.decoder, &self.tokenizer);
            match catch_unwind(AssertUnwindSafe(|| sequence.step(decoder, tokenizer, chunk))) {
                Ok(Ok(false)) => index += 1,
                Ok(Ok(true)) => self.retire(index),
                Ok(Err(error)) => self.give_up(index, error),
                Err(_) => self.give_up(index, Error::Failed { status: None, message: "the engine failed unexpectedly".to_owned() }),
            }
        }
        stepped
    }

    fn retire(&mut self, index: usize) {
        let sequence = self.active.remove(index);
        self.queue.finished(sequence.age());
        self.idle.push(sequence.into_warm());
    }

    /// Ends an answer with an error. What its cache holds is not known any more: it goes too.
    fn give_up(&mut self, index: usize, error: Error) {
        let sequence = self.active.remove(index);
        tracing::error!(%error, "an answer failed");
        sequence.fail(error);
    }
}
