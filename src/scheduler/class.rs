//! Which priority class goes next: the highest that waits, but for two promises to the lower ones.
//!
//! A class with a share gets at least that part of the turns while it waits: it saves up a share of every turn another class has,
//! and takes its turn when it has saved up a whole one. And when the oldest request of a class has been passed over for as long as
//! the class's `max_wait`, it goes next. Such lifts take at most every second turn, so that a flood of old requests cannot turn
//! the order round.

use std::time::Duration;

use super::At;
use super::config::{MaxWait, Shares};
use crate::domain::generation::Priority;

const CLASSES: usize = Priority::ALL.len();
/// A turn, in hundredths.
const TURN: i64 = 100;

#[must_use]
pub(super) fn index(class: Priority) -> usize {
    match class {
        Priority::Batch => 0,
        Priority::Low => 1,
        Priority::Normal => 2,
        Priority::High => 3,
        Priority::Urgent => 4,
    }
}

/// The next turn: whose, and whether its oldest is to go because it waited too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub class: Priority,
    pub lifted: bool,
}

/// Remembers who had turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    saved: [i64; CLASSES],
    last_was_lift: bool,
}

impl Turns {
    /// `oldest`: for each class, from the last to the first, when its oldest request came. `margin`: how long before its time a
    /// lift is due, since the next turn comes only when a slot falls free.
    #[must_use]
    pub(super) fn next(
        &self,
        now: At,
        oldest: &[Option<At>; CLASSES],
        max_wait: &MaxWait,
        margin: impl Fn(Priority) -> Duration,
    ) -> Option<Turn> {
        let highest = Priority::ALL.into_iter().rev().find(|&class| oldest[index(class)].is_some())?;
        let lower = || Priority::ALL.into_iter().filter(|&class| class < highest);
        let starving = lower()
            .filter_map(|class| {
                let limit = max_wait.of(class).saturating_sub(margin(class));
                let came = oldest[index(class)]?;
                (now.saturating_sub(came) >= limit).then_some((came + limit, class))
            })
            .min();
        if let (Some((_, class)), false) = (starving, self.last_was_lift) {
            return Some(Turn { class, lifted: true });
        }
        let saved = lower().filter(|&class| oldest[index(class)].is_some() && self.saved[index(class)] >= TURN);
        let class = saved.max_by_key(|&class| self.saved[index(class)]).unwrap_or(highest);
        Some(Turn { class, lifted: false })
    }

    /// A turn was taken. `waited`: which classes had requests waiting.
    pub(super) fn took(&mut self, turn: Turn, waited: [bool; CLASSES], shares: &Shares) {
        for class in Priority::ALL {
            let saved = &mut self.saved[index(class)];
            let earned = i64::from(shares.of(class).min(100));
            if class == turn.class {
                *saved = (*saved + earned - TURN).max(0);
            } else if waited[index(class)] {
                *saved = (*saved + earned).min(2 * TURN);
            } else {
                *saved = 0;
            }
        }
        self.last_was_lift = turn.lifted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: At = Duration::from_secs(1_000);

    fn none(_: Priority) -> Duration {
        Duration::ZERO
    }

    fn waiting(seconds: [Option<u64>; CLASSES]) -> [Option<At>; CLASSES] {
        seconds.map(|s| s.map(|s| NOW.checked_sub(Duration::from_secs(s)).expect("less than a thousand")))
    }

    #[test]
    fn every_set_of_classes_gives_the_highest_when_none_is_owed_anything() {
        for set in 0..32_u32 {
            let oldest: [Option<u64>; CLASSES] = std::array::from_fn(|n| (set >> n & 1 == 1).then_some(1));
            let expected = Priority::ALL.into_iter().rev().find(|&c| oldest[index(c)].is_some());
            let turn = Turns::default().next(NOW, &waiting(oldest), &MaxWait::default(), none);
            assert_eq!(turn, expected.map(|class| Turn { class, lifted: false }));
        }
    }

    #[test]
    fn each_class_gets_its_share_under_full_load_of_the_highest() {
        let mut turns = Turns::default();
        let oldest = waiting([Some(1); CLASSES]);
        let mut had = [0_u32; CLASSES];
        for _ in 0..10_000 {
            let turn = turns.next(NOW, &oldest, &MaxWait::default(), none).expect("all wait");
            had[index(turn.class)] += 1;
            turns.took(turn, [true; CLASSES], &Shares::default());
        }
        for (class, least) in [(0, 180), (1, 450), (2, 900), (3, 1_800), (4, 6_000)] {
            assert!(had[class] >= least, "{had:?}");
        }
    }

    #[test]
    fn the_longest_overdue_is_lifted_and_never_twice_in_a_row() {
        let mut turns = Turns::default();
        let oldest = waiting([Some(305), Some(130), Some(1), None, Some(1)]);
        let first = turns.next(NOW, &oldest, &MaxWait::default(), none).expect("one");
        assert_eq!(first, Turn { class: Priority::Low, lifted: true });
        turns.took(first, [true; CLASSES], &Shares::default());
        let second = turns.next(NOW, &oldest, &MaxWait::default(), none).expect("one");
        assert_eq!(second, Turn { class: Priority::Urgent, lifted: false });
        turns.took(second, [true; CLASSES], &Shares::default());
        assert!(turns.next(NOW, &oldest, &MaxWait::default(), none).expect("one").lifted);
    }

    #[test]
    fn alone_no_class_is_lifted_and_nothing_is_saved_up_while_away() {
        let mut turns = Turns::default();
        let alone = waiting([Some(900), None, None, None, None]);
        assert_eq!(turns.next(NOW, &alone, &MaxWait::default(), none), Some(Turn { class: Priority::Batch, lifted: false }));
        for _ in 0..100 {
            turns.took(Turn { class: Priority::Urgent, lifted: false }, [false; CLASSES], &Shares::default());
        }
        let now = waiting([Some(1), None, None, None, Some(1)]);
        assert_eq!(turns.next(NOW, &now, &MaxWait::default(), none).expect("one").class, Priority::Urgent);
    }
}
