//! Whether a server is stuck, decided from its answers' progress and from its list of loaded models.
//!
//! [`Judge`] is looked at once an interval with what is seen then, and says what to do. It promises: no verdict without a reason that an
//! operator can check; a model that was perhaps only being loaded is not called stuck; a verdict goes when the trouble has gone or
//! a cure has helped; nothing is waited for without end. Pure: time comes in, as the span since the backend was made.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::evidence::{Answer, Group, Known, LIST_SLACK, List, Listed, SLOW_LIST};
use crate::backends::TroubleKind;

/// Between two cures; doubled after each that did not help, up to the second.
const CURE_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_CURE_PAUSE: Duration = Duration::from_mins(5);
/// Shorter prompts say little about how fast longer ones are read, in bytes.
const LEAST_TO_LEARN: u32 = 400;
/// Models that are remembered.
const MAX_MODELS: usize = 256;

/// What the judge is told of the server once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// See `Config::wedged_after`.
    pub wedged_after: Duration,
    pub slots: Option<u32>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// A model was found stuck.
    Report { model: String, kind: TroubleKind, why: String },
    /// An answer is to be given up.
    LetGo(u64),
    /// These models are to be unloaded, and then it is to be seen whether that has helped.
    Cure { model: String, kind: TroubleKind, unload: Vec<String> },
    /// The trouble has gone by itself.
    Gone { model: String, kind: TroubleKind },
}

/// A trouble that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub kind: TroubleKind,
    pub why: String,
    pub since: Duration,
    pub cures_tried: u32,
    unload: Vec<String>,
    next_cure: Duration,
    curing: bool,
}

pub(super) struct Judge {
    limits: Limits,
    models: HashMap<String, Known>,
    troubles: BTreeMap<String, Standing>,
}

impl Judge {
    pub fn new(limits: Limits) -> Self {
        Self { limits, models: HashMap::new(), troubles: BTreeMap::new() }
    }

    pub fn trouble_with(&self, model: &str) -> Option<&Standing> {
        self.troubles.get(model)
    }

    pub fn troubles(&self) -> impl Iterator<Item = (&str, &Standing)> {
        self.troubles.iter().map(|(model, standing)| (model.as_str(), standing))
    }

    /// Whether a model was in memory with these settings, as far as anyone can tell: its loading was then not to be expected.
    pub fn believes_loaded(&self, answer: &Answer) -> bool {
        self.models.get(&answer.model).is_some_and(|known| known.was_loaded_for(answer))
    }

    /// An answer is over, whichever way.
    pub fn ended(&mut self, answer: &Answer, now: Duration) {
        let Some(known) = self.known(&answer.model) else { return };
        known.last_active = Some(now);
        if let Some(spoke) = answer.spoke {
            known.last_piece = known.last_piece.max(Some(spoke));
            known.stays_until = known.stays_until.max(spoke);
            known.answered = Some(answer.shape.clone());
        }
    }

    /// So many bytes of a prompt were read in this time, loading apart. What is slow is believed sooner than what is fast, and what is
    /// very fast not at all: a cache of the server, of which older ones say nothing, read it before.
    pub fn learn(&mut self, model: &str, bytes: u64, reading: Duration) {
        let Some(bytes) = u32::try_from(bytes).ok().filter(|bytes| *bytes >= LEAST_TO_LEARN) else { return };
        let Some(known) = self.known(model) else { return };
        let seen = reading / bytes;
        known.per_byte = Some(match known.per_byte {
            None => seen,
            Some(before) if seen > before => (before + seen) / 2,
            Some(before) if seen * 3 >= before => (before * 15 + seen) / 16,
            Some(before) => before,
        });
    }

    /// A cure has come to its end.
    pub fn cured(&mut self, model: &str, healed: bool, now: Duration) {
        if healed {
            self.troubles.remove(model);
        } else if let Some(standing) = self.troubles.get_mut(model) {
            standing.curing = false;
            let doubled = 1_u32.checked_shl(standing.cures_tried.saturating_sub(1)).unwrap_or(u32::MAX);
            standing.next_cure = now + CURE_PAUSE.saturating_mul(doubled).min(LONGEST_CURE_PAUSE);
        }
        if let Some(known) = self.models.get_mut(model) {
            known.answered = None;
        }
    }

    /// One look.
    pub fn look(&mut self, now: Duration, answers: &[Answer], list: &List) -> Vec<Action> {
        self.note(now, answers, list);
        let mut actions = self.clear(answers, list);
        let mut models: Vec<&str> = answers.iter().map(|answer| answer.model.as_str()).collect();
        models.sort_unstable();
        models.dedup();
        for model in models.into_iter().filter(|model| !self.troubles.contains_key(*model)).collect::<Vec<_>>() {
            let group = Group::of(model, answers);
            if let Some((kind, why, unload)) = self.verdict(model, &group, now, answers, list) {
                let standing = Standing { kind, why: why.clone(), since: now, cures_tried: 0, unload, next_cure: now, curing: false };
                self.troubles.insert(model.to_owned(), standing);
                actions.push(Action::Report { model: model.to_owned(), kind, why });
            }
        }
        self.let_go(now, answers, &mut actions);
        self.cures(now, answers, &mut actions);
        actions
    }

