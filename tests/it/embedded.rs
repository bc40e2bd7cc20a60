//! The embedded engine with the real model. Scheduling is tested beside the code, with a scripted one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arriero::backends::embedded::{Config, Engine, LoadError};
use arriero::backends::{Backend, Error, Events, Health, Probe};
use arriero::domain::generation::{Event, Finish, FinishReason, Prompt, Request};
use arriero::domain::id::ModelName;
use arriero::domain::options::Options;
use futures_util::StreamExt;
use tokio::sync::OnceCell;

use crate::support::demo_model;

/// One engine for all tests: loading is quick, but memory is shared with others.
async fn engine() -> &'static Engine {
    static ENGINE: OnceCell<Engine> = OnceCell::const_new();
    let load = || Engine::load(&Config { models: vec![demo_model()], context_length: 384, ..Config::default() });
    ENGINE.get_or_init(|| async { tokio::task::spawn_blocking(load).await.expect("no panic").expect("the demo model loads") }).await
}

fn ask(text: &str, options: Options) -> Request {
    let stem = demo_model().file_stem().expect("a file").to_string_lossy().into_owned();
    let prompt = Prompt { text: text.to_owned(), ..Prompt::default() };
    let mut request = Request::new(ModelName::parse(&stem).expect("a name"), prompt);
    request.ask.options = options;
    request
}

fn raw(text: &str, options: Options) -> Request {
    let mut request = ask(text, options);
    request.ask.prompt.raw = true;
    request
}

fn greedy(tokens: i64) -> Options {
    Options { temperature: Some(0.0), num_predict: Some(tokens), ..Options::default() }
}

async fn start(request: Request) -> Result<Events, Error> {
    engine().await.generate(Arc::new(request)).await
}

/// The pieces of an answer, and its end.
async fn answer(request: Request) -> (Vec<String>, Finish) {
    let mut events = start(request).await.expect("accepted");
    let mut pieces = Vec::new();
    while let Some(event) = events.next().await {
        match event.expect("no failure") {
            Event::Delta(delta) => pieces.push(delta.text),
            Event::Done(finish) => return (pieces, *finish),
        }
    }
    panic!("the answer has no end");
}

async fn text(request: Request) -> String {
    answer(request).await.0.concat()
}

#[tokio::test]
async fn it_streams_what_llama_cpp_says() {
    let (pieces, finish) = answer(raw("The capital of France is", greedy(6))).await;
    // As the recorded server answered the same request.
    assert_eq!(pieces.concat(), " the capital of the country of");
    assert_eq!(pieces.len(), 6, "one event a token: {pieces:?}");
    assert_eq!((finish.reason, finish.usage.prompt_tokens, finish.usage.completion_tokens), (FinishReason::Length, Some(6), Some(6)));
    assert!(finish.timing.eval.is_some_and(|time| !time.is_zero()) && finish.timing.total >= finish.timing.eval);
}

#[tokio::test]
async fn a_seed_makes_an_answer_reproducible() {
    let with = |seed| Options { seed: Some(seed), temperature: Some(1.5), num_predict: Some(12), ..Options::default() };
    let first = text(raw("Once upon a time", with(42))).await;
    assert_eq!(first, text(raw("Once upon a time", with(42))).await);
    assert_ne!(first, text(raw("Once upon a time", with(43))).await);
}

#[tokio::test]
async fn the_plain_template_makes_the_base_model_answer() {
    for (question, word) in
        [("What is the capital of France?", "Paris"), ("What is the capital of Spain?", "Madrid"), ("What color is the sky?", "blue")]
    {
        let (pieces, finish) = answer(ask(question, Options { num_predict: Some(48), ..Options::default() })).await;
        let text = pieces.concat();
        assert!(text.contains(word), "{question} {text:?}");
        assert_eq!(finish.reason, FinishReason::Stop, "it ends by itself: {text:?}");
        assert!(!text.contains("User:") && text.trim() == text, "{text:?}");
        assert!(finish.context.is_some_and(|context| context.len() as u64 > finish.usage.prompt_tokens.unwrap_or(0)));
    }
}

#[tokio::test]
async fn a_context_goes_on_from_an_earlier_answer() {
    let (_, finish) = answer(ask("My name is Zork.", greedy(24))).await;
    let mut request = ask("What is my name?", greedy(24));
    request.ask.prompt.context = finish.context.expect("given back");
    let earlier = request.ask.prompt.context.len() as u64;
    let (pieces, finish) = answer(request).await;
    assert!(finish.usage.prompt_tokens.is_some_and(|tokens| tokens > earlier));
    assert!(pieces.concat().contains("Zork"), "{pieces:?}");
}

#[tokio::test]
async fn a_stop_string_ends_it_across_tokens() {
    let options = Options { stop: Some(vec!["tal of the".to_owned()]), ..greedy(20) };
    let (pieces, finish) = answer(raw("The capital of France is", options)).await;
    assert_eq!((pieces.concat().as_str(), finish.reason), (" the capi", FinishReason::Stop));
}

