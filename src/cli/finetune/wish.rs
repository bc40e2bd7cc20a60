//! From flags to a wish.

use serde_json::{Map, Value, json};

use super::usage;
use crate::cli::args::Finetune;
use crate::cli::exit::Failure;
use crate::jobs::dataset::{Collected, Source};
use crate::jobs::finetune::job::Wish;

/// What the options' file says, and over it what flags say, in the words of a job.
pub fn wish(args: &Finetune) -> Result<Wish, Failure> {
    let mut input = match &args.options {
        Some(path) => read(path)?,
        None => json!({}),
    };
    set(&mut input, &["base"], Some(args.base.clone().into()));
    // Preferences are learnt from pairs.
    let preferences = args.dpo.is_some() || args.orpo.is_some();
    let source = |path: &String| match Collected::parse(path) {
        Some(collected) => json!(Source::collected(Collected { preferences, ..collected })),
        None => json!({"path": path}),
    };
    let sources: Vec<Value> = args.data.iter().map(source).collect();
    set(&mut input, &["data", "sources"], Some(sources.into()));
    for (path, value) in data(args).into_iter().chain(adapter(args)).chain(training(args)).chain(teacher(args)) {
        set(&mut input, path, value);
    }
    for (path, value) in usual(&input) {
        if at(&input, path).is_null() {
            set(&mut input, path, value);
        }
    }
    set(&mut input, &["samples"], (!args.sample.is_empty()).then(|| json!(args.sample)));
    set(&mut input, &["device"], args.device.clone().map(Value::from));
    set(&mut input, &["export", "name"], Some(args.out.clone().into()));
    set(&mut input, &["export", "safetensors"], args.safetensors.then_some(Value::Bool(true)));
    set(&mut input, &["export", "adapter_gguf"], args.adapter_gguf.then_some(Value::Bool(true)));
    set(&mut input, &["checkpointing"], args.checkpointing.clone().map(Value::from));
    let publish = publish(args, &input["publish"]);
    set(&mut input, &["publish"], publish);
    let wish: Wish = serde_json::from_value(input).map_err(|error| usage(error.to_string()))?;
    wish.validate().map_err(|wrong| usage(wrong.to_string()))?;
    Ok(wish)
}

fn read(path: &std::path::Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| usage(format!("{} cannot be read: {error}", path.display())))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| usage(format!("{} is no JSON: {error}", path.display())))?;
    if value.is_object() { Ok(value) } else { Err(usage(format!("{} holds no JSON object", path.display()))) }
}

type Given = (&'static [&'static str], Option<Value>);

/// What neither flags nor the options' file say. More is kept back than jobs do by default: people who train once want to see what it was
/// worth. A pass holds a row, and two of a preference.
fn usual(input: &Value) -> Vec<Given> {
    let method = at(input, &["training", "method"]);
    let pairs = ["dpo", "orpo"].iter().any(|pairs| method.get(pairs).is_some());
    let rows = if pairs { 2 } else { 1 };
    let sequence_tokens = at(input, &["training", "sequence_tokens"]).as_u64();
    let batch_tokens = sequence_tokens.map(|tokens| tokens.saturating_mul(rows)).or(pairs.then_some(4_096));
    vec![
        (&["data", "split", "validation"], Some(json!(0.1))),
        (&["data", "split", "test"], Some(json!(0.1))),
        (&["training", "batch_tokens"], batch_tokens.map(Value::from)),
    ]
}

fn data(args: &Finetune) -> Vec<Given> {
    vec![
        (&["data", "split", "validation"], args.validation_share.map(Value::from)),
        (&["data", "split", "test"], args.test_share.map(Value::from)),
        (&["data", "split", "group"], args.group.clone().map(Value::from)),
        (&["mask"], args.learn.clone().map(Value::from)),
    ]
}

fn adapter(args: &Finetune) -> Vec<Given> {
    vec![
        (&["adapter", "method"], args.method.clone().map(Value::from)),
        (&["adapter", "rank"], args.rank.map(Value::from)),
        (&["adapter", "alpha"], args.alpha.map(Value::from)),
        (&["adapter", "dropout"], args.dropout.map(Value::from)),
        (&["adapter", "targets"], (!args.targets.is_empty()).then(|| json!(args.targets))),
        (&["adapter", "rank_stabilized"], args.rank_stabilized.then_some(Value::Bool(true))),
    ]
}