    fn known(&mut self, model: &str) -> Option<&mut Known> {
        if self.models.len() >= MAX_MODELS && !self.models.contains_key(model) {
            // The one that has been idle for the longest; one that stands accused is remembered elsewhere.
            let idle = self.models.iter().min_by_key(|(_, known)| known.last_active).map(|(name, _)| name.clone());
            self.models.remove(&idle?);
        }
        Some(self.models.entry(model.to_owned()).or_default())
    }

    fn note(&mut self, now: Duration, answers: &[Answer], list: &List) {
        for listed in list.models() {
            let Some(known) = self.known(&listed.model) else { continue };
            // It was to leave before now: it did, and has come back as something else perhaps.
            if now > known.stays_until.saturating_add(LIST_SLACK) && Group::of(&listed.model, answers).speaking.is_empty() {
                known.answered = None;
                known.listed_since = None;
            }
            known.listed_since.get_or_insert(now);
            known.stays_until = known.stays_until.max(listed.stays_until.unwrap_or(now));
        }
        if matches!(list, List::Known { .. }) {
            for (model, known) in self.models.iter_mut().filter(|(model, _)| list.has(model) == Some(false)) {
                known.listed_since = None;
                // One that is speaking stays what it was: its absence is what is looked for. (Names of one file share a runner, and
                // only the name that was used last is listed.)
                if Group::of(model, answers).speaking.is_empty() {
                    known.answered = None;
                    known.stays_until = Duration::ZERO;
                }
            }
        }
        let slots = self.limits.slots;
        for answer in answers {
            let asked = answers.iter().filter(|other| other.model == answer.model).count();
            let Some(known) = self.known(&answer.model) else { continue };
            known.last_active = Some(now);
            if slots.is_some_and(|slots| asked > slots as usize) {
                known.crowded = Some(now);
            }
            if let Some(spoke) = answer.spoke {
                known.last_piece = known.last_piece.max(Some(spoke));
                known.stays_until = known.stays_until.max(spoke);
                known.answered = Some(answer.shape.clone());
            }
        }
    }

    fn verdict(
        &self,
        model: &str,
        group: &Group<'_>,
        now: Duration,
        answers: &[Answer],
        list: &List,
    ) -> Option<(TroubleKind, String, Vec<String>)> {
        let known = self.models.get(model)?;
        let own = vec![model.to_owned()];
        if let Some(why) = self.hung(known, model, group, now, list) {
            return Some((TroubleKind::HungRunner, why, own));
        }
        if let Some((why, idle)) = self.deadlocked(model, group, now, answers, list) {
            return Some((TroubleKind::EvictionDeadlock, why, idle));
        }
        let why = self.leaked(known, model, group, now, list)?;
        Some((TroubleKind::LeakedSlot, why, own))
    }

    /// How long a model has said nothing to anyone who listens.
    fn silence(known: &Known, group: &Group<'_>, now: Duration) -> Duration {
        let oldest = group.all().map(|answer| answer.started).min().unwrap_or(now);
        now.saturating_sub(known.last_piece.unwrap_or_default().max(oldest))
    }

    fn hung(&self, known: &Known, model: &str, group: &Group<'_>, now: Duration, list: &List) -> Option<String> {
        let silence = Self::silence(known, group, now);
        let shown = silence.as_secs_f32();
        let reading = known.reading(group.waiting_bytes());
        let loaded = group.all().all(|answer| known.is_loaded_for(answer, now));
        if let Some(took) = list.took().filter(|took| *took >= SLOW_LIST)
            && loaded
            && silence > SLOW_LIST + if group.speaking.is_empty() { reading } else { Duration::ZERO }
        {
            let took = took.as_secs_f32();
            return Some(format!("it has said nothing for {shown:.1} s, and the list of loaded models takes {took:.1} s"));
        }
        if group.speaking.is_empty() {
            return None;
        }
        if list.has(model) == Some(false) && silence > SLOW_LIST && known.stays_until > Duration::ZERO {
            return Some(format!("it has said nothing for {shown:.1} s in the middle of an answer, and is no longer in memory"));
        }
        let discreet = group.speaking.iter().any(|answer| answer.discreet);
        let patience = self.limits.wedged_after.max(if group.waiting.is_empty() { Duration::ZERO } else { reading });
        (loaded && !discreet && silence > patience)
            .then(|| format!("it has said nothing for {shown:.1} s in the middle of {} answers", group.speaking.len()))
    }

