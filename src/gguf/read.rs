//! From bytes to a [`Header`].

use std::collections::HashSet;
use std::io::{Read, Seek};

use super::cursor::Cursor;
use super::{DEFAULT_ALIGNMENT, Error, Header, MAX_DIMENSIONS, Metadata, Strings, TensorInfo, TensorKind, Value};

/// The format's own bound on a key.
pub(super) const MAX_KEY_BYTES: u64 = 65_535;
/// llama.cpp stores names in 64 bytes, the last of which is a zero.
pub(super) const MAX_NAME_BYTES: u64 = 63;
/// Far above any model's.
const MAX_PAIRS: u64 = 65_536;
const MAX_TENSORS: u64 = 1 << 20;
const MAX_STRING_BYTES: u64 = 64 << 20;

/// Fewest bytes that a pair (empty key, type, one byte) and a tensor (empty name, no dimensions, type, offset) can take.
const LEAST_PAIR_BYTES: u64 = 8 + 4 + 1;
const LEAST_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;

pub(super) fn header<R: Read + Seek>(reader: R) -> Result<Header, Error> {
    let mut cursor = Cursor::new(reader)?;
    let version = preamble(&mut cursor)?;
    let tensor_count = count(&mut cursor, MAX_TENSORS, LEAST_TENSOR_BYTES, "the list of tensors")?;
    let pair_count = count(&mut cursor, MAX_PAIRS, LEAST_PAIR_BYTES, "the metadata")?;
    let metadata = metadata(&mut cursor, pair_count)?;
    let alignment = alignment(&metadata, &cursor)?;
    let mut tensors = tensors(&mut cursor, tensor_count)?;
    let data_offset = cursor.at().next_multiple_of(alignment);
    for tensor in &mut tensors {
        place(tensor, data_offset, alignment, &cursor)?;
    }
    Ok(Header { version, alignment, metadata, tensors, data_offset, file_size_bytes: cursor.file_size_bytes() })
}

fn preamble<R: Read>(cursor: &mut Cursor<R>) -> Result<u32, Error> {
    let magic: [u8; 4] = cursor.bytes("the magic number")?;
    if magic != *b"GGUF" {
        return Err(Error::NotGguf { found: magic.escape_ascii().to_string() });
    }
    match cursor.u32("the version")? {
        version @ 2..=3 => Ok(version),
        version if (1..=3).contains(&version.swap_bytes()) => Err(Error::BigEndian),
        version => Err(Error::Version { version }),
    }
}

fn count<R: Read>(cursor: &mut Cursor<R>, most: u64, least_bytes: u64, what: &'static str) -> Result<u64, Error> {
    let at = cursor.at();
    let count = cursor.u64(what)?;
    if count > most {
        return Err(Error::Malformed { at, what: format!("{what} would have {count} entries, more than {most}") });
    }
    cursor.expect(count, least_bytes, what)?;
    Ok(count)
}

fn metadata<R: Read>(cursor: &mut Cursor<R>, count: u64) -> Result<Metadata, Error> {
    let mut metadata = Metadata::default();
    let mut seen = HashSet::new();
    for _ in 0..count {
        let at = cursor.at();
        let key = cursor.string("a key", MAX_KEY_BYTES)?;
        if !seen.insert(key.clone()) {
            return Err(Error::Malformed { at, what: format!("the key `{}` appears twice", shown(&key)) });
        }
        let code = cursor.u32("the type of a value")?;
        let value = value(cursor, code)?;
        metadata.push(key, value);
    }
    Ok(metadata)
}

/// Names in messages come from the file: short and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

fn value<R: Read>(cursor: &mut Cursor<R>, code: u32) -> Result<Value, Error> {
    const WHAT: &str = "a value";
    Ok(match code {
        0 => Value::U8(u8::from_le_bytes(cursor.bytes(WHAT)?)),
        1 => Value::I8(i8::from_le_bytes(cursor.bytes(WHAT)?)),
        2 => Value::U16(u16::from_le_bytes(cursor.bytes(WHAT)?)),
        3 => Value::I16(i16::from_le_bytes(cursor.bytes(WHAT)?)),
        4 => Value::U32(cursor.u32(WHAT)?),
        5 => Value::I32(i32::from_le_bytes(cursor.bytes(WHAT)?)),
        6 => Value::F32(f32::from_le_bytes(cursor.bytes(WHAT)?)),
        7 => Value::Bool(u8::from_le_bytes(cursor.bytes(WHAT)?) != 0),
        8 => Value::String(cursor.string("a string", MAX_STRING_BYTES)?),
        9 => array(cursor)?,
        10 => Value::U64(cursor.u64(WHAT)?),
        11 => Value::I64(i64::from_le_bytes(cursor.bytes(WHAT)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.bytes(WHAT)?)),
        _ => return Err(cursor.malformed(format!("{code} is no type of a value"))),
    })
}

