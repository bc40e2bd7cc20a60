//! What can be typed after `arriero jobs` and `arriero worker`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Operating, Settings};
use crate::config::Override;

#[derive(Debug, Args)]
pub struct Jobs {
    #[command(subcommand)]
    pub command: JobsCommand,
    #[command(flatten)]
    pub operating: Operating,
}

#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// Submit a job and print its id.
    Submit(SubmitJob),
    /// List jobs, the newest first.
    List {
        /// Only those that stand so.
        #[arg(long, value_parser = ["queued", "leased", "running", "succeeded", "failed", "cancelled"])]
        state: Option<String>,
        /// Only those of this kind.
        #[arg(long)]
        kind: Option<String>,
        /// So many at most.
        #[arg(long, value_name = "NUMBER")]
        limit: Option<u32>,
    },
    /// Show a job.
    Show {
        /// Id of the job.
        id: String,
    },
    /// Follow a job to its end; ends with 0 when it succeeds and with 1 when not.
    Watch {
        /// Id of the job.
        id: String,
    },
    /// Print the log of a job.
    Logs {
        /// Id of the job.
        id: String,
        /// Go on until the job has ended.
        #[arg(long, short)]
        follow: bool,
    },
    /// Cancel a job.
    Cancel {
        /// Id of the job.
        id: String,
    },
    /// Try a job again that failed or was cancelled; steps that have ended are not done again.
    Retry {
        /// Id of the job.
        id: String,
    },
    /// List what a job has made, or download it.
    Artifacts {
        /// Id of the job.
        id: String,
        /// Download the artifact of this name.
        #[arg(long, value_name = "NAME")]
        download: Option<String>,
        /// File to write it to; without it standard output.
        #[arg(long, value_name = "FILE", requires = "download")]
        out: Option<PathBuf>,
    },
    /// Upload a file for jobs to read, and print what they call it (`artifact:ID/NAME`).
    Upload {
        /// The file.
        file: PathBuf,
        /// What it is to be called; without it as it is called here.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Delete an uploaded file.
    DeleteUpload {
        /// Its id, or what jobs call it.
        file: String,
    },
    /// List the kinds of jobs and what they take.
    Kinds,
    /// List schedules; `submit --cron` adds one.
    Schedules {
        #[command(subcommand)]
        command: Option<SchedulesCommand>,
    },
    /// Show what is wanted of the workers, and how many jobs stand how.
    Pool,
    /// Have no worker start a new job; those that run go on.
    Pause,
    /// The same, and have those that run stop at their next good place and wait.
    Drain,
    /// Have the workers start jobs again.
    Resume,
}

#[derive(Debug, Subcommand)]
pub enum SchedulesCommand {
    /// Remove a schedule; jobs that it has made stay.
    Remove {
        /// Id of the schedule.
        id: String,
    },
}

#[derive(Debug, Default, Args)]
pub struct SubmitJob {
    /// Kind of the job (`arriero jobs kinds` lists them).
    pub kind: String,
    /// A field of its input, e.g. `path=files/model.gguf`.
    #[arg(value_name = "NAME=VALUE", value_parser = crate::cli::asking::option)]
    pub fields: Vec<(String, serde_json::Value)>,
    /// Its input as a JSON object.
    #[arg(long, value_name = "JSON")]
    pub input: Option<String>,
    /// Name for people.
    #[arg(long)]
    pub name: Option<String>,
    /// How much it matters; a key may be held to less.
    #[arg(long, value_name = "CLASS", value_parser = ["batch", "low", "normal", "high", "urgent"])]
    pub priority: Option<String>,
    /// Id of a job that must have succeeded before it starts; may be repeated.
    #[arg(long, value_name = "ID")]
    pub after: Vec<String>,
    /// A label; may be repeated.
    #[arg(long = "label", value_name = "NAME=TEXT", value_parser = crate::cli::keys::label)]
    pub labels: Vec<(String, String)>,
    /// How often it is tried.
    #[arg(long, value_name = "NUMBER")]
    pub max_attempts: Option<u32>,
    /// Text that is the same for each time the same submission is sent: it is made once.
    #[arg(long, value_name = "TEXT")]
    pub idempotency_key: Option<String>,
    /// Make a job again and again instead, e.g. `30 3 * * *` (UTC).
    #[arg(long, value_name = "PATTERN")]
    pub cron: Option<String>,
    /// What becomes of runs for which no worker was there.
    #[arg(long, value_name = "POLICY", default_value = "once", value_parser = ["skip", "once", "all"])]
    pub missed: String,
    /// Follow it to its end, as `watch` does.
    #[arg(long, short)]
    pub wait: bool,
}

#[derive(Debug, Args)]
pub struct Worker {
    #[command(subcommand)]
    pub command: Option<WorkerCommand>,
    #[command(flatten)]
    pub settings: WorkerSettings,
}

#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Work on one attempt; started by a worker.
    #[command(hide = true)]
    Run,
}

/// The flags of a worker that set configuration keys.
#[derive(Debug, Clone, Default, Args)]
pub struct WorkerSettings {
    /// Configuration file [env: ARRIERO_CONFIG].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for all state [env: ARRIERO_DATA_DIR].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
}

impl WorkerSettings {
    /// The top layer of the configuration.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        Settings { data_dir: self.data_dir.clone(), ..Settings::default() }.overrides()
    }
}
