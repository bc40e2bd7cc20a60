//! WordPiece, as BERT cuts text into tokens.
//!
//! Text is cleaned, lowered and freed of accents, cut at spaces and punctuation, and each word into the longest pieces the vocabulary has.
//! The same tokens as Hugging Face's `tokenizers` gives for the same `tokenizer.json`; special tokens are never read out of a text.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

use crate::lm::tokenizer::classes::{ACCENT, OTHER, UNICODE_PUNCTUATION};
use crate::lm::{Error, Result};

#[derive(Deserialize)]
struct File {
    normalizer: Normalizer,
    model: Model,
}

#[derive(Deserialize)]
struct Normalizer {
    #[serde(default = "yes")]
    clean_text: bool,
    #[serde(default = "yes")]
    handle_chinese_chars: bool,
    strip_accents: Option<bool>,
    #[serde(default = "yes")]
    lowercase: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: String,
    vocab: HashMap<String, u32>,
    unk_token: String,
    continuing_subword_prefix: String,
    max_input_chars_per_word: usize,
}

fn yes() -> bool {
    true
}

/// Text to tokens.
pub struct WordPiece {
    normalizer: Normalizer,
    model: Model,
    start: u32,
    end: u32,
    unknown: u32,
}

impl std::fmt::Debug for WordPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WordPiece").field("tokens", &self.model.vocab.len()).finish_non_exhaustive()
    }
}

impl WordPiece {
    /// Takes the vocabulary of a `tokenizer.json` into use.
    pub(super) fn read(path: &Path, vocab_size: usize) -> Result<Self> {
        let unusable = |why: String| Error::Header { key: path.display().to_string(), why };
        let text = std::fs::read_to_string(path)?;
        let File { normalizer, model } =
            serde_json::from_str(&text).map_err(|error| unusable(format!("is not the tokenizer of a BERT: {error}")))?;
        if model.kind != "WordPiece" {
            return Err(unusable(format!("describes `{}`; WordPiece is supported", model.kind)));
        }
        if model.vocab.values().any(|id| *id as usize >= vocab_size) {
            return Err(unusable(format!("has tokens that the model's vocabulary of {vocab_size} does not")));
        }
        let id = |word: &str| model.vocab.get(word).copied().ok_or_else(|| unusable(format!("has no token `{word}`")));
        let (start, end, unknown) = (id("[CLS]")?, id("[SEP]")?, id(&model.unk_token)?);
        Ok(Self { normalizer, model, start, end, unknown })
    }

    /// The tokens of a text between the marks at both ends, at most `most` in all (at least 3); what follows is cut off.
    pub(super) fn tokens(&self, text: &str, most: usize) -> Vec<u32> {
        let mut tokens = vec![self.start];
        let clean = self.normalised(text);
        for word in words(&clean) {
            if tokens.len() >= most {
                break;
            }
            self.pieces(word, &mut tokens);
        }
        tokens.truncate(most.max(3) - 1);
        tokens.push(self.end);
        tokens
    }

    fn normalised(&self, text: &str) -> String {
        let Normalizer { clean_text, handle_chinese_chars, strip_accents, lowercase } = &self.normalizer;
        let cleaned =
            text.chars().filter(|c| !clean_text || !is_dropped(*c)).map(|c| if *clean_text && c.is_whitespace() { ' ' } else { c });
        let mut spaced = String::with_capacity(text.len());
        for c in cleaned {
            if *handle_chinese_chars && is_ideograph(c) {
                spaced.extend([' ', c, ' ']);
            } else {
                spaced.push(c);
            }
        }
        if strip_accents.unwrap_or(*lowercase) {
            spaced = spaced.nfd().filter(|c| !ACCENT.has(*c)).collect();
        }
        if *lowercase { spaced.chars().flat_map(char::to_lowercase).collect() } else { spaced }
    }

    fn pieces(&self, word: &str, tokens: &mut Vec<u32>) {
        let before = tokens.len();
        let mut rest = word;
        if word.chars().count() > self.model.max_input_chars_per_word {
            return tokens.push(self.unknown);
        }
        while !rest.is_empty() {
            let prefix = if rest.len() == word.len() { "" } else { self.model.continuing_subword_prefix.as_str() };
            let Some((id, length)) = self.longest(prefix, rest) else {
                tokens.truncate(before);
                return tokens.push(self.unknown);
            };
            tokens.push(id);
            rest = &rest[length..];
        }
    }

    /// The longest piece that `rest` begins with, and its length in bytes.
    fn longest(&self, prefix: &str, rest: &str) -> Option<(u32, usize)> {
        let mut piece = format!("{prefix}{rest}");
        while piece.len() > prefix.len() {
            if let Some(id) = self.model.vocab.get(&piece) {
                return Some((*id, piece.len() - prefix.len()));
            }
            piece.pop();
        }
        None
    }
}

/// Words and single punctuation marks.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_mark = |c: char| c.is_ascii_punctuation() || UNICODE_PUNCTUATION.has(c);
    text.split(char::is_whitespace).flat_map(move |word| {
        word.split_inclusive(is_mark).flat_map(move |part| {
            let last = part.chars().next_back().filter(|c| is_mark(*c)).map_or(0, char::len_utf8);
            let (word, mark) = part.split_at(part.len() - last);
            [word, mark].into_iter().filter(|part| !part.is_empty())
        })
    })
}

/// What text is cleaned of: control and other characters that are none, but not spaces.
fn is_dropped(c: char) -> bool {
    c == '\0' || c == '\u{fffd}' || (!matches!(c, '\t' | '\n' | '\r') && OTHER.has(c))
}

/// The blocks that BERT's own tokenizer puts spaces round.
fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F | 0x2B920..=0x2CEAF
        | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}
