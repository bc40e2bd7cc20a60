//! What has to be seen to now and then, by any worker: jobs whose worker is gone, jobs that wait in vain, schedules, and old rows and
//! files.

use std::path::Path;

use uuid::Uuid;

use super::attempt::state_news;
use super::calendar;
use super::kind::Plan;
use super::machine;
use super::service::Jobs;
use super::submission::Submission;
use crate::storage::Error;
use crate::storage::jobs::{Attempt, Change, Job, Kept, Needs, Order, Schedule, Standing, State};

/// Jobs that are seen to at once.
const AT_ONCE: i64 = 100;

pub async fn jobs(jobs: &Jobs) -> Result<(), Error> {
    let now_ms = jobs.0.clock.unix_ms();
    for id in jobs.0.table.expired(now_ms, AT_ONCE).await? {
        let decide = |job: &Job| {
            let epoch = job.standing.epoch;
            let next = machine::expire(&job.standing, jobs.pause(&job.standing), now_ms)?;
            let told = state_news(&next, "worker_lost");
            let attempt = Some(Attempt::Ended { epoch, outcome: "worker_lost".to_owned() });
            Ok::<_, machine::Wrong>(Change { attempt, ..Change::to(next) }.telling("state", told))
        };
        if let Some(Ok(job)) = jobs.0.table.change(&id, true, jobs.most_events(), now_ms, decide).await? {
            tracing::warn!(job = id, state = job.standing.state.as_str(), "a job's worker was not heard of before its lease ran out");
            jobs.0.metrics.job_attempt(&job.order.kind, "worker_lost");
        }
    }
    for (id, needed) in jobs.0.table.hopeless(AT_ONCE).await? {
        let decide = |job: &Job| {
            let next = machine::give_up(&job.standing, &needed, now_ms)?;
            let told = state_news(&next, "dependency");
            Ok::<_, machine::Wrong>(Change::to(next).telling("state", told))
        };
        jobs.0.table.change(&id, true, jobs.most_events(), now_ms, decide).await?.map(Result::ok);
    }
    for schedule in jobs.0.table.due_schedules(now_ms, AT_ONCE).await? {
        fire(jobs, &schedule, now_ms).await?;
    }
    Ok(())
}

async fn fire(jobs: &Jobs, schedule: &Schedule, now_ms: i64) -> Result<(), Error> {
    let Some(next_at_ms) = schedule.next_at_ms else { return Ok(()) };
    let due = calendar::due(&schedule.cron, schedule.missed, next_at_ms, now_ms);
    let mut made = Vec::new();
    for run_ms in &due.runs_ms {
        made.push(scheduled(jobs, schedule, *run_ms, now_ms).await);
    }
    if jobs.0.table.fire(schedule, due.next_at_ms, &made).await? {
        tracing::info!(schedule = schedule.id, jobs = made.len(), "a schedule's time has come");
    }
    Ok(())
}

/// A job of a schedule. Where it cannot be planned any more it is made all the same, and fails with the reason.
async fn scheduled(jobs: &Jobs, schedule: &Schedule, run_ms: i64, now_ms: i64) -> (Order, Standing) {
    let submission: Submission = serde_json::from_value(schedule.job.clone()).unwrap_or_default();
    let needs = Needs { cpu_threads: 1, gpus: 0, memory_bytes: 64 << 20, disk_bytes: 0 };
    let plan = jobs.plan(&schedule.tenant, &submission).await.unwrap_or(Plan { steps: Vec::new(), needs });
    let standing = machine::submitted(submission.max_attempts.unwrap_or(jobs.config().max_attempts), now_ms);
    let mut order = submission.order(Uuid::now_v7().to_string(), schedule.tenant.clone(), plan, now_ms);
    order.labels.insert("scheduled_for_ms".to_owned(), run_ms.to_string());
    (Order { schedule: Some(schedule.id.clone()), ..order }, standing)
}

/// Old rows, and files that belong to nothing.
pub async fn files(jobs: &Jobs) -> Result<(), Error> {
    let retention = &jobs.config().retention;
    let keep_ms = i64::try_from(retention.keep.as_millis()).unwrap_or(i64::MAX);
    let kept = Kept {
        since_ms: jobs.0.clock.unix_ms().saturating_sub(keep_ms),
        most_jobs: retention.max_jobs,
        most_bytes: retention.max_artifact_bytes,
    };
    let forgotten = jobs.0.table.forget(kept, AT_ONCE).await?;
    if !forgotten.is_empty() {
        tracing::info!(jobs = forgotten.len(), "old jobs were forgotten");
    }
    orphans(jobs).await?;
    let counted = jobs.0.table.pool().await?.jobs;
    for state in State::ALL {
        // A state in which there is no job is not among them.
        let count = counted.iter().find(|(name, _)| name == state.as_str()).map_or(0, |(_, count)| *count);
        jobs.0.metrics.jobs(state.as_str(), count);
    }
    jobs.0.metrics.job_artifact_bytes(jobs.0.table.artifact_bytes().await?);
    Ok(())
}

/// What lies on the disk is listed first, and then looked for in the database: what has no row by then, and belongs to no job that is under
/// way, never gets one.
async fn orphans(jobs: &Jobs) -> Result<(), Error> {
    let folders = jobs.0.folders.clone();
    let listed = tokio::task::spawn_blocking(move || (names(&folders.work()), paths(&folders.artifacts()))).await;
    let (work, artifacts) = listed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    if work.is_empty() && artifacts.is_empty() {
        return Ok(());
    }
    let unfinished = jobs.0.table.unfinished().await?;
    let known = jobs.0.table.artifact_paths().await?;
    let folders = jobs.0.folders.clone();
    let swept = tokio::task::spawn_blocking(move || {
        // What cannot be deleted now is tried again the next time.
        for job in work.iter().filter(|job| !unfinished.contains(*job)) {
            let _ = std::fs::remove_dir_all(folders.work().join(job));
        }
        let orphan = |path: &&String| !known.contains(*path) && !unfinished.contains(path.split('/').next().unwrap_or_default());
        for path in artifacts.iter().filter(orphan) {
            remove(&folders.artifacts(), path);
        }
    });
    swept.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    Ok(())
}

fn remove(artifacts: &Path, path: &str) {
    tracing::info!(path, "deleting a file that belongs to no job");
    let _ = std::fs::remove_file(artifacts.join(path));
    // Folders go when they are empty.
    for folder in Path::new(path).ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
        if std::fs::remove_dir(artifacts.join(folder)).is_err() {
            return;
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// `JOB/EPOCH/NAME` of every file.
fn paths(artifacts: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for job in names(artifacts) {
        for epoch in names(&artifacts.join(&job)) {
            let files = names(&artifacts.join(&job).join(&epoch));
            found.extend(files.into_iter().map(|name| format!("{job}/{epoch}/{name}")));
        }
    }
    found
}
