//! Side-by-side measurements of a gateway against the bare upstream and nginx.
//!
//! Every figure is a ratio inside one run in which the sides take turns, at least five rounds, told as median with minimum
//! and maximum: absolute times mean little on a small shared machine. Everything is loopback, bounded in count and time,
//! and ends only the processes it started. A lost, doubled, merged or altered chunk fails a scenario whatever its speed.

pub mod cores;
pub mod figures;
pub mod idle;
pub mod load;
pub mod nginx;
pub mod overhead;
pub mod process;
pub mod reader;
pub mod sides;

use std::path::PathBuf;

/// What a run is asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The gateway's binary; without it the run shows what the other sides do.
    pub arriero: Option<PathBuf>,
    pub rounds: usize,
    /// How long each side is under load in each round.
    pub seconds: f64,
    pub connections: usize,
    /// Tokens of a small answer.
    pub tokens: usize,
    /// Names of scenarios; empty means all.
    pub only: Vec<String>,
}

impl Plan {
    fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| scenario.contains(name.as_str()))
    }
}
