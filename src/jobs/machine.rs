//! Where a job goes from where it is: the state machine, pure.
//!
//! ```text
//! queued ── lease ──▶ leased ── begin ──▶ running ── succeed ──▶ succeeded
//!   ▲ ▲                 │                    ├────── fail ─────▶ failed (no attempt left)
//!   │ └─ fail, expire ──┴────────────────────┤
//!   │    (an attempt left, after a pause)    └───── release ────▶ cancelled (where that was asked for)
//!   └─ release (no attempt used up); retry from failed and cancelled
//! ```
//! The epoch grows whenever the right to write is given (a lease, a retry) or taken (an expiry, a release, a cancellation of what waits), so
//! that each function that a worker calls can tell whether the worker still has it. Nothing here reads a clock or throws dice.

use std::time::Duration;

use crate::storage::jobs::{Fault, Standing, State, Step};

/// Why a change is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The lease was taken away, or has never been the caller's.
    #[error("the lease on the job is lost")]
    Lost,
    #[error("the job is not waiting")]
    NotQueued,
    #[error("the job has ended")]
    Ended,
    #[error("the job has not ended in failure or cancellation")]
    NotRetryable,
}

/// A job as it is submitted.
#[must_use]
pub fn submitted(max_attempts: u32, now_ms: i64) -> Standing {
    Standing {
        state: State::Queued,
        epoch: 0,
        owner: None,
        lease_until_ms: None,
        attempts: 0,
        max_attempts: max_attempts.max(1),
        not_before_ms: now_ms,
        cancel_requested: false,
        step: 0,
        progress: None,
        result: None,
        error: None,
        started_at_ms: None,
        finished_at_ms: None,
    }
}

/// A worker takes it, for a while.
pub fn lease(job: &Standing, owner: &str, now_ms: i64, lease: Duration) -> Result<Standing, Wrong> {
    if job.state != State::Queued {
        return Err(Wrong::NotQueued);
    }
    Ok(Standing {
        state: State::Leased,
        epoch: job.epoch + 1,
        owner: Some(owner.to_owned()),
        lease_until_ms: Some(later(now_ms, lease)),
        attempts: job.attempts.saturating_add(1),
        started_at_ms: job.started_at_ms.or(Some(now_ms)),
        progress: None,
        ..job.clone()
    })
}

/// Its worker begins.
pub fn begin(job: &Standing, epoch: i64) -> Result<Standing, Wrong> {
    held(job, epoch)?;
    Ok(Standing { state: State::Running, ..job.clone() })
}

/// Its worker is still there.
pub fn renew(job: &Standing, epoch: i64, now_ms: i64, lease: Duration) -> Result<Standing, Wrong> {
    held(job, epoch)?;
    Ok(Standing { lease_until_ms: Some(later(now_ms, lease)), ..job.clone() })
}

/// One of its steps has ended.
pub fn step_ended(job: &Standing, epoch: i64, step: &Step) -> Result<Standing, Wrong> {
    held(job, epoch)?;
    Ok(Standing { step: job.step.max(step.number.saturating_add(1)), ..job.clone() })
}

pub fn succeed(job: &Standing, epoch: i64, result: serde_json::Value, now_ms: i64) -> Result<Standing, Wrong> {
    held(job, epoch)?;
    // A cancellation that came when all was done has come too late.
    Ok(Standing { result: Some(result), error: None, cancel_requested: false, ..left(job, State::Succeeded, Some(now_ms)) })
}

/// The attempt has failed. `pause`: how long to wait before the next one. Some faults do not go away by trying again.
pub fn fail(job: &Standing, epoch: i64, fault: Fault, again: Option<Duration>, now_ms: i64) -> Result<Standing, Wrong> {
    held(job, epoch)?;
    Ok(failed(job, fault, again, now_ms))
}

