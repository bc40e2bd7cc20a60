//! How much memory is taken, as the system tells.

use candle_core::Device;

use crate::jobs::finetune::engine;

/// From the time on when everything was loaded.
#[derive(Debug)]
pub struct Watch {
    device: Device,
    loaded: Option<u64>,
}

impl Watch {
    pub fn new(device: &Device) -> Self {
        engine::forget_peak(device);
        let loaded = if device.is_cpu() { forget_peak().and_then(|()| of_process("VmRSS:")) } else { engine::peak_bytes(device) };
        Self { device: device.clone(), loaded }
    }

    pub fn loaded_bytes(&self) -> Option<u64> {
        self.loaded
    }

    /// The most so far.
    pub fn peak_bytes(&self) -> Option<u64> {
        if self.device.is_cpu() { of_process("VmHWM:") } else { engine::peak_bytes(&self.device) }
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
