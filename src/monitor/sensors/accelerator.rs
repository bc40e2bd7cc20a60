//! Graphics processors that can compute: NVIDIA's through its management library, Apple's as part of the processor.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use serde::Serialize;

use super::{Cpu, Memory};

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accelerator {
    pub name: String,
    /// How it is programmed: `cuda` or `metal`.
    pub api: &'static str,
    /// Its own memory; the machine's, where it shares that.
    pub memory_total_bytes: Option<u64>,
    pub memory_free_bytes: Option<u64>,
    /// CUDA's compute capability, such as `8.6`.
    pub capability: Option<String>,
}

/// What there is, and why something is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Accelerators {
    pub found: Vec<Accelerator>,
    /// Version of NVIDIA's driver.
    pub nvidia_driver: Option<String>,
    /// Why no NVIDIA device can be seen.
    pub nvidia_absent: Option<String>,
}

/// NVIDIA's management library, or why there is none.
pub(super) enum Nvidia {
    Loaded(Box<Nvml>),
    Absent(String),
}

impl Nvidia {
    pub(super) fn load() -> Self {
        match Nvml::init() {
            Ok(nvml) => Self::Loaded(Box::new(nvml)),
            Err(NvmlError::LibloadingError(_)) => Self::Absent("NVIDIA's management library is not installed".to_owned()),
            Err(error) => Self::Absent(error.to_string()),
        }
    }
}

pub(super) fn read(nvidia: &Nvidia, cpu: &Cpu, memory: Option<&Memory>) -> Accelerators {
    let mut accelerators = match nvidia {
        Nvidia::Absent(why) => Accelerators { nvidia_absent: Some(why.clone()), ..Accelerators::default() },
        Nvidia::Loaded(nvml) => from_nvml(nvml),
    };
    if cfg!(target_os = "macos") {
        accelerators.found.extend(apple(cpu, memory));
    }
    accelerators
}

fn from_nvml(nvml: &Nvml) -> Accelerators {
    let found = nvml.device_count().map(|count| (0..count).filter_map(|index| device(nvml, index)).collect());
    Accelerators {
        nvidia_absent: found.as_ref().err().map(ToString::to_string),
        found: found.unwrap_or_default(),
        nvidia_driver: nvml.sys_driver_version().ok(),
    }
}

/// A device that has fallen off the bus has no name, and is left out.
fn device(nvml: &Nvml, index: u32) -> Option<Accelerator> {
    let device = nvml.device_by_index(index).ok()?;
    let memory = device.memory_info().ok();
    Some(Accelerator {
        name: device.name().ok()?,
        api: "cuda",
        memory_total_bytes: memory.as_ref().map(|memory| memory.total),
        memory_free_bytes: memory.as_ref().map(|memory| memory.free),
        capability: device.cuda_compute_capability().ok().map(|version| format!("{}.{}", version.major, version.minor)),
    })
}

/// Apple's processors have a graphics processor on the same chip, which shares the machine's memory.
fn apple(cpu: &Cpu, memory: Option<&Memory>) -> Option<Accelerator> {
    cpu.model.starts_with("Apple ").then(|| Accelerator {
        name: format!("{} (shares the machine's memory)", cpu.model),
        api: "metal",
        memory_total_bytes: memory.map(|memory| memory.total_bytes),
        memory_free_bytes: memory.map(|memory| memory.available_bytes),
        capability: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_apples_own_chips_have_its_graphics_processor() {
        let cpu = |model: &str| Cpu { model: model.to_owned(), threads: 8, usable: 8, cores: None };
        let memory = Memory { total_bytes: 16, available_bytes: 9, limited: false };
        let found = apple(&cpu("Apple M4 Pro"), Some(&memory)).expect("has one");
        assert_eq!((found.api, found.memory_total_bytes, found.memory_free_bytes), ("metal", Some(16), Some(9)));
        assert_eq!(apple(&cpu("Intel(R) Core(TM) i7"), Some(&memory)), None);
    }
}
