//! The tensors of a merged folder: names, shapes, and how each row comes about.

use super::super::base::{Rows, row, rows};
use super::super::change::Change;
use super::super::error::{Error, Result};
use super::super::names::interleaved_row;
use super::{Merging, foreign};
use crate::gguf::TensorInfo;
use crate::jobs::convert;
use crate::jobs::convert::names::{own_name, wanted};
use crate::jobs::convert::rows::{Chunk, length, unpack};
use crate::jobs::convert::safetensors::{Dtype, Entry, Weights};

/// One tensor of the folder.
#[derive(Debug)]
pub(super) struct Listed {
    /// Hugging Face's name.
    pub(super) name: String,
    /// The slowest-varying dimension comes first.
    pub(super) shape: Vec<u64>,
    /// Its name in the GGUF file, where it has one.
    own: Option<String>,
    /// Rows of one head, where the GGUF file has them interleaved.
    head: Option<u64>,
    less_one: bool,
    origin: Origin,
}

/// Where its numbers come from.
#[derive(Debug)]
enum Origin {
    /// This tensor of the GGUF file.
    Gguf(usize),
    /// A file of the folder.
    Folder(usize, Entry),
}

/// Memory for one thread's rows.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) numbers: Vec<f32>,
    raw: Vec<u8>,
    one: Vec<f32>,
    scratch: Vec<f32>,
}

/// What the GGUF file has and Hugging Face's model computes.
const COMPUTED: [&str; 3] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// The tensors as the GGUF file has them.
pub(super) fn of_gguf(merging: &Merging) -> Result<Vec<Listed>> {
    let tensors = merging.base.header.tensors.iter().enumerate().filter(|(_, tensor)| !COMPUTED.contains(&tensor.name.as_str()));
    tensors.map(|(index, tensor)| from_gguf(index, tensor, merging)).collect()
}

fn from_gguf(index: usize, tensor: &TensorInfo, merging: &Merging) -> Result<Listed> {
    let names = &merging.names;
    let name = names.tensor(&tensor.name);
    let name = name.ok_or_else(|| Error::impossible(format!("{} has no counterpart in Hugging Face's model", tensor.name)))?;
    let (own, _) = tensor.name.rsplit_once('.').unwrap_or((&tensor.name, ""));
    let shape: Vec<u64> = tensor.dimensions.iter().rev().copied().collect();
    Ok(Listed {
        name,
        head: names.interleaved(own, shape[0])?,
        shape,
        own: Some(tensor.name.clone()),
        less_one: names.less_one(&tensor.name),
        origin: Origin::Gguf(index),
    })
}

/// The tensors as the folder has them. Each change must find its own.
pub(super) fn of_folder(weights: &Weights, merging: &Merging) -> Result<Vec<Listed>> {
    let listed: Vec<Listed> = weights.tensors().iter().map(|(file, entry)| from_folder(*file, entry, merging)).collect::<Result<_>>()?;
    let has = |own: &str| listed.iter().any(|listed| listed.own.as_deref() == Some(own));
    match merging.changes.keys().find(|own| !has(own)) {
        None => Ok(listed),
        Some(own) => Err(Error::parameter(own, "has no counterpart in the folder: the base was made from another one")),
    }
}

fn from_folder(file: usize, entry: &Entry, merging: &Merging) -> Result<Listed> {
    let names = &merging.names;
    if matches!(entry.dtype, Dtype::Other { .. }) || entry.shape.is_empty() {
        return Err(foreign(&entry.name, "which is not stored as F64, F32, F16 or BF16"));
    }
    let own = wanted(&entry.name, names.family).and_then(|name| own_name(&name, names.family, names.layers));
    let tensor = own.as_deref().and_then(|own| merging.base.header.tensor(own));
    let changed = tensor.is_some_and(|tensor| merging.changes.contains_key(&tensor.name));
    if changed && tensor.is_some_and(|tensor| !tensor.dimensions.iter().rev().eq(&entry.shape)) {
        return Err(foreign(&entry.name, "which has another shape than in the base"));
    }
    let module = own.as_deref().and_then(|own| own.rsplit_once('.')).map_or("", |(module, _)| module);
    Ok(Listed {
        name: entry.name.clone(),
        head: names.interleaved(module, entry.shape[0])?,
        shape: entry.shape.clone(),
        less_one: own.as_deref().is_some_and(|own| names.less_one(own)),
        own,
        origin: Origin::Folder(file, entry.clone()),
    })
}

