//! The decoder against `transformers` (tiny models of each family) and against llama.cpp (the real model).

use std::path::{Path, PathBuf};

use arriero::gguf::Header;
use arriero::lm::measure::largest;
use arriero::lm::{CHUNK, Device, Error, Model};
use serde_json::Value;

use crate::support::demo_model;

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden(name: &str) -> Value {
    let text = std::fs::read_to_string(golden_folder().join(name)).expect("a golden file");
    serde_json::from_str(&text).expect("JSON")
}

fn load(path: &Path, device: &Device) -> Model {
    let header = Header::read_file(path).expect("a header");
    Model::load(path, &header, device).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn tokens(list: &Value) -> Vec<u32> {
    list.as_array().expect("tokens").iter().map(|id| u32::try_from(id.as_u64().expect("an id")).expect("small")).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "golden values have the digits of single precision")]
fn floats(list: &Value) -> Vec<f32> {
    list.as_array().expect("numbers").iter().map(|n| n.as_f64().expect("a number") as f32).collect()
}

/// The largest difference relative to the largest number.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0_f32, |most, x| most.max(x.abs()));
    found.iter().zip(expected).fold(0_f32, |most, (a, b)| most.max((a - b).abs())) / scale
}

/// Checks one model in every way there is to run it: all positions at once, and one token after the other.
fn check_family(model: &Model, tokens: &[u32], positions: &[u32], expected: &[Vec<f32>], bound: f32) -> f32 {
    let mut all = Vec::new();
    model.logits(tokens, |_, logits| all.push(logits.to_vec())).expect("logits");
    let mut cache = model.new_cache(tokens.len()).expect("a cache");
    let one_by_one: Vec<_> = tokens.iter().map(|&token| model.forward(&[token], &mut cache).expect("logits")).collect();
    let mut worst = 0_f32;
    for (&position, expected) in positions.iter().zip(expected) {
        let position = position as usize;
        cache.clear();
        let at_once = model.forward(&tokens[..=position], &mut cache).expect("logits");
        for (way, found) in [("all", &all[position]), ("one by one", &one_by_one[position]), ("at once", &at_once)] {
            let difference = difference(found, expected);
            assert!(difference < bound, "{way}, position {position}: relative difference {difference}");
            worst = worst.max(difference);
        }
    }
    worst
}

fn check_families(device: &Device, bound: f32) {
    let golden = golden("lm_families.json");
    let all = tokens(&golden["tokens"]);
    for family in golden["families"].as_array().expect("families") {
        let name = family["name"].as_str().expect("a name");
        // Models whose rope changes with the length have an entry for a shorter sequence, too.
        let length = family["length"].as_u64().map_or(all.len(), |length| usize::try_from(length).expect("small"));
        let positions = tokens(family.get("positions").unwrap_or(&golden["positions"]));
        let expected: Vec<_> = family["logits"].as_array().expect("logits").iter().map(floats).collect();
        let model = load(&golden_folder().join(format!("lm_{name}.gguf")), device);
        let worst = check_family(&model, &all[..length], &positions, &expected, bound);
        println!("{name}, {length} tokens, on {}: largest relative difference {worst:.2e}", device.describe());
    }
}

#[test]
fn every_family_gives_the_logits_of_transformers_with_every_instruction_set() {
    for device in Device::each_exact_cpu(2) {
        check_families(&device, 2e-5);
    }
}

#[test]
fn caches_of_half_precision_cost_little() {
    // These models are random and let every rounding grow; trained ones do not (see the perplexity below).
    check_families(&Device::cpu(Some(2)), 1e-2);
}

#[test]
fn the_accelerator_path_gives_them_too() {
    check_families(&Device::candle_on_cpu(), 2e-5);
}

fn exact_cpu() -> Device {
    Device::each_exact_cpu(2).pop().expect("at least the plain one")
}

#[test]
fn going_back_and_reading_on_gives_what_reading_at_once_gives() {
    let model = load(&golden_folder().join("lm_gemma3-window.gguf"), &exact_cpu());
    let text: Vec<u32> = (0..120).map(|i| (i * 31 + 7) % 72).collect();
    let mut cache = model.new_cache(200).expect("a cache");
    model.forward(&text, &mut cache).expect("logits");
    assert!(cache.truncate(50));
    assert_eq!(cache.len(), 50);
    let again = model.forward(&text[50..], &mut cache).expect("logits");
    cache.clear();
    let fresh = model.forward(&text, &mut cache).expect("logits");
    assert!(difference(&again, &fresh) < 1e-4);
}