    /// Why a model is not loaded, and the idle ones that are in its way.
    fn deadlocked(&self, model: &str, group: &Group<'_>, now: Duration, answers: &[Answer], list: &List) -> Option<(String, Vec<String>)> {
        let patience = self.limits.wedged_after;
        let waited = now.saturating_sub(group.waiting.iter().map(|answer| answer.started).min()?);
        if list.has(model) != Some(false) || list.is_slow() || !group.speaking.is_empty() || waited <= patience {
            return None;
        }
        // Loads go one after another: one that is under way may be all there is to it.
        let loading = |listed: &Listed| {
            let others = Group::of(&listed.model, answers);
            !others.waiting.is_empty() && self.models.get(&listed.model).is_none_or(|known| known.answered.is_none())
        };
        if list.models().iter().any(loading) {
            return None;
        }
        let is_idle = |listed: &&Listed| {
            let known = self.models.get(&listed.model);
            let since = known.and_then(|known| known.last_active.max(known.listed_since)).unwrap_or_default();
            answers.iter().all(|answer| answer.model != listed.model) && now.saturating_sub(since) > patience
        };
        let idle: Vec<String> = list.models().iter().filter(is_idle).map(|listed| listed.model.clone()).collect();
        let waited = waited.as_secs_f32();
        let why = || format!("it is not being loaded for {waited:.1} s, while {} stays in memory unused", idle.join(", "));
        (!idle.is_empty()).then(|| (why(), idle.clone()))
    }

    fn leaked(&self, known: &Known, model: &str, group: &Group<'_>, now: Duration, list: &List) -> Option<String> {
        if list.has(model) != Some(true) || list.is_slow() {
            return None;
        }
        let bound = self.bound(known, group);
        let stuck = group.waiting.iter().filter(|answer| Self::is_stuck(known, answer, bound, now)).count();
        let asked = group.all().count();
        let room = match self.limits.slots {
            Some(slots) => asked <= slots as usize,
            None => Self::silence(known, group, now) > bound,
        };
        let bound = bound.as_secs_f32();
        (stuck > 0 && room).then(|| format!("it is in memory and does not begin {stuck} of {asked} answers within {bound:.1} s"))
    }

    /// How long a loaded model may take to its first token.
    fn bound(&self, known: &Known, group: &Group<'_>) -> Duration {
        self.limits.wedged_after.max(known.reading(group.waiting_bytes()))
    }

    fn is_stuck(known: &Known, answer: &Answer, bound: Duration, now: Duration) -> bool {
        let since = answer.started.max(known.crowded.unwrap_or_default());
        known.is_loaded_for(answer, now) && now.saturating_sub(since) > bound
    }

    /// Takes back verdicts that no longer hold.
    fn clear(&mut self, answers: &[Answer], list: &List) -> Vec<Action> {
        let models = &self.models;
        let gone = |model: &str, standing: &Standing| match standing.kind {
            TroubleKind::HungRunner => models.get(model).and_then(|known| known.last_piece).is_some_and(|last| last > standing.since),
            TroubleKind::EvictionDeadlock => {
                list.has(model) == Some(true) || standing.unload.iter().all(|other| list.has(other) == Some(false))
            }
            TroubleKind::LeakedSlot => list.has(model) == Some(false) && answers.iter().all(|answer| answer.model != model),
        };
        let gone: Vec<(String, TroubleKind)> = self
            .troubles
            .iter()
            .filter(|(model, standing)| !standing.curing && gone(model, standing))
            .map(|(model, standing)| (model.clone(), standing.kind))
            .collect();
        for (model, _) in &gone {
            self.troubles.remove(model);
        }
        gone.into_iter().map(|(model, kind)| Action::Gone { model, kind }).collect()
    }

    /// Which answers wait in vain.
    fn let_go(&self, now: Duration, answers: &[Answer], actions: &mut Vec<Action>) {
        for answer in answers {
            let Some(standing) = self.troubles.get(&answer.model) else { continue };
            let Some(known) = self.models.get(&answer.model) else { continue };
            let in_vain = match (standing.kind, answer.spoke) {
                (TroubleKind::LeakedSlot, None) => {
                    Self::is_stuck(known, answer, self.bound(known, &Group::of(&answer.model, answers)), now)
                }
                (TroubleKind::EvictionDeadlock | TroubleKind::HungRunner, None) => true,
                // What has begun gets as long again to go on.
                (TroubleKind::HungRunner, Some(_)) => now.saturating_sub(standing.since) > self.limits.wedged_after,
                (_, Some(_)) => false,
            };
            if in_vain {
                actions.push(Action::LetGo(answer.id));
            }
        }
    }

    /// Which cures are due. None disturbs an answer of ours.
    fn cures(&mut self, now: Duration, answers: &[Answer], actions: &mut Vec<Action>) {
        for (model, standing) in &mut self.troubles {
            let busy = |name: &String| answers.iter().any(|answer| answer.model == *name);
            if standing.curing || now < standing.next_cure || standing.unload.iter().any(busy) {
                continue;
            }
            standing.curing = true;
            standing.cures_tried = standing.cures_tried.saturating_add(1);
            actions.push(Action::Cure { model: model.clone(), kind: standing.kind, unload: standing.unload.clone() });
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
