//! The format that is a GGUF file: sums of squares and counts as tensors.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use super::super::{Error as GgufError, Header, Metadata, Strings, TensorInfo, TensorKind};
use super::{Error, Imatrix, broken};

/// The tensors of one entry.
#[derive(Default)]
struct Parts<'a> {
    sums: Option<&'a TensorInfo>,
    squares: Option<&'a TensorInfo>,
    counts: Option<&'a TensorInfo>,
}

pub(super) fn read<R: Read + Seek>(mut reader: R) -> Result<Imatrix, Error> {
    let header = Header::read(&mut reader)?;
    let mut imatrix = about(&header.metadata)?;
    for (name, parts) in parts(&header.tensors) {
        let values = values(&mut reader, name, &parts)?;
        imatrix.insert(name.to_owned(), values)?;
    }
    Ok(imatrix)
}

fn about(metadata: &Metadata) -> Result<Imatrix, Error> {
    for key in ["imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"] {
        metadata.get(key).ok_or(Error::NoMetadata { key })?;
    }
    let datasets = metadata.strings("imatrix.datasets").into_iter().flat_map(Strings::iter);
    Ok(Imatrix {
        datasets: datasets.map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
        chunks: metadata.u32("imatrix.chunk_count").unwrap_or(0),
        ..Imatrix::default()
    })
}

fn parts(tensors: &[TensorInfo]) -> BTreeMap<&str, Parts<'_>> {
    let mut parts: BTreeMap<&str, Parts<'_>> = BTreeMap::new();
    for tensor in tensors {
        if let Some(name) = tensor.name.strip_suffix(".in_sum") {
            parts.entry(name).or_default().sums = Some(tensor);
        } else if let Some(name) = tensor.name.strip_suffix(".in_sum2") {
            parts.entry(name).or_default().squares = Some(tensor);
        } else if let Some(name) = tensor.name.strip_suffix(".counts") {
            parts.entry(name).or_default().counts = Some(tensor);
        }
    }
    parts
}

fn values<R: Read + Seek>(reader: &mut R, name: &str, parts: &Parts<'_>) -> Result<Vec<f32>, Error> {
    let (Some(squares), Some(counts)) = (parts.squares, parts.counts) else {
        return Err(broken(name, "its sums or its counts are missing"));
    };
    if parts.sums.is_some_and(|sums| sums.elements() != squares.elements()) {
        return Err(broken(name, "it has not as many sums as sums of squares"));
    }
    let mut values = numbers(reader, name, squares)?;
    let counts = numbers(reader, name, counts)?;
    if counts.is_empty() || values.is_empty() || !values.len().is_multiple_of(counts.len()) {
        return Err(broken(name, format!("{} values are not the same number for each of {} counts", values.len(), counts.len())));
    }
    let columns = values.len() / counts.len();
    for (values, count) in values.chunks_exact_mut(columns).zip(counts) {
        divide(values, count.round());
    }
    Ok(values)
}

/// Where nothing was measured, as for an expert that was never asked, all columns matter alike.
fn divide(values: &mut [f32], count: f32) {
    if count > 0.0 {
        for value in values {
            *value /= count;
        }
    } else {
        values.fill(1.0);
    }
}

/// The numbers of a tensor, which lies within the file, as the header has been checked.
fn numbers<R: Read + Seek>(reader: &mut R, name: &str, tensor: &TensorInfo) -> Result<Vec<f32>, Error> {
    if tensor.kind != TensorKind::F32 {
        return Err(broken(name, format!("its numbers are {} instead of F32", tensor.kind)));
    }
    let io = |source| GgufError::Io { at: tensor.offset, source };
    let size = usize::try_from(tensor.size_bytes).map_err(|_| broken(name, "it is too large for this machine"))?;
    let mut bytes = vec![0; size];
    reader.seek(SeekFrom::Start(tensor.offset)).map_err(io)?;
    reader.read_exact(&mut bytes).map_err(io)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
