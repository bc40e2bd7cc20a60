//! Files that clients send for their jobs to read.
//!
//! Each is the artifact of a job of its own, which runs while the file comes and has no other work: so it belongs to its tenant, is seen,
//! cancelled, downloaded and kept for so long as what jobs make is, and a file that did not come whole leaves nothing. That job is never a
//! worker's; its lease is held by whoever takes the bytes.

use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use super::admission::{TooLarge, fits};
use super::attempt::state_news;
use super::error::Error;
use super::kind::Plan;
use super::machine;
use super::service::{Jobs, Scope};
use super::submission::Submission;
use super::worker::is_artifact_name;
use crate::domain::digest::Digest;
use crate::storage::jobs::{Artifact, Change, Fault, Forgotten, Job, Needs, Standing};

/// What such a job is called. It is no kind that can be submitted.
pub const KIND: &str = "upload";
/// Who holds its lease.
const OWNER: &str = "gateway";
const STEP: &str = "receive";
/// What is written between two looks at the room that is left on the disk.
const LOOK_BYTES: u64 = 16 << 20;

/// A file that is coming.
pub struct Upload {
    jobs: Jobs,
    job: Job,
    file: File,
    hasher: Sha256,
    size_bytes: u64,
    /// As the client has said; 0: it has not.
    announced_bytes: u64,
    looked_bytes: u64,
    renewed: Instant,
}

impl Jobs {
    /// Begins to take a file. `announced_bytes`: how large it is going to be, where that is known.
    ///
    /// # Errors
    /// A name that is none, and a file that there is no room for.
    pub async fn upload(&self, tenant: &str, name: &str, announced_bytes: u64) -> Result<Upload, Error> {
        if !is_artifact_name(name) {
            return Err(Error::FileName(name.chars().take(200).collect()));
        }
        let needs = room(announced_bytes);
        fits(&needs, &self.capacity()).map_err(Error::TooLarge)?;
        let submission = Submission { kind: KIND.to_owned(), name: name.to_owned(), input: json!({"name": name}), ..Submission::default() };
        let plan = Plan { steps: vec![STEP.to_owned()], needs };
        let order = submission.order(Uuid::now_v7().to_string(), tenant.to_owned(), plan, self.0.clock.unix_ms());
        let standing = self.received_at_once()?;
        // It has an id of its own and comes after nothing, so that it is new.
        self.0.table.submit(&order, &standing, None, u64::MAX).await?;
        let job = Job::new(order, standing);
        let folder = self.0.folders.work_of(&job.order.id);
        let made = async {
            tokio::fs::create_dir_all(&folder).await?;
            File::create(folder.join(&job.order.name)).await
        };
        match made.await {
            Ok(file) => Ok(Upload {
                jobs: self.clone(),
                job,
                file,
                hasher: Sha256::new(),
                size_bytes: 0,
                announced_bytes,
                looked_bytes: 0,
                renewed: Instant::now(),
            }),
            Err(error) => {
                let error = unwritten(error, announced_bytes);
                self.give_up_upload(&job, &error.to_string()).await;
                Err(error)
            }
        }
    }

    /// Leased and begun as it is made.
    fn received_at_once(&self) -> Result<Standing, Error> {
        let now_ms = self.0.clock.unix_ms();
        let leased = machine::lease(&machine::submitted(1, now_ms), OWNER, now_ms, self.0.config.lease)?;
        Ok(machine::begin(&leased, leased.epoch)?)
    }

    async fn give_up_upload(&self, job: &Job, why: &str) {
        let (id, epoch, now_ms) = (job.order.id.as_str(), job.standing.epoch, self.0.clock.unix_ms());
        let fault = Fault { kind: KIND.to_owned(), message: why.to_owned() };
        let failed = |job: &Job| {
            let next = machine::fail(&job.standing, epoch, fault, None, now_ms)?;
            let news = state_news(&next, "failed");
            Ok(Change::to(next).telling("state", news))
        };
        if let Err(error) = self.apply(id, true, failed).await {
            tracing::warn!(job = id, %error, "an upload that broke off could not be written down; its lease runs out by itself");
        }
        // What is left is swept.
        let _ = tokio::fs::remove_dir_all(self.0.folders.work_of(id)).await;
    }

