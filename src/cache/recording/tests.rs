use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, stream};
use tokio::task::JoinSet;

use super::*;
use crate::cache::answer::Answer;
use crate::cache::testing::{delta, done};

type Fails = &'static str;

fn begin(config: &Config) -> (Recorder<Fails>, Reader<Fails>) {
    recording(config, Clock::fake(0), Metrics::default())
}

fn bound(max_events: usize) -> Config {
    Config { max_events, ..Config::default() }
}

async fn all(reader: Reader<Fails>) -> Vec<Result<Event, Fails>> {
    reader.collect().await
}

#[tokio::test]
async fn who_comes_late_gets_the_past_at_once_and_then_what_comes() {
    let (mut recorder, first) = begin(&Config::default());
    assert_eq!(recorder.push(delta("a")), 1);
    assert_eq!(recorder.push(delta("b")), 2);
    let recording = recorder.recording();
    let (mut late, resumed) = (recording.read(1).expect("from the start"), recording.read(2).expect("from the second"));
    assert_eq!(late.next().await, Some(Ok(delta("a"))));
    assert_eq!((late.next().await, late.last()), (Some(Ok(delta("b"))), 2));
    assert!(late.next().now_or_never().is_none(), "nothing more yet");
    assert!(!recording.is_over());
    recorder.push(done());
    recorder.push(delta("after the end"));
    assert!(recording.is_over());
    assert_eq!(late.next().await, Some(Ok(done())));
    assert_eq!(late.next().await, None);
    assert_eq!(all(resumed).await, [Ok(delta("b")), Ok(done())]);
    assert_eq!(all(first).await, [Ok(delta("a")), Ok(delta("b")), Ok(done())]);
    drop(recorder);
    assert_eq!(all(recording.read(3).expect("kept after the end")).await, [Ok(done())]);
    assert_eq!(all(recording.read(4).expect("at the end")).await, []);
    assert_eq!(recording.read(5).err(), Some(Gone::Unknown { asked: 5, last: 3 }));
}

#[tokio::test]
async fn an_error_reaches_everyone_once_and_a_cut_just_ends() {
    let (mut recorder, early) = begin(&Config::default());
    recorder.push(delta("a"));
    let recording = recorder.recording();
    recorder.fail("broken");
    assert_eq!(all(early).await, [Ok(delta("a")), Err("broken")]);
    assert_eq!(all(recording.read(2).expect("late")).await, [Err("broken")]);
    assert!(recording.answer().is_none() && !recording.is_sound());

    let (mut recorder, reader) = begin(&Config::default());
    recorder.push(delta("a"));
    let recording = recorder.recording();
    drop(recorder);
    assert_eq!(all(reader).await, [Ok(delta("a"))]);
    assert!(recording.answer().is_none() && !recording.is_sound() && recording.is_over());
}

#[tokio::test]
async fn offsets_are_the_clocks() {
    let clock = Clock::fake(0);
    let (mut recorder, reader) = recording::<Fails>(&Config::default(), clock.clone(), Metrics::default());
    assert_eq!(reader.next_at(), None);
    clock.advance(Duration::from_millis(30));
    recorder.push(delta("a"));
    clock.advance(Duration::from_millis(12));
    recorder.push(done());
    assert_eq!(reader.next_at(), Some(Duration::from_millis(30)));
    let answer = recorder.recording().answer().expect("whole");
    let offsets: Vec<_> = answer.pieces().iter().map(|piece| piece.at.as_millis()).collect();
    assert_eq!(offsets, [30, 42]);
}

#[tokio::test]
async fn beyond_the_bound_the_start_is_forgotten_and_the_writer_goes_on() {
    let metrics = Metrics::default();
    let (mut recorder, mut reader) = recording::<Fails>(&bound(2), Clock::fake(0), metrics.clone());
    let recording = recorder.recording();
    recorder.push(delta("1"));
    recorder.push(delta("2"));
    assert!(recorder.room().now_or_never().is_some() && recording.is_sound());
    recorder.push(delta("3"));
    recorder.push(delta("4"));
    assert!(recorder.room().now_or_never().is_none(), "the reader is behind");
    assert!(recording.is_sound(), "nothing is forgotten that a reader has not had");
    assert_eq!(reader.next().await, Some(Ok(delta("1"))));
    assert!(!recording.is_sound(), "the start is gone");
    assert_eq!(recording.read(1).err(), Some(Gone::Forgotten { first: 2 }));
    assert!(recorder.room().now_or_never().is_none());
    assert_eq!(reader.next().await, Some(Ok(delta("2"))));
    assert!(recorder.room().now_or_never().is_some(), "two are left, as many as may be kept");
    assert!(recording.read(3).is_ok());
    recorder.push(done());
    assert_eq!(all(reader).await, [Ok(delta("3")), Ok(delta("4")), Ok(done())]);
    assert!(recording.answer().is_none(), "an answer without its start is none");
    let text = metrics.render();
    assert!(text.contains("\narriero_recordings_over_bound_total 1\n"), "{text}");
}

#[tokio::test]
async fn the_bound_in_bytes_holds_too_and_without_readers_nothing_waits() {
    let config = Config { max_bytes: 2_000, ..Config::default() };
    let (mut recorder, reader) = begin(&config);
    let recording = recorder.recording();
    let hold = recording.hold().expect("wanted");
    drop(reader);
    for _ in 0..100 {
        recorder.push(delta(&"x".repeat(300)));
        assert!(recorder.room().now_or_never().is_some());
        assert!(recording.bytes() <= 2_000);
    }
    recorder.push(delta(&"x".repeat(5_000)));
    assert_eq!(recording.bytes(), 0, "larger than everything that may be kept");
    assert!(recorder.abandoned().now_or_never().is_none(), "held");
    drop(hold);
    assert!(recorder.abandoned().now_or_never().is_some());
}

