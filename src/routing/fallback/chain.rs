//! What one request may be served by, in which order.

use std::sync::Arc;
use std::time::Duration;

use super::aliases::{AliasStep, Aliases, MAX_STEPS};
use super::conditions::{Facts, Situation, Trouble, When, Why};
use super::simplify::Simplify;
use super::table::ASKED;
use crate::domain::generation::Fallback;
use crate::domain::id::ModelName;

/// One model of a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its place in the chain; 0 is where a request begins.
    pub place: usize,
    pub model: ModelName,
    /// The only backend that is asked; `None`: any that has the model.
    pub backend: Option<Arc<str>>,
    pub when: When,
    pub simplify: Simplify,
}

impl Step {
    fn plain(model: ModelName) -> Self {
        Self { place: 0, model, backend: None, when: When::default(), simplify: Simplify::default() }
    }
}

impl From<&AliasStep> for Step {
    fn from(step: &AliasStep) -> Self {
        Self {
            place: 0,
            model: step.model.clone(),
            backend: step.backend.as_deref().map(Arc::from),
            when: step.when.clone(),
            simplify: step.simplify,
        }
    }
}

/// How long to wait at a step before the chain is asked how to go on. `None`: until it serves or fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Patience {
    /// For a slot.
    pub queue: Option<Duration>,
    /// For the first token, from asking a backend.
    pub first_token: Option<Duration>,
}

/// The steps of one request. Never empty when it comes from [`Chain::resolve`].
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    steps: Vec<Arc<Step>>,
    left_out: usize,
}

impl Chain {
    /// What a name stands for, and what the request wants of fallbacks: `false` leaves nothing but the first step, a list replaces
    /// the steps after the first; a name in it that is an alias means that alias' first step. Models named twice count once, and of
    /// too long a list the rest is left out, see [`Chain::left_out`].
    #[must_use]
    pub fn resolve(aliases: &Aliases, name: &ModelName, fallback: &Fallback) -> Self {
        let steps = aliases.steps(name).map_or_else(|| vec![Arc::new(Step::plain(name.clone()))], <[_]>::to_vec);
        match fallback {
            Fallback::Switch(true) => Self { steps, left_out: 0 },
            Fallback::Switch(false) => Self { steps: steps.into_iter().take(1).collect(), left_out: 0 },
            Fallback::Models(models) => Self::of(aliases, steps, models),
        }
    }

    fn of(aliases: &Aliases, steps: Vec<Arc<Step>>, models: &[ModelName]) -> Self {
        let mut steps: Vec<Arc<Step>> = steps.into_iter().take(1).collect();
        let mut left_out = 0;
        for model in models {
            let step = aliases.steps(model).and_then(|steps| steps.first()).map_or_else(|| Step::plain(model.clone()), |s| Step::clone(s));
            if steps.iter().any(|known| known.model == step.model && known.backend == step.backend) {
                continue;
            }
            if steps.len() < MAX_STEPS {
                steps.push(Arc::new(Step { place: steps.len(), ..step }));
            } else {
                left_out += 1;
            }
        }
        Self { steps, left_out }
    }

    /// Leaves only steps whose model may be used. The first one that stays is where the request begins, whatever its conditions.
    #[must_use]
    pub fn permit(self, may_use: impl Fn(&ModelName) -> bool) -> Self {
        let steps = self.steps.into_iter().filter(|step| may_use(&step.model)).enumerate();
        let steps = steps.map(|(place, step)| Arc::new(Step { place, ..Step::clone(&step) })).collect();
        Self { steps, left_out: self.left_out }
    }

    /// The same steps, asked of one backend only.
    #[must_use]
    pub fn on(self, backend: &str) -> Self {
        let steps = self.steps.into_iter().map(|step| Arc::new(Step { backend: Some(backend.into()), ..Step::clone(&step) }));
        Self { steps: steps.collect(), left_out: self.left_out }
    }

    #[must_use]
    pub fn steps(&self) -> &[Arc<Step>] {
        &self.steps
    }

    /// Models of a request's own list that were too many.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Where the request begins: each later step whose conditions hold already is entered instead of the one before. `facts` are
    /// about the first step; what they say of it (context, wait, expected first token) is not held against the next ones. `None` as
    /// a reason: the first step. `None` at all: there are no steps.
    #[must_use]
    pub fn first(&self, facts: &Facts) -> Option<(Arc<Step>, Option<Why>)> {
        let (mut at, elsewhere) = ((Arc::clone(self.steps.first()?), None), facts.elsewhere());
        for step in &self.steps[1..] {
            let facts = if at.0.place == 0 { facts } else { &elsewhere };
            if let Some(why) = step.when.holds(&Situation { facts, trouble: None }) {
                at = (Arc::clone(step), Some(why));
            }
        }
        Some(at)
    }

    /// Where it goes on after trouble at step `after`: the first later step whose conditions hold. `facts` are about the step that
    /// had the trouble. `None`: nowhere, the trouble stands.
    #[must_use]
    pub fn next(&self, after: usize, trouble: &Trouble, facts: &Facts) -> Option<(Arc<Step>, Why)> {
        let situation = Situation { facts, trouble: Some(trouble) };
        let later = self.steps.iter().skip(after.saturating_add(1));
        later.into_iter().find_map(|step| Some((Arc::clone(step), step.when.holds(&situation)?)))
    }

    /// How long to wait at a step for the sake of the later ones.
    #[must_use]
    pub fn patience(&self, at: usize, facts: &Facts) -> Patience {
        let situation = Situation { facts, trouble: None };
        let later = self.steps.iter().skip(at.saturating_add(1)).filter(|step| step.when.lets_in(&situation));
        later.fold(Patience::default(), |patience, step| Patience {
            queue: shorter(patience.queue, step.when.queue_wait_over),
            first_token: shorter(patience.first_token, step.when.ttft_over),
        })
    }

    /// Why the first step serves when nothing went wrong, for answers that always say why.
    #[must_use]
    pub fn asked() -> Why {
        Why { reason: ASKED, detail: "the model that was asked for".to_owned() }
    }
}

fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    [a, b].into_iter().flatten().min()
}