fn training(args: &Finetune) -> Vec<Given> {
    let distills = args.distill_alpha.is_some() || args.distill_temperature.is_some();
    let method =
        args.dpo.map(|beta| json!({"dpo": {"beta": beta}})).or_else(|| args.orpo.map(|lambda| json!({"orpo": {"lambda": lambda}})));
    let method = method.or_else(|| distills.then(|| json!({"distill": {}})));
    vec![
        (&["training", "method"], method),
        (&["training", "epochs"], args.epochs.map(Value::from)),
        (&["training", "max_steps"], args.max_steps.map(Value::from)),
        (&["training", "learning_rate"], args.learning_rate.map(Value::from)),
        (&["training", "schedule"], args.schedule.clone().map(Value::from)),
        (&["training", "sequence_tokens"], args.sequence_tokens.map(Value::from)),
        (&["training", "batch_tokens"], args.batch_tokens.map(Value::from)),
        (&["training", "accumulation"], args.accumulation.map(Value::from)),
        (&["training", "evaluate_every_steps"], args.evaluate_every.map(Value::from)),
        (&["training", "patience"], args.patience.map(Value::from)),
        (&["training", "seed"], args.seed.map(Value::from)),
        (&["data", "seed"], args.seed.map(Value::from)),
    ]
}

/// By its logits where there are figures for that, and by what it writes where there are others, or neither.
fn teacher(args: &Finetune) -> Vec<Given> {
    let distills = args.distill_alpha.is_some() || args.distill_temperature.is_some();
    let writes = args.teacher_answers.is_some() || args.teacher_max_tokens.is_some() || args.teacher_temperature.is_some();
    let model = args.teacher.clone().map(Value::from);
    vec![
        (&["teacher"], model.clone().filter(|_| distills)),
        (&["training", "method", "distill", "alpha"], args.distill_alpha.map(Value::from)),
        (&["training", "method", "distill", "temperature"], args.distill_temperature.map(Value::from)),
        (&["data", "teacher", "model"], model.filter(|_| writes || !distills)),
        (&["data", "teacher", "answers"], args.teacher_answers.clone().map(Value::from)),
        (&["data", "teacher", "max_tokens"], args.teacher_max_tokens.map(Value::from)),
        (&["data", "teacher", "temperature"], args.teacher_temperature.map(Value::from)),
        (&["data", "teacher", "seed"], args.seed.filter(|_| args.teacher.is_some() && (writes || !distills)).map(Value::from)),
    ]
}

/// The model goes into the library, unless it is not to, and to the servers that are named.
fn publish(args: &Finetune, given: &Value) -> Option<Value> {
    if args.no_library && args.to.is_empty() {
        return None;
    }
    let mut publish = given.as_object().cloned().unwrap_or_else(Map::new);
    publish.insert("name".to_owned(), args.out.clone().into());
    publish.insert("library".to_owned(), (!args.no_library).into());
    for (key, value) in [
        ("to", (!args.to.is_empty()).then(|| json!(args.to))),
        ("preset", args.preset.clone().map(Value::from)),
        ("system", args.system.clone().map(Value::from)),
    ] {
        publish.extend(value.map(|value| (key.to_owned(), value)));
    }
    Some(publish.into())
}

/// A field of a field; null where there is none.
fn at<'a>(input: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(input, |place, key| &place[*key])
}

