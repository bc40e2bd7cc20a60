//! What can be typed. No defaults of the configuration are repeated here: a flag that is not given is not set.

mod collection;
mod convert;
mod dataset;
#[cfg(feature = "embedded")]
mod finetune;
mod jobs;
mod versions;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use collection::{Collected, Collection, CollectionCommand, Feedback, Forget};
pub use convert::Convert;
pub use dataset::Dataset;
#[cfg(feature = "embedded")]
pub use finetune::Finetune;
pub use jobs::{Jobs, JobsCommand, SchedulesCommand, SubmitJob, Worker, WorkerCommand, WorkerSettings};
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
    #[arg(long = "allow", value_name = "BOUND=NUMBER", value_parser = super::keys::bound)]
    pub bounds: Vec<(String, u64)>,
    /// A label; may be repeated.
    #[arg(long = "label", value_name = "NAME=TEXT", value_parser = super::keys::label)]
    pub labels: Vec<(String, String)>,
    /// When it ends, e.g. `2030-01-31T00:00:00Z`.
    #[arg(long, value_name = "TIME")]
    pub expires_at: Option<String>,
    /// Its holder agrees that its exchanges are collected, where the gateway does so.
    #[arg(long)]
    pub collect: bool,
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

#[cfg(feature = "embedded")]
#[derive(Debug, Args)]
pub struct BenchEngine {
    /// GGUF file.
    pub file: PathBuf,
    /// Threads to compute with.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
}

#[cfg(feature = "embedded")]
#[derive(Debug, Args)]
pub struct BenchTraining {
    /// llama-8b, qwen2.5-0.5b or tiny.
    #[arg(long, default_value = "tiny")]
    pub shape: String,
    /// What matrices are of: bf16, q8_0, q4_k or another ggml type.
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    pub weights: String,
    /// Rows of each pass.
    #[arg(long, default_value_t = 2)]
    pub rows: usize,
    /// Tokens of each row.
    #[arg(long, default_value_t = 128)]
    pub tokens: usize,
    /// Passes of each step.
    #[arg(long, default_value_t = 1)]
    pub micro_batches: usize,
    #[arg(long, default_value_t = 16)]
    pub rank: usize,
    /// Weight-decomposed adapters.
    #[arg(long)]
    pub dora: bool,
    #[arg(long, default_value_t = 0.0)]
    pub dropout: f32,
    /// cpu, cuda, metal, or auto for the best that is there.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// What is kept for the way back: full (nothing but inputs of layers), attention[:LAYERS], selective:LAYERS, off or auto.
    #[arg(long, default_value = "full")]
    pub checkpointing: String,
    /// Single precision rather than bf16 on an accelerator.
    #[arg(long)]
    pub single: bool,
    /// Memory for logits.
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub logits_mib: usize,
    /// Timed steps; one more comes before them.
    #[arg(long, default_value_t = 5)]
    pub steps: usize,
    /// Tells where the time of a pass goes.
    #[arg(long)]
    pub trace: bool,
    /// Compare the device with the CPU on tiny models instead.
    #[arg(long)]
    pub check: bool,
    /// Where the model is made; it is removed in the end.
    #[arg(long, value_name = "DIR")]
    pub folder: PathBuf,
}
