use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cache::answer::Speed;
use crate::cache::testing::{answer, delta, done, finished, full_ask};
use crate::domain::generation::{CacheMode, FinishReason};
use crate::storage::answers::Row;

const HOUR: Duration = Duration::from_hours(1);

/// A cache whose keeper runs, and what is around it.
struct Bench {
    folder: Arc<tempfile::TempDir>,
    storage: Storage,
    clock: Clock,
    metrics: Metrics,
    cache: Exact,
    cancel: CancellationToken,
    keeper: JoinSet<()>,
}

impl Bench {
    async fn new(config: Config) -> Self {
        Self::open(Arc::new(tempfile::tempdir().expect("a folder")), config, Clock::fake(1_000_000)).await
    }

    async fn open(folder: Arc<tempfile::TempDir>, config: Config, clock: Clock) -> Self {
        let storage = Storage::open(folder.path(), &crate::storage::Config::default()).await.expect("opened");
        let metrics = Metrics::default();
        let (cache, keeper) = Exact::new(config, &storage, metrics.clone(), clock.clone());
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run(cancel.clone()));
        Self { folder, storage, clock, metrics, cache, cancel, keeper: tasks }
    }

    /// Ends as the program does.
    async fn stop(mut self) -> (Arc<tempfile::TempDir>, Clock) {
        self.cancel.cancel();
        while self.keeper.join_next().await.is_some() {}
        self.storage.close().await;
        (self.folder, self.clock)
    }

    async fn restart(self, config: Config) -> Self {
        let (folder, clock) = self.stop().await;
        Self::open(folder, config, clock).await
    }

    async fn get(&self, key: &Key) -> Lookup {
        let policy = self.cache.policy(Some(CacheMode::Default), &full_ask());
        self.cache.get(key, &policy).await
    }

    async fn why(&self, key: &Key) -> Why {
        match self.get(key).await {
            Lookup::Hit(hit) => hit.why,
            Lookup::Miss(outcome) | Lookup::Refused(NotCached(outcome)) => outcome.why,
        }
    }

    fn forget_memory(&self) {
        self.cache.0.memory.invalidate_all();
    }

    async fn rows(&self) -> u64 {
        self.cache.flush().await;
        self.storage.answers().size().await.expect("counted").rows
    }

    fn says(&self, line: &str) {
        let text = self.metrics.render();
        assert!(text.lines().any(|l| l == line), "no line `{line}` in\n{text}");
    }
}

fn key(n: u8) -> Key {
    Key::from_bytes(&[n; 32]).expect("32 bytes")
}

fn tags() -> Tags {
    tagged("gemma3", Some("d1"), "t")
}

fn tagged(model: &str, digest: Option<&str>, tenant: &str) -> Tags {
    let model = ModelName::parse(model).expect("a name");
    Tags { model, digest: digest.map(str::to_owned), tenant: tenant.into(), key_id: Some("k".into()), ttl: None }
}

fn some(text: &str) -> Answer {
    answer(&[text], finished(FinishReason::Stop))
}

#[tokio::test]
async fn what_was_put_is_given_again_with_its_age_and_without_a_copy() {
    let bench = Bench::new(Config::default()).await;
    assert_eq!(bench.why(&key(1)).await, Why::Absent);
    assert!(bench.cache.put(key(1), some("a"), tags()));
    bench.clock.advance(Duration::from_secs(5));
    let (Lookup::Hit(one), Lookup::Hit(two)) = (bench.get(&key(1)).await, bench.get(&key(1)).await) else { panic!("no hit") };
    assert_eq!((one.age, one.why), (Duration::from_secs(5), Why::Memory));
    assert_eq!(one.outcome().status, Status::Hit);
    assert!(Arc::ptr_eq(&one.answer, &two.answer));
    assert_eq!(one.answer.replay(Speed::Full).collect::<Vec<_>>().await, [delta("a"), done()]);
    bench.says("arriero_answer_cache_lookups_total{status=\"miss\",why=\"absent\"} 1");
    bench.says("arriero_answer_cache_lookups_total{status=\"hit\",why=\"memory\"} 2");
}

