//! What `arriero collection` and `arriero feedback` take.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Operating;

#[derive(Debug, Args)]
pub struct Collection {
    #[command(subcommand)]
    pub command: CollectionCommand,
    #[command(flatten)]
    pub operating: Operating,
}

#[derive(Debug, Subcommand)]
pub enum CollectionCommand {
    /// List exchanges, the newest first.
    List {
        #[command(flatten)]
        which: Collected,
        /// How many at most.
        #[arg(long, value_name = "NUMBER", default_value_t = 20)]
        limit: u32,
    },
    /// Write exchanges as JSONL, one object a line, the newest first.
    Export {
        #[command(flatten)]
        which: Collected,
        /// File to write [default: standard output].
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Forget exchanges for good.
    Forget(Forget),
}

/// Which exchanges: those for which all holds that is given.
#[derive(Debug, Clone, Default, Args)]
pub struct Collected {
    /// Only of this model.
    #[arg(long)]
    pub model: Option<String>,
    /// Only those that were rated so.
    #[arg(long, value_parser = ["good", "bad", "unrated"])]
    pub rating: Option<String>,
    /// Only of the key with this public id; `anonymous`: of none.
    #[arg(long = "of", value_name = "KEY_ID")]
    pub of: Option<String>,
    /// Only those asked at this time or later, e.g. `2030-01-31T00:00:00Z`.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only those asked before this time.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// At least one of them; several narrow it down.
#[derive(Debug, Default, Args)]
#[group(required = true, multiple = true)]
pub struct Forget {
    /// Those of the key with this public id; `anonymous`: of none.
    #[arg(long = "of", value_name = "KEY_ID")]
    pub of: Option<String>,
    /// Those of this request.
    #[arg(long = "request", value_name = "REQUEST_ID")]
    pub request: Option<String>,
    /// Those of this model.
    #[arg(long)]
    pub model: Option<String>,
    /// Those asked before this time, e.g. `2030-01-31T00:00:00Z`.
    #[arg(long, value_name = "TIME")]
    pub before: Option<String>,
    /// All.
    #[arg(long, conflicts_with_all = ["of", "request", "model", "before"])]
    pub all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  arriero feedback 019a1b2c-… good
  arriero feedback 019a1b2c-… bad --correction 'Because air scatters short waves more.'")]
pub struct Feedback {
    /// The answer's `x-request-id`.
    pub request_id: String,
    /// What the answer was worth.
    #[arg(value_parser = ["good", "bad"])]
    pub rating: String,
    /// The answer that would have been right; `-`: from standard input.
    #[arg(long, value_name = "TEXT")]
    pub correction: Option<String>,
    /// Anything else.
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
    /// For operators: public id of the key whose request it is.
    #[arg(long = "of", value_name = "KEY_ID")]
    pub of: Option<String>,
    #[command(flatten)]
    pub operating: Operating,
}
