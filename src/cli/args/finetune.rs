//! What `arriero finetune` takes.

use std::path::PathBuf;

use clap::Args;

use super::{Operating, WorkerSettings};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  arriero finetune --base ollama:gemma3:270m --data tickets.jsonl --out support
  arriero finetune --base ./Qwen2.5-0.5B-Instruct --data a.jsonl --data b.csv --out mine --epochs 2 --rank 32
  arriero finetune --base hf:Qwen/Qwen2.5-0.5B-Instruct --data chats.jsonl --out mine --test-share 0.1 --patience 3
  arriero finetune --base model-Q4_K_M.gguf --data prefer.jsonl --out better --dpo 0.1
  arriero finetune --base model.gguf --data chats.jsonl --out mine --plan")]
pub struct Finetune {
    /// A GGUF file, a folder as Hugging Face has it, `ollama:TAG` of an Ollama on this machine, or `hf:OWNER/NAME` on the Hub.
    #[arg(long, value_name = "MODEL")]
    pub base: String,
    /// File with what is to be learnt (JSONL, JSON, CSV, text), or `collected[:MODEL]`: what the gateway of the data folder collected;
    /// repeatable.
    #[arg(long, required = true, value_name = "FILE")]
    pub data: Vec<String>,
    /// Name of the model that is made.
    #[arg(long, short, value_name = "NAME")]
    pub out: String,
    /// Folder for what is made, and for what an interrupted run goes on from [default: `finetune/NAME` in the data folder].
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// JSON file with everything that a job's input can say; what flags say goes before it.
    #[arg(long, value_name = "FILE")]
    pub options: Option<PathBuf>,

    /// Share of the rows that is only looked at while training [default: 0.1].
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    pub validation_share: Option<f64>,
    /// Share of the rows that is kept for a test before and after [default: 0.1].
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    pub test_share: Option<f64>,
    /// Field of the rows whose values tell which belong together, so that they are not parted.
    #[arg(long, value_name = "FIELD", help_heading = "Data")]
    pub group: Option<String>,
    /// What is learnt of a conversation [default: assistant].
    #[arg(long, value_parser = ["assistant", "last", "completion", "all"], help_heading = "Data")]
    pub learn: Option<String>,

    /// What is trained [default: lora].
    #[arg(long, value_parser = ["lora", "dora", "full"], help_heading = "Adapter")]
    pub method: Option<String>,
    /// Rank of the adapters [default: 16].
    #[arg(long, value_name = "NUMBER", help_heading = "Adapter")]
    pub rank: Option<usize>,
    /// LoRA's alpha [default: twice the rank].
    #[arg(long, value_name = "NUMBER", help_heading = "Adapter")]
    pub alpha: Option<f64>,
    /// Share of the inputs that adapters do not see [default: 0].
    #[arg(long, value_name = "SHARE", help_heading = "Adapter")]
    pub dropout: Option<f64>,
    /// Matrices that are adapted, by name or pattern, e.g. `attn_q,attn_v` or `ffn_*` [default: all of the blocks].
    #[arg(long, value_delimiter = ',', value_name = "NAME", help_heading = "Adapter")]
    pub targets: Vec<String>,
    /// rsLoRA: divide alpha by the root of the rank.
    #[arg(long, help_heading = "Adapter")]
    pub rank_stabilized: bool,

    /// How often every row is read [default: 3].
    #[arg(long, value_name = "NUMBER", help_heading = "Training")]
    pub epochs: Option<u32>,
    /// Steps of the optimiser, in the place of epochs.
    #[arg(long, value_name = "NUMBER", help_heading = "Training")]
    pub max_steps: Option<u64>,
    /// Learning rate [default: 0.0002].
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    pub learning_rate: Option<f64>,
    /// How the learning rate goes [default: cosine].
    #[arg(long, value_parser = ["constant", "constant_with_warmup", "linear", "cosine"], help_heading = "Training")]
    pub schedule: Option<String>,
    /// Most tokens of a row [default: 2048].
    #[arg(long, value_name = "TOKENS", help_heading = "Training")]
    pub sequence_tokens: Option<usize>,
    /// Most tokens of a pass [default: 2048].
    #[arg(long, value_name = "TOKENS", help_heading = "Training")]
    pub batch_tokens: Option<usize>,
    /// Passes before a step of the optimiser [default: 4].
    #[arg(long, value_name = "NUMBER", help_heading = "Training")]
    pub accumulation: Option<usize>,
    /// Steps between two looks at the validation rows [default: an epoch].
    #[arg(long, value_name = "STEPS", help_heading = "Training")]
    pub evaluate_every: Option<u64>,
    /// Looks in a row that found nothing better, after which training ends.
    #[arg(long, value_name = "NUMBER", help_heading = "Training")]
    pub patience: Option<u32>,
    /// Of everything that is random [default: 42].
    #[arg(long, value_name = "NUMBER", help_heading = "Training")]
    pub seed: Option<u64>,
    /// Learn preferences by DPO with this beta, e.g. 0.1.
    #[arg(long, value_name = "BETA", conflicts_with = "orpo", help_heading = "Training")]
    pub dpo: Option<f64>,
    /// Learn preferences by ORPO with this lambda, e.g. 0.1.
    #[arg(long, value_name = "LAMBDA", help_heading = "Training")]
    pub orpo: Option<f64>,

