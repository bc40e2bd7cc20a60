//! What a kind works in: progress, log, steps that are done once, artifacts, and whether it is to stop.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::artifact::{self, Writer};
use super::child::{Asked, Voice};
use super::words::{Brief, MAX_OUTPUT_BYTES, Say};
use crate::domain::digest::Digest;
use crate::jobs::kind::{Fault, Ground, REFERENCE, Referred};
use crate::jobs::roots::{Error as PathError, Found};
use crate::storage::jobs::Step;

/// Longest line of a log, in bytes.
const MAX_LOG_BYTES: usize = 4_096;
/// Progress is said no more often than this.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How often one that holds still looks whether it may go on.
const WAIT_INTERVAL: Duration = Duration::from_millis(50);

/// # Errors
/// An output that is too large to be kept in the database: what is large belongs into an artifact.
pub(super) fn bounded(output: Value) -> Result<Value, Fault> {
    let size_bytes = output.to_string().len();
    if size_bytes <= MAX_OUTPUT_BYTES {
        return Ok(output);
    }
    Err(Fault::Final(format!("an output has {size_bytes} bytes, and may have {MAX_OUTPUT_BYTES}")))
}

fn log(voice: &Voice, line: &str) {
    let end = (0..=MAX_LOG_BYTES.min(line.len())).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
    voice.say(&Say::Log { line: line[..end].to_owned() });
}

fn metric(voice: &Voice, name: &str, value: f64) {
    voice.say(&Say::Metric { name: name.to_owned(), value });
}

/// Returns when the work may go on, or is to stop.
fn hold(asked: &Asked) {
    while asked.wait.load(Ordering::SeqCst) && !asked.stop.is_cancelled() {
        std::thread::sleep(WAIT_INTERVAL);
    }
}

/// What a [`Context`] lends to those who watch: it can be used from several threads.
pub struct Reporter {
    voice: Voice,
    asked: Arc<Asked>,
    said_at: Mutex<Option<Instant>>,
}

impl Reporter {
    /// As [`Context::progress`], without holding still.
    pub fn progress(&self, done: u64, total: u64, unit: &str) {
        let mut said_at = self.said_at.lock().unwrap_or_else(PoisonError::into_inner);
        if done >= total || said_at.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
            *said_at = Some(Instant::now());
            self.voice.say(&Say::Progress { done, total, unit: unit.to_owned() });
        }
    }

    pub fn log(&self, line: &str) {
        log(&self.voice, line);
    }

    pub fn metric(&self, name: &str, value: f64) {
        metric(&self.voice, name, value);
    }

    /// Holds still while the attempt is to make way.
    pub fn hold(&self) {
        hold(&self.asked);
    }

    /// Whether [`Reporter::hold`] would hold still.
    #[must_use]
    pub fn must_wait(&self) -> bool {
        self.asked.wait.load(Ordering::SeqCst)
    }

    /// Cancelled the moment the attempt is told to stop, so that work which waits for something need not look now and then.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.asked.stop
    }
}

/// The surroundings of one attempt.
pub struct Context {
    brief: Brief,
    version: u32,
    voice: Voice,
    asked: Arc<Asked>,
    said_at: Option<Instant>,
}

impl Context {
    pub(super) fn new(brief: Brief, version: u32, voice: Voice, asked: Arc<Asked>) -> Self {
        Self { brief, version, voice, asked, said_at: None }
    }

