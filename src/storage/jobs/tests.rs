use serde_json::json;

use super::*;
use crate::domain::generation::Priority;
use crate::storage::{Config, Storage};

pub(crate) fn order(id: &str) -> Order {
    Order {
        id: id.to_owned(),
        kind: "odd ' \" ; DROP".to_owned(),
        name: "ü".to_owned(),
        tenant: "t".to_owned(),
        priority: Priority::Normal,
        input: json!({"path": "files/x"}),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        steps: vec!["one".to_owned()],
        after: Vec::new(),
        schedule: None,
        needs: Needs { cpu_threads: 1, gpus: 0, memory_bytes: 7, disk_bytes: u64::MAX },
        created_at_ms: 5,
    }
}

fn queued() -> Standing {
    Standing {
        state: State::Queued,
        epoch: 0,
        owner: None,
        lease_until_ms: None,
        attempts: 0,
        max_attempts: 3,
        not_before_ms: 0,
        cancel_requested: false,
        step: 0,
        progress: None,
        result: None,
        error: None,
        started_at_ms: None,
        finished_at_ms: None,
    }
}

fn ended(state: State, at_ms: i64) -> Standing {
    Standing { state, finished_at_ms: Some(at_ms), ..queued() }
}

fn leased(job: &Job) -> Standing {
    let standing = &job.standing;
    Standing { state: State::Leased, epoch: standing.epoch + 1, owner: Some("w".to_owned()), lease_until_ms: Some(100), ..standing.clone() }
}

async fn opened() -> (tempfile::TempDir, JobTable) {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Storage::open(folder.path(), &Config::default()).await.expect("opened");
    (folder, storage.jobs())
}

async fn submit(jobs: &JobTable, order: &Order) {
    assert_eq!(jobs.submit(order, &queued(), None, 100).await.expect("written"), Submitted::New);
}

async fn set(jobs: &JobTable, id: &str, standing: Standing) {
    let changed = jobs.change::<()>(id, true, 100, 9, |_| Ok(Change::to(standing))).await.expect("written");
    changed.expect("there").expect("changed");
}

#[tokio::test]
async fn what_is_written_is_read_again_also_by_those_who_join() {
    let (folder, jobs) = opened().await;
    submit(&jobs, &order("a")).await;
    let wanted = Order { after: vec!["a".to_owned()], priority: Priority::Urgent, ..order("b") };
    submit(&jobs, &wanted).await;
    let joined = Storage::join(folder.path(), &Config::default()).await.expect("the same form").jobs();
    let mut expected = Job::new(wanted, queued());
    expected.order.needs.disk_bytes = i64::MAX.unsigned_abs();
    assert_eq!(joined.get("b").await.expect("read"), Some(expected));
    assert_eq!(joined.get("c").await.expect("read"), None);
    let only = Page { state: Some(State::Queued), before: Some("b".to_owned()), most: 9, ..Page::default() };
    assert_eq!(joined.list(&only).await.expect("read").len(), 1);
    let others = Page { tenant: Some("u".to_owned()), most: 9, ..Page::default() };
    assert_eq!(joined.list(&others).await.expect("read"), []);
}

#[tokio::test]
async fn a_worker_does_not_join_a_database_that_is_not_there_or_not_in_its_form() {
    use crate::storage::Error;
    let folder = tempfile::tempdir().expect("a folder");
    assert!(matches!(Storage::join(folder.path(), &Config::default()).await, Err(Error::Older { .. })));
    let storage = Storage::open(folder.path(), &Config::default()).await.expect("opened");
    sqlx::query("UPDATE _sqlx_migrations SET version = 99 WHERE version = 7").execute(&storage.0.writer).await.expect("changed");
    storage.close().await;
    drop(storage);
    assert!(matches!(Storage::join(folder.path(), &Config::default()).await, Err(Error::Newer { found: 99, .. })));
}

#[tokio::test]
async fn a_submission_with_a_key_is_made_once() {
    let (_folder, jobs) = opened().await;
    let key = |body: &str| Key { tenant: "t".into(), key: "k".into(), body_hash: body.into(), created_at_ms: 1 };
    let made = async |id: &str, body: &str| jobs.submit(&order(id), &queued(), Some(&key(body)), 2).await.expect("written");
    assert_eq!(made("a", "1").await, Submitted::New);
    assert_eq!(made("b", "1").await, Submitted::Before("a".into()));
    assert_eq!(made("b", "2").await, Submitted::OtherBody);
    assert_eq!(jobs.get("b").await.expect("read"), None);
    submit(&jobs, &order("c")).await;
    assert_eq!(jobs.submit(&order("d"), &queued(), None, 2).await.expect("written"), Submitted::Full);
    let stranger = Order { after: vec!["a".into()], tenant: "u".into(), ..order("e") };
    assert_eq!(jobs.submit(&stranger, &queued(), None, 9).await.expect("written"), Submitted::Missing("a".into()));
}