/// Its worker has stopped at a good place. Where that was not the job's own cancellation, it goes on later, and no attempt is used up.
pub fn release(job: &Standing, epoch: i64, now_ms: i64) -> Result<Standing, Wrong> {
    held(job, epoch)?;
    if job.cancel_requested {
        return Ok(cancelled(job, now_ms));
    }
    Ok(Standing { epoch: job.epoch + 1, attempts: job.attempts.saturating_sub(1), not_before_ms: now_ms, ..left(job, State::Queued, None) })
}

/// Nobody has heard of its worker since the lease ran out.
pub fn expire(job: &Standing, again: Duration, now_ms: i64) -> Result<Standing, Wrong> {
    if !job.state.is_active() || job.lease_until_ms.is_none_or(|until| until >= now_ms) {
        return Err(Wrong::Lost);
    }
    let fault = Fault { kind: "worker_lost".to_owned(), message: "the worker was not heard of before its lease ran out".to_owned() };
    let next = failed(job, fault, Some(again), now_ms);
    Ok(Standing { epoch: job.epoch + 1, ..next })
}

/// Somebody wants it to end: at once where nobody works on it, else its worker is asked.
pub fn cancel(job: &Standing, now_ms: i64) -> Result<Standing, Wrong> {
    match job.state {
        State::Queued => Ok(Standing { epoch: job.epoch + 1, ..cancelled(job, now_ms) }),
        State::Leased | State::Running => Ok(Standing { cancel_requested: true, ..job.clone() }),
        State::Succeeded | State::Failed | State::Cancelled => Err(Wrong::Ended),
    }
}

/// One of the jobs it waits for will not succeed.
pub fn give_up(job: &Standing, needed: &str, now_ms: i64) -> Result<Standing, Wrong> {
    if job.state != State::Queued {
        return Err(Wrong::NotQueued);
    }
    let fault = Fault { kind: "dependency".to_owned(), message: format!("the job {needed}, after which it was to come, did not succeed") };
    Ok(Standing { epoch: job.epoch + 1, error: Some(fault), ..cancelled(job, now_ms) })
}

/// Somebody wants it tried again, with as many attempts as at first. Steps that have ended are passed over.
pub fn retry(job: &Standing, now_ms: i64) -> Result<Standing, Wrong> {
    if !matches!(job.state, State::Failed | State::Cancelled) {
        return Err(Wrong::NotRetryable);
    }
    Ok(Standing { epoch: job.epoch + 1, step: job.step, ..submitted(job.max_attempts, now_ms) })
}

/// How long to wait before the next attempt: twice as long each time, with up to half of it taken off by a throw of dice (0 to 1), so
/// that jobs that failed together do not come back together.
#[must_use]
pub fn pause(attempts: u32, first: Duration, longest: Duration, dice: f64) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(attempts.saturating_sub(1).min(31)).unwrap_or(u32::MAX)).min(longest);
    doubled.mul_f64(1.0 - dice.clamp(0.0, 1.0) / 2.0)
}

/// Whether the caller may write.
fn held(job: &Standing, epoch: i64) -> Result<(), Wrong> {
    if job.state.is_active() && job.epoch == epoch { Ok(()) } else { Err(Wrong::Lost) }
}

fn failed(job: &Standing, fault: Fault, again: Option<Duration>, now_ms: i64) -> Standing {
    if job.cancel_requested {
        return Standing { error: Some(fault), ..cancelled(job, now_ms) };
    }
    match again.filter(|_| job.attempts < job.max_attempts) {
        Some(pause) => Standing { error: Some(fault), not_before_ms: later(now_ms, pause), ..left(job, State::Queued, None) },
        None => Standing { error: Some(fault), ..left(job, State::Failed, Some(now_ms)) },
    }
}

fn cancelled(job: &Standing, now_ms: i64) -> Standing {
    left(job, State::Cancelled, Some(now_ms))
}

/// Without a worker.
fn left(job: &Standing, state: State, finished_at_ms: Option<i64>) -> Standing {
    Standing { state, owner: None, lease_until_ms: None, finished_at_ms, ..job.clone() }
}

fn later(now_ms: i64, by: Duration) -> i64 {
    now_ms.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
