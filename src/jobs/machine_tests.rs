use serde_json::json;

use super::*;

const LEASE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);

fn fault() -> Fault {
    Fault { kind: "crashed".into(), message: "x".into() }
}

/// A job in each state, and with a cancellation under way, all of epoch 5 and its second of three attempts.
fn all() -> Vec<Standing> {
    let at = |state: State, cancel_requested| {
        let active = state.is_active();
        Standing {
            state,
            epoch: 5,
            owner: active.then(|| "w".to_owned()),
            lease_until_ms: active.then_some(100),
            attempts: 2,
            cancel_requested,
            finished_at_ms: state.is_end().then_some(1),
            ..submitted(3, 0)
        }
    };
    State::ALL.into_iter().flat_map(|state| [at(state, false), at(state, true)]).collect()
}

type Named = (&'static str, Result<Standing, Wrong>);

/// Everything that can be done to a job, by the worker of this epoch where it takes one.
fn everything(job: &Standing, epoch: i64) -> Vec<Named> {
    let step = Step { number: 0, input_hash: String::new(), output: json!(null) };
    vec![
        ("lease", lease(job, "v", 200, LEASE)),
        ("begin", begin(job, epoch)),
        ("renew", renew(job, epoch, 200, LEASE)),
        ("step", step_ended(job, epoch, &step)),
        ("succeed", succeed(job, epoch, json!(1), 200)),
        ("fail", fail(job, epoch, fault(), Some(PAUSE), 200)),
        ("fail for good", fail(job, epoch, fault(), None, 200)),
        ("release", release(job, epoch, 200)),
        ("expire", expire(job, PAUSE, 200)),
        ("cancel", cancel(job, 200)),
        ("give up", give_up(job, "other", 200)),
        ("retry", retry(job, 200)),
    ]
}

#[test]
fn from_every_state_every_change_leads_where_it_should_or_nowhere() {
    use State::{Cancelled, Failed, Leased, Queued, Running, Succeeded};
    for job in all() {
        let found: Vec<(&str, State)> = everything(&job, 5).into_iter().filter_map(|(name, next)| Some((name, next.ok()?.state))).collect();
        let (again, over) = if job.cancel_requested { (Cancelled, Cancelled) } else { (Queued, Failed) };
        let expected = match job.state {
            Queued => vec![("lease", Leased), ("cancel", Cancelled), ("give up", Cancelled)],
            Leased | Running => vec![
                ("begin", Running),
                ("renew", job.state),
                ("step", job.state),
                ("succeed", Succeeded),
                ("fail", again),
                ("fail for good", over),
                ("release", again),
                ("expire", again),
                ("cancel", job.state),
            ],
            Succeeded => vec![],
            Failed | Cancelled => vec![("retry", Queued)],
        };
        assert_eq!(found, expected, "{job:?}");
    }
}

#[test]
fn whoever_has_an_older_epoch_changes_nothing() {
    let workers = ["begin", "renew", "step", "succeed", "fail", "fail for good", "release"];
    for job in all() {
        for epoch in [4, 6] {
            for (name, next) in everything(&job, epoch).into_iter().filter(|(name, _)| workers.contains(name)) {
                assert_eq!(next, Err(Wrong::Lost), "{name} {job:?}");
            }
        }
    }
}

#[test]
fn every_change_keeps_the_rules() {
    for job in all() {
        for (name, next) in everything(&job, 5) {
            let Ok(next) = next else { continue };
            assert_eq!(next.owner.is_some(), next.state.is_active(), "{name}");
            assert_eq!(next.lease_until_ms.is_some(), next.state.is_active(), "{name}");
            assert_eq!(next.finished_at_ms.is_some(), next.state.is_end(), "{name}");
            assert!(next.epoch >= job.epoch, "{name}");
            assert!(next.attempts <= next.max_attempts, "{name}");
            // Whatever makes a worker lose a job while it may still be at work makes its epoch an old one, or ends the job's activity.
            let taken = job.state.is_active() && next.state.is_active();
            assert!(!taken || next.owner == job.owner, "{name}");
        }
    }
}

#[test]
fn a_lease_holds_until_its_end() {
    let job = lease(&submitted(3, 0), "w", 1_000, LEASE).expect("free");
    assert_eq!((job.epoch, job.attempts, job.lease_until_ms, job.started_at_ms), (1, 1, Some(31_000), Some(1_000)));
    assert_eq!(expire(&job, PAUSE, 31_000), Err(Wrong::Lost));
    let lost = expire(&job, PAUSE, 31_001).expect("over");
    assert_eq!((lost.state, lost.epoch, lost.not_before_ms), (State::Queued, 2, 32_001));
    assert_eq!(succeed(&lost, 1, json!(1), 31_002), Err(Wrong::Lost), "a zombie");
    let renewed = renew(&job, 1, 20_000, LEASE).expect("held");
    assert_eq!(expire(&renewed, PAUSE, 31_001), Err(Wrong::Lost));
}

#[test]
fn attempts_run_out_and_come_back_by_a_retry() {
    let mut job = submitted(2, 0);
    for state in [State::Queued, State::Failed] {
        job = lease(&job, "w", 0, LEASE).expect("free");
        job = fail(&job, job.epoch, fault(), Some(PAUSE), 0).expect("held");
        assert_eq!(job.state, state);
    }
    assert_eq!(job.error, Some(fault()));
    let again = retry(&job, 9).expect("failed");
    assert_eq!((again.state, again.attempts, again.error, again.epoch), (State::Queued, 0, None, job.epoch + 1));
}

#[test]
fn a_release_uses_no_attempt_up() {
    let job = lease(&submitted(2, 0), "w", 0, LEASE).expect("free");
    let released = release(&job, job.epoch, 5).expect("held");
    assert_eq!((released.state, released.attempts, released.epoch), (State::Queued, 0, 2));
}

#[test]
fn pauses_double_up_to_the_longest_and_dice_take_off_up_to_half() {
    let pause = |attempts, dice| pause(attempts, Duration::from_secs(2), Duration::from_mins(1), dice);
    assert_eq!([1, 2, 3, 6, 40].map(|n| pause(n, 0.0).as_secs()), [2, 4, 8, 60, 60]);
    assert_eq!(pause(2, 1.0), Duration::from_secs(2));
    assert_eq!(pause(0, 0.5), Duration::from_millis(1_500));
    assert_eq!(pause(u32::MAX, f64::NAN.clamp(0.0, 1.0).max(0.0)), Duration::from_mins(1));
}