#[tokio::test]
async fn a_template_of_the_request_replaces_the_models() {
    let mut request = ask("2, 4, 6, 8, 10", greedy(2));
    request.ask.prompt.template = Some("{{ if .System }}{{ .System }}\n{{ end }}{{ .Prompt }},{{ .Response }}".to_owned());
    let (pieces, _) = answer(request).await;
    assert!(pieces.concat().contains('1'), "{pieces:?}");
}

#[tokio::test]
async fn a_prompt_too_long_says_by_how_much_and_can_be_shortened() {
    let long = "word ".repeat(1000);
    let error = start(raw(&long, greedy(4))).await.err().expect("refused");
    let Error::ContextTooLong { prompt_tokens, context_tokens: 384 } = error else { panic!("{error}") };
    assert!((1000..1010).contains(&prompt_tokens), "{prompt_tokens}");
    let mut request = raw(&long, greedy(4));
    request.ask.truncate = Some(true);
    let (_, finish) = answer(request).await;
    assert_eq!(finish.remarks.truncated.map(|t| t.prompt_tokens), Some(prompt_tokens));
    assert_eq!(finish.usage.prompt_tokens, Some(380));
}

#[tokio::test]
async fn two_answers_grow_side_by_side_and_one_can_be_given_up() {
    let alone = text(raw("The capital of France is", greedy(16))).await;
    let mut given_up = start(raw("Once upon a time", greedy(-1))).await.expect("accepted");
    assert!(given_up.next().await.is_some());
    let together = text(raw("The capital of France is", greedy(16))).await;
    assert_eq!(together, alone, "answers do not touch each other");
    assert!(matches!(given_up.next().await, Some(Ok(Event::Delta(_)))), "the other goes on meanwhile");
    drop(given_up);
    assert_eq!(text(raw("The capital of France is", greedy(16))).await, alone);
}

#[tokio::test]
async fn every_option_is_taken() {
    let options = Options {
        num_keep: Some(5),
        top_k: Some(20),
        top_p: Some(0.8),
        min_p: Some(0.05),
        typical_p: Some(0.7),
        repeat_last_n: Some(33),
        repeat_penalty: Some(1.2),
        presence_penalty: Some(1.5),
        frequency_penalty: Some(1.0),
        penalize_newline: Some(true),
        seed: Some(1),
        num_gpu: Some(-1),
        num_thread: Some(8),
        num_predict: Some(4),
        ..Options::default()
    };
    let (pieces, finish) = answer(raw("Hello", options)).await;
    assert!(!pieces.concat().is_empty());
    let not_applied: Vec<&str> = finish.remarks.not_applied.iter().map(|wish| wish.field.as_str()).collect();
    assert_eq!(not_applied, ["options.penalize_newline", "options.num_gpu", "options.num_thread"]);
}

#[tokio::test]
async fn it_says_what_it_serves() {
    let engine = engine().await;
    let models = engine.models().await.expect("listed");
    let model = &models[0];
    assert_eq!((model.family.as_deref(), model.quantization.as_deref()), (Some("gemma3"), Some("Q4_K_M")));
    assert_eq!((model.parameters, model.context_length), (Some(268_098_176), Some(32_768)));
    assert_eq!(engine.probe(Probe::Deep).await, Health::Up);
}

/// What loading a broken copy of the model says: `change` gets its first bytes, the rest is zeros.
fn load_error(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    let mut bytes = vec![0; 8 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open(demo_model()).expect("the model"), &mut bytes).expect("read");
    change(&mut bytes);
    std::fs::write(&path, &bytes).expect("written");
    load_one(path, None).to_string()
}

fn load_one(path: PathBuf, memory_limit_bytes: Option<u64>) -> LoadError {
    let config = Config { models: vec![path], memory_limit_bytes, ..Config::default() };
    Engine::load(&config).expect_err("refused")
}

#[test]
fn files_that_cannot_be_served_are_refused_with_the_reason() {
    assert!(matches!(Engine::load(&Config::default()), Err(LoadError::NoModels)));
    assert!(load_one(Path::new("/no/such/model.gguf").into(), None).to_string().contains("no model file at /no/such/model.gguf"));
    assert!(load_error("zip.gguf", |bytes| bytes[..4].copy_from_slice(b"PK\x03\x04")).contains("no GGUF file"));
    let half = load_error("half.gguf", |_| ());
    assert!(half.contains("half.gguf") && half.contains("incomplete") && half.contains("download it again"), "{half}");
    let cut = load_error("cut.gguf", |bytes| bytes.truncate(1000));
    assert!(cut.contains("incomplete"), "{cut}");
    assert!(load_error("counts.gguf", |bytes| bytes[8..16].fill(0xff)).contains("tensors"));
    let twice = Config { models: vec![demo_model(), demo_model()], ..Config::default() };
    assert!(matches!(Engine::load(&twice), Err(LoadError::SameName { .. })));
}

#[test]
fn too_little_memory_is_told_with_the_numbers() {
    let error = load_one(demo_model(), Some(100 << 20));
    let LoadError::Memory { needed_bytes, weights_bytes, cache_bytes, available_bytes, .. } = error else { panic!("{error}") };
    assert!(weights_bytes > 240_000_000 && cache_bytes > 1_000_000 && needed_bytes >= weights_bytes + cache_bytes);
    assert_eq!(available_bytes, 100 << 20);
}
