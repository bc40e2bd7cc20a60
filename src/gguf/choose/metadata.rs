//! What llama-quantize makes of the metadata of its input.

use super::super::{Strings, Value};
use super::{FileType, Metadata};

/// What the metadata say of the importance matrix that a file was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImatrixInfo {
    /// The matrix's file, as it was named.
    pub file: String,
    /// The text it was measured on, if that is known.
    pub dataset: Option<String>,
    /// Tensors that it has values for.
    pub entries: u32,
    /// Pieces of text that it was measured on; zero is not written.
    pub chunks: u32,
}

/// The version of the formats, which ggml has not changed since 2023.
const QUANTIZATION_VERSION: u32 = 2;

/// The metadata of a file of `file_type` made from one with the metadata `input`.
#[must_use]
pub fn quantized_metadata(input: &Metadata, file_type: FileType, imatrix: Option<&ImatrixInfo>) -> Metadata {
    let mut out = with_file_type(input, file_type.code());
    if let Some(imatrix) = imatrix {
        put_last(&mut out, "quantize.imatrix.file", Value::String(short(&imatrix.file)));
        if let Some(dataset) = &imatrix.dataset {
            put_last(&mut out, "quantize.imatrix.dataset", Value::String(short(dataset)));
        }
        put_last(&mut out, "quantize.imatrix.entries_count", Value::U32(imatrix.entries));
        if imatrix.chunks > 0 {
            put_last(&mut out, "quantize.imatrix.chunks_count", Value::U32(imatrix.chunks));
        }
    }
    out
}

/// The metadata of a file that keeps the formats of its input and takes on llama-quantize's layout (its `COPY`). `None`: the input
/// does not say of which type it is, and llama-quantize would guess.
#[must_use]
pub fn copied_metadata(input: &Metadata) -> Option<Metadata> {
    Some(with_file_type(input, input.u32("general.file_type")?))
}

fn with_file_type(input: &Metadata, code: u32) -> Metadata {
    let mut out = Metadata::default();
    for (key, value) in input.iter().filter(|(key, _)| !is_about_splitting(key)) {
        out.push(key, cut(value));
    }
    put_last(&mut out, "general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    put_last(&mut out, "general.file_type", Value::U32(code));
    out
}

fn is_about_splitting(key: &str) -> bool {
    matches!(key, "split.no" | "split.count" | "split.tensors.count")
}

/// llama-quantize takes a key out and puts it behind all others.
fn put_last(metadata: &mut Metadata, key: &str, value: Value) {
    metadata.remove(key);
    metadata.push(key, value);
}

/// Strings pass through C in llama-quantize and end at their first zero byte.
fn cut(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.split('\0').next().unwrap_or_default().to_owned()),
        Value::Strings(all) if all.iter().any(|text| text.contains(&0)) => Value::Strings(all.iter().map(until_zero).collect::<Strings>()),
        other => other.clone(),
    }
}

fn until_zero(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// What fits in the 127 bytes that llama-quantize has for such a text.
fn short(text: &str) -> String {
    let mut end = text.len().min(127);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
