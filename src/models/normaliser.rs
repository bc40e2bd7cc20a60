//! Makes a request keep to the policy of its model before anyone is asked.
//!
//! [`Normaliser`] remembers for each model the settings its runner has, and promises with the default policy: clients that disagree about
//! them do not have the model loaded anew in turn. A context that is smaller than the one in force runs in the one in force; a
//! larger one raises it for all, once; it does not go back while the model is in use. Other settings stay what they were when the
//! model was loaded. Whatever a client asked for and does not get is said in its answer.
//! Decides without a clock and without asking: time, and what is known of memory, come in. Does not refuse anything.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::policy::{Config, LongPrompt, RunnerOptions};
use super::runner::Runner;
use crate::domain::allowance::Allowance;
use crate::domain::generation::{Ask, Change};
use crate::domain::model::ModelInfo;

/// The smallest context with which Ollama loads a model that is asked for without one, in tokens. A smaller wish costs a reload as
/// soon as anyone asks without, so it gets this much at once.
const LEAST_DEFAULT_CONTEXT: u32 = 4096;
/// A model that is not in memory and was not asked for during this time begins anew with what the next client wants.
const FORGET_AFTER: Duration = Duration::from_mins(5);
/// Models of which the settings are remembered.
const MAX_MODELS: usize = 1024;

/// What is known of a model in a backend's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Loaded {
    #[default]
    Unknown,
    No,
    /// With a context of so many tokens, where that is known.
    Yes(Option<u32>),
}

/// What a decision depends on besides the request and the policy.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    pub loaded: Loaded,
    /// Of whoever asks.
    pub allowance: &'a Allowance,
    pub now: Instant,
}

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Normalised {
    /// The settings of the runner as one text: requests with the same text for the same model need no reload between them.
    pub shape: String,
    /// What the client asked for and does not get.
    pub changed: Vec<Change>,
    /// Bounds that were set where the client said nothing.
    pub detail: Vec<Change>,
}

/// See the module for what it promises.
#[derive(Debug, Default)]
pub struct Normaliser {
    models: Mutex<HashMap<String, InForce>>,
}

#[derive(Debug)]
struct InForce {
    runner: Runner,
    used: Instant,
}

impl Normaliser {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the request so that it keeps to the policy.
    pub fn normalise(&self, model: &ModelInfo, ask: &mut Ask, policy: &Config, with: Circumstances<'_>) -> Normalised {
        let mut done = Normalised::default();
        self.runner(model, ask, policy, with, &mut done);
        let (keep_alive, change) = policy.keep_alive(ask.keep_alive.as_ref());
        ask.keep_alive = keep_alive;
        done.changed.extend(change);
        bound(ask, policy, with.allowance, &mut done);
        ask.truncate.get_or_insert(policy.on_long_prompt == LongPrompt::Truncate);
        done
    }

    /// The options with which a model is to be loaded ahead of its first request.
    pub fn loading_options(&self, model: &ModelInfo, policy: &Config, loaded: Loaded, now: Instant) -> Map<String, Value> {
        let (mut ask, allowance) = (Ask::default(), Allowance::default());
        self.runner(model, &mut ask, policy, Circumstances { loaded, allowance: &allowance, now }, &mut Normalised::default());
        let mut options = ask.options.to_map();
        options.extend(ask.extra);
        options
    }

    fn runner(&self, model: &ModelInfo, ask: &mut Ask, policy: &Config, with: Circumstances<'_>, done: &mut Normalised) {
        let asked = Runner::asked(ask);
        let settled = match policy.runner_options {
            RunnerOptions::Allow => asked.clone(),
            RunnerOptions::Pin => Runner::of_policy(policy),
            RunnerOptions::Max => self.in_force(model, &asked, policy, with),
        };
        settled.put(ask);
        done.shape = settled.shape();
        // Where the server's own context is in force, its size is what the client gets.
        let known = match with.loaded {
            Loaded::Yes(Some(context)) => Some(Value::from(context)),
            _ => None,
        };
        for ((field, from), (_, to)) in asked.fields().into_iter().zip(settled.fields()) {
            let Some(from) = from else { continue };
            let to = to.or_else(|| known.clone().filter(|_| field == "options.num_ctx"));
            if to.as_ref() != Some(&from) {
                let why = "the model is loaded with it for all its users; another value would load it anew";
                done.changed.push(Change { field: field.to_owned(), from, to: to.unwrap_or(Value::Null), why });
            }
        }
    }

