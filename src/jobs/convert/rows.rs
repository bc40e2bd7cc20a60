//! Rows of a tensor, read, changed as its family wants, and packed.
//!
//! A chunk of rows is all that is ever in memory, whatever the size of the tensor. Rounding follows llama.cpp's converter: numbers go
//! through the type that it would store them as before they are quantized.

use std::fs::File;
use std::path::PathBuf;

use super::adapter::{Scratch, Updates};
use super::error::{Error, Result};
use super::safetensors::{Dtype, Weights};
use super::tensors::{Content, Slice, Tensor};
use crate::gguf::TensorKind;
use crate::gguf::quants::{decode, encode};
use crate::jobs::positioned::read_exact_at;

/// Where the bytes of tensors are.
#[derive(Debug)]
pub(super) enum Store {
    Folder(Weights),
    Gguf { path: PathBuf, file: File },
}

/// What makes rows out of a store. Shared by all threads.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) store: Store,
    pub(super) updates: Option<Updates>,
}

/// Some rows of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::jobs) struct Chunk {
    pub(in crate::jobs) tensor: usize,
    pub(in crate::jobs) first: u64,
    pub(in crate::jobs) rows: u64,
}

/// Memory that a thread uses again and again.
#[derive(Debug, Default)]
pub(super) struct Work {
    raw: Vec<u8>,
    numbers: Vec<f32>,
    copy: Vec<f32>,
    scratch: Scratch,
}

/// How the rows are to be packed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing<'a> {
    pub(super) kind: TensorKind,
    pub(super) importance: Option<&'a [f32]>,
}

impl Rows {
    /// Puts the rows of a chunk into `out`, packed.
    pub(super) fn pack(&self, tensor: &Tensor, chunk: Chunk, packing: Packing, work: &mut Work, out: &mut Vec<u8>) -> Result<()> {
        let row = length(tensor.row())?;
        let bytes = packing.kind.size_bytes(&[tensor.row(), chunk.rows]).ok_or_else(|| cannot(tensor, "its rows are no whole blocks"))?;
        out.clear();
        out.resize(length(bytes)?, 0);
        if copies(tensor, packing.kind) {
            return self.read(tensor, chunk, out);
        }
        self.numbers(tensor, chunk, work)?;
        if packing.kind.block_size() > 1 && !work.numbers.iter().all(|number| number.is_finite()) {
            // One of these would spoil its whole block, and the model with it.
            return Err(cannot(
                tensor,
                format!("some of it is infinite, not a number, or too large for {}: the weights are broken", tensor.stage),
            ));
        }
        encode(packing.kind, &work.numbers, row, packing.importance, out).map_err(|error| cannot(tensor, error))
    }

    /// Fills `work.numbers` with the rows of a chunk.
    fn numbers(&self, tensor: &Tensor, chunk: Chunk, work: &mut Work) -> Result<()> {
        let row = length(tensor.row())?;
        let count = length(chunk.rows)? * row;
        work.numbers.resize(count, 0.0);
        match &tensor.content {
            Content::Numbers(numbers) => {
                let start = length(chunk.first)? * row;
                work.numbers.copy_from_slice(&numbers[start..start + count]);
            }
            Content::Gguf { kind, .. } => {
                let bytes = kind.size_bytes(&[tensor.row(), chunk.rows]).ok_or_else(|| cannot(tensor, "its rows are no whole blocks"))?;
                work.raw.resize(length(bytes)?, 0);
                self.read(tensor, chunk, &mut work.raw)?;
                decode(*kind, &work.raw, &mut work.numbers).map_err(|error| cannot(tensor, error))?;
            }
            Content::Weights(slice) => {
                work.raw.resize(count * length(slice.dtype.bytes())?, 0);
                self.read(tensor, chunk, &mut work.raw)?;
                unpack(slice.dtype, &work.raw, &mut work.numbers).map_err(|error| cannot(tensor, error))?;
                self.change(tensor, slice, chunk, work)?;
            }
        }
        Ok(())
    }

    /// What the family and the adapter do to the numbers of a folder, and the rounding to the converter's type.
    fn change(&self, tensor: &Tensor, slice: &Slice, chunk: Chunk, work: &mut Work) -> Result<()> {
        if tensor.dimensions.len() == 1
            && let Some(head) = slice.interleave
        {
            interleave_numbers(&mut work.numbers, length(head)?, &mut work.copy);
        }
        if slice.plus_one {
            work.numbers.iter_mut().for_each(|number| *number += 1.0);
            if slice.dtype == Dtype::F16 {
                // The converter adds in F16.
                round(TensorKind::F16, work).map_err(|error| cannot(tensor, error))?;
            }
        }
        if let Some(factor) = slice.factor {
            work.numbers.iter_mut().for_each(|number| *number *= factor);
        }
        if let (Some(update), Some(updates)) = (slice.update, &self.updates) {
            let source = |row| slice.interleave.map_or(row, |head| source_row(head, row));
            return updates.add(update, chunk.first..chunk.first + chunk.rows, source, &mut work.numbers, &mut work.scratch);
        }
        if tensor.stage != TensorKind::F32 && stored(slice.dtype) != Some(tensor.stage) {
            round(tensor.stage, work).map_err(|error| cannot(tensor, error))?;
        }
        Ok(())
    }