fn array<R: Read>(cursor: &mut Cursor<R>) -> Result<Value, Error> {
    const WHAT: &str = "an array";
    let code = cursor.u32(WHAT)?;
    let count = cursor.u64(WHAT)?;
    Ok(match code {
        0 => Value::U8s(cursor.numbers(count, WHAT, u8::from_le_bytes)?),
        1 => Value::I8s(cursor.numbers(count, WHAT, i8::from_le_bytes)?),
        2 => Value::U16s(cursor.numbers(count, WHAT, u16::from_le_bytes)?),
        3 => Value::I16s(cursor.numbers(count, WHAT, i16::from_le_bytes)?),
        4 => Value::U32s(cursor.numbers(count, WHAT, u32::from_le_bytes)?),
        5 => Value::I32s(cursor.numbers(count, WHAT, i32::from_le_bytes)?),
        6 => Value::F32s(cursor.numbers(count, WHAT, f32::from_le_bytes)?),
        7 => Value::Bools(cursor.numbers(count, WHAT, |[byte]: [u8; 1]| byte != 0)?),
        8 => Value::Strings(strings(cursor, count)?),
        9 => return Err(cursor.malformed("arrays of arrays are not supported")),
        10 => Value::U64s(cursor.numbers(count, WHAT, u64::from_le_bytes)?),
        11 => Value::I64s(cursor.numbers(count, WHAT, i64::from_le_bytes)?),
        12 => Value::F64s(cursor.numbers(count, WHAT, f64::from_le_bytes)?),
        _ => return Err(cursor.malformed(format!("{code} is no type of an array's values"))),
    })
}

fn strings<R: Read>(cursor: &mut Cursor<R>, count: u64) -> Result<Strings, Error> {
    let count = cursor.expect(count, 8, "an array of strings")?;
    let mut strings = Strings::with_capacity(count);
    for _ in 0..count {
        strings.push_with(|text| cursor.append_string(text, "a string", MAX_STRING_BYTES))?;
    }
    Ok(strings)
}

fn alignment<R: Read>(metadata: &Metadata, cursor: &Cursor<R>) -> Result<u64, Error> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    let alignment = value.as_integer().and_then(|n| u32::try_from(n).ok());
    match alignment {
        Some(alignment) if alignment.is_power_of_two() => Ok(alignment.into()),
        _ => Err(cursor.malformed("`general.alignment` is not a power of two")),
    }
}

fn tensors<R: Read>(cursor: &mut Cursor<R>, count: u64) -> Result<Vec<TensorInfo>, Error> {
    let mut tensors = Vec::new();
    let mut seen = HashSet::new();
    for _ in 0..count {
        let at = cursor.at();
        let tensor = tensor(cursor)?;
        if !seen.insert(tensor.name.clone()) {
            return Err(Error::Malformed { at, what: format!("the tensor `{}` appears twice", shown(&tensor.name)) });
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

/// One entry of the list; its offset still counts from the start of the data.
fn tensor<R: Read>(cursor: &mut Cursor<R>) -> Result<TensorInfo, Error> {
    let name = cursor.string("the name of a tensor", MAX_NAME_BYTES)?;
    let wrong = |at: u64, what: String| Error::Malformed { at, what: format!("tensor `{}`: {what}", shown(&name)) };
    let at = cursor.at();
    let rank = cursor.u32("a tensor's number of dimensions")?;
    if rank > MAX_DIMENSIONS {
        return Err(wrong(at, format!("{rank} dimensions, more than {MAX_DIMENSIONS}")));
    }
    let dimensions = cursor.numbers(rank.into(), "a tensor's dimensions", u64::from_le_bytes)?;
    let elements = dimensions.iter().try_fold(1_u64, |product, &n| product.checked_mul(n));
    if elements.is_none_or(|n| n == 0 || i64::try_from(n).is_err()) {
        return Err(wrong(at, format!("the dimensions {dimensions:?} are impossible")));
    }
    let at = cursor.at();
    let code = cursor.u32("a tensor's type")?;
    let kind = TensorKind::from_code(code).ok_or_else(|| wrong(at, format!("type {code} is not known")))?;
    let size_bytes = kind
        .size_bytes(&dimensions)
        .ok_or_else(|| wrong(at, format!("rows of {:?} numbers cannot be stored as {kind}", dimensions.first())))?;
    let offset = cursor.u64("a tensor's offset")?;
    Ok(TensorInfo { name, dimensions, kind, offset, size_bytes })
}

/// Makes the offset count from the start of the file and checks that the tensor is there.
fn place<R: Read>(tensor: &mut TensorInfo, data_offset: u64, alignment: u64, cursor: &Cursor<R>) -> Result<(), Error> {
    let wrong = |what: String| cursor.malformed(format!("tensor `{}`: {what}", shown(&tensor.name)));
    if !tensor.offset.is_multiple_of(alignment) {
        return Err(wrong(format!("its offset {} is no multiple of {alignment}", tensor.offset)));
    }
    let start = data_offset.checked_add(tensor.offset);
    let end = start.and_then(|start| start.checked_add(tensor.size_bytes));
    let (Some(start), Some(end)) = (start, end) else {
        return Err(wrong(format!("its offset {} is impossible", tensor.offset)));
    };
    let file_size_bytes = cursor.file_size_bytes();
    if end > file_size_bytes {
        return Err(Error::Incomplete { tensor: shown(&tensor.name), end, file_size_bytes });
    }
    tensor.offset = start;
    Ok(())
}
