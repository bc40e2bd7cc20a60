//! This process.

use std::time::Duration;

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use crate::telemetry::Process;

pub(super) fn read() -> Option<Process> {
    let pid = sysinfo::get_current_pid().ok()?;
    let mut system = System::new().ok()?;
    let kind = ProcessRefreshKind::nothing().with_memory().with_cpu().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kind);
    let process = system.process(pid)?;
    Some(Process {
        resident_bytes: process.memory(),
        open_fds: process.open_files().and_then(|open| u64::try_from(open).ok()),
        max_fds: process.open_files_limit().and_then(|most| u64::try_from(most).ok()),
        cpu: Duration::from_millis(process.accumulated_cpu_time()),
        started_unix_s: process.start_time(),
    })
}
