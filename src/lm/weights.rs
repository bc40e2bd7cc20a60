//! Where the weights of a decoder lie in its file.
//!
//! The file is mapped, not read: weights are used where they are, the system shares and reclaims their pages. It must not change
//! while a model is loaded (a file that is cut short under us ends the process, as with every program that maps its models).

#![expect(unsafe_code, reason = "mapping a file; see `Source::open`")]

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

use crate::gguf::{Header, TensorKind};

use super::cpu::kernels;
use super::error::{Error, Result};

/// What a matrix may be stored as, for messages.
const SUPPORTED: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";

/// A mapped model file.
#[derive(Debug, Clone)]
pub struct Source {
    map: Arc<Mmap>,
}

/// A matrix or vector of a file: `rows` rows of `columns` numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    pub kind: TensorKind,
    pub rows: usize,
    pub columns: usize,
    /// From the start of the file.
    pub offset: usize,
    pub row_bytes: usize,
}

impl Source {
    /// Maps the file whose header this is, and has its pages read.
    pub fn open(path: &Path, header: &Header) -> Result<Self> {
        Self::map(path, header, MmapOptions::new().populate())
    }

    /// As [`Source::open`], reading nothing before it is used.
    pub fn open_unread(path: &Path, header: &Header) -> Result<Self> {
        Self::map(path, header, &MmapOptions::new())
    }

    fn map(path: &Path, header: &Header, options: &MmapOptions) -> Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() != header.file_size_bytes {
            return Err(Error::Header { key: "the file".to_owned(), why: "has another size than when its header was read".to_owned() });
        }
        // SAFETY: the map is read-only, and the bytes are read as numbers, for which every pattern is valid. That nobody cuts the
        // file short is asked of who runs the program (see the head of this module).
        let map = unsafe { options.map(&file)? };
        Ok(Self { map: Arc::new(map) })
    }

    /// The bytes of `rows` of a tensor.
    ///
    /// # Panics
    /// When they are not within the file; [`find`] has checked it.
    pub fn bytes(&self, tensor: &Tensor, rows: Range<usize>) -> &[u8] {
        &self.map[tensor.offset + rows.start * tensor.row_bytes..tensor.offset + rows.end * tensor.row_bytes]
    }
}

/// The tensor of this name and these dimensions (fastest-varying first). `None`: the file has none of the name.
pub fn find(header: &Header, name: &str, dimensions: &[usize]) -> Result<Option<Tensor>> {
    let Some(info) = header.tensor(name) else { return Ok(None) };
    let expected: Vec<u64> = dimensions.iter().map(|&n| n as u64).collect();
    if info.dimensions != expected {
        return Err(Error::Shape { name: name.to_owned(), found: info.dimensions.clone(), expected });
    }
    // Norms and biases are used as numbers; a matrix may be packed.
    if !kernels::is_supported(info.kind) || (dimensions.len() == 1 && !kernels::is_dense(info.kind)) {
        return Err(Error::TensorKind { name: name.to_owned(), kind: info.kind.name(), supported: SUPPORTED });
    }
    let too_large = || Error::Header { key: name.to_owned(), why: "is too large for this machine".to_owned() };
    let row_bytes = info.kind.size_bytes(&info.dimensions[..1]).and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(too_large)?;
    let offset = usize::try_from(info.offset).map_err(|_| too_large())?;
    let rows = dimensions.get(1).copied().unwrap_or(1);
    Ok(Some(Tensor { kind: info.kind, rows, columns: dimensions[0], offset, row_bytes }))
}

/// As [`find`], for a tensor that has to be there.
pub fn need(header: &Header, name: &str, dimensions: &[usize]) -> Result<Tensor> {
    find(header, name, dimensions)?.ok_or_else(|| Error::MissingTensor { name: name.to_owned() })
}
