//! The engine with a scripted model: it answers with the bytes that follow the prompt's last one, up to `z`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::domain::generation::{Format, KeepAlive, Prompt, Think, Truncated};
use crate::domain::id::ModelName;
use crate::domain::options::Options;
use crate::gguf::Header;
use crate::gguf::writer::Writer;
use crate::lm::template::Template;

/// The token of a byte is this much above it.
const BYTES: u32 = 3;
const END: u32 = 2;

#[derive(Debug, Default)]
struct Counts {
    read: AtomicUsize,
    generated: AtomicUsize,
}

/// After `!` it panics, after `?` it gives no numbers, after `0` it goes on for ever.
struct Script {
    counts: Arc<Counts>,
    pause: Duration,
}

impl Decoder for Script {
    type Cache = Vec<u32>;

    fn chunk(&self) -> usize {
        4
    }

    fn new_cache(&self, capacity: usize) -> Result<Vec<u32>, String> {
        Ok(Vec::with_capacity(capacity))
    }

    fn truncate(&self, cache: &mut Vec<u32>, length: usize) -> bool {
        cache.truncate(length);
        true
    }

    fn clear(&self, cache: &mut Vec<u32>) {
        cache.clear();
    }

    fn read(&self, tokens: &[u32], cache: &mut Vec<u32>) -> Result<(), String> {
        std::thread::sleep(self.pause);
        self.counts.read.fetch_add(tokens.len(), Ordering::SeqCst);
        cache.extend(tokens);
        Ok(())
    }

    fn forward(&self, tokens: &[u32], cache: &mut Vec<u32>) -> Result<Vec<f32>, String> {
        self.read(tokens, cache)?;
        self.counts.generated.fetch_add(1, Ordering::SeqCst);
        let mut logits = vec![0.0; 259];
        let last = u8::try_from(tokens.last().expect("never empty") - BYTES).expect("a byte");
        let next = match last {
            b'!' => panic!("a scripted failure"),
            b'?' => return Ok(vec![f32::NAN; 259]),
            b'0' => u32::from(b'0') + BYTES,
            b'z' => END,
            byte => u32::from(byte) + 1 + BYTES,
        };
        logits[next as usize] = 100.0;
        Ok(logits)
    }
}

struct Rig {
    engine: Engine,
    counts: Arc<Counts>,
}

