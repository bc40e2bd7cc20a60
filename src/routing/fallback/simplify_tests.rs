use proptest::prelude::*;

use super::*;
use crate::domain::options::Options;

fn ask(text: &str, history: usize) -> Ask {
    let prompt = Prompt {
        text: text.to_owned(),
        system: Some("be kind".to_owned()),
        context: (0..u32::try_from(history).expect("small")).collect(),
        images: vec!["aGk=".to_owned()],
        ..Prompt::default()
    };
    Ask { prompt, ..Ask::default() }
}

fn fields(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| change.field.as_str()).collect()
}

#[test]
fn options_are_lowered_and_never_raised() {
    let smaller = Simplify { num_ctx: Some(2048), num_predict: Some(100), trim_history: None };
    for (ctx, predict, changed) in [
        (None, None, vec!["options.num_ctx", "options.num_predict"]),
        (Some(8192), Some(-1), vec!["options.num_ctx", "options.num_predict"]),
        (Some(8192), Some(50), vec!["options.num_ctx"]),
        (Some(1024), Some(500), vec!["options.num_predict"]),
        (Some(2048), Some(100), vec![]),
    ] {
        let asked = Ask { options: Options { num_ctx: ctx, num_predict: predict, ..Options::default() }, ..Ask::default() };
        let (asked, changes) = simplify(&asked, &smaller);
        assert_eq!(fields(&changes), changed);
        assert!(asked.options.num_ctx.expect("set") <= 2048 && (1..=100).contains(&asked.options.num_predict.expect("set")));
    }
    let (_, changes) = simplify(&Ask::default(), &smaller);
    assert_eq!((&changes[0].from, &changes[0].to), (&Value::Null, &json!(2048)));
}

#[test]
fn the_oldest_of_the_history_goes_first() {
    let trim = |most| simplify(&ask("what now?", 100), &Simplify { trim_history: Some(most), ..Simplify::default() });
    // The system prompt has 2 tokens, the text 3.
    let (small, changes) = trim(25);
    assert_eq!(small.prompt.context, (80..100).collect::<Vec<_>>());
    assert_eq!(small.prompt.text, "what now?");
    assert_eq!((fields(&changes), &changes[0].to), (vec!["context"], &json!({ "tokens": 20 })));
    assert_eq!(trim(105), (ask("what now?", 100), vec![]));
    let (none, changes) = trim(3);
    assert!(none.prompt.context.is_empty());
    assert_eq!((none.prompt.text.as_str(), fields(&changes)), ("now?", vec!["context", "prompt"]));
    assert_eq!(none.prompt.system.as_deref(), Some("be kind"));
    assert_eq!(none.prompt.images.len(), 1);
}

#[test]
fn a_text_keeps_its_end_from_the_beginning_of_a_line() {
    let text = "first line\nsecond line that is longer\nthird line\nfourth line";
    let (small, changes) = simplify(&ask(text, 0), &Simplify { trim_history: Some(10), ..Simplify::default() });
    assert_eq!(small.prompt.text, "third line\nfourth line");
    assert_eq!(changes[0].from, json!({ "bytes": text.len() }));
    let (word, _) = simplify(&ask("a few words", 0), &Simplify { trim_history: Some(0), ..Simplify::default() });
    assert_eq!(word.prompt.text, "words", "something is asked in any case");
}

#[test]
fn a_raw_prompt_is_left_alone() {
    let mut raw = ask(&"x ".repeat(100), 10);
    raw.prompt.raw = true;
    let least = Simplify { trim_history: Some(1), ..Simplify::default() };
    assert_eq!(simplify(&raw, &least), (raw, vec![]));
}

#[test]
fn of_two_the_smaller_counts() {
    let a = Simplify { num_ctx: Some(1), num_predict: None, trim_history: Some(5) };
    let b = Simplify { num_ctx: Some(2), num_predict: Some(3), trim_history: None };
    assert_eq!(a.and(b), Simplify { num_ctx: Some(1), num_predict: Some(3), trim_history: Some(5) });
    assert!(Simplify::default().is_nothing() && !a.is_nothing());
}

proptest! {
    /// The result is an ending of what was there, no longer than allowed but for the last word, and telling it twice changes nothing.
    #[test]
    fn trimming_keeps_an_ending(text in "[a-zäöü語 \n]{0,200}", history in 0_usize..50, most in 0_u64..100) {
        let smaller = Simplify { trim_history: Some(most), ..Simplify::default() };
        let before = ask(&text, history);
        let (after, changes) = simplify(&before, &smaller);
        prop_assert!(text.ends_with(&after.prompt.text));
        prop_assert!(before.prompt.context.ends_with(&after.prompt.context));
        prop_assert_eq!(changes.is_empty(), after == before);
        prop_assert_eq!(text.trim().is_empty(), after.prompt.text.trim().is_empty());
        let size = estimate_tokens(&after.prompt.text) + after.prompt.context.len() as u64 + 2;
        prop_assert!(size <= most.max(2) || after.prompt.context.is_empty() && after.prompt.text.split_whitespace().count() <= 1, "{}", size);
        let shown = format!("{changes:?}");
        prop_assert!(!shown.contains("语") && shown.is_ascii(), "sizes only");
        if changes.iter().any(|change| change.field == "prompt") {
            prop_assert!(after.prompt.context.is_empty(), "history goes first");
        }
        prop_assert_eq!(simplify(&after, &smaller).0, after);
    }
}
