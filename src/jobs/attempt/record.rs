//! What an attempt writes down: each write renews the lease, and none is made without it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::jobs::machine::{self, Wrong};
use crate::jobs::outcome::Outcome;
use crate::jobs::progress::Progress;
use crate::jobs::service::Jobs;
use crate::jobs::worker::{Say, is_artifact_name};
use crate::storage::jobs::{Artifact, Attempt, Change, Fault, Job, News, Standing, State};

/// News that wait to be written at most; more are counted and left out.
const MOST_NEWS: usize = 200;
/// Longest line of a log that is kept, in bytes.
const MOST_LOG_BYTES: usize = 4_096;
/// Pause before a write is tried again that the database refused.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq)]
pub enum Written {
    Done,
    /// The lease is another's, or may be.
    Lost,
    /// The attempt cannot go on.
    Failed(Outcome),
}

pub struct Record {
    jobs: Jobs,
    job: Job,
    epoch: i64,
    progress: Progress,
    /// Whether there is progress that was not written.
    moved: bool,
    news: Vec<News>,
    left_out: usize,
    renewed_at_ms: i64,
}

impl Record {
    pub fn new(jobs: Jobs, job: Job) -> Self {
        let (epoch, renewed_at_ms) = (job.standing.epoch, jobs.0.clock.unix_ms());
        Self { jobs, job, epoch, progress: Progress::default(), moved: false, news: Vec::new(), left_out: 0, renewed_at_ms }
    }

    /// As it was read last.
    pub fn job(&self) -> &Job {
        &self.job
    }

    pub async fn begin(&mut self) -> Written {
        let epoch = self.epoch;
        let attempt = self.job.standing.attempts;
        self.news.push(News { kind: "state", data: json!({"state": "running", "attempt": attempt}) });
        let write = move |change: Change, _: &Job| {
            Ok(Change { standing: machine::begin(&change.standing, epoch)?, attempt: Some(Attempt::Begins), ..change })
        };
        self.write(true, write).await
    }

    /// Writes down what the child said, at once where the next step relies on it.
    pub async fn said(&mut self, say: Say) -> Written {
        match say {
            Say::Progress { done, total, unit } => {
                self.progress.at(done, total, &unit, self.jobs.0.clock.unix_ms());
                self.moved = true;
            }
            Say::Log { line } => self.log(&line),
            Say::Metric { name, value } => self.tell("metric", json!({"name": name, "value": value})),
            Say::Begin { step } => {
                self.progress.begin(step);
                let name = usize::try_from(step).ok().and_then(|step| self.job.order.steps.get(step));
                let data = json!({"step": step, "name": name, "of": self.job.order.steps.len()});
                self.tell("step", data);
            }
            Say::Step(step) => {
                let epoch = self.epoch;
                let write = move |change: Change, _: &Job| {
                    Ok(Change { standing: machine::step_ended(&change.standing, epoch, &step)?, step: Some(step), ..change })
                };
                return self.write(true, write).await;
            }
            Say::Artifact { name, file, size_bytes, sha256, lineage } => {
                let made = Artifact { name, path: file, size_bytes, sha256, lineage, created_at_ms: self.jobs.0.clock.unix_ms() };
                return self.keep(made).await;
            }
            Say::Beat | Say::Done { .. } | Say::Failed { .. } | Say::Stopped => {}
        }
        Written::Done
    }

