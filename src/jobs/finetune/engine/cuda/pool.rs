//! The driver's pool, from which all of this process' memory on a GPU comes but that of libraries and of the driver itself.

#![expect(unsafe_code, reason = "the driver takes and gives numbers by address")]

use candle_core::cuda_backend::cudarc;
use cudarc::driver::sys::CUmemPool_attribute;
use cudarc::driver::{CudaContext, DriverError, result};

pub use CUmemPool_attribute::{CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT as RESERVED, CU_MEMPOOL_ATTR_USED_MEM_CURRENT as USED};

/// An attribute that is a number of 64 bits, as all of those above are.
pub fn read(context: &CudaContext, attribute: CUmemPool_attribute) -> Result<u64, DriverError> {
    let mut number = 0_u64;
    // SAFETY: the number has the attribute's size, and outlives the call.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        result::mem_pool::get_attribute(pool, attribute, std::ptr::from_mut(&mut number).cast())?;
    }
    Ok(number)
}

/// As [`read`].
fn write(context: &CudaContext, attribute: CUmemPool_attribute, mut number: u64) -> Result<(), DriverError> {
    // SAFETY: as above.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        result::mem_pool::set_attribute(pool, attribute, std::ptr::from_mut(&mut number).cast())
    }
}

/// Keeps memory that was given back for the next who asks, rather than return it to the system at every synchronisation, as the driver would.
pub fn keep(context: &CudaContext) -> Result<(), DriverError> {
    write(context, CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX)
}

/// Bytes of the device's memory that are taken, with the most that this process' pool has had since [`forget_peak`].
pub fn peak_bytes(context: &CudaContext) -> Result<u64, DriverError> {
    let (free, all) = context.mem_get_info()?;
    let now = read(context, RESERVED)?;
    let most = read(context, CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?;
    Ok(((all - free) as u64).saturating_sub(now) + most)
}

/// Gives back what nobody uses, and counts from here on.
pub fn forget_peak(context: &CudaContext) -> Result<(), DriverError> {
    context.synchronize()?;
    // SAFETY: the device's own pool is there as long as the device.
    unsafe { result::mem_pool::trim_to(result::device::get_default_mem_pool(context.cu_device())?, 0)? };
    write(context, CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, 0)
}
