//! Threads that wait for the next piece of a matrix product.
//!
//! A token needs a hundred short parallel regions a few microseconds apart, which is less than it takes to wake a sleeping
//! thread. So workers look for work for a moment before they sleep. A region is over when its tasks are done, whoever did them:
//! a worker that the machine has put aside holds nobody up unless it is in the middle of a task.
//!
//! Promises: [`Pool::run`] returns after every task has run exactly once and nobody touches the closure any more; a panic in a
//! task comes out of `run`. Regions of several callers take turns. Does not nest: a task must not call `run`.

#![expect(unsafe_code, reason = "a region lends its closure to threads that outlive it; see `claim`")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// How often a worker looks for work before it sleeps: some 50 µs.
const LOOKS: u32 = 3_000;

/// How often the caller looks whether the last tasks are done before it lets others run.
const PATIENCE: u32 = 10_000;

type Task<'a> = &'a (dyn Fn(usize) + Sync);

/// A fixed number of threads, the caller's among them.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<thread::JoinHandle<()>>,
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Number of the region in the high half, tasks not yet claimed in the low half.
    state: AtomicU64,
    /// The closure of the region: a pointer to a [`Task`] on the caller's stack.
    task: AtomicPtr<()>,
    done: AtomicUsize,
    panicked: AtomicBool,
    closing: AtomicBool,
    sleeping: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
}

impl Pool {
    /// # Errors
    /// When the machine gives no more threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut pool = Self { shared: shared.clone(), workers: Vec::new(), turn: Mutex::new(()) };
        for index in 1..threads {
            let shared = shared.clone();
            pool.workers.push(thread::Builder::new().name(format!("lm-{index}")).spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` with every number below `tasks`.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        if self.workers.is_empty() || tasks < 2 {
            (0..tasks).for_each(task);
            return;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let task: Task<'_> = &task;
        self.shared.open(tasks, &task);
        let own = catch_unwind(AssertUnwindSafe(|| while self.shared.claim() {}));
        if own.is_err() {
            self.shared.done.fetch_add(1, Ordering::Release);
            // The tasks behind the one that failed still have to end, or be given up, before the closure may go.
            while catch_unwind(AssertUnwindSafe(|| self.shared.claim())).unwrap_or_else(|_| self.shared.one_done()) {}
        }
        self.shared.wait(tasks);
        self.shared.task.store(ptr::null_mut(), Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!self.shared.panicked.swap(false, Ordering::Relaxed), "a task of the embedded engine panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        drop(self.shared.bed.lock());
        self.shared.bell.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what its tasks throw.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn open(&self, tasks: usize, task: &Task<'_>) {
        let left = u32::try_from(tasks).unwrap_or_else(|_| panic!("{tasks} tasks in one region"));
        self.done.store(0, Ordering::Relaxed);
        self.task.store(ptr::from_ref(task).cast::<()>().cast_mut(), Ordering::Relaxed);
        let region = (self.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.state.store(region << 32 | u64::from(left), Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            drop(self.bed.lock());
            self.bell.notify_all();
        }
    }

    /// Takes one task and runs it. False: none is left.
    fn claim(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        let left = tasks_left(state);
        if left == 0 {
            return false;
        }
        let task = self.task.load(Ordering::Relaxed);
        if self.state.compare_exchange(state, state - 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return true;
        }
        // SAFETY: the state had not changed between the two readings of it, it never returns to an old value (the region
        // counts up, the tasks left count down), and `task` is replaced only while no task is left: so this is the closure of
        // the region in which one task has just been claimed, and `run` waits for that task before the closure goes.
        let task = unsafe { *task.cast::<Task<'_>>() };
        task(usize::try_from(left - 1).unwrap_or_default());
        self.one_done()
    }

    fn one_done(&self) -> bool {
        self.done.fetch_add(1, Ordering::Release);
        true
    }

    fn wait(&self, tasks: usize) {
        let mut looks = 0;
        while self.done.load(Ordering::Acquire) < tasks {
            looks += 1;
            if looks < PATIENCE { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }

    fn work(&self) {
        let mut looks = 0;
        while !self.closing.load(Ordering::Relaxed) {
            match catch_unwind(AssertUnwindSafe(|| self.claim())) {
                Ok(true) => looks = 0,
                Ok(false) if looks < LOOKS => {
                    looks += 1;
                    std::hint::spin_loop();
                }
                Ok(false) => {
                    self.sleep();
                    looks = 0;
                }
                Err(_) => {
                    self.panicked.store(true, Ordering::Relaxed);
                    self.one_done();
                }
            }
        }
    }

    /// Until there is work or the pool closes. Who opens a region looks at `sleeping` after it has published the work, and a
    /// worker looks for work after it has counted itself: one of them sees the other.
    fn sleep(&self) {
        let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        while tasks_left(self.state.load(Ordering::SeqCst)) == 0 && !self.closing.load(Ordering::SeqCst) {
            bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tasks_left(state: u64) -> u64 {
    state & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn every_task_runs_exactly_once_in_many_regions() {
        let pool = Pool::new(4).unwrap();
        for region in 0..2_000_usize {
            let counts: Vec<AtomicU32> = (0..region % 17).map(|_| AtomicU32::new(0)).collect();
            pool.run(counts.len(), |task| {
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn callers_take_turns() {
        let pool = Pool::new(3).unwrap();
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(8, |task| {
                            total.fetch_add(task, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 4 * 200 * 28);
    }

    #[test]
    fn a_panic_comes_out_of_run_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        for _ in 0..20 {
            let run = catch_unwind(AssertUnwindSafe(|| pool.run(6, |task| assert!(task != 3, "task 3 fails"))));
            assert!(run.is_err());
        }
        let total = AtomicUsize::new(0);
        pool.run(6, |task| {
            total.fetch_add(task, Ordering::Relaxed);
        });
        assert_eq!(total.load(Ordering::Relaxed), 15);
    }
}
