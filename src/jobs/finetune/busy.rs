//! How busy what is trained on is.

use std::time::Instant;

use candle_core::Device;
#[cfg(feature = "cuda")]
use nvml_wrapper::Nvml;

/// Share of the time since it was last asked in which a device worked.
pub struct Busy {
    is_cpu: bool,
    since: Instant,
    cpu_s: f64,
    /// The driver's library, and what the GPU is called there.
    #[cfg(feature = "cuda")]
    gpu: Option<(Nvml, String)>,
}

impl Busy {
    #[must_use]
    pub fn of(device: &Device) -> Self {
        Self {
            is_cpu: device.is_cpu(),
            since: Instant::now(),
            cpu_s: cpu_s(),
            #[cfg(feature = "cuda")]
            gpu: super::engine::uuid(device).and_then(|uuid| Some((Nvml::init().ok()?, uuid))),
        }
    }

    /// From 0 to 1. Of the CPU: what this process used of the threads that train. Of an NVIDIA GPU: what its driver says of the last second or
    /// less. `None`: nobody says.
    pub fn share(&mut self) -> Option<f64> {
        if self.is_cpu {
            let (elapsed, used) = (self.since.elapsed().as_secs_f64(), cpu_s() - self.cpu_s);
            (self.since, self.cpu_s) = (Instant::now(), self.cpu_s + used);
            #[expect(clippy::cast_precision_loss, reason = "threads")]
            let threads = rayon::current_num_threads() as f64;
            return (elapsed > 0.0).then(|| (used / (elapsed * threads)).clamp(0.0, 1.0));
        }
        #[cfg(feature = "cuda")]
        if let Some((nvml, uuid)) = &self.gpu {
            let rates = nvml.device_by_uuid(uuid.as_str()).and_then(|device| device.utilization_rates());
            return rates.ok().map(|rates| f64::from(rates.gpu) / 100.0);
        }
        None
    }
}

/// Seconds that all threads of this process have worked.
#[expect(clippy::cast_precision_loss, reason = "seconds of a process")]
pub fn cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_is_busy() {
        let mut busy = Busy::of(&Device::Cpu);
        let begun = cpu_s();
        while cpu_s() - begun < 0.02 {
            std::hint::spin_loop();
        }
        let share = busy.share().expect("the CPU says");
        assert!(share > 0.0 && share <= 1.0, "{share}");
    }
}
