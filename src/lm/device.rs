//! What a model runs on, chosen once at start.

use serde::{Deserialize, Serialize};

use super::cpu::Precision;
use super::cpu::kernels::Isa;
use super::error::{Error, Result};

/// What to run on, as configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The accelerator this program was built for if the machine has one, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda,
    Metal,
}

/// What a model runs on.
#[derive(Debug, Clone)]
pub struct Device(pub(super) Kind);

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Cpu { threads: usize, isa: Isa, precision: Precision },
    Accelerator { device: candle_core::Device, name: &'static str },
}

impl Device {
    /// The chosen device. `threads` is for the CPU; `None` means every physical core this process may use.
    ///
    /// # Errors
    /// When a device is asked for by name that this machine or this build does not have.
    pub fn choose(choice: Choice, threads: Option<usize>) -> Result<Self> {
        match choice {
            Choice::Cpu => Ok(Self::cpu(threads)),
            Choice::Cuda => cuda(),
            Choice::Metal => metal(),
            Choice::Auto => Ok(cuda().or_else(|_| metal()).unwrap_or_else(|_| Self::cpu(threads))),
        }
    }

    /// The CPU.
    #[must_use]
    pub fn cpu(threads: Option<usize>) -> Self {
        Self(Kind::Cpu { threads: threads.unwrap_or_else(physical_cores).max(1), isa: Isa::detect(), precision: Precision::default() })
    }

    /// The accelerator path on the CPU, slow: so that it can be tested on any machine.
    #[doc(hidden)]
    #[must_use]
    pub fn candle_on_cpu() -> Self {
        Self(Kind::Accelerator { device: candle_core::Device::Cpu, name: "candle on the CPU" })
    }

    /// The CPU with every instruction set it has, the plainest first, and caches that round nothing: so that all kernels can be
    /// tested to the last digits.
    #[doc(hidden)]
    #[must_use]
    pub fn each_exact_cpu(threads: usize) -> Vec<Self> {
        Isa::available().into_iter().map(|isa| Self(Kind::Cpu { threads, isa, precision: Precision::Single })).collect()
    }

    /// As candle has it, for those who compute with its tensors.
    #[must_use]
    pub fn candle(&self) -> candle_core::Device {
        match &self.0 {
            Kind::Cpu { .. } => candle_core::Device::Cpu,
            Kind::Accelerator { device, .. } => device.clone(),
        }
    }

    #[must_use]
    pub fn is_cpu(&self) -> bool {
        matches!(self.0, Kind::Cpu { .. })
    }

    /// For people: `CPU (AVX2, 8 threads)`, `CUDA`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.0 {
            Kind::Cpu { threads: 1, isa, .. } => format!("CPU ({}, 1 thread)", isa.name()),
            Kind::Cpu { threads, isa, .. } => format!("CPU ({}, {threads} threads)", isa.name()),
            Kind::Accelerator { name, .. } => (*name).to_owned(),
        }
    }
}

/// Hyper-threads share the units that matrix products keep busy, so cores count. A container may be given fewer.
fn physical_cores() -> usize {
    let given = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    sysinfo::System::physical_core_count().map_or(given, |cores| cores.min(given))
}

fn cuda() -> Result<Device> {
    accelerator("CUDA", cfg!(feature = "cuda"), || candle_core::Device::new_cuda(0))
}

fn metal() -> Result<Device> {
    accelerator("Metal", cfg!(feature = "metal"), || candle_core::Device::new_metal(0))
}

fn accelerator(name: &'static str, built: bool, open: impl FnOnce() -> candle_core::Result<candle_core::Device>) -> Result<Device> {
    if !built {
        let feature = name.to_lowercase();
        return Err(Error::Device { name, why: format!("this program was built without it (feature `{feature}`)") });
    }
    let device = open().map_err(|error| Error::Device { name, why: format!("it cannot be opened: {error}") })?;
    Ok(Device(Kind::Accelerator { device, name }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_written_in_lower_case() {
        assert_eq!(serde_json::to_string(&Choice::Metal).unwrap(), "\"metal\"");
        assert_eq!(serde_json::from_str::<Choice>("\"auto\"").unwrap(), Choice::Auto);
    }

    #[test]
    fn the_cpu_has_at_least_one_thread_and_says_so() {
        assert!(Device::cpu(Some(0)).describe().ends_with("1 thread)"));
        assert!(Device::choose(Choice::Cpu, Some(3)).unwrap().describe().ends_with("3 threads)"));
        assert!(Device::choose(Choice::Auto, None).is_ok());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_built_in_is_an_error_that_names_the_feature() {
        let error = Device::choose(Choice::Cuda, None).unwrap_err().to_string();
        assert!(error.contains("feature `cuda`"), "{error}");
    }
}
