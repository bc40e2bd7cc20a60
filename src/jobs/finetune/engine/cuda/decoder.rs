//! A decoder with frozen bf16 weights and LoRA on a GPU: log-probabilities of labels, and the gradients of its adapters.
//!
//! Residual stream, activations and their gradients are bf16; adapters, their gradients, norms' statistics, softmax, logits and loss are
//! of single precision. A pass is one sequence of launches: nothing is allocated after the first batch of a size, and the only wait is for
//! the log-probabilities at the end.

use super::activations::{Keep, Kept, Workspace};
use super::block::{Block, Grads, Layer};
use super::error::Result;
use super::gpu::{Buffer, Gpu, Rows};
use super::head::{Head, Logits};
use super::kernels::{Angles, Ids, Norm, take_rows};
use super::linear::Pair;
use super::shape::Shape;
use super::table::{Input, Table};

/// Weights, and memory for the largest batch so far.
pub struct Decoder {
    pub gpu: Gpu,
    pub shape: Shape,
    /// vocabulary × hidden
    pub embedding: Buffer<u16>,
    pub blocks: Vec<Block>,
    pub norm: Buffer<f32>,
    /// vocabulary × hidden; the embedding, if there is none.
    pub head: Option<Buffer<u16>>,
    pub angles: Vec<Angles>,
    /// Of each layer.
    pub keep: Vec<Keep>,
    /// For logits.
    pub logits_bytes: usize,
    memory: Option<Memory>,
}

struct Memory {
    kept: Vec<Kept>,
    /// The residual stream behind the last layer, and the gradient of that, normalised.
    last: Buffer<u16>,
    d_normed: Buffer<u16>,
    workspace: Workspace,
    logits: Logits,
    labels: usize,
}

/// All that a decoder is made of.
pub struct Weights {
    pub embedding: Buffer<u16>,
    pub blocks: Vec<Block>,
    pub norm: Buffer<f32>,
    pub head: Option<Buffer<u16>>,
    pub angles: Vec<Angles>,
}

impl Decoder {
    /// # Errors
    /// When the kernels do not know such a decoder.
    pub fn new(gpu: Gpu, shape: Shape, weights: Weights, keep: Vec<Keep>, logits_bytes: usize) -> Result<Self> {
        shape.check()?;
        let Weights { embedding, blocks, norm, head, angles } = weights;
        Ok(Self { gpu, shape, embedding, blocks, norm, head, angles, keep, logits_bytes, memory: None })
    }

    /// Takes over adapters; those that are not given are none.
    pub fn set_adapters(&self, adapters: &[Grads]) -> Result<()> {
        for (block, of_block) in self.blocks.iter().zip(adapters) {
            for (linear, of_linear) in block.linears().into_iter().zip(of_block) {
                for (part, pair) in linear.parts.iter().zip(of_linear) {
                    if let Some(pair) = pair {
                        linear.set(&self.gpu, part, *pair)?;
                    }
                }
            }
        }
        self.gpu.mark("adapters")
    }

    /// ln p of every label.
    ///
    /// # Errors
    /// What the device says.
    pub fn log_probs(&mut self, input: &Input<'_>) -> Result<Vec<f32>> {
        self.pass(input, None)
    }

    /// Adds the gradient of Σ weight · −ln p to `grads`, one entry for each layer; gives ln p of every label.
    ///
    /// # Errors
    /// What the device says.
    pub fn accumulate(&mut self, input: &Input<'_>, grads: &[Grads]) -> Result<Vec<f32>> {
        self.pass(input, Some(grads))
    }

    fn pass(&mut self, input: &Input<'_>, grads: Option<&[Grads]>) -> Result<Vec<f32>> {
        if input.tokens.is_empty() || input.labels.is_empty() {
            return Ok(Vec::new());
        }
        let mut memory = self.memory(input)?;
        let table = Table::new(&self.gpu, input, self.shape.head_size)?;
        let out = self.gpu.uninitialised::<f32>(table.labels_count)?;
        let done = self.run(&mut memory, &table, &out, grads);
        self.memory = Some(memory);
        done?;
        self.gpu.download(&out)
    }