#[tokio::test]
async fn the_policy_decides_whether_it_is_looked_for() {
    let bench = Bench::new(Config::default()).await;
    bench.cache.put(key(1), some("a"), tags());
    let ask = full_ask();
    for (mode, n, expected) in [
        (None, 1, Ok(Why::Memory)),
        (Some(CacheMode::Only), 1, Ok(Why::Memory)),
        (Some(CacheMode::Bypass), 1, Err((Status::Bypass, Why::Asked))),
        (Some(CacheMode::Refresh), 1, Err((Status::Refresh, Why::Asked))),
        (None, 2, Err((Status::Miss, Why::Absent))),
    ] {
        let found = match bench.cache.get(&key(n), &bench.cache.policy(mode, &ask)).await {
            Lookup::Hit(hit) => Ok(hit.why),
            Lookup::Miss(outcome) => Err((outcome.status, outcome.why)),
            Lookup::Refused(refused) => panic!("{refused}"),
        };
        assert_eq!(found, expected, "{mode:?} {n}");
    }
    let only = bench.cache.policy(Some(CacheMode::Only), &ask);
    let Lookup::Refused(refused) = bench.cache.get(&key(2), &only).await else { panic!("not refused") };
    assert_eq!(refused.0.why, Why::Absent);
    assert!(refused.to_string().contains("(absent)"));
}

#[tokio::test]
async fn it_survives_a_restart_and_is_read_only_when_asked_for() {
    let bench = Bench::new(Config::default()).await;
    bench.cache.put(key(1), some("a"), tags());
    bench.clock.advance(HOUR);
    let bench = bench.restart(Config::default()).await;
    assert_eq!(bench.cache.stats().memory, Size::default());
    let Lookup::Hit(hit) = bench.get(&key(1)).await else { panic!("lost") };
    assert_eq!((hit.age, hit.why, &*hit.answer), (HOUR, Why::Durable, &some("a")));
    assert_eq!(bench.why(&key(1)).await, Why::Memory, "it is in memory now");
    assert_eq!(bench.cache.stats().memory.rows, 1);
    bench.cache.flush().await;
    assert_eq!(bench.cache.stats().durable.rows, 1);
}

#[tokio::test]
async fn only_whole_answers_that_are_not_too_large_are_kept() {
    let bench = Bench::new(Config { max_answer_bytes: 3_000, ..Config::default() }).await;
    for reason in [FinishReason::Load, FinishReason::Unload, FinishReason::Other("x".into())] {
        assert!(!bench.cache.put(key(1), answer(&["a"], finished(reason)), tags()));
    }
    assert!(!bench.cache.put(key(1), some(&"x".repeat(3_000)), tags()));
    assert!(!bench.cache.put(key(1), some("a"), Tags { ttl: Some(Duration::ZERO), ..tags() }));
    assert_eq!((bench.why(&key(1)).await, bench.rows().await), (Why::Absent, 0));
    assert!(bench.cache.put(key(1), answer(&["a"], finished(FinishReason::Length)), tags()));
    bench.says("arriero_answer_cache_dropped_total{reason=\"too_large\"} 1");
}

#[tokio::test]
async fn a_cache_that_is_off_keeps_nothing_and_still_runs() {
    let bench = Bench::new(Config { enabled: false, ..Config::default() }).await;
    assert!(!bench.cache.put(key(1), some("a"), tags()));
    assert_eq!(bench.why(&key(1)).await, Why::Disabled);
    assert_eq!(bench.cache.purge(&Filter::All).await.expect("purged"), 0);
    bench.stop().await;
}

#[tokio::test]
async fn without_a_database_memory_alone_is_used_and_purged() {
    let bench = Bench::new(Config { durable_max_bytes: 0, ..Config::default() }).await;
    bench.cache.put(key(1), some("a"), tags());
    assert_eq!((bench.why(&key(1)).await, bench.rows().await), (Why::Memory, 0));
    assert_eq!(bench.cache.purge(&Filter::All).await.expect("purged"), 1);
    assert_eq!(bench.why(&key(1)).await, Why::Absent);
}

