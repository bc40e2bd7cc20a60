//! Which job is next, and whether a job can ever run: pure.
//!
//! Jobs come by priority, then age. One that does not fit beside those that run holds back the later ones of its own priority and
//! below, or a large job would wait for ever behind small ones; but one that waits for nothing but a device lets those go before that
//! need none.

use std::time::Duration;

use serde::Serialize;

use crate::domain::generation::Priority;
use crate::storage::jobs::{Needs, PoolOrder, Waiting};

/// What all jobs together may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capacity {
    pub cpu_threads: u32,
    pub gpus: u32,
    pub memory_bytes: u64,
    /// What may still be written, the reserve taken off. What running jobs are going to write is not.
    pub disk_bytes: u64,
}

/// Why a job can never run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TooLarge {
    /// `memory`, `disk`, `cpu` or `gpu`.
    pub resource: &'static str,
    /// In bytes for memory and disk.
    pub needed: u64,
    pub available: u64,
}

/// How live requests and operators bear on the workers now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Climate {
    pub order: PoolOrder,
    /// Live requests wait for longer than is good: jobs of this priority and below do not start.
    pub yields: Option<Priority>,
}

/// # Errors
/// The resource of which it takes more than there is.
pub fn fits(needs: &Needs, capacity: &Capacity) -> Result<(), TooLarge> {
    let pairs = [
        ("memory", needs.memory_bytes, capacity.memory_bytes),
        ("disk", needs.disk_bytes, capacity.disk_bytes),
        ("cpu", u64::from(needs.cpu_threads), u64::from(capacity.cpu_threads)),
        ("gpu", u64::from(needs.gpus), u64::from(capacity.gpus)),
    ];
    match pairs.into_iter().find(|(_, needed, available)| needed > available) {
        Some((resource, needed, available)) => Err(TooLarge { resource, needed, available }),
        None => Ok(()),
    }
}

/// The job to start now, by its place among those that wait.
#[must_use]
pub fn choose(waiting: &Waiting, capacity: &Capacity, climate: Climate) -> Option<usize> {
    if climate.order != PoolOrder::Run {
        return None;
    }
    for (place, job) in waiting.jobs.iter().enumerate() {
        if climate.yields.is_some_and(|least| job.order.priority <= least) {
            continue;
        }
        match fits(&waiting.used.and(job.order.needs), capacity) {
            Ok(()) => return Some(place),
            Err(TooLarge { resource: "gpu", .. }) => {}
            Err(_) if waiting.active > 0 => return None,
            // Nothing runs, and yet it does not fit: room that was there when it was submitted has gone. Others need not wait for that.
            Err(_) => {}
        }
    }
    None
}

/// How busy live requests keep the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Live requests that wait for a slot.
    pub waiting: u64,
}

/// Tells when jobs are to yield: as soon as as many live requests wait as configured, and until none has waited for a while, so that
/// jobs do not start and stop with every request.
#[derive(Debug, Clone, Default)]
pub struct Pressure {
    calm_since_ms: Option<i64>,
    high: bool,
}

