//! One attempt at one job, seen from its worker: a child process, a lease that is renewed, and what the child says written down.

mod child;
mod lines;
mod record;
mod weather;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::child::Child;
pub use self::record::state_news;
use self::record::{Record, Written};
pub use self::weather::Weather;
use super::hash;
use super::kind::{REFERENCE, Referred, references};
use super::outcome::{Evidence, Outcome, is_starved, judge};
use super::service::Jobs;
use super::watch::{Bounds, Verdict, Watch};
use super::worker::{Ask, Brief, Say};
use crate::domain::digest::Digest;
use crate::storage::jobs::Job;

/// How long what a child said last may still be on its way when it has ended.
const AFTERWORD: Duration = Duration::from_secs(2);

/// Works on a job that was leased to this worker, until its attempt has ended one way or another.
pub async fn run(jobs: Jobs, job: Job, program: PathBuf, weather: watch::Receiver<Weather>) {
    let kind = job.order.kind.clone();
    let mut record = Record::new(jobs.clone(), job);
    let outcome = match prepared(&jobs, &mut record, &program).await {
        Ok(child) => Attempt::new(&jobs, record.job(), child, weather).work(&mut record).await,
        Err(outcome) => outcome,
    };
    let word = outcome.word();
    record.end(outcome).await;
    jobs.0.metrics.job_attempt(&kind, word);
    jobs.0.nudge.notify_one();
}

async fn prepared(jobs: &Jobs, record: &mut Record, program: &Path) -> Result<Child, Outcome> {
    let brief = brief(jobs, record.job()).await?;
    match record.begin().await {
        Written::Done => {}
        Written::Lost => return Err(Outcome::Lost),
        Written::Failed(outcome) => return Err(outcome),
    }
    Child::start(program, &brief)
        .map_err(|error| Outcome::failed("not_started", format!("`{}` does not start: {error}", program.display())))
}

async fn brief(jobs: &Jobs, job: &Job) -> Result<Brief, Outcome> {
    let unread = |error: crate::storage::Error| Outcome::failed("storage", error.to_string());
    let steps = jobs.0.table.steps(&job.order.id).await.map_err(unread)?;
    let config = jobs.config();
    Ok(Brief {
        job: job.order.id.clone(),
        kind: job.order.kind.clone(),
        input: job.order.input.clone(),
        attempt: job.standing.attempts,
        steps,
        ground: jobs.ground().as_ref().clone(),
        inputs: [referred(jobs, job).await?, collected(jobs, job).await?].concat(),
        work_dir: jobs.0.folders.work_of(&job.order.id),
        threads: job.order.needs.cpu_threads.max(1),
        nice: config.resources.nice,
        memory_bytes: job.order.needs.memory_bytes,
        silence_ms: u64::try_from(config.lease.as_millis()).unwrap_or(u64::MAX),
        trial: config.trial,
    })
}

/// Where the artifacts are that the input refers to.
async fn referred(jobs: &Jobs, job: &Job) -> Result<Vec<Referred>, Outcome> {
    let mut found = Vec::new();
    for (id, name) in references(&job.order.input) {
        let text = format!("{REFERENCE}{id}/{name}");
        let missing = |error: super::Error| Outcome::Failed { kind: "input".into(), message: format!("`{text}`: {error}"), again: false };
        let (artifact, path) = jobs.artifact(&id, &name).await.map_err(missing)?;
        found.push(Referred { text, path, sha256: artifact.sha256, size_bytes: artifact.size_bytes });
    }
    Ok(found)
}

/// Brings what was collected to files of the job, once for all attempts: what an attempt goes on with stays what it was.
async fn collected(jobs: &Jobs, job: &Job) -> Result<Vec<Referred>, Outcome> {
    let wanted = jobs.kinds().get(&job.order.kind).map(|kind| kind.collected(&job.order.input)).unwrap_or_default();
    let folder = jobs.0.folders.work_of(&job.order.id);
    let failed = |error: &dyn std::fmt::Display| Outcome::failed("collection", format!("what was collected cannot be brought: {error}"));
    let mut brought: Vec<Referred> = Vec::new();
    for (number, wish) in wanted.iter().enumerate() {
        let (text, path) = (wish.name(), folder.join(format!("collected-{number}.jsonl")));
        if brought.iter().any(|earlier| earlier.text == text) {
            continue;
        }
        if !path.exists() {
            std::fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
            wish.export(&jobs.0.collection, &path).await.map_err(|error| failed(&error))?;
        }
        let measured = tokio::task::spawn_blocking(move || measured(text, path)).await;
        brought.push(measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())).map_err(|error| failed(&error))?);
    }
    Ok(brought)
}

