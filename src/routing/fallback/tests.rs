use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::blame::Retry;
use crate::domain::generation::{Ask, Fallback, Prompt};
use crate::domain::id::ModelName;
use crate::domain::options::Options;

const YES: Fallback = Fallback::Switch(true);

fn name(text: &str) -> ModelName {
    ModelName::parse(text).expect("valid")
}

fn aliases(config: Value) -> Result<Aliases, Vec<String>> {
    let config: Vec<Alias> = serde_json::from_value(config).expect("a list of aliases");
    Aliases::new(&config).map_err(|wrong| wrong.iter().map(|one| format!("{} {}", one.place.join("."), one.what)).collect())
}

fn chain(steps: &Value) -> Chain {
    let aliases = aliases(json!([{ "name": "smart", "steps": steps }])).expect("valid");
    Chain::resolve(&aliases, &name("smart"), &YES)
}

fn failed(kind: &'static str) -> Trouble {
    Trouble::Failed { kind, retry: Retry::Elsewhere }
}

fn models(chain: &Chain) -> Vec<&str> {
    chain.steps().iter().map(|step| step.model.as_str()).collect()
}

fn begins(chain: &Chain, facts: &Facts) -> (String, Option<&'static str>) {
    let (step, why) = chain.first(facts).expect("there are steps");
    (step.model.to_string(), why.map(|why| why.reason))
}

fn goes_on(chain: &Chain, after: usize, trouble: &Trouble, facts: &Facts) -> Option<(String, &'static str)> {
    chain.next(after, trouble, facts).map(|(step, why)| (step.model.to_string(), why.reason))
}

/// For each condition: how it is set, facts and trouble under which it holds, and the same just not.
#[expect(clippy::type_complexity, reason = "a table")]
fn cases() -> Vec<(&'static str, Value, (Facts, Option<Trouble>), (Facts, Option<Trouble>))> {
    let none = Facts::default();
    let seconds = Duration::from_secs;
    let memory = |share| Facts { pressure: Pressure { memory: Some(share), heat: None }, ..none };
    let heat = |degrees| Facts { pressure: Pressure { memory: None, heat: Some(degrees) }, ..none };
    let tokens = |n| Facts { prompt_tokens: Some(n), ..none };
    let wait = |s| Facts { queue_wait: Some(seconds(s)), ..none };
    let predict = |n| Facts { predict: Some(n), ..none };
    let context = |n| Facts { prompt_tokens: Some(90), predict: Some(10), context_tokens: Some(n), ..none };
    vec![
        ("errors", json!(["overloaded"]), (none, Some(failed("overloaded"))), (none, Some(failed("failed")))),
        ("queue_wait_over", json!("5s"), (wait(6), None), (wait(5), None)),
        ("queue_wait_over", json!("5s"), (none, Some(Trouble::QueueWait(seconds(6)))), (none, Some(Trouble::FirstToken(seconds(6))))),
        ("ttft_over", json!("5s"), (Facts { ttft: Some(seconds(6)), ..none }, None), (none, None)),
        ("ttft_over", json!("5s"), (none, Some(Trouble::FirstToken(seconds(6)))), (none, Some(Trouble::FirstToken(seconds(5))))),
        ("memory_pressure_over", json!(0.8), (memory(0.81), None), (memory(0.8), None)),
        ("heat_over", json!(80.0), (heat(80.5), None), (none, None)),
        ("context_too_long", json!(true), (context(99), None), (context(100), None)),
        ("context_too_long", json!(true), (none, Some(failed("context_too_long"))), (none, Some(failed("failed")))),
        ("prompt_tokens_over", json!(100), (tokens(101), None), (tokens(100), None)),
        ("prompt_tokens_under", json!(100), (tokens(99), None), (tokens(100), None)),
        ("prompt_tokens_under", json!(100), (tokens(0), None), (none, None)),
        ("predict_over", json!(100), (predict(101), None), (predict(100), None)),
        ("predict_over", json!(100), (none, None), (predict(1), None)),
        ("images", json!(true), (Facts { images: true, ..none }, None), (none, None)),
        ("images", json!(false), (none, None), (Facts { images: true, ..none }, None)),
        ("tools", json!(true), (Facts { tools: true, ..none }, None), (none, None)),
    ]
}

