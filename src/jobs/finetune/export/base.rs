//! The GGUF file that was trained on: its tensors, read in rows as they are or as numbers.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use crate::gguf::quants::decode;
use crate::gguf::{Header, TensorInfo, TensorKind};
use crate::jobs::convert;
use crate::jobs::convert::config::Family;
use crate::jobs::convert::model::refuse_parts;
use crate::jobs::convert::rows::length;
use crate::jobs::convert::tensors::MAX_ROW;
use crate::jobs::positioned::read_exact_at;

/// Those that Hugging Face's names are known of, each once for its architecture.
const FAMILIES: &[Family] = &[Family::Llama, Family::Phi3, Family::Gemma, Family::Gemma2, Family::Gemma3, Family::Qwen2, Family::Qwen3];

#[derive(Debug)]
pub(super) struct Base {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    file: File,
}

/// Some rows of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) first: u64,
    pub(super) count: u64,
}

impl Base {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(convert::Error::io("open", path))?;
        let wrong = |source| convert::Error::Gguf { path: path.to_owned(), source };
        let header = Header::read(BufReader::with_capacity(256 << 10, &file)).map_err(wrong)?;
        refuse_parts(path, &header.metadata)?;
        if let Some(tensor) = header.tensors.iter().find(|tensor| row(tensor) > MAX_ROW) {
            return Err(Error::impossible(format!("tensor {} has rows of {} numbers, more than {MAX_ROW}", tensor.name, row(tensor))));
        }
        Ok(Self { path: path.to_owned(), header, file })
    }

    /// As `general.architecture` has it.
    pub(super) fn architecture(&self) -> &str {
        self.header.metadata.str("general.architecture").unwrap_or_default()
    }

    /// A count among the settings of the model.
    pub(super) fn count(&self, key: &str) -> Option<u64> {
        self.header.metadata.u64(&format!("{}.{key}", self.architecture())).filter(|count| *count > 0)
    }

    /// The line of models it belongs to; needed wherever Hugging Face's names are.
    pub(super) fn family(&self) -> Result<Family> {
        let architecture = self.architecture();
        FAMILIES.iter().copied().find(|family| family.architecture() == architecture).ok_or_else(|| {
            convert::Error::Unsupported {
                what: format!("a model of the architecture `{architecture:.40}`"),
                supported: FAMILIES.iter().map(|family| family.architecture()).collect::<Vec<_>>().join(", "),
            }
            .into()
        })
    }

    pub(super) fn layers(&self) -> Result<u64> {
        self.count("block_count").ok_or_else(|| Error::impossible(format!("{} does not say its block_count", self.path.display())))
    }

    /// Reads rows as they are stored.
    pub(super) fn read(&self, tensor: &TensorInfo, rows: Rows, bytes: &mut Vec<u8>) -> convert::error::Result<()> {
        let row_bytes = size_bytes(tensor, tensor.kind, 1)?;
        bytes.clear();
        bytes.resize(length(size_bytes(tensor, tensor.kind, rows.count)?)?, 0);
        read_exact_at(&self.file, bytes, tensor.offset + rows.first * row_bytes).map_err(convert::Error::io("read", &self.path))
    }

    /// Reads rows as numbers.
    pub(super) fn numbers(&self, tensor: &TensorInfo, rows: Rows, raw: &mut Vec<u8>, numbers: &mut Vec<f32>) -> convert::error::Result<()> {
        self.read(tensor, rows, raw)?;
        numbers.clear();
        numbers.resize(length(row(tensor) * rows.count)?, 0.0);
        decode(tensor.kind, raw, numbers).map_err(|error| cannot(tensor, error))
    }
}

/// Numbers of one row.
pub(super) fn row(tensor: &TensorInfo) -> u64 {
    tensor.dimensions.first().copied().unwrap_or(1)
}

pub(super) fn rows(tensor: &TensorInfo) -> u64 {
    tensor.dimensions.iter().skip(1).product()
}

/// What rows of a tensor take in a format.
pub(super) fn size_bytes(tensor: &TensorInfo, kind: TensorKind, rows: u64) -> convert::error::Result<u64> {
    kind.size_bytes(&[row(tensor), rows]).ok_or_else(|| cannot(tensor, format!("its rows are no whole blocks of {kind}")))
}

pub(super) fn cannot(tensor: &TensorInfo, why: impl std::fmt::Display) -> convert::Error {
    convert::Error::Impossible(format!("tensor {}: {why}", tensor.name))
}
