//! What a fine-tuning is going to take, known before it starts.

use std::path::Path;

use super::error::Error;
use super::stages::{header, settings_for};
use super::teacher;
use super::wish::Wish;
use crate::jobs::convert::{self, Source, Target};
use crate::jobs::finetune::engine::{Engine, Extent};
use crate::jobs::finetune::options::Options;
use crate::jobs::make::Places;
use crate::lm::{Choice, Device};
use crate::storage::jobs::Needs;

/// What the process takes beside the work itself.
const BASE_BYTES: u64 = 192 << 20;
/// What a model is taken to have that cannot be looked at yet.
const LATER_BYTES: u64 = 2 << 30;

/// Where the models are, as far as they are there yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Models<'a> {
    pub base: Option<&'a Places>,
    /// Also `None` where there is no teacher.
    pub teacher: Option<&'a Places>,
}

/// Threads and accelerators of those that there are, memory, and room on the disk.
///
/// # Errors
/// A base that cannot be trained, and a teacher that it cannot learn from.
pub fn needs(wish: &Wish, models: Models<'_>, data_bytes: u64, (cpu_threads, gpus): (u32, u32)) -> Result<Needs, Error> {
    let Models { base, teacher } = models;
    let (unseen, converted_bytes) = unseen_teacher(wish, teacher)?;
    let taught = if let Some(Places { source: Source::Gguf(path), .. }) = teacher { Some(path.as_path()) } else { None };
    let (model, weights_bytes) = match base {
        None => (LATER_BYTES, LATER_BYTES),
        Some(Places { source: Source::Gguf(path), .. }) => (memory_bytes(wish, path, taught)?, header(path)?.file_size_bytes),
        Some(places) => of_folder(places)?,
    };
    let model = model.saturating_add(unseen);
    let rows = wish.data.memory_bytes(data_bytes);
    let folder = matches!(base, Some(Places { source: Source::Folder(_), .. }));
    // The base where it is converted, the merged model, its twin for samples, and what is kept of a run.
    let copies = 1 + u64::from(folder) + u64::from(!wish.samples.is_empty()) + 2 * u64::from(wish.export.safetensors);
    Ok(Needs {
        cpu_threads: cpu_threads.max(1),
        gpus: u32::from(device(wish.device, gpus) != Choice::Cpu),
        memory_bytes: BASE_BYTES.saturating_add(model.max(rows)),
        disk_bytes: copies.saturating_mul(weights_bytes).saturating_add(converted_bytes).saturating_add(data_bytes.saturating_mul(6)),
    })
}

/// What is trained on, where so many accelerators may be used. Jobs that take one wait for each other: one that has been given none must not
/// find one by itself.
#[must_use]
pub fn device(wanted: Choice, gpus: u32) -> Choice {
    let usable = gpus > 0 && cfg!(any(feature = "cuda", feature = "metal"));
    if wanted == Choice::Auto && !usable { Choice::Cpu } else { wanted }
}

/// Memory of a pass as long as passes may be, and of the optimiser's state, without the weights of the file, which are mapped and can be taken
/// away.
///
/// # Errors
/// A model that cannot be trained so.
pub fn memory_bytes(wish: &Wish, path: &Path, teacher: Option<&Path>) -> Result<u64, Error> {
    let (training, of_base) = (&wish.training, header(path)?);
    let teacher = teacher.map(|path| Ok::<_, Error>((path, header(path)?))).transpose()?;
    if let Some((_, of_teacher)) = &teacher {
        teacher::expect_same_vocabulary(&of_base, of_teacher)?;
    }
    let teacher = teacher.as_ref().map(|(path, header)| (*path, header));
    let extent = Extent::whole(training.batch_tokens, training.sequence_tokens);
    let memory = Engine::survey((path, &of_base), teacher, &settings_for(wish, &candle_core::Device::Cpu), extent)?;
    let moments = if training.eight_bit { memory.parameters_bytes / 2 } else { 2 * memory.parameters_bytes };
    Ok(memory.total_bytes() - memory.weights_bytes + moments)
}

/// Memory and room on the disk for a teacher that is no file yet.
fn unseen_teacher(wish: &Wish, teacher: Option<&Places>) -> Result<(u64, u64), Error> {
    match teacher {
        None if wish.teacher.is_some() => Ok((LATER_BYTES / 4, LATER_BYTES)),
        None | Some(Places { source: Source::Gguf(_), .. }) => Ok((0, 0)),
        Some(places) => Ok((LATER_BYTES / 4, of_folder(places)?.1)),
    }
}

/// Memory of an accelerator at the peak of a training; the weights are loaded there to know it. `None`: on the CPU, and where there is no
/// file of the base yet.
///
/// # Errors
/// A model that cannot be trained so, or is too large for the device.
pub fn device_memory_bytes(wish: &Wish, base: &Places, device: &Device) -> Result<Option<u64>, Error> {
    let (Source::Gguf(path), false) = (&base.source, device.is_cpu()) else { return Ok(None) };
    let device = device.candle();
    let settings = settings_for(wish, &device);
    let engine = Engine::load(path, &header(path)?, device, &settings)?;
    let Options { batch_tokens, sequence_tokens, .. } = wish.training;
    peak_bytes(wish, &engine, Extent::whole(batch_tokens, sequence_tokens)).map(Some)
}

/// Memory of the device at the peak of a training; on the CPU without the optimiser's state.
///
/// # Errors
/// What the device says.
pub(super) fn peak_bytes(wish: &Wish, engine: &Engine, extent: Extent) -> Result<u64, Error> {
    let memory = engine.predicted(extent)?;
    // With 8 bits it lies in the memory of the CPU.
    let moments = if engine.is_on_cpu() || wish.training.eight_bit { 0 } else { 2 * memory.parameters_bytes };
    Ok(memory.total_bytes() + moments)
}

/// Of a folder only its size is known before it is converted.
fn of_folder(places: &Places) -> Result<(u64, u64), Error> {
    let options = convert::Options::new(places.source.clone(), places.reference_type(), Target::File("base.gguf".into()));
    let size = convert::plan(&options)?.size_bytes();
    Ok((size.max(LATER_BYTES / 4), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_accelerator_of_their_own_jobs_do_not_take_one() {
        assert_eq!((device(Choice::Auto, 0), device(Choice::Cpu, 1)), (Choice::Cpu, Choice::Cpu));
        // Who names one waits for it, or is told that there is none.
        assert_eq!((device(Choice::Cuda, 0), device(Choice::Metal, 0)), (Choice::Cuda, Choice::Metal));
        let built = cfg!(any(feature = "cuda", feature = "metal"));
        assert_eq!(device(Choice::Auto, 1) == Choice::Auto, built);
    }
}
