//! The whole cache, with vectors made by hand.

use proptest::prelude::*;

use super::*;
use crate::domain::generation::Ask;

fn cache(change: impl FnOnce(&mut Config)) -> Semantic<&'static str> {
    let mut config = Config { model: Some("embedder".into()), routes: vec![Route::Generate], ..Config::default() };
    change(&mut config);
    Semantic::new(config, Metrics::default())
}

fn scope(tenant: &str) -> Scope {
    Scope::new(tenant, "digest", &Ask::default())
}

fn model(text: &str) -> ModelName {
    ModelName::parse(text).expect("a name")
}

/// A vector at this similarity to `[1, 0]`.
fn at(similarity: f32) -> [f32; 2] {
    [similarity, (1.0 - similarity * similarity).max(0.0).sqrt()]
}

const ASKED: &str = "What is the capital of France?";
const AGAIN: &str = "Tell me the capital of France";

fn kept(change: impl FnOnce(&mut Config), now: Instant) -> Semantic<&'static str> {
    let cache = cache(change);
    cache.store(&scope("t"), ASKED, &[1.0, 0.0], Arc::new("Paris"), 5, now).expect("kept");
    cache
}

#[test]
fn it_is_off_until_it_is_told_where_it_holds() {
    let off = Semantic::<()>::new(Config::default(), Metrics::default());
    assert_eq!(off.applies(Route::Generate, &model("m")), None);
    let no_route = Semantic::<()>::new(Config { model: Some("e".into()), ..Config::default() }, Metrics::default());
    assert_eq!(no_route.applies(Route::Generate, &model("m")), None);
    let on = cache(|config| config.models = vec!["llama*".into()]);
    assert_eq!(on.applies(Route::Generate, &model("llama3")), Some("embedder"));
    assert_eq!(on.applies(Route::Generate, &model("gemma3")), None);
}

#[test]
fn a_question_that_means_the_same_is_answered_within_its_scope_only() {
    let now = Instant::now();
    let cache = kept(|_| (), now);
    let hit = cache.lookup(&scope("t"), AGAIN, &at(0.97), now + Duration::from_secs(9)).expect("a hit");
    assert_eq!((*hit.value, hit.age), ("Paris", Duration::from_secs(9)));
    assert!((hit.similarity - 0.97).abs() < 1e-6);
    assert_eq!(cache.lookup(&scope("u"), AGAIN, &at(0.97), now).expect_err("another tenant"), Miss::Empty);
    assert_eq!(cache.lookup(&scope("t"), AGAIN, &at(0.94), now).expect_err("not similar"), Miss::Below);
    let rome = "What is the capital of Italy?";
    assert_eq!(cache.lookup(&scope("t"), rome, &at(0.99), now).expect_err("another name"), Miss::Guarded(Guard::Names));
}

#[test]
fn a_near_miss_does_not_hide_what_is_meant() {
    let now = Instant::now();
    let cache = kept(|_| (), now);
    cache.store(&scope("t"), "What is the capital of Italy?", &at(0.999), Arc::new("Rome"), 4, now).expect("kept");
    assert_eq!(*cache.lookup(&scope("t"), AGAIN, &at(0.999), now).expect("a hit").value, "Paris");
}

#[test]
fn what_cannot_be_looked_up_is_not_kept() {
    let now = Instant::now();
    let cache = cache(|config| config.max_prompt_bytes = 40);
    let store = |text: &str, vector: &[f32]| cache.store(&scope("t"), text, vector, Arc::new("x"), 1, now);
    assert_eq!(store(&"word ".repeat(20), &[1.0, 0.0]), Err(Miss::Unfit));
    assert_eq!(store("and? or! the", &[1.0, 0.0]), Err(Miss::Unfit));
    assert_eq!(store("word", &[0.0, 0.0]), Err(Miss::NoVector));
    assert_eq!(store("word", &[f32::NAN, 0.0]), Err(Miss::NoVector));
    assert!(!cache.fits("and? or! the") && cache.fits("word"));
    assert_eq!(cache.size(), (0, 0));
}

#[test]
fn answers_grow_old() {
    let now = Instant::now();
    let cache = kept(|config| config.ttl = Duration::from_mins(1), now);
    assert!(cache.lookup(&scope("t"), AGAIN, &at(0.99), now + Duration::from_mins(1)).is_ok());
    assert!(cache.lookup(&scope("t"), AGAIN, &at(0.99), now + Duration::from_secs(61)).is_err());
    assert_eq!(cache.prune(now + Duration::from_secs(61)), 1);
    assert_eq!(cache.size(), (0, 0));
}

#[test]
fn the_same_question_is_kept_once_with_its_last_answer() {
    let now = Instant::now();
    let cache = kept(|_| (), now);
    cache.store(&scope("t"), ASKED, &[2.0, 0.0], Arc::new("Paris!"), 6, now).expect("kept");
    assert_eq!(cache.size().0, 1);
    assert_eq!(*cache.lookup(&scope("t"), ASKED, &[1.0, 0.0], now).expect("a hit").value, "Paris!");
}

