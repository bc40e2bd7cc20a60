//! Processors.

use serde::Serialize;
use sysinfo::{CpuRefreshKind, RefreshKind, System};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// As its maker calls it; empty when it does not say.
    pub model: String,
    /// Hardware threads of the machine.
    pub threads: usize,
    /// Threads this process may keep busy: less than `threads` in a container or with an affinity.
    pub usable: usize,
    /// Cores, of which each may run several threads.
    pub cores: Option<usize>,
}

pub(super) fn read() -> Cpu {
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing())).ok();
    let cpus = system.as_ref().map(System::cpus).unwrap_or_default();
    Cpu {
        model: cpus.first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
        threads: cpus.len().max(usable),
        usable,
        cores: System::physical_core_count().ok(),
    }
}
