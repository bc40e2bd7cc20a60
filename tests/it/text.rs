//! The tokenizer against llama.cpp, on the strings of `tests/golden/tokens.py`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arriero::gguf::Header;
use arriero::lm::tokenizer::{Encode, Tokenizer};
use serde_json::Value;

use crate::support::demo_model;

const PLAIN: Encode = Encode { add_bos: false, parse_special: false };
const SPECIAL: Encode = Encode { add_bos: true, parse_special: true };

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden() -> Value {
    let text = std::fs::read_to_string(golden_folder().join("tokens.json")).expect("the golden file");
    serde_json::from_str(&text).expect("JSON")
}

fn texts(golden: &Value) -> Vec<String> {
    let short = golden["texts"].as_array().expect("texts").iter().map(|text| text.as_str().expect("text").to_owned());
    let long = golden["long"].as_array().expect("long texts").iter().map(|pair| {
        let times = usize::try_from(pair[1].as_u64().expect("a number")).expect("small");
        pair[0].as_str().expect("text").repeat(times)
    });
    short.chain(long).collect()
}

fn load(path: &Path) -> Tokenizer {
    Tokenizer::from_header(&Header::read_file(path).expect("a sound file")).expect("a vocabulary")
}

/// Compares all texts and reports every one that differs.
fn compare(tokenizer: &Tokenizer, name: &str) {
    let golden = golden();
    let case = golden["cases"][name].as_object().expect("the case");
    let mut wrong = Vec::new();
    for (how, lists) in case {
        let encode = if how == "special" { SPECIAL } else { PLAIN };
        let encode = Encode { add_bos: encode.add_bos && tokenizer.adds_bos(), ..encode };
        let lists = lists.as_array().expect("lists of ids");
        let texts = texts(&golden);
        assert_eq!(texts.len(), lists.len());
        for (text, expected) in texts.iter().zip(lists) {
            let expected: Vec<u32> = serde_json::from_value(expected.clone()).expect("ids");
            let found = tokenizer.encode(text, encode);
            if found != expected {
                wrong
                    .push(format!("{how}: {:?}\n  expected {expected:?}\n  found    {found:?}", text.chars().take(60).collect::<String>()));
            }
        }
    }
    assert!(wrong.is_empty(), "{name}: {} texts differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn gemma_3_tokens_are_those_of_llama_cpp() {
    compare(&load(&demo_model()), "gemma3");
}

#[test]
fn bpe_tokens_are_those_of_llama_cpp() {
    for pre in ["default", "gpt-2", "llama-bpe", "qwen2", "smollm"] {
        compare(&load(&golden_folder().join(format!("bpe-{pre}.gguf"))), pre);
    }
}

#[test]
fn bpe_tokens_are_those_of_the_published_patterns() {
    for pre in ["tekken", "gpt-4o"] {
        compare(&load(&golden_folder().join(format!("bpe-{pre}.gguf"))), pre);
    }
}

#[test]
fn every_text_comes_back_from_its_tokens() {
    let tokenizer = load(&demo_model());
    for text in texts(&golden()) {
        let bytes: Vec<u8> = tokenizer.encode(&text, PLAIN).iter().flat_map(|id| tokenizer.token_bytes(*id)).copied().collect();
        // SentencePiece writes a space as `▁` and cannot tell the two apart.
        assert_eq!(String::from_utf8(bytes).expect("whole characters").replace('▁', " "), text.replace('▁', " "));
    }
}

/// Not a measurement: a quadratic algorithm would take minutes here.
#[test]
fn long_texts_take_time_in_proportion() {
    let tokenizer = load(&demo_model());
    let started = Instant::now();
    for text in ["a", "ab本", " ", "\n", "\t \n", "👩‍👩‍👧", "<unused1", "<"] {
        let text = text.repeat(200_000 / text.len());
        assert!(!tokenizer.encode(&text, SPECIAL).is_empty());
    }
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
}
