use tokio::task::JoinSet;

use super::*;
use crate::cache::answer::Answer;
use crate::cache::exact::{Exact, Keeper, Tags};
use crate::cache::testing::{answer, finished};
use crate::domain::generation::FinishReason;
use crate::domain::id::ModelName;

fn key(n: u8) -> Key {
    Key::from_bytes(&[n; 32]).expect("32 bytes")
}

fn tags() -> Tags {
    Tags { model: ModelName::parse("m").expect("a name"), digest: None, tenant: "t".into(), key_id: None, ttl: None }
}

fn some(bytes: usize) -> Answer {
    answer(&[&"x".repeat(bytes)], finished(FinishReason::Stop))
}

async fn cache(config: Config) -> (tempfile::TempDir, Storage, Metrics, Clock, Exact, Keeper) {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Storage::open(folder.path(), &crate::storage::Config::default()).await.expect("opened");
    let (metrics, clock) = (Metrics::default(), Clock::fake(0));
    let (cache, keeper) = Exact::new(config, &storage, metrics.clone(), clock.clone());
    (folder, storage, metrics, clock, cache, keeper)
}

fn start(keeper: Keeper) -> (JoinSet<()>, CancellationToken) {
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(keeper.run(cancel.clone()));
    (tasks, cancel)
}

fn dropped(metrics: &Metrics, reason: &str) -> u64 {
    let line = format!("arriero_answer_cache_dropped_total{{reason=\"{reason}\"}} ");
    let text = metrics.render();
    text.lines().find_map(|l| l.strip_prefix(&line)).expect("a line").parse().expect("a number")
}

#[tokio::test]
async fn what_does_not_fit_the_queue_is_dropped_and_counted_and_never_waits() {
    let (_folder, storage, metrics, _, cache, keeper) = cache(Config { max_waiting: 3, ..Config::default() }).await;
    for n in 0..10 {
        assert!(cache.put(key(n), some(1), tags()));
    }
    assert_eq!(dropped(&metrics, "queue_full"), 7);
    let (mut tasks, cancel) = start(keeper);
    cache.flush().await;
    assert_eq!(storage.answers().size().await.expect("counted").rows, 3);
    cancel.cancel();
    tasks.join_next().await;
}

#[tokio::test]
async fn bytes_that_wait_are_bounded_and_given_back() {
    let config = Config { max_waiting_bytes: 10_000, ..Config::default() };
    let (_folder, storage, metrics, _, cache, keeper) = cache(config).await;
    for n in 0..4 {
        cache.put(key(n), some(4_000), tags());
    }
    assert_eq!(dropped(&metrics, "queue_full"), 2);
    let (_tasks, _cancel) = start(keeper);
    cache.flush().await;
    cache.put(key(9), some(4_000), tags());
    cache.put(key(10), some(4_000), tags());
    cache.flush().await;
    assert_eq!((dropped(&metrics, "queue_full"), storage.answers().size().await.expect("counted").rows), (2, 4));
}

#[tokio::test]
async fn the_end_writes_what_is_left_and_later_purges_still_work() {
    let (_folder, storage, _, _, cache, keeper) = cache(Config { flush_interval: Duration::from_hours(1), ..Config::default() }).await;
    let (mut tasks, cancel) = start(keeper);
    for n in 0..20 {
        cache.put(key(n), some(1), tags());
    }
    cancel.cancel();
    tasks.join_next().await.expect("a task").expect("no panic");
    assert_eq!(storage.answers().size().await.expect("counted").rows, 20);
    assert_eq!(cache.purge(&crate::cache::exact::Filter::All).await.expect("purged"), 20);
    assert_eq!(storage.answers().size().await.expect("counted").rows, 0);
    cache.flush().await;
}

#[tokio::test]
async fn the_database_keeps_to_its_bytes_and_loses_what_was_used_least_lately() {
    let config = Config { durable_max_bytes: 40_000, max_bytes: 0, max_batch: 1, ..Config::default() };
    let (_folder, storage, metrics, clock, cache, keeper) = cache(config).await;
    let (_tasks, _cancel) = start(keeper);
    let ask = crate::cache::testing::full_ask();
    let policy = cache.policy(None, &ask);
    for n in 0..60 {
        clock.advance(Duration::from_mins(2));
        cache.put(key(n), some(2_000), tags());
        // The first is used all the time, and so outlives those that came after it.
        let found = cache.get(&key(0), &policy).await;
        cache.flush().await;
        assert!(n == 0 || matches!(found, crate::cache::exact::Lookup::Hit(_)), "{n}");
        assert!(storage.answers().size().await.expect("counted").bytes <= 40_000);
    }
    let size = storage.answers().size().await.expect("counted");
    assert!(size.bytes > 30_000, "{size:?}");
    assert!(storage.answers().read(key(1).as_bytes()).await.expect("read").is_none());
    assert!(storage.answers().read(key(59).as_bytes()).await.expect("read").is_some());
    let removed = format!("arriero_answer_cache_removed_total{{tier=\"durable\",reason=\"size\"}} {}", 60 - size.rows);
    assert!(metrics.render().contains(&removed), "{removed}");
    assert_eq!(cache.stats().durable, size);
}

/// The process dies while a batch is being written: the future that writes stops at any of its steps.
#[tokio::test]
async fn a_batch_that_is_interrupted_is_there_or_not_but_never_half() {
    for steps in 0..40 {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), &crate::storage::Config::default()).await.expect("opened");
        let rows: Vec<Row> = (0..5)
            .map(|n| Row {
                key: *key(n).as_bytes(),
                model: "m".into(),
                digest: None,
                tenant: "t".into(),
                key_id: None,
                created_at_ms: 0,
                expires_at_ms: i64::MAX,
                answer: encode(&key(n), &some(100)).expect("written"),
            })
            .collect();
        let table = storage.answers();
        {
            let mut writing = Box::pin(table.write(&rows, &[]));
            for _ in 0..steps {
                let next = std::future::poll_fn(|context| std::task::Poll::Ready(writing.as_mut().poll(context).is_ready()));
                if next.await {
                    break;
                }
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
        storage.close().await;
        drop((storage, table));
        let storage = Storage::open(folder.path(), &crate::storage::Config::default()).await.expect("opened again");
        let count = storage.answers().size().await.expect("counted").rows;
        assert!(count == 0 || count == 5, "{count} after {steps} steps");
        for n in 0..u8::try_from(count).expect("few") {
            let found = storage.answers().read(key(n).as_bytes()).await.expect("read").expect("there");
            assert_eq!(crate::cache::stored::decode(&key(n), &found.answer), Some(some(100)));
        }
    }
}

#[tokio::test]
async fn a_full_disk_costs_answers_and_nothing_else() {
    let (_folder, storage, metrics, _, cache, keeper) = cache(Config::default()).await;
    storage.limit_pages(1).await; // no more than it has now
    let (_tasks, _cancel) = start(keeper);
    for n in 0..50 {
        cache.put(key(n), some(20_000), tags());
    }
    cache.flush().await;
    assert_eq!(dropped(&metrics, "storage"), 50);
    assert_eq!(storage.answers().size().await.expect("counted").rows, 0);
    storage.limit_pages(1_000_000).await;
    cache.put(key(1), some(1), tags());
    cache.flush().await;
    assert_eq!(storage.answers().size().await.expect("counted").rows, 1);
}
