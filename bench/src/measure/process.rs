//! Processes under measurement: started, waited for, read from `/proc`, ended.

use crate::http1::raw;
use anyhow::{Context, Result, bail};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A process this run started. Dropping it ends it: a request first, by force after two seconds.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a command with its output going to a file.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child =
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Polls a path until it answers 200; gives the time since `since`.
    pub async fn answers(&mut self, address: SocketAddr, path: &str, since: Instant, bound: Duration) -> Result<Duration> {
        let request = raw::request("GET", path, &[], b"");
        loop {
            if let Ok(reply) = raw::exchange(address, &request, bound).await
                && reply.status == 200
            {
                return Ok(since.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it answered", self.name);
            }
            if since.elapsed() > bound {
                bail!("{} did not answer {path} within {bound:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends it by force, at once.
    pub fn kill(mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends SIGHUP, if the process has a use for it: it would end any other. Whether it was sent.
    pub fn hang_up(&self) -> bool {
        let pid = self.child.id();
        if !catches_hang_up(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()) {
            return false;
        }
        Command::new("kill").arg("-HUP").arg(pid.to_string()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// CPU time of the process, its threads and its children so far.
    pub fn cpu(&self) -> Cpu {
        let all = family(self.child.id());
        Cpu { threads: all.iter().map(|pid| threads_of(*pid)).sum(), ticks: all.iter().map(|pid| ticks_of(*pid)).sum() }
    }

    /// Resident memory in bytes: all of it, and the part that no file backs.
    pub fn resident(&self) -> (u64, u64) {
        let all = family(self.child.id());
        let sum = |field: &str| all.iter().map(|pid| memory(*pid, field)).sum();
        (sum("VmRSS:"), sum("RssAnon:"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let asked = Command::new("kill").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
        let until = Instant::now() + Duration::from_secs(if asked.is_ok() { 2 } else { 0 });
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether a process has a handler of its own for signal 1, by its `/proc/<pid>/status`.
fn catches_hang_up(status: &str) -> bool {
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// A process and its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        next += 1;
    }
    all
}

/// CPU time read in two ways, neither of which is right by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// Exact, but only of threads that still live: one that ended takes its time with it.
    threads: Duration,
    /// Of all threads there ever were, in ticks of 10 ms, user and system time each rounded down.
    ticks: Duration,
}

/// Two readings of the ticks differ by up to this much from the truth.
const TICKS_ERR: Duration = Duration::from_millis(20);

impl Cpu {
    /// What was used since an earlier reading. Where the living threads account for less than the ticks can be wrong by,
    /// threads ended meanwhile and only the ticks know of them.
    pub fn since(self, earlier: Self) -> Duration {
        let threads = self.threads.saturating_sub(earlier.threads);
        let ticks = self.ticks.saturating_sub(earlier.ticks);
        if ticks > threads + TICKS_ERR { ticks } else { threads }
    }
}

fn threads_of(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// `utime` and `stime` of `/proc/<pid>/stat`, whose second field, the name, may hold anything but ends with the last bracket.
fn ticks_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // The kernel tells every program a hundred ticks a second, whatever its own clock.
    Duration::from_millis(ticks * 10)
}

fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A port that was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burn(span: Duration) {
        let until = Instant::now() + span * 20;
        let begun = ticks_of(std::process::id());
        while ticks_of(std::process::id()) < begun + span && Instant::now() < until {
            std::hint::black_box((0..10_000_u64).sum::<u64>());
        }
    }

    /// A thread for each connection is a common design; its work must not vanish with the thread.
    #[test]
    fn the_work_of_threads_that_ended_is_counted() {
        let read = || Cpu { threads: threads_of(std::process::id()), ticks: ticks_of(std::process::id()) };
        let before = read();
        std::thread::spawn(|| burn(Duration::from_millis(150))).join().expect("no panic");
        let used = read().since(before);
        assert!(used >= Duration::from_millis(120), "{used:?}");
    }

    #[test]
    fn a_signal_that_would_end_a_process_is_not_sent() {
        assert!(catches_hang_up("Name:\tx\nSigCgt:\t0000000000004443\n"));
        assert!(!catches_hang_up("SigCgt:\t0000000000004442\n") && !catches_hang_up(""));
    }

    #[test]
    fn exact_times_are_preferred_where_no_thread_ended() {
        let reading = |threads, ticks| Cpu { threads: Duration::from_millis(threads), ticks: Duration::from_millis(ticks) };
        assert_eq!(reading(118, 110).since(reading(7, 0)), Duration::from_millis(111));
        assert_eq!(reading(20, 500).since(reading(30, 100)), Duration::from_millis(400));
    }
}