    /// Deletes a file that was uploaded, and all that is known of it.
    ///
    /// # Errors
    /// When there is none that may be seen, it is still coming, or a job that has not ended is going to read it.
    pub async fn delete_upload(&self, id: &str, scope: Scope<'_>) -> Result<(), Error> {
        let job = self.get(id, scope).await?;
        if job.order.kind != KIND {
            return Err(Error::NotFound(id.to_owned()));
        }
        match self.0.table.forget_one(id).await? {
            Forgotten::Gone => {}
            Forgotten::Unfinished => return Err(Error::StillComing(id.to_owned())),
            Forgotten::Needed(by) => return Err(Error::Needed { file: id.to_owned(), by }),
        }
        let folder = self.0.folders.artifacts().join(id);
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                // It belongs to nothing any more, and is swept with the rest of that.
                tracing::warn!(path = %folder.display(), %error, "an uploaded file could not be deleted yet");
            }
            _ => {}
        }
        Ok(())
    }
}

impl Upload {
    #[must_use]
    pub fn id(&self) -> &str {
        &self.job.order.id
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When there is no room for them, or somebody has cancelled it.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let needed = self.size_bytes + bytes.len() as u64;
        self.file.write_all(bytes).await.map_err(|error| unwritten(error, needed))?;
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        if self.size_bytes - self.looked_bytes >= LOOK_BYTES {
            self.looked_bytes = self.size_bytes;
            fits(&room(LOOK_BYTES), &self.jobs.capacity()).map_err(Error::TooLarge)?;
        }
        if self.renewed.elapsed() >= self.longest_silence() { self.renew().await } else { Ok(()) }
    }

    /// After so long without bytes it has to be renewed.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        self.jobs.0.config.lease / 3
    }

    /// Says that it is still coming, and how far it has come.
    ///
    /// # Errors
    /// When somebody has cancelled it.
    pub async fn renew(&mut self) -> Result<(), Error> {
        self.renewed = Instant::now();
        let (epoch, now_ms, lease) = (self.job.standing.epoch, self.jobs.0.clock.unix_ms(), self.jobs.0.config.lease);
        let total = Some(self.announced_bytes).filter(|total| *total > 0);
        let progress = json!({"step": STEP, "done": self.size_bytes, "total": total, "unit": "bytes"});
        let renewed = |job: &Job| {
            let next = machine::renew(&job.standing, epoch, now_ms, lease)?;
            Ok(Change::to(Standing { progress: Some(progress), ..next }))
        };
        let job = self.jobs.apply(self.id(), false, renewed).await?;
        if job.standing.cancel_requested { Err(Error::Cancelled(self.id().to_owned())) } else { Ok(()) }
    }

    /// All of it has come: it is an artifact from now on, and on the disk.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub async fn finish(&mut self) -> Result<(String, Artifact), Error> {
        let size_bytes = self.size_bytes;
        let unwritten = |error| unwritten(error, size_bytes);
        self.file.flush().await.map_err(unwritten)?;
        self.file.sync_all().await.map_err(unwritten)?;
        // Whoever has cancelled it meanwhile, or the clock that it is beyond, is heard before anything is kept.
        self.renew().await?;
        let (folders, id, name, epoch) =
            (self.jobs.0.folders.clone(), self.id().to_owned(), self.job.order.name.clone(), self.job.standing.epoch);
        let kept = tokio::task::spawn_blocking(move || folders.keep(&id, epoch, &name, &name)).await;
        let path = kept.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())).map_err(unwritten)?;
        let now_ms = self.jobs.0.clock.unix_ms();
        let artifact = Artifact {
            name: self.job.order.name.clone(),
            path,
            size_bytes: self.size_bytes,
            sha256: Digest::new(std::mem::take(&mut self.hasher).finalize().into()).hex(),
            lineage: json!({"uploaded": true}),
            created_at_ms: now_ms,
        };
        let told = json!({"name": artifact.name, "size_bytes": artifact.size_bytes, "sha256": artifact.sha256});
        let succeeded = |job: &Job| {
            let next = machine::succeed(&job.standing, epoch, told.clone(), now_ms)?;
            let news = state_news(&next, "succeeded");
            let change = Change { artifact: Some(artifact.clone()), ..Change::to(next) };
            Ok(change.telling("artifact", told).telling("state", news))
        };
        self.jobs.apply(self.id(), true, succeeded).await?;
        Ok((self.id().to_owned(), artifact))
    }

    /// It has not come whole: nothing of it stays but the word why.
    pub async fn give_up(self, why: &str) {
        self.jobs.give_up_upload(&self.job, why).await;
    }
}

/// What receiving so many bytes takes.
fn room(disk_bytes: u64) -> Needs {
    Needs { cpu_threads: 0, gpus: 0, memory_bytes: 0, disk_bytes }
}

/// A disk that is full is no fault of the gateway's.
fn unwritten(error: std::io::Error, needed: u64) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::TooLarge(TooLarge { resource: "disk", needed, available: 0 })
        }
        _ => Error::io("an uploaded file cannot be written")(error),
    }
}
