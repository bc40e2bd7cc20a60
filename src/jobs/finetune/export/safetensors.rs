//! The header of a safetensors file that is to be written, known before its numbers are.

use serde_json::{Map, Value, json};

/// A tensor of the file. The slowest-varying dimension comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// As the format names types (`F32`, `BF16`).
    pub(super) dtype: &'static str,
    pub(super) shape: Vec<u64>,
    pub(super) size_bytes: u64,
}

/// The bytes that come before those of the tensors, which follow in the order given.
pub(super) fn header(entries: &[Entry]) -> Vec<u8> {
    let mut json = Map::new();
    json.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut start = 0;
    for entry in entries {
        let end = start + entry.size_bytes;
        json.insert(entry.name.clone(), json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, end]}));
        start = end;
    }
    let mut text = Value::Object(json).to_string().into_bytes();
    // Numbers begin where they can be read as such.
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_follow_each_other_behind_a_header_of_whole_words() {
        let entry = |name: &str, shape: &[u64], size_bytes| Entry { name: name.into(), dtype: "F32", shape: shape.to_vec(), size_bytes };
        let bytes = header(&[entry("b", &[2, 3], 24), entry("a", &[1], 4)]);
        let length = u64::from_le_bytes(*bytes.first_chunk().expect("a length"));
        assert_eq!((bytes.len() as u64, length % 8), (8 + length, 0));
        let read: Value = serde_json::from_slice(&bytes[8..]).expect("JSON");
        assert_eq!(read["__metadata__"], json!({"format": "pt"}));
        assert_eq!(read["a"], json!({"dtype": "F32", "shape": [1], "data_offsets": [24, 28]}));
    }
}
