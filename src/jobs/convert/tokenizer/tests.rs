//! Tokenizers of small folders.

use std::fs;

use serde_json::json;

use super::*;

fn folder(files: &[(&str, Value)]) -> (tempfile::TempDir, Folder) {
    let place = tempfile::tempdir().expect("a folder");
    for (name, value) in files {
        fs::write(place.path().join(name), value.to_string()).expect("written");
    }
    let folder = Folder::open(place.path()).expect("open");
    (place, folder)
}

fn tokenizer_json(processor: &Value) -> Value {
    json!({
        "added_tokens": [
            {"id": 2, "content": "<|end|>", "special": false},
            {"id": 3, "content": "▁x", "special": false},
            {"id": 4, "content": "<s>", "special": true},
        ],
        "pre_tokenizer": {"type": "ByteLevel"},
        "post_processor": processor,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]},
    })
}

fn written(files: &[(&str, Value)]) -> Vec<(String, gguf::Value)> {
    let (_place, folder) = folder(files);
    let config = Config::parse(json!({"architectures": ["Qwen2ForCausalLM"], "vocab_size": 6, "eos_token_id": 1, "pad_token_id": [1]}))
        .expect("understood");
    let mut pairs = Pairs::default();
    write(&mut pairs, &folder, &config, None).expect("written");
    pairs.into_pairs()
}

#[test]
fn a_small_vocabulary_is_written_in_the_converters_order() {
    let processor =
        json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "pair": []});
    let settings = json!({"bos_token": {"content": "<s>"}, "eos_token": "<|end|>", "chat_template": "{{x}}", "add_eos_token": true});
    let pairs = written(&[("tokenizer.json", tokenizer_json(&processor)), ("tokenizer_config.json", settings)]);
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.trim_start_matches("tokenizer.")).collect();
    assert_eq!(
        keys,
        [
            "ggml.model",
            "ggml.pre",
            "ggml.tokens",
            "ggml.token_type",
            "ggml.merges",
            "ggml.bos_token_id",
            "ggml.eos_token_id",
            "ggml.add_bos_token",
            "ggml.add_eos_token",
            "chat_template"
        ]
    );
    let gguf::Value::Strings(tokens) = &pairs[2].1 else { panic!("tokens") };
    assert_eq!(tokens.iter().collect::<Vec<_>>(), [&b"a"[..], b"b", b"<|end|>", b" x", b"<s>", b"[PAD5]"]);
    assert_eq!(pairs[3].1, gguf::Value::I32s(vec![1, 1, 3, 4, 3, 5]));
    assert_eq!((&pairs[5].1, &pairs[6].1), (&gguf::Value::U32(4), &gguf::Value::U32(2)));
    assert_eq!((&pairs[7].1, &pairs[8].1), (&gguf::Value::Bool(true), &gguf::Value::Bool(true)));
}

#[test]
fn without_a_tokenizers_configuration_the_models_own_ids_count() {
    let pairs = written(&[("tokenizer.json", tokenizer_json(&json!({"type": "ByteLevel"})))]);
    let tail: Vec<_> = pairs.iter().skip(5).map(|(key, value)| (key.as_str(), value.clone())).collect();
    let expected = [
        ("tokenizer.ggml.eos_token_id", gguf::Value::U32(1)),
        ("tokenizer.ggml.add_bos_token", gguf::Value::Bool(false)),
        ("tokenizer.ggml.add_eos_token", gguf::Value::Bool(false)),
    ];
    assert_eq!(tail, expected);
}

#[test]
fn ids_beyond_the_vocabulary_are_refused() {
    let (_place, folder) = folder(&[("tokenizer.json", tokenizer_json(&Value::Null))]);
    let config = Config::parse(json!({"architectures": ["Qwen2ForCausalLM"], "vocab_size": 4})).expect("understood");
    let error = write(&mut Pairs::default(), &folder, &config, None).expect_err("too small").to_string();
    assert!(error.contains("ids reach 4"), "{error}");
}
