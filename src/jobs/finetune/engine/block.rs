//! One layer, there and back.
//!
//! A layer is two halves, attention and feed-forward, each of which adds to what it is given. What a half leaves for the way back is its
//! tape: kept from the way there, or made again from the layer's input.

use candle_core::{Result, Tensor};

use super::attention::{self, How};
use super::compute::Compute;
use super::gated;
use super::gradients::Gradients;
use super::group::Group;
use super::linear::{self, Linear, Part, Saved};
use super::norm::{self, Norm};
use super::rope::{Turns, Way, turn};
use crate::jobs::finetune::learner::{Pass, Tensors};
use crate::lm::Activation;

/// The weights of a layer.
#[derive(Debug)]
pub struct Block {
    pub how: How,
    pub activation: Activation,
    pub is_sliding: bool,
    pub attention_norm: Norm,
    pub qkv: Group<3>,
    pub query_norm: Option<Norm>,
    pub key_norm: Option<Norm>,
    pub output: Linear,
    /// Of what attention gives, before it is added (Gemma 2, 3).
    pub after_attention: Option<Norm>,
    pub feed_norm: Norm,
    pub gate_up: Group<2>,
    pub down: Linear,
    /// Of what the feed-forward half gives, before it is added (Gemma 2, 3).
    pub after_feed: Option<Norm>,
}

/// What all layers of a pass have in common.
pub struct Step<'a> {
    pub compute: &'a Compute,
    pub parameters: &'a Tensors,
    pub pass: Option<Pass>,
    /// Where rows begin, and the end of the last.
    pub starts: &'a [usize],
    pub everywhere: Turns,
    pub sliding: Turns,
}

/// Of the attention half.
#[derive(Debug)]
pub struct AttentionTape {
    x: Tensor,
    normed: Tensor,
    saved: Vec<Saved>,
    /// Before their norms, if they have any.
    raw: [Option<Tensor>; 2],
    qkv: [Tensor; 3],
    seen: Tensor,
    output: Saved,
    /// Before its norm, if it has one.
    out: Option<Tensor>,
}

/// Of the feed-forward half.
#[derive(Debug)]
pub struct FeedTape {
    x: Tensor,
    normed: Tensor,
    saved: Vec<Saved>,
    gate_up: [Tensor; 2],
    /// What the gate lets through; made again if it was not kept.
    inner: Option<Tensor>,
    down: Saved,
    out: Option<Tensor>,
}

/// Of a layer.
#[derive(Debug)]
pub struct Tape {
    pub attention: AttentionTape,
    pub feed: FeedTape,
}

impl Block {
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.qkv.linears.iter().chain([&self.output]).chain(&self.gate_up.linears).chain([&self.down])
    }

    pub fn norms(&self) -> impl Iterator<Item = &Norm> {
        let optional = [&self.query_norm, &self.key_norm, &self.after_attention, &self.after_feed];
        [&self.attention_norm, &self.feed_norm].into_iter().chain(optional.into_iter().flatten())
    }
}

impl Step<'_> {
    fn turns(&self, block: &Block) -> &Turns {
        if block.is_sliding { &self.sliding } else { &self.everywhere }
    }

    fn norm(&self, norm: &Norm, x: &Tensor) -> Result<Tensor> {
        norm::forward(self.compute, norm, self.parameters, x)
    }

    fn norm_backward(&self, norm: &Norm, x: &Tensor, dy: &Tensor, onto: Option<&Tensor>, gradients: &mut Gradients<'_>) -> Result<Tensor> {
        norm::backward(self.compute, norm, self.parameters, x, dy, onto, gradients)
    }

    /// Through a matrix and the norm behind it, and onto `x`.
    fn add_output(&self, linear: &Linear, norm: Option<&Norm>, input: &Tensor, x: &Tensor) -> Result<(Tensor, Saved, Option<Tensor>)> {
        let (out, saved) = linear::forward(self.compute, linear, self.parameters, input, self.pass)?;
        Ok(match norm {
            None => ((x + out)?, saved, None),
            Some(norm) => ((x + self.norm(norm, &out)?)?, saved, Some(out)),
        })
    }
}

/// The layer's output, and its tape.
pub fn forward(step: &Step<'_>, block: &Block, x: &Tensor) -> Result<(Tensor, Tape)> {
    let (x, attention) = attention_half(step, block, x)?;
    let (x, mut feed) = feed_half(step, block, &x)?;
    feed.inner = None;
    Ok((x, Tape { attention, feed }))
}

/// The layer's output alone.
pub fn output(step: &Step<'_>, block: &Block, x: &Tensor) -> Result<Tensor> {
    let x = attention_half(step, block, x)?.0;
    Ok(feed_half(step, block, &x)?.0)
}

/// The gradient of the layer's input from that of its output.
pub fn backward(step: &Step<'_>, block: &Block, tape: Tape, dy: &Tensor, gradients: &mut Gradients<'_>) -> Result<Tensor> {
    let dx = feed_backward(step, block, tape.feed, dy, gradients)?;
    attention_backward(step, block, tape.attention, &dx, gradients)
}

/// As [`backward`], from the layer's input alone.
pub fn backward_again(step: &Step<'_>, block: &Block, x: &Tensor, dy: &Tensor, gradients: &mut Gradients<'_>) -> Result<Tensor> {
    let (x, attention) = attention_half(step, block, x)?;
    let feed = feed_again(step, block, x)?;
    let dx = feed_backward(step, block, feed, dy, gradients)?;
    attention_backward(step, block, attention, &dx, gradients)
}

