//! A new configuration for a running process: read anew, checked whole, and put in force without dropping anything.
//!
//! With anything wrong in it, it is refused whole. Settings that are bound to the start of the process (addresses, the data folder, the
//! database, the engine's models) are told, and hold from the next start on.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::fleet::{Changed, Fleet};
use super::services::{self, Services};
use crate::api::reload::{Applied, Asked, Refused};
use crate::config::Config;
use crate::jobs::Jobs;

/// Reads the configuration as it was read at the start: the same file, variables and flags.
pub type Source = Arc<dyn Fn() -> Result<Config, Vec<String>> + Send + Sync>;

/// Sections that hold at once. The others need a new start.
const LIVE: [&str; 7] = ["generation", "limits", "queue", "routing", "model", "ollama", "demo_model"];

/// Waits for somebody to ask for a new configuration.
pub struct Reloading {
    pub source: Source,
    /// What the process runs on where only a new start changes that.
    pub started_with: Config,
    pub current: Config,
    pub services: Services,
    pub jobs: Jobs,
    pub fleet: Fleet,
    pub asked: mpsc::Receiver<Asked>,
}

impl Reloading {
    /// Until one of the servers' checks ends, which none does by itself.
    ///
    /// # Errors
    /// Why a check ended.
    pub async fn run(mut self) -> Result<(), String> {
        let mut hangup = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
        loop {
            tokio::select! {
                Some(()) = hangup.recv() => {
                    // Logged either way; whoever sent the signal hears nothing else.
                    let _ = self.reload().await;
                }
                Some(Asked(answer)) = self.asked.recv() => {
                    // Whoever asked may have left.
                    let _ = answer.send(self.reload().await);
                }
                failed = self.fleet.failure() => return Err(failed),
            }
        }
    }

    async fn reload(&mut self) -> Result<Applied, Refused> {
        let outcome = self.apply().await;
        match &outcome {
            Ok(applied) => tracing::info!(changed = ?applied.changed, needs_restart = ?applied.needs_restart, "a new configuration holds"),
            Err(refused) => tracing::warn!(problems = ?refused.problems, "a new configuration was refused; the old one stays in force"),
        }
        outcome
    }

    async fn apply(&mut self) -> Result<Applied, Refused> {
        let source = Arc::clone(&self.source);
        // It reads files.
        let read = tokio::task::spawn_blocking(move || source()).await;
        let read = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let new = read.map_err(|problems| Refused { problems })?;
        let refused = |error: super::Error| Refused { problems: vec![error.to_string()] };
        let (changed, _) = differences(&self.current, &new);
        let (_, needs_restart) = differences(&self.started_with, &new);
        // What can fail comes first, so that nothing is half in force.
        let settings = services::settings(&new).map_err(refused)?;
        let servers =
            if new.ollama == self.current.ollama { Changed::default() } else { self.fleet.reconcile(&new.ollama).map_err(refused)? };
        self.services.reconfigure(&new, settings);
        self.jobs.set_servers(new.ollama.clone());
        if !servers.added.is_empty() {
            self.services.gateway.registry().refresh().await;
        }
        self.current = new;
        Ok(Applied { changed, needs_restart, backends_added: servers.added, backends_removed: servers.removed })
    }
}

/// Sections that differ: those that hold at once, and those that need a new start.
fn differences(old: &Config, new: &Config) -> (Vec<String>, Vec<String>) {
    let table = |config| toml::Table::try_from(config).unwrap_or_default();
    let (old, new) = (table(old), table(new));
    let differs = |key: &&String| old.get(*key) != new.get(*key);
    let mut keys: Vec<&String> = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).filter(differs).collect();
    keys.sort_unstable();
    let (live, fixed): (Vec<_>, Vec<_>) = keys.into_iter().cloned().partition(|key| LIVE.contains(&key.as_str()));
    (live, fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_at_once_is_told_apart_from_what_needs_a_start() {
        let old = Config::default();
        let mut new = old.clone();
        assert_eq!(differences(&old, &new), (vec![], vec![]));
        new.queue.max_waiting = 7;
        new.limits.max_accounts = 7;
        new.server.max_connections = 7;
        new.cache.exact.max_bytes = 7;
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert_eq!(differences(&old, &new), (words(&["limits", "queue"]), words(&["cache", "server"])));
    }

    #[test]
    fn every_live_section_is_one() {
        let table = toml::Table::try_from(Config::default()).expect("a table");
        for section in LIVE {
            assert!(section == "model" || table.contains_key(section), "{section}");
        }
    }
}
