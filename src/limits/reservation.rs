//! The right to generate, held for as long as that takes.

use std::fmt;
use std::sync::Arc;

use super::book::Taken;
use super::caps::Caps;
use super::handle::Inner;
use super::refusal::Quota;
use super::standing::Standing;
use super::tokens::Amount;

/// A request that was let in. Dropping it gives back its place and puts what it used in the place of what was reserved:
/// what [`Reservation::settle`] said or, where a generation was cut short, the estimate of the prompt and what was generated so
/// far. A request that never reached a backend, so that nothing was said, used nothing.
#[must_use = "the request counts as ended when this is dropped"]
pub struct Reservation {
    limits: Arc<Inner>,
    taken: Taken,
    caps: Caps,
    standing: Standing,
    used: Amount,
}

impl Reservation {
    pub(super) fn new(limits: Arc<Inner>, taken: Taken, caps: Caps, quotas: Vec<Quota>) -> Self {
        let Amount { prompt, generated } = taken.reserved;
        limits.metrics.limit_reserved(prompt, generated);
        Self { limits, taken, caps, standing: Standing::of(quotas), used: Amount::default() }
    }

    /// What it used in truth.
    pub fn settle(&mut self, prompt_tokens: u64, generated_tokens: u64) {
        self.used = Amount { prompt: prompt_tokens, generated: generated_tokens };
    }

    /// How much was generated so far. 0, as soon as a backend works on the prompt, says that the prompt is used.
    pub fn generated(&mut self, tokens: u64) {
        self.used = Amount { prompt: self.taken.reserved.prompt, generated: tokens };
    }

    /// What the request must be changed to.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.caps
    }

    /// How the client stood when it was let in.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let now = self.limits.now();
        self.limits.book().settle(&self.taken, self.used, now);
        self.limits.metrics.limit_settled(self.used.prompt, self.used.generated);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("taken", &self.taken).field("used", &self.used).finish_non_exhaustive()
    }
}
