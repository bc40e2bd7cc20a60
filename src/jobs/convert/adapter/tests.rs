//! Strengths by every setting, and what is refused.

use serde_json::json;

use super::*;

#[test]
fn strengths_follow_peft() {
    let scale = |settings: serde_json::Value, module: &str| Settings::parse(&settings).expect("understood").scale(module, 16);
    let q = "model.layers.0.self_attn.q_proj";
    assert_eq!(scale(json!({"lora_alpha": 8}), q).to_bits(), 0.5_f64.to_bits());
    assert_eq!(scale(json!({"lora_alpha": 16.5, "use_rslora": true}), q).to_bits(), (16.5_f64 / 4.0).to_bits());
    let patterns = json!({"lora_alpha": 8, "alpha_pattern": {"q_proj": 32, "layers.0.self_attn.k_proj": 16}});
    assert_eq!(scale(patterns.clone(), q).to_bits(), 2_f64.to_bits());
    assert_eq!(scale(patterns.clone(), "model.layers.0.self_attn.k_proj").to_bits(), 1_f64.to_bits());
    assert_eq!(scale(patterns.clone(), "model.layers.10.self_attn.k_proj").to_bits(), 0.5_f64.to_bits());
    assert_eq!(scale(patterns, "model.layers.0.self_attn.xq_proj").to_bits(), 0.5_f64.to_bits());
}

#[test]
fn what_cannot_be_merged_rightly_is_refused() {
    for (settings, what) in [
        (json!({"lora_alpha": 8, "peft_type": "IA3"}), "IA3"),
        (json!({"lora_alpha": 8, "use_dora": true}), "DoRA"),
        (json!({"lora_alpha": 8, "fan_in_fan_out": true}), "fan_in_fan_out"),
        (json!({"lora_alpha": 8, "modules_to_save": ["lm_head"]}), "modules_to_save"),
        (json!({"lora_alpha": 8, "alpha_pattern": {".*q_proj": 2}}), "alpha_pattern"),
        (json!({}), "lora_alpha"),
    ] {
        let error = Settings::parse(&settings).expect_err("refused").to_string();
        assert!(error.contains(what), "{error}");
    }
    Settings::parse(&json!({"lora_alpha": 8, "modules_to_save": null, "alpha_pattern": {}, "bias": "none"})).expect("understood");
}

#[test]
fn halves_are_told_apart_by_their_names() {
    let matrix = "model.layers.0.mlp.up_proj.weight".to_owned();
    assert_eq!(half("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight").expect("known"), (matrix.clone(), 0));
    assert_eq!(half("base_model.model.model.layers.0.mlp.up_proj.lora_B.default.weight").expect("known"), (matrix, 1));
    for name in ["x.lora_embedding_A", "x.lora_magnitude_vector", "base_model.model.lm_head.weight", "x.lora_A.bias"] {
        assert!(half(name).is_err(), "{name}");
    }
}

#[test]
fn rows_are_added_with_their_factors() {
    let mut sum = [1.0, 2.0];
    multiply(&mut sum, &[10.0, 100.0], &[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(sum.map(f32::to_bits), [311_f32, 422.0].map(f32::to_bits));
}
