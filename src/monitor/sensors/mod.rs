//! What the machine has and how much of it is free, at one moment.
//!
//! Reading takes milliseconds of blocking system calls (the first look for NVIDIA's library may take longer): callers in async
//! code run it on a blocking thread. Nothing that is missing is an error: it is absent from the [`Snapshot`].

mod accelerator;
mod cpu;
mod disk;
mod memory;
mod process;

use std::path::Path;

use serde::Serialize;

use crate::telemetry::Process;

pub use accelerator::{Accelerator, Accelerators};
pub use cpu::Cpu;
pub use disk::Disk;
pub use memory::Memory;

/// One look at the machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    pub cpu: Cpu,
    pub memory: Option<Memory>,
    /// The disk that holds the path that was asked for.
    pub disk: Option<Disk>,
    pub accelerators: Accelerators,
    /// Memory of this process that is in RAM.
    pub own_resident_bytes: Option<u64>,
}

/// Reads the machine. Keeps NVIDIA's library open, which is slow to load.
pub struct Sensors {
    nvidia: accelerator::Nvidia,
}

impl Sensors {
    /// Looks for the libraries that some readings need.
    #[must_use]
    pub fn new() -> Self {
        Self { nvidia: accelerator::Nvidia::load() }
    }

    /// Reads everything. `path` is where disk space matters, usually the data folder; it need not exist yet.
    #[must_use]
    pub fn snapshot(&self, path: &Path) -> Snapshot {
        let cpu = cpu::read();
        let memory = memory::read();
        Snapshot {
            disk: disk::read(path),
            accelerators: accelerator::read(&self.nvidia, &cpu, memory.as_ref()),
            own_resident_bytes: self.process().map(|process| process.resident_bytes),
            cpu,
            memory,
        }
    }

    /// Reads this process only, for the metrics.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        process::read()
    }
}

impl Default for Sensors {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_processors_memory_and_a_disk_with_some_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let snapshot = Sensors::new().snapshot(folder.path());
        assert!(snapshot.cpu.usable >= 1);
        let memory = snapshot.memory.expect("memory can be read");
        assert!(memory.total_bytes > 0 && memory.available_bytes <= memory.total_bytes, "{memory:?}");
        let resident = snapshot.own_resident_bytes.expect("own memory can be read");
        assert!(resident > 0 && resident < memory.total_bytes * 2, "{resident}");
        if let Some(disk) = snapshot.disk {
            assert!(disk.available_bytes <= disk.total_bytes, "{disk:?}");
        }
    }

    #[test]
    fn a_machine_without_nvidias_library_says_why_there_is_no_accelerator() {
        let accelerators = Sensors { nvidia: accelerator::Nvidia::Absent("no library".to_owned()) }.snapshot(Path::new("/")).accelerators;
        assert_eq!(accelerators.nvidia_absent.as_deref(), Some("no library"));
        assert!(accelerators.found.iter().all(|found| found.api != "cuda"));
    }

    #[test]
    fn the_process_has_memory_files_and_a_start() {
        let process = Sensors::new().process().expect("can be read");
        assert!(process.resident_bytes > 0);
        assert!(process.started_unix_s > 1_577_836_800, "after 2020");
        if cfg!(target_os = "linux") {
            assert!(process.open_fds.is_some_and(|open| open > 0));
            assert!(process.max_fds.is_some_and(|most| most > 0));
        }
    }
}
