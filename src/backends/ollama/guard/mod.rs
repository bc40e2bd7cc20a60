//! Sees that a server is stuck, keeps requests away from it, and tries to cure it.
//!
//! A server can answer every question about itself and yet not begin, or not go on with, an answer: a slot that was lost, a model that does
//! not leave memory, a runner that was stopped. [`Guard`] follows the progress of all answers of one server; [`watch`] looks at it at
//! intervals, and costs the server one small question a second while there are answers, nothing otherwise. While a model is
//! found stuck, asking for it fails at once, and those who wait in vain are told; then the model is unloaded and asked for one token.
//! Decisions are `judge`'s, which is pure; here they are carried out. It does not choose another server.

mod evidence;
mod judge;
mod tracked;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Config;
use super::truncation::Ratio;
use crate::backends::{Error, Trouble};
use crate::domain::clock::Clock;
use crate::domain::generation::{Finish, Prompt, Request, Truncated};
use crate::telemetry::metrics::{Metrics, Truncation};

use evidence::{Answer, List, Listed};
use judge::{Action, Judge, Limits};

pub(super) use tracked::Tracked;
pub(super) use watch::watch;

/// Loading takes longer than this, looking a loaded model up does not.
const LOAD_SHOWS: Duration = Duration::from_millis(500);
/// After its first token an answer is written to all the time, so that the server notices at once that its client has left.
const NOTICED_WHILE_WRITING: Duration = Duration::from_millis(20);
/// A shorter patience would take any answer for a trouble.
const LEAST_WEDGED_AFTER: Duration = Duration::from_millis(100);
/// Models of which the context and the length of tokens are remembered.
const MAX_MODELS: usize = 256;
/// Troubles that are over and still told of.
const MAX_PAST: usize = 16;

/// How long a place stays taken on the server after its client has left, before the first token (`spoke` is false) or after it.
pub(super) fn booked_after_cancel(config: &Config, spoke: bool) -> Duration {
    if spoke { config.slot_freed_within.min(NOTICED_WHILE_WRITING) } else { config.slot_freed_within }
}

/// The answers of one server. See the module for what it promises.
pub(super) struct Guard {
    backend: String,
    start: Instant,
    metrics: OnceLock<Metrics>,
    inner: Mutex<Inner>,
}

struct Inner {
    judge: Judge,
    answers: HashMap<u64, UnderWay>,
    next_id: u64,
    /// Something was asked since the last look.
    active: bool,
    ratios: HashMap<String, Ratio>,
    /// With which a model is loaded, by the server's list.
    contexts: HashMap<String, u32>,
    /// What was stuck and is no longer.
    past: VecDeque<Trouble>,
}

struct UnderWay {
    answer: Answer,
    progress: Arc<Progress>,
    let_go: CancellationToken,
    /// The model was in memory when it was asked, as far as anyone could tell.
    was_loaded: bool,
    /// Bytes of the prompt, where these are all that its tokens come from, and the context it asks for.
    text_bytes: Option<u64>,
    num_ctx: Option<u32>,
}

/// When an answer last said something, in milliseconds since the guard was made, plus one. 0: not yet.
#[derive(Default)]
struct Progress(AtomicU64);

impl Guard {
    pub fn new(backend: String, config: &Config) -> Self {
        let limits = Limits { wedged_after: config.wedged_after.max(LEAST_WEDGED_AFTER), slots: config.slots };
        let inner = Inner {
            judge: Judge::new(limits),
            answers: HashMap::new(),
            next_id: 0,
            active: false,
            ratios: HashMap::new(),
            contexts: HashMap::new(),
            past: VecDeque::new(),
        };
        Self { backend, start: Instant::now(), metrics: OnceLock::new(), inner: Mutex::new(inner) }
    }

    /// Where it counts. Only the first call has an effect.
    pub fn count_in(&self, metrics: &Metrics) {
        let _ = self.metrics.set(metrics.clone());
    }

    fn count(&self, count: impl FnOnce(&Metrics, &str)) {
        if let Some(metrics) = self.metrics.get() {
            count(metrics, &self.backend);
        }
    }

    pub fn count_truncation(&self, how: Truncation) {
        self.count(|metrics, backend| metrics.truncation(backend, how));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Follows an answer until the returned value is dropped.
    ///
    /// # Errors
    /// [`Error::Wedged`] while the server is stuck on the model.
    pub fn enter(self: &Arc<Self>, request: &Request) -> Result<Ticket, Error> {
        let mut inner = self.lock();
        let model = request.model.canonical();
        if let Some(standing) = inner.judge.trouble_with(model) {
            return Err(Error::Wedged { model: model.to_owned(), why: standing.why.clone() });
        }
        let id = inner.next_id;
        inner.next_id += 1;
        inner.active = true;
        let answer = Answer {
            id,
            model: model.to_owned(),
            shape: shape(request),
            prompt_bytes: prompt_bytes(&request.ask.prompt),
            started: self.now(),
            spoke: None,
            discreet: request.ask.extra.contains_key("tools"),
        };
        let (progress, let_go) = (Arc::<Progress>::default(), CancellationToken::new());
        let under_way = UnderWay {
            was_loaded: inner.judge.believes_loaded(&answer),
            answer,
            progress: Arc::clone(&progress),
            let_go: let_go.clone(),
            text_bytes: text_bytes(&request.ask.prompt),
            num_ctx: request.ask.options.num_ctx,
        };
        inner.answers.insert(id, under_way);
        Ok(Ticket { guard: Arc::clone(self), id, progress, let_go })
    }

    /// What is stuck now.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.told(&self.lock().judge)
    }

