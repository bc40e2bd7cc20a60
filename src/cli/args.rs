//! What can be typed. No defaults of the configuration are repeated here: a flag that is not given is not set.

#[cfg(feature = "embedded")]
mod bench;
mod cache;
mod collection;
mod convert;
mod dataset;
#[cfg(feature = "embedded")]
mod finetune;
mod jobs;
mod keys;
mod versions;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

#[cfg(feature = "embedded")]
pub use bench::{BenchEngine, BenchTraining};
pub use cache::{Cache, CacheCommand, Purge, WarmCommand};
pub use collection::{Collected, Collection, CollectionCommand, Feedback, Forget};
pub use convert::Convert;
pub use dataset::Dataset;
#[cfg(feature = "embedded")]
pub use finetune::Finetune;
pub use jobs::{Jobs, JobsCommand, SchedulesCommand, SubmitJob, Worker, WorkerCommand, WorkerSettings};
pub use keys::{CreateKey, Keys, KeysCommand};
pub use versions::{Versions, VersionsCommand};

use super::exit::Exit;
use crate::config::{Form, Override};

/// A gateway for Ollama: fair, observable and self-contained.
#[derive(Debug, Parser)]
#[command(name = "arriero", version, after_help = Exit::TABLE, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the gateway.
    Serve(Serve),
    /// Ask a running gateway for one answer.
    Generate(Generate),
    /// Talk with a model of a running gateway.
    Chat(Chat),
    /// List the models that a running gateway serves.
    Models(Models),
    /// Show what each key and tenant of a running gateway uses of what it may.
    Limits(Limits),
    /// Show who waits in a running gateway, and for what.
    Queue(Queue),
    /// Show how the backends of a running gateway are doing, and what is stuck there.
    Backends(Backends),
    /// Show or forget kept answers of a running gateway, and keep prompts warm.
    Cache(Cache),
    /// Make, list, renew and revoke API keys.
    Keys(Keys),
    /// Look at the exchanges that a running gateway collected to learn from, take them out, or forget them.
    Collection(Collection),
    /// Say what an answer of a running gateway was worth.
    Feedback(Feedback),
    /// Make GGUF files of a model, quantized as wanted; check and publish them.
    Convert(Box<Convert>),
    /// Make a data set for fine-tuning of files: clean it, leave out duplicates, divide it.
    Dataset(Box<Dataset>),
    /// Fine-tune a model on rows of your own: from data to a model that is served.
    #[cfg(feature = "embedded")]
    Finetune(Box<Finetune>),
    /// Show what was published under each name, and give a name to another version.
    Versions(Versions),
    /// Submit, follow, cancel and retry background jobs of a running gateway.
    Jobs(Jobs),
    /// Work on the background jobs of a data folder, beside the gateway that runs on it.
    Worker(Worker),
    /// Look for what is wrong on this machine, and how to mend it.
    Doctor(Doctor),
    /// Check, show or reload the configuration.
    #[command(subcommand)]
    Config(Config),
    /// Print the OpenAPI document of the HTTP interface.
    Openapi,
    /// Ask a running gateway whether it is alive (for container health checks).
    Health(Health),
    /// Print the version and what this build can do.
    Version,
    /// Print a completion script for a shell.
    Completions { shell: Shell },
    /// Print the folder for the demo model if `serve` with these flags needs it and it is missing.
    #[command(hide = true)]
    DemoModelFolder(Serve),
    /// Measure the embedded engine on a model file.
    #[cfg(feature = "embedded")]
    #[command(hide = true)]
    BenchEngine(BenchEngine),
    /// Measure the decisions of the queue.
    #[command(hide = true)]
    BenchQueue,
    /// Measure the fine-tuning engine on a model of random weights.
    #[cfg(feature = "embedded")]
    #[command(hide = true)]
    BenchTraining(BenchTraining),
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub settings: Settings,
}

/// The flags that set configuration keys.
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// Configuration file [env: ARRIERO_CONFIG] [default: ~/.config/arriero/arriero.toml if it exists].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on [env: ARRIERO_LISTEN] [default: 127.0.0.1:8000].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Folder for all state [env: ARRIERO_DATA_DIR] [default: the platform's own].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// DANGEROUS: allow --listen with an address that others can reach, although there is no key that could be asked for.
    #[arg(long)]
    pub insecure_public_bind: bool,
    /// Ollama server to use; may be repeated [env: ARRIERO_OLLAMA, comma separated] [default: http://127.0.0.1:11434].
    #[arg(long, value_name = "URL")]
    pub ollama: Vec<String>,
    /// GGUF file to serve with the embedded engine; may be repeated [env: ARRIERO_MODEL, comma separated].
    #[cfg(feature = "embedded")]
    #[arg(long, value_name = "FILE")]
    pub model: Vec<String>,
    /// GGUF file to serve when no Ollama answers and no --model is given.
    #[cfg(feature = "embedded")]
    #[arg(long, value_name = "FILE", hide = true)]
    pub demo_model: Option<String>,
}

