use super::*;
use crate::usage::testing::{row, storage};

fn metric(metrics: &Metrics, name: &str) -> u64 {
    let text = metrics.render();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

const WRITTEN: &str = "arriero_usage_rows_written_total ";
const QUEUE_FULL: &str = "arriero_usage_rows_dropped_total{reason=\"queue_full\"}";
const LOST: &str = "arriero_usage_rows_dropped_total{reason=\"storage\"}";

/// Long enough that nothing is written for its time alone.
fn patient() -> Config {
    Config { flush_interval: Duration::from_hours(1), ..Config::default() }
}

fn quick() -> Config {
    Config { flush_interval: Duration::from_millis(5), ..Config::default() }
}

/// Waits as long as it takes; a test that waits in vain is ended by its runner.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    while !is_so().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn rows_wait_for_their_time_and_a_flush_brings_them() {
    let (_folder, storage) = storage().await;
    let metrics = Metrics::default();
    let (log, writer) = usage_log(&patient(), &storage, metrics.clone(), Clock::system());
    let cancel = CancellationToken::new();
    let used = async {
        for n in 0..3 {
            log.record(row(&n.to_string(), n));
        }
        log.flush().await;
        assert_eq!(metric(&metrics, WRITTEN), 3);
        let ids: Vec<_> = storage.usage().last(9).await.expect("read").into_iter().map(|row| row.request_id).collect();
        assert_eq!(ids, ["2", "1", "0"]);
        cancel.cancel();
    };
    tokio::join!(writer.run(cancel.clone()), used);
}

#[tokio::test]
async fn rows_are_written_after_the_interval_and_a_full_batch_at_once() {
    let (_folder, storage) = storage().await;
    let count = async || storage.usage().count().await.expect("counted");
    for config in [quick(), Config { max_batch_rows: 2, ..patient() }] {
        let before = count().await;
        let (log, writer) = usage_log(&config, &storage, Metrics::default(), Clock::system());
        let cancel = CancellationToken::new();
        let used = async {
            log.record(row("a", 1));
            log.record(row("b", 1));
            until(async || count().await == before + 2).await;
            cancel.cancel();
        };
        tokio::join!(writer.run(cancel.clone()), used);
    }
}

#[tokio::test]
async fn the_end_writes_what_waits_also_when_nobody_cancels() {
    let (_folder, storage) = storage().await;
    for cancelled in [true, false] {
        let metrics = Metrics::default();
        let (log, writer) = usage_log(&patient(), &storage, metrics.clone(), Clock::system());
        for n in 0..1_200 {
            log.record(row("a", n));
        }
        let cancel = CancellationToken::new();
        let kept = log.clone();
        drop(log);
        if cancelled {
            cancel.cancel();
        } else {
            drop(kept);
        }
        writer.run(cancel).await;
        assert_eq!(metric(&metrics, WRITTEN), 1_200);
    }
    assert_eq!(storage.usage().count().await.expect("counted"), 2_400);
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_never_waits() {
    let (_folder, storage) = storage().await;
    let metrics = Metrics::default();
    let config = Config { max_waiting_rows: 3, ..patient() };
    let (log, writer) = usage_log(&config, &storage, metrics.clone(), Clock::system());
    for n in 0..10 {
        log.record(row("a", n)); // nobody writes yet
    }
    assert_eq!(metric(&metrics, QUEUE_FULL), 7);
    let cancel = CancellationToken::new();
    cancel.cancel();
    writer.run(cancel).await;
    assert_eq!(metric(&metrics, WRITTEN), 3);
    log.record(row("late", 0)); // after the end
    assert_eq!(metric(&metrics, QUEUE_FULL), 8);
    log.flush().await; // and this does not hang
}

#[tokio::test]
async fn a_full_disk_keeps_a_bounded_number_of_rows_and_heals_by_itself() {
    let (_folder, storage) = storage().await;
    let metrics = Metrics::default();
    let config = Config { max_waiting_rows: 50, max_batch_rows: 10, ..quick() };
    let (log, writer) = usage_log(&config, &storage, metrics.clone(), Clock::system());
    let cancel = CancellationToken::new();
    let used = async {
        storage.limit_pages(1).await;
        // A full table's last page may still take a few, so go on until rows are refused at the queue.
        until(async || {
            (0..50).for_each(|n| log.record(row(&"x".repeat(4_000), n)));
            metric(&metrics, QUEUE_FULL) > 200
        })
        .await;
        let written_before = metric(&metrics, WRITTEN);
        storage.limit_pages(1_000_000).await;
        until(async || metric(&metrics, WRITTEN) > written_before).await;
        log.flush().await;
        cancel.cancel();
    };
    tokio::join!(writer.run(cancel.clone()), used);
    assert_eq!(metric(&metrics, LOST), 0);
    assert_eq!(metric(&metrics, WRITTEN), storage.usage().count().await.expect("counted"));
}

#[tokio::test]
async fn a_flush_after_a_trouble_brings_the_new_rows_too() {
    let (_folder, storage) = storage().await;
    let metrics = Metrics::default();
    let (log, writer) = usage_log(&patient(), &storage, metrics.clone(), Clock::system());
    let cancel = CancellationToken::new();
    let used = async {
        storage.limit_pages(1).await;
        (0..50).for_each(|n| log.record(row(&"x".repeat(4_000), n)));
        log.flush().await;
        assert_eq!(metric(&metrics, WRITTEN), 0, "the disk is full");
        log.record(row("new", 1));
        storage.limit_pages(1_000_000).await;
        log.flush().await;
        assert_eq!(metric(&metrics, WRITTEN), 51);
        cancel.cancel();
    };
    tokio::join!(writer.run(cancel.clone()), used);
}

#[tokio::test]
async fn rows_that_cannot_be_written_before_the_end_are_counted_as_lost() {
    let (_folder, storage) = storage().await;
    let metrics = Metrics::default();
    let (log, writer) = usage_log(&patient(), &storage, metrics.clone(), Clock::system());
    (0..4).for_each(|n| log.record(row("a", n)));
    storage.close().await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    writer.run(cancel).await;
    assert_eq!(metric(&metrics, LOST), 4);
    assert_eq!(metric(&metrics, WRITTEN), 0);
}
