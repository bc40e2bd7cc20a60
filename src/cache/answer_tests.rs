use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::cache::testing::{answer, delta, done, finished};

#[tokio::test(start_paused = true)]
async fn it_is_given_back_as_the_stream_it_was_at_either_speed() {
    let answer = Arc::new(answer(&["a", "b"], finished(FinishReason::Stop)));
    let events = vec![delta("a"), delta("b"), done()];
    let started = Instant::now();
    let mut full = Arc::clone(&answer).replay(Speed::Full);
    assert_eq!(full.size_hint(), (3, Some(3)));
    assert_eq!(full.by_ref().collect::<Vec<_>>().await, events);
    assert_eq!(full.next().await, None);
    assert_eq!(started.elapsed(), Duration::ZERO);

    let mut original = Arc::clone(&answer).replay(Speed::Original);
    let mut times = Vec::new();
    while let Some(event) = original.next().await {
        assert_eq!(event, events[times.len()]);
        times.push(started.elapsed().as_millis());
    }
    assert_eq!(times, [10, 20, 30]);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_resumed_and_does_not_wait_for_what_is_past() {
    let answer = Arc::new(answer(&["a", "b"], finished(FinishReason::Stop)));
    let started = Instant::now();
    let rest: Vec<_> = Arc::clone(&answer).replay_from(Speed::Original, 3).collect().await;
    assert_eq!((rest, started.elapsed().as_millis()), (vec![done()], 10));
    for number in [4, 5, u64::MAX] {
        assert_eq!(Arc::clone(&answer).replay_from(Speed::Full, number).next().now_or_never(), Some(None));
    }
    assert_eq!(Arc::clone(&answer).replay_from(Speed::Full, 0).count().await, 3);
}

#[test]
fn only_a_whole_answer_is_one() {
    let piece = |event| Arc::new(Piece::new(Duration::ZERO, event));
    assert!(Answer::new([]).is_none());
    assert!(Answer::new([piece(delta("a"))]).is_none());
    assert!(Answer::new([piece(done()), piece(delta("a"))]).is_none());
    assert!(Answer::new([piece(done()), piece(done())]).is_none());
    assert!(Answer::new([piece(done())]).is_some());
}

#[test]
fn only_text_that_ended_is_worth_keeping() {
    for (reason, worth) in [
        (FinishReason::Stop, true),
        (FinishReason::Length, true),
        (FinishReason::Load, false),
        (FinishReason::Unload, false),
        (FinishReason::Other("tired".into()), false),
    ] {
        assert_eq!(answer(&["a"], finished(reason.clone())).is_worth_keeping(), worth, "{reason:?}");
    }
}

#[test]
fn its_size_is_at_least_that_of_its_texts() {
    let small = answer(&["a"], finished(FinishReason::Stop)).bytes();
    let large = answer(&["a", &"x".repeat(10_000)], finished(FinishReason::Stop)).bytes();
    assert!(large >= small + 10_000 && large < small + 11_000, "{small} {large}");
}
