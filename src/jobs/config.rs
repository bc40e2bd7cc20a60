//! Settings of background jobs.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::generation::Priority;
use crate::domain::span;

/// How jobs are kept and worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether `serve` works on jobs itself; `arriero worker` always does.
    pub workers: bool,
    /// Program that is started for each attempt. Empty: this one.
    pub program: PathBuf,
    /// Folders that jobs may read, each under its last name. Empty: `files` and `models` in the data folder.
    pub roots: Vec<PathBuf>,
    /// Where an Ollama on this machine keeps its models, for sources such as `ollama:gemma3`. Empty: where it usually does.
    pub ollama_models: PathBuf,
    /// How models are published.
    pub publish: super::publish::Config,
    /// From where models are fetched.
    pub hub: super::download::Config,
    /// Who is asked for the answers of teachers. Boxed: the whole configuration is passed by value in places that have little room.
    pub teacher: Box<super::dataset::teacher::Config>,
    /// Jobs that may wait.
    pub max_queued: u64,
    /// Attempts of a job that asks for no number of its own.
    pub max_attempts: u32,
    /// Pause before the second attempt; it doubles with each further one.
    #[serde(with = "span")]
    pub retry_after: Duration,
    #[serde(with = "span")]
    pub max_retry_after: Duration,
    /// How long a job stays a worker's that is not heard of.
    #[serde(with = "span")]
    pub lease: Duration,
    /// Longest time in which an attempt makes no progress.
    #[serde(with = "span")]
    pub hang_after: Duration,
    /// Time that a child process has to end when it is asked to, before it is killed.
    #[serde(with = "span")]
    pub kill_after: Duration,
    /// Pause between two looks at the queue, at progress and at events.
    #[serde(with = "span")]
    pub look_interval: Duration,
    /// Events that are kept of a job.
    pub max_events: u32,
    /// Schedules that may be kept.
    pub max_schedules: u64,
    /// Largest file that may be uploaded, in bytes.
    pub max_upload_bytes: u64,
    pub resources: Resources,
    pub pressure: PressureConfig,
    pub retention: Retention,
    /// Whether there is a kind of job that misbehaves on demand, to try the workers with.
    pub trial: bool,
}

/// What all jobs together may take. Zero: what the machine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    pub cpu_threads: u32,
    pub gpus: u32,
    /// Zero: three quarters of the machine's.
    pub memory_bytes: u64,
    /// Room on the disk that jobs leave free.
    pub disk_reserve_bytes: u64,
    /// How much nicer than the gateway a child process is to others, 0 to 19.
    pub nice: i32,
    /// When the models that an Ollama on this machine keeps in memory make room for a training.
    pub unload_ollama: Unload,
}

/// When models make room for a training. They are loaded again when they are next asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unload {
    Never,
    /// Where the training would not fit into the memory that is free.
    #[default]
    WhenNeeded,
    Always,
}

/// When jobs make way for live requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PressureConfig {
    /// With so many live requests waiting jobs make way. Zero: never.
    pub waiting: u64,
    /// Until none has waited for so long.
    #[serde(with = "span")]
    pub calm: Duration,
    /// Jobs of this priority and below make way.
    pub priority: Priority,
    /// What those that run do.
    pub running: Yield,
}

/// What a running job does that makes way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Yield {
    /// It goes on.
    Run,
    /// It holds still at its next good place, and keeps its memory.
    Wait,
    /// It stops at its next good place, and goes on from its last step when it is its turn again.
    Stop,
}

/// How long what has ended is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    #[serde(with = "span")]
    pub keep: Duration,
    pub max_jobs: u64,
    /// Of all artifacts together.
    pub max_artifact_bytes: u64,
    #[serde(with = "span")]
    pub sweep_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: true,
            program: PathBuf::new(),
            roots: Vec::new(),
            ollama_models: PathBuf::new(),
            publish: super::publish::Config::default(),
            hub: super::download::Config::default(),
            teacher: Box::default(),
            max_queued: 10_000,
            max_attempts: 3,
            retry_after: Duration::from_secs(5),
            max_retry_after: Duration::from_mins(10),
            lease: Duration::from_secs(30),
            hang_after: Duration::from_mins(10),
            kill_after: Duration::from_secs(10),
            look_interval: Duration::from_millis(500),
            max_events: 2_000,
            max_schedules: 100,
            max_upload_bytes: 4 << 30,
            resources: Resources::default(),
            pressure: PressureConfig::default(),
            retention: Retention::default(),
            trial: false,
        }
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu_threads: 0, gpus: 0, memory_bytes: 0, disk_reserve_bytes: 1 << 30, nice: 10, unload_ollama: Unload::default() }
    }
}

impl Default for PressureConfig {
    fn default() -> Self {
        Self { waiting: 8, calm: Duration::from_secs(10), priority: Priority::Low, running: Yield::Wait }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: Duration::from_hours(24 * 30), max_jobs: 10_000, max_artifact_bytes: 1 << 40, sweep_interval: Duration::from_mins(1) }
    }
}

impl Config {
    /// Settings that cannot be: the key and why.
    #[must_use]
    pub fn check(&self) -> Vec<(&'static str, &'static str)> {
        let mut wrong = Vec::new();
        if self.lease < Duration::from_secs(2) {
            wrong.push(("lease", "must be at least 2s: it is renewed three times in that span"));
        }
        if self.look_interval < Duration::from_millis(10) {
            wrong.push(("look_interval", "must be at least 10ms"));
        }
        if !(0..=19).contains(&self.resources.nice) {
            wrong.push(("resources.nice", "must be from 0 to 19"));
        }
        if self.teacher.requests_at_once == 0 {
            wrong.push(("teacher.requests_at_once", "must be at least 1"));
        }
        if self.max_attempts == 0 {
            wrong.push(("max_attempts", "must be at least 1"));
        }
        let name = |root: &PathBuf| root.file_name().map(std::ffi::OsStr::to_owned);
        let twice = |(n, root): (usize, &PathBuf)| self.roots[..n].iter().any(|earlier| name(earlier) == name(root));
        if self.roots.iter().any(|root| name(root).is_none() || !root.is_absolute()) {
            wrong.push(("roots", "must be absolute paths with a last name"));
        } else if self.roots.iter().enumerate().any(twice) {
            wrong.push(("roots", "must have different last names"));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_told() {
        assert_eq!(Config::default().check(), []);
        let keys = |config: Config| config.check().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(Config { lease: Duration::from_secs(1), max_attempts: 0, ..Config::default() }), ["lease", "max_attempts"]);
        assert_eq!(keys(Config { roots: vec!["/a/x".into(), "/b/x".into()], ..Config::default() }), ["roots"]);
        for wrong in ["/", "a"] {
            assert_eq!(keys(Config { roots: vec![wrong.into()], ..Config::default() }), ["roots"]);
        }
    }
}
