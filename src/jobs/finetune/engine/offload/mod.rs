//! Passes on an NVIDIA GPU by the kernels of [`super::cuda`].
//!
//! They know LoRA (rsLoRA, DoRA, dropout, ranks and scales of a matrix's own) over plain or quantised weights, in bf16: what most trainings
//! are. All else is done by candle's operations on the same device: weights that are trained themselves, single precision, teachers, shapes
//! the kernels do not know. Quantised weights stay as the file has them (QLoRA).

mod angles;
mod loading;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::{DType, Device, Result, Shape, Storage, Tensor, bail};

use super::block::Block;
use super::cuda::{self, Decoder, Gpu, Grads, Input, Pair, adamw, squares};
use super::dropout::Mask;
use super::linear::Linear;
use super::{Engine, embedding};
use crate::jobs::finetune::batch::Batch;
use crate::jobs::finetune::learner::{Pass, Tensors, Update};
use angles::Angles;

pub use loading::suits;

/// A model in the memory of a GPU.
pub struct Offload {
    gpu: Gpu,
    state: Mutex<State>,
}

struct State {
    decoder: Decoder,
    angles: Angles,
}

impl fmt::Debug for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload").finish_non_exhaustive()
    }
}

impl Offload {
    /// Takes over the weights of an engine that was loaded for the CPU.
    pub fn new(engine: &Engine, device: &Device) -> Result<Self> {
        let gpu = gpu(device)?;
        let decoder = loading::decoder(&gpu, engine).map_err(candle_core::Error::wrap)?;
        Ok(Self { gpu, state: Mutex::new(State { decoder, angles: Angles::default() }) })
    }

    /// As [`Learner::log_probs`](super::Learner::log_probs).
    pub fn log_probs(&self, engine: &Engine, parameters: &Tensors, batch: &Batch) -> Result<Vec<f32>> {
        self.pass(engine, parameters, batch, (None, None))
    }

    /// As [`Learner::accumulate`](super::Learner::accumulate), with an entry for every parameter in `gradients`.
    pub fn accumulate(
        &self,
        engine: &Engine,
        parameters: &Tensors,
        batch: &Batch,
        pass: Option<Pass>,
        gradients: &Tensors,
    ) -> Result<Vec<f32>> {
        let gradients = self.addresses(engine, gradients)?;
        self.pass(engine, parameters, batch, (pass, Some(&gradients)))
    }

    fn pass(
        &self,
        engine: &Engine,
        parameters: &Tensors,
        batch: &Batch,
        (pass, gradients): (Option<Pass>, Option<&[Grads]>),
    ) -> Result<Vec<f32>> {
        if batch.labels.is_empty() {
            return Ok(Vec::new());
        }
        let labels: Vec<_> = batch.labels.iter().map(|label| (label.place, label.token, label.weight)).collect();
        if !labels.is_sorted_by_key(|(place, ..)| *place) {
            bail!("labels are not in ascending order of their places");
        }
        let adapters = self.addresses(engine, parameters)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { decoder, angles } = &mut *state;
        let positions = angles.positions(decoder, &engine.config, &engine.ropes, batch).map_err(candle_core::Error::wrap)?;
        let input = Input { tokens: &batch.tokens, positions: &positions, starts: &batch.starts, labels: &labels };
        let passed = decoder.set_adapters(adapters).and_then(|()| match gradients {
            Some(gradients) => decoder.accumulate(&input, pass, gradients),
            None => decoder.log_probs(&input),
        });
        passed.map_err(candle_core::Error::wrap)
    }