impl Listed {
    /// Numbers of one row.
    pub(super) fn row(&self) -> u64 {
        if self.shape.len() > 1 { self.shape.last().copied().unwrap_or(1) } else { self.elements() }
    }

    pub(super) fn rows(&self) -> u64 {
        self.elements() / self.row().max(1)
    }

    pub(super) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Fills in the rows of a chunk, in Hugging Face's order.
    pub(super) fn numbers(
        &self,
        merging: &Merging,
        weights: Option<&Weights>,
        chunk: Chunk,
        work: &mut Work,
    ) -> convert::error::Result<()> {
        let rows = chunk.first..chunk.first + chunk.rows;
        let own_row = |row| interleaved_row(self.row_head(), row);
        let changed = self.own.as_ref().and_then(|own| merging.changes.get(own));
        let is_gguf = match (&self.origin, weights) {
            (Origin::Gguf(index), _) => {
                self.read_gguf(merging, *index, chunk, work)?;
                true
            }
            (Origin::Folder(file, entry), Some(weights)) => {
                read_folder(weights, *file, entry, chunk, self.row(), work)?;
                false
            }
            (Origin::Folder(..), None) => return Err(convert::Error::Impossible(format!("{} is in no folder", self.name))),
        };
        if let Some(change) = changed {
            change.apply(rows.map(own_row), &mut work.numbers, length(self.row())?, &mut work.scratch)?;
        }
        // Whole norms that were trained are the GGUF file's, even where the others come from the folder.
        if self.less_one && (is_gguf || changed.is_some_and(|change| matches!(change, Change::Whole(_)))) {
            work.numbers.iter_mut().for_each(|number| *number -= 1.0);
        }
        if self.shape.len() == 1 && self.head.is_some() && (is_gguf || changed.is_some()) {
            let theirs = super::super::names::into_theirs(&work.numbers, 1, self.head);
            work.numbers.copy_from_slice(&theirs);
        }
        Ok(())
    }

    /// A vector is one row, in which numbers rather than rows change places.
    fn row_head(&self) -> Option<u64> {
        self.head.filter(|_| self.shape.len() > 1)
    }

    fn read_gguf(&self, merging: &Merging, index: usize, chunk: Chunk, work: &mut Work) -> convert::error::Result<()> {
        let tensor = &merging.base.header.tensors[index];
        let whole = Rows { first: chunk.first, count: chunk.rows };
        let Some(head) = self.row_head() else { return merging.base.numbers(tensor, whole, &mut work.raw, &mut work.numbers) };
        work.numbers.clear();
        for row in chunk.first..chunk.first + chunk.rows {
            let one = Rows { first: interleaved_row(Some(head), row), count: 1 };
            merging.base.numbers(tensor, one, &mut work.raw, &mut work.one)?;
            work.numbers.extend_from_slice(&work.one);
        }
        debug_assert_eq!((row(tensor), rows(tensor)), (self.row(), self.rows()));
        Ok(())
    }
}

fn read_folder(weights: &Weights, file: usize, entry: &Entry, chunk: Chunk, row: u64, work: &mut Work) -> convert::error::Result<()> {
    let row_bytes = row * entry.dtype.bytes();
    work.raw.clear();
    work.raw.resize(length(chunk.rows * row_bytes)?, 0);
    work.numbers.clear();
    work.numbers.resize(length(chunk.rows * row)?, 0.0);
    weights.read(file, entry.start + chunk.first * row_bytes, &mut work.raw)?;
    unpack(entry.dtype, &work.raw, &mut work.numbers).map_err(|error| convert::Error::malformed(&entry.name, error.to_string()))
}
