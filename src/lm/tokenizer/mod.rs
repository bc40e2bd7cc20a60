//! From text to token ids and back, as the vocabulary in a GGUF header says.
//!
//! Two algorithms: SentencePiece (`tokenizer.ggml.model` = `llama`) and byte-level BPE (`gpt2`). Both are written here rather than
//! taken from a library, which would need merges for all 262k pieces of a SentencePiece vocabulary, seconds of work at each start;
//! and both take n log n time in the length of the text, whatever the text.
//! Promises: the ids are those of llama.cpp (golden files in `tests/golden`), and [`Tokenizer::encode`] takes any text.
//! Does not: write chat templates (see `template`), nor read `tokenizer.json`.

mod bpe;
pub(in crate::lm) mod classes;
mod detokenizer;
mod sentencepiece;
mod special;
mod split;
#[cfg(test)]
mod tests;
mod vocabulary;

use crate::gguf::{Header, Metadata};

pub use detokenizer::Detokenizer;

use bpe::Bpe;
use sentencepiece::SentencePiece;
use special::{Fragment, Special};
use vocabulary::{Kind, Vocabulary};

/// Why a vocabulary cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the tokenizer has no `{key}`, or one of another type")]
    Missing { key: &'static str },
    #[error("tokenizers of the kind `{model}` are not supported, only `llama` (SentencePiece) and `gpt2` (BPE) are")]
    Model { model: String },
    #[error("the pre-tokenizer `{pre}` is not supported, only these are: {known}")]
    PreTokenizer { pre: String, known: String },
    #[error("`{key}` has {found} entries for {tokens} tokens")]
    Length { key: &'static str, found: usize, tokens: usize },
    #[error("`{key}` is {id}, but there are only {tokens} tokens")]
    Id { key: &'static str, id: u32, tokens: usize },
    #[error("a vocabulary of {0} tokens cannot be used")]
    Size(usize),
}

/// How a text is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encode {
    /// Put the token that begins a text before it. [`Tokenizer::adds_bos`] says what the model wants.
    pub add_bos: bool,
    /// Read the names of control tokens (`<start_of_turn>`) as those tokens. Only for text that a template wrote.
    pub parse_special: bool,
}

/// Names under which vocabularies keep the tokens that end an answer (llama.cpp's list).
const END_NAMES: [&str; 20] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
];

/// A vocabulary, ready for use.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    special: Special,
    algorithm: Algorithm,
    bos: Option<u32>,
    eos: Option<u32>,
    adds_bos: bool,
    /// Sorted.
    ends: Vec<u32>,
}

#[derive(Debug)]
enum Algorithm {
    SentencePiece(SentencePiece),
    Bpe(Bpe),
}

impl Tokenizer {
    /// # Errors
    /// When the header has no vocabulary, a broken one, or one of an unsupported kind.
    pub fn from_header(header: &Header) -> Result<Self, Error> {
        let metadata = &header.metadata;
        match metadata.str("tokenizer.ggml.model") {
            Some("llama") => Self::sentencepiece(metadata),
            Some("gpt2") => Self::bpe(metadata),
            Some(model) => Err(Error::Model { model: model.chars().take(80).collect() }),
            None => Err(Error::Missing { key: "tokenizer.ggml.model" }),
        }
    }

    fn sentencepiece(metadata: &Metadata) -> Result<Self, Error> {
        let vocabulary = Vocabulary::sentencepiece(metadata, &END_NAMES)?;
        let algorithm = SentencePiece::new(metadata, &vocabulary)?;
        let adds_bos = metadata.bool("tokenizer.ggml.add_bos_token").unwrap_or(true);
        Self::build(metadata, vocabulary, Algorithm::SentencePiece(algorithm), adds_bos, [Some(1), Some(2)])
    }

    fn bpe(metadata: &Metadata) -> Result<Self, Error> {
        let pre = metadata.str("tokenizer.ggml.pre").unwrap_or("default");
        let rules = split::Rules::named(pre)?;
        let vocabulary = Vocabulary::bpe(metadata, &END_NAMES)?;
        let algorithm = Bpe::new(metadata, &vocabulary, rules)?;
        let adds_bos = metadata.bool("tokenizer.ggml.add_bos_token").unwrap_or(rules.adds_bos);
        Self::build(metadata, vocabulary, Algorithm::Bpe(algorithm), adds_bos, [None, None])
    }

    fn build(
        metadata: &Metadata,
        vocabulary: Vocabulary,
        algorithm: Algorithm,
        adds_bos: bool,
        [bos, eos]: [Option<u32>; 2],
    ) -> Result<Self, Error> {
        let named = |key| checked_id(metadata, &vocabulary, key);
        let usual = |id: Option<u32>| id.filter(|id| (*id as usize) < vocabulary.len());
        let bos = named("tokenizer.ggml.bos_token_id")?.or(usual(bos));
        let eos = named("tokenizer.ggml.eos_token_id")?.or(usual(eos));
        let mut ends: Vec<u32> = END_NAMES.iter().filter_map(|name| vocabulary.find_special(name.as_bytes())).collect();
        ends.extend(eos);
        ends.extend(named("tokenizer.ggml.eot_token_id")?);
        ends.extend(named("tokenizer.ggml.eom_token_id")?);
        ends.sort_unstable();
        ends.dedup();
        let special = Special::new(&vocabulary, is_phi3(metadata));
        Ok(Self { vocabulary, special, algorithm, bos, eos, adds_bos, ends })
    }