impl Settings {
    /// The top layer of the configuration.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        let plain =
            |flag, key, text: &Option<String>| text.clone().map(|text| Override { flag, key, form: Form::Plain, texts: vec![text] });
        let list = |flag, key, form, texts: &Vec<String>| (!texts.is_empty()).then(|| Override { flag, key, form, texts: texts.clone() });
        let mut given = vec![plain("--listen", "server.listen", &self.listen), plain("--data-dir", "data_dir", &self.data_dir)];
        if self.insecure_public_bind {
            given.push(plain("--insecure-public-bind", "server.insecure_public_bind", &Some("true".to_owned())));
        }
        #[cfg(feature = "embedded")]
        given.extend([list("--model", "embedded.models", Form::List, &self.model), plain("--demo-model", "demo_model", &self.demo_model)]);
        given.push(list("--ollama", "ollama", Form::Tables("url"), &self.ollama));
        given.into_iter().flatten().collect()
    }
}

/// Which gateway a client command talks to.
#[derive(Debug, Clone, Default, Args)]
pub struct Target {
    /// Address of the gateway [env: ARRIERO_URL] [default: http://127.0.0.1:8000].
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Which gateway a command talks to, and how it shows what that says.
#[derive(Debug, Clone, Default, Args)]
pub struct Operating {
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Address of the gateway [env: ARRIERO_URL] [default: http://127.0.0.1:8000].
    #[arg(long, value_name = "URL", global = true)]
    pub url: Option<String>,
    /// Key of an operator, or of an admin where keys or the configuration change [env: ARRIERO_KEY, which other users of this machine cannot see].
    #[arg(long, value_name = "KEY", global = true)]
    pub key: Option<String>,
}

/// How an answer is made.
#[derive(Debug, Clone, Default, Args)]
pub struct Asking {
    /// Model to ask; without it the gateway's default.
    #[arg(long, short)]
    pub model: Option<String>,
    /// What the model is to be and do.
    #[arg(long, short, value_name = "TEXT")]
    pub system: Option<String>,
    /// An option of the model, e.g. `temperature=0.2`; may be repeated.
    #[arg(long = "option", short, value_name = "NAME=VALUE", value_parser = super::asking::option)]
    pub options: Vec<(String, serde_json::Value)>,
    /// Whether a thinking model thinks.
    #[arg(long, value_name = "HOW", value_parser = ["true", "false", "low", "medium", "high", "max"])]
    pub think: Option<String>,
    /// Give up after this long, waiting included, e.g. `90s`.
    #[arg(long, value_name = "SPAN", value_parser = crate::domain::span::parse)]
    pub deadline: Option<std::time::Duration>,
    /// How much it matters when others wait too; a key may be held to less.
    #[arg(long, value_name = "CLASS", value_parser = ["batch", "low", "normal", "high", "urgent"])]
    pub priority: Option<String>,
    /// Name of a conversation: its requests go where its beginning was read before.
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,
    /// What kept answers are for: `bypass` them, `refresh` them with a new one, or take `only` them.
    #[arg(long, value_name = "MODE", value_parser = ["default", "bypass", "refresh", "only"])]
    pub cache: Option<String>,
    /// Fail rather than have another model answer.
    #[arg(long)]
    pub no_fallback: bool,
    /// Have the generation go on when this command is stopped, and say by which id it can be read then.
    #[arg(long)]
    pub detach: bool,
    /// Print tokens, times, caches and fallback after each answer.
    #[arg(long, short)]
    pub verbose: bool,
}

#[derive(Debug, Args)]
pub struct Generate {
    /// The prompt; `-` stands for standard input. Without a prompt, standard input is the prompt.
    #[arg(value_name = "PROMPT")]
    pub prompt: Vec<String>,
    #[command(flatten)]
    pub asking: Asking,
    /// Pass the prompt to the model as it is, without a template.
    #[arg(long)]
    pub raw: bool,
    /// `json`, or a file with a JSON Schema that the answer must satisfy.
    #[arg(long, value_name = "json|FILE")]
    pub format: Option<String>,
    /// Print the final object as JSON instead of the text as it comes.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
pub struct Chat {
    #[command(flatten)]
    pub asking: Asking,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
pub struct Models {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
pub struct Limits {
    #[command(flatten)]
    pub operating: Operating,
}

#[derive(Debug, Args)]
pub struct Queue {
    /// Show it anew every second, until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub operating: Operating,
}

#[derive(Debug, Args)]
pub struct Backends {
    #[command(flatten)]
    pub operating: Operating,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Report everything that is wrong with the configuration.
    Check {
        /// File to check instead of the one that `serve` would read.
        file: Option<PathBuf>,
    },
    /// Print the effective configuration and where each value comes from, secrets masked.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the commented defaults, to start a configuration file from.
    Default,
    /// Have a running gateway read its configuration anew; nothing that runs or waits is dropped.
    Reload {
        #[command(flatten)]
        operating: Operating,
    },
}

#[derive(Debug, Args)]
pub struct Health {
    #[command(flatten)]
    pub target: Target,
}
