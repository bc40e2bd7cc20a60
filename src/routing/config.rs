//! The settings of the router, and what can be wrong with them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{breaker, fallback, hedge, outlier, retry, timeouts};
use crate::backends::Kind;

/// How a backend is chosen, given up and tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// After this time without news an old time to the first token counts 1/e.
    #[serde(with = "crate::domain::span")]
    pub decay: Duration,
    /// The time to the first token of a model that was never asked.
    #[serde(with = "crate::domain::span")]
    pub usual_ttft: Duration,
    /// A failure counts as a first token that took this long, or ten times the usual if that is more.
    #[serde(with = "crate::domain::span")]
    pub failure_counts_as: Duration,
    /// The time to load a model that was never loaded.
    #[serde(with = "crate::domain::span")]
    pub load_estimate: Duration,
    /// Models of one backend that are remembered; the one not asked for longest is forgotten first.
    pub max_models: usize,
    pub breaker: breaker::Config,
    pub outlier: outlier::Config,
    pub retry: retry::Config,
    pub hedge: hedge::Config,
    pub timeouts: timeouts::Config,
    /// Names that stand for a chain of models.
    pub alias: Vec<fallback::Alias>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(5),
            usual_ttft: Duration::from_secs(1),
            failure_counts_as: Duration::from_secs(2),
            load_estimate: Duration::from_secs(5),
            max_models: 512,
            breaker: breaker::Config::default(),
            outlier: outlier::Config::default(),
            retry: retry::Config::default(),
            hedge: hedge::Config::default(),
            timeouts: timeouts::Config::default(),
            alias: Vec::new(),
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The keys below `routing`, positions in lists as numbers: `alias`, `0`, `steps`, `1`, `model`.
    pub place: Vec<String>,
    /// What is wrong, to be read after the key.
    pub what: String,
}

impl Wrong {
    pub(super) fn at(place: &str, what: impl Into<String>) -> Self {
        Self { place: place.split('.').map(str::to_owned).collect(), what: what.into() }
    }
}

impl Config {
    /// Everything that is wrong beyond types.
    #[must_use]
    pub fn check(&self) -> Vec<Wrong> {
        let share = |place: &str, value: f64, least: f64| {
            let fits = value >= least && value <= 1.0;
            (!fits).then(|| Wrong::at(place, format!("is {value}, but must be a share from {least} to 1")))
        };
        let shares = [
            share("breaker.share", self.breaker.share, 0.01),
            share("outlier.slow_start_share", self.outlier.slow_start_share, 0.01),
            share("retry.budget", self.retry.budget, 0.0),
            share("hedge.budget", self.hedge.budget, 0.0),
            share("hedge.quantile", self.hedge.quantile, 0.0),
        ];
        let floor = self.retry.floor_per_second;
        let floor = (!floor.is_finite() || floor < 0.0)
            .then(|| Wrong::at("retry.floor_per_second", format!("is {floor}, but must be a number of at least 0")));
        let chains = fallback::Aliases::new(&self.alias).err().unwrap_or_default();
        shares.into_iter().flatten().chain(floor).chain(chains).collect()
    }

    /// Steps of aliases that are bound to a backend which there is not among these servers and the engine.
    #[must_use]
    pub fn unknown_backends(&self, servers: &[String]) -> Vec<Wrong> {
        let kinds = [Kind::Ollama, Kind::Embedded].map(Kind::as_str);
        let is_known = |name: &str| kinds.contains(&name) || servers.iter().any(|server| server == name);
        let mut wrong = Vec::new();
        for (n, alias) in self.alias.iter().enumerate() {
            for (m, step) in alias.steps.iter().enumerate() {
                let Some(name) = step.backend.as_deref().filter(|name| !is_known(name)) else { continue };
                let known = servers.iter().map(String::as_str).chain(kinds).collect::<Vec<_>>().join(", ");
                wrong.push(Wrong::at(
                    &format!("alias.{n}.steps.{m}.backend"),
                    format!("names `{name}`, which there is not; there are {known}"),
                ));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_bound_to_a_backend_that_there_is() {
        let alias = "name = \"a\"\nsteps = [{ model = \"x\", backend = \"box\" }, { model = \"x\", backend = \"embedded\" }, { model = \"x\", backend = \"bxo\" }]";
        let config = Config { alias: vec![toml::from_str(alias).expect("an alias")], ..Config::default() };
        let wrong = config.unknown_backends(&["box".to_owned()]);
        assert_eq!(wrong.iter().map(|wrong| wrong.place.join(".")).collect::<Vec<_>>(), ["alias.0.steps.2.backend"]);
        assert!(wrong[0].what.contains("`bxo`") && wrong[0].what.contains("box, ollama, embedded"), "{}", wrong[0].what);
    }

    #[test]
    fn the_defaults_hold_and_each_share_is_checked() {
        assert_eq!(Config::default().check(), []);
        let mut config = Config::default();
        config.breaker.share = 0.0;
        config.outlier.slow_start_share = 2.0;
        config.retry.budget = -0.1;
        config.hedge.budget = f64::NAN;
        config.hedge.quantile = 1.1;
        config.retry.floor_per_second = f64::INFINITY;
        let places: Vec<String> = config.check().into_iter().map(|wrong| wrong.place.join(".")).collect();
        assert_eq!(
            places,
            ["breaker.share", "outlier.slow_start_share", "retry.budget", "hedge.budget", "hedge.quantile", "retry.floor_per_second"]
        );
    }
}