#[test]
fn another_embedding_model_begins_anew() {
    let now = Instant::now();
    let cache = kept(|_| (), now);
    assert_eq!(cache.lookup(&scope("t"), AGAIN, &[1.0, 0.0, 0.0], now).expect_err("not comparable"), Miss::Empty);
    cache.store(&scope("t"), AGAIN, &[1.0, 0.0, 0.0], Arc::new("P"), 1, now).expect("kept");
    assert_eq!(cache.size().0, 1);
}

#[test]
fn the_bounds_hold_and_what_was_used_longest_ago_goes_first() {
    let now = Instant::now();
    let cache = kept(|config| config.max_entries_per_scope = 2, now);
    cache.store(&scope("t"), "Why do cats purr?", &[0.0, 1.0], Arc::new("cats"), 4, now).expect("kept");
    assert!(cache.lookup(&scope("t"), AGAIN, &at(0.99), now).is_ok());
    cache.store(&scope("t"), "Where do bees sleep?", &[-1.0, 0.0], Arc::new("bees"), 4, now).expect("kept");
    assert!(cache.lookup(&scope("t"), AGAIN, &at(0.99), now).is_ok());
    assert!(cache.lookup(&scope("t"), "Why do cats purr?", &[0.0, 1.0], now).is_err());
    let small = kept(|config| config.max_bytes = 10, now);
    assert_eq!(small.size(), (0, 0));
}

#[test]
fn a_purge_takes_what_it_names() {
    let now = Instant::now();
    let cache = kept(|_| (), now);
    cache.store(&scope("u"), ASKED, &[1.0, 0.0], Arc::new("Paris"), 5, now).expect("kept");
    assert_eq!(cache.purge(&Purge::Tenant("u".into())), 1);
    assert_eq!(cache.purge(&Purge::ModelDigest("other".into())), 0);
    assert_eq!(cache.purge(&Purge::ModelDigest("digest".into())), 1);
    assert_eq!((cache.purge(&Purge::All), cache.size()), (0, (0, 0)));
}

#[test]
fn a_share_of_the_hits_is_checked_but_not_those_of_the_same_text() {
    let now = Instant::now();
    let cache = kept(|config| config.check_share = 0.25, now);
    let checked = |similarity| (0..100).filter(|_| cache.lookup(&scope("t"), AGAIN, &at(similarity), now).expect("a hit").check).count();
    assert_eq!([checked(0.97), checked(1.0)], [25, 0]);
}

#[test]
fn false_hits_raise_the_threshold_and_all_of_it_is_counted() {
    let (now, metrics) = (Instant::now(), Metrics::default());
    let cache = Semantic::new(Config::default(), metrics.clone());
    cache.store(&scope("t"), ASKED, &[1.0, 0.0], Arc::new("Paris"), 5, now).expect("kept");
    assert!(cache.lookup(&scope("t"), AGAIN, &at(0.97), now).is_ok());
    assert!(cache.judged(0.97, false) > 0.97);
    assert_eq!(cache.lookup(&scope("t"), AGAIN, &at(0.97), now).expect_err("raised"), Miss::Below);
    assert!(cache.threshold().1.measured < 0.001);
    let text = metrics.render();
    for line in [
        "arriero_semantic_lookups_total{result=\"hit\"} 1",
        "arriero_semantic_lookups_total{result=\"below_threshold\"} 1",
        "arriero_semantic_checks_total{result=\"false_hit\"} 1",
        "arriero_semantic_entries 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

proptest! {
    #[test]
    fn whatever_is_kept_and_dropped_the_books_are_right(
        steps in proptest::collection::vec((0u8..6, 0u8..3, 0usize..400, 0u64..100), 1..80), most in 1usize..6, max_bytes in 200usize..4_000,
    ) {
        let start = Instant::now();
        let config = Config { max_entries_per_scope: most, max_bytes, ttl: Duration::from_secs(50), ..Config::default() };
        let cache = Semantic::<()>::new(config, Metrics::default());
        for (word, tenant, bytes, seconds) in steps {
            let (scope, now) = (scope(&tenant.to_string()), start + Duration::from_secs(seconds));
            let mut vector = [0.0; 6];
            vector[usize::from(word)] = 1.0;
            let text = ["alpha", "beta", "gamma", "delta", "omega", "sigma"][usize::from(word)];
            match bytes {
                0..20 => { cache.purge(&Purge::Tenant(tenant.to_string())); }
                20..40 => { cache.prune(now); }
                40..150 => { let _ = cache.lookup(&scope, text, &vector, now); }
                _ => cache.store(&scope, text, &vector, Arc::new(()), bytes, now).expect("fit"),
            }
            cache.lock().store.check();
            prop_assert!(cache.size().1 <= max_bytes && cache.size().0 <= 3 * most);
        }
    }
}
