//! What the measurements of the engine take.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct BenchEngine {
    /// GGUF file.
    pub file: PathBuf,
    /// Threads to compute with.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
}

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
    /// Memory for logits [default: 64 on the CPU, 512 on a GPU, as in trainings].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u16).range(1..))]
    pub logits_mib: Option<u16>,
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
