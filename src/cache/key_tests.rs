use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::cache::testing::{full_ask, object};
use crate::domain::generation::KeepAlive;

fn model() -> ModelName {
    ModelName::parse("gemma3").expect("a name")
}

fn key(ask: &Ask) -> Key {
    Key::new(Scope::Tenant("t"), &model(), Some("d"), ask)
}

/// A request that differs in one field, by the field's name.
fn mutations() -> Vec<(&'static str, Ask)> {
    let mut all: Vec<(&'static str, Ask)> = Vec::new();
    macro_rules! differ {
        ($($($field:ident).+ = $value:expr;)*) => {$(
            let mut ask = full_ask();
            ask.$($field).+ = $value;
            all.push((stringify!($($field).+ = $value), ask));
        )*};
    }
    differ! {
        prompt.text = "text ".into();
        prompt.text = String::new();
        prompt.suffix = None;
        prompt.suffix = Some(String::new());
        prompt.suffix = Some("other".into());
        prompt.system = None;
        prompt.system = Some(String::new());
        prompt.system = Some("other".into());
        prompt.template = None;
        prompt.template = Some(String::new());
        prompt.context = vec![];
        prompt.context = vec![1];
        prompt.context = vec![2, 1];
        prompt.images = vec![];
        prompt.images = vec!["aGk=".into()];
        prompt.images = vec!["aG8=".into(), "aGk=".into()];
        prompt.images = vec!["aGk=aG8=".into()];
        prompt.raw = false;
        format = None;
        format = Some(Format::Json);
        format = Some(Format::Schema(object(json!({}))));
        format = Some(Format::Schema(object(json!({"type": "object", "properties": {"y": {}, "x": {}}}))));
        think = None;
        think = Some(Think::Switch(true));
        think = Some(Think::Switch(false));
        think = Some(Think::Effort(Effort::Low));
        think = Some(Think::Effort(Effort::Medium));
        think = Some(Think::Effort(Effort::Max));
        truncate = None;
        truncate = Some(false);
        extra = object(json!({}));
        extra = object(json!({"logprobs": true}));
        extra = object(json!({"logprobs": true, "top_logprobs": 4}));
        extra = object(json!({"logprobs": "true", "top_logprobs": 3}));
        options.stop = None;
        options.stop = Some(vec![]);
        options.stop = Some(vec!["ab".into()]);
        options.stop = Some(vec!["b".into(), "a".into()]);
        options.extra = object(json!({}));
        options.extra = object(json!({"mirostat": 1, "odd": {"a": 1, "b": [null]}}));
        options.extra = object(json!({"mirostat": 2, "odd": {"b": [null], "a": 1}}));
        options.extra = object(json!({"mirostat": 2, "odd": {"a": 1, "b": []}}));
        options.extra = object(json!({"mirostat": 2, "odd": {"a": 1, "b": [0]}}));
    }
    for name in full_ask().options.to_map().keys().filter(|name| !["stop", "mirostat", "odd"].contains(&name.as_str())) {
        let (mut without, mut other) = (full_ask().options.to_map(), full_ask().options.to_map());
        without.remove(name);
        let value = &mut other[name];
        *value = if value.is_boolean() { json!(false) } else { json!(1.0) };
        if value.is_f64() && full_ask().options.to_map()[name].is_i64() {
            *value = json!(99);
        }
        for options in [without, other] {
            all.push(("an option", Ask { options: Options::parse(options).expect("valid"), ..full_ask() }));
        }
    }
    all
}

#[test]
fn every_field_counts() {
    let mut seen = HashMap::from([(key(&full_ask()), "as it was".to_owned())]);
    let all = mutations();
    assert!(all.len() > 80, "{}", all.len());
    for (what, ask) in all {
        assert_ne!(written(&ask), written(&full_ask()), "{what} changes nothing");
        let name = format!("{what}: {:?}", ask.options);
        if let Some(other) = seen.insert(key(&ask), name.clone()) {
            panic!("{name} has the key of {other}");
        }
    }
}

#[test]
fn scope_model_and_digest_count_and_a_digest_replaces_the_name() {
    let ask = full_ask();
    let name = |name: &str| ModelName::parse(name).expect("a name");
    let (a, b) = (Scope::Tenant("a"), Scope::Tenant("b"));
    let keys = [
        Key::new(a, &name("m"), None, &ask),
        Key::new(b, &name("m"), None, &ask),
        Key::new(Scope::Tenant(""), &name("m"), None, &ask),
        Key::new(Scope::Tenant("shared"), &name("m"), None, &ask),
        Key::new(Scope::Shared, &name("m"), None, &ask),
        Key::new(a, &name("n"), None, &ask),
        Key::new(a, &name("m"), Some("d"), &ask),
        Key::new(a, &name("m"), Some("e"), &ask),
        Key::new(a, &name("m"), Some("m:latest"), &ask),
        Key::new(Scope::Shared, &name("m"), Some("a"), &ask),
    ];
    let different: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len());
    assert_eq!(keys[0], Key::new(a, &name("M:latest"), None, &ask));
    assert_eq!(keys[6], Key::new(a, &name("n"), Some("d"), &ask));
}

