//! How much memory is taken, as the system tells.

use candle_core::Device;

/// From the time on when everything was loaded.
#[derive(Debug)]
pub struct Watch {
    device: Device,
    loaded: Option<u64>,
}

impl Watch {
    pub fn new(device: &Device) -> Self {
        let loaded = if device.is_cpu() { forget_peak().and_then(|()| of_process("VmRSS:")) } else { of_device(device) };
        Self { device: device.clone(), loaded }
    }

    pub fn loaded_bytes(&self) -> Option<u64> {
        self.loaded
    }

    /// The most so far. What a GPU's allocator was given it keeps, so that what it has now is the most it had.
    pub fn peak_bytes(&self) -> Option<u64> {
        if self.device.is_cpu() { of_process("VmHWM:") } else { of_device(&self.device) }
    }
}

/// Has the system count the process's peak anew.
fn forget_peak() -> Option<()> {
    std::fs::write("/proc/self/clear_refs", "5").ok()
}

/// A line of the process's status, where there is one.
fn of_process(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

#[cfg(feature = "cuda")]
fn of_device(device: &Device) -> Option<u64> {
    let (free, all) = device.as_cuda_device().ok()?.cuda_stream().context().mem_get_info().ok()?;
    Some((all - free) as u64)
}

#[cfg(not(feature = "cuda"))]
fn of_device(_: &Device) -> Option<u64> {
    None
}