#[test]
fn every_condition_holds_when_it_should_and_only_then() {
    let mut seen = Vec::new();
    for (condition, set_to, yes, no) in cases() {
        let chain = chain(&json!([{ "model": "big" }, { "model": "small", "when": { condition: set_to } }]));
        let entered = |(facts, trouble): &(Facts, Option<Trouble>)| match trouble {
            Some(trouble) => chain.next(0, trouble, facts).map(|(_, why)| why),
            None => chain.first(facts).and_then(|(_, why)| why),
        };
        let why = entered(&yes).unwrap_or_else(|| panic!("{condition} holds"));
        assert_eq!(why.reason, condition);
        assert!(!why.detail.is_empty());
        assert_eq!(entered(&no), None, "{condition}");
        seen.push(condition);
    }
    seen.dedup();
    let all: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(seen, all, "every row of the table is tested, in its order");
}

#[test]
fn every_key_of_when_is_a_row_of_the_table() {
    let when = serde_json::to_value(When::default()).expect("plain data");
    let keys: Vec<&String> = when.as_object().expect("a table").keys().collect();
    assert_eq!(keys, TABLE.iter().map(|row| row.name).collect::<Vec<_>>());
    assert!(TABLE.iter().all(|row| row.meaning.ends_with('.') && !row.takes.is_empty() && !row.looked_at.is_empty()));
}

#[test]
fn every_failure_of_a_backend_can_be_named() {
    use crate::backends::Error;
    let message = String::new;
    let failures = [
        Error::ModelNotFound { model: message() },
        Error::Refused { status: 400, message: message() },
        Error::Unsupported { field: "format", why: message() },
        Error::ContextTooLong { prompt_tokens: 0, context_tokens: 0 },
        Error::OutOfMemory { needed_bytes: 0, available_bytes: 0 },
        Error::Unreachable { message: message() },
        Error::Overloaded { message: message(), retry_after: None },
        Error::Failed { status: None, message: message() },
        Error::Protocol { message: message() },
        Error::Stalled { stage: "x", silent: Duration::ZERO },
        Error::Wedged { model: message(), why: message() },
        Error::Closed,
    ];
    assert_eq!(failures.iter().map(Error::kind).collect::<Vec<_>>(), ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>());
    for kind in ErrorKind::ALL {
        assert_eq!(serde_json::to_value(kind).expect("a word"), kind.as_str());
    }
}

#[test]
fn a_step_without_conditions_is_for_trouble_that_may_pass_elsewhere() {
    let chain = chain(&json!([{ "model": "big" }, { "model": "small" }]));
    let none = Facts::default();
    assert_eq!(begins(&chain, &none), ("big".into(), None));
    for kind in ["unreachable", "overloaded", "model_not_found", "a_kind_of_later_versions"] {
        assert_eq!(goes_on(&chain, 0, &failed(kind), &none), Some(("small".into(), ANY_TROUBLE)), "{kind}");
    }
    let never = |kind| Trouble::Failed { kind, retry: Retry::Never };
    assert_eq!(goes_on(&chain, 0, &never("refused"), &none), None);
    assert_eq!(goes_on(&chain, 0, &never("context_too_long"), &none), Some(("small".into(), ANY_TROUBLE)));
    assert_eq!(goes_on(&chain, 0, &Trouble::QueueWait(Duration::from_secs(999)), &none), None, "nobody set a bound");
    assert_eq!(goes_on(&chain, 1, &failed("failed"), &none), None, "the end");
    assert_eq!(goes_on(&chain, usize::MAX, &failed("failed"), &none), None);
}

