//! Memory of passes that candle's operations make, on accelerators: what lies there while the dearest of them works.
//!
//! Activations are kept in the engine's own kind of number. Most operations first widen what they are given to single precision, make
//! something in between, and narrow what comes out; all of that is there at once. Figures are counted from the operations of
//! [`linear`](super::super::linear), [`gated`](super::super::gated), [`norm`](super::super::norm),
//! [`attention`](super::super::attention), [`loss`](super::super::loss) and [`distill`](super::super::distill).

use candle_core::DType;

use super::super::base::Base;
use super::super::block::Block;
use super::super::linear::Linear;
use super::super::teacher::Teacher;
use super::super::trainable::is_whole;
use super::super::{Engine, attention};
use super::{Extent, Memory};
use crate::lm::Activation;

/// Bytes of a number in single precision.
const SINGLE: usize = 4;

/// A pass.
pub struct Pass<'a> {
    engine: &'a Engine,
    /// Of what the engine learns from, which only reads.
    teacher: Option<Box<Self>>,
    /// Whether what the settings name is trained.
    trains: bool,
    extent: Extent,
    /// Bytes of a number that is kept.
    kept: usize,
    /// Bytes of its copy in single precision, and of the copy back: none, where they are of single precision anyway.
    wide: usize,
    narrow: usize,
}

impl<'a> Pass<'a> {
    pub fn new(engine: &'a Engine, extent: Extent) -> Self {
        let kept = engine.compute.dtype.size_in_bytes();
        let [wide, narrow] = if engine.compute.dtype == DType::F32 { [0; 2] } else { [SINGLE, kept] };
        let reading = |teacher: &'a Teacher| Box::new(Self { trains: false, ..Self::new(teacher.engine(), extent) });
        Self { teacher: engine.teacher.as_ref().map(reading), trains: true, engine, extent, kept, wide, narrow }
    }

    pub fn memory(&self) -> Memory {
        let parameters_bytes = (SINGLE * self.engine.parameter_count()) as u64;
        Memory {
            weights_bytes: self.weights() as u64,
            parameters_bytes,
            gradients_bytes: parameters_bytes,
            activations_bytes: self.activations() as u64,
        }
    }

    /// Matrices on the device; the table of embeddings is there only as the head.
    fn weights(&self) -> usize {
        let own: usize = self.engine.linears().map(|linear| linear.base.device_bytes()).sum();
        own + self.teacher.as_ref().map_or(0, |teacher| teacher.weights())
    }

    fn activations(&self) -> usize {
        let (mut kept, mut peak) = (0, 0);
        for (layer, block) in self.engine.blocks.iter().enumerate() {
            let (input, tapes) = (self.rows(self.width()), self.attention_tape(block) + self.feed_tape(block));
            let keeps = self.engine.settings.checkpointing.keeps(layer);
            kept += if keeps { input + tapes } else { input };
            // The gradients of the layer's output and of what lies between its halves are there besides.
            let back = (tapes + self.feed_back(block)).max(self.attention_tape(block) + input + self.attention_back(block));
            peak = peak.max(input + back - if keeps { tapes } else { 0 });
        }
        let Some(teacher) = &self.teacher else { return kept + peak.max(self.head()).max(self.embedding()) };
        // It has read, up to its head, before the engine begins.
        let learning = teacher.rows(teacher.width()) + kept + peak.max(self.head()).max(self.embedding());
        learning.max(teacher.reading())
    }

    /// There alone: what a half of a layer makes is there until it ends.
    fn reading(&self) -> usize {
        let halves = |block: &Block| {
            let inner = self.rows(2 * self.engine.config.feed_forward_length);
            let attention = self.widest(block.qkv.linears.iter().chain([&block.output])).max(self.tile(block));
            let feed = self.widest(block.gate_up.linears.iter().chain([&block.down])).max(inner);
            (self.attention_tape(block) + attention).max(self.feed_tape(block) + feed).max(self.norm(self.width()))
        };
        self.rows(2 * self.width()) + self.engine.blocks.iter().map(halves).max().unwrap_or_default()
    }