/// Sets a field of a field; what is not given stays.
fn set(input: &mut Value, path: &[&str], value: Option<Value>) {
    let Some(value) = value else { return };
    let mut place = input;
    for key in path {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[*key];
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::jobs::finetune::engine::Checkpointing;

    fn parsed(flags: &[&str]) -> Result<Wish, String> {
        let usual = ["arriero", "finetune", "--base", "m.gguf", "--data", "a.jsonl", "--out", "me/mine"];
        let cli = Cli::try_parse_from(usual.iter().chain(flags)).map_err(|error| error.to_string())?;
        let Command::Finetune(args) = cli.command else { return Err("another command".to_owned()) };
        wish(&args).map_err(|failure| failure.to_string())
    }

    #[test]
    fn flags_become_the_words_of_a_job() {
        let usual = parsed(&[]).expect("right");
        assert!(usual.publish.as_ref().is_some_and(|publish| publish.library && publish.to.is_empty()));
        assert_eq!((usual.data.split.test, usual.export.name.as_deref()), (0.1, Some("me/mine")));
        let flags =
            ["--dpo", "0.2", "--rank", "8", "--targets", "attn_q,attn_v", "--seed", "7", "--no-library", "--sequence-tokens", "128"];
        let other = parsed(&flags).expect("right");
        assert!(other.publish.is_none() && other.adapter.rank == 8 && other.adapter.targets.len() == 2);
        assert_eq!((other.training.seed, other.data.seed, other.training.batch_tokens), (7, 7, 256));
    }

    #[test]
    fn what_is_usual_goes_before_neither_flags_nor_the_options_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("options.json");
        let options = json!({
            "data": {"split": {"validation": 0.3}}, "training": {"sequence_tokens": 64, "batch_tokens": 640, "epochs": 9}, "checkpointing": "off",
        });
        std::fs::write(&path, options.to_string()).expect("written");
        let path = format!("--options={}", path.display());
        let wish = parsed(&[&path, "--epochs", "2", "--test-share", "0.25"]).expect("right");
        assert_eq!((wish.data.split.validation, wish.data.split.test), (0.3, 0.25));
        assert_eq!((wish.training.sequence_tokens, wish.training.batch_tokens, wish.training.epochs), (64, 640, 2));
        assert_eq!(wish.checkpointing, Checkpointing::Off);
        assert_eq!(parsed(&["--dpo", "0.1"]).expect("right").training.batch_tokens, 4_096);
    }

    #[test]
    fn what_was_collected_is_named_in_the_place_of_a_file() {
        let collected = parsed(&["--data", "collected:gemma3"]).expect("right").data.sources.remove(1).collected.expect("collected");
        assert_eq!((collected.model.as_deref(), collected.preferences), (Some("gemma3"), false));
        let pairs = parsed(&["--data", "collected", "--dpo", "0.1"]).expect("right").data.sources.remove(1).collected.expect("collected");
        assert!(pairs.preferences && pairs.model.is_none());
    }

    #[test]
    fn a_teacher_writes_or_has_its_logits_looked_at() {
        use crate::jobs::finetune::options::{Distill, Method};

        let writes = parsed(&["--teacher", "gemma3:27b", "--teacher-max-tokens", "64", "--seed", "5"]).expect("right");
        let teacher = writes.data.teacher.expect("one that writes");
        assert_eq!((teacher.model.as_str(), teacher.max_tokens, teacher.seed, writes.teacher), ("gemma3:27b", 64, 5, None));
        let logits = parsed(&["--teacher", "t.gguf", "--distill-alpha", "0.25"]).expect("right");
        assert_eq!((logits.teacher.as_deref(), logits.data.teacher), (Some("t.gguf"), None));
        assert_eq!(logits.training.method, Method::Distill(Distill { alpha: 0.25, temperature: 2.0 }));
        let both = parsed(&["--teacher", "t.gguf", "--distill-temperature", "3", "--teacher-answers", "all"]).expect("right");
        assert!(both.teacher.is_some() && both.data.teacher.is_some());
        for (flags, word) in [
            (&["--distill-alpha", "0.5"][..], "no `teacher`"),
            (&["--teacher", "t.gguf", "--distill-alpha", "1.5"], "at most 1"),
            (&["--teacher", "t.gguf", "--distill-alpha", "0.5", "--dpo", "0.1"], "cannot be used with"),
            (&["--teacher", "hf:o/n"], "Hub"),
            (&["--teacher-url", "http://h"], "--teacher"),
        ] {
            let wrong = parsed(flags).expect_err("wrong");
            assert!(wrong.contains(word), "{wrong}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (flag, word) in [
            ("--checkpointing=some", "checkpointing"),
            ("--rank=0", "rank"),
            ("--test-share=2", "test"),
            ("--learning-rate=-1", "learning_rate"),
        ] {
            let wrong = parsed(&[flag]).expect_err("wrong");
            assert!(wrong.contains(word), "{wrong}");
        }
        assert!(parsed(&["--dpo", "0.1", "--orpo", "0.1"]).is_err());
    }
}
