//! One GPU: memory, kernels and matrix products in the order of one stream. Nothing here waits for the GPU unless it says so.
#![expect(unsafe_code, reason = "memory of the device and launches on it are beyond what the compiler can check")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc;
use cudarc::cublas::CudaBlas;
use cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute};
use cudarc::driver::{CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DeviceRepr, ValidAsZeroBits, result};

use super::error::{Result, doing};
use super::pool;
use super::source::Source;
use super::trace::Trace;

/// A handle; clones share the stream and what was compiled.
#[derive(Clone)]
pub struct Gpu {
    stream: Arc<CudaStream>,
    pub(super) blas: Arc<CudaBlas>,
    compiled: Arc<Mutex<Compiled>>,
    trace: Arc<Trace>,
}

#[derive(Default)]
struct Compiled {
    modules: HashMap<Source, Arc<CudaModule>>,
    functions: HashMap<(Source, &'static str), Arc<CudaFunction>>,
}

/// Memory of the device, given back in the order of the stream when dropped.
pub struct Buffer<T> {
    slice: CudaSlice<T>,
    address: u64,
}

impl<T> Buffer<T> {
    /// Where it begins. Valid as long as the buffer.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.slice.len()
    }
}

/// Rows of bf16 numbers somewhere in a buffer, `stride` numbers apart. Does not keep the buffer.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    pub address: u64,
    pub stride: usize,
    buffer: PhantomData<&'a ()>,
}

impl<'a> Rows<'a> {
    #[must_use]
    pub fn new(buffer: &'a Buffer<u16>, stride: usize) -> Self {
        Self { address: buffer.address, stride, buffer: PhantomData }
    }

    /// Where memory begins that somebody else keeps.
    pub(super) fn at(address: u64, stride: usize) -> Self {
        Self { address, stride, buffer: PhantomData }
    }

    /// From this column on.
    #[must_use]
    pub fn column(self, column: usize) -> Self {
        self.offset(column)
    }

    /// From this row on.
    #[must_use]
    pub fn row(self, row: usize) -> Self {
        self.offset(row * self.stride)
    }

    fn offset(self, numbers: usize) -> Self {
        Self { address: self.address + 2 * numbers as u64, ..self }
    }
}

/// What a kernel is called with.
#[derive(Debug, Clone, Copy)]
pub enum Argument {
    Address(u64),
    Int(i32),
    Float(f32),
}

impl From<u64> for Argument {
    fn from(address: u64) -> Self {
        Self::Address(address)
    }
}

impl From<Rows<'_>> for Argument {
    fn from(rows: Rows<'_>) -> Self {
        Self::Address(rows.address)
    }
}

impl<T> From<&Buffer<T>> for Argument {
    fn from(buffer: &Buffer<T>) -> Self {
        Self::Address(buffer.address)
    }
}

impl From<usize> for Argument {
    /// Counts of rows, columns and heads, which a model's shape keeps far below what an int holds.
    fn from(count: usize) -> Self {
        Self::Int(i32::try_from(count).unwrap_or(i32::MAX))
    }
}

impl From<u32> for Argument {
    fn from(bits: u32) -> Self {
        Self::Int(bits.cast_signed())
    }
}

impl From<f32> for Argument {
    fn from(number: f32) -> Self {
        Self::Float(number)
    }
}

impl Argument {
    fn pointer(&self) -> *mut c_void {
        match self {
            Self::Address(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Int(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Float(value) => std::ptr::from_ref(value).cast_mut().cast(),
        }
    }
}

/// How a kernel is launched.
#[derive(Debug, Clone, Copy)]
pub struct Launch {
    pub source: Source,
    pub name: &'static str,
    pub grid: (usize, usize),
    pub threads: u32,
    /// Dynamic shared memory; the same in every launch of one kernel.
    pub shared_bytes: usize,
}

impl Gpu {
    /// Works on this stream.
    pub fn new(stream: Arc<CudaStream>, blas: Arc<CudaBlas>) -> Self {
        Self { stream, blas, compiled: Arc::default(), trace: Arc::default() }
    }

    /// Times what is launched from here on.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn start_trace(&self) -> Result<()> {
        self.trace.start(&self.stream)
    }

    /// Milliseconds of each kind of work since then, by the GPU's own clock.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn finish_trace(&self) -> Result<BTreeMap<&'static str, f32>> {
        self.trace.finish()
    }

