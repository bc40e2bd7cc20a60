//! What may be done with a model: the `[[model]]` sections of the configuration.
//!
//! The first section whose `name` means the model holds; without one, the defaults here, which keep one client from having a model
//! loaded anew for all. Keys that a section leaves out have these defaults too: sections do not inherit from each other. Pure.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::allowance::Allowance;
use crate::domain::generation::{Change, KeepAlive};
use crate::domain::id::ModelName;
use crate::domain::principal::matches;

/// What clients may do to the settings of a model's runner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunnerOptions {
    /// The section's values hold, whatever a client asks for; those it does not name are the server's.
    Pin,
    /// The largest context anyone has asked for holds for all while the model is in use; other settings stay what they first were.
    #[default]
    Max,
    /// Each client gets what it asks for, at the price of a reload for everyone.
    Allow,
}

/// What becomes of a client's `keep_alive`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientKeepAlive {
    /// The section's holds, or the server's where it has none.
    #[default]
    Ignore,
    /// It is passed on.
    Allow,
    /// It is passed on when it is not longer than the section's.
    Cap,
}

/// What becomes of a prompt that is longer than the context, when the client does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LongPrompt {
    #[default]
    Refuse,
    /// The backend shortens it, and the answer says so.
    Truncate,
}

/// How one model, or several, may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which models: a name, or a pattern in which `*` stands for any characters.
    pub name: String,
    pub runner_options: RunnerOptions,
    /// With `pin` the context length in tokens; with `max` the least that is asked for.
    pub num_ctx: Option<u32>,
    pub num_batch: Option<u32>,
    pub num_gpu: Option<i64>,
    pub main_gpu: Option<i64>,
    pub use_mmap: Option<bool>,
    pub num_thread: Option<u32>,
    pub draft_num_predict: Option<i64>,
    pub shift: Option<bool>,
    /// How long the model stays in memory after its last request. `None`: as long as the server thinks right.
    #[serde(with = "crate::domain::span::option")]
    pub keep_alive: Option<Duration>,
    pub client_keep_alive: ClientKeepAlive,
    /// Loaded at start and kept, whatever clients ask for.
    pub pinned: bool,
    /// Tokens that a request without a bound of its own may generate.
    pub num_predict_default: Option<u64>,
    /// Most tokens that a request may generate.
    pub num_predict_max: Option<u64>,
    pub on_long_prompt: LongPrompt,
    /// Requests that a backend works on at a time for this model. `None`: what the backend says.
    pub slots: Option<u32>,
}

impl Config {
    /// What is wrong with it: key and why.
    #[must_use]
    pub fn check(&self) -> Vec<(&'static str, &'static str)> {
        let mut wrong = Vec::new();
        if self.name.trim().is_empty() {
            wrong.push(("name", "is missing: name a model, or a pattern such as \"qwen*\""));
        }
        if self.client_keep_alive == ClientKeepAlive::Cap && self.keep_alive.is_none() {
            wrong.push(("client_keep_alive", "is \"cap\", but there is no `keep_alive` to cap it at"));
        }
        if self.slots == Some(0) {
            wrong.push(("slots", "must be at least 1"));
        }
        if self.num_ctx == Some(0) {
            wrong.push(("num_ctx", "must be at least 1"));
        }
        if self.num_predict_max == Some(0) || self.num_predict_default == Some(0) {
            wrong.push(("num_predict_max", "must be at least 1, and so must `num_predict_default`: to Ollama, 0 means no bound"));
        }
        wrong
    }

