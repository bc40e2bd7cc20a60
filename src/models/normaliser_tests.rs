use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::generation::KeepAlive;
use crate::domain::id::ModelName;
use crate::domain::options::Options;

fn model(context_length: u32) -> ModelInfo {
    let name = ModelName::parse("gemma3").expect("a name");
    ModelInfo { context_length: Some(context_length), ..ModelInfo::named(name) }
}

fn ask(options: Options) -> Ask {
    Ask { options, ..Ask::default() }
}

fn wants(num_ctx: Option<u32>) -> Ask {
    ask(Options { num_ctx, ..Options::default() })
}

/// One run of requests for one model under one policy.
struct Run {
    normaliser: Normaliser,
    policy: Config,
    start: Instant,
}

impl Run {
    fn new(policy: Config) -> Self {
        Self { normaliser: Normaliser::new(), policy, start: Instant::now() }
    }

    fn at(&self, after: Duration, loaded: Loaded, ask: &mut Ask) -> Normalised {
        let allowance = Allowance::default();
        let with = Circumstances { loaded, allowance: &allowance, now: self.start + after };
        self.normaliser.normalise(&model(32_768), ask, &self.policy, with)
    }

    fn context(&self, loaded: Loaded, num_ctx: Option<u32>) -> Option<u32> {
        let mut ask = wants(num_ctx);
        self.at(Duration::ZERO, loaded, &mut ask);
        ask.options.num_ctx
    }
}

#[test]
fn the_first_context_follows_from_what_is_known() {
    use Loaded::{No, Unknown, Yes};
    for (loaded, floor, asked, gets) in [
        (Unknown, None, None, None),
        (No, None, None, None),
        (Yes(None), None, None, None),
        (Yes(Some(8192)), None, None, Some(8192)),
        (Yes(Some(8192)), None, Some(2048), Some(8192)),
        (Yes(Some(2048)), None, Some(1024), Some(2048)),
        (Yes(Some(2048)), None, Some(8192), Some(8192)),
        (Yes(Some(2048)), Some(4096), None, Some(4096)),
        (No, None, Some(2048), Some(4096)),
        (No, None, Some(8192), Some(8192)),
        (No, None, Some(99_999), Some(32_768)),
        (No, Some(8192), None, Some(8192)),
        (No, Some(8192), Some(2048), Some(8192)),
        (No, Some(1024), Some(512), Some(1024)),
    ] {
        let run = Run::new(Config { num_ctx: floor, ..Config::default() });
        assert_eq!(run.context(loaded, asked), gets, "{loaded:?} {floor:?} {asked:?}");
    }
}

#[test]
fn a_larger_context_raises_it_for_all_and_a_smaller_one_does_not_lower_it() {
    let run = Run::new(Config::default());
    for (loaded, asked, gets) in [
        (Loaded::No, None, None),
        (Loaded::Unknown, Some(2048), None),
        (Loaded::Unknown, Some(4096), None),
        (Loaded::Yes(Some(8192)), Some(8192), None),
        (Loaded::Yes(Some(8192)), Some(8193), Some(8193)),
        (Loaded::Yes(Some(8193)), Some(2048), Some(8193)),
        (Loaded::Unknown, None, Some(8193)),
        (Loaded::No, Some(1), Some(8193)),
        (Loaded::Unknown, Some(1_000_000), Some(32_768)),
        (Loaded::Unknown, Some(9000), Some(32_768)),
    ] {
        assert_eq!(run.context(loaded, asked), gets, "{loaded:?} {asked:?}");
    }
}

