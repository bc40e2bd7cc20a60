//! Vocabularies from `tokenizer.json`: byte-level BPE.

use serde_json::Value;

use super::super::error::{Error, Result};
use super::super::folder::Folder;
use super::json::{FILE, TokenizerJson};
use super::pieces::{Kind, Pieces, added};
use super::sentencepiece::decoder;
use crate::gguf::Strings;

/// The tokens up to `size`, the vocabulary's size by the model's configuration.
pub(super) fn read(json: &TokenizerJson, config: Option<&Value>, size: usize) -> Result<Pieces> {
    if json.model.kind != "BPE" && !json.model.kind.is_empty() {
        return Err(Error::Unsupported {
            what: format!("a tokenizer of the kind {:.40?}", json.model.kind),
            supported: "BPE, SentencePiece".to_owned(),
        });
    }
    let vocabulary = &json.model.vocab;
    let known = json.added_tokens.iter().map(|token| token.id);
    let largest = vocabulary.ids.iter().copied().chain(known).max().unwrap_or(0) as usize;
    if vocabulary.ids.is_empty() || largest >= size {
        return Err(Error::malformed(FILE, format!("ids reach {largest}, but the model's vocabulary has {size} tokens")));
    }
    let mut pieces = Pieces::new(size);
    for (text, id) in vocabulary.pieces.iter().zip(&vocabulary.ids) {
        pieces.set(*id as usize, &String::from_utf8_lossy(text), 0.0, Kind::Normal);
    }
    for (id, text, special) in decoder(config) {
        let (text, kind) = added(text, special);
        pieces.set(id, &text, 0.0, kind);
    }
    for token in &json.added_tokens {
        let (text, kind) = added(&token.content, token.special);
        pieces.set(token.id as usize, &text, 0.0, kind);
    }
    Ok(pieces)
}

/// The merges: of `tokenizer.json`, or of `merges.txt` if that has none.
pub(super) fn merges(json: TokenizerJson, folder: &Folder) -> Result<Strings> {
    if !json.model.merges.0.is_empty() {
        return Ok(json.model.merges.0);
    }
    let text = folder.text("merges.txt")?.unwrap_or_default();
    let lines = text.lines().enumerate().filter(|(at, line)| *at > 0 || !line.starts_with('#')).map(|(_, line)| line);
    let pair = |line: &str| {
        let mut parts = line.split_whitespace();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(left), Some(right), None) => Some(format!("{left} {right}")),
            _ => None,
        }
    };
    Ok(lines.filter_map(pair).collect())
}
