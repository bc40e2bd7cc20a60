//! A decoder with frozen weights and LoRA on a GPU: log-probabilities of labels, and the gradients of its adapters.
//!
//! Residual stream, activations and their gradients are bf16; adapters, their gradients, norms' statistics, softmax, logits and loss are
//! of single precision. A pass is one sequence of launches: nothing is allocated after the first batch of a size, and the only wait is for
//! the log-probabilities at the end.

use super::activations::{Keep, Kept, Plan, Workspace};
use super::block::{Block, Grads, Layer};
use super::error::Result;
use super::gpu::{Buffer, Gpu, Rows};
use super::head::{Head, Logits};
use super::kernels::{Angles, Ids, Norm};
use super::linear::{Linear, Pair};
use super::packed::Vocabulary;
use super::shape::Shape;
use super::table::{Input, Table};
use crate::jobs::finetune::learner::Pass;

/// Weights, and memory for the largest batch so far.
pub struct Decoder {
    pub gpu: Gpu,
    shape: Shape,
    /// vocabulary × hidden
    embedding: Vocabulary,
    blocks: Vec<Block>,
    norm: Buffer<f32>,
    /// vocabulary × hidden; the embedding, if there is none.
    head: Option<Vocabulary>,
    pub angles: Vec<Angles>,
    plan: Plan,
    /// For logits.
    logits_bytes: usize,
    /// Where packed weights are unpacked: of one layer at a time, or of the head.
    shared: Buffer<u16>,
    adapters: Vec<Grads>,
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
    pub embedding: Vocabulary,
    pub blocks: Vec<Block>,
    pub norm: Buffer<f32>,
    pub head: Option<Vocabulary>,
    /// May be filled in later.
    pub angles: Vec<Angles>,
}

impl Decoder {
    /// # Errors
    /// When the kernels do not know such a decoder, or there is no memory.
    pub fn new(gpu: Gpu, shape: Shape, weights: Weights, plan: Plan, logits_bytes: usize) -> Result<Self> {
        shape.check()?;
        let Weights { embedding, mut blocks, norm, head, angles } = weights;
        let shared = share(&gpu, &mut blocks, head.as_ref().unwrap_or(&embedding))?;
        let mut all =
            Self { gpu, shape, embedding, blocks, norm, head, angles, plan, logits_bytes, shared, adapters: Vec::new(), memory: None };
        all.adapters = all.no_adapters();
        Ok(all)
    }

    /// Takes over adapters; those that are not given are none. Their memory has to be there until the next pass is over.
    ///
    /// # Errors
    /// What the device says.
    pub fn set_adapters(&mut self, adapters: Vec<Grads>) -> Result<()> {
        for (block, of_block) in self.blocks.iter().zip(&adapters) {
            for (linear, of_linear) in block.linears().into_iter().zip(of_block) {
                linear.set(&self.gpu, of_linear)?;
            }
        }
        self.adapters = adapters;
        self.gpu.mark("adapters")
    }

    /// ln p of every label.
    ///
    /// # Errors
    /// What the device says.
    pub fn log_probs(&mut self, input: &Input<'_>) -> Result<Vec<f32>> {
        self.pass(input, None, None)
    }

    /// Adds the gradient of Σ weight · −ln p to `grads`, one entry for each layer; gives ln p of every label. `pass`: where something is to
    /// be dropped.
    ///
    /// # Errors
    /// What the device says.
    pub fn accumulate(&mut self, input: &Input<'_>, pass: Option<Pass>, grads: &[Grads]) -> Result<Vec<f32>> {
        self.pass(input, pass, Some(grads))
    }

    fn pass(&mut self, input: &Input<'_>, pass: Option<Pass>, grads: Option<&[Grads]>) -> Result<Vec<f32>> {
        if input.tokens.is_empty() || input.labels.is_empty() {
            return Ok(Vec::new());
        }
        let mut memory = self.memory(input)?;
        let table = Table::new(&self.gpu, input, self.shape.head_size)?;
        let out = self.gpu.uninitialised::<f32>(table.labels_count)?;
        let done = self.run(&mut memory, &table, &out, (pass, grads));
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
        let keep = self.keep(tokens, labels)?;
        let kept = self.blocks.iter().zip(&keep).map(|(block, keep)| Kept::new(gpu, shape, block, *keep, tokens));
        Ok(Memory {
            kept: kept.collect::<Result<_>>()?,
            last: gpu.uninitialised(tokens * shape.hidden)?,
            d_normed: gpu.uninitialised(tokens * shape.hidden)?,
            workspace: Workspace::new(gpu, shape, &self.blocks, tokens)?,
            logits: Logits::new(gpu, shape, self.logits_bytes, labels)?,
            labels,
        })
    }

    /// What is kept of each layer.
    fn keep(&self, tokens: usize, labels: usize) -> Result<Vec<Keep>> {
        let least = self.least_bytes(tokens, labels);
        let room = if matches!(self.plan, Plan::Auto) { self.gpu.available()? } else { 0 };
        // A tenth is left to what others need on the way: products' own memory, gradients, the optimiser.
        Ok(self.plan.keep(&self.shape, &self.blocks, tokens, (room / 10 * 9).saturating_sub(least)))
    }

