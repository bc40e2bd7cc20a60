//! The list of pairs in the making, with the rules by which llama.cpp's converter keeps its own.

use crate::gguf::{Metadata, Strings, Value};

/// Pairs in order. A key that is set again keeps its place and takes the new value; empty texts and lists are not written.
#[derive(Debug, Clone, Default)]
pub(in crate::jobs::convert) struct Pairs(Vec<(String, Value)>);

impl Pairs {
    pub(in crate::jobs::convert) fn set(&mut self, key: impl Into<String>, value: Value) {
        let key = key.into();
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    pub(in crate::jobs::convert) fn string(&mut self, key: impl Into<String>, text: &str) {
        if !text.is_empty() {
            self.set(key, Value::String(text.to_owned()));
        }
    }

    pub(in crate::jobs::convert) fn strings<S: AsRef<[u8]>>(&mut self, key: impl Into<String>, texts: impl IntoIterator<Item = S>) {
        let texts: Strings = texts.into_iter().collect();
        if !texts.is_empty() {
            self.set(key, Value::Strings(texts));
        }
    }

    /// Counts are checked where they are read; one that does not fit here is cut to what does.
    pub(in crate::jobs::convert) fn u32(&mut self, key: impl Into<String>, number: u64) {
        self.set(key, Value::U32(u32::try_from(number).unwrap_or(u32::MAX)));
    }

    #[expect(clippy::cast_possible_truncation, reason = "the format keeps settings as f32")]
    pub(in crate::jobs::convert) fn f32(&mut self, key: impl Into<String>, number: f64) {
        self.set(key, Value::F32(number as f32));
    }

    pub(in crate::jobs::convert) fn bool(&mut self, key: impl Into<String>, switch: bool) {
        self.set(key, Value::Bool(switch));
    }

    pub(in crate::jobs::convert) fn into_metadata(self) -> Metadata {
        let mut metadata = Metadata::default();
        for (key, value) in self.0 {
            metadata.push(key, value);
        }
        metadata
    }

    #[cfg(test)]
    pub(in crate::jobs::convert) fn into_pairs(self) -> Vec<(String, Value)> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_place_and_nothing_empty_is_written() {
        let mut pairs = Pairs::default();
        pairs.u32("a", 1);
        pairs.string("b", "");
        pairs.strings("c", [""; 0]);
        pairs.bool("d", true);
        pairs.u32("a", 2);
        assert_eq!(pairs.into_pairs(), [("a".to_owned(), Value::U32(2)), ("d".to_owned(), Value::Bool(true))]);
    }
}
