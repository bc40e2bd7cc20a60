//! What training did to one tensor of the base, and how its rows become those of the trained model.
//!
//! Low-rank: W becomes W + s·B·A, with s = alpha/r, or alpha/√r where ranks are stabilised (Kalajdzievski 2023); with magnitudes (DoRA,
//! Liu et al. 2024) every row of that is then scaled to the length that its magnitude says, as PEFT does. Whole: the base's numbers give
//! way to others. All in F32, row by row.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::Strengths;
use super::base::Base;
use super::error::{Error, Result};
use crate::jobs::convert;
use crate::jobs::convert::adapter::multiply;
use crate::jobs::convert::rows::length;
use crate::jobs::finetune::learner::Tensors;

/// Endings of names of parameters.
pub(super) const A: &str = "lora_a";
pub(super) const B: &str = "lora_b";
pub(super) const MAGNITUDE: &str = "magnitude";

#[derive(Debug)]
pub(super) enum Change {
    LowRank(LowRank),
    /// Rows of the whole tensor, on the CPU.
    Whole(Tensor),
}

#[derive(Debug)]
pub(super) struct LowRank {
    pub(super) rank: usize,
    pub(super) scale: f32,
    /// Rank × inputs.
    a: Vec<f32>,
    /// Outputs × rank.
    b: Vec<f32>,
    magnitude: Option<Vec<f32>>,
}

/// The changes by the name of the tensor they are for (`blk.3.attn_q.weight`). Adapters that change nothing are left out.
pub(super) type Changes = BTreeMap<String, Change>;

/// What a parameter is called and what it is to the tensor of that name.
fn parts(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or((name, ""))
}

/// Takes the parameters for what they are to the base.
pub(super) fn changes(parameters: &Tensors, strengths: &Strengths, base: &Base) -> Result<Changes> {
    let mut changes = Changes::new();
    for (name, parameter) in parameters {
        let (module, part) = parts(name);
        let (tensor, change) = match part {
            A => (format!("{module}.weight"), low_rank(module, parameter, parameters, strengths)?),
            B | MAGNITUDE if parameters.contains_key(&format!("{module}.{A}")) => continue,
            "weight" | "bias" => (name.clone(), Some(Change::Whole(on_cpu(name, parameter)?))),
            _ => return Err(Error::parameter(name, "is none of a known kind")),
        };
        if let Some(change) = change {
            expect_fit(&tensor, &change, base)?;
            if changes.insert(tensor, change).is_some() {
                return Err(Error::parameter(name, "is trained as a whole and by an adapter, which cannot both be"));
            }
        }
    }
    Ok(changes)
}

fn low_rank(module: &str, a: &Tensor, parameters: &Tensors, strengths: &Strengths) -> Result<Option<Change>> {
    let (name, b_name) = (format!("{module}.{A}"), format!("{module}.{B}"));
    let b = parameters.get(&b_name).ok_or_else(|| Error::parameter(&name, "has no lora_b beside it"))?;
    let ((rank, _), (_, other)) = (a.dims2()?, b.dims2()?);
    if rank != other || rank == 0 {
        return Err(Error::parameter(&name, format!("has rank {rank}, and its lora_b has {other}")));
    }
    let magnitude_name = format!("{module}.{MAGNITUDE}");
    let magnitude = parameters.get(&magnitude_name).map(|magnitude| flat(&magnitude_name, magnitude)).transpose()?;
    let (a, b) = (flat(&name, a)?, flat(&b_name, b)?);
    if magnitude.is_none() && (b.iter().all(|number| *number == 0.0) || a.iter().all(|number| *number == 0.0)) {
        return Ok(None);
    }
    #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
    let scale = strengths.scale(module, rank) as f32;
    Ok(Some(Change::LowRank(LowRank { rank, scale, a, b, magnitude })))
}

/// A parameter where its rows can be read, when all of its numbers are such.
fn on_cpu(name: &str, parameter: &Tensor) -> Result<Tensor> {
    let parameter = parameter.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
    for row in 0..parameter.dims().first().copied().unwrap_or(0) {
        let numbers = parameter.get(row)?.flatten_all()?.to_vec1::<f32>()?;
        if !numbers.iter().all(|number| number.is_finite()) {
            return Err(Error::parameter(name, "has numbers that are infinite or none: the training went wrong"));
        }
    }
    Ok(parameter)
}

fn flat(name: &str, parameter: &Tensor) -> Result<Vec<f32>> {
    Ok(on_cpu(name, parameter)?.flatten_all()?.to_vec1()?)
}