    /// Makes room for a batch, giving back first what is too small.
    fn memory(&mut self, input: &Input<'_>) -> Result<Memory> {
        let (tokens, labels) = (input.tokens.len(), input.labels.len());
        if let Some(memory) = self.memory.take()
            && memory.workspace.tokens >= tokens
            && memory.labels >= labels
        {
            return Ok(memory);
        }
        let (gpu, shape) = (&self.gpu, &self.shape);
        let kept = self.blocks.iter().zip(&self.keep).map(|(block, keep)| Kept::new(gpu, shape, block, *keep, tokens));
        Ok(Memory {
            kept: kept.collect::<Result<_>>()?,
            last: gpu.uninitialised(tokens * shape.hidden)?,
            d_normed: gpu.uninitialised(tokens * shape.hidden)?,
            workspace: Workspace::new(gpu, shape, &self.blocks, tokens)?,
            logits: Logits::new(gpu, shape, self.logits_bytes, labels)?,
            labels,
        })
    }

    fn run(&self, memory: &mut Memory, table: &Table, out: &Buffer<f32>, grads: Option<&[Grads]>) -> Result<()> {
        let Memory { kept, last, d_normed, workspace, logits, .. } = memory;
        let (gpu, shape, hidden) = (&self.gpu, &self.shape, self.shape.hidden);
        let layers: Vec<Layer<'_>> =
            self.blocks.iter().zip(kept.iter()).map(|(block, kept)| self.layer(block, kept, workspace, table)).collect();
        self.embed(table, kept)?;
        let mut before = None;
        for (layer, kept) in layers.iter().zip(kept.iter()) {
            let added = layer.forward(before)?;
            before = Some((&kept.attention.as_ref().unwrap_or(&workspace.attended).middle, added));
        }
        let norm = Norm { weight: &self.norm, rows: table.tokens_count, columns: hidden, epsilon: shape.epsilon };
        let normed = Rows::new(&workspace.x1, hidden);
        if let Some((stream, added)) = before {
            norm.forward_sum(gpu, stream, added, last, normed)?;
        }
        gpu.mark("norm")?;
        let head = Head { gpu, shape, weight: self.head.as_ref().unwrap_or(&self.embedding), memory: logits };
        let Some(grads) = grads else { return head.run(normed, table, out, None) };
        head.run(normed, table, out, Some(d_normed))?;
        let grad = Rows::new(&workspace.grad, workspace.grad_stride);
        norm.backward(gpu, last, Rows::new(d_normed, hidden), grad)?;
        gpu.mark("norm back")?;
        for (index, (layer, grads)) in layers.iter().zip(grads).enumerate().rev() {
            layer.backward(grads, index > 0)?;
        }
        Ok(())
    }

    fn layer<'a>(&'a self, block: &'a Block, kept: &'a Kept, workspace: &'a Workspace, table: &'a Table) -> Layer<'a> {
        Layer { gpu: &self.gpu, shape: &self.shape, block, kept, workspace, angles: &self.angles[block.angles], table }
    }

    fn embed(&self, table: &Table, kept: &[Kept]) -> Result<()> {
        let Some(first) = kept.first() else { return Ok(()) };
        let (hidden, scale) = (self.shape.hidden, self.shape.embedding_scale);
        let ids = Ids { all: &table.tokens, first: 0, count: table.tokens_count };
        take_rows(&self.gpu, Rows::new(&self.embedding, hidden), self.shape.vocabulary, ids, &first.input, hidden, scale)?;
        self.gpu.mark("embedding")
    }

    /// Milliseconds of each kind of work in one pass, by the GPU's own clock.
    ///
    /// # Errors
    /// What the device says.
    pub fn traced<T>(&mut self, pass: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, std::collections::BTreeMap<&'static str, f32>)> {
        self.gpu.trace().start(self.gpu.stream())?;
        let given = pass(self);
        let spent = self.gpu.trace().finish()?;
        Ok((given?, spent))
    }

    /// Adapters of no address, as many as the decoder has: where somebody fills in some.
    #[must_use]
    pub fn no_adapters(&self) -> Vec<Grads> {
        let none = |block: &Block| block.linears().map(|linear| vec![None::<Pair>; linear.parts.len()]);
        self.blocks.iter().map(none).collect()
    }
}
