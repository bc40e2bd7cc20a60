//! What people feel: loads that make a bare Ollama hurt, against it alone and behind the gateway, with pass or fail.
//!
//! A scenario has a [`World`](world::World) for each side: fake servers with the figures of a measured machine, and the
//! gateway as a process of its own with a configuration file. Both sides get the same load, at the same time where the
//! upstream is a fake, one after the other where it is a real server. Everything is loopback and bounded in time; the
//! goals are those of the project's table of figures. What cannot be asked of a server that is not ours (loads, prompt
//! times) is left out of a report then.

mod ask;
mod cached;
mod crashes;
mod crowd;
mod decision;
mod failover;
mod fairness;
mod leaving;
mod overload;
mod restart;
mod swaps;
mod wedges;
mod wishes;
pub mod world;

use crate::measure::figures::{Report, quantile};
use anyhow::{Result, bail};
use std::{net::SocketAddr, path::PathBuf};

/// What a run is asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The gateway's binary; without it only the upstream alone is measured.
    pub arriero: Option<PathBuf>,
    /// A real Ollama instead of fakes.
    pub upstream: Option<SocketAddr>,
    /// Two models that cannot both be loaded.
    pub models: [String; 2],
    pub without: world::Without,
    /// Times a gateway is killed.
    pub kills: usize,
    pub seed: u64,
}

/// Names of all scenarios, the goal of each and what it does.
pub const ALL: &[(&str, &str)] = &[
    ("F1", "two models that cannot both be loaded, three closed-loop clients each"),
    ("F2", "a tenant with eight busy clients beside one that asks for little"),
    ("F3", "conversations that alternate on one slot stay warm"),
    ("F4", "clients that disagree about num_ctx"),
    ("F5", "sixteen identical deterministic requests at once"),
    ("F6", "three times the capacity, clients that give up after four seconds"),
    ("F7", "a prompt that does not fit into the context"),
    ("R3", "overload from 1 to 10 times the capacity"),
    ("R4", "equal tenants get equal shares, and a noisy one hurts nobody"),
    ("R6", "short requests do not wait behind long ones"),
    ("R7", "the told waiting time is true"),
    ("R8", "backends that die and fail"),
    ("R9", "clients that leave in every phase"),
    ("R10", "changing runner options, leaked slots, hung runners, the eviction deadlock"),
    ("R11", "kill -9 at random moments while keys and jobs are made"),
    ("swaps", "mixed models on two slots against first come first served"),
    ("P5", "a hit in the exact cache"),
    ("P6", "the time of one decision of the queue"),
    ("kill", "kill -9 in the middle: keys and budgets as before"),
    ("reload", "an invalid configuration under load"),
];

/// Runs one scenario by its name, in any case.
pub async fn run(name: &str, plan: &Plan) -> Result<Report> {
    match name.to_ascii_uppercase().as_str() {
        "F1" => swaps::starving(plan).await,
        "F2" => fairness::light_tenant(plan).await,
        "F3" => wishes::conversations(plan).await,
        "F4" => wishes::contexts(plan).await,
        "F5" => cached::identical(plan).await,
        "F6" => overload::impatient(plan).await,
        "F7" => wishes::too_long(plan).await,
        "R3" => overload::steps(plan).await,
        "R4" => fairness::noisy(plan).await,
        "R6" => crowd::short_behind_long(plan).await,
        "R7" => crowd::told(plan).await,
        "R8" => failover::run(plan).await,
        "R9" => leaving::run(plan).await,
        "R10" => wedges::run(plan).await,
        "R11" => crashes::run(plan).await,
        "SWAPS" => swaps::mixed(plan).await,
        "P5" => cached::hits(plan).await,
        "P6" => decision::run(plan).await,
        "KILL" => restart::killed(plan).await,
        "RELOAD" => restart::invalid(plan).await,
        _ => bail!("no scenario {name:?}: there are {}", ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")),
    }
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// A quantile in any order of values; none of nothing.
fn at(values: &[f64], q: f64) -> Option<f64> {
    (!values.is_empty()).then(|| quantile(&sorted(values.iter().copied()), q))
}

fn largest(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    values.into_iter().reduce(f64::max)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}