    /// From 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.brief.attempt
    }

    /// How many threads the attempt may keep busy.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.brief.threads
    }

    /// A folder of the job's own, kept from one attempt to the next, and gone when the job has ended.
    #[must_use]
    pub fn work_dir(&self) -> &Path {
        &self.brief.work_dir
    }

    /// What the job may look at and use.
    #[must_use]
    pub fn ground(&self) -> &Ground {
        &self.brief.ground
    }

    /// For those who watch a piece of work that this context waits for.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        Reporter { voice: self.voice.clone(), asked: Arc::clone(&self.asked), said_at: Mutex::default() }
    }

    /// Where a path of the input, or the artifact it refers to, lies.
    ///
    /// # Errors
    /// What lies outside of the roots, or is not there.
    pub fn resolve(&self, path: &str) -> Result<PathBuf, Fault> {
        if path.starts_with(REFERENCE) { Ok(self.referred(path)?.path.clone()) } else { Ok(self.brief.ground.roots.resolve(path)?) }
    }

    fn referred(&self, path: &str) -> Result<&Referred, PathError> {
        let referred = self.brief.inputs.iter().find(|referred| referred.text == path);
        referred.ok_or_else(|| PathError::Missing { path: path.to_owned() })
    }

    /// Opens a path of the input, the artifact it refers to, or what was collected for it.
    ///
    /// # Errors
    /// What lies outside of the roots, or is not there.
    pub fn open(&self, path: &str) -> Result<Found, Fault> {
        let is_brought = self.brief.inputs.iter().any(|referred| referred.text == path);
        if !path.starts_with(REFERENCE) && !is_brought {
            return Ok(self.brief.ground.roots.open(path)?);
        }
        Ok(Found::File(cap_std::fs::File::from_std(std::fs::File::open(&self.referred(path)?.path)?)))
    }

    /// How far it is. To be called between pieces of work that take no longer than some seconds: an attempt that makes no progress for long
    /// is taken for hung.
    ///
    /// # Errors
    /// [`Fault::Stopped`] when it is to stop here.
    pub fn progress(&mut self, done: u64, total: u64, unit: &str) -> Result<(), Fault> {
        if done >= total || self.said_at.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
            self.said_at = Some(Instant::now());
            self.voice.say(&Say::Progress { done, total, unit: unit.to_owned() });
        }
        self.check()
    }

    /// Holds still while it is to make way.
    ///
    /// # Errors
    /// [`Fault::Stopped`] when it is to stop here.
    pub fn check(&self) -> Result<(), Fault> {
        hold(&self.asked);
        if self.cancelled() { Err(Fault::Stopped) } else { Ok(()) }
    }

    /// Whether it is to stop.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.asked.stop.is_cancelled()
    }

    pub fn log(&self, line: &str) {
        log(&self.voice, line);
    }

    pub fn metric(&self, name: &str, value: f64) {
        metric(&self.voice, name, value);
    }

    /// Does a step, or gives what it gave before: when an earlier attempt has ended the step of this number with the same `input`, by the
    /// same version of the kind. All that the step depends on belongs into `input`.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn step<T: Serialize + DeserializeOwned>(
        &mut self,
        number: u32,
        input: &Value,
        work: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.check()?;
        let input_hash = self.hash(number, input);
        let ended = self.brief.steps.iter().find(|step| step.number == number && step.input_hash == input_hash);
        if let Some(output) = ended.and_then(|step| T::deserialize(&step.output).ok()) {
            return Ok(output);
        }
        self.voice.say(&Say::Begin { step: number });
        self.said_at = None;
        let output = work(self)?;
        let json = bounded(serde_json::to_value(&output).map_err(|error| Fault::Final(error.to_string()))?)?;
        self.voice.say(&Say::Step(Step { number, input_hash, output: json }));
        Ok(output)
    }

    fn hash(&self, number: u32, input: &Value) -> String {
        let inputs: Vec<&str> = self.brief.inputs.iter().map(|referred| referred.sha256.as_str()).collect();
        let all = json!([self.brief.kind, self.version, number, self.brief.input, inputs, input]);
        Digest::new(Sha256::digest(all.to_string()).into()).hex()
    }

    /// Writes an artifact; it is kept once it is whole and on the disk, in the place of an earlier one of its name. Gives its SHA-256.
    ///
    /// # Errors
    /// Those of `write`, and when it cannot be written.
    pub fn artifact(
        &mut self,
        name: &str,
        options: &Value,
        write: impl FnOnce(&mut dyn io::Write) -> Result<(), Fault>,
    ) -> Result<String, Fault> {
        let file = self.temporary(name)?;
        let mut writer = Writer::create(&self.brief.work_dir.join(&file))?;
        write(&mut writer)?;
        let (size_bytes, sha256) = writer.finish()?;
        self.keep(name, file, (size_bytes, sha256.clone()), options);
        Ok(sha256)
    }

    /// Keeps a file that the kind has made in its folder ([`Context::work_dir`]) as an artifact; the file is moved away. `sha256`: the hash
    /// where it is known, else the file is read once more.
    ///
    /// # Errors
    /// When it cannot be read or moved.
    pub fn adopt(&mut self, name: &str, made: &Path, sha256: Option<String>, options: &Value) -> Result<String, Fault> {
        let file = self.temporary(name)?;
        let place = self.brief.work_dir.join(&file);
        let measured = if let Some(sha256) = sha256 {
            let whole = std::fs::File::open(made)?;
            whole.sync_all()?;
            (whole.metadata()?.len(), sha256)
        } else {
            let total = std::fs::metadata(made)?.len();
            artifact::measure(made, &mut |done| self.progress(done, total, "bytes"))?
        };
        std::fs::rename(made, place)?;
        self.keep(name, file, measured.clone(), options);
        Ok(measured.1)
    }

    /// Keeps a file as [`Context::adopt`] does, and leaves it where it is: the row of the artifact may be lost, and the file is then needed
    /// again. On most file systems it takes no room of its own.
    ///
    /// # Errors
    /// As [`Context::adopt`].
    pub fn share(&mut self, name: &str, made: &Path, sha256: Option<String>, options: &Value) -> Result<String, Fault> {
        let link = self.brief.work_dir.join("link");
        if link.exists() {
            std::fs::remove_file(&link)?;
        }
        if std::fs::hard_link(made, &link).is_err() {
            std::fs::copy(made, &link)?;
        }
        self.adopt(name, &link, sha256, options)
    }

    fn temporary(&self, name: &str) -> Result<String, Fault> {
        if artifact::is_name(name) {
            return Ok(format!("{name}.{}.artifact", self.brief.attempt));
        }
        Err(Fault::Final(format!("`{name}` is no name of an artifact")))
    }

    fn keep(&self, name: &str, file: String, (size_bytes, sha256): (u64, String), options: &Value) {
        let inputs: Vec<Value> =
            self.brief.inputs.iter().map(|one| json!({"artifact": one.text, "sha256": one.sha256, "size_bytes": one.size_bytes})).collect();
        let lineage = json!({
            "kind": self.brief.kind,
            "input": self.brief.input,
            "inputs": inputs,
            "options": options,
            "code": {"kind_version": self.version, "arriero": env!("CARGO_PKG_VERSION")},
        });
        self.voice.say(&Say::Artifact { name: name.to_owned(), file, size_bytes, sha256, lineage });
    }
}
