//! The steps of a fallback hierarchy, gone through until one serves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::about::{About, CacheOutcome};
use super::attempt::Prepared;
use super::call::{Call, is_unload};
use super::choice::{Choice, Host};
use super::error::{Error, Stage};
use super::generate::Gateway;
use super::learning::{Lesson, text_bytes};
use super::production::Started;
use crate::backends::Kind;
use crate::cache::prefix::{Chain as Prefix, Warm};
use crate::domain::blame::Retry;
use crate::domain::generation::{Ask, Change, Request};
use crate::domain::id::ModelName;
use crate::domain::model::ModelInfo;
use crate::domain::waiting::Progress;
use crate::models::{Circumstances, Entry, Loaded, Normalised, Policy};
use crate::routing::fallback::{Facts, Patience, Step, Trouble, Why, simplify};
use crate::scheduler::{self, Runner};

/// A list of models younger than this is not asked for again because of a name that is not in it.
const MISS_REFRESH: Duration = Duration::from_secs(1);
/// How often backends are chosen from anew, when those there were have been taken out of the configuration.
const MOST_CHOICES: u32 = 50;
const CHOOSE_AGAIN_PAUSE: Duration = Duration::from_millis(100);
/// What staying where a session is counts for while it is not known what it saves.
const SESSION_SAVES: Duration = Duration::from_millis(500);
/// How many blocks of a prompt name its conversation: enough to tell conversations with the same system prompt apart.
const CONVERSATION_BLOCKS: usize = 4;

/// What a step did to a request.
#[derive(Default)]
struct Changed {
    changed: Vec<Change>,
}

impl Gateway {
    /// Has the call answered by the first step that can.
    pub(super) async fn produce(&self, call: &Call, progress: &Progress) -> Result<(About, Started), Error> {
        self.parts().router.offered();
        let mut facts = Facts { pressure: self.parts().pressure(), ..Facts::of(&call.ask) };
        let Some((mut step, mut why)) = call.chain.first(&facts) else {
            return Err(Error::ModelForbidden { model: call.asked.to_string(), allowed: call.principal.models.to_vec() });
        };
        let mut attempts = 0;
        loop {
            let patience = call.chain.patience(step.place, &facts);
            let mut done = Changed::default();
            let tried = Box::pin(self.step(call, &step, patience, progress, &mut done, &mut attempts, &mut facts)).await;
            let error = match tried {
                Ok(started) => return Ok((Self::about(call, &step, why.as_ref(), done, attempts, &started), started)),
                Err(error) => error,
            };
            let Some((next, reason)) = call.chain.next(step.place, &trouble(&error), &facts) else { return Err(error) };
            tracing::info!(request = %call.id, from = %step.model, to = %next.model, reason = reason.detail, "falling back");
            self.parts().ledger.metrics.fallback(reason.reason);
            (step, why) = (next, Some(reason));
        }
    }

