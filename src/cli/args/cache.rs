//! What can be typed after `arriero cache`.

use clap::{Args, Subcommand};

use super::Operating;

#[derive(Debug, Args)]
pub struct Cache {
    /// What to do; without it `stats`.
    #[command(subcommand)]
    pub command: Option<CacheCommand>,
    #[command(flatten)]
    pub operating: Operating,
}

#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Show how much is kept.
    Stats,
    /// Forget answers, in memory and in the database.
    Purge(Purge),
    /// Prompts that are kept warm on the backends.
    #[command(subcommand)]
    Warm(WarmCommand),
}

/// Exactly one of them.
#[derive(Debug, Default, Args)]
#[group(required = true, multiple = false)]
pub struct Purge {
    /// All answers of this model.
    #[arg(long)]
    pub model: Option<String>,
    /// All answers made for this tenant.
    #[arg(long)]
    pub tenant: Option<String>,
    /// The answer with this key, in hexadecimal.
    #[arg(long = "answer", value_name = "HEX")]
    pub answer: Option<String>,
    /// All answers.
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Subcommand)]
pub enum WarmCommand {
    /// List them, without their texts.
    List,
    /// Keep a prompt warm; one of the same name is replaced.
    Add {
        /// Letters, digits, `-`, `_` and `.`.
        name: String,
        /// Model that is to have read it.
        #[arg(long, short)]
        model: String,
        /// System prompt of the requests that are to be quick.
        #[arg(long, short, value_name = "TEXT")]
        system: Option<String>,
        /// What their prompts begin with.
        prompt: Vec<String>,
    },
    /// Stop keeping a prompt warm.
    Remove {
        /// Its name.
        name: String,
    },
}