#[tokio::test]
async fn each_answer_lives_as_long_as_its_model_route_or_the_default_say() {
    let ttl = |model: &str, ttl| Ttl { model: model.to_owned(), ttl };
    let config = Config { ttl: vec![ttl("qwen*", HOUR * 2), ttl("*", HOUR)], default_ttl: None, ..Config::default() };
    let bench = Bench::new(config).await;
    bench.cache.put(key(1), some("a"), tagged("gemma3", None, "t"));
    bench.cache.put(key(2), some("a"), tagged("qwen2.5", None, "t"));
    bench.cache.put(key(3), some("a"), Tags { ttl: Some(HOUR * 3), ..tags() });
    for (alive, expired) in [(vec![1, 2, 3], vec![]), (vec![2, 3], vec![1]), (vec![3], vec![1, 2]), (vec![], vec![1, 2, 3])] {
        for n in alive {
            assert_eq!(bench.why(&key(n)).await, Why::Memory);
        }
        for n in expired {
            assert!([Why::Expired, Why::Absent].contains(&bench.why(&key(n)).await), "{n}");
        }
        bench.clock.advance(HOUR);
    }
    bench.says("arriero_answer_cache_removed_total{tier=\"memory\",reason=\"age\"} 3");
    let bench = bench.restart(Config::default()).await;
    while bench.rows().await > 0 {
        tokio::task::yield_now().await; // the keeper begins by pruning
    }
    bench.says("arriero_answer_cache_removed_total{tier=\"durable\",reason=\"age\"} 3");
}

#[tokio::test]
async fn an_expired_answer_in_the_database_is_a_miss() {
    let bench = Bench::new(Config { default_ttl: Some(HOUR), ..Config::default() }).await;
    bench.cache.put(key(1), some("a"), tags());
    bench.cache.flush().await;
    bench.forget_memory();
    bench.clock.advance(HOUR);
    assert_eq!(bench.why(&key(1)).await, Why::Expired);
}

#[tokio::test]
async fn purges_reach_memory_the_queue_and_the_database_and_nothing_else() {
    let model = |name| ModelName::parse(name).expect("a name");
    for (filter, kept) in [
        (Filter::Key(key(1)), vec![2, 3, 4]),
        (Filter::Model(model("GEMMA3:latest")), vec![3, 4]),
        (Filter::Tenant("other".to_owned()), vec![1, 3]),
        (Filter::All, vec![]),
        (Filter::Tenant("nobody".to_owned()), vec![1, 2, 3, 4]),
    ] {
        let bench = Bench::new(Config::default()).await;
        for (n, model, tenant) in [(1, "gemma3", "t"), (2, "gemma3", "other"), (3, "qwen", "t"), (4, "qwen", "other")] {
            bench.cache.put(key(n), some("a"), tagged(model, None, tenant));
            match n {
                // In both, in the database only, in memory and the queue.
                1 => bench.cache.flush().await,
                2 => {
                    bench.cache.flush().await;
                    bench.forget_memory();
                }
                _ => {}
            }
        }
        let purged = bench.cache.purge(&filter).await.expect("purged");
        assert_eq!(purged, 4 - kept.len() as u64, "{filter:?}");
        for forgotten_memory in [false, true] {
            for n in 1..=4 {
                let found = matches!(bench.get(&key(n)).await, Lookup::Hit(_));
                assert_eq!(found, kept.contains(&n), "{filter:?} {n} {forgotten_memory}");
            }
            bench.cache.flush().await;
            bench.forget_memory();
        }
        assert_eq!(bench.rows().await, kept.len() as u64);
    }
}