    /// Reads the stored bytes of a chunk's rows, in the order of the output.
    fn read(&self, tensor: &Tensor, chunk: Chunk, bytes: &mut [u8]) -> Result<()> {
        let row_bytes = bytes.len() as u64 / chunk.rows.max(1);
        match (&tensor.content, &self.store) {
            (Content::Gguf { start, .. }, Store::Gguf { path, file }) => {
                read_exact_at(file, bytes, start + chunk.first * row_bytes).map_err(Error::io("read", path))
            }
            (Content::Weights(slice), Store::Folder(weights)) => match slice.interleave.filter(|_| tensor.dimensions.len() > 1) {
                Some(head) => {
                    let rows = chunk.first..chunk.first + chunk.rows;
                    rows.zip(bytes.chunks_exact_mut(length(row_bytes)?))
                        .try_for_each(|(row, bytes)| weights.read(slice.file, slice.start + source_row(head, row) * row_bytes, bytes))
                }
                None => weights.read(slice.file, slice.start + chunk.first * row_bytes, bytes),
            },
            _ => Err(cannot(tensor, "its bytes are in another file")),
        }
    }
}

/// Whether the stored bytes are the wanted ones already.
fn copies(tensor: &Tensor, kind: TensorKind) -> bool {
    match &tensor.content {
        Content::Numbers(_) => false,
        Content::Gguf { kind: stored, .. } => *stored == kind,
        Content::Weights(slice) => {
            stored(slice.dtype) == Some(kind)
                && slice.interleave.is_none()
                && !slice.plus_one
                && slice.update.is_none()
                && slice.factor.is_none()
                && tensor.stage == kind
        }
    }
}

/// The row of the file that becomes this row, with heads of so many rows: llama.cpp's have in turn what Hugging Face's have in two
/// halves.
pub(in crate::jobs) fn source_row(head: u64, row: u64) -> u64 {
    let (start, within) = (row - row % head, row % head);
    start + (within % 2) * (head / 2) + within / 2
}

fn interleave_numbers(numbers: &mut [f32], head: usize, copy: &mut Vec<f32>) {
    copy.clear();
    copy.extend_from_slice(numbers);
    for (to, from) in numbers.chunks_exact_mut(head).zip(copy.chunks_exact(head)) {
        for (at, number) in to.iter_mut().enumerate() {
            *number = from[(at % 2) * (head / 2) + at / 2];
        }
    }
}

/// Through a type and back, with its loss.
fn round(kind: TensorKind, work: &mut Work) -> std::result::Result<(), crate::gguf::quants::Error> {
    work.raw.resize(work.numbers.len() * 2, 0);
    encode(kind, &work.numbers, work.numbers.len(), None, &mut work.raw)?;
    decode(kind, &work.raw, &mut work.numbers)
}

/// The GGUF type that keeps numbers as this one does.
pub(in crate::jobs) fn stored(dtype: Dtype) -> Option<TensorKind> {
    match dtype {
        Dtype::F32 => Some(TensorKind::F32),
        Dtype::F16 => Some(TensorKind::F16),
        Dtype::Bf16 => Some(TensorKind::BF16),
        Dtype::F64 | Dtype::Other { .. } => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the converter, too, goes on in f32")]
pub(in crate::jobs) fn unpack(dtype: Dtype, bytes: &[u8], numbers: &mut [f32]) -> std::result::Result<(), crate::gguf::quants::Error> {
    if let Some(kind) = stored(dtype) {
        return decode(kind, bytes, numbers);
    }
    for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *number = f64::from_le_bytes(*bytes) as f32;
    }
    Ok(())
}

fn cannot(tensor: &Tensor, why: impl std::fmt::Display) -> Error {
    Error::Impossible(format!("tensor {}: {why}", tensor.name))
}

/// A size as this machine counts.
pub(in crate::jobs) fn length(number: u64) -> Result<usize> {
    usize::try_from(number).map_err(|_| Error::Impossible(format!("{number} is more than this machine can count")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_interleaved_as_the_converters_permute_does() {
        let rows: Vec<u64> = (0..12).map(|row| source_row(6, row)).collect();
        assert_eq!(rows, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        let mut numbers: Vec<f32> = (0_u8..12).map(f32::from).collect();
        interleave_numbers(&mut numbers, 6, &mut Vec::new());
        assert_eq!(numbers, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 6.0, 9.0, 7.0, 10.0, 8.0, 11.0]);
    }

    #[test]
    fn doubles_are_narrowed() {
        let mut numbers = [0.0; 2];
        let bytes = [1.5_f64.to_le_bytes(), (-0.1_f64).to_le_bytes()].concat();
        unpack(Dtype::F64, &bytes, &mut numbers).expect("unpacked");
        assert_eq!(numbers.map(f32::to_bits), [1.5_f32, -0.1].map(f32::to_bits));
    }
}