    /// The ids of a text.
    #[must_use]
    pub fn encode(&self, text: &str, how: Encode) -> Vec<u32> {
        self.encode_parts([text], how)
    }

    /// The ids of a text that comes in parts: no token reaches from one into the next.
    #[must_use]
    pub fn encode_parts<'a>(&self, parts: impl IntoIterator<Item = &'a str>, how: Encode) -> Vec<u32> {
        self.encode_told(parts, how, |_, _| ())
    }

    /// As [`Tokenizer::encode_parts`], with the byte that each token ends before in the text, which is all parts one behind the other. A token
    /// begins where the one before it ends; a space that only the vocabulary wants has no place.
    #[must_use]
    pub fn encode_with_ends<'a>(&self, parts: impl IntoIterator<Item = &'a str>, how: Encode) -> (Vec<u32>, Vec<usize>) {
        let (mut ends, mut done) = (Vec::new(), 0);
        let ids = self.encode_told(parts, how, |ids, bytes| {
            // Nothing before the first fragment has any text.
            if done == 0 && ends.is_empty() {
                ends.resize(usize::from(how.add_bos && self.bos.is_some()), 0);
            }
            let new = &ids[ends.len()..];
            let whole: usize = new.iter().map(|id| self.vocabulary.bytes(*id).len()).sum();
            // Bytes that are not in the text were put before it.
            let mut at = 0_usize;
            for id in new {
                at += self.vocabulary.bytes(*id).len();
                ends.push(done + at.saturating_sub(whole.saturating_sub(bytes)).min(bytes));
            }
            done += bytes;
            if let Some(last) = ends.last_mut().filter(|_| !new.is_empty()) {
                *last = done;
            }
        });
        ends.resize(ids.len(), done);
        (ids, ends)
    }

    /// `told` hears after each piece of the text of all tokens so far, and how many bytes the piece has.
    fn encode_told<'a>(&self, parts: impl IntoIterator<Item = &'a str>, how: Encode, mut told: impl FnMut(&[u32], usize)) -> Vec<u32> {
        let mut ids: Vec<u32> = self.bos.filter(|_| how.add_bos).into_iter().collect();
        // A space goes before a text that begins, or follows a special token, where the vocabulary wants that.
        let mut begins = true;
        for fragment in parts.into_iter().flat_map(|part| self.special.fragments(part, how.parse_special)) {
            let bytes = match fragment {
                Fragment::Token(id, bytes) => {
                    ids.push(id);
                    bytes
                }
                Fragment::Text(text) => {
                    match &self.algorithm {
                        Algorithm::SentencePiece(algorithm) => algorithm.encode(&self.vocabulary, text, begins, &mut ids),
                        Algorithm::Bpe(algorithm) => algorithm.encode(&self.vocabulary, text, &mut ids),
                    }
                    text.len()
                }
            };
            told(&ids, bytes);
            begins = matches!(fragment, Fragment::Token(..));
        }
        ids
    }

    /// Puts `marker` into every name of a control token in a text. Split at the marker and encoded in parts, the text is then
    /// nothing but text, also where special tokens are read: nobody can forge a turn by writing its token.
    #[must_use]
    pub fn defuse(&self, text: &str, marker: char) -> String {
        self.special.defuse(text, marker)
    }

    /// The bytes that a token stands for: nothing for control tokens and ids out of range. Need not be whole characters.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }

    /// Whether the model says with this token that its answer is over.
    #[must_use]
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// The token that begins a text.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether the model was trained on texts that begin with [`Tokenizer::bos`].
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.adds_bos && self.bos.is_some()
    }

    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The name of a token as the vocabulary writes it, e.g. `<bos>`.
    #[must_use]
    pub fn token_name(&self, id: u32) -> String {
        String::from_utf8_lossy(self.vocabulary.piece(id)).into_owned()
    }

    /// The fewest tokens that a text of so many bytes can become.
    #[must_use]
    pub fn least_tokens(&self, text_bytes: usize) -> usize {
        text_bytes.div_ceil(self.vocabulary.longest_bytes().max(1))
    }
}

/// Files do not say which tokens take white space with them: llama.cpp, too, knows these models by their name.
fn is_phi3(metadata: &Metadata) -> bool {
    let name = metadata.str("general.name").unwrap_or_default().to_lowercase();
    ["phi-3", "phi3"].iter().any(|known| name.contains(known))
}

fn checked_id(metadata: &Metadata, vocabulary: &Vocabulary, key: &'static str) -> Result<Option<u32>, Error> {
    match metadata.u32(key) {
        Some(id) if id as usize >= vocabulary.len() => Err(Error::Id { key, id, tokens: vocabulary.len() }),
        id => Ok(id),
    }
}
