//! Prompts that are kept warm: which to send when.
//!
//! An operator names what many requests begin with (a system prompt, examples). Each is sent, with the request for one token,
//! when this program starts, after its model was loaded anew, before the model would be unloaded, and when a backend is believed
//! to have let go of it.
//! The plan is pure; sending, at batch priority, is the caller's. A model that was unloaded in the meantime is left unloaded: keeping
//! one prompt warm is no reason to push another model out.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::generation::{Ask, Prompt};
use crate::domain::options::Options;
use crate::storage::warm::Row;

/// Bounds on warm prompts, and when they are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Prompts that can be registered.
    pub max_prompts: u32,
    /// Largest prompt that can be registered, in bytes, its system prompt included.
    pub max_prompt_bytes: usize,
    /// A prompt is sent again this long before its model would be unloaded.
    #[serde(with = "crate::domain::span")]
    pub before_expiry: Duration,
    /// Time between two looks at what has gone cold.
    #[serde(with = "crate::domain::span")]
    pub check_interval: Duration,
    /// Pause after a prompt could not be sent; it doubles with each failure, up to 20 times this.
    #[serde(with = "crate::domain::span")]
    pub retry_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_prompts: 64,
            max_prompt_bytes: 256 * 1024,
            before_expiry: Duration::from_secs(30),
            check_interval: Duration::from_secs(10),
            retry_after: Duration::from_secs(30),
        }
    }
}

/// Longest pause after failures, in pauses.
const LONGEST_PAUSE: u32 = 20;

/// Why a prompt is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It was not sent there since this program started, or since it was registered.
    Start,
    /// The model was loaded anew.
    Reload,
    /// The model would be unloaded soon.
    Expiry,
    /// The backend is believed to have let go of it.
    Cold,
}

impl Cause {
    pub const ALL: [Self; 4] = [Self::Start, Self::Reload, Self::Expiry, Self::Cold];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Expiry => "expiry",
            Self::Cold => "cold",
        }
    }
}

/// A backend that has the model of a prompt, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Whether the model is in memory.
    pub loaded: bool,
    /// Milliseconds since 1970 at which it will be unloaded if nobody asks for it. `None`: never, or not known.
    pub expires_at_ms: Option<i64>,
    /// Whether the prefix index believes that the prompt is held there.
    pub warm: bool,
}

/// What was done about one prompt on one backend.
#[derive(Debug, Clone, Default)]
struct Done {
    /// Whether it ever worked.
    sent: bool,
    /// Whether it is being sent now.
    under_way: bool,
    /// The model was seen unloaded since it was sent.
    unloaded: bool,
    failures: u32,
    /// Not before this, after a failure.
    not_before_ms: i64,
    /// The expiry for which it was last sent: until another is seen, it is not sent for that again.
    for_expiry_ms: Option<i64>,
}

/// What was sent where. Pure: time and what is seen come in.
#[derive(Debug, Default)]
pub struct Plan {
    config: Config,
    done: HashMap<(String, String), Done>,
}

impl Plan {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, done: HashMap::new() }
    }

    /// Whether the prompt `name` is to be sent to `backend` now, and why. Once told so, the caller sends it and then calls
    /// [`Plan::finished`]; until then the answer is no.
    pub fn due(&mut self, name: &str, backend: &str, seen: Seen, now_ms: i64) -> Option<Cause> {
        let before_expiry_ms = milliseconds(self.config.before_expiry);
        let done = self.done.entry((name.to_owned(), backend.to_owned())).or_default();
        done.unloaded |= done.sent && !seen.loaded;
        if done.under_way || now_ms < done.not_before_ms {
            return None;
        }
        let cause = done.cause(seen, now_ms, before_expiry_ms)?;
        done.under_way = true;
        if cause == Cause::Expiry {
            done.for_expiry_ms = seen.expires_at_ms;
        }
        Some(cause)
    }

    /// What became of a prompt that was due.
    pub fn finished(&mut self, name: &str, backend: &str, worked: bool, now_ms: i64) {
        let pause_ms = milliseconds(self.config.retry_after);
        let Some(done) = self.done.get_mut(&(name.to_owned(), backend.to_owned())) else { return };
        done.under_way = false;
        if worked {
            *done = Done { sent: true, for_expiry_ms: done.for_expiry_ms, ..Done::default() };
        } else {
            let pauses = 1u32.checked_shl(done.failures).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
            done.failures = done.failures.saturating_add(1).min(16);
            done.for_expiry_ms = None;
            done.not_before_ms = now_ms.saturating_add(pause_ms.saturating_mul(i64::from(pauses)));
        }
    }

    /// A prompt was taken off the list, or replaced by another of its name.
    pub fn forget(&mut self, name: &str) {
        self.done.retain(|(known, _), _| known != name);
    }

    /// A backend is gone.
    pub fn forget_backend(&mut self, backend: &str) {
        self.done.retain(|(_, known), _| known != backend);
    }
}