    /// What was stuck lately, and for how long; the latest last.
    pub fn past_troubles(&self) -> Vec<Trouble> {
        self.lock().past.iter().cloned().collect()
    }

    fn told(&self, judge: &Judge) -> Vec<Trouble> {
        let (now, unix_ms) = (self.now(), Clock::system().unix_ms());
        let ago = |since: Duration| i64::try_from(now.saturating_sub(since).as_millis()).unwrap_or_default();
        let told = judge.troubles().map(|(model, standing)| Trouble {
            kind: standing.kind,
            model: model.to_owned(),
            since_unix_ms: unix_ms - ago(standing.since),
            until_unix_ms: None,
            why: standing.why.clone(),
            cures_tried: standing.cures_tried,
            advice: standing.kind.advice(),
        });
        told.collect()
    }

    /// Whether there is anything to look at.
    fn is_active(&self) -> bool {
        let inner = self.lock();
        inner.active || !inner.answers.is_empty() || inner.judge.troubles().next().is_some()
    }

    /// One look; carries out what can be done at once and returns the rest, which is to be cured.
    fn look(&self, list: &List, contexts: Vec<(String, u32)>) -> Vec<Action> {
        let now = self.now();
        let mut inner = self.lock();
        for (model, context) in contexts.into_iter().take(MAX_MODELS) {
            remember(&mut inner.contexts, model, context);
        }
        let answers: Vec<Answer> = inner.answers.values().map(UnderWay::now).collect();
        inner.active = !answers.is_empty();
        let (mut cures, before) = (Vec::new(), self.told(&inner.judge));
        let actions = inner.judge.look(now, &answers, list);
        inner.note_past(before);
        for action in actions {
            match action {
                Action::LetGo(id) => inner.answers.get(&id).into_iter().for_each(|under_way| under_way.let_go.cancel()),
                Action::Report { model, kind, why } => {
                    tracing::warn!(backend = self.backend, model, kind = kind.as_str(), why, advice = kind.advice(), "a backend is stuck");
                    self.count(|metrics, backend| metrics.wedged(backend, kind.as_str()));
                }
                Action::Gone { model, kind } => {
                    tracing::info!(backend = self.backend, model, kind = kind.as_str(), "a backend is no longer stuck");
                }
                cure @ Action::Cure { .. } => cures.push(cure),
            }
        }
        cures
    }

    fn cured(&self, model: &str, healed: bool) {
        let now = self.now();
        let mut inner = self.lock();
        let before = self.told(&inner.judge);
        inner.judge.cured(model, healed, now);
        inner.note_past(before);
    }
}

impl Inner {
    /// Remembers those of the troubles `before` that no longer stand: a cure may work before anyone has looked.
    fn note_past(&mut self, before: Vec<Trouble>) {
        for trouble in before {
            if self.judge.trouble_with(&trouble.model).is_some() {
                continue;
            }
            if self.past.len() >= MAX_PAST {
                self.past.pop_front();
            }
            self.past.push_back(Trouble { until_unix_ms: Some(Clock::system().unix_ms()), ..trouble });
        }
    }
}

impl UnderWay {
    fn now(&self) -> Answer {
        Answer { spoke: self.progress.last(), ..self.answer.clone() }
    }
}

