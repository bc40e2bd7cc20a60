use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::domain::generation::{Priority, Usage};
use crate::scheduler::entry::Alike;

fn entry() -> Entry {
    Entry { num_predict: Some(10), ..Entry::small("t", &["box"]) }
}

fn view(slots: u32) -> BackendView {
    BackendView { slots: Some(slots), available: true, ..BackendView::default() }
}

fn scheduler(config: Config, slots: u32) -> (Scheduler, Clock) {
    let clock = Clock::fake(0);
    let scheduler = Scheduler::new(config, Metrics::default(), clock.clone());
    scheduler.update("box", &view(slots));
    (scheduler, clock)
}

/// Polls once: what can be had without waiting.
async fn now<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

fn empty(scheduler: &Scheduler) {
    let view = scheduler.view();
    assert_eq!((view.waiting, view.waiting_bytes, view.in_flight, view.requests.len()), (0, 0, 0, 0), "{view:?}");
    let state = scheduler.0.lock();
    assert!(state.asking.is_empty() && state.displaced.is_empty());
}

#[tokio::test]
async fn a_slot_is_had_at_once_and_given_on_when_dropped() {
    let (scheduler, clock) = scheduler(Config::default(), 1);
    let first = scheduler.acquire(entry()).await.expect("a slot");
    assert_eq!((&**first.backend(), first.waited(), first.loads()), ("box", Duration::ZERO, true));
    let mut second = Box::pin(scheduler.acquire(entry()));
    assert!(now(&mut second).await.is_none());
    clock.advance(Duration::from_secs(2));
    drop(first);
    let second = now(second).await.expect("its turn").expect("a slot");
    assert_eq!((second.waited(), second.loads()), (Duration::from_secs(2), false));
    drop(second);
    empty(&scheduler);
}

#[tokio::test]
async fn a_finished_permit_frees_its_slot_before_it_is_dropped_and_only_once() {
    let (scheduler, _) = scheduler(Config::default(), 1);
    let mut first = scheduler.acquire(entry()).await.expect("a slot");
    first.first_token(Duration::from_millis(10));
    first.token();
    first.finish(&Usage { prompt_tokens: Some(10), cached_tokens: None, completion_tokens: Some(1) });
    let second = now(scheduler.acquire(entry())).await.expect("at once").expect("a slot");
    drop(first);
    assert!(now(scheduler.acquire(entry())).await.is_none(), "the slot is the second's");
    drop(second);
    empty(&scheduler);
}

#[tokio::test]
async fn a_waiting_future_that_is_dropped_leaves_nothing() {
    let (scheduler, _) = scheduler(Config::default(), 1);
    let held = scheduler.acquire(entry()).await.expect("a slot");
    let mut left = Box::pin(scheduler.acquire(entry()));
    let mut next = Box::pin(scheduler.acquire(entry()));
    assert!(now(&mut left).await.is_none() && now(&mut next).await.is_none());
    assert_eq!(scheduler.view().waiting, 2);
    drop(left);
    assert_eq!(scheduler.view().waiting, 1);
    drop(held);
    drop(now(next).await.expect("its turn").expect("a slot"));
    empty(&scheduler);
}

#[tokio::test]
async fn a_slot_that_was_given_to_one_that_leaves_goes_to_the_next() {
    let (scheduler, _) = scheduler(Config::default(), 1);
    let held = scheduler.acquire(entry()).await.expect("a slot");
    let mut left = Box::pin(scheduler.acquire(entry()));
    let mut next = Box::pin(scheduler.acquire(entry()));
    assert!(now(&mut left).await.is_none() && now(&mut next).await.is_none());
    drop(held);
    // The permit lies in the future that is now dropped.
    drop(left);
    drop(now(next).await.expect("its turn").expect("a slot"));
    empty(&scheduler);
}

#[tokio::test]
async fn a_booked_slot_is_free_only_later() {
    let (scheduler, clock) = scheduler(Config::default(), 1);
    let mut permit = scheduler.acquire(entry()).await.expect("a slot");
    permit.keep_booked(Duration::from_secs(5));
    drop(permit);
    let mut next = Box::pin(scheduler.acquire(entry()));
    assert!(now(&mut next).await.is_none());
    assert_eq!(scheduler.view().backends[0].runners[0].booked, 1);
    clock.advance(Duration::from_secs(5));
    scheduler.0.act(Queue::tick);
    drop(now(next).await.expect("its turn").expect("a slot"));
    empty(&scheduler);
}

#[tokio::test]
async fn refusals_say_why() {
    let config = Config { max_waiting: 1, ..Config::default() };
    let (scheduler, clock) = scheduler(config, 1);
    let nowhere = Entry { candidates: Arc::new(Alike(vec!["other".into()])), ..entry() };
    assert_eq!(scheduler.acquire(nowhere).await.expect_err("nowhere"), Refusal::NoBackend);
    let held = scheduler.acquire(entry()).await.expect("a slot");
    let mut waits = Box::pin(scheduler.acquire(Entry { patience: Some(Duration::from_secs(3)), ..entry() }));
    assert!(now(&mut waits).await.is_none());
    assert!(matches!(scheduler.acquire(entry()).await, Err(Refusal::Full { ahead: 1, .. })));
    clock.advance(Duration::from_secs(3));
    scheduler.0.act(Queue::tick);
    assert_eq!(now(waits).await.expect("told").expect_err("expired"), Refusal::Expired { waited: Duration::from_secs(3) });
    let mut lost = Box::pin(scheduler.acquire(entry()));
    assert!(now(&mut lost).await.is_none());
    scheduler.remove("box");
    assert_eq!(now(lost).await.expect("told").expect_err("no backend"), Refusal::NoBackend);
    drop(held);
    empty(&scheduler);
}

