//! The numbers of a tensor on the CPU as a slice, and how threads share one.

use std::cell::Cell;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, StorageRef, Tensor, bail};

/// The numbers of a tensor, for as long as this lives.
pub struct Numbers<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

/// The numbers of a tensor.
///
/// # Errors
/// When they are not 32 bits each in the memory of the CPU, one behind the other.
pub fn numbers(tensor: &Tensor) -> Result<Numbers<'_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("a tensor of shape {:?} is not contiguous", tensor.shape()) };
    if !matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))) {
        bail!("a tensor of {:?} on {:?} is not one of 32 bits on the CPU", tensor.dtype(), tensor.device());
    }
    Ok(Numbers { storage, range: start..end })
}

impl Deref for Numbers<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(all)) => &all[self.range.clone()],
            _ => &[],
        }
    }
}

struct Edit<F>(Cell<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Edit<F> {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match (storage, layout.contiguous_offsets(), self.0.take()) {
            (CpuStorage::F32(all), Some((start, end)), Some(edit)) => edit(&mut all[start..end]),
            _ => bail!("only contiguous tensors of 32 bits can be changed in place"),
        }
        Ok(())
    }
}

/// Changes the numbers of a tensor where they are. Its clones see it.
///
/// # Errors
/// As [`numbers`].
pub fn edit(tensor: &Tensor, edit: impl FnOnce(&mut [f32])) -> Result<()> {
    tensor.inplace_op1(&Edit(Cell::new(Some(edit))))
}