fn attention_half(step: &Step<'_>, block: &Block, x: &Tensor) -> Result<(Tensor, AttentionTape)> {
    let compute = step.compute;
    let normed = step.norm(&block.attention_norm, x)?;
    let ([q, k, v], saved) = block.qkv.forward(step, &normed)?;
    let place = |raw: Tensor, norm: &Option<Norm>| -> Result<(Tensor, Option<Tensor>)> {
        let Some(norm) = norm else { return Ok((turn(compute, step.turns(block), raw, Way::Forth)?, None)) };
        Ok((turn(compute, step.turns(block), step.norm(norm, &raw)?, Way::Forth)?, Some(raw)))
    };
    let ((q, raw_q), (k, raw_k)) = (place(q, &block.query_norm)?, place(k, &block.key_norm)?);
    let seen = attention::forward(compute, &block.how, step.starts, [&q, &k, &v])?;
    let (sum, output, out) = step.add_output(&block.output, block.after_attention.as_ref(), &seen, x)?;
    let tape = AttentionTape { x: x.clone(), normed, saved, raw: [raw_q, raw_k], qkv: [q, k, v], seen, output, out };
    Ok((sum, tape))
}

fn attention_backward(step: &Step<'_>, block: &Block, tape: AttentionTape, dy: &Tensor, gradients: &mut Gradients<'_>) -> Result<Tensor> {
    let AttentionTape { x, normed, saved, raw: [raw_q, raw_k], qkv: [q, k, v], seen, output, out } = tape;
    let d_seen = output_backward(step, (&block.output, block.after_attention.as_ref()), (&output, &seen, out.as_ref()), dy, gradients)?;
    drop((seen, output, out));
    let [dq, dk, dv] = attention::backward(step.compute, &block.how, step.starts, [&q, &k, &v], &d_seen)?;
    drop((d_seen, q, k, v));
    let mut unplace = |d: Tensor, norm: &Option<Norm>, raw: Option<Tensor>| {
        let d = turn(step.compute, step.turns(block), d, Way::Back)?;
        match (norm, raw) {
            (Some(norm), Some(raw)) => step.norm_backward(norm, &raw, &d, None, gradients),
            _ => Ok(d),
        }
    };
    let (dq, dk) = (unplace(dq, &block.query_norm, raw_q)?, unplace(dk, &block.key_norm, raw_k)?);
    let d_normed = block.qkv.backward(step, (&normed, &saved), [dq, dk, dv], gradients)?;
    step.norm_backward(&block.attention_norm, &x, &d_normed, Some(dy), gradients)
}

fn feed_half(step: &Step<'_>, block: &Block, x: &Tensor) -> Result<(Tensor, FeedTape)> {
    let normed = step.norm(&block.feed_norm, x)?;
    let (gate_up, saved) = block.gate_up.forward(step, &normed)?;
    let inner = gated::forward(step.compute, block.activation, &gate_up[0], &gate_up[1])?;
    let (sum, down, out) = step.add_output(&block.down, block.after_feed.as_ref(), &inner, x)?;
    Ok((sum, FeedTape { x: x.clone(), normed, saved, gate_up, inner: Some(inner), down, out }))
}

/// The tape without the output, whose matrix is a quarter of the layer.
fn feed_again(step: &Step<'_>, block: &Block, x: Tensor) -> Result<FeedTape> {
    if block.after_feed.is_some() || block.down.needs_product(step.parameters) {
        return Ok(feed_half(step, block, &x)?.1);
    }
    let normed = step.norm(&block.feed_norm, &x)?;
    let (gate_up, saved) = block.gate_up.forward(step, &normed)?;
    let inner = gated::forward(step.compute, block.activation, &gate_up[0], &gate_up[1])?;
    let down = linear::remember(step.compute, &block.down, step.parameters, &inner, step.pass)?;
    Ok(FeedTape { x, normed, saved, gate_up, inner: Some(inner), down, out: None })
}

fn feed_backward(step: &Step<'_>, block: &Block, tape: FeedTape, dy: &Tensor, gradients: &mut Gradients<'_>) -> Result<Tensor> {
    let FeedTape { x, normed, saved, gate_up: [gate, up], inner, down, out } = tape;
    let inner = inner.map_or_else(|| gated::forward(step.compute, block.activation, &gate, &up), Ok)?;
    let d_inner = output_backward(step, (&block.down, block.after_feed.as_ref()), (&down, &inner, out.as_ref()), dy, gradients)?;
    drop((inner, down, out));
    let d_gate_up = gated::backward(step.compute, block.activation, &gate, &up, d_inner)?;
    drop((gate, up));
    let d_normed = block.gate_up.backward(step, (&normed, &saved), d_gate_up, gradients)?;
    step.norm_backward(&block.feed_norm, &x, &d_normed, Some(dy), gradients)
}

/// Back through a norm and the matrix before it.
fn output_backward(
    step: &Step<'_>,
    (linear, norm): (&Linear, Option<&Norm>),
    (saved, x, out): (&Saved, &Tensor, Option<&Tensor>),
    dy: &Tensor,
    gradients: &mut Gradients<'_>,
) -> Result<Tensor> {
    let before_norm = match (norm, out) {
        (Some(norm), Some(out)) => Some(step.norm_backward(norm, out, dy, None, gradients)?),
        _ => None,
    };
    let part = Part { linear, saved, x, dy: before_norm.as_ref().unwrap_or(dy) };
    linear::backward(step.compute, &[part], step.parameters, step.pass, gradients)
}
