//! Trained parameters as an adapter's folder.

use std::path::{Path, PathBuf};

use super::super::Trained;
use super::super::base::Base;
use super::super::change::{A, B, MAGNITUDE, changes};
use super::super::error::{Error, Result};
use super::super::names::{Names, into_theirs};
use super::super::safetensors::{Entry, header};
use super::super::staged::Staged;
use super::config::{Common, Module, config};
use crate::jobs::convert::adapter::{FILE, settings};
use crate::jobs::convert::output::Output;

/// How an adapter is to be written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeftOptions {
    /// The folder, which must not be there yet.
    pub path: PathBuf,
    /// What PEFT shall load the adapter onto: a folder, or a name on the Hub.
    pub base: Option<String>,
    /// What was dropped while training; only told.
    pub dropout: f64,
}

/// An adapter that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    pub path: PathBuf,
    /// Of its weights, in hexadecimal.
    pub sha256: String,
    /// Of its weights.
    pub size_bytes: u64,
    pub tensors: usize,
}

/// A parameter and what becomes of it.
struct Tensor<'a> {
    parameter: &'a str,
    entry: Entry,
    /// Rows of one head, where they change places.
    head: Option<u64>,
    less_one: bool,
}

/// Writes an adapter that `peft` loads.
///
/// # Errors
/// When PEFT has no words for what was trained, when the parameters do not fit the base, or when something cannot be written.
pub fn write_peft(trained: &Trained<'_>, options: &PeftOptions) -> Result<Adapter> {
    let base = Base::open(trained.base)?;
    changes(trained.parameters, trained.strengths, &base)?;
    let names = Names::of(&base)?;
    let mut tensors = trained.parameters.keys().map(|name| tensor(name, trained, &names)).collect::<Result<Vec<_>>>()?;
    tensors.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    let config = described(trained, &names, options)?;
    let staged = Staged::create(&options.path)?;
    staged.write_json(settings::FILE, &config)?;
    let (sha256, size_bytes) = weights(trained, &tensors, &staged.file(FILE))?;
    staged.keep()?;
    Ok(Adapter { path: options.path.clone(), sha256, size_bytes, tensors: tensors.len() })
}

fn weights(trained: &Trained<'_>, tensors: &[Tensor<'_>], path: &Path) -> Result<(String, u64)> {
    let entries: Vec<Entry> = tensors.iter().map(|tensor| tensor.entry.clone()).collect();
    let header = header(&entries);
    let size_bytes = header.len() as u64 + entries.iter().map(|entry| entry.size_bytes).sum::<u64>();
    let mut output = Output::create(path, size_bytes, false)?;
    output.write(&header)?;
    for tensor in tensors {
        let numbers = trained.parameters[tensor.parameter].flatten_all()?.to_vec1::<f32>()?;
        let width = numbers.len() / usize::try_from(tensor.entry.shape[0]).unwrap_or(usize::MAX).max(1);
        let numbers = into_theirs(&numbers, width, tensor.head);
        let bytes: Vec<u8> = numbers.iter().map(|n| if tensor.less_one { n - 1.0 } else { *n }).flat_map(f32::to_le_bytes).collect();
        output.write(&bytes)?;
    }
    Ok((output.keep()?, size_bytes))
}

fn tensor<'a>(parameter: &'a str, trained: &Trained<'_>, names: &Names) -> Result<Tensor<'a>> {
    let (own, part) = parameter.rsplit_once('.').unwrap_or((parameter, ""));
    if own == "token_embd" && part != "weight" {
        let what = "an adapter of the embedding".to_owned();
        return Err(Error::Form { what, form: "a PEFT adapter of linear layers", instead: "merge it into a GGUF file" });
    }
    let module = names.module(own).ok_or_else(|| Error::parameter(parameter, "has no counterpart in Hugging Face's model"))?;
    let numbers = &trained.parameters[parameter];
    let shape: Vec<u64> = numbers.dims().iter().map(|dimension| *dimension as u64).collect();
    let rows = shape.first().copied().unwrap_or(0);
    let (ending, has_outputs) = match part {
        A => ("lora_A.weight", false),
        B => ("lora_B.weight", true),
        MAGNITUDE => ("lora_magnitude_vector", true),
        whole => (whole, true),
    };
    Ok(Tensor {
        parameter,
        entry: Entry {
            name: format!("base_model.model.{module}.{ending}"),
            dtype: "F32",
            size_bytes: 4 * shape.iter().product::<u64>(),
            shape,
        },
        head: if has_outputs { names.interleaved(own, rows)? } else { None },
        less_one: names.less_one(parameter),
    })
}

/// What the configuration says.
fn described(trained: &Trained<'_>, names: &Names, options: &PeftOptions) -> Result<serde_json::Value> {
    let (mut modules, mut whole, mut magnitudes) = (Vec::new(), Vec::new(), 0);
    for (parameter, numbers) in trained.parameters {
        let (own, part) = parameter.rsplit_once('.').unwrap_or((parameter, ""));
        let name = names.module(own).unwrap_or_default();
        match part {
            A => modules.push(Module { name, rank: numbers.dims2()?.0, alpha: trained.strengths.alpha_of(own) }),
            MAGNITUDE => magnitudes += 1,
            "weight" | "bias" if whole.last() != Some(&name) => whole.push(name),
            _ => {}
        }
    }
    expect_expressible(&modules, &whole, magnitudes)?;
    let common = Common {
        base: options.base.clone(),
        dropout: options.dropout,
        rank_stabilized: trained.strengths.rank_stabilized,
        magnitudes: magnitudes > 0,
        whole,
        layers: names.layers,
    };
    Ok(config(&modules, &common))
}

fn expect_expressible(modules: &[Module], whole: &[String], magnitudes: usize) -> Result<()> {
    let what = if modules.is_empty() {
        "a training without adapters"
    } else if magnitudes > 0 && magnitudes < modules.len() {
        "an adapter of which only some matrices have magnitudes"
    } else if whole.iter().any(|whole| modules.iter().any(|module| module.name == *whole)) {
        "an adapter of matrices whose biases are trained, too,"
    } else {
        return Ok(());
    };
    Err(Error::Form { what: what.to_owned(), form: "a PEFT adapter", instead: "write merged weights" })
}
