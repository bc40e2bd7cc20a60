//! What somebody at a terminal sees of a long piece of work, and how it is stopped.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::jobs;
use crate::cli::terminal::{self, Status};
use crate::jobs::make::steps::Watcher;

/// Steps that a curve shows at most.
const CURVE: usize = 24;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Hears for the command line.
pub struct Watching {
    status: Mutex<Shown>,
    /// Whether notes are written down, too.
    notes: bool,
    cancel: CancellationToken,
}

struct Shown {
    status: Status,
    /// What is being done, and since when.
    what: String,
    since: Instant,
    /// How much of it was done then.
    from: u64,
    losses: Vec<f64>,
    figures: String,
}

impl Watching {
    pub fn new() -> Self {
        let shown = Shown {
            status: Status::standard(),
            what: String::new(),
            since: Instant::now(),
            from: 0,
            losses: Vec::new(),
            figures: String::new(),
        };
        Self { status: Mutex::new(shown), notes: false, cancel: CancellationToken::new() }
    }

    /// Writes notes down where there is no terminal to show figures on.
    #[cfg(feature = "embedded")]
    pub fn with_notes() -> Self {
        let mut watching = Self::new();
        let shown = watching.shown().status.is_shown();
        watching.notes = !shown;
        watching
    }

    /// Ctrl-C ends the work at its next good place, so that nothing is left half done.
    pub fn stop_on_interrupt(&self) {
        let cancel = self.cancel.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if runtime.is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok()) {
                cancel.cancel();
            }
        });
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn say(&self, line: &str) {
        self.clear();
        terminal::note(&terminal::harmless(line));
    }

    pub fn clear(&self) {
        self.shown().status.clear();
    }
}

impl Watcher for Watching {
    fn progress(&self, what: &str, done: u64, total: u64, unit: &'static str) {
        let mut shown = self.shown();
        if !shown.status.is_shown() {
            return;
        }
        if shown.what != what {
            (shown.what, shown.since, shown.from) = (what.to_owned(), Instant::now(), done);
        }
        let mut progress = json!({"done": done, "total": total, "unit": unit});
        if let Some(left) = left_ms(shown.since, done.saturating_sub(shown.from), total.saturating_sub(done)) {
            progress["eta_ms"] = left.into();
        }
        let line = format!("{what} {}{}", jobs::bar(&progress), shown.figures);
        shown.status.show(&line);
    }

    fn note(&self, line: &str) {
        if self.notes {
            self.say(line);
        }
    }

    fn metric(&self, name: &str, value: f64) {
        let mut shown = self.shown();
        match name {
            "loss" => {
                shown.losses.push(value);
                let from = shown.losses.len().saturating_sub(CURVE);
                shown.figures = format!("  loss {value:.4} {}", curve(&shown.losses[from..]));
            }
            "tokens_per_s" => {
                let _ = write!(shown.figures, "  {value:.0} tokens/s");
            }
            _ => {}
        }
    }

    fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }
}

/// How long the rest takes at the pace until now. `None`: nothing can be said yet.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "about as long")]
fn left_ms(since: Instant, done: u64, left: u64) -> Option<u64> {
    let spent = since.elapsed().as_secs_f64();
    (done > 0 && spent > 1.0).then(|| (spent * 1000.0 * left as f64 / done as f64) as u64)
}

/// Numbers as a row of bars.
fn curve(values: &[f64]) -> String {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let steps = LEVELS.len() - 1;
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 7")]
    let level = |value: f64| if most > least { ((value - least) / (most - least) * steps as f64).round() as usize } else { 0 };
    values.iter().map(|value| LEVELS[level(*value).min(steps)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_from_its_least_to_its_most() {
        assert_eq!(curve(&[3.0, 2.0, 1.0, 1.0]), "█▅▁▁");
        assert_eq!(curve(&[2.0, 2.0]), "▁▁");
        assert_eq!(curve(&[]), "");
    }
}
