//! Many threads make chunks, one writes them in order, and only so many wait in between.
//!
//! Chunks are handed out in order and never further ahead of the writer than a window, which bounds the memory. The first failure, of
//! either side, stops all; so does a panic, which is passed on.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::error::{Error, Result};

/// How many finished chunks may wait, for each thread that makes them.
pub(super) const WAITING_PER_THREAD: usize = 2;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    count: usize,
    window: usize,
}

#[derive(Default)]
struct State {
    /// The next chunk to be made.
    next: usize,
    /// The next chunk to be written.
    written: usize,
    made: BTreeMap<usize, Vec<u8>>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    failure: Option<Error>,
    stopped: bool,
}

/// Makes chunks `0..count` on `threads` threads, each with what `work` gives it, and hands them to `take` in order.
pub(in crate::jobs) fn run<W>(
    threads: NonZeroUsize,
    count: usize,
    work: impl Fn() -> W + Sync,
    make: impl Fn(usize, &mut W, &mut Vec<u8>) -> Result<()> + Sync,
    mut take: impl FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let window = threads.get() * WAITING_PER_THREAD;
    let shared = Shared { state: Mutex::default(), changed: Condvar::new(), count, window };
    thread::scope(|scope| {
        for _ in 0..threads.get().min(count) {
            scope.spawn(|| {
                let _stop = StopOnPanic(&shared);
                let mut work = work();
                while let Some((index, mut buffer)) = shared.claim() {
                    let made = make(index, &mut work, &mut buffer);
                    shared.put(index, made.map(|()| buffer));
                }
            });
        }
        let _stop = StopOnPanic(&shared);
        for index in 0..count {
            let Some(buffer) = shared.wait_for(index) else { break };
            let taken = take(index, &buffer);
            shared.written(buffer, taken);
        }
    });
    let failure = shared.lock().failure.take();
    failure.map_or(Ok(()), Err)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The next chunk to make, once it is within the window; `None` when there is nothing left to do.
    fn claim(&self) -> Option<(usize, Vec<u8>)> {
        let mut state = self.lock();
        while !state.stopped && state.next < self.count && state.next >= state.written + self.window {
            state = self.wait(state);
        }
        if state.stopped || state.next >= self.count {
            return None;
        }
        state.next += 1;
        Some((state.next - 1, state.spare.pop().unwrap_or_default()))
    }

    fn put(&self, index: usize, made: Result<Vec<u8>>) {
        let mut state = self.lock();
        match made {
            Ok(buffer) => drop(state.made.insert(index, buffer)),
            Err(error) => state.fail(error),
        }
        self.changed.notify_all();
    }

    fn wait_for(&self, index: usize) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(buffer) = state.made.remove(&index) {
                return Some(buffer);
            }
            state = self.wait(state);
        }
    }

    fn written(&self, buffer: Vec<u8>, taken: Result<()>) {
        let mut state = self.lock();
        state.written += 1;
        state.spare.push(buffer);
        if let Err(error) = taken {
            state.fail(error);
        }
        self.changed.notify_all();
    }
}

impl State {
    /// Of several failures the first is told.
    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
        self.stopped = true;
    }
}

struct StopOnPanic<'a>(&'a Shared);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().stopped = true;
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn threads(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).expect("at least one")
    }

    #[test]
    fn chunks_come_in_order_and_few_wait() {
        let (made, mut seen) = (AtomicUsize::new(0), Vec::new());
        let make = |index: usize, (): &mut (), out: &mut Vec<u8>| {
            made.fetch_add(1, Ordering::SeqCst);
            out.clear();
            out.extend(index.to_le_bytes());
            Ok(())
        };
        let take = |index: usize, bytes: &[u8]| {
            assert!(made.load(Ordering::SeqCst) <= index + 3 * WAITING_PER_THREAD, "{index}");
            assert_eq!(bytes, index.to_le_bytes());
            seen.push(index);
            Ok(())
        };
        run(threads(3), 500, || (), make, take).expect("all made");
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
        run(threads(3), 0, || (), |_, (), _| Ok(()), |_, _| Ok(())).expect("nothing to do");
    }

    #[test]
    fn the_first_failure_of_either_side_stops_all() {
        let broken = |at: usize| move |index: usize| if index == at { Err(Error::Cancelled) } else { Ok(()) };
        for (make_fails, take_fails) in [(7, 1000), (1000, 7), (0, 0)] {
            let (make, take) = (broken(make_fails), broken(take_fails));
            let mut taken = 0;
            let result = run(
                threads(2),
                100,
                || (),
                |index, (), _| make(index),
                |index, _| {
                    taken += 1;
                    take(index)
                },
            );
            assert!(matches!(result, Err(Error::Cancelled)));
            assert!(taken <= 8, "{taken}");
        }
    }

    #[test]
    fn a_panic_is_passed_on_and_nobody_waits_for_ever() {
        let make = |index: usize, (): &mut (), _: &mut Vec<u8>| if index == 3 { panic!("a fault") } else { Ok(()) };
        let outcome = std::panic::catch_unwind(|| run(threads(2), 50, || (), make, |_, _| Ok(())));
        assert!(outcome.is_err());
    }
}