#[test]
fn clients_that_alternate_runner_options_have_one_shape() {
    let run = Run::new(Config::default());
    let shapes: Vec<String> = (0..100_u32)
        .map(|n| {
            let num_ctx = Some(if n % 2 == 0 { 2048 } else { 4096 });
            let mut ask =
                ask(Options { num_ctx, num_thread: Some(n % 3 + 1), num_batch: (n % 5 == 0).then_some(256), ..Options::default() });
            ask.extra.insert("shift".into(), json!(n % 2 == 0));
            ask.extra.insert("logprobs".into(), json!(true));
            let done = run.at(Duration::from_secs(u64::from(n)), Loaded::Unknown, &mut ask);
            assert_eq!(ask.extra.get("logprobs"), Some(&json!(true)), "what is no setting of the runner stays");
            done.shape
        })
        .collect();
    assert_eq!(shapes[0], "num_batch=256 num_ctx=4096 num_thread=1 shift=true");
    assert!(shapes.iter().all(|shape| *shape == shapes[0]), "{shapes:?}");
}

#[test]
fn what_a_client_does_not_get_is_said_and_what_it_did_not_ask_for_is_not() {
    let run = Run::new(Config::default());
    let mut first = ask(Options { num_ctx: Some(8192), num_thread: Some(2), ..Options::default() });
    assert_eq!(run.at(Duration::ZERO, Loaded::No, &mut first).changed, []);
    let mut plain = Ask::default();
    let done = run.at(Duration::ZERO, Loaded::Unknown, &mut plain);
    assert_eq!((done.changed, done.detail), (vec![], vec![]));
    assert_eq!((plain.options.num_ctx, plain.options.num_thread), (Some(8192), Some(2)));
    let mut other =
        ask(Options { num_ctx: Some(2048), num_gpu: Some(0), num_thread: Some(2), temperature: Some(0.5), ..Options::default() });
    let changed = run.at(Duration::ZERO, Loaded::Unknown, &mut other).changed;
    let said: Vec<_> = changed.iter().map(|c| (c.field.as_str(), c.from.clone(), c.to.clone())).collect();
    assert_eq!(said, [("options.num_ctx", json!(2048), json!(8192)), ("options.num_gpu", json!(0), Value::Null)]);
    assert_eq!((other.options.num_gpu, other.options.temperature), (None, Some(0.5)));
}

#[test]
fn the_servers_own_context_is_named_where_it_is_known() {
    let run = Run::new(Config::default());
    run.context(Loaded::No, None);
    let mut small = wants(Some(2048));
    let changed = run.at(Duration::ZERO, Loaded::Yes(Some(4096)), &mut small).changed;
    assert_eq!((changed[0].to.clone(), small.options.num_ctx), (json!(4096), None));
    let mut same = wants(Some(4096));
    assert_eq!(run.at(Duration::ZERO, Loaded::Yes(Some(4096)), &mut same).changed, []);
}

#[test]
fn a_model_that_has_left_memory_and_rested_begins_anew() {
    let run = Run::new(Config::default());
    run.context(Loaded::No, Some(16_384));
    let context = |after, loaded| {
        let mut ask = wants(Some(8192));
        run.at(after, loaded, &mut ask);
        ask.options.num_ctx
    };
    let minute = Duration::from_mins(1);
    assert_eq!(context(minute, Loaded::No), Some(16_384), "perhaps it is just being loaded");
    assert_eq!(context(minute * 10, Loaded::Unknown), Some(16_384));
    assert_eq!(context(minute * 20, Loaded::Yes(None)), Some(16_384));
    assert_eq!(context(minute * 24, Loaded::No), Some(16_384));
    assert_eq!(context(minute * 29, Loaded::No), Some(8192));
}

#[test]
fn pin_sets_the_policys_values_and_allow_leaves_the_clients() {
    let pinned =
        Config { runner_options: RunnerOptions::Pin, num_ctx: Some(1024), use_mmap: Some(false), shift: Some(false), ..Config::default() };
    let run = Run::new(pinned);
    let mut asked = ask(Options { num_ctx: Some(9000), num_batch: Some(1), ..Options::default() });
    asked.extra.insert("Shift".into(), json!(true));
    let done = run.at(Duration::ZERO, Loaded::Yes(Some(9000)), &mut asked);
    assert_eq!(done.shape, "num_ctx=1024 use_mmap=false shift=false");
    assert_eq!(Value::Object(asked.options.to_map()), json!({"num_ctx": 1024, "use_mmap": false}));
    assert_eq!(Value::Object(asked.extra), json!({"shift": false}));
    assert_eq!(done.changed.len(), 3, "{:?}", done.changed);

    let run = Run::new(Config { runner_options: RunnerOptions::Allow, num_ctx: Some(1024), ..Config::default() });
    let mut asked = ask(Options { num_ctx: Some(9000), ..Options::default() });
    let done = run.at(Duration::ZERO, Loaded::Unknown, &mut asked);
    assert_eq!((done.shape.as_str(), done.changed, asked.options.num_ctx), ("num_ctx=9000", vec![], Some(9000)));
    assert_eq!(run.at(Duration::ZERO, Loaded::Unknown, &mut Ask::default()).shape, "default");
}

