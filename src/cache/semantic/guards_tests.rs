//! Pairs that must not be taken for one another, and pairs that may.

use proptest::prelude::*;

use super::*;

/// `{a|b}`: the two texts of a pair.
const NEAR_MISSES: &str = include_str!("near_misses.txt");
const PARAPHRASES: &str = include_str!("paraphrases.txt");

fn near_misses() -> Vec<(String, String)> {
    let lines = NEAR_MISSES.lines().filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.map(|line| (side(line, false), side(line, true))).collect()
}

/// One side of every alternative of a line.
fn side(line: &str, second: bool) -> String {
    let (mut text, mut rest) = (String::new(), line);
    while let Some((before, after)) = rest.split_once('{') {
        let (choice, tail) = after.split_once('}').unwrap_or_else(|| panic!("no end in {line}"));
        let (a, b) = choice.split_once('|').unwrap_or_else(|| panic!("no choice in {line}"));
        text.extend([before, if second { b } else { a }]);
        rest = tail;
    }
    text + rest
}

fn disagree(a: &str, b: &str) -> Option<Guard> {
    let (ours, theirs) = (Features::of(a), Features::of(b));
    let found = ours.disagree(&theirs);
    assert_eq!(found, theirs.disagree(&ours), "not the same both ways: {a} / {b}");
    assert_eq!((ours.disagree(&ours), theirs.disagree(&theirs)), (None, None), "a text agrees with itself: {a} / {b}");
    found
}

#[test]
fn near_misses_do_not_pass() {
    let pairs = near_misses();
    assert!(pairs.len() >= 200, "only {}", pairs.len());
    let wrong: Vec<_> = pairs.iter().filter(|(a, b)| a == b || disagree(a, b).is_none()).collect();
    assert!(wrong.is_empty(), "{} of {} pass: {wrong:#?}", wrong.len(), pairs.len());
}

#[test]
fn near_misses_in_other_words_do_not_pass_either() {
    // Every pair again, the second text within another frame: what tells them apart must not depend on the rest being equal.
    let pairs = near_misses();
    let framed: Vec<_> =
        pairs.iter().map(|(a, b)| (a.clone(), format!("Hello! Could you please help me with a question? {b} Thanks!"))).collect();
    let wrong: Vec<_> = framed.iter().filter(|(a, b)| disagree(a, b).is_none()).collect();
    assert!(wrong.is_empty(), "{} of {} pass: {wrong:#?}", wrong.len(), pairs.len());
}

#[test]
fn paraphrases_pass() {
    let lines: Vec<(&str, &str)> =
        PARAPHRASES.lines().filter(|line| !line.starts_with("//")).filter_map(|line| line.split_once(" | ")).collect();
    assert!(lines.len() >= 60, "only {}", lines.len());
    let wrong: Vec<_> =
        lines.iter().filter_map(|(a, b)| Some((disagree(a, b)?, a, b, Features::of(a).words, Features::of(b).words))).collect();
    assert!(wrong.is_empty(), "{} of {} do not pass: {wrong:#?}", wrong.len(), lines.len());
}

#[test]
fn each_guard_finds_its_own() {
    for (a, b, guard) in [
        ("What happened in 2019?", "What happened in 2020?", Guard::Numbers),
        ("three eggs", "four eggs", Guard::Numbers),
        ("how far is it in miles", "how far is it in km", Guard::Numbers),
        ("Should I do it?", "Should I not do it?", Guard::Negation),
        ("coffee with sugar", "coffee without sugar", Guard::Negation),
        ("enable the firewall of a server now", "on machines, how do admins disable their firewall", Guard::Opposites),
        ("the weather in Paris", "the weather in Rome", Guard::Names),
        ("what does `ls -l` do", "what does `ls -a` do", Guard::Code),
        ("a recipe for apple pie", "a recipe for cherry pie", Guard::Words),
        ("dog bites man", "man bites dog", Guard::Words),
        ("supported formats of the player", "the player: which codecs, in general, are unsupported", Guard::Words),
    ] {
        assert_eq!(disagree(a, b), Some(guard), "{a} / {b}");
    }
}

#[test]
fn numbers_in_words_are_numbers() {
    for (words, digits) in [
        ("twenty one", "21"),
        ("two hundred and five", "205"),
        ("three thousand", "3000"),
        ("zwölf", "12"),
        ("5 km", "5km"),
        ("50 %", "50%"),
    ] {
        assert_eq!(Features::of(words).numbers, Features::of(digits).numbers, "{words}");
    }
    assert_eq!(Features::of("which one is it").numbers, Vec::<String>::new());
    assert_eq!(Features::of("one two").numbers, ["1", "2"]);
}

proptest! {
    #[test]
    fn any_text_agrees_with_itself_and_both_sides_say_the_same(a in "\\PC{0,120}", b in "\\PC{0,120}") {
        let (a, b) = (Features::of(&a), Features::of(&b));
        prop_assert_eq!(a.disagree(&a), None);
        prop_assert_eq!(a.disagree(&b).is_some(), b.disagree(&a).is_some());
    }

    #[test]
    fn another_number_never_passes(a in 0u32..100_000, b in 0u32..100_000, frame in "[a-z]{1,8} [a-z]{1,8}") {
        prop_assume!(a != b);
        let text = |number: u32| Features::of(&format!("{frame} {number} {frame}?"));
        prop_assert!(text(a).disagree(&text(b)).is_some());
    }
}

/// What vectors alone would do: the reason for the guards, and what share of paraphrases is found at the default threshold.
#[cfg(feature = "embedded")]
#[test]
fn real_vectors_need_the_guards() {
    use crate::cache::semantic::{Config, flat};
    use crate::lm::{Device, bert::Embedder};

    let executable = std::env::current_exe().expect("a path");
    let target = executable.ancestors().find(|path| path.join("models").is_dir()).expect("`make model` was run");
    let embedder = Embedder::open(&target.join("models/all-minilm-l6-v2"), &Device::cpu(Some(1))).expect("`make model` was run");
    let similar = |a: &str, b: &str| flat::dot(&embedder.embed(a).expect("a vector"), &embedder.embed(b).expect("a vector"));
    let least = Config::default().threshold;

    let near: Vec<f32> = near_misses().iter().map(|(a, b)| similar(a, b)).collect();
    let same: Vec<f32> = PARAPHRASES.lines().filter_map(|line| line.split_once(" | ")).map(|(a, b)| similar(a, b)).collect();
    let share = |values: &[f32], least: f32| values.iter().filter(|value| **value >= least).count() * 100 / values.len();
    for t in [0.80f32, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99] {
        println!("{t} near {}% same {}%", share(&near, t), share(&same, t));
    }
    assert!(share(&near, least) >= 10, "without guards {}% of the near misses would be hits", share(&near, least));
    assert!(share(&same, least) >= 25, "only {}% of the paraphrases are found", share(&same, least));
}