fn measured(text: String, path: PathBuf) -> std::io::Result<Referred> {
    let (hasher, size_bytes) = hash::read(std::fs::File::open(&path)?, |_| Ok::<_, std::io::Error>(()))?;
    Ok(Referred { text, path, sha256: Digest::new(sha2::Digest::finalize(hasher).into()).hex(), size_bytes })
}

/// A child at work.
struct Attempt<'a> {
    jobs: &'a Jobs,
    child: Child,
    weather: watch::Receiver<Weather>,
    watch: Watch,
    since: Instant,
    memory_bytes: u64,
    asked: Ask,
    last: Option<Say>,
    starved: bool,
}

impl<'a> Attempt<'a> {
    fn new(jobs: &'a Jobs, job: &Job, child: Child, weather: watch::Receiver<Weather>) -> Self {
        let (config, memory_bytes) = (jobs.config(), job.order.needs.memory_bytes);
        let bounds = Bounds { idle: config.hang_after, grace: config.kill_after, memory_bytes };
        let watch = Watch::new(bounds, Duration::ZERO);
        Self { jobs, child, weather, watch, since: Instant::now(), memory_bytes, asked: Ask::Go, last: None, starved: false }
    }

    async fn work(mut self, record: &mut Record) -> Outcome {
        let mut ticks = interval(self.jobs.config().look_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let written = tokio::select! {
                said = self.child.says.next() => match said {
                    Some(line) => self.heard(record, &line).await,
                    None => return self.ended(record).await,
                },
                Some(line) = self.child.complains.next() => {
                    self.complained(record, &line);
                    Written::Done
                }
                _ = ticks.tick() => self.tick(record).await,
            };
            match written {
                Written::Done => {}
                Written::Lost => return self.abandon().await,
                Written::Failed(outcome) => {
                    self.child.kill();
                    self.child.wait().await;
                    return outcome;
                }
            }
        }
    }

    async fn heard(&mut self, record: &mut Record, line: &[u8]) -> Written {
        let (say, now) = (Say::read(line), self.since.elapsed());
        match &say {
            Say::Beat | Say::Log { .. } => self.watch.alive(now),
            _ => self.watch.moved(now),
        }
        if say.is_last() {
            // It has nothing left to do but to end.
            self.watch.asked(now);
            self.last = Some(say);
            return Written::Done;
        }
        record.said(say).await
    }

    fn complained(&mut self, record: &mut Record, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        self.starved |= is_starved(&line);
        record.log(line.trim_end());
    }

    /// What is done every now and then: the lease, what was asked for meanwhile, and whether the child behaves.
    async fn tick(&mut self, record: &mut Record) -> Written {
        let written = record.keep_up().await;
        if written == Written::Done {
            let asked = self.weather.borrow().asks(record.job(), self.jobs.config());
            self.ask(asked).await;
        }
        match self.watch.look(self.since.elapsed(), self.child.memory_bytes()) {
            Verdict::Fine => {}
            Verdict::Terminate(_) => self.child.terminate(),
            Verdict::Kill => self.child.kill(),
        }
        written
    }

    async fn ask(&mut self, ask: Ask) {
        let now = self.since.elapsed();
        match ask {
            Ask::Stop => self.watch.asked(now),
            Ask::Wait => self.watch.moved(now),
            Ask::Go | Ask::Heard => {}
        }
        let changed = std::mem::replace(&mut self.asked, ask) != ask;
        self.child.tell(if changed { ask } else { Ask::Heard }).await;
    }

    /// Standard output has ended, and with it the child, or soon.
    async fn ended(mut self, record: &mut Record) -> Outcome {
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                () = tokio::time::sleep(self.jobs.config().look_interval) => {
                    if self.tick(record).await == Written::Lost {
                        return self.abandon().await;
                    }
                }
            }
        };
        while let Ok(Some(line)) = tokio::time::timeout(AFTERWORD, self.child.complains.next()).await {
            self.complained(record, &line);
        }
        let (last, reason) = (self.last.as_ref(), self.watch.reason());
        judge(Evidence { last, status, reason, memory_bytes: self.memory_bytes, starved: self.starved })
    }

    /// The job is another's now.
    async fn abandon(mut self) -> Outcome {
        self.child.kill();
        self.child.wait().await;
        Outcome::Lost
    }
}