    /// Memory for a pass of which only layers' inputs are kept.
    fn least_bytes(&self, tokens: usize, labels: usize) -> usize {
        let per_token = 2 * self.shape.hidden * (self.blocks.len() + 2);
        tokens * per_token + Workspace::bytes(&self.shape, &self.blocks, tokens) + Logits::bytes(&self.shape, self.logits_bytes, labels)
    }

    /// Memory for a pass: with what is kept of layers, and where that goes by the room there is, by the room there is now.
    ///
    /// # Errors
    /// What the device says.
    pub fn pass_bytes(&self, tokens: usize, labels: usize) -> Result<usize> {
        let keep = match &self.memory {
            // Of the room of then.
            Some(memory) => memory.kept.iter().map(Kept::keep).collect(),
            None => self.keep(tokens, labels)?,
        };
        let more = |(block, keep): (&Block, Keep)| keep.more_per_token(&self.shape, block) * tokens;
        Ok(self.least_bytes(tokens, labels) + self.blocks.iter().zip(keep).map(more).sum::<usize>())
    }

    /// Memory for the weights.
    #[must_use]
    pub fn weights_bytes(&self) -> usize {
        let linears = self.blocks.iter().flat_map(Block::linears).map(Linear::size_bytes).sum::<usize>();
        let head = self.head.as_ref().map_or(0, Vocabulary::size_bytes);
        linears + self.embedding.size_bytes() + head + 2 * self.shared.len()
    }

    fn run(&self, memory: &mut Memory, table: &Table, out: &Buffer<f32>, (pass, grads): (Option<Pass>, Option<&[Grads]>)) -> Result<()> {
        let Memory { kept, last, d_normed, workspace, logits, .. } = memory;
        let (gpu, shape, hidden) = (&self.gpu, &self.shape, self.shape.hidden);
        let of_layer = self.blocks.iter().zip(&self.adapters).zip(kept.iter());
        let layers: Vec<Layer<'_>> = of_layer.map(|(block, kept)| Layer { pass, ..self.layer(block, kept, workspace, table) }).collect();
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
        let weight = self.head.as_ref().unwrap_or(&self.embedding).whole(gpu, hidden, &self.shared)?;
        let head = Head { gpu, shape, weight, memory: logits };
        let Some(grads) = grads else { return head.run(normed, table, out, None) };
        head.run(normed, table, out, Some(d_normed))?;
        let is_adapted = |grads: &Grads| grads.iter().flatten().any(Option::is_some);
        let Some(lowest) = grads.iter().position(is_adapted) else { return Ok(()) };
        let grad = Rows::new(&workspace.grad, workspace.grad_stride);
        norm.backward(gpu, last, Rows::new(d_normed, hidden), grad)?;
        gpu.mark("norm back")?;
        for (index, (layer, grads)) in layers.iter().zip(grads).enumerate().skip(lowest).rev() {
            layer.backward(grads, index > lowest)?;
        }
        Ok(())
    }

    fn layer<'a>(
        &'a self,
        (block, adapters): (&'a Block, &'a Grads),
        kept: &'a Kept,
        workspace: &'a Workspace,
        table: &'a Table,
    ) -> Layer<'a> {
        Layer {
            gpu: &self.gpu,
            shape: &self.shape,
            block,
            kept,
            workspace,
            angles: &self.angles[block.angles],
            table,
            adapters,
            pass: None,
        }
    }

    fn embed(&self, table: &Table, kept: &[Kept]) -> Result<()> {
        let Some(first) = kept.first() else { return Ok(()) };
        let (hidden, scale) = (self.shape.hidden, self.shape.embedding_scale);
        let ids = Ids { all: &table.tokens, first: 0, count: table.tokens_count };
        self.embedding.take(&self.gpu, (self.shape.vocabulary, hidden), ids, &first.input, scale)?;
        self.gpu.mark("embedding")
    }

    /// Adapters of no address, as many as the decoder has: where somebody fills in some.
    fn no_adapters(&self) -> Vec<Grads> {
        let none = |block: &Block| block.linears().map(|linear| vec![None::<Pair>; linear.parts.len()]);
        self.blocks.iter().map(none).collect()
    }
}

/// Memory for the packed weights of any one layer, or of the head.
fn share(gpu: &Gpu, blocks: &mut [Block], head: &Vocabulary) -> Result<Buffer<u16>> {
    /// So many numbers begin where accesses are whole.
    const ALIGNED: usize = 128;
    let largest = |which: usize| blocks.iter().map(|block| block.linears()[which].shared()).max().unwrap_or(0).next_multiple_of(ALIGNED);
    let sizes = [0, 1, 2, 3].map(largest);
    let shared = gpu.uninitialised::<u16>(head.shared().max(sizes.iter().sum()))?;
    for block in blocks {
        let mut address = shared.address();
        for (linear, size) in block.linears_mut().into_iter().zip(sizes) {
            linear.share(address);
            address += 2 * size as u64;
        }
    }
    Ok(shared)
}