    /// What the dearest of these matrices takes.
    fn widest<'b>(&self, linears: impl IntoIterator<Item = &'b Linear>) -> usize {
        linears.into_iter().map(|linear| self.linear(linear, self.extent.tokens)).max().unwrap_or_default()
    }

    /// Whether a weight itself is trained.
    fn is_trained(&self, name: &str) -> bool {
        self.trains && is_whole(&self.engine.settings.method, name)
    }

    fn width(&self) -> usize {
        self.engine.config.embedding_length
    }

    /// So many numbers of every token, kept.
    fn rows(&self, numbers: usize) -> usize {
        self.extent.tokens * numbers * self.kept
    }

    fn attention_tape(&self, block: &Block) -> usize {
        let (query, kv) = (self.engine.config.query_length(), self.engine.config.kv_length());
        let raw = counted(block.query_norm.is_some(), query) + counted(block.key_norm.is_some(), kv);
        let out = counted(block.after_attention.is_some(), self.width());
        self.rows(self.width() + 2 * query + 2 * kv + raw + out + self.saved(&block.qkv.linears) + self.saved([&block.output]))
    }

    fn feed_tape(&self, block: &Block) -> usize {
        let (width, inner) = (self.width(), self.engine.config.feed_forward_length);
        let out = counted(block.after_feed.is_some(), width);
        self.rows(2 * width + 2 * inner + out + self.saved(&block.gate_up.linears) + self.saved([&block.down]))
    }

    /// Numbers of a token that adapters keep.
    fn saved<'b>(&self, linears: impl IntoIterator<Item = &'b Linear>) -> usize {
        linears.into_iter().map(|linear| self.engine.of_adapter(linear)).sum()
    }

    /// Back through the feed-forward half, besides the tapes.
    fn feed_back(&self, block: &Block) -> usize {
        let inner = self.engine.config.feed_forward_length;
        let down = self.rows(inner) + self.linear(&block.down, self.extent.tokens);
        // Gate, up and their gradient in single precision, and what the derivative of the activation is made of.
        let between = if block.activation == Activation::Gelu { 5 } else { 4 };
        let gate = self.rows(inner) + self.extent.tokens * inner * (3 * self.wide + between * SINGLE);
        let both = self.group(&block.gate_up.linears, 2 * inner);
        down.max(gate).max(both).max(self.norm(self.width()))
    }

    /// Back through attention, besides its tape.
    fn attention_back(&self, block: &Block) -> usize {
        let (query, kv) = (self.engine.config.query_length(), self.engine.config.kv_length());
        let output = self.linear(&block.output, self.extent.tokens);
        // Gradients of keys and values as they were, with a tile's added and as they become; those of queries in parts and together.
        let sums = self.extent.tokens * (4 * 2 * kv + 2 * query) * SINGLE;
        let of_qkv = self.rows(2 * query + 2 * kv);
        let turned = of_qkv + self.extent.tokens * query * (self.wide + 3 * SINGLE);
        let back = of_qkv + self.group(&block.qkv.linears, query + 2 * kv);
        output.max(self.rows(query) + sums + self.tile(block)).max(turned).max(back).max(of_qkv + self.norm(self.width()))
    }

    /// Some queries of the longest row with what they see: scores four times over, and tanh's derivative.
    fn tile(&self, block: &Block) -> usize {
        let queries = self.extent.longest_row.min(attention::COMPOSED_QUERIES);
        let seen = block.how.window.map_or(self.extent.longest_row, |window| self.extent.longest_row.min(window + queries));
        let scores = block.how.heads * queries * seen * SINGLE;
        let bent = counted(block.how.softcap.is_some(), 1);
        (4 + bent) * scores + block.how.head_length * SINGLE * (2 * block.how.kv_heads * seen + 2 * block.how.heads * queries)
    }

    /// Back through matrices that have their input in common, and that are one in some files.
    fn group(&self, linears: &[Linear], outputs: usize) -> usize {
        let joined = counted(linears.len() == 1, self.rows(outputs));
        joined + self.rows(self.width()) + self.widest(linears)
    }

    /// Back through a matrix: the most there is besides what comes in and what is saved.
    fn linear(&self, linear: &Linear, tokens: usize) -> usize {
        let (inputs, outputs) = (tokens * linear.inputs * self.kept, tokens * linear.outputs * self.kept);
        let (numbers, unpacked) = (linear.inputs * linear.outputs, self.unpacked(linear));
        let trained = counted(self.is_trained(&linear.names.weight), numbers * (self.kept + self.wide + SINGLE));
        let Some(lora) = self.engine.adapts(linear) else { return trained.max(unpacked + 2 * inputs) };
        let weighed = counted(lora.dora, outputs + tokens * linear.outputs * (2 * self.wide + SINGLE));
        // The lengths of rows, on the way there: the matrix in single precision, what the adapter adds, scaled, and their sum.
        let lengths = counted(lora.dora, 3 * numbers * SINGLE + outputs + inputs);
        let scaled = counted(lora.dora, outputs);
        let back = if lora.dropout > 0.0 {
            // Factors are made in single precision.
            (3 * inputs + tokens * linear.inputs * (SINGLE + self.narrow)).max(4 * inputs).max(unpacked + 3 * inputs)
        } else {
            (unpacked + inputs).max(3 * inputs)
        };
        trained.max(weighed).max(lengths).max(scaled + back)
    }

    /// A matrix as a product needs it, where it does not lie so.
    fn unpacked(&self, linear: &Linear) -> usize {
        let numbers = linear.inputs * linear.outputs;
        match linear.base {
            Base::Quantized(_) => numbers * (SINGLE + self.narrow),
            _ => counted(self.is_trained(&linear.names.weight), numbers * self.narrow),
        }
    }

    /// Back through a norm of rows, onto what went past it.
    fn norm(&self, width: usize) -> usize {
        self.rows(width) + self.extent.tokens * width * (2 * self.wide + 4 * SINGLE).max(3 * self.wide + 3 * SINGLE)
    }

    /// The last rows four times (before and behind the norm, all and foretold from, gradients), and what is made of some of them.
    fn head(&self) -> usize {
        let head = &self.engine.head;
        let tokens = head.chunk.min(self.extent.labels);
        let logits = tokens * head.linear.outputs;
        let (mut product, entropy) = (self.unpacked(&head.linear) + logits * self.kept, self.entropy(logits));
        if let Some(teacher) = &self.teacher {
            let theirs = &teacher.engine.head.linear;
            product = product.max(teacher.unpacked(theirs) + (logits + tokens * theirs.outputs) * self.kept);
        }
        let back = logits * self.kept + self.linear(&head.linear, tokens);
        4 * self.rows(self.width()) + entropy.max(product).max(back).max(self.norm(self.width()))
    }

    /// What the loss is made of, from logits on.
    fn entropy(&self, logits: usize) -> usize {
        if self.teacher.is_some() {
            return logits * 5 * SINGLE;
        }
        // Logits, their powers, and their gradient before and after the label's own is in it.
        logits * (self.kept + self.wide.max(counted(self.engine.head.softcap.is_some(), SINGLE)) + 3 * SINGLE)
    }

    /// The gradient of the table, if it is trained.
    fn embedding(&self) -> usize {
        let embedding = &self.engine.embedding.rows;
        counted(
            self.is_trained(super::super::embedding::NAME),
            self.rows(self.width()) + 3 * SINGLE * embedding.count() * embedding.columns(),
        )
    }
}

fn counted(there: bool, numbers: usize) -> usize {
    if there { numbers } else { 0 }
}