fn tokenizer() -> Tokenizer {
    let mut pieces: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    pieces.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let kinds: Vec<i32> = [2, 3, 3].into_iter().chain([6; 256]).collect();
    let file = Writer::default()
        .str("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &pieces)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .bool("tokenizer.ggml.add_space_prefix", false)
        .bool("tokenizer.ggml.add_bos_token", false)
        .finish();
    Tokenizer::from_header(&Header::parse(&file).expect("sound")).expect("a vocabulary")
}

fn rig_with(slots: usize, queue: usize, context: usize, pause: Duration) -> Rig {
    let counts = Arc::new(Counts::default());
    let script = Script { counts: Arc::clone(&counts), pause };
    let assembler = Assembler { tokenizer: Arc::new(tokenizer()), template: Template::plain() };
    let info = ModelInfo::named(ModelName::parse("script").expect("a name"));
    let config = Config { slots, queue, ..Config::default() };
    let served = Served::start(script, assembler, info, context, &config).expect("a thread");
    Rig { engine: Engine { models: vec![Arc::new(served)], embedding: None, device: "a script".to_owned() }, counts }
}

fn rig() -> Rig {
    rig_with(1, 4, 256, Duration::ZERO)
}

fn raw(text: &str) -> Request {
    with(text, Options::default())
}

fn with(text: &str, options: Options) -> Request {
    let prompt = Prompt { text: text.to_owned(), raw: true, ..Prompt::default() };
    let mut request = Request::new(ModelName::parse("script").expect("a name"), prompt);
    request.ask.options = options;
    request
}

fn most(tokens: i64) -> Options {
    Options { num_predict: Some(tokens), ..Options::default() }
}

impl Rig {
    async fn start(&self, request: Request) -> Result<Events, Error> {
        self.engine.generate(Arc::new(request)).await
    }

    /// Text and end of a whole answer.
    async fn ask(&self, request: Request) -> Result<(String, Finish), Error> {
        read(self.start(request).await?).await
    }

    fn generated(&self) -> usize {
        self.counts.generated.load(Ordering::SeqCst)
    }

    fn was_read(&self) -> usize {
        self.counts.read.load(Ordering::SeqCst)
    }
}

async fn read(mut events: Events) -> Result<(String, Finish), Error> {
    let mut text = String::new();
    while let Some(event) = events.next().await {
        match event? {
            Event::Delta(delta) => text += &delta.text,
            Event::Done(finish) => {
                assert!(events.next().await.is_none(), "nothing follows the end");
                return Ok((text, *finish));
            }
        }
    }
    panic!("the answer has no end");
}

fn not_applied(finish: &Finish) -> Vec<&str> {
    finish.remarks.not_applied.iter().map(|wish| wish.field.as_str()).collect()
}

#[tokio::test]
async fn an_answer_comes_token_by_token_and_ends() {
    let rig = rig();
    let mut events = rig.start(raw("w")).await.expect("accepted");
    for expected in ["x", "y", "z"] {
        assert!(matches!(events.next().await, Some(Ok(Event::Delta(delta))) if delta.text == expected));
    }
    let Some(Ok(Event::Done(finish))) = events.next().await else { panic!("no end") };
    assert_eq!(finish.reason, FinishReason::Stop);
    assert_eq!(finish.usage, Usage { prompt_tokens: Some(1), cached_tokens: None, completion_tokens: Some(4) });
    assert_eq!(finish.context, None, "raw");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn bounds_and_stop_strings_end_it_too() {
    let rig = rig();
    let (text, finish) = rig.ask(with("a", most(3))).await.expect("answered");
    assert_eq!((text.as_str(), finish.reason), ("bcd", FinishReason::Length));
    let stop = Options { stop: Some(vec!["efg".to_owned()]), ..Options::default() };
    let (text, finish) = rig.ask(with("a", stop)).await.expect("answered");
    assert_eq!((text.as_str(), finish.reason), ("bcd", FinishReason::Stop));
    let small = Options { num_ctx: Some(5), num_predict: Some(-1), ..Options::default() };
    let (text, finish) = rig.ask(with("ab", small)).await.expect("answered");
    assert_eq!((text.as_str(), finish.reason), ("cde", FinishReason::Length));
    let unfinished = Options { stop: Some(vec!["yzx".to_owned()]), ..Options::default() };
    assert_eq!(rig.ask(with("w", unfinished)).await.expect("answered").0, "xyz");
}

#[tokio::test]
async fn broken_characters_never_come_out() {
    let (text, _) = rig().ask(with("\u{7f}", most(2))).await.expect("answered");
    assert_eq!(text, "\u{fffd}\u{fffd}");
}

#[tokio::test]
async fn an_empty_prompt_only_loads() {
    let mut request = raw("");
    request.ask.keep_alive = Some(KeepAlive(json!("5m")));
    let (text, finish) = rig().ask(request).await.expect("answered");
    assert_eq!((text.as_str(), &finish.reason), ("", &FinishReason::Load));
    assert_eq!(not_applied(&finish), ["keep_alive"]);
}

#[tokio::test]
async fn the_template_and_an_earlier_context_go_before_the_prompt() {
    let rig = rig();
    let mut request = raw("a");
    request.ask.prompt.raw = false;
    request.ask.options = most(2);
    request.ask.prompt.template = Some("Q{{ .Prompt }}".to_owned());
    let (text, finish) = rig.ask(request.clone()).await.expect("answered");
    let context = finish.context.expect("not raw");
    assert_eq!((text.as_str(), context.len()), ("bc", 4));
    request.ask.prompt.context = context;
    let (_, finish) = rig.ask(request.clone()).await.expect("answered");
    assert_eq!(finish.usage.prompt_tokens, Some(6));
    // The control token's name in the prompt stays text.
    request.ask.prompt.text = "</s>a".to_owned();
    let context = rig.ask(request.clone()).await.expect("answered").1.context.expect("not raw");
    assert!(!context.contains(&END));
    request.ask.prompt.template = None;
    let (text, _) = rig.ask(request).await.expect("answered");
    assert_eq!(text, ";<", "the plain template ends with a colon");
}

#[tokio::test]
async fn what_is_not_built_is_refused_by_name() {
    type Change = fn(&mut Request);
    let rig = rig();
    let cases: [(&str, Change); 7] = [
        ("format", |r| r.ask.format = Some(Format::Json)),
        ("images", |r| r.ask.prompt.images = vec!["aGk=".to_owned()]),
        ("suffix", |r| r.ask.prompt.suffix = Some("x".to_owned())),
        ("think", |r| r.ask.think = Some(Think::Switch(true))),
        ("options.num_ctx", |r| r.ask.options.num_ctx = Some(257)),
        ("template", |r| {
            r.ask.prompt.raw = false;
            r.ask.prompt.template = Some("{{ range .Messages }}{{ end }}".to_owned());
        }),
        ("options.num_ctx", |r| {
            r.ask.prompt.text.clear();
            r.ask.options.num_ctx = Some(257);
        }),
    ];
    for (name, change) in cases {
        let mut request = raw("a");
        change(&mut request);
        let error = rig.start(request).await.err().expect("refused");
        assert!(matches!(error, Error::Unsupported { field, .. } if field == name), "{name}: {error}");
    }
    let mut request = raw("a");
    request.ask.prompt.system = Some("x".to_owned());
    assert!(matches!(rig.start(request).await.err(), Some(Error::Refused { status: 400, .. })));
    let mut request = raw("a");
    request.ask.prompt.raw = false;
    request.ask.prompt.context = vec![0, 259];
    assert!(matches!(rig.start(request).await.err(), Some(Error::Refused { status: 400, message }) if message.contains("259")));
    let other = Request { model: ModelName::parse("other").expect("a name"), ..raw("a") };
    assert!(matches!(rig.start(other).await.err(), Some(Error::ModelNotFound { .. })));
}

#[tokio::test]
async fn what_has_no_effect_is_listed() {
    let mut request =
        with("y", Options { num_thread: Some(3), extra: [("mirostat".to_owned(), json!(1))].into_iter().collect(), ..Options::default() });
    request.ask.extra.insert("shift".to_owned(), json!(true));
    request.ask.think = Some(Think::Switch(false));
    let (_, finish) = rig().ask(request).await.expect("answered");
    assert_eq!(not_applied(&finish), ["options.num_thread", "options.mirostat", "shift"]);
    let (_, finish) = rig().ask(raw("y")).await.expect("answered");
    assert!(not_applied(&finish).is_empty());
}

#[tokio::test]
async fn a_prompt_too_long_is_an_error_unless_shortening_is_asked_for() {
    let rig = rig();
    let long = "a".repeat(300);
    let error = rig.start(raw(&long)).await.err().expect("refused");
    assert!(matches!(error, Error::ContextTooLong { prompt_tokens: 300, context_tokens: 256 }), "{error}");
    assert!(rig.start(raw(&"a".repeat(256))).await.is_err(), "no room for an answer");
    let mut request = with(&long, Options { num_predict: Some(56), num_keep: Some(10), ..Options::default() });
    request.ask.truncate = Some(true);
    let (text, finish) = rig.ask(request).await.expect("answered");
    assert_eq!(text.len(), 25);
    assert_eq!(finish.remarks.truncated, Some(Truncated { prompt_tokens: 300, kept_tokens: 200 }));
    let (_, finish) = rig.ask(raw(&"a".repeat(255))).await.expect("answered");
    assert_eq!(finish.reason, FinishReason::Length);
}

#[tokio::test]
async fn a_failure_is_its_answers_alone() {
    let rig = rig();
    for bad in ["!", "?"] {
        assert!(matches!(rig.ask(raw(bad)).await, Err(Error::Failed { .. })), "{bad}");
        assert_eq!(rig.ask(raw("x")).await.expect("answered").0, "yz");
    }
    assert_eq!(rig.engine.health(), Health::Up);
}

#[tokio::test]
async fn a_reader_that_leaves_stops_the_work() {
    let rig = rig();
    let mut events = rig.start(raw("0")).await.expect("accepted");
    assert!(events.next().await.is_some());
    drop(events);
    // The only slot is free again, or this would never be answered.
    assert_eq!(rig.ask(raw("x")).await.expect("answered").0, "yz");
    let before = rig.generated();
    assert_eq!(rig.ask(raw("y")).await.expect("answered").0, "z");
    assert_eq!(rig.generated(), before + 2);
}

#[tokio::test]
async fn a_reader_that_leaves_stops_the_reading_of_its_prompt() {
    let rig = rig_with(1, 4, 50_000, Duration::from_millis(1));
    let events = rig.start(raw(&"a".repeat(40_000))).await.expect("accepted");
    while rig.was_read() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(events);
    assert_eq!(rig.ask(raw("x")).await.expect("answered").0, "yz");
    assert!(rig.was_read() < 40_000);
}

#[tokio::test]
async fn a_slow_reader_holds_up_itself_alone() {
    let rig = rig_with(2, 4, 100_000, Duration::ZERO);
    let slow = rig.start(raw("0")).await.expect("accepted");
    while rig.generated() < EVENTS - 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = rig.generated();
    for _ in 0..20 {
        assert_eq!(rig.ask(raw("x")).await.expect("answered").0, "yz");
    }
    assert!(rig.generated() <= before + 20 * 3 + EVENTS, "the unread answer went on");
    // It goes on when it is read.
    let taken: Vec<_> = slow.take(3 * EVENTS).collect().await;
    assert!(taken.iter().all(Result::is_ok));
}

#[tokio::test]
async fn more_than_slots_and_queue_are_refused_and_those_who_left_do_not_count() {
    let rig = rig_with(1, 2, 100_000, Duration::ZERO);
    let running = rig.start(raw("0")).await.expect("accepted");
    let first = rig.start(raw("x")).await.expect("accepted");
    let second = rig.start(raw("y")).await.expect("accepted");
    let Err(Error::Overloaded { retry_after, .. }) = rig.start(raw("w")).await else { panic!("not refused") };
    assert!(retry_after.is_some_and(|after| after >= Duration::from_secs(1)));
    drop(first);
    let third = rig.start(raw("w")).await.expect("the place of the one who left");
    drop(running);
    assert_eq!(read(second).await.expect("answered").0, "z");
    assert_eq!(read(third).await.expect("answered").0, "xyz");
}

#[tokio::test]
async fn what_two_prompts_begin_with_is_read_once() {
    let rig = rig();
    rig.ask(with(&("a".repeat(100) + "w"), most(1))).await.expect("answered");
    let before = rig.was_read();
    let (_, finish) = rig.ask(with(&("a".repeat(100) + "x"), most(1))).await.expect("answered");
    assert_eq!((rig.was_read() - before, finish.usage.prompt_tokens), (1, Some(101)));
    assert_eq!(finish.extra["prompt_eval_cached_count"], json!(100));
}

#[tokio::test]
async fn what_must_be_reproducible_is_read_in_the_same_pieces_as_before() {
    let rig = rig();
    let seeded = Options { seed: Some(1), temperature: Some(0.0), ..most(1) };
    let ask = |end: &str, options: &Options| with(&("a".repeat(102) + end), options.clone());
    rig.ask(ask("w", &most(1))).await.expect("answered");
    let (_, finish) = rig.ask(ask("x", &seeded)).await.expect("answered");
    assert_eq!(finish.extra["prompt_eval_cached_count"], json!(0), "the one before was not read that way");
    let (_, finish) = rig.ask(ask("y", &seeded)).await.expect("answered");
    assert_eq!(finish.extra["prompt_eval_cached_count"], json!(100), "whole pieces of four");
    let (_, finish) = rig.ask(ask("w", &most(1))).await.expect("answered");
    assert_eq!(finish.extra["prompt_eval_cached_count"], json!(102));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_text() {
    let rig = rig();
    // So hot that every byte is about as likely as any other.
    let hot = |seed| Options {
        seed: Some(seed),
        temperature: Some(1e6),
        top_k: Some(0),
        top_p: Some(1.0),
        num_predict: Some(5),
        ..Options::default()
    };
    let mut texts = Vec::new();
    for seed in [7, 7, 8] {
        // A scripted failure can be drawn too, and is the same failure then.
        texts.push(rig.ask(with("a", hot(seed))).await.map(|(text, _)| text).map_err(|error| error.to_string()));
    }
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
}

#[tokio::test]
async fn closing_lets_answers_finish_and_takes_no_more() {
    let rig = rig_with(1, 4, 256, Duration::from_millis(2));
    let running = rig.start(raw("a")).await.expect("accepted");
    while rig.generated() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let waiting = rig.start(raw("b")).await.expect("accepted");
    rig.engine.close().await;
    assert_eq!(read(running).await.expect("answered").0.len(), 25);
    assert!(matches!(read(waiting).await, Err(Error::Closed)));
    assert!(matches!(rig.start(raw("a")).await.err(), Some(Error::Closed)));
    assert!(matches!(rig.engine.health(), Health::Down(_)));
}

#[tokio::test]
async fn dropping_the_engine_gives_up_what_runs() {
    let rig = rig_with(1, 4, 1_000_000, Duration::from_millis(1));
    let running = rig.start(raw("0")).await.expect("accepted");
    drop(rig);
    assert!(read(running).await.is_err());
}
