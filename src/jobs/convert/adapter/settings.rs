//! `adapter_config.json`: how strongly an adapter acts, and whether it is one that can be merged here.

use serde_json::{Map, Value};

use super::super::error::{Error, Result, shown};
use super::super::folder::Folder;

pub(in crate::jobs) const FILE: &str = "adapter_config.json";

#[derive(Debug)]
pub(in crate::jobs) struct Settings {
    alpha: f64,
    /// Alphas of modules whose names end so.
    alphas: Vec<(String, f64)>,
    /// Rank-stabilised: the root of the rank takes its place.
    pub(in crate::jobs) stabilized: bool,
}

impl Settings {
    pub(super) fn read(folder: &Folder) -> Result<Self> {
        let json = folder.json(FILE)?.ok_or_else(|| folder.lacks(FILE, "give the folder of an adapter in PEFT's format"))?;
        Self::parse(&json)
    }

    pub(super) fn parse(json: &Value) -> Result<Self> {
        refuse_merging(json)?;
        Self::trained(json)
    }

    /// How strongly the matrices of an adapter act, whatever else it brings.
    pub(in crate::jobs) fn trained(json: &Value) -> Result<Self> {
        refuse(json)?;
        let number = |key: &str| json.get(key).and_then(Value::as_f64).filter(|number| number.is_finite());
        let alpha = number("lora_alpha").ok_or_else(|| Error::malformed(FILE, "there is no number `lora_alpha`"))?;
        let none = Map::new();
        let patterns = json.get("alpha_pattern").and_then(Value::as_object).unwrap_or(&none);
        let alphas = patterns.iter().map(|(pattern, alpha)| pattern_of(pattern, alpha)).collect::<Result<_>>()?;
        Ok(Self { alpha, alphas, stabilized: flag(json, "use_rslora") })
    }

    /// A module's alpha.
    pub(in crate::jobs) fn alpha(&self, module: &str) -> f64 {
        let own = self
            .alphas
            .iter()
            .find(|(pattern, _)| module.strip_suffix(pattern.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
        own.map_or(self.alpha, |(_, alpha)| *alpha)
    }

    /// By how much the product of a module's two matrices is multiplied. Ranks by pattern are in the matrices themselves.
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    pub(super) fn scale(&self, module: &str, rank: u64) -> f64 {
        let rank = rank as f64;
        self.alpha(module) / if self.stabilized { rank.sqrt() } else { rank }
    }
}

fn flag(json: &Value, key: &str) -> bool {
    json.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// A pattern is a regular expression to PEFT; those that people write are plain ends of names.
fn pattern_of(pattern: &str, alpha: &Value) -> Result<(String, f64)> {
    let plain = !pattern.is_empty() && pattern.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_'));
    match alpha.as_f64() {
        Some(alpha) if plain && alpha.is_finite() => Ok((pattern.to_owned(), alpha)),
        _ => Err(Error::Unsupported {
            what: format!("the entry {} of `alpha_pattern`", shown(pattern)),
            supported: "ends of modules' names with a number each; write the names out".to_owned(),
        }),
    }
}

/// Refuses what is no low-rank adapter of linear layers as they are.
fn refuse(json: &Value) -> Result<()> {
    let kind = json.get("peft_type").and_then(Value::as_str).unwrap_or("LORA");
    let what = if kind != "LORA" {
        format!("an adapter of the kind {}", shown(kind))
    } else if flag(json, "fan_in_fan_out") {
        "an adapter of transposed matrices (fan_in_fan_out)".to_owned()
    } else if flag(json, "lora_bias") {
        "an adapter with biases (lora_bias)".to_owned()
    } else {
        return Ok(());
    };
    Err(unsupported(what))
}

/// Refuses what adds more than a product of two matrices.
fn refuse_merging(json: &Value) -> Result<()> {
    let full = |key: &str| {
        json.get(key).is_some_and(|value| !matches!(value, Value::Null) && value.as_array().is_none_or(|list| !list.is_empty()))
    };
    let what = if flag(json, "use_dora") {
        "an adapter with magnitudes (DoRA)"
    } else if full("modules_to_save") {
        "an adapter that brings whole modules (modules_to_save)"
    } else {
        return Ok(());
    };
    Err(unsupported(what.to_owned()))
}

fn unsupported(what: String) -> Error {
    Error::Unsupported {
        what,
        supported: "LoRA and rsLoRA on linear layers; merge this one with PEFT itself and convert the result".to_owned(),
    }
}