#[tokio::test]
async fn an_urgent_request_displaces_a_waiting_one_and_if_configured_a_running_one() {
    let (scheduler, _) = scheduler(Config { max_waiting: 1, displace_running: true, ..Config::default() }, 1);
    let running = scheduler.acquire(Entry { class: Priority::Low, ..entry() }).await.expect("a slot");
    assert!(now(running.displaced()).await.is_none());
    let mut waits = Box::pin(scheduler.acquire(entry()));
    assert!(now(&mut waits).await.is_none());
    let mut urgent = Box::pin(scheduler.acquire(Entry { class: Priority::Urgent, ..entry() }));
    assert!(now(&mut urgent).await.is_none());
    assert!(matches!(now(waits).await.expect("told"), Err(Refusal::Displaced { .. })));
    now(running.displaced()).await.expect("is to give up its slot");
    drop(running);
    drop(now(urgent).await.expect("its turn").expect("a slot"));
    empty(&scheduler);
}

#[tokio::test]
async fn a_request_that_has_given_a_token_is_not_displaced() {
    let (scheduler, _) = scheduler(Config { displace_running: true, ..Config::default() }, 1);
    let mut running = scheduler.acquire(entry()).await.expect("a slot");
    running.first_token(Duration::from_millis(5));
    let mut urgent = Box::pin(scheduler.acquire(Entry { class: Priority::Urgent, ..entry() }));
    assert!(now(&mut urgent).await.is_none() && now(running.displaced()).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_and_the_view_shows_it() {
    let (scheduler, clock) = scheduler(Config::default(), 1);
    let held = scheduler.acquire(entry()).await.expect("a slot");
    let (progress, heard) = Progress::new();
    let mut second = Box::pin(scheduler.acquire(Entry { progress: Progress::new().0, ..entry() }));
    let mut third = Box::pin(scheduler.acquire(Entry { progress, ..entry() }));
    assert!(now(&mut second).await.is_none() && now(&mut third).await.is_none());
    assert_eq!(heard.borrow().expect("told at once").ahead, 1);
    let view = scheduler.view();
    assert_eq!(view.requests.iter().map(|request| request.ahead).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(view.tenants[0].waiting, 2);
    let run = scheduler.clone().run();
    tokio::pin!(run);
    assert!(now(&mut run).await.is_none());
    drop(second);
    clock.advance(Duration::from_secs(1));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut run).await.is_err(), "runs for ever");
    assert_eq!(heard.borrow().expect("told").ahead, 0);
    drop(held);
    drop(now(third).await.expect("its turn").expect("a slot"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_cancels_leave_nothing() {
    let scheduler = Scheduler::new(Config::default(), Metrics::default(), Clock::system());
    scheduler.update("box", &view(2));
    let granted = AtomicUsize::new(0);
    let some = async |lane: usize| {
        for n in 0..25_000_usize {
            let mut future = Box::pin(scheduler.acquire(entry()));
            match now(&mut future).await {
                // Held across the next turns of the others, then dropped at one of several moments.
                Some(permit) => {
                    let mut permit = permit.expect("a slot");
                    granted.fetch_add(1, Ordering::Relaxed);
                    if (n + lane).is_multiple_of(3) {
                        tokio::task::yield_now().await;
                        permit.first_token(Duration::from_millis(1));
                    }
                    if n % 5 == 0 {
                        permit.failed();
                    }
                }
                None if n % 2 == 0 => drop(future),
                None => {
                    tokio::task::yield_now().await;
                    // It may have got the slot meanwhile, and leaves without it, or with it.
                    if n % 4 == 1 && now(&mut future).await.is_some() {
                        granted.fetch_add(1, Ordering::Relaxed);
                    }
                    drop(future);
                }
            }
        }
    };
    tokio::join!(some(0), some(1), some(2), some(3));
    assert!(granted.load(Ordering::Relaxed) > 1_000, "{granted:?} {:?}", scheduler.view());
    empty(&scheduler);
}

#[test]
fn far_back_only_a_great_step_is_news() {
    assert!(is_news(None, 9_000), "the first is always told");
    assert!(!is_news(Some((9_000, 0)), 8_999) && !is_news(Some((9_000, 0)), 6_751));
    assert!(is_news(Some((9_000, 0)), 6_750));
    assert!(is_news(Some((NEAR + 1, 0)), NEAR) && is_news(Some((3, 0)), 3));
    assert!(!is_news(Some((100, 0)), 200), "nor is one that fell back far from the front");
}