#[test]
fn one_trigger_and_all_filters_must_hold() {
    let when = json!({ "errors": ["failed"], "queue_wait_over": "1s", "images": false, "prompt_tokens_under": 100 });
    let chain = chain(&json!([{ "model": "big" }, { "model": "small", "when": when }]));
    let short = Facts { prompt_tokens: Some(10), ..Facts::default() };
    let wait = Some(Duration::from_secs(2));
    assert_eq!(begins(&chain, &short), ("big".into(), None), "filters alone are not enough here");
    assert_eq!(begins(&chain, &Facts { queue_wait: wait, ..short }), ("small".into(), Some("queue_wait_over")));
    assert_eq!(goes_on(&chain, 0, &failed("failed"), &short), Some(("small".into(), "errors")));
    assert_eq!(goes_on(&chain, 0, &failed("failed"), &Facts { images: true, ..short }), None);
    assert_eq!(goes_on(&chain, 0, &failed("overloaded"), &short), None);
}

#[test]
fn a_later_step_that_holds_replaces_the_one_before_and_a_wait_is_not_held_against_the_next() {
    let wait = |model: &str| json!({ "model": model, "when": { "queue_wait_over": "5s" } });
    let queue = chain(&json!([{ "model": "big" }, wait("middle"), wait("small")]));
    let long = Facts { queue_wait: Some(Duration::from_secs(9)), ..Facts::default() };
    assert_eq!(begins(&queue, &long), ("middle".into(), Some("queue_wait_over")));
    assert_eq!(
        goes_on(&queue, 1, &Trouble::QueueWait(Duration::from_secs(6)), &long.elsewhere()),
        Some(("small".into(), "queue_wait_over"))
    );

    let tokens = |model: &str, n: u64| json!({ "model": model, "when": { "prompt_tokens_under": n } });
    let size = chain(&json!([{ "model": "big" }, tokens("middle", 1000), tokens("small", 100)]));
    for (n, model) in [(5000, "big"), (500, "middle"), (50, "small")] {
        assert_eq!(begins(&size, &Facts { prompt_tokens: Some(n), ..Facts::default() }).0, model);
    }
}

#[test]
fn a_step_that_does_not_hold_is_passed_over() {
    let chain = chain(&json!([{ "model": "a" }, { "model": "b", "when": { "errors": ["overloaded"] } }, { "model": "c" }]));
    let none = Facts::default();
    assert_eq!(goes_on(&chain, 0, &failed("overloaded"), &none), Some(("b".into(), "errors")));
    assert_eq!(goes_on(&chain, 0, &failed("unreachable"), &none), Some(("c".into(), ANY_TROUBLE)));
}

#[test]
fn patience_is_the_shortest_bound_of_the_steps_that_may_be_entered() {
    let chain = chain(&json!([
        { "model": "a" },
        { "model": "b", "when": { "queue_wait_over": "9s", "ttft_over": "3s" } },
        { "model": "c", "when": { "queue_wait_over": "2s", "images": false } },
    ]));
    let seconds = |s| Some(Duration::from_secs(s));
    let plain = Facts::default();
    assert_eq!(chain.patience(0, &plain), Patience { queue: seconds(2), first_token: seconds(3) });
    assert_eq!(chain.patience(0, &Facts { images: true, ..plain }), Patience { queue: seconds(9), first_token: seconds(3) });
    assert_eq!(chain.patience(1, &plain), Patience { queue: seconds(2), first_token: None });
    assert_eq!(chain.patience(2, &plain), Patience::default());
}

