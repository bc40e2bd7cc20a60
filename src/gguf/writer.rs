//! Writes small GGUF files for tests: sound ones, and broken ones on purpose.

use super::TensorKind;

/// A file in the making. Nothing is checked.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) version: u32,
    pub(crate) alignment: u64,
    pub(crate) pairs: Vec<u8>,
    pub(crate) pair_count: u64,
    pub(crate) tensors: Vec<u8>,
    pub(crate) tensor_count: u64,
    pub(crate) data: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { version: 3, alignment: 32, pairs: Vec::new(), pair_count: 0, tensors: Vec::new(), tensor_count: 0, data: Vec::new() }
    }
}

pub(crate) fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

impl Writer {
    /// A pair whose value is given as bytes.
    pub(crate) fn raw(mut self, key: &str, code: u32, value: &[u8]) -> Self {
        self.pairs.extend(string(key.as_bytes()));
        self.pairs.extend(code.to_le_bytes());
        self.pairs.extend(value);
        self.pair_count += 1;
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Self {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn bool(self, key: &str, value: bool) -> Self {
        self.raw(key, 7, &[value.into()])
    }

    pub(crate) fn str(self, key: &str, value: &str) -> Self {
        self.raw(key, 8, &string(value.as_bytes()))
    }

    pub(crate) fn array(self, key: &str, code: u32, count: u64, values: &[u8]) -> Self {
        self.raw(key, 9, &[&code.to_le_bytes()[..], &count.to_le_bytes()[..], values].concat())
    }

    pub(crate) fn strings<S: AsRef<[u8]>>(self, key: &str, values: &[S]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| string(value.as_ref())).collect();
        self.array(key, 8, values.len() as u64, &bytes)
    }

    pub(crate) fn f32s(self, key: &str, values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 6, values.len() as u64, &bytes)
    }

    pub(crate) fn i32s(self, key: &str, values: &[i32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 5, values.len() as u64, &bytes)
    }

    /// A tensor of zeros behind those before it.
    pub(crate) fn tensor(mut self, name: &str, kind: TensorKind, dimensions: &[u64]) -> Self {
        let offset = (self.data.len() as u64).next_multiple_of(self.alignment);
        let size = kind.size_bytes(dimensions).unwrap_or(0);
        self.data.resize(usize::try_from(offset + size).unwrap(), 0);
        self.tensor_raw(name.as_bytes(), kind.code(), dimensions, offset)
    }

    /// An entry of the list of tensors as it is given, without data.
    pub(crate) fn tensor_raw(mut self, name: &[u8], code: u32, dimensions: &[u64], offset: u64) -> Self {
        self.tensors.extend(string(name));
        self.tensors.extend(u32::try_from(dimensions.len()).unwrap().to_le_bytes());
        self.tensors.extend(dimensions.iter().flat_map(|n| n.to_le_bytes()));
        self.tensors.extend(code.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.tensor_count += 1;
        self
    }

    pub(crate) fn finish(&self) -> Vec<u8> {
        self.finish_claiming(self.tensor_count, self.pair_count)
    }

    /// The file, with counts that may be lies.
    pub(crate) fn finish_claiming(&self, tensors: u64, pairs: u64) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(tensors.to_le_bytes());
        file.extend(pairs.to_le_bytes());
        file.extend(&self.pairs);
        file.extend(&self.tensors);
        if !self.data.is_empty() {
            let start = (file.len() as u64).next_multiple_of(self.alignment);
            file.resize(usize::try_from(start).unwrap(), 0);
        }
        file.extend(&self.data);
        file
    }
}
