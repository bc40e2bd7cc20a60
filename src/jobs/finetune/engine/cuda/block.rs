//! One layer of a decoder, forwards, again, and backwards: a fixed sequence of launches over memory that is there already.

use super::activations::{Attended, Kept, Projections, Workspace};
use super::attention::{Attention, Projected};
use super::error::Result;
use super::gpu::{Buffer, Gpu, Rows};
use super::kernels::{Angles, Heads, Norm, add_bias, gated, gated_backward};
use super::linear::{Linear, Pair, Work, is_weighed};
use super::shape::Shape;
use super::table::Table;
use crate::jobs::finetune::learner::Pass;

/// The weights of a layer, and how it attends.
pub struct Block {
    pub attention_norm: Buffer<f32>,
    pub qkv: Linear,
    pub qkv_bias: Option<Buffer<f32>>,
    /// Of each head of queries, and of keys.
    pub head_norms: Option<(Buffer<f32>, Buffer<f32>)>,
    pub output: Linear,
    pub attention_post_norm: Option<Buffer<f32>>,
    pub feed_forward_norm: Buffer<f32>,
    pub gate_up: Linear,
    pub down: Linear,
    pub feed_forward_post_norm: Option<Buffer<f32>>,
    /// Of the decoder's tables of angles.
    pub angles: usize,
    /// Tokens seen, the current one included; 0: all.
    pub window: usize,
}

/// The matrices of a layer, in the order in which gradients are named: [`Grads`].
#[derive(Debug, Clone, Copy)]
enum Which {
    Qkv,
    Output,
    GateUp,
    Down,
}

impl Block {
    /// In the order of [`Which`].
    pub fn linears(&self) -> [&Linear; 4] {
        [&self.qkv, &self.output, &self.gate_up, &self.down]
    }

    /// In the same order.
    pub(super) fn linears_mut(&mut self) -> [&mut Linear; 4] {
        [&mut self.qkv, &mut self.output, &mut self.gate_up, &mut self.down]
    }
}

/// Where the gradients of a layer's adapters go: for each of [`Block::linears`], for each of its parts.
pub type Grads = [Vec<Option<Pair>>; 4];

/// A layer at work on a batch.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    pub gpu: &'a Gpu,
    pub shape: &'a Shape,
    pub block: &'a Block,
    pub kept: &'a Kept,
    pub workspace: &'a Workspace,
    pub angles: &'a Angles,
    pub table: &'a Table,
    pub adapters: &'a Grads,
    /// Where something is to be dropped.
    pub pass: Option<Pass>,
}

impl<'a> Layer<'a> {
    fn matrices(&self, which: Which) -> (&'a Linear, &'a [Option<Pair>]) {
        (self.block.linears()[which as usize], &self.adapters[which as usize])
    }

