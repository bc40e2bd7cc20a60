//! What a runner has beside its weights: slots, the prompts it still knows, a speed that all slots share.
//!
//! A [`Slot`] is held while a request is worked on; dropping it gives it back. It may also be lost for ever, as Ollama
//! loses it when the client of a stream leaves at the wrong moment ([`Leak`]).

use super::{prefix::Cache, record::Ledger, script::Leak};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub(super) struct Engine {
    places: Arc<Semaphore>,
    cache: Mutex<Cache>,
    ledger: Arc<Ledger>,
    /// Slots in use.
    working: AtomicUsize,
    /// Slots still to be lost when they are next given back.
    to_leak: AtomicUsize,
    /// The process stands still, as if stopped by a signal.
    hung: AtomicBool,
    /// The process is gone.
    pub dead: CancellationToken,
}

impl Engine {
    pub fn new(slots: usize, saved_tokens: usize, ledger: Arc<Ledger>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(slots)),
            cache: Mutex::new(Cache::new(slots, saved_tokens)),
            ledger,
            working: AtomicUsize::new(0),
            to_leak: AtomicUsize::new(0),
            hung: AtomicBool::new(false),
            dead: CancellationToken::new(),
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_hung(&self) -> bool {
        self.hung.load(SeqCst)
    }

    pub fn hang(&self) {
        self.hung.store(true, SeqCst);
    }

    /// How many requests share the speed of this runner now.
    pub fn working(&self) -> u32 {
        u32::try_from(self.working.load(SeqCst)).unwrap_or(u32::MAX)
    }

    /// Waits for a slot, in the order of arrival. None when the runner died meanwhile.
    pub async fn slot(self: &Arc<Self>, prompt: &[u64], leak: Leak) -> Option<Slot> {
        let permit = tokio::select! {
            biased;
            () = self.dead.cancelled() => return None,
            permit = Arc::clone(&self.places).acquire_owned() => permit.ok()?,
        };
        let (number, cached) = self.cache().take(prompt)?;
        self.working.fetch_add(1, SeqCst);
        let tokens = prompt[..cached].to_vec();
        Some(Slot { engine: Arc::clone(self), permit: Some(permit), number, cached, tokens, leak, streaming: false, finished: false })
    }

    /// One slot is lost: an idle one now, else the next that is given back.
    pub fn lose_slot(&self) {
        match self.places.try_acquire() {
            Ok(permit) => {
                permit.forget();
                self.ledger.note(|seen| seen.leaked += 1);
            }
            Err(_) => drop(self.to_leak.fetch_add(1, SeqCst)),
        }
    }

    fn owes_a_leak(&self) -> bool {
        self.to_leak.fetch_update(SeqCst, SeqCst, |owed| owed.checked_sub(1)).is_ok()
    }
}

/// A slot at work.
pub(super) struct Slot {
    engine: Arc<Engine>,
    permit: Option<OwnedSemaphorePermit>,
    number: usize,
    /// Tokens of the prompt that need no work.
    pub cached: usize,
    /// What it will know afterwards.
    pub tokens: Vec<u64>,
    leak: Leak,
    /// The answer is a stream and has begun.
    pub streaming: bool,
    /// The answer, or its failure, went out whole.
    pub finished: bool,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.engine.working.fetch_sub(1, SeqCst);
        let left = self.streaming && !self.finished;
        let lost = left
            && self.engine.ledger.note(|seen| {
                seen.abandoned_streams += 1;
                self.leak.takes(seen.abandoned_streams - 1)
            });
        let tokens = std::mem::take(&mut self.tokens);
        if lost || self.engine.owes_a_leak() {
            if let Some(permit) = self.permit.take() {
                permit.forget();
            }
            self.engine.ledger.note(|seen| seen.leaked += 1);
        } else {
            self.engine.cache().give_back(self.number, tokens);
        }
    }
}
