//! The configured chains, checked and written out.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::chain::Step;
use super::conditions::When;
use super::simplify::Simplify;
use crate::domain::id::ModelName;
use crate::routing::config::Wrong;

/// Most steps of a chain, those of aliases inside it included.
pub const MAX_STEPS: usize = 16;
/// Aliases inside aliases go no deeper.
const MAX_DEPTH: usize = 4;

/// A name that stands for a chain of models. It may be the name of a model, which then is the chain's first step as a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    pub name: ModelName,
    pub steps: Vec<AliasStep>,
}

/// One model of a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasStep {
    /// A model, or another alias, which then stands here with all its steps. The alias' own name means the model of that name.
    pub model: ModelName,
    /// The only backend that is asked; absent: any that has the model.
    #[serde(default)]
    pub backend: Option<String>,
    /// What must hold for this step to be entered instead of the one before; nothing: any trouble that may pass elsewhere.
    #[serde(default)]
    pub when: When,
    /// How the request is made smaller for it.
    #[serde(default)]
    pub simplify: Simplify,
}

/// All chains, by name.
#[derive(Debug, Clone, Default)]
pub struct Aliases(HashMap<String, Vec<Arc<Step>>>);

impl Aliases {
    /// Checks the chains and writes aliases inside aliases out.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn new(aliases: &[Alias]) -> Result<Self, Vec<Wrong>> {
        let mut wrong: Vec<Wrong> = (0..aliases.len()).flat_map(|n| wrong_in(aliases, n)).collect();
        let mut chains = HashMap::new();
        for (n, alias) in aliases.iter().enumerate() {
            match (Writer { aliases, path: vec![n] }).steps() {
                Ok(steps) if steps.len() > MAX_STEPS => {
                    let what = format!("has {} steps, those of other aliases included; {MAX_STEPS} are allowed", steps.len());
                    wrong.push(Wrong::at(&format!("alias.{n}.steps"), what));
                }
                Ok(steps) => {
                    let places = steps.into_iter().enumerate().map(|(place, step)| Arc::new(Step { place, ..step }));
                    chains.insert(alias.name.canonical().to_owned(), places.collect());
                }
                Err((step, what)) => wrong.push(Wrong::at(&format!("alias.{n}.steps.{step}.model"), what)),
            }
        }
        if wrong.is_empty() { Ok(Self(chains)) } else { Err(wrong) }
    }

    /// The steps that a name stands for, if it stands for any.
    #[must_use]
    pub(super) fn steps(&self, name: &ModelName) -> Option<&[Arc<Step>]> {
        self.0.get(name.canonical()).map(Vec::as_slice)
    }

    /// Whether a name stands for a chain.
    #[must_use]
    pub fn has(&self, name: &ModelName) -> bool {
        self.0.contains_key(name.canonical())
    }

    /// The chains whose names may be used, sorted, each with the models of its steps.
    pub fn for_whom(&self, may_use: impl Fn(&ModelName) -> bool) -> Vec<(String, Vec<String>)> {
        let models = |name: &str| self.0[name].iter().map(|step| step.model.to_string()).collect();
        let usable = |name: &&str| ModelName::parse(name).is_ok_and(|name| may_use(&name));
        self.names().into_iter().filter(usable).map(|name| (name.to_owned(), models(name))).collect()
    }

    /// The names that stand for chains, in their one spelling, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// What is wrong with an alias by itself.
fn wrong_in(aliases: &[Alias], n: usize) -> Vec<Wrong> {
    let (alias, mut wrong) = (&aliases[n], Vec::new());
    if aliases[..n].iter().any(|earlier| earlier.name == alias.name) {
        wrong.push(Wrong::at(&format!("alias.{n}.name"), format!("names `{}` a second time", alias.name)));
    }
    if alias.steps.is_empty() {
        wrong.push(Wrong::at(&format!("alias.{n}.steps"), format!("is empty: `{}` stands for no model", alias.name)));
    }
    for (place, step) in alias.steps.iter().enumerate() {
        let at = |key: &str| format!("alias.{n}.steps.{place}.{key}");
        if place == 0 && step.when != When::default() {
            wrong.push(Wrong::at(&at("when"), "is for later steps: a request begins at the first one"));
        }
        if step.backend.as_ref().is_some_and(String::is_empty) {
            wrong.push(Wrong::at(&at("backend"), "is empty: leave it out to let any backend serve"));
        }
        wrong.extend(wrong_when(&step.when).map(|(key, what)| Wrong::at(&at(&format!("when.{key}")), what)));
        wrong.extend(wrong_size(&step.simplify).map(|key| Wrong::at(&at(&format!("simplify.{key}")), "must be at least 1")));
    }
    wrong
}

fn wrong_when(when: &When) -> Option<(&'static str, String)> {
    if let Some(share) = when.memory_pressure_over.filter(|share| !(0.0..=1.0).contains(share)) {
        return Some(("memory_pressure_over", format!("is {share}, but must be a share from 0 to 1")));
    }
    if let Some(heat) = when.heat_over.filter(|heat| !heat.is_finite()) {
        return Some(("heat_over", format!("is {heat}, but must be a temperature")));
    }
    let (over, under) = (when.prompt_tokens_over?, when.prompt_tokens_under?);
    (over.saturating_add(1) >= under).then(|| ("prompt_tokens_under", format!("never holds: no number is over {over} and under {under}")))
}

fn wrong_size(simplify: &Simplify) -> Option<&'static str> {
    let sizes = [("num_ctx", simplify.num_ctx), ("num_predict", simplify.num_predict)];
    sizes.into_iter().find_map(|(key, size)| (size == Some(0)).then_some(key))
}

/// Writes the steps of an alias out; remembers on which way it came there.
struct Writer<'a> {
    aliases: &'a [Alias],
    path: Vec<usize>,
}

/// Which step of the outermost alias is wrong, and why.
type WrongStep = (usize, String);

impl Writer<'_> {
    fn steps(&self) -> Result<Vec<Step>, WrongStep> {
        let Some(alias) = self.path.last().map(|n| &self.aliases[*n]) else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for (place, step) in alias.steps.iter().enumerate() {
            let inner = self.aliases.iter().position(|other| other.name == step.model && other.name != alias.name);
            match inner {
                None => all.push(Step::from(step)),
                Some(inner) => all.extend(self.inside(inner, step).map_err(|what| (place, what))?),
            }
        }
        Ok(all)
    }

    /// The steps of an alias that stands in the place of a step.
    fn inside(&self, inner: usize, outer: &AliasStep) -> Result<Vec<Step>, String> {
        if self.path.contains(&inner) {
            let names = self.path.iter().chain([&inner]).map(|n| self.aliases[*n].name.as_str());
            return Err(format!("goes in a circle: {}", names.collect::<Vec<_>>().join(" → ")));
        }
        if self.path.len() >= MAX_DEPTH {
            return Err(format!("is an alias in an alias, {MAX_DEPTH} deep: name the model itself"));
        }
        let mut path = self.path.clone();
        path.push(inner);
        let mut steps = Writer { aliases: self.aliases, path }.steps().map_err(|(_, what)| what)?;
        for (place, step) in steps.iter_mut().enumerate() {
            if place == 0 {
                step.when = outer.when.clone();
            }
            step.backend = step.backend.take().or_else(|| outer.backend.as_deref().map(Arc::from));
            step.simplify = step.simplify.and(outer.simplify);
        }
        Ok(steps)
    }
}