    /// Milliseconds of each kind of work that is done meanwhile.
    pub fn traced<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<BTreeMap<&'static str, f32>> {
        self.gpu.start_trace().map_err(candle_core::Error::wrap)?;
        let done = work();
        let spent = self.gpu.finish_trace().map_err(candle_core::Error::wrap)?;
        done.map(|_| spent)
    }

    /// Where adapters, or their gradients, lie.
    fn addresses(&self, engine: &Engine, tensors: &Tensors) -> Result<Vec<Grads>> {
        let pair = |linear: &Linear| -> Result<Option<Pair>> {
            let (Some(a), Some(b)) = (tensors.get(&linear.names.lora_a), tensors.get(&linear.names.lora_b)) else { return Ok(None) };
            let magnitude = tensors.get(&linear.names.magnitude).map(|magnitude| address(&self.gpu, magnitude)).transpose()?;
            Ok(Some(Pair { a: address(&self.gpu, a)?, b: address(&self.gpu, b)?, magnitude }))
        };
        let pairs = |linears: &[Linear]| linears.iter().map(pair).collect::<Result<Vec<_>>>();
        let of_block = |block: &Block| -> Result<Grads> {
            Ok([pairs(&block.qkv.linears)?, vec![pair(&block.output)?], pairs(&block.gate_up.linears)?, vec![pair(&block.down)?]])
        };
        engine.blocks.iter().map(of_block).collect()
    }

    /// Memory of weights, and of a pass.
    pub fn memory_bytes(&self, tokens: usize, labels: usize) -> Result<(u64, u64)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let pass_bytes = state.decoder.pass_bytes(tokens, labels).map_err(candle_core::Error::wrap)?;
        Ok((state.decoder.weights_bytes() as u64, pass_bytes as u64))
    }
}

/// As [`Learner::squares`](super::Learner::squares), on any NVIDIA GPU. The device is waited for once.
pub fn squares_of(device: &Device, tensors: &[&Tensor]) -> Result<Vec<f64>> {
    /// Numbers whose squares one block of threads sums.
    const STRETCH: usize = 1 << 14;
    let gpu = gpu(device)?;
    let (mut stretches, mut owners) = (Vec::new(), Vec::new());
    for (owner, tensor) in tensors.iter().enumerate() {
        let (start, count) = (address(&gpu, tensor)?, tensor.elem_count());
        for first in (0..count).step_by(STRETCH) {
            stretches.push((start + 4 * first as u64, STRETCH.min(count - first)));
            owners.push(owner);
        }
    }
    let mut sums = vec![0.0; tensors.len()];
    for (owner, sum) in owners.into_iter().zip(squares(&gpu, &stretches).map_err(candle_core::Error::wrap)?) {
        sums[owner] += f64::from(sum);
    }
    Ok(sums)
}

/// As [`Learner::step_in_place`](super::Learner::step_in_place), on any NVIDIA GPU.
pub fn step(device: &Device, update: &Update, tensors: [&Tensor; 4]) -> Result<()> {
    let gpu = gpu(device)?;
    let mut addresses = [0; 4];
    for (to, tensor) in addresses.iter_mut().zip(tensors) {
        if tensor.shape() != tensors[0].shape() {
            bail!("tensors of shapes {:?} and {:?} in one step", tensors[0].shape(), tensor.shape());
        }
        *to = address(&gpu, tensor)?;
    }
    adamw(&gpu, update, addresses, tensors[0].elem_count()).map_err(candle_core::Error::wrap)
}

/// Where the numbers of a tensor lie in the GPU's memory.
fn address(gpu: &Gpu, tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cuda(cuda), Some((start, _))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("a tensor of shape {:?} on {:?} does not lie in one piece in the GPU's memory", tensor.shape(), tensor.device());
    };
    Ok(cuda.as_cuda_slice::<f32>()?.device_ptr(gpu.stream()).0 + 4 * start as u64)
}

/// What a mask multiplies each number of such a tensor with, for candle's own operations.
pub fn drop_factors(device: &Device, mask: Mask, shape: &Shape) -> Result<Tensor> {
    let (gpu, factors) = (gpu(device)?, Tensor::zeros(shape, DType::F32, device)?);
    cuda::drop_factors(&gpu, mask, address(&gpu, &factors)?, shape.elem_count()).map_err(candle_core::Error::wrap)?;
    Ok(factors)
}

/// Devices in use: what was compiled for one serves all models on it.
static OPEN: Mutex<Vec<Gpu>> = Mutex::new(Vec::new());

/// The stream and library handle that candle's own operations use, so that all is done in one order.
fn gpu(device: &Device) -> Result<Gpu> {
    let cuda = device.as_cuda_device()?;
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gpu) = open.iter().find(|gpu| Arc::ptr_eq(gpu.stream(), &cuda.cuda_stream())) {
        return Ok(gpu.clone());
    }
    let gpu = Gpu::new(cuda.cuda_stream(), cuda.cublas_handle());
    open.push(gpu.clone());
    Ok(gpu)
}
