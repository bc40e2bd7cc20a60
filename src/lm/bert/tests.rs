//! Against a live server's vectors for the same model, and against Hugging Face's tokenizer.

use std::path::PathBuf;

use serde_json::Value;

use super::*;

/// The model that `make model` fetches.
fn folder() -> PathBuf {
    // Tests run from a build's folder, which is where it is kept.
    let executable = std::env::current_exe().expect("a path");
    let target = executable.ancestors().find(|path| path.join("models").is_dir()).expect("`make model` was run");
    target.join("models/all-minilm-l6-v2")
}

fn embedder() -> Embedder {
    Embedder::open(&folder(), &Device::cpu(Some(1))).expect("`make model` was run")
}

/// The texts and vectors of all recorded exchanges.
fn recorded() -> Vec<(String, Vec<f32>)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ollama-transcripts/native-embed.jsonl");
    let mut found = Vec::new();
    for line in std::fs::read_to_string(path).expect("a fixture").lines() {
        let exchange: Value = serde_json::from_str(line).expect("json");
        let asked = &exchange["request"]["body"];
        let body: String = exchange["response"]["chunks"].as_array().expect("chunks").iter().filter_map(Value::as_str).collect();
        let Ok(answer) = serde_json::from_str::<Value>(&body) else { continue };
        let texts =
            if asked["input"].is_string() { vec![asked["input"].clone()] } else { asked["input"].as_array().cloned().unwrap_or_default() };
        for (text, vector) in texts.iter().zip(answer["embeddings"].as_array().into_iter().flatten()) {
            let vector: Vec<f32> = serde_json::from_value(vector.clone()).expect("numbers");
            if vector.len() == 384 {
                found.push((text.as_str().expect("text").to_owned(), vector));
            }
        }
    }
    found
}

#[test]
fn vectors_are_those_of_a_live_server() {
    let embedder = embedder();
    let recorded = recorded();
    assert!(recorded.len() >= 6, "only {}", recorded.len());
    for (text, theirs) in recorded {
        let ours = embedder.embed(&text).expect("a vector");
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        let cosine = dot(&ours, &theirs) / (dot(&ours, &ours) * dot(&theirs, &theirs)).sqrt();
        let start: String = text.chars().take(30).collect();
        assert!(cosine >= 0.9999, "{start}: {cosine}");
        assert!((dot(&ours, &ours) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn tokens_are_those_of_the_reference() {
    let path = folder().join(TOKENIZER);
    let ours = WordPiece::read(&path, 30_522).expect("a tokenizer");
    let mut reference = tokenizers::Tokenizer::from_file(&path).expect("a tokenizer");
    reference.with_truncation(None).expect("none").with_padding(None);
    for text in [
        "Hello, World! Don't panic.",
        "",
        "  spaces \t and\nlines\u{a0}between ",
        "Ünïcödé Straße ÅNGSTRÖM İstanbul ǅ",
        "漢字とかな 中文字符 한국어",
        "नमस्ते दुनिया العربية עִבְרִית",
        "zero\u{200b}width\u{ad}soft\u{0}nul\u{fffd}bad\u{7}bell",
        "unaffable electroencephalographically antidisestablishmentarianism",
        "a—b «c» … ¿d? $5 <e> ^f` |g~",
        "🦀 emoji 🦀🦀 \u{1d54f}",
        &"x".repeat(101),
        &"ab ".repeat(300),
    ] {
        let theirs = reference.encode(text, true).expect("encoded");
        assert_eq!(ours.tokens(text, 10_000), theirs.get_ids(), "{text:?}");
    }
    assert_eq!(ours.tokens(&"ab ".repeat(600), 512).len(), 512);
}

#[test]
fn a_folder_without_a_model_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(matches!(Embedder::open(folder.path(), &Device::cpu(Some(1))), Err(Error::Io(_))));
    assert!(needed_bytes(folder.path()).is_err());
}
