//! Matrices that stay as a file has them, and are unpacked to bf16 when a product needs them: twice a layer and pass, which takes 22 of
//! 400 ms for 4,096 tokens of an 8B model in Q4_K on an H200.

use super::error::Result;
use super::gpu::{Argument, Buffer, Gpu, Launch, Rows};
use super::kernels::{Ids, take_rows};
use super::source::Source;

/// How numbers are packed. Names are ggml's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// bf16, as they are.
    Brain,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Packing {
    fn kernel(self) -> &'static str {
        match self {
            Self::Brain => "unpack_brain",
            Self::Q4_0 => "unpack_q4_0",
            Self::Q4_1 => "unpack_q4_1",
            Self::Q5_0 => "unpack_q5_0",
            Self::Q5_1 => "unpack_q5_1",
            Self::Q8_0 => "unpack_q8_0",
            Self::Q4K => "unpack_q4_k",
            Self::Q5K => "unpack_q5_k",
            Self::Q6K => "unpack_q6_k",
        }
    }
}

/// A packed matrix.
pub struct Packed {
    bytes: Buffer<u8>,
    packing: Packing,
    pub rows: usize,
    columns: usize,
}

impl Packed {
    /// # Errors
    /// When there is no memory.
    pub fn new(gpu: &Gpu, packing: Packing, bytes: &[u8], rows: usize, columns: usize) -> Result<Self> {
        Ok(Self { bytes: gpu.upload(bytes)?, packing, rows, columns })
    }

    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// All rows.
    pub fn unpack(&self, gpu: &Gpu, to: Rows<'_>) -> Result<()> {
        self.launch(gpu, None, self.rows, to, 1.0)
    }

    /// to[i] = row ids[i] · scale.
    fn take(&self, gpu: &Gpu, ids: Ids<'_>, to: Rows<'_>, scale: f32) -> Result<()> {
        self.launch(gpu, Some(ids.address()), ids.count, to, scale)
    }

    fn launch(&self, gpu: &Gpu, ids: Option<u64>, rows: usize, to: Rows<'_>, scale: f32) -> Result<()> {
        let sizes = [rows, self.columns, to.stride, self.rows].map(Argument::from);
        let buffers = [(&self.bytes).into(), ids.unwrap_or(0).into(), to.into()];
        let grid = ((rows * self.columns / 8).div_ceil(256), 1);
        let launch = Launch { source: Source::Packed, name: self.packing.kernel(), grid, threads: 256, shared_bytes: 0 };
        gpu.launch(launch, &[&buffers[..], &sizes, &[scale.into()]].concat())
    }
}

/// A matrix of a row for each token of the vocabulary.
pub enum Vocabulary {
    Plain(Buffer<u16>),
    Packed(Packed),
}

impl Vocabulary {
    /// out[i] = row ids[i] · scale.
    pub(super) fn take(&self, gpu: &Gpu, (rows, columns): (usize, usize), ids: Ids<'_>, out: &Buffer<u16>, scale: f32) -> Result<()> {
        match self {
            Self::Plain(all) => take_rows(gpu, Rows::new(all, columns), rows, ids, out, columns, scale),
            Self::Packed(packed) => packed.take(gpu, ids, Rows::new(out, columns), scale),
        }
    }

    /// All rows, in `shared` if they do not lie so.
    pub(super) fn whole<'a>(&'a self, gpu: &Gpu, columns: usize, shared: &'a Buffer<u16>) -> Result<Rows<'a>> {
        match self {
            Self::Plain(all) => Ok(Rows::new(all, columns)),
            Self::Packed(packed) => {
                let rows = Rows::new(shared, columns);
                packed.unpack(gpu, rows)?;
                Ok(rows)
            }
        }
    }

    /// Bytes in the device's memory, but for what is shared.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Plain(all) => 2 * all.len(),
            Self::Packed(packed) => packed.size_bytes(),
        }
    }

    /// Numbers of shared memory that [`Vocabulary::whole`] takes.
    #[must_use]
    pub fn shared(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Packed(packed) => packed.rows * packed.columns,
        }
    }
}
