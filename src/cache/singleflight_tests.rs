use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, future, stream};
use tokio::task::JoinSet;

use super::*;
use crate::cache::testing::{delta, done};

type Fails = &'static str;

fn key(n: u8) -> Key {
    Key::from_bytes(&[n; 32]).expect("32 bytes")
}

fn flights(max_flights: usize) -> (Flights<Fails>, Metrics) {
    let metrics = Metrics::default();
    (Flights::new(Config { max_flights, ..Config::default() }, Clock::fake(0), metrics.clone()), metrics)
}

fn lead(joined: Joined<Fails>) -> Leader<Fails> {
    match joined {
        Joined::Lead(leader) => leader,
        _ => panic!("not the leader"),
    }
}

fn follow(joined: Joined<Fails>) -> Reader<Fails> {
    match joined {
        Joined::Follow(reader) => reader,
        _ => panic!("not a follower"),
    }
}

#[tokio::test]
async fn equal_requests_share_one_generation_and_others_do_not() {
    let (flights, metrics) = flights(9);
    let leader = lead(flights.join(key(1)));
    let follower = follow(flights.join(key(1)));
    let other = lead(flights.join(key(2)));
    assert_eq!(flights.len(), 2);
    let events = [Ok(delta("a")), Ok(done())];
    let landed = leader.flight.run(future::ready(Ok(stream::iter(events.clone())))).await;
    assert_eq!(landed.ended, Ended::Done);
    assert_eq!(landed.answer.as_ref().map(|answer| answer.pieces().len()), Some(2));
    let late = follow(flights.join(key(1)));
    drop(landed);
    for reader in [leader.reader, follower, late] {
        assert_eq!(reader.collect::<Vec<_>>().await, events);
    }
    drop(other);
    assert!(flights.is_empty());
    lead(flights.join(key(1)));
    assert!(metrics.render().contains("\narriero_flights_joined_total 2\n"));
}

#[tokio::test]
async fn a_leader_that_fails_fails_its_followers_and_nobody_after() {
    let (flights, _) = flights(9);
    let leader = lead(flights.join(key(1)));
    let follower = follow(flights.join(key(1)));
    let landed = leader.flight.run(future::ready(Err::<stream::Empty<_>, _>("refused"))).await;
    assert_eq!((landed.ended, landed.answer.is_none()), (Ended::Failed, true));
    let next = lead(flights.join(key(1)));
    drop(landed);
    follow(flights.join(key(1)));
    drop(next);
    for reader in [leader.reader, follower] {
        assert_eq!(reader.collect::<Vec<_>>().await, [Err("refused")]);
    }
}

#[tokio::test]
async fn a_flight_that_never_starts_ends_its_readers_and_frees_its_place() {
    let (flights, _) = flights(9);
    let leader = lead(flights.join(key(1)));
    let follower = follow(flights.join(key(1)));
    drop(leader);
    assert!(flights.is_empty());
    assert_eq!(follower.collect::<Vec<_>>().await, []);
}

#[tokio::test]
async fn beyond_the_bound_requests_go_alone_but_may_still_join() {
    let (flights, metrics) = flights(1);
    let leader = lead(flights.join(key(1)));
    assert!(matches!(flights.join(key(2)), Joined::Alone));
    follow(flights.join(key(1)));
    drop(leader);
    lead(flights.join(key(2)));
    assert!(metrics.render().contains("\narriero_flights_refused_total 1\n"));
}

#[tokio::test]
async fn work_that_waits_for_its_turn_stops_when_the_last_leaves() {
    let (flights, _) = flights(9);
    let Leader { flight, reader } = lead(flights.join(key(1)));
    let follower = follow(flights.join(key(1)));
    let mut running = Box::pin(flight.run(future::pending::<Result<stream::Empty<_>, _>>()));
    assert!(running.as_mut().now_or_never().is_none());
    drop(reader);
    assert!(running.as_mut().now_or_never().is_none(), "one is still there");
    drop(follower);
    let joined = flights.join(key(1));
    assert!(matches!(joined, Joined::Lead(_)), "nobody joins what is being stopped");
    assert_eq!(running.await.ended, Ended::Abandoned);
    assert_eq!(flights.len(), 1, "the later flight keeps its place");
}

/// Counts the generations that run.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn generation(running: &Arc<AtomicUsize>) -> impl Stream<Item = Result<Event, Fails>> + use<> {
    running.fetch_add(1, Ordering::SeqCst);
    let counted = Running(Arc::clone(running));
    stream::iter((1..=50).map(|n| Ok(delta(&n.to_string()))).chain([Ok(done())])).then(move |event| {
        let _ = &counted;
        async move {
            tokio::task::yield_now().await;
            event
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_crowd_that_comes_and_goes_gets_whole_answers_and_leaves_nothing_behind() {
    let (flights, _) = flights(100);
    let (running, started) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let failed = Arc::new(AtomicBool::new(false));
    let mut crowd = JoinSet::new();
    for n in 0..600_usize {
        let (flights, running, started, failed) = (flights.clone(), running.clone(), started.clone(), failed.clone());
        crowd.spawn(async move {
            let mut work = JoinSet::new();
            let mut reader = match flights.join(key(u8::try_from(n % 3).expect("small"))) {
                Joined::Alone => panic!("there is room"),
                Joined::Follow(reader) => reader,
                Joined::Lead(Leader { flight, reader }) => {
                    started.fetch_add(1, Ordering::SeqCst);
                    work.spawn(async move { flight.run(async { Ok(generation(&running)) }).await.ended });
                    reader
                }
            };
            let leaves_after = if n % 4 == 0 { n % 50 } else { usize::MAX };
            let mut read = 0;
            while read < leaves_after
                && let Some(event) = reader.next().await
            {
                read += 1;
                match event.expect("no failure") {
                    Event::Delta(piece) if piece.text != read.to_string() => failed.store(true, Ordering::SeqCst),
                    _ => {}
                }
            }
            if leaves_after == usize::MAX && read != 51 {
                failed.store(true, Ordering::SeqCst);
            }
            drop(reader);
            // A task of its own, as in the gateway: it may outlive the one who led.
            work.join_all().await
        });
    }
    let everyone = tokio::time::timeout(Duration::from_mins(1), crowd.join_all()).await;
    everyone.expect("someone sleeps for ever");
    assert!(!failed.load(Ordering::SeqCst), "an answer was not whole");
    assert_eq!((running.load(Ordering::SeqCst), flights.len()), (0, 0));
    assert!(started.load(Ordering::SeqCst) < 600, "nobody ever joined");
}