#[tokio::test]
async fn it_is_abandoned_when_the_last_one_leaves_and_not_before_nor_after_the_end() {
    let (mut recorder, reader) = begin(&Config::default());
    let recording = recorder.recording();
    let other = recording.read(1).expect("joined");
    drop(reader);
    assert!(recorder.abandoned().now_or_never().is_none());
    drop(other);
    assert!(recorder.abandoned().now_or_never().is_some());
    assert_eq!(recording.read(1).err(), Some(Gone::Abandoned));
    assert!(recording.hold().is_none() && recording.is_over());
    recorder.push(done());

    let (mut recorder, reader) = begin(&Config::default());
    recorder.push(done());
    drop(reader);
    assert!(recorder.abandoned().now_or_never().is_none(), "it ended before");
    assert!(recorder.recording().read(1).is_ok());
}

/// Tells when it is dropped.
struct Told(Arc<AtomicBool>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn pumping_ends_as_the_stream_does() {
    for (events, ended) in [
        (vec![Ok(delta("a")), Ok(done()), Ok(delta("never"))], Ended::Done),
        (vec![Ok(delta("a")), Err("broken"), Ok(done())], Ended::Failed),
        (vec![Ok(delta("a"))], Ended::Cut),
        (vec![], Ended::Cut),
    ] {
        let (recorder, reader) = begin(&Config::default());
        assert_eq!(pump(stream::iter(events.clone()), recorder).await, ended);
        let expected = if events.len() == 3 { &events[..2] } else { &events[..] };
        assert_eq!(all(reader).await, expected);
    }
}

#[tokio::test]
async fn the_stream_is_dropped_when_the_last_reader_leaves() {
    let dropped = Arc::new(AtomicBool::new(false));
    let told = Told(Arc::clone(&dropped));
    let endless = stream::unfold(told, |told| async {
        tokio::task::yield_now().await;
        Some((Ok(delta("x")), told))
    });
    let (recorder, mut reader) = begin(&bound(3));
    let recording = recorder.recording();
    let mut tasks = JoinSet::new();
    tasks.spawn(pump(endless, recorder));
    for _ in 0..100 {
        assert_eq!(reader.next().await, Some(Ok(delta("x"))));
    }
    assert!(!dropped.load(Ordering::SeqCst));
    // It is asleep now, waiting for room.
    while recording.state().writer.is_none() {
        tokio::task::yield_now().await;
    }
    drop(reader);
    assert_eq!(tasks.join_next().await.expect("a task").expect("no panic"), Ended::Abandoned);
    assert!(dropped.load(Ordering::SeqCst));
}

/// xorshift64*: reproducible, and good enough to mix things up.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

/// Reads to the end or leaves in the middle; what was read must be the numbers in order.
async fn erratic(mut reader: Reader<Fails>, mut dice: Dice) -> bool {
    let leaves_after = dice.below(400);
    let mut expected = reader.last();
    while let Some(event) = reader.next().await {
        expected += 1;
        match event.expect("no failure") {
            Event::Delta(piece) => assert_eq!(piece.text, expected.to_string()),
            Event::Done(_) => return true,
        }
        if expected > leaves_after && leaves_after < 200 {
            return false;
        }
        for _ in 0..dice.below(4) {
            tokio::task::yield_now().await;
        }
    }
    panic!("ended without an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_readers_fast_slow_and_leaving_all_read_the_same() {
    for seed in 1..=60_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let config = bound(usize::try_from(1 + dice.below(300)).expect("small"));
        let (recorder, first) = begin(&config);
        let recording = recorder.recording();
        let _kept = recording.hold().expect("wanted");
        let numbers = stream::iter((1..=200_u64).map(|n| Ok(delta(&n.to_string()))).chain([Ok(done())]));
        let mut readers = JoinSet::new();
        readers.spawn(erratic(first, Dice(seed)));
        let mut writing = JoinSet::new();
        writing.spawn(pump(numbers, recorder));
        for n in 0..20 {
            if let Ok(reader) = recording.read(1 + dice.below(20)) {
                readers.spawn(erratic(reader, Dice(seed + n + 1)));
            }
            tokio::task::yield_now().await;
        }
        // Would anyone not be woken, this would not end.
        let ended = tokio::time::timeout(Duration::from_mins(1), async {
            while let Some(read) = readers.join_next().await {
                read.expect("read in order");
            }
            writing.join_next().await.expect("a task").expect("no panic")
        });
        assert_eq!(ended.await.expect("someone sleeps for ever"), Ended::Done, "seed {seed}");
        assert_eq!(recording.readers(), 0);
        assert_eq!(recording.answer().is_some(), config.max_events > 200, "seed {seed}");
    }
}

#[test]
fn an_answer_shares_its_pieces_with_the_recording() {
    let (mut recorder, _reader) = begin(&Config::default());
    recorder.push(delta("a"));
    recorder.push(done());
    let (one, two): (Answer, Answer) = (recorder.recording().answer().expect("whole"), recorder.recording().answer().expect("whole again"));
    assert!(Arc::ptr_eq(&one.pieces()[0], &two.pieces()[0]));
}
