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
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
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

    /// CPU time of the process, its threads and its children so far.
    pub fn cpu(&self) -> Duration {
        family(self.child.id()).into_iter().map(cpu_of).sum()
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

/// Nanoseconds on a core, summed over threads; they are exact where ticks are not. Threads that ended are not in the sum.
fn cpu_of(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
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
