//! From a model that was loaded for the CPU to the GPU's memory.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::Device;
use half::bf16;
use rayon::prelude::*;

use super::{Engine, embedding};
use crate::gguf::{Header, TensorKind};
use crate::jobs::finetune::engine::base::{Base, Rows};
use crate::jobs::finetune::engine::block;
use crate::jobs::finetune::engine::cuda::{
    self, Block, Buffer, Decoder, Error, Gate, Gpu, How, Keep, Linear, Packed, Packing, Plan, Result, Shape, Vocabulary, Wanted, Weights,
    copy_block,
};
use crate::jobs::finetune::engine::linear;
use crate::jobs::finetune::engine::norm::Norm;
use crate::jobs::finetune::engine::settings::{Checkpointing, Method, Precision, Settings};
use crate::jobs::finetune::engine::slices::numbers;
use crate::jobs::finetune::engine::trainable::is_adapted;
use crate::lm::{Activation, Config};

/// So many bytes are copied at a time.
const PIECE_BYTES: usize = 64 << 20;

/// Whether the kernels know what is asked for.
pub fn suits(device: &Device, header: &Header, config: &Config, settings: &Settings) -> bool {
    let Method::Lora(lora) = &settings.method else { return false };
    let is_plain = lora.also.is_empty() && is_adapted(&settings.method, "output").is_none();
    let has = |name: &str| header.tensor(name).is_some();
    let known_bias = |name: &str| ["attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_qkv.bias"].iter().any(|bias| name.ends_with(bias));
    let biases = header.tensors.iter().filter(|tensor| tensor.name.rsplit('.').next() == Some("bias"));
    settings.precision == Precision::Brain
        && is_plain
        && shape(config).check().is_ok()
        && config.rope.dimensions.is_multiple_of(16)
        && has("blk.0.attn_q_norm.weight") == has("blk.0.attn_k_norm.weight")
        && biases.into_iter().all(|tensor| known_bias(&tensor.name))
        // bf16 on tensor cores came with Ampere.
        && super::gpu(device).is_ok_and(|gpu| gpu.capability().is_ok_and(|(major, _)| major >= 8))
}

fn shape(config: &Config) -> Shape {
    Shape {
        hidden: config.embedding_length,
        feed_forward: config.feed_forward_length,
        heads: config.head_count,
        kv_heads: config.head_count_kv,
        head_size: config.head_length,
        vocabulary: config.vocab_size,
        epsilon: config.norm_epsilon,
        gate: match config.activation {
            Activation::Silu => Gate::Silu,
            Activation::Gelu => Gate::GeluTanh,
        },
        attention_scale: config.attention_scale,
        attention_cap: config.attention_softcap.unwrap_or(0.0),
        logit_cap: config.logit_softcap.unwrap_or(0.0),
        embedding_scale: config.embedding_scale,
    }
}

/// What is kept of layers.
fn plan(checkpointing: Checkpointing, layers: usize) -> Plan {
    let first = |count: usize, keep, other| Plan::Fixed((0..layers).map(|layer| if layer < count { keep } else { other }).collect());
    match checkpointing {
        Checkpointing::Full => first(0, Keep::All, Keep::Input),
        Checkpointing::Selective(count) => first(count, Keep::All, Keep::Input),
        Checkpointing::Attention(count) => first(count, Keep::All, Keep::Attention),
        Checkpointing::Off => first(layers, Keep::All, Keep::Input),
        Checkpointing::Auto => Plan::Auto,
    }
}

/// All of a model.
pub fn decoder(gpu: &Gpu, engine: &Engine) -> Result<Decoder> {
    let own_head = engine.head.linear.names.weight != embedding::NAME;
    let weights = Weights {
        embedding: vocabulary(gpu, &engine.embedding.rows)?,
        blocks: engine.blocks.iter().map(|block| of_block(gpu, &engine.settings.method, block)).collect::<Result<_>>()?,
        norm: vector(gpu, &engine.norm.weight)?,
        head: own_head.then(|| vocabulary(gpu, of_file(&engine.head.linear)?)).transpose()?,
        angles: Vec::new(),
    };
    let plan = plan(engine.settings.checkpointing, engine.blocks.len());
    Decoder::new(gpu.clone(), shape(&engine.config), weights, plan, engine.settings.logits_bytes)
}

fn of_block(gpu: &Gpu, method: &Method, block: &block::Block) -> Result<Block> {
    let norm = |norm: &Norm| vector(gpu, &norm.weight);
    let optional = |given: &Option<Norm>| given.as_ref().map(norm).transpose();
    let heads = (optional(&block.query_norm)?, optional(&block.key_norm)?);
    Ok(Block {
        attention_norm: norm(&block.attention_norm)?,
        qkv: widened(gpu, method, &block.qkv.linears)?,
        qkv_bias: biases(gpu, &block.qkv.linears)?,
        head_norms: if let (Some(queries), Some(keys)) = heads { Some((queries, keys)) } else { None },
        output: widened(gpu, method, std::slice::from_ref(&block.output))?,
        attention_post_norm: optional(&block.after_attention)?,
        feed_forward_norm: norm(&block.feed_norm)?,
        gate_up: widened(gpu, method, &block.gate_up.linears)?,
        down: widened(gpu, method, std::slice::from_ref(&block.down))?,
        feed_forward_post_norm: optional(&block.after_feed)?,
        angles: usize::from(block.is_sliding),
        window: block.how.window.unwrap_or(0),
    })
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::Unsupported { what: what.to_string() }
}

