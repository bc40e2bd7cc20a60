//! What can be typed after `arriero keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct Keys {
    #[command(subcommand)]
    pub command: KeysCommand,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Address of a running gateway [env: ARRIERO_URL]. Without it the data folder is used, or the gateway that runs on it.
    #[arg(long, value_name = "URL", global = true)]
    pub url: Option<String>,
    /// Key of an admin of that gateway [env: ARRIERO_KEY, which other users of this machine cannot see].
    #[arg(long, value_name = "KEY", global = true)]
    pub key: Option<String>,
    /// Configuration file [env: ARRIERO_CONFIG].
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Folder for all state [env: ARRIERO_DATA_DIR].
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key and print its secret, which is shown this once.
    Create(CreateKey),
    /// List all keys.
    List,
    /// Show one key.
    Show {
        /// Public id of the key.
        id: String,
    },
    /// Give a key a new secret and print it.
    Rotate {
        /// Public id of the key.
        id: String,
        /// How long the old secret is still taken, e.g. `1h`.
        #[arg(long, value_name = "SPAN", default_value = "0s", value_parser = crate::domain::span::parse)]
        grace: std::time::Duration,
    },
    /// End a key at once and for good.
    Revoke {
        /// Public id of the key.
        id: String,
    },
}

#[derive(Debug, Default, Args)]
pub struct CreateKey {
    /// Name of the key; without it that of its role.
    pub name: Option<String>,
    /// What its holder may do.
    #[arg(long, default_value = "user", value_parser = ["metrics", "user", "operator", "admin"])]
    pub role: String,
    /// Whose share of the machine it uses; without it one of its own.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Pattern of models it may ask for, e.g. `gemma3:*`; may be repeated. Without it all.
    #[arg(long = "model", value_name = "PATTERN")]
    pub models: Vec<String>,
    /// Priority of its requests that ask for none.
    #[arg(long, value_name = "CLASS", value_parser = ["batch", "low", "normal", "high", "urgent"])]
    pub default_priority: Option<String>,
    /// Highest priority its requests may ask for.
    #[arg(long, value_name = "CLASS", value_parser = ["batch", "low", "normal", "high", "urgent"])]
    pub priority_ceiling: Option<String>,
    /// Share of the machine in relation to other tenants.
    #[arg(long)]
    pub weight: Option<u32>,
    /// A bound on what it may use, e.g. `requests_per_minute=60`; may be repeated.
    #[arg(long = "allow", value_name = "BOUND=NUMBER", value_parser = crate::cli::keys::bound)]
    pub bounds: Vec<(String, u64)>,
    /// A label; may be repeated.
    #[arg(long = "label", value_name = "NAME=TEXT", value_parser = crate::cli::keys::label)]
    pub labels: Vec<(String, String)>,
    /// When it ends, e.g. `2030-01-31T00:00:00Z`.
    #[arg(long, value_name = "TIME")]
    pub expires_at: Option<String>,
    /// Its holder agrees that its exchanges are collected, where the gateway does so.
    #[arg(long)]
    pub collect: bool,
}
