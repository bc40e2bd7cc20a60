//! `tokenizer.json`, read in one go without a tree of its hundreds of thousands of entries.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::super::error::{Error, Result};
use super::super::folder::Folder;
use crate::gguf::Strings;

pub(super) const FILE: &str = "tokenizer.json";
/// The largest known, with a vocabulary of 262,144 and all its merges, has 33 MB.
const MAX_BYTES: u64 = 96 << 20;
/// More entries than any vocabulary or list of merges has.
const MAX_ENTRIES: usize = 1 << 22;

#[derive(Debug, Deserialize)]
pub(super) struct TokenizerJson {
    #[serde(default)]
    pub(super) added_tokens: Vec<Added>,
    pub(super) normalizer: Option<Value>,
    pub(super) pre_tokenizer: Option<Value>,
    pub(super) post_processor: Option<Value>,
    pub(super) decoder: Option<Value>,
    pub(super) model: Model,
}

/// A token that is found in a text by its name.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) special: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Model {
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) vocab: Vocabulary,
    #[serde(default)]
    pub(super) merges: Merges,
    pub(super) ignore_merges: Option<bool>,
    pub(super) byte_fallback: Option<bool>,
}

/// Pieces and their ids, in the file's order. Empty for models whose vocabulary is a list.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    pub(super) pieces: Strings,
    pub(super) ids: Vec<u32>,
}

/// Lines `left right`. A space within a part is written as GPT-2's alphabet does.
#[derive(Debug, Default)]
pub(super) struct Merges(pub(super) Strings);

impl TokenizerJson {
    pub(super) fn read(folder: &Folder) -> Result<Option<Self>> {
        let Some(bytes) = folder.bytes(FILE, MAX_BYTES)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::malformed(FILE, error.to_string()))
    }
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(VocabularyVisitor)
    }
}

struct VocabularyVisitor;

impl<'de> Visitor<'de> for VocabularyVisitor {
    type Value = Vocabulary;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pieces and their ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Vocabulary, A::Error> {
        let mut vocabulary = Vocabulary::default();
        while let Some((piece, id)) = map.next_entry::<String, u32>()? {
            if vocabulary.ids.len() >= MAX_ENTRIES {
                return Err(A::Error::custom("the vocabulary is too large"));
            }
            vocabulary.pieces.push(piece.as_bytes());
            vocabulary.ids.push(id);
        }
        Ok(vocabulary)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Vocabulary, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Vocabulary::default())
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_seq(MergesVisitor)
    }
}

/// One merge, in the old or the new form.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair([String; 2]),
}

struct MergesVisitor;

impl<'de> Visitor<'de> for MergesVisitor {
    type Value = Merges;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("merges, as lines or pairs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Merges, A::Error> {
        let mut merges = Strings::default();
        while let Some(merge) = list.next_element::<Merge>()? {
            if merges.len() >= MAX_ENTRIES {
                return Err(A::Error::custom("there are too many merges"));
            }
            match merge {
                Merge::Line(line) => merges.push(line.as_bytes()),
                Merge::Pair(pair) => merges.push(pair.map(|part| part.replace(' ', "\u{120}")).join(" ").as_bytes()),
            }
        }
        Ok(Merges(merges))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_merges_and_vocabularies_are_read() {
        let read = |model: &str| serde_json::from_str::<TokenizerJson>(&format!(r#"{{"version":"1.0","model":{model}}}"#)).expect("sound");
        let old = read(r#"{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}"#);
        assert_eq!((old.model.vocab.ids, old.model.merges.0.get(0)), (vec![0, 1], Some(&b"a b"[..])));
        let new = read(r#"{"vocab":{"a":3},"merges":[["a ","b"]],"ignore_merges":true}"#);
        assert_eq!((new.model.ignore_merges, new.model.merges.0.get(0)), (Some(true), Some("aĠ b".as_bytes())));
        assert!(read(r#"{"type":"Unigram","vocab":[["a",-1.5]]}"#).model.vocab.ids.is_empty());
    }
}
