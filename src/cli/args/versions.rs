//! What can be typed after `arriero versions`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  arriero versions
  arriero versions show me/support 3
  arriero versions promote me/support 2
  arriero versions rollback me/support")]
pub struct Versions {
    #[command(subcommand)]
    pub command: Option<VersionsCommand>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Configuration file [env: ARRIERO_CONFIG].
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Folder for all state [env: ARRIERO_DATA_DIR].
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum VersionsCommand {
    /// List what was published under each name, or under one.
    List {
        /// Name of the model.
        name: Option<String>,
    },
    /// Show a version: what it was made from and how, and what it is worth.
    Show {
        /// Name of the model.
        name: String,
        /// Number of the version [default: the one that has the name].
        number: Option<u32>,
    },
    /// Give the name to a version: it is published again.
    Promote {
        /// Name of the model.
        name: String,
        /// Number of the version.
        number: u32,
        /// Name of a configured Ollama server, or `*` for all; repeatable [default: where it was published before].
        #[arg(long, value_name = "SERVER")]
        to: Vec<String>,
    },
    /// Give the name back to the version that had it before.
    Rollback {
        /// Name of the model.
        name: String,
    },
}
