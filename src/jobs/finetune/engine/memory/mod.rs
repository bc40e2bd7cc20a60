//! How much memory a pass takes, known before it is made.

mod composed;

use super::attention::QUERIES;
use super::base::BLOCK;
use super::block::Block;
use super::linear::Linear;
use super::products::PIECE;
use super::{Engine, Result};

/// What is taken on an NVIDIA GPU besides weights, activations and what is trained: the driver's, cuBLAS's and the kernels' own memory.
const RUNTIME_BYTES: u64 = 640 << 20;
/// What candle's kernels take, all together.
const CANDLE_BYTES: u64 = 48 << 20;
/// What the driver's pool holds besides what candle's operations have in use at their peak, in pieces that nothing fits into: measured on one
/// H200, 0.36 GB (Qwen2.5-0.5B, 1,024 tokens) to 2.9 GB (8 billion weights, DoRA). With this and a 32nd of all, what is foretold is within
/// 10 % of what was taken there.
const POOL_BYTES: u64 = 384 << 20;

/// How large a pass is, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub tokens: usize,
    pub longest_row: usize,
    /// Tokens that are foretold.
    pub labels: usize,
}

impl Extent {
    /// All of whose tokens may be foretold.
    #[must_use]
    pub fn whole(tokens: usize, longest_row: usize) -> Self {
        Self { tokens, longest_row, labels: tokens }
    }
}

/// Peak memory of a pass, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The model's own.
    pub weights_bytes: u64,
    pub parameters_bytes: u64,
    /// As large as the parameters.
    pub gradients_bytes: u64,
    pub activations_bytes: u64,
}

impl Memory {
    /// All together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes + self.parameters_bytes + self.gradients_bytes + self.activations_bytes
    }
}

/// Numbers for each token.
#[derive(Debug, Clone, Copy)]
struct PerToken {
    attention_tape: usize,
    feed_tape: usize,
    /// What there is besides the tapes on the way back through the feed-forward half, and through attention.
    feed_back: usize,
    attention_back: usize,
}

/// What a teacher adds, in numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Taught {
    weights_bytes: u64,
    /// Before the learner reads.
    reading: usize,
    /// While it does.
    kept: usize,
    /// Beside the learner's own logits.
    head: usize,
}

impl Engine {
    /// What a pass takes at its peak. The optimiser's state is not in it.
    ///
    /// # Errors
    /// When a device does not say how much room it has.
    pub fn predicted(&self, extent: Extent) -> Result<Memory> {
        let Extent { tokens, longest_row, labels } = extent;
        let bytes = |count: usize| 4 * count as u64;
        #[cfg(feature = "cuda")]
        if let Some(offload) = &self.offload {
            let (weights_bytes, pass_bytes) = offload.memory_bytes(tokens, labels)?;
            let activations_bytes = pass_bytes + RUNTIME_BYTES;
            let parameters_bytes = bytes(self.parameter_count());
            return Ok(Memory { weights_bytes, parameters_bytes, gradients_bytes: parameters_bytes, activations_bytes });
        }
        if !self.compute.fused {
            let memory = composed::Pass::new(self, extent).memory();
            // On other accelerators than NVIDIA's nobody has looked.
            if !self.compute.device.is_cuda() {
                return Ok(memory);
            }
            let besides = RUNTIME_BYTES + CANDLE_BYTES + POOL_BYTES + memory.total_bytes() / 32;
            return Ok(Memory { activations_bytes: memory.activations_bytes + besides, ..memory });
        }
        let parameters = self.parameter_count();
        let (kept, layer) = self.layers();
        let width = self.config.embedding_length;
        // The last layer's output, its gradient, and rows of the head: before and behind the norm, and their gradients.
        let head = self.head.chunk.min(labels) * self.config.vocab_size + tokens * 5 * width;
        let taught = self.taught(extent);
        let activations = tokens * kept + (head + taught.head).max(tokens * layer) + taught.kept + self.scratch(longest_row);
        let activations = activations.max(taught.reading);
        Ok(Memory {
            weights_bytes: self.weights_bytes + taught.weights_bytes,
            parameters_bytes: bytes(parameters),
            gradients_bytes: bytes(parameters),
            activations_bytes: bytes(activations),
        })
    }

