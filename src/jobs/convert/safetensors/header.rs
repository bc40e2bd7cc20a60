//! The header of one safetensors file: a length, then JSON from names to type, shape and place.
//!
//! Nothing of it is trusted: the length is checked against the file before the header is read, and after it every tensor lies
//! within the file, has the size that its shape says, and overlaps no other.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

/// The largest known headers, of models with thousands of experts, have a few megabytes.
const MAX_HEADER_BYTES: u64 = 32 << 20;
const MAX_TENSORS: usize = 1 << 18;
const MAX_NAME_BYTES: usize = 512;
const MAX_RANK: usize = 8;

/// How numbers are stored, of the kinds that models come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::jobs) enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    /// Anything else: fine to have, not to convert.
    Other {
        bytes: u64,
    },
}

impl Dtype {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "I64" | "U64" | "C64" => Self::Other { bytes: 8 },
            "I32" | "U32" => Self::Other { bytes: 4 },
            "I16" | "U16" => Self::Other { bytes: 2 },
            "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => Self::Other { bytes: 1 },
            _ => return None,
        })
    }

    pub(in crate::jobs) fn bytes(self) -> u64 {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Other { bytes } => bytes,
        }
    }
}

/// One tensor. The slowest-varying dimension comes first, as in PyTorch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::jobs) struct Entry {
    pub(in crate::jobs) name: String,
    pub(in crate::jobs) dtype: Dtype,
    pub(in crate::jobs) shape: Vec<u64>,
    /// From the start of the file.
    pub(in crate::jobs) start: u64,
    pub(in crate::jobs) size_bytes: u64,
}

/// Reads the header, sorted by name. The error says what is wrong.
pub(super) fn read(mut file: impl Read, file_size_bytes: u64) -> Result<Vec<Entry>, String> {
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|error| format!("cannot read the header's length: {error}"))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length > file_size_bytes.saturating_sub(8) {
        return Err(format!("the header would have {length} bytes, of {file_size_bytes} in the file and {MAX_HEADER_BYTES} allowed"));
    }
    let mut json = Vec::new();
    file.take(length).read_to_end(&mut json).map_err(|error| format!("cannot read the header: {error}"))?;
    if json.len() as u64 != length {
        return Err("the file ends within its header: it is incomplete".to_owned());
    }
    let Entries(mut entries) = serde_json::from_slice(&json).map_err(|error| format!("the header is broken: {error}"))?;
    place(&mut entries, 8 + length, file_size_bytes)?;
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Makes offsets count from the start of the file, and checks that tensors are there and apart.
fn place(entries: &mut [Entry], data_start: u64, file_size_bytes: u64) -> Result<(), String> {
    entries.sort_unstable_by_key(|entry| (entry.start, entry.size_bytes));
    let mut end = data_start;
    for entry in entries {
        entry.start = entry.start.checked_add(data_start).ok_or_else(|| format!("{}: an impossible offset", entry.name))?;
        if entry.start < end && entry.size_bytes > 0 {
            return Err(format!("{} overlaps another tensor", entry.name));
        }
        end = end.max(entry.start.checked_add(entry.size_bytes).ok_or_else(|| format!("{}: an impossible offset", entry.name))?);
        if end > file_size_bytes {
            return Err(format!("{} would end at byte {end} of {file_size_bytes}: the file is incomplete", entry.name));
        }
    }
    Ok(())
}

/// What the JSON says of one tensor.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    dtype: &'a str,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl Raw<'_> {
    fn entry(self, name: String) -> Result<Entry, String> {
        if self.shape.len() > MAX_RANK {
            return Err(format!("{name}: {} dimensions, more than {MAX_RANK}", self.shape.len()));
        }
        let dtype = Dtype::named(self.dtype).ok_or_else(|| format!("{name}: the type {:.32?} is not known", self.dtype))?;
        let [start, end] = self.data_offsets;
        let needed = self.shape.iter().try_fold(dtype.bytes(), |bytes, n| bytes.checked_mul(*n));
        match end.checked_sub(start) {
            Some(size_bytes) if Some(size_bytes) == needed => Ok(Entry { name, dtype, shape: self.shape, start, size_bytes }),
            _ => Err(format!("{name}: bytes {start} to {end} are no tensor of shape {:?}", self.shape)),
        }
    }
}

struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from names to tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom("a name appears twice"));
            }
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
                return Err(A::Error::custom("a name is empty, too long or not printable"));
            }
            if entries.len() >= MAX_TENSORS {
                return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            entries.push(map.next_value::<Raw>()?.entry(name).map_err(A::Error::custom)?);
        }
        Ok(Entries(entries))
    }
}