    /// A file of the child becomes an artifact: moved to its place first, and only then written down.
    async fn keep(&mut self, made: Artifact) -> Written {
        let (folders, id, epoch) = (self.jobs.0.folders.clone(), self.job.order.id.clone(), self.epoch);
        if !(is_artifact_name(&made.name) && is_artifact_name(&made.path)) {
            return Written::Failed(Outcome::failed("artifact", format!("`{}` is no name of an artifact", made.name)));
        }
        let (file, name) = (made.path.clone(), made.name.clone());
        let moved = tokio::task::spawn_blocking(move || folders.keep(&id, epoch, &file, &name)).await;
        let path = match moved.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
            Ok(path) => path,
            Err(error) => return Written::Failed(Outcome::failed("artifact", format!("`{}` cannot be kept: {error}", made.name))),
        };
        let data = json!({"name": made.name, "size_bytes": made.size_bytes, "sha256": made.sha256});
        self.news.push(News { kind: "artifact", data });
        self.write(true, move |change, _| Ok(Change { artifact: Some(Artifact { path, ..made }), ..change })).await
    }

    pub fn log(&mut self, line: &str) {
        let end = (0..=MOST_LOG_BYTES.min(line.len())).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        self.tell("log", json!({"line": &line[..end]}));
    }

    fn tell(&mut self, kind: &'static str, data: Value) {
        if self.news.len() < MOST_NEWS {
            self.news.push(News { kind, data });
        } else {
            self.left_out += 1;
        }
    }

    /// Writes what is new, renews the lease when a third of it has gone, and else only looks at what others want.
    pub async fn keep_up(&mut self) -> Written {
        let now_ms = self.jobs.0.clock.unix_ms();
        let third_ms = i64::try_from(self.jobs.config().lease.as_millis() / 3).unwrap_or(i64::MAX);
        if !self.news.is_empty() || self.moved || now_ms.saturating_sub(self.renewed_at_ms) >= third_ms {
            return self.write(false, |change, _| Ok(change)).await;
        }
        match self.jobs.0.table.get(&self.job.order.id).await {
            Ok(Some(job)) if job.standing.state.is_active() && job.standing.epoch == self.epoch => {
                self.job = job;
                Written::Done
            }
            Ok(_) => Written::Lost,
            Err(_) => self.doubtful(),
        }
    }

    /// One change, with all that is new.
    async fn write(&mut self, lasting: bool, more: impl FnOnce(Change, &Job) -> Result<Change, Wrong>) -> Written {
        let now_ms = self.jobs.0.clock.unix_ms();
        let progress = self.progress.shown(now_ms);
        if let Some(progress) = progress.clone().filter(|_| std::mem::take(&mut self.moved)) {
            self.news.push(News { kind: "progress", data: progress });
        }
        if self.left_out > 0 {
            let line = format!("{} lines were left out", std::mem::take(&mut self.left_out));
            self.news.push(News { kind: "log", data: json!({"line": line}) });
        }
        let (epoch, lease, news) = (self.epoch, self.jobs.config().lease, self.news.clone());
        let decide = |job: &Job| {
            let renewed = machine::renew(&job.standing, epoch, now_ms, lease)?;
            let change = Change::to(Standing { progress: progress.or(renewed.progress.clone()), ..renewed });
            more(Change { news, ..change }, job)
        };
        let id = self.job.order.id.clone();
        match self.jobs.0.table.change(&id, lasting, self.jobs.most_events(), now_ms, decide).await {
            Ok(Some(Ok(job))) => {
                self.news.clear();
                self.jobs.0.told.notify_waiters();
                self.renewed_at_ms = now_ms;
                self.job = job;
                Written::Done
            }
            Ok(None | Some(Err(_))) => Written::Lost,
            Err(error) => {
                tracing::warn!(job = id, %error, "what happens to a job cannot be written down");
                if lasting { Written::Failed(Outcome::failed("storage", error.to_string())) } else { self.doubtful() }
            }
        }
    }

    /// The database does not answer: the job is still ours as long as the lease that was written last has not run out.
    fn doubtful(&self) -> Written {
        let over = self.job.standing.lease_until_ms.is_none_or(|until| until <= self.jobs.0.clock.unix_ms());
        if over { Written::Lost } else { Written::Done }
    }

    /// Writes down how it ended; tries until that is done or the lease has run out, after which the sweeper does it.
    pub async fn end(mut self, outcome: Outcome) {
        if outcome == Outcome::Lost {
            return;
        }
        loop {
            match self.conclude(&outcome).await {
                Ok(ended) => return self.tidy(ended).await,
                Err(error) if self.doubtful() == Written::Lost => {
                    tracing::error!(job = self.job.order.id, %error, "the end of a job could not be written down before its lease ran out");
                    return;
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    async fn conclude(&mut self, outcome: &Outcome) -> Result<bool, crate::storage::Error> {
        let (now_ms, epoch, word) = (self.jobs.0.clock.unix_ms(), self.epoch, outcome.word());
        let (news, jobs) = (self.news.clone(), self.jobs.clone());
        let decide = |job: &Job| {
            let now = &job.standing;
            let standing = match outcome {
                Outcome::Done(result) => machine::succeed(now, epoch, result.clone(), now_ms)?,
                Outcome::Failed { kind, message, again } => {
                    let fault = Fault { kind: kind.clone(), message: message.clone() };
                    machine::fail(now, epoch, fault, again.then(|| jobs.pause(now)), now_ms)?
                }
                Outcome::Stopped | Outcome::Lost => machine::release(now, epoch, now_ms)?,
            };
            let told = state_news(&standing, word);
            let attempt = Some(Attempt::Ended { epoch, outcome: word.to_owned() });
            Ok::<_, Wrong>(Change { news, attempt, ..Change::to(standing) }.telling("state", told))
        };
        let changed = self.jobs.0.table.change(&self.job.order.id, true, self.jobs.most_events(), now_ms, decide).await?;
        self.jobs.0.told.notify_waiters();
        Ok(matches!(changed, Some(Ok(job)) if job.standing.state.is_end()))
    }

    /// The folder of a job that has ended is not needed any more. What is left here is swept later.
    async fn tidy(self, ended: bool) {
        if ended {
            let folder = self.jobs.0.folders.work_of(&self.job.order.id);
            let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await;
        }
    }
}

/// The event of a new state.
pub fn state_news(now: &Standing, outcome: &str) -> Value {
    let mut told = json!({"state": now.state, "outcome": outcome});
    if let Some(fault) = now.error.as_ref().filter(|_| now.state != State::Succeeded) {
        told["error"] = json!(fault);
    }
    if let Some(result) = &now.result {
        told["result"] = result.clone();
    }
    if now.state == State::Queued {
        told["not_before_ms"] = json!(now.not_before_ms);
    }
    told
}