    /// Model that answers what rows only ask, as a gateway calls it, or a GGUF file or `ollama:TAG`; with --distill-alpha or
    /// --distill-temperature, a GGUF file, a folder or `ollama:TAG` whose logits are learnt from.
    #[arg(long, value_name = "MODEL", help_heading = "Teacher")]
    pub teacher: Option<String>,
    /// Address of the gateway that serves it, with /v1 at its end where it speaks OpenAI's API [default: that of --url].
    #[arg(long, value_name = "URL", requires = "teacher", conflicts_with = "job", help_heading = "Teacher")]
    pub teacher_url: Option<String>,
    /// Which answers it writes: those that are missing, or the last of every conversation [default: missing].
    #[arg(long, value_parser = ["missing", "all"], requires = "teacher", help_heading = "Teacher")]
    pub teacher_answers: Option<String>,
    /// Most tokens of an answer; longer ones are left out [default: 512].
    #[arg(long, value_name = "TOKENS", requires = "teacher", help_heading = "Teacher")]
    pub teacher_max_tokens: Option<u32>,
    /// 0 for the likeliest answer [default: 0].
    #[arg(long, value_name = "NUMBER", requires = "teacher", help_heading = "Teacher")]
    pub teacher_temperature: Option<f64>,
    /// How much the teacher's logits count against the rows, from above 0 to 1 [default: 0.5].
    #[arg(long, value_name = "ALPHA", conflicts_with_all = ["dpo", "orpo"], help_heading = "Teacher")]
    pub distill_alpha: Option<f64>,
    /// What logits are divided by before they are compared [default: 2].
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["dpo", "orpo"], help_heading = "Teacher")]
    pub distill_temperature: Option<f64>,

    /// A prompt whose answer is shown at each look; repeatable.
    #[arg(long, value_name = "TEXT", help_heading = "Training")]
    pub sample: Vec<String>,
    /// What to train on [default: auto].
    #[arg(long, value_parser = ["auto", "cpu", "cuda", "metal"], help_heading = "Training")]
    pub device: Option<String>,
    /// Threads [default: all].
    #[arg(long, value_name = "NUMBER", help_heading = "Training")]
    pub threads: Option<std::num::NonZeroUsize>,

    /// What is kept of a pass for its way back, memory against time: `full` (least memory), `auto` (as much as there is memory for, on a GPU),
    /// `off`, `attention`, `attention:LAYERS`, `selective:LAYERS` [default: auto].
    #[arg(long, value_name = "HOW", help_heading = "Training")]
    pub checkpointing: Option<String>,

    /// Also write the merged weights as safetensors.
    #[arg(long, help_heading = "Outcome")]
    pub safetensors: bool,
    /// Also write the adapter as a GGUF file, for llama-server and older Ollama servers.
    #[arg(long, help_heading = "Outcome")]
    pub adapter_gguf: bool,
    /// Name of a configured Ollama server to publish to, or `*` for all; repeatable [default: none].
    #[arg(long, value_name = "SERVER", help_heading = "Outcome")]
    pub to: Vec<String>,
    /// Do not put the model into the library of the embedded engine.
    #[arg(long, help_heading = "Outcome")]
    pub no_library: bool,
    /// Parameters and a system text to begin with.
    #[arg(long, value_parser = ["assistant", "coder", "extractor", "raw"], help_heading = "Outcome")]
    pub preset: Option<String>,
    /// System text that the model is published with.
    #[arg(long, value_name = "TEXT", help_heading = "Outcome")]
    pub system: Option<String>,

    /// Only say what would be trained, and the memory it takes.
    #[arg(long, conflicts_with = "job")]
    pub plan: bool,
    /// Have a running gateway do it in the background; paths are then those that its jobs may read. Prints the id of the job.
    #[arg(long, conflicts_with_all = ["folder", "threads"])]
    pub job: bool,
    /// With `--job`: the rows are files of this machine, which are sent to the gateway first.
    #[arg(long, requires = "job")]
    pub upload: bool,
    #[command(flatten)]
    pub settings: WorkerSettings,
    #[command(flatten)]
    pub operating: Operating,
}