impl Done {
    fn cause(&self, seen: Seen, now_ms: i64, before_expiry_ms: i64) -> Option<Cause> {
        if !self.sent {
            return Some(Cause::Start);
        }
        if !seen.loaded {
            return None;
        }
        let soon = seen.expires_at_ms.filter(|at| *at <= now_ms.saturating_add(before_expiry_ms));
        if self.unloaded {
            Some(Cause::Reload)
        } else if soon.is_some() && soon != self.for_expiry_ms {
            Some(Cause::Expiry)
        } else {
            (!seen.warm).then_some(Cause::Cold)
        }
    }
}

/// Stands for a prompt that is not known yet. Ollama takes an empty one for the wish to load the model, and reads nothing.
const ANY_PROMPT: &str = ".";

/// What is asked of the backend: the prompt, and no more than one token of answer.
#[must_use]
pub fn ask(row: &Row) -> Ask {
    let text = if row.prompt.is_empty() { ANY_PROMPT } else { &row.prompt };
    let prompt = Prompt { text: text.to_owned(), system: row.system.clone(), ..Prompt::default() };
    let options = Options { num_predict: Some(1), temperature: Some(0.0), ..Options::default() };
    Ask { prompt, options, ..Ask::default() }
}

fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOADED: Seen = Seen { loaded: true, expires_at_ms: Some(300_000), warm: true };
    const UNLOADED: Seen = Seen { loaded: false, expires_at_ms: None, warm: false };

    fn sent() -> Plan {
        let mut plan = Plan::new(Config::default());
        assert_eq!(plan.due("p", "a", UNLOADED, 0), Some(Cause::Start));
        plan.finished("p", "a", true, 1_000);
        plan
    }

    #[test]
    fn it_is_sent_once_at_start_to_each_backend() {
        let mut plan = sent();
        assert_eq!(plan.due("p", "a", LOADED, 2_000), None);
        assert_eq!(plan.due("p", "b", LOADED, 2_000), Some(Cause::Start));
        assert_eq!(plan.due("p", "b", LOADED, 2_000), None, "it is under way");
    }

    #[test]
    fn it_is_sent_after_a_reload_and_does_not_cause_one() {
        let mut plan = sent();
        assert_eq!(plan.due("p", "a", UNLOADED, 2_000), None);
        assert_eq!(plan.due("p", "a", UNLOADED, 3_000), None);
        assert_eq!(plan.due("p", "a", LOADED, 4_000), Some(Cause::Reload));
        plan.finished("p", "a", true, 5_000);
        assert_eq!(plan.due("p", "a", LOADED, 6_000), None);
    }

    #[test]
    fn it_is_sent_once_before_each_expiry() {
        let mut plan = sent();
        assert_eq!(plan.due("p", "a", LOADED, 269_999), None);
        assert_eq!(plan.due("p", "a", LOADED, 270_000), Some(Cause::Expiry));
        plan.finished("p", "a", true, 271_000);
        assert_eq!(plan.due("p", "a", LOADED, 272_000), None, "the list of loaded models is a little old");
        let later = Seen { expires_at_ms: Some(571_000), ..LOADED };
        assert_eq!(plan.due("p", "a", later, 541_000), Some(Cause::Expiry));
    }

    #[test]
    fn it_is_sent_when_it_has_gone_cold() {
        let mut plan = sent();
        assert_eq!(plan.due("p", "a", Seen { warm: false, ..LOADED }, 2_000), Some(Cause::Cold));
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_bound() {
        let mut plan = Plan::new(Config::default());
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..40 {
            assert_eq!(plan.due("p", "a", UNLOADED, now), Some(Cause::Start));
            plan.finished("p", "a", false, now);
            let from = now;
            while plan.done[&("p".to_owned(), "a".to_owned())].not_before_ms > now {
                assert_eq!(plan.due("p", "a", UNLOADED, now), None);
                now += 30_000;
            }
            pauses.push((now - from) / 30_000);
        }
        assert_eq!(pauses[..7], [1, 2, 4, 8, 16, 20, 20]);
        assert_eq!(pauses[39], 20);
    }

    #[test]
    fn what_is_taken_off_the_list_begins_anew() {
        let mut plan = sent();
        plan.forget("p");
        assert_eq!(plan.due("p", "a", LOADED, 2_000), Some(Cause::Start));
        plan.forget_backend("a");
        assert!(plan.done.is_empty());
    }

    #[test]
    fn one_token_is_asked_for() {
        let row = Row { name: "p".into(), model: "m".into(), system: Some("s".into()), prompt: "t".into(), created_at_ms: 0 };
        let ask = ask(&row);
        assert_eq!((ask.options.num_predict, ask.prompt.system.as_deref(), ask.prompt.text.as_str()), (Some(1), Some("s"), "t"));
    }

    #[test]
    fn a_system_prompt_alone_is_read_too() {
        let row = Row { name: "p".into(), model: "m".into(), system: Some("s".into()), prompt: String::new(), created_at_ms: 0 };
        assert!(!ask(&row).prompt.text.is_empty(), "an empty prompt would only load the model");
    }
}
