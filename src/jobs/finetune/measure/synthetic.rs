//! Model files whose weights are random, written as fast as the disk takes them: numbers are drawn and packed once, and every matrix is
//! cut from those, each from another place on.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rayon::prelude::*;

use super::Error;
use super::shape::Shape;
use crate::gguf::layout::Layout;
use crate::gguf::{Metadata, TensorKind, Value, quants};
use crate::jobs::finetune::rng::{Philox, Purpose};

/// As many numbers are drawn at most. They are packed as rows of so many, and so many at a time.
const DRAWN: usize = 1 << 20;
const ROW: usize = 256;
const PART: usize = 64 * ROW;

/// Writes a model to `path`, its matrices in this format, its vectors in single precision.
pub fn write(path: &Path, shape: &Shape, kind: TensorKind) -> Result<(), Error> {
    let of = |dimensions: &[u64]| if dimensions.len() == 1 { TensorKind::F32 } else { kind };
    let tensors: Vec<_> = shape.tensors().into_iter().map(|(name, dimensions)| (name, of(&dimensions), dimensions)).collect();
    let layout = Layout::new(metadata(shape), tensors.into_iter().map(|(name, kind, dimensions)| (name, dimensions, kind)).collect())?;
    let (matrices, block) = (drawn(shape, kind)?, TensorKind::F32);
    let norms: Vec<u8> = numbers(0, 1 << 16, 0.2).into_iter().flat_map(|number| (1.0 + number).to_le_bytes()).collect();
    let biases: Vec<u8> = numbers(1, 1 << 16, 0.2).into_iter().flat_map(f32::to_le_bytes).collect();
    let mut file = File::create(path)?;
    layout.write_header(&mut file)?;
    for (index, tensor) in layout.tensors().iter().enumerate() {
        let from = match tensor.dimensions.len() {
            1 if tensor.name.strip_suffix(".bias").is_some() => (&biases[..], block),
            1 => (&norms[..], block),
            _ => (&matrices[..], kind),
        };
        cut(&mut file, from, index, tensor.size_bytes)?;
        let padding = usize::try_from(layout.padding_after(tensor.size_bytes)).map_err(io::Error::other)?;
        file.write_all(&[0; 64][..padding.min(64)])?;
    }
    Ok(())
}

fn metadata(shape: &Shape) -> Metadata {
    let mut all = Metadata::default();
    let key = |name: &str| format!("{}.{name}", shape.architecture);
    all.push("general.architecture", Value::String(shape.architecture.to_owned()));
    let mut number = |name: &str, number: usize| all.push(key(name), Value::U32(u32::try_from(number).unwrap_or(u32::MAX)));
    number("block_count", shape.layers);
    number("context_length", 8192);
    number("embedding_length", shape.width);
    number("feed_forward_length", shape.inner);
    number("attention.head_count", shape.heads);
    number("attention.head_count_kv", shape.kv_heads);
    number("attention.key_length", shape.head_length);
    number("attention.value_length", shape.head_length);
    number("rope.dimension_count", shape.head_length);
    if let Some(window) = shape.window {
        all.push(key("attention.sliding_window"), Value::U32(window));
    }
    all.push(key("attention.layer_norm_rms_epsilon"), Value::F32(1e-6));
    all
}

/// Uniform around 0 with this deviation.
fn numbers(which: u64, count: usize, deviation: f32) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    Philox::new(3).stream(Purpose::Order, [which, 0, 0, 0]).fill_uniform(&mut numbers);
    numbers.into_iter().map(|number| (number * 2.0 - 1.0) * 3.0_f32.sqrt() * deviation).collect()
}

/// Packed weights whose products neither grow nor fade.
#[expect(clippy::cast_precision_loss, reason = "a width")]
fn drawn(shape: &Shape, kind: TensorKind) -> Result<Vec<u8>, Error> {
    let numbers = numbers(2, (shape.width * shape.vocabulary).clamp(PART, DRAWN) / PART * PART, 1.0 / (shape.width as f32).sqrt());
    let size = |count: usize| kind.size_bytes(&[count as u64]).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    let mut packed = vec![0; size(numbers.len())];
    let parts = packed.par_chunks_mut(size(PART)).zip(numbers.par_chunks(PART));
    parts.try_for_each(|(packed, numbers)| quants::encode(kind, numbers, ROW, None, packed))?;
    Ok(packed)
}

/// Writes so many bytes of whole blocks, again from the beginning where they end.
fn cut(file: &mut File, (from, kind): (&[u8], TensorKind), index: usize, size_bytes: u64) -> io::Result<()> {
    const STEP: usize = 7919;
    let block = usize::try_from(kind.size_bytes(&[kind.block_size()]).unwrap_or(1)).map_err(io::Error::other)?;
    let mut start = index * STEP * block % from.len();
    let mut left = usize::try_from(size_bytes).map_err(io::Error::other)?;
    while left > 0 {
        let piece = &from[start..from.len().min(start + left)];
        file.write_all(piece)?;
        (left, start) = (left - piece.len(), 0);
    }
    Ok(())
}
