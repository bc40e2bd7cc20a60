//! What `arriero convert` takes.

use std::path::PathBuf;

use clap::Args;

use super::{Operating, WorkerSettings};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  arriero convert ./Qwen2.5-0.5B-Instruct -q Q4_K_M
  arriero convert ./model -q Q4_K_M,Q8_0 --out models --check --max-divergence 0.1
  arriero convert ollama:gemma3:270m-it-bf16 -q Q5_K_M --publish me/gemma3 --preset assistant
  arriero convert ./base -q Q4_K_M --adapter ./my-lora --publish me/tuned")]
pub struct Convert {
    /// A folder as Hugging Face has it, a GGUF file, `ollama:TAG` of an Ollama on this machine, or `hf:OWNER/NAME` on the Hub.
    pub source: String,
    /// Types to make, e.g. `Q4_K_M` or `Q4_K_M,Q8_0`; one file is made of each.
    #[arg(long, short, value_delimiter = ',', required = true, value_name = "TYPE")]
    pub quant: Vec<String>,
    /// Folder of a LoRA adapter in PEFT's format, to be merged into the source.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Of a source that is itself an adapter: folder of its base model; the file is then a GGUF adapter.
    #[arg(long, value_name = "DIR", conflicts_with = "adapter")]
    pub base: Option<PathBuf>,
    /// File to write, or folder for files that are called after the model and their type [default: this folder].
    #[arg(long, short, value_name = "FILE|DIR")]
    pub out: Option<PathBuf>,
    /// Importance matrix, of either format of llama.cpp.
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// What the model is called in its file [default: what the source says].
    #[arg(long)]
    pub name: Option<String>,
    /// llama.cpp's name of the pre-tokenizer, where its rules are not known.
    #[arg(long, value_name = "NAME")]
    pub pre_tokenizer: Option<String>,
    /// Pack again what is packed already, though that loses more than going from the source.
    #[arg(long)]
    pub allow_requantize: bool,
    /// Write over files that are there.
    #[arg(long)]
    pub overwrite: bool,
    /// Threads [default: all].
    #[arg(long, value_name = "NUMBER")]
    pub threads: Option<std::num::NonZeroUsize>,
    /// Only say what would be made, with exact sizes.
    #[arg(long, conflicts_with = "job")]
    pub plan: bool,
    /// Compare each file with its source, and write a report beside it.
    #[arg(long, help_heading = "Check")]
    pub check: bool,
    /// Text to compare on, in UTF-8 [default: a built-in one].
    #[arg(long, value_name = "FILE", help_heading = "Check")]
    pub text: Option<PathBuf>,
    /// Fail beyond this mean KL divergence, in nats.
    #[arg(long, value_name = "NATS", help_heading = "Check")]
    pub max_divergence: Option<f64>,
    /// Fail beyond this multiple of the source's perplexity, e.g. 1.05.
    #[arg(long, value_name = "RATIO", help_heading = "Check")]
    pub max_perplexity_ratio: Option<f64>,
    /// Fail when a smaller share of tokens is expected by both above all, e.g. 0.9.
    #[arg(long, value_name = "SHARE", help_heading = "Check")]
    pub min_top_agreement: Option<f64>,
    /// Publish under this name; of several types each gets its type as the tag.
    #[arg(long, value_name = "NAME", help_heading = "Publish")]
    pub publish: Option<String>,
    /// Name of a configured Ollama server, or `*` for all; repeatable [default: all, or none with --library].
    #[arg(long, value_name = "SERVER", requires = "publish", help_heading = "Publish")]
    pub to: Vec<String>,
    /// Put it into the library of the embedded engine.
    #[arg(long, requires = "publish", help_heading = "Publish")]
    pub library: bool,
    /// Parameters and a system text to begin with.
    #[arg(long, value_parser = ["assistant", "coder", "extractor", "raw"], requires = "publish", help_heading = "Publish")]
    pub preset: Option<String>,
    /// A parameter, e.g. `temperature=0.2`; repeatable.
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = super::super::asking::option, requires = "publish", help_heading = "Publish")]
    pub parameters: Vec<(String, serde_json::Value)>,
    /// System text.
    #[arg(long, value_name = "TEXT", requires = "publish", help_heading = "Publish")]
    pub system: Option<String>,
    /// File with a Go template [default: the model's own].
    #[arg(long, value_name = "FILE", requires = "publish", help_heading = "Publish")]
    pub template: Option<PathBuf>,
    /// File with the licence.
    #[arg(long, value_name = "FILE", requires = "publish", help_heading = "Publish")]
    pub license: Option<PathBuf>,
    /// Have a running gateway do it in the background; paths are then those that its jobs may read. Prints the id of the job.
    #[arg(long, conflicts_with_all = ["out", "threads", "overwrite"])]
    pub job: bool,
    #[command(flatten)]
    pub settings: WorkerSettings,
    #[command(flatten)]
    pub operating: Operating,
}
