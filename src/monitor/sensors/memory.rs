//! Main memory, as far as this process may use it.

use serde::Serialize;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Of the machine, or of the container where that has less.
    pub total_bytes: u64,
    /// What can still be taken without swapping.
    pub available_bytes: u64,
    /// Whether a container's limit is what bounds it.
    pub limited: bool,
}

pub(super) fn read() -> Option<Memory> {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kind).ok()?;
    let limit = system.cgroup_limits().map(|limits| (limits.total_memory, limits.free_memory));
    let memory = bounded(system.total_memory(), system.available_memory(), limit);
    (memory.total_bytes > 0).then_some(memory)
}

/// The machine's figures, cut to the container's (total, free) where those are smaller.
fn bounded(total_bytes: u64, available_bytes: u64, limit: Option<(u64, u64)>) -> Memory {
    match limit {
        Some((limit_bytes, free_bytes)) if limit_bytes > 0 && limit_bytes < total_bytes => {
            Memory { total_bytes: limit_bytes, available_bytes: available_bytes.min(free_bytes), limited: true }
        }
        _ => Memory { total_bytes, available_bytes: available_bytes.min(total_bytes), limited: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_limit_counts_when_it_is_the_smaller() {
        let memory = |total_bytes, available_bytes, limited| Memory { total_bytes, available_bytes, limited };
        assert_eq!(bounded(100, 60, None), memory(100, 60, false));
        assert_eq!(bounded(100, 60, Some((50, 40))), memory(50, 40, true));
        assert_eq!(bounded(100, 30, Some((50, 40))), memory(50, 30, true));
        assert_eq!(bounded(100, 60, Some((u64::MAX, 1))), memory(100, 60, false));
        assert_eq!(bounded(100, 60, Some((0, 0))), memory(100, 60, false));
    }
}