fn vector(gpu: &Gpu, tensor: &candle_core::Tensor) -> Result<Buffer<f32>> {
    gpu.upload(&numbers(tensor).map_err(unsupported)?)
}

/// Those of matrices that are one, zero where one has none.
fn biases(gpu: &Gpu, linears: &[linear::Linear]) -> Result<Option<Buffer<f32>>> {
    if linears.iter().all(|linear| linear.bias.is_none()) {
        return Ok(None);
    }
    let mut all = Vec::new();
    for linear in linears {
        match &linear.bias {
            Some(bias) => all.extend_from_slice(&numbers(bias).map_err(unsupported)?),
            None => all.resize(all.len() + linear.outputs, 0.0),
        }
    }
    gpu.upload(&all).map(Some)
}

fn of_file(linear: &linear::Linear) -> Result<&Rows> {
    if let Base::File(rows) = &linear.base { Ok(rows) } else { Err(unsupported(format!("where `{}` lies", linear.name))) }
}

/// Matrices that read the same input as one, with room for their adapters.
fn widened(gpu: &Gpu, method: &Method, linears: &[linear::Linear]) -> Result<Linear> {
    let rank = |name: &str| is_adapted(method, name).map_or(0, |lora| lora.rank_of(name));
    let wanted = |linear: &linear::Linear| {
        let linear::Linear { outputs, scale, place, .. } = *linear;
        Wanted { outputs, rank: rank(&linear.name), scale, place }
    };
    let wanted: Vec<_> = linears.iter().map(wanted).collect();
    let how = match method {
        Method::Lora(lora) => How { dropout: lora.dropout, weighed: lora.dora },
        Method::Full(_) => How { dropout: 0.0, weighed: false },
    };
    let rows = linears.iter().map(of_file).collect::<Result<Vec<_>>>()?;
    let inputs = rows.first().map_or(0, |rows| rows.columns());
    if rows.iter().any(|rows| rows.is_quantized()) {
        return Linear::packed(gpu, inputs, &wanted, how, rows.into_iter().map(|rows| packed(gpu, rows)).collect::<Result<_>>()?);
    }
    let linear = Linear::new(gpu, inputs, &wanted, how)?;
    for (part, rows) in linear.parts.iter().zip(rows) {
        place(gpu, rows, linear.rows(part.outputs.start))?;
    }
    Ok(linear)
}

fn vocabulary(gpu: &Gpu, rows: &Rows) -> Result<Vocabulary> {
    if rows.is_quantized() {
        return Ok(Vocabulary::Packed(packed(gpu, rows)?));
    }
    let all = gpu.uninitialised(rows.count() * rows.columns())?;
    place(gpu, rows, cuda::Rows::new(&all, rows.columns()))?;
    Ok(Vocabulary::Plain(all))
}

fn packed(gpu: &Gpu, rows: &Rows) -> Result<Packed> {
    let (count, columns) = (rows.count(), rows.columns());
    match packing(rows.kind()) {
        Some(packing) => Packed::new(gpu, packing, rows.bytes(0..count), count, columns),
        None => Packed::new(gpu, Packing::Brain, &brain(rows, 0..count), count, columns),
    }
}

fn packing(kind: TensorKind) -> Option<Packing> {
    Some(match kind {
        TensorKind::BF16 => Packing::Brain,
        TensorKind::Q4_0 => Packing::Q4_0,
        TensorKind::Q4_1 => Packing::Q4_1,
        TensorKind::Q5_0 => Packing::Q5_0,
        TensorKind::Q5_1 => Packing::Q5_1,
        TensorKind::Q8_0 => Packing::Q8_0,
        TensorKind::Q4_K => Packing::Q4K,
        TensorKind::Q5_K => Packing::Q5K,
        TensorKind::Q6_K => Packing::Q6K,
        _ => return None,
    })
}

fn place(gpu: &Gpu, rows: &Rows, to: cuda::Rows<'_>) -> Result<()> {
    let columns = rows.columns();
    let each = (PIECE_BYTES / (2 * columns)).max(1);
    for first in (0..rows.count()).step_by(each) {
        let range = first..rows.count().min(first + each);
        let piece = gpu.upload(&brain(rows, range.clone()))?;
        copy_block(gpu, piece.address(), to.row(first), range.len(), columns)?;
    }
    Ok(())
}

/// Plain rows as bf16.
fn brain(rows: &Rows, range: Range<usize>) -> Cow<'_, [u8]> {
    if rows.kind() == TensorKind::BF16 {
        return Cow::Borrowed(rows.bytes(range));
    }
    let columns = rows.columns();
    let mut out = vec![0; range.len() * columns * 2];
    out.par_chunks_mut(2 * columns).zip(range).for_each(|(out, row)| {
        let mut numbers = vec![0.0; columns];
        rows.unpack(row..row + 1, &mut numbers);
        for (out, number) in out.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
            *out = bf16::from_f32(number).to_le_bytes();
        }
    });
    Cow::Owned(out)
}
