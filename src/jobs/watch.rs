//! When a child process has been silent, idle or hungry for too long: pure.

use std::time::Duration;

/// Longest time without a sign of life.
const SILENCE: Duration = Duration::from_secs(30);

/// What is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Longest time without progress.
    pub idle: Duration,
    /// Time from being asked to end to being killed.
    pub grace: Duration,
    pub memory_bytes: u64,
}

/// Why a child has to end before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It said nothing, not even that it is alive.
    Silent,
    /// It made no progress.
    Idle,
    Memory {
        used_bytes: u64,
    },
    /// It was asked to stop.
    Asked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// To be asked by a signal, for this reason.
    Terminate(Reason),
    Kill,
}

/// What is known of a child. Times are of a steady clock.
#[derive(Debug, Clone)]
pub struct Watch {
    bounds: Bounds,
    alive_at: Duration,
    moved_at: Duration,
    asked_at: Option<Duration>,
    ended: Option<(Reason, Duration)>,
}

impl Watch {
    #[must_use]
    pub fn new(bounds: Bounds, now: Duration) -> Self {
        Self { bounds, alive_at: now, moved_at: now, asked_at: None, ended: None }
    }

    /// It said something.
    pub fn alive(&mut self, now: Duration) {
        self.alive_at = now;
    }

    /// It made progress, or holds still because it is to.
    pub fn moved(&mut self, now: Duration) {
        (self.alive_at, self.moved_at) = (now, now);
    }

    /// It was asked to stop.
    pub fn asked(&mut self, now: Duration) {
        self.asked_at.get_or_insert(now);
    }

    /// Why it is made to end, if it is.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.ended.map(|(reason, _)| reason)
    }

    /// What is to be done now; a reason is told once.
    pub fn look(&mut self, now: Duration, used_bytes: Option<u64>) -> Verdict {
        let past = |since: Duration, bound: Duration| now.saturating_sub(since) > bound;
        if let Some((_, since)) = self.ended {
            return if past(since, self.bounds.grace) { Verdict::Kill } else { Verdict::Fine };
        }
        let hungry = used_bytes.filter(|used| *used > self.bounds.memory_bytes);
        let reason = match hungry {
            Some(used_bytes) => Reason::Memory { used_bytes },
            None if self.asked_at.is_some_and(|asked| past(asked, self.bounds.grace)) => Reason::Asked,
            None if past(self.alive_at, SILENCE.max(self.bounds.grace)) => Reason::Silent,
            None if past(self.moved_at, self.bounds.idle) => Reason::Idle,
            None => return Verdict::Fine,
        };
        self.ended = Some((reason, now));
        // There is no time to ask one that eats the machine.
        if matches!(reason, Reason::Memory { .. }) { Verdict::Kill } else { Verdict::Terminate(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn watch() -> Watch {
        Watch::new(Bounds { idle: s(60), grace: s(5), memory_bytes: 100 }, s(0))
    }

    #[test]
    fn one_that_only_beats_is_asked_to_end_and_then_killed() {
        let mut watch = watch();
        for now in 1..=60 {
            watch.alive(s(now));
            assert_eq!(watch.look(s(now), Some(100)), Verdict::Fine, "{now}");
        }
        assert_eq!(watch.look(s(61), None), Verdict::Terminate(Reason::Idle));
        assert_eq!(watch.look(s(66), None), Verdict::Fine);
        assert_eq!(watch.look(s(67), None), Verdict::Kill);
        assert_eq!(watch.reason(), Some(Reason::Idle));
    }

    #[test]
    fn one_that_is_not_heard_of_is_silent() {
        let mut watch = watch();
        watch.moved(s(10));
        assert_eq!(watch.look(s(40), None), Verdict::Fine);
        assert_eq!(watch.look(s(41), None), Verdict::Terminate(Reason::Silent));
    }

    #[test]
    fn one_that_takes_too_much_is_killed_at_once() {
        assert_eq!(watch().look(s(1), Some(101)), Verdict::Kill);
        let mut watch = watch();
        watch.look(s(1), Some(101));
        assert_eq!(watch.reason(), Some(Reason::Memory { used_bytes: 101 }));
    }

    #[test]
    fn one_that_was_asked_has_its_grace() {
        let mut watch = watch();
        watch.asked(s(1));
        watch.asked(s(5));
        watch.moved(s(6));
        assert_eq!(watch.look(s(6), None), Verdict::Fine);
        assert_eq!(watch.look(s(7), None), Verdict::Terminate(Reason::Asked));
    }
}