    /// The `keep_alive` a request goes out with, and what that changes of the client's.
    pub(super) fn keep_alive(&self, asked: Option<&KeepAlive>) -> (Option<KeepAlive>, Option<Change>) {
        let own = if self.pinned { Some(json!(-1)) } else { self.keep_alive.map(written) }.map(KeepAlive);
        let passes = !self.pinned
            && match self.client_keep_alive {
                ClientKeepAlive::Ignore => false,
                ClientKeepAlive::Allow => true,
                ClientKeepAlive::Cap => asked.is_none_or(|asked| self.keep_alive.is_none_or(|cap| is_at_most(&asked.0, cap))),
            };
        let Some(asked) = asked else { return (own, None) };
        if passes || own.as_ref() == Some(asked) {
            return (Some(asked.clone()), None);
        }
        let to = own.as_ref().map_or(Value::Null, |own| own.0.clone());
        let why = "how long a model stays in memory is decided for all its users";
        (own, Some(Change { field: "keep_alive".to_owned(), from: asked.0.clone(), to, why }))
    }

    /// The bound on generated tokens that a request goes out with. `None`: what was asked for stays. Values below 1 are no bound
    /// to Ollama.
    pub(super) fn num_predict(&self, asked: Option<i64>, allowance: &Allowance) -> Option<i64> {
        let most = self.num_predict_max.into_iter().chain(allowance.max_num_predict).min();
        let asked = asked.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
        let bound = asked.or(self.num_predict_default).into_iter().chain(most).min()?;
        Some(i64::try_from(bound).unwrap_or(i64::MAX))
    }
}

/// A span as Ollama reads it.
fn written(span: Duration) -> Value {
    if span.subsec_nanos() == 0 { json!(span.as_secs()) } else { json!(format!("{}ms", span.as_millis())) }
}

/// Whether a client's `keep_alive` is at most this long. What cannot be read is not.
fn is_at_most(asked: &Value, cap: Duration) -> bool {
    let seconds = match asked {
        Value::Number(seconds) => seconds.as_f64(),
        Value::String(text) if text == "0" => Some(0.0),
        Value::String(text) => text.parse::<SignedDuration>().ok().map(|span| span.as_secs_f64()),
        _ => None,
    };
    // Negative: for ever.
    seconds.is_some_and(|seconds| (0.0..=cap.as_secs_f64()).contains(&seconds))
}

/// The policies of a configuration, in their order.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    sections: Vec<Config>,
    otherwise: Config,
}

impl Policies {
    #[must_use]
    pub fn new(sections: Vec<Config>) -> Self {
        Self { sections, otherwise: Config::default() }
    }

    /// The policy of a model: the first that names it, else the default one.
    #[must_use]
    pub fn of(&self, model: &ModelName) -> &Config {
        self.sections.iter().find(|section| matches(&section.name, model)).unwrap_or(&self.otherwise)
    }