#[test]
fn keep_alive_bounds_and_long_prompts_follow_the_policy() {
    let policy =
        Config { num_predict_default: Some(100), num_predict_max: Some(500), on_long_prompt: LongPrompt::Truncate, ..Config::default() };
    let run = Run::new(policy);
    let mut plain = Ask { keep_alive: Some(KeepAlive(json!(-1))), ..Ask::default() };
    let done = run.at(Duration::ZERO, Loaded::Unknown, &mut plain);
    assert_eq!((plain.keep_alive, plain.options.num_predict, plain.truncate), (None, Some(100), Some(true)));
    assert_eq!((done.changed[0].field.as_str(), done.detail[0].field.as_str()), ("keep_alive", "options.num_predict"));
    let mut greedy = Ask { truncate: Some(false), ..ask(Options { num_predict: Some(9999), ..Options::default() }) };
    let done = run.at(Duration::ZERO, Loaded::Unknown, &mut greedy);
    assert_eq!((greedy.options.num_predict, greedy.truncate), (Some(500), Some(false)), "a client that says what it wants gets that");
    assert_eq!((done.changed.len(), done.detail.len()), (1, 0));
}

#[test]
fn a_model_is_loaded_ahead_as_its_first_request_would_load_it() {
    let run = Run::new(Config { num_ctx: Some(8192), shift: Some(false), ..Config::default() });
    let options = run.normaliser.loading_options(&model(32_768), &run.policy, Loaded::No, run.start);
    assert_eq!(Value::Object(options), json!({"num_ctx": 8192, "shift": false}));
    assert_eq!(run.at(Duration::ZERO, Loaded::Yes(Some(8192)), &mut Ask::default()).shape, "num_ctx=8192 shift=false");
}

#[test]
fn the_models_remembered_are_bounded() {
    let (normaliser, allowance, start) = (Normaliser::new(), Allowance::default(), Instant::now());
    for n in 0..MAX_MODELS + 10 {
        let model = ModelInfo::named(ModelName::parse(&format!("m{n}")).expect("a name"));
        let with = Circumstances { loaded: Loaded::Unknown, allowance: &allowance, now: start + Duration::from_secs(n as u64) };
        normaliser.normalise(&model, &mut wants(Some(8192)), &Config::default(), with);
    }
    let models = normaliser.models.lock().expect("unpoisoned");
    assert!(models.len() == MAX_MODELS && !models.contains_key("m9:latest") && models.contains_key("m10:latest"));
}

proptest! {
    /// Whatever clients ask for, the context only ever grows, is enough for whoever asked, and changes no oftener than it must.
    #[test]
    fn shapes_change_only_upwards(wishes in proptest::collection::vec(proptest::option::of(1_u32..40_000), 1..60)) {
        let run = Run::new(Config::default());
        let (mut last, mut reloads) = (None, 0);
        for wish in wishes {
            let got = run.context(Loaded::Unknown, wish);
            prop_assert!(got >= last);
            prop_assert!(got.unwrap_or(4096) >= wish.unwrap_or_default().min(32_768));
            if got != last {
                prop_assert!(wish.unwrap_or_default() > last.unwrap_or_default());
                reloads += 1;
            }
            last = got;
        }
        prop_assert!(reloads <= 60);
    }
}
