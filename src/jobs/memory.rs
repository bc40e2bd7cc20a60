//! What of a process' memory is in RAM, and how much there still is, where the system says so.

#[cfg(feature = "embedded")]
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Memory that a process does not share with files: those the system can take away.
#[must_use]
pub fn of_process(id: u32) -> Option<u64> {
    resident_bytes(&std::fs::read_to_string(format!("/proc/{id}/status")).ok()?)
}

/// The same of this process.
#[cfg(feature = "embedded")]
#[must_use]
pub fn own() -> Option<u64> {
    of_process(std::process::id())
}

/// Memory that can still be taken without swapping, of the machine or of the container where that has less.
#[cfg(feature = "embedded")]
#[must_use]
pub fn free_bytes() -> Option<u64> {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kind).ok()?;
    let available = system.available_memory();
    let bounded = system.cgroup_limits().filter(|limits| (1..system.total_memory()).contains(&limits.total_memory));
    Some(bounded.map_or(available, |limits| available.min(limits.free_memory))).filter(|bytes| *bytes > 0)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_are_read() {
        assert_eq!(resident_bytes("Name:\tx\nRssAnon:\t    1234 kB\nRssFile:\t 9 kB\n"), Some(1_263_616));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }
}