    fn work(&self) -> Work<'a> {
        Work { gpu: self.gpu, tokens: self.tokens(), pass: self.pass, scratch: &self.workspace.scratch }
    }

    fn tokens(&self) -> usize {
        self.table.tokens_count
    }

    fn norm(&self, weight: &'a Buffer<f32>) -> Norm<'a> {
        Norm { weight, rows: self.tokens(), columns: self.shape.hidden, epsilon: self.shape.epsilon }
    }

    fn attention(&self) -> Attention {
        self.shape.attention(self.block.window)
    }

    fn x1(&self) -> Rows<'a> {
        Rows::new(&self.workspace.x1, self.block.qkv.strides().0)
    }

    fn x2(&self) -> Rows<'a> {
        Rows::new(&self.workspace.x2, self.block.gate_up.strides().0)
    }

    fn attended(&self) -> &'a Attended {
        self.kept.attention.as_ref().unwrap_or(&self.workspace.attended)
    }

    fn projections(&self) -> &'a Projections {
        self.kept.projections.as_ref().unwrap_or(&self.workspace.projections)
    }

    fn attended_rows(&self) -> Rows<'a> {
        Rows::new(&self.attended().out, self.block.output.strides().0)
    }

    fn both(&self) -> Rows<'a> {
        Rows::new(&self.projections().both, self.block.gate_up.strides().1)
    }

    fn inner(&self) -> Rows<'a> {
        Rows::new(&self.workspace.inner, self.block.down.strides().0)
    }

    fn branch(&self) -> Rows<'a> {
        Rows::new(&self.workspace.branch, self.shape.hidden)
    }

    fn grad(&self) -> Rows<'a> {
        Rows::new(&self.workspace.grad, self.workspace.grad_stride)
    }

    fn d_qkv(&self) -> Rows<'a> {
        Rows::new(&self.workspace.d_qkv, self.block.qkv.strides().1)
    }

    fn raw(&self) -> Rows<'a> {
        Rows::new(&self.projections().qkv, self.shape.projected())
    }

    fn heads(&self, count: usize) -> Heads {
        Heads { tokens: self.tokens(), count, size: self.shape.head_size }
    }

    /// Queries, keys and values as attention reads them.
    fn projected(&self) -> Projected<'a> {
        let (queries, keys, raw) = (self.shape.queries(), self.shape.keys(), self.raw());
        let q = if self.block.head_norms.is_some() { Rows::new(&self.workspace.rotated, queries + keys) } else { raw };
        Projected { q, k: q.column(queries), v: raw.column(queries + keys) }
    }

    /// The layer's part in the residual stream, to be added by whoever comes next; the stream behind attention is left in
    /// [`Attended::middle`]. `before`: what the layer before did not add yet.
    pub fn forward(&self, before: Option<(&Buffer<u16>, &Buffer<u16>)>) -> Result<&'a Buffer<u16>> {
        self.unpack()?;
        self.weigh()?;
        let norm = self.norm(&self.block.attention_norm);
        match before {
            Some((stream, added)) => norm.forward_sum(self.gpu, stream, added, &self.kept.input, self.x1())?,
            None => norm.forward(self.gpu, &self.kept.input, self.x1())?,
        }
        self.gpu.mark("norm")?;
        self.lower(Which::Qkv, self.x1())?;
        self.project()?;
        self.normalise_and_rotate(true)?;
        self.attend()?;
        self.add_attention()?;
        self.lower(Which::GateUp, self.x2())?;
        self.gate_and_up()?;
        self.activate()?;
        self.multiply(Which::Down, self.inner(), self.branch())?;
        self.post_norm(self.block.feed_forward_post_norm.as_ref())
    }

    /// What the way back needs of the forward pass and was not kept.
    fn again(&self) -> Result<()> {
        self.unpack()?;
        self.norm(&self.block.attention_norm).forward(self.gpu, &self.kept.input, self.x1())?;
        self.gpu.mark("norm again")?;
        self.lower(Which::Qkv, self.x1())?;
        let projected = self.kept.projections.is_some();
        if !projected {
            self.project()?;
        }
        self.normalise_and_rotate(!projected)?;
        if self.kept.attention.is_none() {
            self.attend()?;
            self.add_attention()?;
        } else {
            self.norm(&self.block.feed_forward_norm).forward(self.gpu, &self.attended().middle, self.x2())?;
            self.gpu.mark("norm again")?;
        }
        self.lower(Which::GateUp, self.x2())?;
        if !projected {
            self.gate_and_up()?;
        }
        self.activate()
    }

    /// Puts packed weights where products read them.
    fn unpack(&self) -> Result<()> {
        for (linear, adapters) in self.block.linears().into_iter().zip(self.adapters) {
            linear.unpack(self.gpu, adapters)?;
        }
        self.gpu.mark("unpack")
    }

    /// Looks how long the rows of its matrices are, where that is trained.
    fn weigh(&self) -> Result<()> {
        self.block.linears().into_iter().zip(self.adapters).try_for_each(|(linear, adapters)| linear.weigh(self.work(), adapters))
    }

    fn lower(&self, which: Which, x: Rows<'_>) -> Result<()> {
        self.matrices(which).0.lower(self.work(), x)?;
        self.gpu.mark("x·Aᵀ")
    }

    fn multiply(&self, which: Which, x: Rows<'_>, out: Rows<'_>) -> Result<()> {
        let (linear, adapters) = self.matrices(which);
        linear.forward(self.work(), x, out)?;
        self.gpu.mark("x·Wᵀ")?;
        linear.scale(self.work(), x, out, adapters)
    }

    fn project(&self) -> Result<()> {
        self.multiply(Which::Qkv, self.x1(), self.raw())?;
        if let Some(bias) = &self.block.qkv_bias {
            add_bias(self.gpu, self.raw(), bias, self.tokens(), self.shape.projected())?;
        }
        Ok(())
    }

    /// `fresh`: the projection was just made, so that nothing is rotated yet.
    fn normalise_and_rotate(&self, fresh: bool) -> Result<()> {
        let (queries, keys) = (self.heads(self.shape.heads), self.heads(self.shape.kv_heads));
        let to = self.projected();
        if let Some((q, k)) = &self.block.head_norms {
            let (raw, epsilon) = (self.raw(), self.shape.epsilon);
            queries.norm_forward(self.gpu, raw, q, to.q, epsilon)?;
            keys.norm_forward(self.gpu, raw.column(self.shape.queries()), k, to.k, epsilon)?;
        } else if !fresh {
            return Ok(());
        }
        // Keys lie right behind queries.
        let all = self.heads(self.shape.heads + self.shape.kv_heads);
        all.rotate(self.gpu, to.q, self.angles, &self.table.positions, 1.0)?;
        self.gpu.mark("rotate")
    }

    fn attend(&self) -> Result<()> {
        self.attention().forward(self.gpu, self.projected(), self.attended_rows(), &self.attended().sums, self.table)?;
        self.gpu.mark("attention")?;
        self.lower(Which::Output, self.attended_rows())
    }

    /// The residual stream behind attention, and that normalised.
    fn add_attention(&self) -> Result<()> {
        self.multiply(Which::Output, self.attended_rows(), self.branch())?;
        let added = self.post_norm(self.block.attention_post_norm.as_ref())?;
        let norm = self.norm(&self.block.feed_forward_norm);
        norm.forward_sum(self.gpu, &self.kept.input, added, &self.attended().middle, self.x2())?;
        self.gpu.mark("norm")
    }

    fn post_norm(&self, weight: Option<&'a Buffer<f32>>) -> Result<&'a Buffer<u16>> {
        let Some(weight) = weight else { return Ok(&self.workspace.branch) };
        let out = Rows::new(&self.workspace.normed, self.shape.hidden);
        self.norm(weight).forward(self.gpu, &self.workspace.branch, out)?;
        Ok(&self.workspace.normed)
    }

    fn gate_and_up(&self) -> Result<()> {
        self.multiply(Which::GateUp, self.x2(), self.both())
    }

    fn activate(&self) -> Result<()> {
        gated(self.gpu, self.shape.gate, self.both(), self.inner(), self.tokens(), self.shape.feed_forward)?;
        self.gpu.mark("gate")?;
        self.lower(Which::Down, self.inner())
    }

    /// Turns the gradient of the layer's output into that of its input ([`Workspace::grad`]), and adds those of its adapters. `further`:
    /// whether somebody wants the gradient of its input.
    pub fn backward(&self, grads: &Grads, further: bool) -> Result<()> {
        self.again()?;
        self.backward_feed_forward(grads)?;
        self.backward_attention(grads)?;
        let d_x = Rows::new(&self.workspace.d_x, self.shape.hidden);
        self.multiply_back(Which::Qkv, self.x1(), self.d_qkv(), grads, further.then_some(d_x))?;
        if further {
            self.norm(&self.block.attention_norm).backward_into(self.gpu, &self.kept.input, d_x, self.grad())?;
            self.gpu.mark("norm back")?;
        }
        Ok(())
    }

    fn backward_feed_forward(&self, grads: &Grads) -> Result<()> {
        let (gpu, block, columns) = (self.gpu, self.block, self.shape.feed_forward);
        if block.feed_forward_post_norm.is_some() {
            self.multiply(Which::Down, self.inner(), self.branch())?;
        }
        let grad = self.before_post_norm(block.feed_forward_post_norm.as_ref(), &block.down)?;
        self.multiply_back(Which::Down, self.inner(), grad, grads, Some(Rows::new(&self.workspace.d_inner, columns)))?;
        gated_backward(gpu, self.shape.gate, self.both(), &self.workspace.d_inner, self.tokens(), columns)?;
        gpu.mark("gate back")?;
        let d_x = Rows::new(&self.workspace.d_x, self.shape.hidden);
        self.multiply_back(Which::GateUp, self.x2(), self.both(), grads, Some(d_x))?;
        self.norm(&block.feed_forward_norm).backward_into(gpu, &self.attended().middle, d_x, self.grad())?;
        gpu.mark("norm back")
    }

    /// The gradient of what a half of the layer gave, from that of the residual stream, which is the same where there is no norm between.
    fn before_post_norm(&self, weight: Option<&'a Buffer<f32>>, linear: &Linear) -> Result<Rows<'a>> {
        let Some(weight) = weight else { return Ok(self.grad()) };
        let out = Rows::new(&self.workspace.d_branch, linear.strides().1);
        self.norm(weight).backward(self.gpu, &self.workspace.branch, self.grad(), out)?;
        Ok(out)
    }

    fn backward_attention(&self, grads: &Grads) -> Result<()> {
        let (gpu, block, workspace) = (self.gpu, self.block, self.workspace);
        if block.attention_post_norm.is_some() {
            // The feed-forward layer has used the memory since.
            self.multiply(Which::Output, self.attended_rows(), self.branch())?;
        }
        let grad = self.before_post_norm(block.attention_post_norm.as_ref(), &block.output)?;
        let d_out = Rows::new(&workspace.d_inner, block.output.strides().0);
        self.multiply_back(Which::Output, self.attended_rows(), grad, grads, Some(d_out))?;
        let (queries, keys) = (self.shape.queries(), self.shape.keys());
        let (q, sums) = (self.d_qkv(), (&self.attended().sums, &workspace.deltas));
        let into = Projected { q, k: q.column(queries), v: q.column(queries + keys) };
        self.attention().backward(gpu, self.projected(), (self.attended_rows(), d_out), sums, into, self.table)?;
        gpu.mark("attention back")?;
        let all = self.heads(self.shape.heads + self.shape.kv_heads);
        all.rotate(gpu, q, self.angles, &self.table.positions, -1.0)?;
        if let Some((q_norm, k_norm)) = &block.head_norms {
            let (raw, epsilon) = (self.raw(), self.shape.epsilon);
            self.heads(self.shape.heads).norm_backward(gpu, raw, q_norm, into.q, epsilon)?;
            self.heads(self.shape.kv_heads).norm_backward(gpu, raw.column(queries), k_norm, into.k, epsilon)?;
        }
        gpu.mark("rotate back")
    }

    /// Adds the gradients of adapters, from the inputs of their matrices and the gradient of their outputs, which has room behind it; that
    /// of the inputs goes to `out`.
    fn multiply_back(&self, which: Which, x: Rows<'_>, grad: Rows<'_>, grads: &Grads, out: Option<Rows<'_>>) -> Result<()> {
        let (gpu, work, into) = (self.gpu, self.work(), &grads[which as usize]);
        let (linear, adapters) = self.matrices(which);
        linear.accumulate_lengths(work, (x, grad), into)?;
        if let Some(out) = out {
            linear.backward_frozen(work, grad, out, adapters)?;
            gpu.mark("g·W")?;
        }
        let grad = self.scaled(linear, grad, adapters)?;
        linear.lower_grad(work, grad)?;
        gpu.mark("g·B")?;
        if let Some(out) = out {
            linear.backward(work, grad, out)?;
            gpu.mark("g·W")?;
        }
        linear.accumulate(work, (x, grad), into)?;
        gpu.mark("dA, dB")
    }

    /// The gradient of outputs before they were scaled. That of the residual stream, which others add to, stays as it is.
    fn scaled<'b>(&'b self, linear: &Linear, grad: Rows<'b>, adapters: &[Option<Pair>]) -> Result<Rows<'b>> {
        let is_stream = grad.address == self.grad().address;
        let out = if is_stream && is_weighed(adapters) { Rows::new(&self.workspace.d_branch, linear.strides().1) } else { grad };
        linear.scale_grad(self.work(), grad, out, adapters)?;
        Ok(out)
    }
}
