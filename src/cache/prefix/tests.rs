//! The index against a model of it that is too simple to be wrong.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> ModelName {
    ModelName::parse(text).expect("a name")
}

fn usage(prompt_tokens: u64, cached_tokens: Option<u64>) -> Usage {
    Usage { prompt_tokens: Some(prompt_tokens), cached_tokens, completion_tokens: None }
}

fn took(milliseconds: u64) -> Timing {
    Timing { prompt_eval: Some(Duration::from_millis(milliseconds)), ..Timing::default() }
}

fn chain(parts: &[u8]) -> Chain {
    Chain::made_of("m", parts)
}

/// Whole prompts in a list, the oldest first: no hashes of blocks, no counts.
#[derive(Default)]
struct Naive {
    prompts: Vec<(&'static str, &'static str, Vec<u8>, u64)>,
}

impl Naive {
    fn insert(&mut self, config: &Config, backend: &'static str, model: &'static str, parts: &[u8], tokens: u64) {
        self.prompts.retain(|(b, m, held, _)| (*b, *m) != (backend, model) || !parts.starts_with(held));
        self.prompts.push((backend, model, parts.to_vec(), tokens));
        let here = |p: &(&str, &str, Vec<u8>, u64)| (p.0, p.1) == (backend, model);
        while self.prompts.iter().filter(|p| here(p)).map(|p| p.3).sum::<u64>() > config.max_warm_tokens
            && self.prompts.iter().filter(|p| here(p)).count() > 1
        {
            let oldest = self.prompts.iter().position(here).expect("one");
            self.prompts.remove(oldest);
        }
        while self.blocks() > config.max_blocks {
            self.prompts.remove(0);
        }
    }

    fn blocks(&self) -> usize {
        let all = self.prompts.iter().flat_map(|(b, m, held, _)| (1..=held.len()).map(move |n| (*b, *m, &held[..n])));
        all.collect::<std::collections::HashSet<_>>().len()
    }

