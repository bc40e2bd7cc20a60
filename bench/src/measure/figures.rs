//! Figures and goals, and the JSON object a scenario prints.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// One figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// None of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        Some(Self { median: quantile(&sorted, 0.5), min: first, max: last })
    }

    pub fn json(self) -> Value {
        let round = |x: f64| json!((x * 1e4).round() / 1e4);
        json!({"median": round(self.median), "min": round(self.min), "max": round(self.max)})
    }
}

/// The quantile of sorted values, linear between neighbours; 0 of nothing.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    if sorted.is_empty() {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let place = q * (sorted.len() - 1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the length")]
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

/// Seconds as microseconds.
pub fn micros(seconds: f64) -> f64 {
    seconds * 1e6
}

/// Whether a figure has to stay below or above its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    AtMost,
    AtLeast,
}

/// What a scenario found. `pass` is true when every goal is met, false when something
/// failed, and null when nothing failed but `undecided` goals have no verdict. Without
/// optimisation the load is slower than what it measures, so such a build gives figures and no verdicts.
#[derive(Debug)]
pub struct Report {
    scenario: String,
    view: &'static str,
    rounds: usize,
    figures: Map<String, Value>,
    goals: Vec<Value>,
    undecided: usize,
    failed: bool,
    errors: Vec<String>,
}

impl Report {
    pub fn new(scenario: &str, view: &'static str, rounds: usize) -> Self {
        Self {
            scenario: scenario.to_owned(),
            view,
            rounds,
            figures: Map::new(),
            goals: Vec::new(),
            undecided: 0,
            failed: false,
            errors: Vec::new(),
        }
    }

    pub fn figure(&mut self, name: &str, value: Value) {
        self.figures.insert(name.to_owned(), value);
    }

    /// A side without a figure (nginx or the gateway missing) passes nothing and fails nothing.
    pub fn goal(&mut self, id: &str, what: &str, bound: Bound, limit: f64, value: Option<f64>) {
        self.goal_in_noise(id, what, bound, limit, value, None);
    }

    /// A goal for a figure that other work on the machine disturbs. Where the noise is larger than the limit, neither a
    /// figure below it nor one above says anything: the goal stays undecided.
    pub fn goal_in_noise(&mut self, id: &str, what: &str, bound: Bound, limit: f64, value: Option<f64>, noise: Option<f64>) {
        let drowned = noise.is_some_and(|noise| noise > limit);
        let decided = value.filter(|_| !drowned && !cfg!(debug_assertions));
        let pass = decided.map(|value| if bound == Bound::AtMost { value <= limit } else { value >= limit });
        self.settle(id, what, bound, limit, value, noise, pass);
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of a line")]
    fn settle(&mut self, id: &str, what: &str, bound: Bound, limit: f64, value: Option<f64>, noise: Option<f64>, pass: Option<bool>) {
        self.undecided += usize::from(pass.is_none());
        self.failed |= pass == Some(false);
        let sign = if bound == Bound::AtMost { "at most" } else { "at least" };
        let value = value.map(|value| (value * 1e4).round() / 1e4);
        let noise = noise.map(|noise| (noise * 1e4).round() / 1e4);
        self.goals.push(json!({
            "goal": id, "what": what, "bound": sign, "limit": limit, "value": value, "noise": noise, "pass": pass,
        }));
    }

    /// A goal for what does not depend on how fast this program is: counts, and times of seconds that a server's own
    /// pace makes. Decided in every build.
    pub fn verdict(&mut self, id: &str, what: &str, bound: Bound, limit: f64, value: Option<f64>) {
        let pass = value.map(|value| if bound == Bound::AtMost { value <= limit } else { value >= limit });
        self.settle(id, what, bound, limit, value, None, pass);
    }

    /// Anything that makes the figures worthless.
    pub fn errors(&mut self, errors: impl IntoIterator<Item = String>) {
        self.errors.extend(errors);
        self.errors.truncate(20);
        self.failed |= !self.errors.is_empty();
    }

    /// None: nothing failed, but not everything was decided.
    pub fn passed(&self) -> Option<bool> {
        match (self.failed, self.undecided) {
            (true, _) => Some(false),
            (false, 0) => Some(true),
            _ => None,
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "scenario": self.scenario, "view": self.view, "rounds": self.rounds, "figures": self.figures,
            "goals": self.goals, "undecided": self.undecided, "optimised": !cfg!(debug_assertions), "errors": self.errors,
            "pass": self.passed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert!((quantile(&[1.0, 2.0, 3.0], 0.5) - 2.0).abs() < 1e-12);
        assert!((quantile(&[1.0, 2.0], 0.75) - 1.75).abs() < 1e-12);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
    }

    #[test]
    fn a_missed_goal_or_an_error_fails_a_report() {
        let decided = !cfg!(debug_assertions);
        let mut report = Report::new("a", "pinned", 5);
        report.goal("P1", "ratio", Bound::AtMost, 2.5, Some(2.0));
        assert_eq!(report.passed(), decided.then_some(true), "a build without optimisation has no verdict");
        report.goal("P2", "ratio", Bound::AtLeast, 0.3, None);
        report.goal_in_noise("P3", "delay", Bound::AtMost, 150.0, Some(-800.0), Some(2_000.0));
        assert_eq!(report.passed(), None, "nothing failed, not everything was decided");
        assert_eq!(report.json()["goals"][2]["pass"], Value::Null);
        report.goal("P3", "ratio", Bound::AtLeast, 0.3, Some(0.1));
        assert_eq!(report.passed(), decided.then_some(false));
        let mut broken = Report::new("b", "pinned", 5);
        broken.errors(["a chunk was lost".to_owned()]);
        assert_eq!(broken.passed(), Some(false), "whatever the build");
    }
}