    /// The settings that hold for a model from this request on.
    fn in_force(&self, model: &ModelInfo, asked: &Runner, policy: &Config, with: Circumstances<'_>) -> Runner {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let name = model.name.canonical();
        let known =
            models.get_mut(name).filter(|known| with.loaded != Loaded::No || with.now.saturating_duration_since(known.used) < FORGET_AFTER);
        if let Some(known) = known {
            known.used = known.used.max(with.now);
            known.runner.num_ctx = raised(known.runner.num_ctx, asked.num_ctx, policy, with.loaded, model.context_length);
            return known.runner.clone();
        }
        let num_ctx = first(asked.num_ctx, policy, with.loaded, model.context_length);
        let runner = Runner { num_ctx, ..Runner::of_policy(policy).or(asked) };
        make_room(&mut models, name);
        models.insert(name.to_owned(), InForce { runner: runner.clone(), used: with.now });
        runner
    }
}

/// Forgets the model that was not asked for the longest, when there are too many and this one is new.
fn make_room(models: &mut HashMap<String, InForce>, name: &str) {
    if models.len() < MAX_MODELS || models.contains_key(name) {
        return;
    }
    if let Some(oldest) = models.iter().min_by_key(|(_, known)| known.used).map(|(name, _)| name.clone()) {
        models.remove(&oldest);
    }
}

/// The least context that is ever asked for.
fn least(policy: &Config, trained: Option<u32>) -> u32 {
    within(policy.num_ctx.unwrap_or(LEAST_DEFAULT_CONTEXT), trained)
}

fn within(context: u32, trained: Option<u32>) -> u32 {
    trained.filter(|most| *most > 0).map_or(context, |most| context.min(most))
}

/// The context of a model of which nothing is remembered. `None`: the server's own.
fn first(asked: Option<u32>, policy: &Config, loaded: Loaded, trained: Option<u32>) -> Option<u32> {
    let asked = asked.or(policy.num_ctx).map(|context| within(context, trained));
    match (loaded, asked) {
        (Loaded::Yes(Some(have)), asked) => Some(have.max(asked.unwrap_or_default())),
        (_, None) => None,
        (_, Some(context)) => Some(context.max(least(policy, trained))),
    }
}

/// The context from now on, when there is one in force (`None`: the server's own).
fn raised(have: Option<u32>, asked: Option<u32>, policy: &Config, loaded: Loaded, trained: Option<u32>) -> Option<u32> {
    let Some(asked) = asked.map(|context| within(context, trained)) else { return have };
    let own = match loaded {
        Loaded::Yes(Some(context)) => context,
        // At least this much: the server's own is never smaller, unless someone made it so.
        _ => least(policy, trained),
    };
    if asked > have.unwrap_or(own) { Some(asked) } else { have }
}

/// Sets the bound on generated tokens.
fn bound(ask: &mut Ask, policy: &Config, allowance: &Allowance, done: &mut Normalised) {
    let asked = ask.options.num_predict;
    let Some(to) = policy.num_predict(asked, allowance).filter(|to| asked != Some(*to)) else { return };
    ask.options.num_predict = Some(to);
    let why = "answers are bounded; without a bound, Ollama goes on until the context is full";
    let list = if asked.is_some() { &mut done.changed } else { &mut done.detail };
    list.push(Change { field: "options.num_predict".to_owned(), from: asked.map_or(Value::Null, Value::from), to: to.into(), why });
}

#[cfg(test)]
#[path = "normaliser_tests.rs"]
mod tests;
