//! Both layouts of configurations, and what is refused.

use serde_json::json;

use super::*;

fn parse(raw: Value) -> Config {
    Config::parse(raw).expect("understood")
}

#[test]
fn what_is_left_unsaid_is_what_the_classes_fill_in() {
    let llama = parse(json!({"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "num_attention_heads": 8}));
    assert_eq!((llama.kv_heads, llama.head_dim, llama.vocab_size, llama.rope.theta()), (8, Some(32), 32_000, Some(10_000.0)));
    let mistral = parse(json!({"architectures": ["MistralForCausalLM"], "head_dim": 128}));
    assert_eq!((mistral.kv_heads, mistral.head_dim, mistral.context), (8, Some(128), 131_072));
    let qwen2 = parse(json!({"architectures": ["Qwen2ForCausalLM"], "head_dim": null}));
    assert_eq!((qwen2.head_dim, qwen2.head_size(), qwen2.sliding_window), (None, 128, None));
    let gemma2 = parse(json!({"architectures": ["Gemma2ForCausalLM"]}));
    assert_eq!((gemma2.attention_softcap, gemma2.final_softcap, gemma2.sliding_window), (Some(50.0), Some(30.0), Some(4096)));
}

#[test]
fn gemma_3_is_read_in_both_layouts() {
    let four = json!({
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {
            "hidden_size": 2560, "rope_theta": 1_000_000.0, "rope_local_base_freq": 5000.0,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        },
    });
    let five = json!({
        "architectures": ["Gemma3ForCausalLM"], "hidden_size": 2560,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
        },
    });
    for config in [parse(four), parse(five)] {
        assert_eq!((config.rope.kind().as_str(), config.rope.number("factor")), ("linear", Some(8.0)));
        assert_eq!((config.rope.theta(), config.rope.sliding_theta), (Some(1e6), Some(5000.0)));
        assert_eq!((config.embedding, config.head_dim), (2560, Some(256)));
    }
    let silent = parse(json!({"architectures": ["Gemma3ForCausalLM"]}));
    assert_eq!((silent.rope.theta(), silent.rope.sliding_theta), (Some(1e6), Some(10_000.0)));
}

#[test]
fn scalings_are_read_in_both_layouts() {
    let scaling = json!({"rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 8192});
    let four = json!({"architectures": ["LlamaForCausalLM"], "rope_theta": 5e5, "rope_scaling": scaling});
    let mut parameters = scaling.clone();
    parameters["rope_theta"] = json!(5e5);
    let five = json!({"architectures": ["LlamaForCausalLM"], "rope_parameters": parameters});
    for config in [parse(four), parse(five)] {
        assert_eq!((config.rope.kind().as_str(), config.rope.theta(), config.rope.number("factor")), ("llama3", Some(5e5), Some(32.0)));
    }
    let old = parse(json!({"architectures": ["Qwen2ForCausalLM"], "rope_scaling": {"type": "yarn", "factor": 4.0}}));
    assert_eq!(old.rope.kind(), "yarn");
}

#[test]
fn what_is_not_understood_is_refused_with_what_is() {
    let error = |raw| Config::parse(raw).expect_err("refused").to_string();
    let mixtral = error(json!({"architectures": ["MixtralForCausalLM"]}));
    assert!(mixtral.contains("MixtralForCausalLM") && mixtral.contains("Qwen3ForCausalLM"), "{mixtral}");
    assert!(error(json!({})).contains("architectures"));
    assert!(error(json!({"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "gptq"}})).contains("gptq"));
    for (key, value) in [
        ("num_attention_heads", json!(0)),
        ("num_hidden_layers", json!(1_u64 << 40)),
        ("hidden_size", json!(-4)),
        ("hidden_size", json!("4")),
        ("vocab_size", json!(1.5)),
        ("head_dim", json!(0)),
    ] {
        let mut raw = json!({"architectures": ["LlamaForCausalLM"]});
        raw[key] = value;
        assert!(error(raw).contains(key), "{key}");
    }
}
