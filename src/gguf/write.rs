//! From a header's parts to its bytes. The opposite of `read`.

use super::{Metadata, Strings, TensorInfo, Value};

const VERSION: u32 = 3;

/// The bytes of a header up to where the tensors begin. The offsets of `tensors` count from `data_offset`.
pub(super) fn header(metadata: &Metadata, tensors: &[TensorInfo]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(VERSION.to_le_bytes());
    count(&mut out, tensors.len());
    count(&mut out, metadata.len());
    for (key, value) in metadata.iter() {
        string(&mut out, key.as_bytes());
        self::value(&mut out, value);
    }
    for tensor in tensors {
        info(&mut out, tensor);
    }
    out
}

fn count(out: &mut Vec<u8>, count: usize) {
    out.extend((count as u64).to_le_bytes());
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    count(out, text.len());
    out.extend_from_slice(text);
}

fn info(out: &mut Vec<u8>, tensor: &TensorInfo) {
    string(out, tensor.name.as_bytes());
    let [dimensions, ..] = tensor.dimensions.len().to_le_bytes();
    out.extend(u32::from(dimensions).to_le_bytes());
    out.extend(tensor.dimensions.iter().flat_map(|n| n.to_le_bytes()));
    out.extend(tensor.kind.code().to_le_bytes());
    out.extend(tensor.offset.to_le_bytes());
}

/// The code of a value's type, or of the elements' type of an array.
fn code(value: &Value) -> u32 {
    match value {
        Value::U8(_) | Value::U8s(_) => 0,
        Value::I8(_) | Value::I8s(_) => 1,
        Value::U16(_) | Value::U16s(_) => 2,
        Value::I16(_) | Value::I16s(_) => 3,
        Value::U32(_) | Value::U32s(_) => 4,
        Value::I32(_) | Value::I32s(_) => 5,
        Value::F32(_) | Value::F32s(_) => 6,
        Value::Bool(_) | Value::Bools(_) => 7,
        Value::String(_) | Value::Strings(_) => 8,
        Value::U64(_) | Value::U64s(_) => 10,
        Value::I64(_) | Value::I64s(_) => 11,
        Value::F64(_) | Value::F64s(_) => 12,
    }
}

fn value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(n) => scalar(out, value, n.to_le_bytes()),
        Value::I8(n) => scalar(out, value, n.to_le_bytes()),
        Value::U16(n) => scalar(out, value, n.to_le_bytes()),
        Value::I16(n) => scalar(out, value, n.to_le_bytes()),
        Value::U32(n) => scalar(out, value, n.to_le_bytes()),
        Value::I32(n) => scalar(out, value, n.to_le_bytes()),
        Value::U64(n) => scalar(out, value, n.to_le_bytes()),
        Value::I64(n) => scalar(out, value, n.to_le_bytes()),
        Value::F32(n) => scalar(out, value, n.to_le_bytes()),
        Value::F64(n) => scalar(out, value, n.to_le_bytes()),
        Value::Bool(on) => scalar(out, value, [u8::from(*on)]),
        Value::String(text) => {
            out.extend(code(value).to_le_bytes());
            string(out, text.as_bytes());
        }
        array => self::array(out, array),
    }
}

fn scalar<const N: usize>(out: &mut Vec<u8>, value: &Value, bytes: [u8; N]) {
    out.extend(code(value).to_le_bytes());
    out.extend(bytes);
}

fn array(out: &mut Vec<u8>, value: &Value) {
    /// What says in place of a type that a value is an array.
    const ARRAY: u32 = 9;
    out.extend(ARRAY.to_le_bytes());
    out.extend(code(value).to_le_bytes());
    match value {
        Value::U8s(n) => numbers(out, n, u8::to_le_bytes),
        Value::I8s(n) => numbers(out, n, i8::to_le_bytes),
        Value::U16s(n) => numbers(out, n, u16::to_le_bytes),
        Value::I16s(n) => numbers(out, n, i16::to_le_bytes),
        Value::U32s(n) => numbers(out, n, u32::to_le_bytes),
        Value::I32s(n) => numbers(out, n, i32::to_le_bytes),
        Value::U64s(n) => numbers(out, n, u64::to_le_bytes),
        Value::I64s(n) => numbers(out, n, i64::to_le_bytes),
        Value::F32s(n) => numbers(out, n, f32::to_le_bytes),
        Value::F64s(n) => numbers(out, n, f64::to_le_bytes),
        Value::Bools(switches) => numbers(out, switches, |on| [u8::from(on)]),
        Value::Strings(all) => strings(out, all),
        // Single values are written by `value`.
        _ => {}
    }
}

fn numbers<T: Copy, const N: usize>(out: &mut Vec<u8>, numbers: &[T], bytes: fn(T) -> [u8; N]) {
    count(out, numbers.len());
    out.extend(numbers.iter().flat_map(|n| bytes(*n)));
}

fn strings(out: &mut Vec<u8>, all: &Strings) {
    count(out, all.len());
    for text in all.iter() {
        string(out, text);
    }
}