impl Progress {
    fn said(&self, at: Duration) {
        self.0.store(u64::try_from(at.as_millis()).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    fn last(&self) -> Option<Duration> {
        self.0.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
    }
}

/// An answer that is followed; dropping it ends that.
pub(super) struct Ticket {
    guard: Arc<Guard>,
    id: u64,
    progress: Arc<Progress>,
    let_go: CancellationToken,
}

impl Ticket {
    /// Something came.
    pub fn said(&self) {
        self.progress.said(self.guard.now());
    }

    /// Resolves when there is no use in waiting any longer.
    pub fn let_go(&self) -> WaitForCancellationFutureOwned {
        self.let_go.clone().cancelled_owned()
    }

    /// Why there is none.
    pub fn wedged(&self) -> Error {
        let inner = self.guard.lock();
        let model = inner.answers.get(&self.id).map(|under_way| under_way.answer.model.clone()).unwrap_or_default();
        let why = inner.judge.trouble_with(&model).map_or_else(|| "it made no progress".to_owned(), |standing| standing.why.clone());
        Error::Wedged { model, why }
    }

    /// Learns from the end of an answer, and notes in it that its prompt was cut. `cut_from`: it was allowed to be, and had so many tokens.
    pub fn finished(&self, finish: &mut Finish, cut_from: Option<u64>) {
        let mut inner = self.guard.lock();
        let Inner { judge, answers, ratios, contexts, .. } = &mut *inner;
        let Some(under_way) = answers.get(&self.id) else { return };
        let answer = &under_way.answer;
        if finish.timing.load.is_some_and(|load| load > LOAD_SHOWS) {
            self.guard.count(|metrics, backend| metrics.model_loaded(backend, !under_way.was_loaded));
        }
        if let Some(reading) = finish.timing.prompt_eval {
            judge.learn(&answer.model, computed_bytes(answer.prompt_bytes, finish), reading);
        }
        let Some(tokens) = finish.usage.prompt_tokens else { return };
        if let Some(prompt_tokens) = cut_from {
            finish.remarks.truncated = Some(Truncated { prompt_tokens, kept_tokens: tokens });
            return;
        }
        let Some(bytes) = under_way.text_bytes else { return };
        let ratio = ratios.get(&answer.model).copied().unwrap_or_default();
        let context = under_way.num_ctx.or_else(|| contexts.get(&answer.model).copied());
        finish.remarks.truncated = context.and_then(|context| ratio.cut(bytes, tokens, context));
        if finish.remarks.truncated.is_some() {
            self.guard.count_truncation(Truncation::Found);
        } else {
            let mut ratio = ratio;
            ratio.learn(bytes, tokens);
            remember(ratios, answer.model.clone(), ratio);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = self.guard.now();
        let mut inner = self.guard.lock();
        if let Some(under_way) = inner.answers.remove(&self.id) {
            inner.judge.ended(&under_way.now(), now);
        }
    }
}

/// Keeps a value for a model, unless too many are kept.
fn remember<T>(kept: &mut HashMap<String, T>, model: String, value: T) {
    if kept.len() < MAX_MODELS || kept.contains_key(&model) {
        kept.insert(model, value);
    }
}

/// The settings of the runner that a request asks for, as one text.
fn shape(request: &Request) -> String {
    let o = &request.ask.options;
    let runner = (o.num_ctx, o.num_batch, o.num_gpu, o.main_gpu, o.use_mmap, o.num_thread, o.draft_num_predict);
    format!("{runner:?} {:?}", request.ask.extra.get("shift"))
}

/// All that has to be read before the first token, in bytes.
fn prompt_bytes(prompt: &Prompt) -> u64 {
    let texts = [Some(&prompt.text), prompt.suffix.as_ref(), prompt.system.as_ref(), prompt.template.as_ref()];
    let bytes = texts.into_iter().flatten().chain(&prompt.images).map(String::len).sum::<usize>() + prompt.context.len() * 4;
    bytes as u64
}

/// The bytes of a prompt that is nothing but text.
fn text_bytes(prompt: &Prompt) -> Option<u64> {
    let only_text = prompt.images.is_empty() && prompt.context.is_empty() && prompt.suffix.is_none() && prompt.template.is_none();
    let system = prompt.system.as_ref().map_or(0, String::len);
    only_text.then_some((prompt.text.len() + system) as u64)
}

/// The part of a prompt that no cache of the server held, in bytes, where it says how much that was.
fn computed_bytes(bytes: u64, finish: &Finish) -> u64 {
    let cached = finish.usage.cached_tokens.or_else(|| finish.extra.get("prompt_eval_cached_count").and_then(serde_json::Value::as_u64));
    match (cached, finish.usage.prompt_tokens) {
        (Some(cached), Some(all)) if all > 0 => bytes.saturating_mul(all.saturating_sub(cached)) / all,
        _ => bytes,
    }
}

fn listed(resident: &super::library::Resident, now: Duration, unix_ms: i64) -> Option<Listed> {
    let known = super::residency::known(resident)?;
    let stays =
        known.expires_at_unix_ms.map(|until| Duration::from_millis(u64::try_from(until.saturating_sub(unix_ms)).unwrap_or_default()));
    Some(Listed { model: known.model.canonical().to_owned(), stays_until: stays.map(|stays| now.saturating_add(stays)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_stays_taken_until_the_server_can_have_noticed() {
        let config = Config { slot_freed_within: Duration::from_millis(200), ..Config::default() };
        assert_eq!(booked_after_cancel(&config, false), Duration::from_millis(200));
        assert_eq!(booked_after_cancel(&config, true), NOTICED_WHILE_WRITING);
        let none = Config { slot_freed_within: Duration::ZERO, ..Config::default() };
        assert_eq!(booked_after_cancel(&none, true), Duration::ZERO);
    }
}