    fn longest(&self, model: &str, parts: &[u8]) -> Vec<(String, usize)> {
        let shared = |held: &[u8]| held.iter().zip(parts).take_while(|(a, b)| a == b).count();
        let of = |backend: &str| self.prompts.iter().filter(|p| p.0 == backend && p.1 == model).map(|p| shared(&p.2)).max().unwrap_or(0);
        let mut found: Vec<_> = ["x", "y"].map(|backend| (backend.to_owned(), of(backend))).into_iter().filter(|f| f.1 > 0).collect();
        found.sort_by_key(|f| std::cmp::Reverse(f.1));
        found
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(&'static str, &'static str, Vec<u8>, u64),
    Forget(&'static str, &'static str),
    ForgetBackend(&'static str),
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (prop_oneof![Just("x"), Just("y")], prop_oneof![Just("m"), Just("n")]);
    let parts = proptest::collection::vec(0u8..3, 1..6);
    prop_oneof![
        12 => (place(), parts, 0u64..40).prop_map(|((backend, model), parts, tokens)| Step::Insert(backend, model, parts, tokens)),
        1 => place().prop_map(|(backend, model)| Step::Forget(backend, model)),
        1 => prop_oneof![Just("x"), Just("y")].prop_map(Step::ForgetBackend),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn the_index_says_what_the_naive_model_says(
        steps in proptest::collection::vec(step(), 1..60), max_warm_tokens in 1u64..120, max_blocks in 1usize..30,
        asked in proptest::collection::vec(0u8..3, 1..6),
    ) {
        let config = Config { max_blocks, max_warm_tokens, ..Config::default() };
        let (mut index, mut naive) = (PrefixIndex::new(config.clone()), Naive::default());
        for step in steps {
            match step {
                Step::Insert(backend, model, parts, tokens) => {
                    index.insert(backend, &Chain::made_of(model, &parts), tokens);
                    naive.insert(&config, backend, model, &parts, tokens);
                }
                Step::Forget(backend, model) => {
                    index.forget(backend, &name(model));
                    naive.prompts.retain(|p| (p.0, p.1) != (backend, model));
                }
                Step::ForgetBackend(backend) => {
                    index.forget_backend(backend);
                    naive.prompts.retain(|p| p.0 != backend);
                }
            }
            prop_assert!(index.blocks() <= max_blocks);
            prop_assert_eq!(index.blocks(), naive.blocks());
            prop_assert_eq!(index.blocks(), index.counted_blocks());
            for model in ["m", "n"] {
                let found = index.longest(&Chain::made_of(model, &asked));
                let found: Vec<_> = found.iter().map(|warm| (warm.backend.to_string(), warm.blocks)).collect();
                prop_assert_eq!(found, naive.longest(model, &asked));
            }
        }
    }
}

#[test]
fn the_longest_is_first_and_says_what_it_saves() {
    let mut index = PrefixIndex::new(Config::default());
    index.insert("a", &chain(&[1, 2]), 1_000);
    index.observed("b", &chain(&[1, 2, 3]), None, &usage(3_000, Some(0)), &took(3_000));
    let warm = index.longest(&chain(&[1, 2, 3, 4]));
    let found: Vec<_> = warm.iter().map(|w| (&*w.backend, w.blocks, w.tokens, w.saves)).collect();
    assert_eq!(found, [("b", 3, 3_000, Some(Duration::from_secs(3))), ("a", 2, 1_000, None)]);
    assert_eq!(index.saves("b", &name("m:latest"), 500), Some(Duration::from_millis(500)));
}

#[test]
fn a_backend_that_says_what_was_cached_is_believed() {
    let mut index = PrefixIndex::new(Config::default());
    let cold = index.observed("a", &chain(&[1, 2]), None, &usage(1_000, Some(0)), &took(1_000));
    assert_eq!((cold.verdict, cold.saved), (Verdict::Cold, None));
    let predicted = index.longest(&chain(&[1, 2, 3])).remove(0);
    let hit = index.observed("a", &chain(&[1, 2, 3]), Some(&predicted), &usage(1_500, Some(1_000)), &took(500));
    assert_eq!((hit.verdict, hit.saved), (Verdict::Hit, Some(Duration::from_secs(1))));
    let surprise = index.observed("a", &chain(&[9]), None, &usage(100, Some(90)), &took(10));
    assert_eq!((surprise.verdict, surprise.cached_tokens), (Verdict::Surprise, Some(90)));
}

#[test]
fn a_hit_shows_in_the_speed_where_the_backend_says_nothing() {
    let mut index = PrefixIndex::new(Config::default());
    assert_eq!(index.observed("a", &chain(&[1, 2]), None, &usage(362, None), &took(628)).verdict, Verdict::Unknown);
    let predicted = index.longest(&chain(&[1, 2])).pop();
    let hit = index.observed("a", &chain(&[1, 2]), predicted.as_ref(), &usage(362, None), &took(38));
    assert_eq!(hit.verdict, Verdict::Hit);
    let cold = index.observed("a", &chain(&[7, 7]), None, &usage(362, None), &took(600));
    assert_eq!(cold.verdict, Verdict::Cold);
}

#[test]
fn a_prediction_that_proves_wrong_is_forgotten_but_not_what_it_says_nothing_about() {
    let mut index = PrefixIndex::new(Config::default());
    index.insert("a", &chain(&[1, 2, 3, 4]), 1_000);
    index.insert("a", &chain(&[1, 9]), 400);
    let asked = chain(&[1, 2, 3, 5]);
    let predicted = index.longest(&asked).remove(0);
    assert_eq!((predicted.blocks, predicted.tokens), (3, 750));
    let miss = index.observed("a", &asked, Some(&predicted), &usage(1_000, Some(0)), &took(1_000));
    assert_eq!(miss.verdict, Verdict::Miss);
    let blocks = |parts: &[u8]| index.longest(&chain(parts)).first().map_or(0, |warm| warm.blocks);
    assert_eq!([blocks(&[1, 2, 3, 4]), blocks(&[1, 2, 3, 5]), blocks(&[1, 9])], [3, 4, 2], "only the lost prompt is gone");
    assert_eq!(index.blocks(), index.counted_blocks());
}

#[test]
fn a_reload_takes_what_was_held_but_not_the_speed() {
    let mut index = PrefixIndex::new(Config::default());
    index.observed("a", &chain(&[1]), None, &usage(1_000, Some(0)), &took(1_000));
    index.stick("tenant/chat", "a");
    index.forget("a", &name("m"));
    assert!(index.longest(&chain(&[1])).is_empty());
    assert_eq!(index.saves("a", &name("m"), 1_000), Some(Duration::from_secs(1)));
    assert_eq!(index.where_is("tenant/chat").as_deref(), Some("a"));
    index.forget_backend("a");
    assert_eq!(index.where_is("tenant/chat"), None);
}

#[test]
fn switched_off_nothing_is_remembered() {
    let prefixes = Prefixes::new(Config { enabled: false, ..Config::default() }, Metrics::default());
    prefixes.insert("a", &chain(&[1]), 10);
    assert!(prefixes.longest(&chain(&[1])).is_empty());
    assert_eq!(prefixes.observed("a", &chain(&[1]), None, &usage(10, None), &took(1)), None);
}

#[test]
fn what_happens_is_counted() {
    let metrics = Metrics::default();
    let prefixes = Prefixes::new(Config { max_warm_tokens: 15, ..Config::default() }, metrics.clone());
    prefixes.insert("a", &chain(&[1, 2]), 10);
    prefixes.insert("a", &chain(&[3]), 10);
    let warm = prefixes.longest(&chain(&[3])).pop();
    prefixes.observed("a", &chain(&[3]), warm.as_ref(), &usage(10, Some(9)), &took(10));
    let text = metrics.render();
    for line in [
        "arriero_prefix_blocks 1",
        "arriero_prefix_blocks_evicted_total 2",
        "arriero_prefix_predictions_total{backend=\"a\",result=\"hit\"} 1",
        "arriero_prefix_cached_tokens_total{backend=\"a\"} 9",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