impl Pressure {
    pub fn observe(&mut self, load: Load, most_waiting: u64, calm: Duration, now_ms: i64) -> bool {
        if most_waiting > 0 && load.waiting >= most_waiting {
            self.high = true;
            self.calm_since_ms = None;
        } else if load.waiting == 0 {
            let since = *self.calm_since_ms.get_or_insert(now_ms);
            self.high &= i128::from(now_ms - since) < i128::try_from(calm.as_millis()).unwrap_or(i128::MAX);
        } else {
            self.calm_since_ms = None;
        }
        self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::machine::submitted;
    use crate::storage::jobs::tests::order;
    use crate::storage::jobs::{Job, Order};

    const CAPACITY: Capacity = Capacity { cpu_threads: 4, gpus: 1, memory_bytes: 100, disk_bytes: 1_000 };
    const CALM: Climate = Climate { order: PoolOrder::Run, yields: None };

    fn job(priority: Priority, memory_bytes: u64, gpus: u32) -> Job {
        let order = Order { priority, needs: Needs { cpu_threads: 1, gpus, memory_bytes, disk_bytes: 0 }, ..order("") };
        Job::new(order, submitted(1, 0))
    }

    fn waiting(jobs: Vec<Job>, used_memory: u64, used_gpus: u32) -> Waiting {
        let used = Needs { cpu_threads: 1, gpus: used_gpus, memory_bytes: used_memory, disk_bytes: 0 };
        Waiting { jobs, used, active: u64::from(used_memory > 0) }
    }

    #[test]
    fn what_never_fits_is_refused_with_the_numbers() {
        let needs = |memory_bytes, disk_bytes, cpu_threads, gpus| Needs { cpu_threads, gpus, memory_bytes, disk_bytes };
        assert_eq!(fits(&needs(100, 1_000, 4, 1), &CAPACITY), Ok(()));
        let refused = |needs| fits(&needs, &CAPACITY).expect_err("too large");
        assert_eq!(refused(needs(101, 9, 1, 0)), TooLarge { resource: "memory", needed: 101, available: 100 });
        assert_eq!(refused(needs(1, u64::MAX, 1, 0)), TooLarge { resource: "disk", needed: u64::MAX, available: 1_000 });
        assert_eq!(refused(needs(1, 1, 5, 0)).resource, "cpu");
        assert_eq!(refused(needs(1, 1, 1, 2)).resource, "gpu");
    }

    #[test]
    fn a_large_job_is_not_overtaken_for_ever() {
        let jobs = vec![job(Priority::Normal, 80, 0), job(Priority::Normal, 10, 0)];
        assert_eq!(choose(&waiting(jobs.clone(), 50, 0), &CAPACITY, CALM), None);
        assert_eq!(choose(&waiting(jobs, 20, 0), &CAPACITY, CALM), Some(0));
    }

    #[test]
    fn one_that_waits_for_a_device_lets_others_go() {
        let jobs = vec![job(Priority::Normal, 1, 1), job(Priority::Normal, 10, 0)];
        assert_eq!(choose(&waiting(jobs.clone(), 50, 1), &CAPACITY, CALM), Some(1));
        assert_eq!(choose(&waiting(jobs, 50, 0), &CAPACITY, CALM), Some(0));
    }

    #[test]
    fn one_for_which_the_room_has_gone_does_not_hold_up_the_rest() {
        let jobs = vec![job(Priority::Normal, 500, 0), job(Priority::Normal, 10, 0)];
        assert_eq!(choose(&waiting(jobs, 0, 0), &CAPACITY, CALM), Some(1));
    }

    #[test]
    fn operators_and_live_requests_hold_jobs_back() {
        let jobs = vec![job(Priority::Low, 1, 0), job(Priority::Batch, 1, 0)];
        for order in [PoolOrder::Pause, PoolOrder::Drain] {
            assert_eq!(choose(&waiting(jobs.clone(), 0, 0), &CAPACITY, Climate { order, ..CALM }), None);
        }
        let yielding = |least| Climate { yields: Some(least), ..CALM };
        assert_eq!(choose(&waiting(jobs.clone(), 0, 0), &CAPACITY, yielding(Priority::Low)), None);
        assert_eq!(choose(&waiting(jobs, 0, 0), &CAPACITY, yielding(Priority::Batch)), Some(0));
    }

    #[test]
    fn pressure_rises_at_once_and_falls_when_it_has_been_calm() {
        let mut pressure = Pressure::default();
        let mut at = |waiting, now_ms| pressure.observe(Load { waiting }, 3, Duration::from_secs(10), now_ms);
        assert!(!at(2, 0));
        assert!(at(3, 1_000));
        assert!(at(0, 2_000));
        assert!(at(1, 8_000), "not calm yet");
        assert!(at(0, 9_000));
        assert!(at(0, 18_999));
        assert!(!at(0, 19_000));
        assert!(!Pressure::default().observe(Load { waiting: 9 }, 0, Duration::ZERO, 0), "switched off");
    }
}
