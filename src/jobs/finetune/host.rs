//! Numbers of a tensor as a slice, without a copy where they are in the memory of the CPU already.

use candle_core::{Result, Storage, Tensor};

/// Hands the numbers, row after row, to `using`.
///
/// # Errors
/// When they are not of single precision, or cannot be fetched from their device.
pub(super) fn read<R>(tensor: &Tensor, using: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(numbers), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            return Ok(using(&numbers.as_slice::<f32>()?[start..end]));
        }
    }
    Ok(using(&tensor.flatten_all()?.to_vec1::<f32>()?))
}
