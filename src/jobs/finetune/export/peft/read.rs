//! An adapter's folder as parameters, for a training that goes on from it.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::super::Strengths;
use super::super::base::Base;
use super::super::change::{A, B, MAGNITUDE, changes};
use super::super::error::{Error, Result};
use super::super::names::{Names, into_own};
use crate::jobs::convert;
use crate::jobs::convert::adapter::settings::{self, Settings};
use crate::jobs::convert::adapter::{FILE, Role, role};
use crate::jobs::convert::folder::Folder;
use crate::jobs::convert::rows::{length, unpack};
use crate::jobs::convert::safetensors::{Dtype, Entry, Weights};
use crate::jobs::finetune::learner::Tensors;

/// Reads an adapter in PEFT's format that fits the GGUF file `base`.
///
/// # Errors
/// When it is of another kind, was trained on another model, or cannot be read.
pub fn read_peft(folder: &Path, base: &Path, device: &Device) -> Result<(Tensors, Strengths)> {
    let base = Base::open(base)?;
    let names = Names::of(&base)?;
    let folder = Folder::open(folder)?;
    let json = folder.json(settings::FILE)?;
    let json = json.ok_or_else(|| folder.lacks(settings::FILE, "give the folder of an adapter in PEFT's format"))?;
    let settings = Settings::trained(&json)?;
    if !folder.has(FILE) {
        return Err(folder.lacks(FILE, "the adapter's weights are read from it, in PEFT's format").into());
    }
    let weights = Weights::open_files(&folder, &[FILE.to_owned()])?;
    let mut parameters = Tensors::new();
    let mut strengths = Strengths::new(settings.alpha(""), settings.stabilized);
    for (_, entry) in weights.tensors() {
        let (module, role) = role(&entry.name);
        let (name, own) = named(&module, role, &names).ok_or_else(|| foreign(entry))?;
        if role == Role::A && settings.alpha(&module).to_bits() != strengths.alpha.to_bits() {
            strengths.alphas.insert(own.clone(), settings.alpha(&module));
        }
        parameters.insert(name, numbers(&weights, entry, role, &own, &names)?.to_device(device)?);
    }
    changes(&parameters, &strengths, &base)?;
    Ok((parameters, strengths))
}

fn foreign(entry: &Entry) -> Error {
    convert::Error::malformed(FILE, format!("{} changes a module that the base does not have: it is for another model", entry.name)).into()
}

/// What a parameter is called, and the module it belongs to.
fn named(module: &str, role: Role, names: &Names) -> Option<(String, String)> {
    let (module, part) = match role {
        Role::A => (module, A),
        Role::B => (module, B),
        Role::Magnitude => (module, MAGNITUDE),
        Role::Whole => module.rsplit_once('.')?,
    };
    let own = names.own(module)?;
    Some((format!("{own}.{part}"), own))
}

/// The numbers in the order of the base's file.
fn numbers(weights: &Weights, entry: &Entry, role: Role, own: &str, names: &Names) -> Result<Tensor> {
    let shape = entry.shape.iter().map(|dimension| length(*dimension)).collect::<convert::error::Result<Vec<_>>>()?;
    if matches!(entry.dtype, Dtype::Other { .. }) || shape.is_empty() {
        return Err(convert::Error::malformed(FILE, format!("{}: only F64, F32, F16 and BF16 can be read", entry.name)).into());
    }
    let (mut raw, mut numbers) = (vec![0; length(entry.size_bytes)?], vec![0.0; shape.iter().product()]);
    weights.read(0, entry.start, &mut raw)?;
    unpack(entry.dtype, &raw, &mut numbers).map_err(|error| convert::Error::malformed(FILE, error.to_string()))?;
    if role == Role::Whole && names.less_one(&format!("{own}.weight")) {
        for number in &mut numbers {
            *number += 1.0;
        }
    }
    let head = if role == Role::A { None } else { names.interleaved(own, entry.shape[0])? };
    let numbers = into_own(&numbers, numbers.len() / shape[0].max(1), head);
    Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
}
