//! The tokenizer of a folder, as the pairs `tokenizer.*` of a GGUF file.
//!
//! SentencePiece models come from `tokenizer.model`, byte-level BPE from `tokenizer.json`; which one counts depends on the family, as
//! in llama.cpp's converter. It does not tokenize: that is `lm`'s.

mod bpe;
mod json;
mod pieces;
mod pre;
mod protobuf;
mod sentencepiece;
mod special;
mod template;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::config::{Config, Family};
use super::error::Result;
use super::folder::Folder;
use super::metadata::Pairs;
use crate::gguf;
use json::TokenizerJson;
use special::{Sources, Special};

const CONFIG: &str = "tokenizer_config.json";

/// CodeLlama's vocabulary, known by its size, has tokens for filling in; this one ends an infill.
const CODE_LLAMA: (u64, u64) = (32_016, 32_010);
/// Granite's small models, known by their vocabulary's size, begin no text with a token.
const GRANITE: u64 = 49_152;
/// CodeGemma's token that ends an infill; every Gemma 1 gets it.
const CODE_GEMMA: u64 = 107;

/// Writes the tokenizer. `pre`: what the user calls the pre-tokenizer, where its rules are not known.
pub(super) fn write(pairs: &mut Pairs, folder: &Folder, config: &Config, pre: Option<&str>) -> Result<()> {
    let settings = folder.json(CONFIG)?;
    let json = TokenizerJson::read(folder)?;
    let tokenizer = Tokenizer { folder, config, settings: settings.as_ref() };
    match config.family {
        Family::Llama | Family::Mistral => tokenizer.llama(pairs, json, pre),
        Family::Phi3 if tokenizer.setting("tokenizer_class").and_then(Value::as_str) == Some("GPT2Tokenizer") => {
            tokenizer.bpe(pairs, json, pre)
        }
        Family::Phi3 => tokenizer.sentencepiece(pairs, json.as_ref()),
        Family::Gemma | Family::Gemma2 | Family::Gemma3 => tokenizer.gemma(pairs, json.as_ref()),
        Family::Qwen2 | Family::Qwen3 if folder.has(sentencepiece::FILE) => tokenizer.sentencepiece(pairs, json.as_ref()),
        Family::Qwen2 | Family::Qwen3 => tokenizer.bpe(pairs, json, pre),
    }
}

/// Rows of Gemma 3's embedding that have tokens.
pub(super) fn embedded(folder: &Folder, config: &Config) -> Result<u64> {
    if config.family != Family::Gemma3 || folder.has(sentencepiece::FILE) {
        return Ok(config.vocab_size);
    }
    let json = TokenizerJson::read(folder)?;
    Ok(json.map_or(config.vocab_size, |json| (json.model.vocab.ids.len() + json.added_tokens.len()) as u64))
}

struct Tokenizer<'a> {
    folder: &'a Folder,
    config: &'a Config,
    /// `tokenizer_config.json`
    settings: Option<&'a Value>,
}

impl Tokenizer<'_> {
    fn setting(&self, key: &str) -> Option<&Value> {
        self.settings?.get(key).filter(|value| !value.is_null())
    }

    fn size(&self) -> usize {
        usize::try_from(self.config.vocab_size).unwrap_or(usize::MAX)
    }

    fn special(&self, json: Option<&TokenizerJson>, limit: Option<usize>) -> Result<Special> {
        let sources = Sources { folder: self.folder, json, config: self.settings, model: &self.config.raw };
        Special::read(&sources, limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)))
    }

    fn llama(&self, pairs: &mut Pairs, json: Option<TokenizerJson>, pre: Option<&str>) -> Result<()> {
        if let Some(switch) = self.setting("add_prefix_space").and_then(Value::as_bool) {
            pairs.bool("tokenizer.ggml.add_space_prefix", switch);
        }
        match json {
            json if self.folder.has(sentencepiece::FILE) => self.sentencepiece(pairs, json.as_ref())?,
            Some(json) if sentencepiece::is_in_json(&json) => {
                let pieces = sentencepiece::from_json(&json, self.settings);
                self.scored(pairs, pieces, Some(&json))?;
            }
            json => self.bpe(pairs, json, pre)?,
        }
        if self.config.vocab_size == CODE_LLAMA.0 {
            pairs.u32("tokenizer.ggml.eot_token_id", CODE_LLAMA.1);
        }
        if self.config.vocab_size == GRANITE {
            pairs.bool("tokenizer.ggml.add_bos_token", false);
        }
        Ok(())
    }

    fn gemma(&self, pairs: &mut Pairs, json: Option<&TokenizerJson>) -> Result<()> {
        self.sentencepiece(pairs, json)?;
        if self.config.family == Family::Gemma {
            pairs.u32("tokenizer.ggml.eot_token_id", CODE_GEMMA);
        }
        pairs.bool("tokenizer.ggml.add_space_prefix", false);
        Ok(())
    }

    fn sentencepiece(&self, pairs: &mut Pairs, json: Option<&TokenizerJson>) -> Result<()> {
        let phi = self.config.family == Family::Phi3;
        let pieces = sentencepiece::read(self.folder, self.size(), self.settings, json, phi)?;
        self.scored(pairs, pieces, json)
    }

    fn scored(&self, pairs: &mut Pairs, pieces: pieces::Pieces, json: Option<&TokenizerJson>) -> Result<()> {
        let limit = pieces.len();
        pieces.write(pairs, "llama", "default", true);
        self.special(json, Some(limit))?.write(pairs);
        Ok(())
    }

    fn bpe(&self, pairs: &mut Pairs, json: Option<TokenizerJson>, pre: Option<&str>) -> Result<()> {
        let json = json.ok_or_else(|| self.folder.lacks(json::FILE, "the tokenizer is read from it"))?;
        let pre = pre::name(&json, pre)?;
        bpe::read(&json, self.settings, self.size())?.write(pairs, "gpt2", &pre, false);
        let special = self.special(Some(&json), None)?;
        let merges = bpe::merges(json, self.folder)?;
        if !merges.is_empty() {
            pairs.set("tokenizer.ggml.merges", gguf::Value::Strings(merges));
        }
        special.write(pairs);
        Ok(())
    }
}