#[tokio::test]
async fn answers_of_content_that_is_gone_are_forgotten() {
    let bench = Bench::new(Config::default()).await;
    for (n, model, digest) in
        [(1, "m", Some("old")), (2, "m", Some("new")), (3, "m", Some("elsewhere")), (4, "m", None), (5, "n", Some("old"))]
    {
        bench.cache.put(key(n), some("a"), tagged(model, digest, "t"));
    }
    let model = ModelName::parse("m").expect("a name");
    assert_eq!(bench.cache.keep_only_digests(&model, vec![]).await.expect("nothing known"), 0);
    let digests = vec!["new".to_owned(), "elsewhere".to_owned()];
    assert_eq!(bench.cache.keep_only_digests(&model, digests.clone()).await.expect("purged"), 2);
    assert_eq!(bench.cache.keep_only_digests(&model, digests).await.expect("purged"), 0);
    for (n, found) in [(1, false), (2, true), (3, true), (4, false), (5, true)] {
        assert_eq!(matches!(bench.get(&key(n)).await, Lookup::Hit(_)), found, "{n}");
    }
}

#[tokio::test]
async fn memory_stays_within_its_bytes() {
    let bench = Bench::new(Config { max_bytes: 50_000, durable_max_bytes: 0, ..Config::default() }).await;
    for n in 0..200 {
        bench.cache.put(key(n), some(&"x".repeat(1_000)), tags());
    }
    let memory = bench.cache.stats().memory;
    assert!(memory.bytes <= 50_000 && memory.rows >= 10, "{memory:?}");
    let text = bench.metrics.render();
    let evicted = format!("arriero_answer_cache_removed_total{{tier=\"memory\",reason=\"size\"}} {}", 200 - memory.rows);
    assert!(text.contains(&evicted), "{evicted} is not in\n{text}");
}

#[tokio::test]
async fn a_damaged_row_is_a_miss_and_is_deleted() {
    let bench = Bench::new(Config::default()).await;
    for answer in [vec![], vec![1], vec![0; 100], b"{}".to_vec()] {
        let row = Row {
            key: *key(1).as_bytes(),
            model: "m".into(),
            digest: None,
            tenant: "t".into(),
            key_id: None,
            created_at_ms: 0,
            expires_at_ms: i64::MAX,
            answer,
        };
        bench.storage.answers().write(&[row], &[]).await.expect("written");
        assert_eq!(bench.why(&key(1)).await, Why::Damaged);
        assert_eq!(bench.rows().await, 0);
        assert_eq!(bench.why(&key(1)).await, Why::Absent);
    }
    bench.says("arriero_answer_cache_removed_total{tier=\"durable\",reason=\"damage\"} 4");
}

#[tokio::test]
async fn a_row_that_lies_under_another_key_is_not_given() {
    let bench = Bench::new(Config::default()).await;
    bench.cache.put(key(1), some("a"), tags());
    bench.cache.flush().await;
    let found = bench.storage.answers().read(key(1).as_bytes()).await.expect("read").expect("there");
    let row = Row {
        key: *key(2).as_bytes(),
        model: found.model,
        digest: None,
        tenant: found.tenant,
        key_id: None,
        created_at_ms: 0,
        expires_at_ms: i64::MAX,
        answer: found.answer,
    };
    bench.storage.answers().write(&[row], &[]).await.expect("written");
    assert_eq!(bench.why(&key(2)).await, Why::Damaged);
}

#[tokio::test]
async fn a_database_that_cannot_be_read_is_a_miss() {
    let bench = Bench::new(Config::default()).await;
    bench.storage.close().await;
    assert_eq!(bench.why(&key(1)).await, Why::Storage);
    assert!(bench.cache.put(key(1), some("a"), tags()));
    assert_eq!(bench.why(&key(1)).await, Why::Memory);
    bench.cache.flush().await;
    bench.says("arriero_answer_cache_dropped_total{reason=\"storage\"} 1");
    assert!(bench.cache.purge(&Filter::All).await.is_err());
    assert_eq!(bench.why(&key(1)).await, Why::Storage, "memory forgot it all the same");
}

#[test]
fn keys_are_a_tenants_own_unless_shared() {
    let (ask, model) = (full_ask(), ModelName::parse("m").expect("a name"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for shared in [false, true] {
            let bench = Bench::new(Config { shared, ..Config::default() }).await;
            let of = |tenant| bench.cache.key(tenant, &model, None, &ask);
            assert_eq!(of("a") == of("b"), shared);
        }
    });
}
