use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn fail(breaker: &mut Breaker, now: Instant) -> bool {
    let ticket = breaker.enter(now);
    breaker.failed(ticket, now, None, 0.0, &Config::default())
}

fn succeed(breaker: &mut Breaker, now: Instant) -> bool {
    let ticket = breaker.enter(now);
    breaker.succeeded(ticket, now, &Config::default())
}

fn opened(now: Instant) -> Breaker {
    let mut breaker = Breaker::default();
    for _ in 0..5 {
        fail(&mut breaker, now);
    }
    breaker
}

#[test]
fn it_opens_after_failures_in_a_row_and_not_before() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    assert_eq!([0; 4].map(|_| fail(&mut breaker, now)), [false; 4]);
    succeed(&mut breaker, now);
    assert_eq!([0; 5].map(|_| fail(&mut breaker, now)), [false, false, false, false, true]);
    assert_eq!(breaker.standing(now), Standing::Open { until: now + SECOND });
}

#[test]
fn it_opens_when_half_of_the_last_seconds_failed() {
    let start = Instant::now();
    let mut breaker = Breaker::default();
    for n in 0..9 {
        let now = start + SECOND * n / 4;
        succeed(&mut breaker, now);
        assert!(!fail(&mut breaker, now), "{n}");
    }
    let now = start + SECOND * 3;
    succeed(&mut breaker, now);
    assert!(fail(&mut breaker, now), "20 requests, half of them failed");
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    let start = Instant::now();
    let mut breaker = Breaker::default();
    for _ in 0..9 {
        succeed(&mut breaker, start);
        fail(&mut breaker, start);
    }
    let later = start + SECOND * 11;
    succeed(&mut breaker, later);
    assert!(!fail(&mut breaker, later));
    assert!(!fail(&mut breaker, later));
}

#[test]
fn the_first_token_of_the_one_that_tries_closes_it_on_probation() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let then = now + SECOND;
    let probe = breaker.enter(then);
    assert!(!breaker.admits(then));
    assert!(breaker.first_token(probe, then, &Config::default()));
    assert!(breaker.admits(then));
    assert!(fail(&mut breaker, then), "one failure is enough now");
    assert_eq!(breaker.standing(then), Standing::Open { until: then + SECOND * 2 });
    let later = then + SECOND * 2;
    assert!(succeed(&mut breaker, later));
    assert!(!fail(&mut breaker, later), "a whole answer ends the probation");
}

#[test]
fn a_failed_try_opens_it_for_longer_and_a_cancelled_one_frees_the_place() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let then = now + SECOND;
    let probe = breaker.enter(then);
    breaker.leave(probe);
    assert!(breaker.admits(then));
    assert!(fail(&mut breaker, then));
    assert_eq!(breaker.standing(then), Standing::Open { until: then + SECOND * 2 });
}

#[test]
fn retry_after_is_obeyed_at_once_and_up_to_a_bound() {
    let now = Instant::now();
    for (told, held) in [(SECOND * 30, SECOND * 30), (Duration::ZERO, SECOND), (SECOND * 3600, SECOND * 300)] {
        let mut breaker = Breaker::default();
        let ticket = breaker.enter(now);
        assert!(breaker.failed(ticket, now, Some(told), 0.0, &Config::default()));
        assert_eq!(breaker.standing(now), Standing::Open { until: now + held });
    }
}

#[test]
fn answers_from_before_it_opened_change_nothing() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    let early = [breaker.enter(now), breaker.enter(now)];
    for _ in 0..5 {
        fail(&mut breaker, now);
    }
    assert!(!breaker.succeeded(early[0], now, &Config::default()));
    assert!(!breaker.failed(early[1], now, None, 0.0, &Config::default()));
    assert_eq!(breaker.standing(now), Standing::Open { until: now + SECOND });
}

proptest! {
    /// Under any load that always fails, the requests that are let in are few: the opening times grow.
    #[test]
    fn a_backend_that_always_fails_is_seldom_asked(per_second in 1_u32..200, dice in 0.0_f64..1.0) {
        let (start, config) = (Instant::now(), Config::default());
        let (mut breaker, mut asked) = (Breaker::default(), 0_u32);
        for n in 0..per_second * 60 {
            let now = start + SECOND * n / per_second;
            if breaker.admits(now) {
                let ticket = breaker.enter(now);
                breaker.failed(ticket, now, None, dice, &config);
                asked += 1;
            }
        }
        // 5 to open it; then at 0.5, 1, 2, 4, 8, 16, 30 seconds and a little more at the least.
        prop_assert!(asked <= 13, "{asked}");
    }
}