fn expect_fit(tensor: &str, change: &Change, base: &Base) -> Result<()> {
    let info = base.header.tensor(tensor);
    let info =
        info.ok_or_else(|| Error::parameter(tensor, format!("is none of {}: it was trained on another model", base.path.display())))?;
    let found: Vec<u64> = match change {
        Change::LowRank(low) => vec![(low.a.len() / low.rank) as u64, (low.b.len() / low.rank) as u64],
        Change::Whole(numbers) => numbers.dims().iter().rev().map(|dimension| *dimension as u64).collect(),
    };
    let magnitudes =
        if let Change::LowRank(LowRank { magnitude: Some(all), b, rank, .. }) = change { all.len() == b.len() / rank } else { true };
    if found == info.dimensions && magnitudes {
        return Ok(());
    }
    Err(Error::parameter(tensor, format!("is for a matrix of {found:?}, the base has {:?}", info.dimensions)))
}

impl Change {
    /// Turns rows of the base into the trained ones. `rows`: which rows of the tensor these are, in the order of the base's file.
    pub(super) fn apply(
        &self,
        rows: impl Iterator<Item = u64>,
        numbers: &mut [f32],
        width: usize,
        scratch: &mut Vec<f32>,
    ) -> convert::error::Result<()> {
        for (row, numbers) in rows.zip(numbers.chunks_exact_mut(width)) {
            let row = length(row)?;
            match self {
                Self::LowRank(low) => low.apply(row, numbers, scratch),
                Self::Whole(whole) => copy_row(whole, row, numbers).map_err(|error| convert::Error::Impossible(error.to_string()))?,
            }
        }
        Ok(())
    }
}

impl LowRank {
    fn apply(&self, row: usize, numbers: &mut [f32], sum: &mut Vec<f32>) {
        sum.clear();
        sum.resize(numbers.len(), 0.0);
        multiply(sum, &self.b[row * self.rank..(row + 1) * self.rank], &self.a);
        for (number, sum) in numbers.iter_mut().zip(&*sum) {
            *number += self.scale * sum;
        }
        if let Some(magnitude) = &self.magnitude {
            rescale(numbers, magnitude[row]);
        }
    }
}

/// Gives a row this length; one of zeros has no direction and stays.
fn rescale(numbers: &mut [f32], to: f32) {
    #[expect(clippy::cast_possible_truncation, reason = "torch, too, has the length as f32")]
    let norm = numbers.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt() as f32;
    if norm > 0.0 {
        for number in numbers {
            *number *= to / norm;
        }
    }
}

fn copy_row(whole: &Tensor, row: usize, numbers: &mut [f32]) -> candle_core::Result<()> {
    // A vector is one row.
    let row = if whole.rank() < 2 { whole.clone() } else { whole.flatten_to(whole.rank() - 2)?.get(row)? };
    numbers.copy_from_slice(&row.to_vec1::<f32>()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_added_to_and_then_scaled_to_their_magnitudes() {
        let mut low = LowRank { rank: 2, scale: 0.5, a: vec![1.0, 2.0, 3.0, 4.0], b: vec![0.0, 0.0, 2.0, 4.0], magnitude: None };
        let apply = |low: &LowRank| {
            let mut numbers = [1.0, 1.0];
            low.apply(1, &mut numbers, &mut Vec::new());
            numbers
        };
        // 1 + 0.5 (2·1 + 4·3), 1 + 0.5 (2·2 + 4·4)
        assert_eq!(apply(&low).map(f32::to_bits), [8_f32, 11.0].map(f32::to_bits));
        low.magnitude = Some(vec![9.0, 10.0]);
        let scaled = apply(&low);
        let length = (64_f32 + 121.0).sqrt();
        assert!((scaled[0] - 80.0 / length).abs() < 1e-6 && (scaled[1] - 110.0 / length).abs() < 1e-6, "{scaled:?}");
        let mut zeros = [0.0; 2];
        rescale(&mut zeros, 3.0);
        assert_eq!(zeros.map(f32::to_bits), [0; 2]);
    }

    #[test]
    fn rows_of_a_whole_tensor_take_the_place_of_the_bases() {
        let whole = Tensor::from_vec(vec![1_f32, 2.0, 3.0, 4.0, 5.0, 6.0], (3, 2), &Device::Cpu).expect("made");
        let mut numbers = [0.0; 4];
        Change::Whole(whole).apply([2, 0].into_iter(), &mut numbers, 2, &mut Vec::new()).expect("copied");
        assert_eq!(numbers.map(f32::to_bits), [5_f32, 6.0, 1.0, 2.0].map(f32::to_bits));
    }
}
