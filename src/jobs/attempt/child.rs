//! The child process, from outside.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use super::lines::Lines;
use crate::jobs::memory;
use crate::jobs::worker::{Ask, Brief};

/// A child that does not read what it is told for so long is not waited for: the watch will see to it.
const TELLING: Duration = Duration::from_secs(1);

pub struct Child {
    process: tokio::process::Child,
    input: Option<ChildStdin>,
    pub says: Lines<ChildStdout>,
    /// What it writes to standard error.
    pub complains: Lines<ChildStderr>,
    /// What it is told first, as far as it has not been told yet.
    untold: Vec<u8>,
}

impl Child {
    /// Starts `worker run`, with nothing of this process' environment: it holds secrets that are not the child's.
    pub fn start(program: &Path, brief: &Brief) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["worker", "run"]).env_clear().env("RAYON_NUM_THREADS", brief.threads.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C on the terminal is for the worker, which then asks the child.
        let mut process = command.process_group(0).kill_on_drop(true).spawn()?;
        let missing = || io::Error::other("a pipe is missing");
        let says = Lines::new(process.stdout.take().ok_or_else(missing)?);
        let complains = Lines::new(process.stderr.take().ok_or_else(missing)?);
        let mut untold = serde_json::to_vec(brief).map_err(io::Error::other)?;
        untold.push(b'\n');
        let input = process.stdin.take();
        Ok(Self { process, input, says, complains, untold })
    }

    pub async fn tell(&mut self, ask: Ask) {
        let Some(input) = &mut self.input else { return };
        self.untold.extend(serde_json::to_vec(&ask).unwrap_or_default());
        self.untold.push(b'\n');
        let told = tokio::time::timeout(TELLING, async {
            while !self.untold.is_empty() {
                let count = input.write(&self.untold).await?;
                self.untold.drain(..count);
            }
            Ok::<_, io::Error>(())
        });
        if matches!(told.await, Ok(Err(_))) {
            self.input = None;
        }
    }

    pub fn terminate(&self) {
        let pid = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may have ended just now.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    pub fn kill(&mut self) {
        // As above.
        let _ = self.process.start_kill();
    }

    pub async fn wait(&mut self) -> ExitStatus {
        self.process.wait().await.unwrap_or_default()
    }

    /// What of its memory is in RAM, where the system says so.
    pub fn memory_bytes(&self) -> Option<u64> {
        memory::of_process(self.process.id()?)
    }
}
