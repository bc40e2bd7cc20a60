//! Runs that are stopped, killed and made to wait.

use super::*;
use std::time::Duration;

/// Stops, or breaks, at a question of the trainer.
#[derive(Default)]
struct Interrupting {
    stop_at: Option<usize>,
    break_at: Option<usize>,
    hold_at: Option<usize>,
    asked: usize,
    told: usize,
    folder: std::path::PathBuf,
    clock: Clock,
    held_with: Option<usize>,
}

impl Observer for Interrupting {
    fn metrics(&mut self, _: &Record) -> io::Result<()> {
        self.told += 1;
        if self.break_at == Some(self.told) { Err(io::Error::other("killed")) } else { Ok(()) }
    }

    fn should_stop(&mut self) -> bool {
        self.asked += 1;
        self.stop_at.is_some_and(|at| self.asked >= at)
    }

    fn should_hold(&mut self) -> bool {
        self.hold_at == Some(self.asked)
    }

    fn hold(&mut self) {
        self.held_with = Some(std::fs::read_dir(&self.folder).expect("listed").count());
        self.clock.advance(Duration::from_hours(5));
    }
}

fn case(eight_bit: bool) -> Case {
    let mut case = Case::new(Options {
        eight_bit,
        epochs: 3,
        batch_tokens: 24,
        accumulation: 3,
        evaluate_every_steps: Some(3),
        save_every_steps: Some(2),
        patience: Some(30),
        ..options()
    });
    case.learner.dropping = true;
    case
}

fn expect_same(one: &Trained, other: &Trained) {
    for name in [TABLE, BIAS] {
        let bits = |trained: &Trained| numbers(&trained.parameters, name).into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(one), bits(other), "{name}");
    }
    let (one, other) = (&one.summary, &other.summary);
    assert_eq!((&one.losses, &one.evaluations, one.tokens, one.labels), (&other.losses, &other.evaluations, other.tokens, other.labels));
    assert_eq!(
        one.best.as_ref().map(|best| (best.step, best.figure.to_bits())),
        other.best.as_ref().map(|best| (best.step, best.figure.to_bits()))
    );
}

/// Goes on until the end; gives what came of it and how many attempts that took.
fn to_the_end(case: &Case, mut interrupting: impl FnMut(usize) -> Interrupting) -> (Trained, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    for attempt in 1..1000 {
        match case.run(folder.path(), &mut interrupting(attempt)) {
            Ok(trained) if trained.summary.ending != Ending::Stopped => return (trained, attempt),
            Ok(_) | Err(Error::Observer(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it never ended");
}

#[test]
fn a_run_that_is_stopped_anywhere_ends_with_the_same_bits() {
    let case = case(false);
    let undisturbed = case.alone().expect("trained");
    let eight_bit = self::case(true);
    let (trained, _) = to_the_end(&eight_bit, |_| Interrupting { stop_at: Some(7), ..Interrupting::default() });
    expect_same(&trained, &eight_bit.alone().expect("trained"));
    // Between steps, within them, and while the validation rows are read. With less than a step at a time it would never end.
    for stride in [5, 7, 8, 11, 13, 29] {
        let (trained, attempts) = to_the_end(&case, |_| Interrupting { stop_at: Some(stride), ..Interrupting::default() });
        assert!(attempts > 1, "{attempts}");
        expect_same(&trained, &undisturbed);
    }
}

#[test]
fn a_run_that_breaks_anywhere_ends_with_the_same_bits() {
    let case = case(false);
    let undisturbed = case.alone().expect("trained");
    // Between two checkpoints come two steps and a look at most.
    for at in [4, 5, 7, 8] {
        let (trained, attempts) = to_the_end(&case, |_| Interrupting { break_at: Some(at), ..Interrupting::default() });
        assert!(attempts > 1, "{attempts}");
        expect_same(&trained, &undisturbed);
    }
    for at in 1..20 {
        let once = |attempt| Interrupting { break_at: (attempt == 1).then_some(at), ..Interrupting::default() };
        expect_same(&to_the_end(&case, once).0, &undisturbed);
    }
}

#[test]
fn a_run_that_waits_has_a_checkpoint_and_is_not_slower_for_it() {
    let case = case(false);
    let folder = tempfile::tempdir().expect("a folder");
    let mut waiting =
        Interrupting { hold_at: Some(10), folder: folder.path().to_owned(), clock: case.clock.clone(), ..Interrupting::default() };
    let trained = case.run(folder.path(), &mut waiting).expect("trained");
    assert!(waiting.held_with.is_some_and(|checkpoints| checkpoints > 0));
    assert!(trained.summary.training_seconds < 1.0);
    expect_same(&trained, &case.alone().expect("trained"));
}

#[test]
fn a_run_that_has_ended_is_not_made_again_and_others_cannot_go_on_with_it() {
    let mut case = case(false);
    let folder = tempfile::tempdir().expect("a folder");
    let first = case.run(folder.path(), &mut Alone).expect("trained");
    let mut heard = Heard::default();
    let again = case.run(folder.path(), &mut heard).expect("trained");
    assert!(heard.steps.is_empty());
    assert_eq!(first.summary.last.as_deref(), Some(&*format!("step-{:08}", first.summary.steps)));
    assert_eq!(again.summary, first.summary);
    expect_same(&first, &again);
    case.options.seed = 1;
    let error = case.run(folder.path(), &mut Alone).expect_err("refused").to_string();
    assert!(error.contains("other options") && error.contains("begin anew"), "{error}");
}