#[test]
fn what_does_not_decide_the_answer_does_not_count() {
    for keep_alive in [None, Some(KeepAlive(json!(0)))] {
        assert_eq!(key(&Ask { keep_alive, ..full_ask() }), key(&full_ask()));
    }
    let reversed: Map<String, Value> = full_ask().options.to_map().into_iter().rev().collect();
    let mut ask = Ask { options: Options::parse(reversed).expect("valid"), ..full_ask() };
    ask.extra = full_ask().extra.into_iter().rev().collect();
    assert_eq!(key(&ask), key(&full_ask()));
    let zero = |zero| Ask { options: Options { temperature: Some(zero), ..Options::default() }, ..Ask::default() };
    assert_eq!(key(&zero(0.0)), key(&zero(-0.0)));
}

#[test]
fn a_key_is_read_back_from_what_it_is_written_as() {
    let key = key(&full_ask());
    assert_eq!(Key::parse(&key.to_string()), Some(key));
    assert_eq!(Key::parse(&key.to_string().to_uppercase()), Some(key));
    assert_eq!(Key::from_bytes(key.as_bytes()), Some(key));
    for wrong in ["", "00", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32), &"+0".repeat(32)] {
        assert_eq!(Key::parse(wrong), None, "{wrong}");
    }
    assert_eq!(Key::from_bytes(&[0; 31]), None);
}

/// Kept answers of earlier versions are found only as long as this holds; whoever changes it raises `FORM`.
#[test]
fn the_keys_stay_what_they_are() {
    assert_eq!(
        Key::new(Scope::Shared, &model(), None, &Ask::default()).to_string(),
        "727e7c6ac93a0560c3946ccd8714317727c040a85e73526b5231a4dc45cf92bb"
    );
}

#[test]
fn an_answer_is_determined_by_temperature_0_or_a_seed() {
    for (temperature, seed, determined) in [
        (None, None, false),
        (Some(0.0), None, true),
        (Some(-0.0), None, true),
        (Some(0.1), None, false),
        (Some(0.7), Some(0), true),
        (None, Some(42), true),
        (None, Some(-1), false),
        (None, Some(i64::MIN), false),
        (Some(0.0), Some(-1), true),
    ] {
        let ask = Ask { options: Options { seed, temperature, ..Options::default() }, ..Ask::default() };
        assert_eq!(is_deterministic(&ask), determined, "{temperature:?} {seed:?}");
    }
}

fn word() -> impl Strategy<Value = String> {
    // Few and short, so that equal ones and shifted boundaries come up.
    "[ab]{0,3}"
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..3_i64).prop_map(Value::from), word().prop_map(Value::from)];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..3).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn small_ask() -> impl Strategy<Value = Ask> {
    let prompt = (word(), prop::option::of(word()), prop::option::of(word()), prop::option::of(word()), any::<bool>());
    let lists =
        (prop::collection::vec(0..2_u32, 0..3), prop::collection::vec(word(), 0..3), prop::option::of(prop::collection::vec(word(), 0..3)));
    let numbers = (prop::option::of(0..2_i64), prop::option::of(0..2_i64), prop::option::of(prop::sample::select(vec![0.0, 1.0])));
    let rest = (prop::option::of(any::<bool>()), prop::option::of((word(), json_value())), prop::option::of((word(), json_value())));
    (prompt, lists, numbers, rest).prop_map(|(prompt, lists, numbers, rest)| {
        let mut ask = Ask::default();
        (ask.prompt.text, ask.prompt.suffix, ask.prompt.system, ask.prompt.template, ask.prompt.raw) = prompt;
        (ask.prompt.context, ask.prompt.images, ask.options.stop) = lists;
        (ask.options.seed, ask.options.num_predict, ask.options.top_p) = numbers;
        ask.truncate = rest.0;
        ask.options.extra.extend(rest.1);
        ask.extra.extend(rest.2);
        ask
    })
}

/// Equal but for the order inside unknown values, which counts for the key though not for `==`.
fn written(ask: &Ask) -> String {
    format!("{ask:?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn keys_are_equal_exactly_when_requests_are(asks in prop::collection::vec(small_ask(), 2..12)) {
        for one in &asks {
            for other in &asks {
                prop_assert_eq!(key(one) == key(other), written(one) == written(other), "{:?} {:?}", one, other);
            }
        }
    }

    #[test]
    fn nearby_fields_do_not_run_together(a in word(), b in word(), c in word(), d in word()) {
        let ask = |text: &str, suffix: &str| {
            let mut ask = Ask::default();
            (ask.prompt.text, ask.prompt.suffix) = (text.to_owned(), Some(suffix.to_owned()));
            ask
        };
        prop_assert_eq!(key(&ask(&a, &b)) == key(&ask(&c, &d)), (a, b) == (c, d));
    }
}
