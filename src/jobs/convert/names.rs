//! What llama.cpp calls the tensors of a Hugging Face model.

use super::config::{Config, Family};

/// Endings of tensors that are buffers, not weights.
const BUFFERS: [&str; 3] = [".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq"];
/// Parts of names in models that see or hear: only their language model is converted.
const OTHER_SENSES: [&str; 13] = [
    "visual.",
    "vision.",
    "audio.",
    "vision_",
    "audio_",
    "projector.",
    "pre_mm_projector_norm",
    "image_newline",
    "view_seperator",
    "patch_embed",
    "patch_merger.",
    "patch_merge_mlp.",
    "model.connector.",
];

/// The name without what wraps the language model; `None` for a tensor that is left out.
pub(in crate::jobs) fn wanted(name: &str, family: Family) -> Option<String> {
    let left_out = BUFFERS.iter().any(|ending| name.ends_with(ending))
        || OTHER_SENSES.iter().any(|part| name.contains(part))
        || ["mlp", "vit.", "vpm.", "siglip2."].iter().any(|start| name.starts_with(start))
        // The first two Gemmas have no head of their own, also where somebody saved one.
        || (name == "lm_head.weight" && matches!(family, Family::Gemma | Family::Gemma2));
    (!left_out).then(|| name.replace("language_model.", ""))
}

/// llama.cpp's name of a weight or bias; `None` if it has none for it.
pub(super) fn translated(name: &str, config: &Config) -> Option<String> {
    own_name(name, config.family, config.layers)
}

/// The same for a model of which only the family and the number of layers are known.
pub(in crate::jobs) fn own_name(name: &str, family: Family, layers: u64) -> Option<String> {
    let (stem, ending) = name.rsplit_once('.').filter(|(_, ending)| matches!(*ending, "weight" | "bias"))?;
    let own = match stem {
        "model.embed_tokens" => "token_embd".to_owned(),
        "model.norm" => "output_norm".to_owned(),
        "lm_head" => "output".to_owned(),
        _ => {
            let (layer, part) = stem.strip_prefix("model.layers.")?.split_once('.')?;
            let number: u64 = layer.parse().ok().filter(|number| *number < layers)?;
            format!("blk.{number}.{}", part_of_layer(part, family)?)
        }
    };
    Some(format!("{own}.{ending}"))
}

pub(in crate::jobs) fn part_of_layer(part: &str, family: Family) -> Option<&'static str> {
    let sandwiched = matches!(family, Family::Gemma2 | Family::Gemma3);
    Some(match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.qkv_proj" if family == Family::Phi3 => "attn_qkv",
        "self_attn.q_norm" if matches!(family, Family::Gemma3 | Family::Qwen3) => "attn_q_norm",
        "self_attn.k_norm" if matches!(family, Family::Gemma3 | Family::Qwen3) => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        // Both halves stay in one tensor.
        "mlp.gate_up_proj" if family == Family::Phi3 => "ffn_up",
        "post_attention_layernorm" if sandwiched => "post_attention_norm",
        "post_attention_layernorm" => "ffn_norm",
        "pre_feedforward_layernorm" if sandwiched => "ffn_norm",
        "post_feedforward_layernorm" if sandwiched => "post_ffw_norm",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(architecture: &str) -> Config {
        Config::parse(json!({"architectures": [architecture], "num_hidden_layers": 12})).expect("understood")
    }

    #[test]
    fn names_are_llama_cpps() {
        let (llama, gemma, phi) = (config("LlamaForCausalLM"), config("Gemma3ForCausalLM"), config("Phi3ForCausalLM"));
        for (config, name, expected) in [
            (&llama, "model.embed_tokens.weight", "token_embd.weight"),
            (&llama, "lm_head.weight", "output.weight"),
            (&llama, "model.layers.11.self_attn.q_proj.bias", "blk.11.attn_q.bias"),
            (&llama, "model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            (&gemma, "model.layers.0.post_attention_layernorm.weight", "blk.0.post_attention_norm.weight"),
            (&gemma, "model.layers.0.pre_feedforward_layernorm.weight", "blk.0.ffn_norm.weight"),
            (&gemma, "model.layers.0.self_attn.k_norm.weight", "blk.0.attn_k_norm.weight"),
            (&phi, "model.layers.3.mlp.gate_up_proj.weight", "blk.3.ffn_up.weight"),
        ] {
            assert_eq!(translated(name, config).as_deref(), Some(expected));
        }
        for name in
            ["model.layers.12.mlp.up_proj.weight", "model.layers.x.mlp.up_proj.weight", "model.norm", "model.layers.0.mystery.weight"]
        {
            assert_eq!(translated(name, &llama), None, "{name}");
        }
    }

    #[test]
    fn only_the_language_model_is_wanted() {
        for name in ["vision_tower.x.weight", "multi_modal_projector.mm.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"] {
            assert_eq!(wanted(name, Family::Gemma3), None, "{name}");
        }
        let wrapped = wanted("language_model.model.layers.0.mlp.up_proj.weight", Family::Gemma3);
        assert_eq!(wrapped.as_deref(), Some("model.layers.0.mlp.up_proj.weight"));
        assert_eq!(wanted("lm_head.weight", Family::Gemma2), None);
        assert!(wanted("lm_head.weight", Family::Gemma3).is_some());
    }
}