    /// Whether any model is to be kept in memory.
    #[must_use]
    pub fn pins_any(&self) -> bool {
        self.sections.iter().any(|section| section.pinned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ModelName {
        ModelName::parse(text).expect("a name")
    }

    #[test]
    fn the_first_section_that_means_a_model_holds() {
        let section = |name: &str, num_ctx| Config { name: name.to_owned(), num_ctx: Some(num_ctx), ..Config::default() };
        let policies = Policies::new(vec![section("gemma3", 1), section("gemma*", 2), section("gemma3:270m", 3)]);
        for (model, num_ctx) in [("gemma3:latest", Some(1)), ("Gemma3", Some(1)), ("gemma3:270m", Some(2)), ("qwen", None)] {
            assert_eq!(policies.of(&name(model)).num_ctx, num_ctx, "{model}");
        }
    }

    #[test]
    fn sections_are_read_with_defaults_and_refused_when_they_make_no_sense() {
        let read: Config = toml::from_str("name = \"m\"\nrunner_options = \"pin\"\nkeep_alive = \"10m\"").expect("valid");
        assert_eq!((read.runner_options, read.keep_alive), (RunnerOptions::Pin, Some(Duration::from_mins(10))));
        assert_eq!(read.check(), []);
        assert!(toml::from_str::<Config>("runner_options = \"most\"").is_err() && toml::from_str::<Config>("numctx = 1").is_err());
        let wrong = Config {
            client_keep_alive: ClientKeepAlive::Cap,
            slots: Some(0),
            num_ctx: Some(0),
            num_predict_default: Some(0),
            ..Config::default()
        };
        let keys: Vec<_> = wrong.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["name", "client_keep_alive", "slots", "num_ctx", "num_predict_max"]);
    }

    #[test]
    fn keep_alive_is_the_gateways() {
        use ClientKeepAlive::{Allow, Cap, Ignore};
        let cases = [
            // client, own minutes, pinned, asked, sent, reported
            (Ignore, None, false, None, None, false),
            (Ignore, None, false, Some(json!(-1)), None, true),
            (Ignore, Some(5), false, None, Some(json!(300)), false),
            (Ignore, Some(5), false, Some(json!(0)), Some(json!(300)), true),
            (Ignore, Some(5), false, Some(json!(300)), Some(json!(300)), false),
            (Allow, Some(5), false, Some(json!("1h")), Some(json!("1h")), false),
            (Allow, Some(5), false, None, Some(json!(300)), false),
            (Cap, Some(5), false, Some(json!("4m59s")), Some(json!("4m59s")), false),
            (Cap, Some(5), false, Some(json!(300)), Some(json!(300)), false),
            (Cap, Some(5), false, Some(json!("5m1s")), Some(json!(300)), true),
            (Cap, Some(5), false, Some(json!(-1)), Some(json!(300)), true),
            (Cap, Some(5), false, Some(json!("-1s")), Some(json!(300)), true),
            (Cap, Some(5), false, Some(json!("0")), Some(json!("0")), false),
            (Cap, Some(5), false, Some(json!("soon")), Some(json!(300)), true),
            (Cap, Some(5), false, Some(json!(true)), Some(json!(300)), true),
            (Cap, Some(5), false, None, Some(json!(300)), false),
            (Allow, Some(5), true, Some(json!(0)), Some(json!(-1)), true),
            (Ignore, None, true, None, Some(json!(-1)), false),
        ];
        for (client_keep_alive, minutes, pinned, asked, sent, reported) in cases {
            let policy = Config { client_keep_alive, pinned, keep_alive: minutes.map(Duration::from_mins), ..Config::default() };
            let (kept, change) = policy.keep_alive(asked.clone().map(KeepAlive).as_ref());
            let case = format!("{client_keep_alive:?} {minutes:?} {pinned} {asked:?}");
            assert_eq!(kept.map(|k| k.0), sent, "{case}");
            assert_eq!(change.is_some(), reported, "{case}");
            if let Some(change) = change {
                assert_eq!((Some(change.from), change.to), (asked, sent.unwrap_or(Value::Null)), "{case}");
            }
        }
        assert_eq!(written(Duration::from_millis(1500)), json!("1500ms"));
    }

    #[test]
    fn every_request_gets_the_least_bound_there_is() {
        for (asked, default, most, key, sent) in [
            (None, None, None, None, None),
            (Some(-1), None, None, None, None),
            (Some(0), None, None, None, None),
            (Some(7), None, None, None, Some(7)),
            (None, Some(100), None, None, Some(100)),
            (Some(-2), Some(100), None, None, Some(100)),
            (Some(0), Some(100), Some(50), None, Some(50)),
            (None, None, Some(50), None, Some(50)),
            (None, None, Some(50), Some(20), Some(20)),
            (None, None, None, Some(20), Some(20)),
            (Some(30), None, Some(50), Some(20), Some(20)),
            (Some(10), Some(100), Some(50), Some(20), Some(10)),
        ] {
            let policy = Config { num_predict_default: default, num_predict_max: most, ..Config::default() };
            let allowance = Allowance { max_num_predict: key, ..Allowance::default() };
            assert_eq!(policy.num_predict(asked, &allowance), sent, "{asked:?} {default:?} {most:?} {key:?}");
        }
    }
}