#[test]
fn a_ring_that_has_moved_on_refuses_to_go_back_and_a_long_text_wraps_it() {
    let model = load(&golden_folder().join("lm_mistral-window.gguf"), &exact_cpu());
    let text: Vec<u32> = (0..900).map(|i| (i * 31 + 7) % 72).collect();
    let mut cache = model.new_cache(1000).expect("a cache");
    let at_once = model.forward(&text, &mut cache).expect("logits");
    assert!(!cache.truncate(900 - CHUNK - 1), "that far back the ring has been overwritten");
    assert!(cache.truncate(880));
    let again = text[880..].iter().fold(Vec::new(), |_, &token| model.forward(&[token], &mut cache).expect("logits"));
    assert!(difference(&again, &at_once) < 1e-4);
}

#[test]
fn wrong_calls_are_errors_and_leave_the_cache_as_it_was() {
    let model = load(&golden_folder().join("lm_qwen2-biases.gguf"), &Device::cpu(Some(1)));
    let other = load(&golden_folder().join("lm_llama-untied-gqa.gguf"), &Device::cpu(Some(1)));
    let mut cache = model.new_cache(4).expect("a cache");
    model.forward(&[1, 2], &mut cache).expect("logits");
    assert!(matches!(model.forward(&[], &mut cache), Err(Error::NoTokens)));
    assert!(matches!(model.forward(&[72], &mut cache), Err(Error::Token { token: 72, vocab_size: 72 })));
    assert!(matches!(model.forward(&[1, 2, 3], &mut cache), Err(Error::CacheFull { capacity: 4, wanted: 5 })));
    assert!(matches!(other.forward(&[1], &mut cache), Err(Error::ForeignCache)));
    assert_eq!(cache.len(), 2);
}

#[test]
fn twenty_prompts_continue_as_with_llama_cpp_but_for_near_ties() {
    let (golden, exact) = (self::golden("llamacpp.json"), self::golden("exact.json"));
    let model = load(&demo_model(), &Device::cpu(None));
    let (mut equal, mut apart) = (0, Vec::new());
    for (prompt, exact) in
        golden["continuations"].as_array().expect("continuations").iter().zip(exact["continuations"].as_array().expect("as many"))
    {
        let expected = tokens(&prompt["next"]);
        let found = greedy(&model, &tokens(&prompt["prompt"]), expected.len());
        let Some(at) = (0..expected.len()).find(|&i| found[i] != expected[i]) else {
            equal += 1;
            continue;
        };
        let lead = lead_over(&exact[at], found[at]);
        println!(
            "{}: other token at {at}; llama.cpp's second best was {} behind, exactly {lead:.3}",
            prompt["text"], prompt["margins"][at]
        );
        if lead > NEAR_TIE {
            apart.push((prompt["text"].clone(), at, lead));
        }
    }
    println!("{equal} of 20 continuations are equal to the last token");
    assert!(apart.is_empty(), "these differ where there was no near-tie: {apart:?}");
}

/// Differences of exact log-probabilities below which the rounding of activations may decide.
const NEAR_TIE: f64 = 0.25;

/// How far llama.cpp's token is before ours in exact arithmetic; below 0 it is behind. Infinite: ours is none of the best.
fn lead_over(exact: &Value, ours: u32) -> f64 {
    let theirs = exact["theirs"].as_f64().expect("a log-probability");
    let best = exact["best"].as_array().expect("the best");
    let found = best.iter().find(|pair| pair[0].as_u64() == Some(u64::from(ours)));
    found.map_or(f64::INFINITY, |pair| theirs - pair[1].as_f64().expect("a log-probability"))
}

fn greedy(model: &Model, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut cache = model.new_cache(prompt.len() + count).expect("a cache");
    let mut logits = model.forward(prompt, &mut cache).expect("logits");
    let mut next = Vec::new();
    for _ in 0..count {
        let token = largest(&logits);
        next.push(token);
        logits = model.forward(&[token], &mut cache).expect("logits");
    }
    next
}

#[test]
fn perplexity_of_a_long_text_is_that_of_llama_cpp() {
    let golden = golden("llamacpp.json");
    let text = tokens(&golden["text"]["tokens"]);
    let expected = golden["text"]["perplexity"].as_f64().expect("a number");
    let model = load(&demo_model(), &Device::cpu(None));
    let found = perplexity(&model, &text);
    let apart = (found / expected - 1.0) * 100.0;
    let exact = self::golden("exact.json")["perplexity"].as_f64().expect("a number");
    println!("perplexity {found:.4}, llama.cpp {expected:.4} ({apart:+.3} % apart), exactly {exact:.4}");
    assert!(apart.abs() < 0.5, "perplexity {found} against {expected}");
}

#[expect(clippy::cast_precision_loss, reason = "two thousand tokens")]
pub fn perplexity(model: &Model, text: &[u32]) -> f64 {
    let mut total = 0.0;
    model
        .logits(text, |position, logits| {
            if let Some(&next) = text.get(position + 1) {
                total += log_probability(logits, next as usize);
            }
        })
        .expect("logits");
    (-total / (text.len() - 1) as f64).exp()
}

fn log_probability(logits: &[f32], token: usize) -> f64 {
    let most = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - most).exp())).sum();
    f64::from(logits[token] - most) - sum.ln()
}