    fn about(call: &Call, step: &Step, why: Option<&Why>, done: Changed, attempts: u32, started: &Started) -> About {
        About {
            backend: started.backend.to_string(),
            asked: call.asked.clone(),
            model: step.model.clone(),
            step: step.place,
            why: why.map(|why| why.detail.clone()),
            not_applied: call.not_applied.clone(),
            changed: call.changed.iter().cloned().chain(done.changed).collect(),
            cache: CacheOutcome::new("miss", "absent"),
            standing: Some(call.standing.clone()),
            attempts,
            asked_at: Some(started.asked_at()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what comes in, and what is told on the way; a struct of them would be made once")]
    async fn step(
        &self,
        call: &Call,
        step: &Step,
        patience: Patience,
        progress: &Progress,
        done: &mut Changed,
        attempts: &mut u32,
        facts: &mut Facts,
    ) -> Result<Started, Error> {
        let mut choices = 0;
        loop {
            let hosts = self.hosts(step).await?;
            facts.context_tokens = hosts.iter().filter_map(|(_, model)| model.context_length).max().map(u64::from);
            *done = Changed::default();
            let prepared = self.prepare(call, step, patience, hosts, done);
            match self.ask(prepared, progress, attempts).await {
                // The configuration was reloaded: others may have the model, which the queue hears of a moment later.
                Err(Error::Queue(scheduler::Refusal::NoBackend)) if choices < MOST_CHOICES => {
                    choices += 1;
                    tokio::time::sleep(CHOOSE_AGAIN_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// The backends that have the step's model. A name nobody is known to have may be new: the backends are asked once more.
    pub(super) async fn hosts(&self, step: &Step) -> Result<Vec<(Arc<Entry>, Arc<ModelInfo>)>, Error> {
        let registry = self.registry();
        let find = || {
            let mut found = registry.having(&step.model);
            found.retain(|(entry, _)| {
                step.backend.as_deref().is_none_or(|name| name == entry.backend.name() || name == entry.backend.kind().as_str())
            });
            found
        };
        let mut found = find();
        if found.is_empty() {
            registry.refresh_if_older(MISS_REFRESH).await;
            found = find();
        }
        if found.is_empty() { Err(self.unknown(&step.model)) } else { Ok(found) }
    }

    fn unknown(&self, model: &ModelName) -> Error {
        let entries = self.registry().entries();
        let reason = |entry: &Arc<Entry>| Some(format!("{} ({}): {}", entry.backend.name(), entry.backend.describe(), entry.failure()?));
        let unasked: Vec<String> = entries.iter().filter_map(reason).collect();
        if !entries.is_empty() && unasked.len() == entries.len() {
            return Error::NoBackend { reasons: unasked };
        }
        // Of one that never said what it has, nobody can say that it lacks the model.
        if entries.iter().any(|entry| entry.failure().is_some() && entry.models().is_empty()) {
            return Error::ModelUnasked { model: model.to_string(), unasked };
        }
        Error::ModelNotFound { model: model.to_string(), near: self.registry().near(model), unasked }
    }

    /// The step's request: made smaller if the step says so, and kept to what the model's policy allows.
    fn prepare(
        &self,
        call: &Call,
        step: &Step,
        patience: Patience,
        hosts: Vec<(Arc<Entry>, Arc<ModelInfo>)>,
        done: &mut Changed,
    ) -> Prepared {
        let parts = self.parts();
        let (mut ask, simpler) =
            if step.simplify.is_nothing() { (call.ask.clone(), Vec::new()) } else { simplify(&call.ask, &step.simplify) };
        let policy = call.settings.policies.of(&step.model);
        let normalised = self.normalise(call, step, policy, &hosts, &mut ask);
        normalised.changed.iter().for_each(|change| parts.ledger.metrics.option_changed(&change.field));
        done.changed.extend(simpler.into_iter().chain(normalised.changed));
        let request = Request { id: call.id.clone(), model: step.model.clone(), ask, deadline: call.deadline.map(|d| d.at) };
        let request = Arc::new(request);
        let lesson = self.lesson(call, &request);
        let warm = Some(conversation(call, &lesson.chain));
        let choice = Choice::new(self.places(&lesson, hosts, policy), parts.router.clone());
        let timeouts = call.settings.timeouts.of(&step.model);
        Prepared {
            bytes: text_bytes(&request.ask),
            slots: policy.slots,
            runner: Runner { model: step.model.canonical().into(), shape: normalised.shape.into() },
            request,
            choice: Arc::new(choice),
            lesson,
            class: call.class,
            principal: Arc::clone(&call.principal),
            warm,
            patience: patience.queue.into_iter().chain(timeouts.queue).min(),
            first_token_within: patience.first_token,
            timeouts,
        }
    }

    /// Keeps a request to its model's policy, where a server has it: the engine in this process has settings of its own.
    fn normalise(&self, call: &Call, step: &Step, policy: &Policy, hosts: &[(Arc<Entry>, Arc<ModelInfo>)], ask: &mut Ask) -> Normalised {
        let Some((_, model)) = hosts.iter().find(|(entry, _)| entry.backend.kind() == Kind::Ollama) else { return Normalised::default() };
        let (loaded, now) = (loaded(hosts, &step.model), self.parts().ledger.clock.now());
        let with = Circumstances { loaded, allowance: &call.principal.allowance, now };
        let unload = is_unload(ask).then(|| ask.keep_alive.clone());
        let mut normalised = self.parts().normaliser.normalise(model, ask, policy, with);
        if let Some(keep_alive) = unload {
            ask.keep_alive = keep_alive;
            normalised.changed.retain(|change| change.field != "keep_alive");
        }
        normalised
    }

    /// The rest of an answer that was cut, on one of these.
    pub(super) fn prepare_again(&self, call: &Call, step: &Step, ask: Ask, hosts: Vec<(Arc<Entry>, Arc<ModelInfo>)>) -> Prepared {
        let again = Call { ask, ..call.clone() };
        self.prepare(&again, step, Patience::default(), hosts, &mut Changed::default())
    }

    fn lesson(&self, call: &Call, request: &Arc<Request>) -> Lesson {
        let (parts, model, ask) = (self.parts(), &request.model, &request.ask);
        let chain = Prefix::of(parts.prefixes.config(), model, ask);
        let predicted: Arc<[Warm]> = parts.prefixes.longest(&chain).into();
        let plain = ask.prompt.context.is_empty() && ask.prompt.images.is_empty();
        Lesson {
            request: Arc::clone(request),
            sizes: parts.sizes.clone(),
            prefixes: parts.prefixes.clone(),
            estimated_tokens: parts.sizes.estimate(model, ask),
            chain: Arc::new(chain),
            predicted,
            bytes: plain.then(|| text_bytes(ask)),
            session: session(call),
        }
    }

    fn places(&self, lesson: &Lesson, hosts: Vec<(Arc<Entry>, Arc<ModelInfo>)>, policy: &Policy) -> Vec<Host> {
        let home = lesson.session.as_ref().and_then(|session| self.parts().prefixes.where_is(session));
        let place = |(entry, model): (Arc<Entry>, Arc<ModelInfo>)| {
            let name = entry.backend.name();
            let warm = lesson.predicted.iter().find(|warm| &*warm.backend == name);
            let mut saves = warm.and_then(|warm| warm.saves).unwrap_or_default();
            if home.as_deref() == Some(name) {
                saves = saves.max(SESSION_SAVES);
            }
            let slots = policy.slots.or(entry.backend.slots()).unwrap_or(1);
            Host::new(entry, model, slots, saves)
        };
        hosts.into_iter().map(place).collect()
    }
}

/// What of a model's settings is in memory now, on any backend.
fn loaded(hosts: &[(Arc<Entry>, Arc<ModelInfo>)], model: &ModelName) -> Loaded {
    let mut state = Loaded::Unknown;
    for (entry, _) in hosts {
        match (entry.loaded(model), state) {
            (Loaded::Yes(context), Loaded::Yes(known)) => state = Loaded::Yes(context.max(known)),
            (yes @ Loaded::Yes(_), _) => state = yes,
            (Loaded::No, Loaded::Unknown) => state = Loaded::No,
            _ => {}
        }
    }
    state
}

/// The session's name, with its tenant's: sessions of two tenants are never one.
fn session(call: &Call) -> Option<Arc<str>> {
    call.control.session.as_ref().map(|session| format!("{}\u{0}{session}", call.principal.tenant).into())
}

/// Names the conversation a request belongs to.
fn conversation(call: &Call, chain: &Prefix) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    match session(call) {
        Some(session) => session.hash(&mut hasher),
        None => chain.hash_after(CONVERSATION_BLOCKS).hash(&mut hasher),
    }
    hasher.finish()
}

/// What went wrong, in the words of the conditions.
fn trouble(error: &Error) -> Trouble {
    match error {
        Error::Queue(scheduler::Refusal::Expired { waited }) => Trouble::QueueWait(*waited),
        Error::Queue(scheduler::Refusal::TooLate { eta, .. }) => Trouble::QueueWait(*eta),
        Error::Queue(_) => Trouble::Failed { kind: "overloaded", retry: Retry::Elsewhere },
        // It had not come by then, so it takes longer.
        Error::TooSlow { stage: Stage::FirstToken | Stage::Loading, allowed } => {
            Trouble::FirstToken(allowed.saturating_add(Duration::from_millis(1)))
        }
        Error::ModelNotFound { .. } => Trouble::Failed { kind: "model_not_found", retry: Retry::Elsewhere },
        error => Trouble::Failed { kind: error.kind(), retry: error.retry() },
    }
}

/// What stands for the model's content in the key of an answer: the digests of all who have it.
pub fn digest(hosts: &[(Arc<Entry>, Arc<ModelInfo>)]) -> Option<String> {
    let mut all = hosts.iter().filter_map(|(_, model)| model.digest.as_ref());
    // Usually there is one host, or all have the same.
    let first = all.next()?;
    if all.all(|other| other == first) {
        return Some(first.clone());
    }
    Some(joined(&hosts.iter().filter_map(|(_, model)| model.digest.clone()).collect()))
}

/// Several digests as one.
pub fn joined(digests: &BTreeSet<String>) -> String {
    digests.iter().map(String::as_str).collect::<Vec<_>>().join("+")
}