#[tokio::test]
async fn the_next_job_is_of_the_highest_priority_then_the_oldest_and_waits_for_those_it_needs() {
    let (_folder, jobs) = opened().await;
    submit(&jobs, &order("a")).await;
    submit(&jobs, &Order { priority: Priority::High, after: vec!["a".into()], ..order("b") }).await;
    submit(&jobs, &Order { priority: Priority::High, ..order("c") }).await;
    let first = async |now| {
        jobs.claim(now, 9, |waiting| {
            let job = waiting.jobs.first()?;
            Some((0, Change::to(leased(job))))
        })
        .await
        .expect("written")
        .map(|job| job.order.id)
    };
    assert!(jobs.anything_waits(0).await.expect("read"));
    assert_eq!(first(0).await.as_deref(), Some("c"));
    assert_eq!(first(0).await.as_deref(), Some("a"));
    assert_eq!(first(0).await, None);
    assert_eq!(jobs.expired(101, 9).await.expect("read").len(), 2);
    assert_eq!(jobs.expired(100, 9).await.expect("read").len(), 0);
    jobs.claim(0, 9, |waiting| {
        assert_eq!((waiting.active, waiting.used.memory_bytes, waiting.used.cpu_threads), (2, 14, 2));
        None
    })
    .await
    .expect("read");
    set(&jobs, "a", ended(State::Succeeded, 1)).await;
    assert_eq!(first(0).await.as_deref(), Some("b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_of_several_processes_never_take_the_same_job() {
    let (folder, jobs) = opened().await;
    for n in 0..60 {
        submit(&jobs, &order(&format!("{n:02}"))).await;
    }
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        // A file of its own for each, as processes have.
        let jobs = Storage::join(folder.path(), &Config::default()).await.expect("the same form").jobs();
        workers.spawn(async move {
            let mut taken = Vec::new();
            let choose = |waiting: &Waiting| Some((0, Change::to(leased(waiting.jobs.first()?))));
            while let Some(job) = jobs.claim(0, 9, choose).await.expect("written") {
                taken.push(job.order.id);
            }
            taken
        });
    }
    let mut all: Vec<String> = workers.join_all().await.concat();
    all.sort();
    assert_eq!(all, (0..60).map(|n| format!("{n:02}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_disk_refuses_a_job_and_loses_none() {
    let (_folder, jobs) = opened().await;
    submit(&jobs, &order("a")).await;
    let large = Order { input: json!("x".repeat(100_000)), ..order("b") };
    jobs.storage.limit_pages(1).await;
    assert!(matches!(jobs.submit(&large, &queued(), None, 9).await, Err(crate::storage::Error::Full { .. })));
    assert_eq!(jobs.get("b").await.expect("read"), None);
    // SQLite has ended the transaction by itself: the next one has to begin all the same.
    let told = |job: &Job| Ok::<_, ()>(Change::to(leased(job)).telling("log", json!("x".repeat(100_000))));
    jobs.storage.limit_pages(1).await;
    assert!(jobs.change("a", false, 9, 9, told).await.is_err());
    assert_eq!(jobs.get("a").await.expect("read").expect("there").standing, queued(), "nothing is half done");
    jobs.storage.limit_pages(1_000_000).await;
    submit(&jobs, &large).await;
}

#[tokio::test]
async fn those_that_wait_in_vain_are_found() {
    let (_folder, jobs) = opened().await;
    submit(&jobs, &order("a")).await;
    submit(&jobs, &Order { after: vec!["a".into()], ..order("b") }).await;
    assert_eq!(jobs.hopeless(9).await.expect("read"), []);
    set(&jobs, "a", ended(State::Failed, 1)).await;
    assert_eq!(jobs.hopeless(9).await.expect("read"), [("b".to_owned(), "a".to_owned())]);
}

#[tokio::test]
async fn a_refused_change_changes_nothing_and_events_are_numbered_and_bounded() {
    let (_folder, jobs) = opened().await;
    submit(&jobs, &order("a")).await;
    let refused = jobs.change("a", true, 9, 9, |_| Err("no")).await.expect("read");
    assert_eq!(refused, Some(Err("no")));
    assert_eq!(jobs.change::<()>("x", true, 9, 9, |_| Err(())).await.expect("read"), None);
    for n in 0..200 {
        let change = |job: &Job| Ok::<_, ()>(Change::to(job.standing.clone()).telling("log", json!(n)));
        jobs.change("a", false, 10, 9, change).await.expect("written").expect("there").expect("changed");
    }
    let events = jobs.events("a", 0, 1000).await.expect("read");
    assert!((10..80).contains(&events.len()), "{}", events.len());
    let last = events.last().expect("some");
    assert_eq!((last.number, &last.data), (200, &json!(199)));
    assert!(events.windows(2).all(|pair| pair[0].number + 1 == pair[1].number));
}

#[tokio::test]
async fn old_jobs_go_by_age_number_and_size_but_not_those_that_are_needed() {
    let (_folder, jobs) = opened().await;
    for (n, id) in ["a", "b", "c", "d"].iter().enumerate() {
        submit(&jobs, &order(id)).await;
        let n = i64::try_from(n).expect("small");
        let artifact = Artifact {
            name: "x".into(),
            path: format!("{id}/x"),
            size_bytes: 10,
            sha256: String::new(),
            lineage: json!({}),
            created_at_ms: n,
        };
        let change = Change { artifact: Some(artifact), ..Change::to(ended(State::Succeeded, n)) };
        jobs.change::<()>(id, true, 9, n, |_| Ok(change)).await.expect("written");
    }
    submit(&jobs, &Order { after: vec!["a".into()], ..order("e") }).await;
    let all = Kept { since_ms: 0, most_jobs: 9, most_bytes: 100 };
    assert_eq!(jobs.forget(all, 9).await.expect("done"), Vec::<String>::new());
    assert_eq!(jobs.forget(Kept { since_ms: 2, ..all }, 9).await.expect("done"), ["b"], "a is needed by e");
    assert_eq!(jobs.forget(Kept { most_bytes: 10, ..all }, 9).await.expect("done"), ["c"]);
    assert_eq!(jobs.forget(Kept { most_jobs: 0, ..all }, 9).await.expect("done"), ["d"]);
    assert_eq!(jobs.artifact_paths().await.expect("read"), ["a/x".to_owned()].into());
    assert_eq!(jobs.artifact_bytes().await.expect("read"), 10);
    assert_eq!(jobs.unfinished().await.expect("read"), ["e".to_owned()].into());
}

#[tokio::test]
async fn a_schedule_fires_once_however_many_try() {
    let (_folder, jobs) = opened().await;
    let schedule = Schedule {
        id: "s".into(),
        name: "n".into(),
        tenant: "t".into(),
        cron: "* * * * *".into(),
        missed: Missed::All,
        job: json!({}),
        next_at_ms: Some(10),
        last_at_ms: None,
        created_at_ms: 1,
    };
    assert_eq!(jobs.add_schedule(&schedule, None, 1).await.expect("written"), Submitted::New);
    assert_eq!(jobs.add_schedule(&Schedule { id: "z".into(), ..schedule.clone() }, None, 1).await.expect("read"), Submitted::Full);
    assert_eq!(jobs.due_schedules(9, 9).await.expect("read"), []);
    let due = jobs.due_schedules(10, 9).await.expect("read");
    assert_eq!(due, [schedule]);
    assert!(jobs.fire(&due[0], Some(20), &[(order("a"), queued())]).await.expect("written"));
    assert!(!jobs.fire(&due[0], Some(20), &[(order("b"), queued())]).await.expect("read"));
    assert_eq!(jobs.get("b").await.expect("read"), None);
    assert_eq!(jobs.schedules(Some("t")).await.expect("read")[0].last_at_ms, Some(10));
    assert!(!jobs.remove_schedule("s", Some("u")).await.expect("read"));
    assert!(jobs.remove_schedule("s", None).await.expect("written"));
}

#[tokio::test]
async fn what_operators_want_is_told_to_all() {
    let (_folder, jobs) = opened().await;
    assert_eq!(jobs.pool().await.expect("read"), Pool::default());
    jobs.order_pool(PoolOrder::Drain).await.expect("written");
    submit(&jobs, &order("a")).await;
    assert_eq!(jobs.pool().await.expect("read"), Pool { order: PoolOrder::Drain, jobs: vec![("queued".into(), 1)] });
}