    /// In whose order all is done.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Ends a stretch of work, for measurements.
    pub(super) fn mark(&self, name: &'static str) -> Result<()> {
        self.trace.mark(&self.stream, name)
    }

    /// Memory with anything in it.
    pub fn uninitialised<T: DeviceRepr>(&self, length: usize) -> Result<Buffer<T>> {
        // SAFETY: every number is written by a kernel before one reads it; the types are plain numbers.
        let slice = unsafe { self.stream.alloc::<T>(length.max(1)) };
        self.buffer(slice)
    }

    pub fn zeros<T: DeviceRepr + ValidAsZeroBits>(&self, length: usize) -> Result<Buffer<T>> {
        self.buffer(self.stream.alloc_zeros(length.max(1)))
    }

    pub fn upload<T: DeviceRepr>(&self, from: &[T]) -> Result<Buffer<T>> {
        self.buffer(self.stream.clone_htod(from))
    }

    /// Waits for all that was launched before.
    pub fn download<T: DeviceRepr>(&self, from: &Buffer<T>) -> Result<Vec<T>> {
        doing("copy results", self.stream.clone_dtoh(&from.slice))
    }

    pub fn clear<T: DeviceRepr + ValidAsZeroBits>(&self, buffer: &mut Buffer<T>) -> Result<()> {
        doing("clear memory", self.stream.memset_zeros(&mut buffer.slice))
    }

    /// Bytes of the device's memory that nobody uses, and all.
    pub fn memory(&self) -> Result<(usize, usize)> {
        doing("say how much memory is free", self.stream.context().mem_get_info())
    }

    /// Bytes that can be had: what nobody uses, and what was given back and kept for later.
    pub fn available(&self) -> Result<usize> {
        let read = |attribute| doing("say how much memory is kept for later", pool::read(self.stream.context(), attribute));
        let (reserved, used) = (read(pool::RESERVED)?, read(pool::USED)?);
        Ok(self.memory()?.0 + usize::try_from(reserved.saturating_sub(used)).unwrap_or(0))
    }

    /// Major and minor version of what the device can do.
    pub fn capability(&self) -> Result<(i32, i32)> {
        let context = self.stream.context();
        let major = context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
        let minor = context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
        Ok((doing("say what it is", major)?, doing("say what it is", minor)?))
    }

    fn buffer<T>(&self, slice: std::result::Result<CudaSlice<T>, cudarc::driver::DriverError>) -> Result<Buffer<T>> {
        let slice = doing("find memory", slice)?;
        let address = slice.device_ptr(&self.stream).0;
        Ok(Buffer { slice, address })
    }

    /// Launches a kernel.
    ///
    /// # Errors
    /// When it cannot be compiled or launched. What goes wrong while it runs is told by whoever waits for it.
    pub(super) fn launch(&self, launch: Launch, arguments: &[Argument]) -> Result<()> {
        let (x, y) = launch.grid;
        if x == 0 || y == 0 {
            return Ok(());
        }
        let function = self.function(launch)?;
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(Argument::pointer).collect();
        let size = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        // SAFETY: the callers, all in this folder, pass what the kernel's signature asks for, and buffers that are large enough.
        let launched = unsafe {
            result::launch_kernel(
                function.cu_function(),
                (size(x), size(y), 1),
                (launch.threads, 1, 1),
                size(launch.shared_bytes),
                self.stream.cu_stream(),
                &mut pointers,
            )
        };
        doing("launch a kernel", launched)
    }

    fn function(&self, launch: Launch) -> Result<Arc<CudaFunction>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = compiled.functions.get(&(launch.source, launch.name)) {
            return Ok(Arc::clone(function));
        }
        let module = match compiled.modules.get(&launch.source) {
            Some(module) => Arc::clone(module),
            None => self.compile(launch.source)?,
        };
        compiled.modules.insert(launch.source, Arc::clone(&module));
        let function = doing("find a kernel", module.load_function(launch.name))?;
        if launch.shared_bytes > 48 * 1024 {
            let limit = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(launch.shared_bytes).unwrap_or(i32::MAX);
            doing("give a kernel shared memory", function.set_attribute(limit, bytes))?;
        }
        let function = Arc::new(function);
        compiled.functions.insert((launch.source, launch.name), Arc::clone(&function));
        Ok(function)
    }

    fn compile(&self, source: Source) -> Result<Arc<CudaModule>> {
        doing("load kernels", self.stream.context().load_module(source.compile(self.capability()?)?))
    }
}