    fn taught(&self, Extent { tokens, longest_row, labels }: Extent) -> Taught {
        let Some(teacher) = &self.teacher else { return Taught::default() };
        let [reading, kept] = teacher.numbers(tokens, longest_row);
        // Softened logits of both, and those within their caps, of the label that a thread is at.
        let threads = rayon::current_num_threads() * 3 * self.config.vocab_size;
        let head = self.head.chunk.min(labels) * teacher.vocabulary() + threads;
        Taught { weights_bytes: teacher.weights_bytes(), reading, kept, head }
    }

    /// Numbers that are there at most while a batch is only read.
    pub(super) fn reading(&self, tokens: usize, longest_row: usize) -> usize {
        let layer = self.blocks.iter().map(|block| self.per_token(block)).map(|per| per.attention_tape.max(per.feed_tape)).max();
        tokens * (2 * self.config.embedding_length + layer.unwrap_or_default()) + self.scratch(longest_row)
    }

    fn parameter_count(&self) -> usize {
        self.trainable.iter().map(|trainable| trainable.shape.iter().product::<usize>()).sum()
    }

    /// Numbers for each token: what is kept of all layers, and what there is besides while one is gone back through.
    fn layers(&self) -> (usize, usize) {
        let width = self.config.embedding_length;
        let (mut kept, mut peak) = (0, 0);
        for (layer, block) in self.blocks.iter().enumerate() {
            let per = self.per_token(block);
            let tapes = per.attention_tape + per.feed_tape;
            let keeps = self.settings.checkpointing.keeps(layer);
            kept += if keeps { tapes } else { width };
            let back = (per.attention_tape + per.feed_tape + per.feed_back).max(per.attention_tape + per.attention_back);
            peak = peak.max(if keeps { back - tapes } else { back });
        }
        (kept, peak)
    }

    fn per_token(&self, block: &Block) -> PerToken {
        let (width, inner) = (self.config.embedding_length, self.config.feed_forward_length);
        let (query, kv) = (self.config.query_length(), self.config.kv_length());
        let counted = |norm: bool, numbers: usize| if norm { numbers } else { 0 };
        let adapters = |linears: &[Linear]| linears.iter().map(|linear| self.of_adapter(linear)).sum::<usize>();
        let raw = counted(block.query_norm.is_some(), query) + counted(block.key_norm.is_some(), kv);
        let outputs = [counted(block.after_attention.is_some(), width), counted(block.after_feed.is_some(), width)];
        let attention_tape = 2 * width + 2 * query + 2 * kv + raw + outputs[0];
        let feed_tape = 2 * width + 2 * inner + outputs[1];
        PerToken {
            attention_tape: attention_tape + adapters(&block.qkv.linears) + self.of_adapter(&block.output),
            feed_tape: feed_tape + adapters(&block.gate_up.linears) + self.of_adapter(&block.down),
            feed_back: 2 * inner + 2 * width,
            attention_back: 4 * query + 2 * width,
        }
    }

    /// Numbers that an adapter keeps of a token.
    fn of_adapter(&self, linear: &Linear) -> usize {
        self.adapts(linear).map_or(0, |lora| lora.rank_of(&linear.name) + if lora.dora { linear.outputs } else { 0 })
    }

    /// Numbers that threads work in.
    fn scratch(&self, longest_row: usize) -> usize {
        let threads = rayon::current_num_threads();
        let widest = self.linears().map(|linear| linear.inputs).max().unwrap_or_default();
        let packed = self.compute.fused && self.embedding.rows.is_packed();
        let unpacked = if packed { threads * PIECE * widest + BLOCK } else { 0 };
        threads * 3 * QUERIES * longest_row + unpacked
    }
}
