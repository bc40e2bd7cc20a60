//! `adapter_config.json`.
//!
//! A setting that most modules share is written once; those of other modules come in patterns, by the short name of the module
//! (`q_proj`) where all of that name agree, else by the full one.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// One adapted module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Module {
    /// As Hugging Face's model names it: `model.layers.3.self_attn.q_proj`.
    pub(super) name: String,
    pub(super) rank: usize,
    pub(super) alpha: f64,
}

/// What is the same for all.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Common {
    pub(super) base: Option<String>,
    pub(super) dropout: f64,
    pub(super) rank_stabilized: bool,
    pub(super) magnitudes: bool,
    /// Modules that are trained whole.
    pub(super) whole: Vec<String>,
    pub(super) layers: u64,
}

impl Module {
    fn short(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// The configuration of an adapter of these modules.
pub(super) fn config(modules: &[Module], common: &Common) -> Value {
    let (rank, ranks) = setting(modules, |module| json!(module.rank));
    let (alpha, alphas) = setting(modules, |module| number(module.alpha));
    let whole = if common.whole.is_empty() { Value::Null } else { json!(common.whole) };
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": common.base,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": common.dropout,
        "target_modules": targets(modules, common.layers),
        "bias": "none",
        "fan_in_fan_out": false,
        "use_rslora": common.rank_stabilized,
        "use_dora": common.magnitudes,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "modules_to_save": whole,
    })
}

/// A whole number is written as one: that is what people expect of an alpha.
#[expect(clippy::cast_possible_truncation, reason = "whole numbers of this size are exact")]
fn number(alpha: f64) -> Value {
    if alpha.fract() == 0.0 && alpha.abs() < 1e9 { json!(alpha as i64) } else { json!(alpha) }
}

fn by_short_name(modules: &[Module]) -> BTreeMap<&str, Vec<&Module>> {
    let mut groups = BTreeMap::<&str, Vec<&Module>>::new();
    for module in modules {
        groups.entry(module.short()).or_default().push(module);
    }
    groups
}

/// The value that most modules have, and a pattern for the others.
fn setting(modules: &[Module], value: impl Fn(&Module) -> Value) -> (Value, Map<String, Value>) {
    let count = |wanted: &Value| modules.iter().filter(|module| value(module) == *wanted).count();
    // Of several that are as frequent, the one that comes first.
    let usual = modules.iter().map(&value).rev().max_by_key(count).unwrap_or_default();
    let mut pattern = Map::new();
    for (short, group) in by_short_name(modules) {
        let first = value(group[0]);
        if group.iter().all(|module| value(module) == first) {
            if first != usual {
                pattern.insert(short.to_owned(), first);
            }
            continue;
        }
        for module in group.into_iter().filter(|module| value(module) != usual) {
            pattern.insert(module.name.clone(), value(module));
        }
    }
    (usual, pattern)
}

/// Short names of modules that are adapted in all layers, full names of the others.
fn targets(modules: &[Module], layers: u64) -> Vec<String> {
    let mut targets = Vec::new();
    for (short, group) in by_short_name(modules) {
        let everywhere = group.len() as u64 == layers || group.iter().all(|module| module.name == short);
        if everywhere { targets.push(short.to_owned()) } else { targets.extend(group.iter().map(|module| module.name.clone())) }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(layer: usize, short: &str, rank: usize, alpha: f64) -> Module {
        Module { name: format!("model.layers.{layer}.{short}"), rank, alpha }
    }

    fn of(modules: &[Module]) -> Value {
        config(modules, &Common { layers: 2, ..Common::default() })
    }

    #[test]
    fn what_all_share_is_said_once() {
        let all: Vec<_> = (0..2).flat_map(|layer| ["self_attn.q_proj", "mlp.up_proj"].map(|short| module(layer, short, 8, 16.0))).collect();
        let config = of(&all);
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(8), &json!(16)));
        assert_eq!(config["target_modules"], json!(["q_proj", "up_proj"]));
        assert_eq!((&config["rank_pattern"], &config["alpha_pattern"], &config["modules_to_save"]), (&json!({}), &json!({}), &Value::Null));
    }

    #[test]
    fn what_differs_is_said_by_short_names_where_those_agree() {
        let all = [
            module(0, "self_attn.q_proj", 8, 16.0),
            module(0, "mlp.up_proj", 4, 16.0),
            module(1, "self_attn.q_proj", 8, 12.5),
            module(1, "mlp.up_proj", 4, 16.0),
            Module { name: "lm_head".into(), rank: 8, alpha: 16.0 },
        ];
        let config = of(&all);
        assert_eq!((&config["r"], &config["rank_pattern"]), (&json!(8), &json!({"up_proj": 4})));
        assert_eq!((&config["lora_alpha"], &config["alpha_pattern"]), (&json!(16), &json!({"model.layers.1.self_attn.q_proj": 12.5})));
        assert_eq!(config["target_modules"], json!(["lm_head", "q_proj", "up_proj"]));
        assert_eq!(of(&all[..1])["target_modules"], json!(["model.layers.0.self_attn.q_proj"]));
    }
}
