//! An importance matrix, as far as a conversion needs it.

use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::tensors::Tensor;
use crate::gguf::choose::ImatrixInfo;
use crate::gguf::imatrix::Imatrix;

#[derive(Debug)]
pub(super) struct Importance {
    path: PathBuf,
    matrix: Imatrix,
}

impl Importance {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let matrix =
            Imatrix::read_file(path).map_err(|error| Error::Malformed { file: path.display().to_string(), what: error.to_string() })?;
        Ok(Self { path: path.to_owned(), matrix })
    }

    /// What the metadata of the result say about it. Where the file lies is nobody's business.
    pub(super) fn info(&self) -> ImatrixInfo {
        self.matrix.info(&self.path.file_name().unwrap_or_default().to_string_lossy())
    }

    /// How much each column of a tensor counts, if that is known.
    pub(super) fn of(&self, tensor: &Tensor) -> Result<Option<&[f32]>> {
        let wrong = |what: String| Error::Malformed { file: self.path.display().to_string(), what };
        let values = self.matrix.for_tensor(&tensor.name, &tensor.dimensions).map_err(|error| wrong(error.to_string()))?;
        match values {
            Some(values) if values.len() as u64 != tensor.row() => {
                Err(wrong(format!("{} has experts, for which it cannot be used", tensor.name)))
            }
            values => Ok(values),
        }
    }
}