#[test]
fn a_request_says_itself_whether_and_to_what_it_falls_back() {
    let aliases = aliases(json!([{ "name": "smart", "steps": [{ "model": "big" }, { "model": "small" }] }])).expect("valid");
    let resolve = |model: &str, fallback: &Fallback| Chain::resolve(&aliases, &name(model), fallback);
    let list = |names: &[&str]| Fallback::Models(names.iter().map(|n| name(n)).collect());
    assert_eq!(models(&resolve("smart", &YES)), ["big", "small"]);
    assert_eq!(models(&resolve("SMART:latest", &YES)), ["big", "small"], "all spellings are one");
    assert_eq!(models(&resolve("smart", &Fallback::Switch(false))), ["big"]);
    assert_eq!(models(&resolve("other", &YES)), ["other"]);
    let own = resolve("other", &list(&["a", "smart", "a", "other", "b"]));
    assert_eq!(models(&own), ["other", "a", "big", "b"]);
    assert_eq!(goes_on(&own, 0, &failed("failed"), &Facts::default()), Some(("a".into(), ANY_TROUBLE)));
    let many: Vec<String> = (0..40).map(|n| format!("m{n}")).collect();
    let many = resolve("other", &list(&many.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!((many.steps().len(), many.left_out()), (MAX_STEPS, 25));
}

#[test]
fn steps_that_may_not_be_used_are_left_out() {
    let chain = chain(&json!([{ "model": "a" }, { "model": "b", "when": { "errors": ["failed"] } }, { "model": "c" }]));
    let rest = chain.clone().permit(|model| model.as_str() != "a");
    assert_eq!(models(&rest), ["b", "c"]);
    assert_eq!(begins(&rest, &Facts::default()), ("b".into(), None));
    assert_eq!(rest.steps().iter().map(|step| step.place).collect::<Vec<_>>(), [0, 1]);
    assert!(chain.permit(|_| false).first(&Facts::default()).is_none());
}

#[test]
fn an_alias_inside_an_alias_is_written_out() {
    let aliases = aliases(json!([
        { "name": "smart", "steps": [
            { "model": "big" },
            { "model": "cheap", "when": { "errors": ["failed"] }, "simplify": { "num_ctx": 2048, "num_predict": 64 } },
            { "model": "last", "backend": "embedded" },
        ] },
        { "name": "cheap", "steps": [{ "model": "cheap" }, { "model": "tiny", "when": { "images": false }, "simplify": { "num_ctx": 4096 } }] },
    ]))
    .expect("valid");
    assert_eq!(aliases.names(), ["cheap:latest", "smart:latest"]);
    assert!(aliases.has(&name("cheap")) && !aliases.has(&name("big")));
    let chain = Chain::resolve(&aliases, &name("smart"), &YES);
    assert_eq!(models(&chain), ["big", "cheap", "tiny", "last"]);
    let (cheap, tiny, last) = (&chain.steps()[1], &chain.steps()[2], &chain.steps()[3]);
    assert_eq!(cheap.when.errors, [ErrorKind::Failed]);
    assert_eq!((tiny.when.images, tiny.simplify.num_ctx, tiny.simplify.num_predict), (Some(false), Some(2048), Some(64)));
    assert_eq!(last.backend.as_deref(), Some("embedded"));
    assert_eq!(models(&Chain::resolve(&aliases, &name("cheap"), &YES)), ["cheap", "tiny"], "its own name is the model");
}

#[test]
fn what_cannot_be_is_said_with_its_place() {
    let one = |steps: Value| json!([{ "name": "x", "steps": steps }]);
    for (config, says) in [
        (one(json!([])), "alias.0.steps is empty: `x` stands for no model"),
        (one(json!([{ "model": "a", "when": { "images": true } }])), "alias.0.steps.0.when is for later steps"),
        (one(json!([{ "model": "a", "backend": "" }])), "alias.0.steps.0.backend is empty"),
        (
            one(json!([{ "model": "a" }, { "model": "b", "when": { "memory_pressure_over": 80.0 } }])),
            "alias.0.steps.1.when.memory_pressure_over is 80",
        ),
        (
            one(json!([{ "model": "a" }, { "model": "b", "when": { "prompt_tokens_over": 9, "prompt_tokens_under": 10 } }])),
            "alias.0.steps.1.when.prompt_tokens_under never holds: no number is over 9 and under 10",
        ),
        (one(json!([{ "model": "a", "simplify": { "num_ctx": 0 } }])), "alias.0.steps.0.simplify.num_ctx must be at least 1"),
        (
            json!([{ "name": "x", "steps": [{ "model": "a" }] }, { "name": "X:latest", "steps": [{ "model": "b" }] }]),
            "alias.1.name names `X:latest` a second time",
        ),
        (
            json!([{ "name": "x", "steps": [{ "model": "a" }, { "model": "y" }] }, { "name": "y", "steps": [{ "model": "x" }] }]),
            "alias.0.steps.1.model goes in a circle: x → y → x",
        ),
        (one(Value::Array((0..17).map(|n| json!({ "model": format!("m{n}") })).collect())), "alias.0.steps has 17 steps"),
        (
            Value::Array((0..6).map(|n| json!({ "name": format!("a{n}"), "steps": [{ "model": format!("a{}", n + 1) }] })).collect()),
            "alias.0.steps.0.model is an alias in an alias, 4 deep",
        ),
    ] {
        let wrong = aliases(config).expect_err(says);
        assert!(wrong.iter().any(|wrong| wrong.starts_with(says)), "{wrong:?} does not say `{says}`");
    }
    let unknown = json!([{ "name": "x", "steps": [{ "model": "a" }, { "model": "b", "when": { "mood": "bad" } }] }]);
    assert!(serde_json::from_value::<Vec<Alias>>(unknown).is_err());
}

#[test]
fn facts_are_read_off_a_request() {
    let mut ask = Ask {
        prompt: Prompt {
            text: "x".repeat(40),
            system: Some("y".repeat(8)),
            context: vec![1; 5],
            images: vec!["aGk=".into()],
            ..Prompt::default()
        },
        options: Options { num_predict: Some(64), ..Options::default() },
        ..Ask::default()
    };
    ask.extra.insert("tools".into(), json!([{}]));
    let facts = Facts::of(&ask);
    assert_eq!((facts.prompt_tokens, facts.predict, facts.images, facts.tools), (Some(17), Some(64), true, true));
    ask.options.num_predict = Some(-1);
    ask.extra.insert("tools".into(), json!([]));
    assert_eq!((Facts::of(&ask).predict, Facts::of(&ask).tools), (None, false));
}

fn any_step() -> impl Strategy<Value = When> {
    let errors = proptest::collection::vec(proptest::sample::select(ErrorKind::ALL), 0..3);
    (errors, proptest::option::of(0_u64..10), proptest::option::of(0_u64..100), proptest::option::of(any::<bool>()), any::<bool>())
        .prop_map(|(errors, wait, tokens, images, context_too_long)| When {
            errors,
            queue_wait_over: wait.map(Duration::from_secs),
            prompt_tokens_over: tokens,
            images,
            context_too_long,
            ..When::default()
        })
}

proptest! {
    /// Whatever the chain and the facts: a request only goes forward, so it ends after as many steps as there are; nothing is
    /// entered for an unknown reason; and what is served while nothing is wrong has no trigger.
    #[test]
    fn a_chain_always_ends(
        whens in proptest::collection::vec(any_step(), 0..8), kinds in proptest::collection::vec(proptest::sample::select(ErrorKind::ALL), 1..12),
        tokens in 0_u64..100, images: bool, wait in 0_u64..10,
    ) {
        let first = AliasStep { model: name("m"), backend: None, when: When::default(), simplify: Simplify::default() };
        let later = whens.into_iter().enumerate().map(|(n, when)| AliasStep { model: name(&format!("m{n}")), when, ..first.clone() });
        let config = [Alias { name: name("x"), steps: std::iter::once(first.clone()).chain(later).collect() }];
        let Ok(aliases) = Aliases::new(&config) else { return Ok(()) };
        let chain = Chain::resolve(&aliases, &name("x"), &YES);
        let facts = Facts { prompt_tokens: Some(tokens), images, queue_wait: Some(Duration::from_secs(wait)), ..Facts::default() };
        let known = |why: &Why| TABLE.iter().any(|row| row.name == why.reason) || why.reason == ANY_TROUBLE;
        let (mut at, why) = chain.first(&facts).expect("not empty");
        prop_assert!(why.as_ref().is_none_or(known));
        prop_assert_eq!(why.is_none(), at.place == 0);
        let mut hops = 0;
        for kind in kinds.iter().cycle() {
            let Some((next, why)) = chain.next(at.place, &failed(kind.as_str()), &facts) else { break };
            prop_assert!(next.place > at.place && known(&why));
            (at, hops) = (next, hops + 1);
            prop_assert!(hops < chain.steps().len());
        }
    }
}
