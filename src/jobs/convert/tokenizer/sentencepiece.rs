//! Vocabularies from `tokenizer.model`, and from those files of transformers that replace it.

use serde_json::Value;

use super::super::error::{Error, Result};
use super::super::folder::Folder;
use super::json::TokenizerJson;
use super::pieces::{Kind, Pieces, added};
use super::protobuf::{Broken, Field, Fields};

pub(super) const FILE: &str = "tokenizer.model";
const MAX_BYTES: u64 = 32 << 20;
/// The score of what was added by hand.
const ADDED: f32 = -1000.0;

/// Numbers of fields in `sentencepiece_model.proto`.
const PIECES: u64 = 1;
const PIECE_TEXT: u64 = 1;
const PIECE_SCORE: u64 = 2;
const PIECE_TYPE: u64 = 3;

/// Reads the model and what was added to it. `phi`: as the converter does for Phi-3, which also reads `tokenizer.json` and takes a
/// token for special only when it is marked so.
pub(super) fn read(folder: &Folder, size: usize, config: Option<&Value>, json: Option<&TokenizerJson>, phi: bool) -> Result<Pieces> {
    let bytes = folder.bytes(FILE, MAX_BYTES)?.ok_or_else(|| folder.lacks(FILE, "this model's tokenizer is there"))?;
    let mut pieces = Pieces::new(size);
    fill(&mut pieces, &bytes).map_err(|Broken| Error::malformed(FILE, "this is no SentencePiece model, or it is cut short"))?;
    if let Some(Value::Object(tokens)) = folder.json("added_tokens.json")? {
        for (text, id) in &tokens {
            if let Some(id) = id.as_u64().and_then(|id| usize::try_from(id).ok()) {
                pieces.set(id, text, ADDED, Kind::UserDefined);
            }
        }
    }
    let (ours, theirs) = (|text: &str, special| if phi { marked(text, special) } else { added(text, special) }, json.filter(|_| phi));
    for (id, text, special) in decoder(config) {
        let (text, kind) = ours(text, special);
        pieces.set(id, &text, ADDED, kind);
    }
    for token in theirs.into_iter().flat_map(|json| &json.added_tokens) {
        let (text, kind) = marked(&token.content, token.special);
        pieces.set(token.id as usize, &text, ADDED, kind);
    }
    Ok(pieces)
}

fn marked(text: &str, special: bool) -> (String, Kind) {
    (text.to_owned(), if special { Kind::Control } else { Kind::UserDefined })
}

/// `added_tokens_decoder` of a tokenizer's configuration: id, text, and whether it is marked special.
pub(super) fn decoder(config: Option<&Value>) -> impl Iterator<Item = (usize, &str, bool)> {
    let tokens = config.and_then(|config| config.get("added_tokens_decoder")).and_then(Value::as_object);
    tokens.into_iter().flatten().filter_map(|(id, token)| {
        let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
        Some((id.parse().ok()?, token.get("content")?.as_str()?, special))
    })
}

fn fill(pieces: &mut Pieces, model: &[u8]) -> std::result::Result<(), Broken> {
    let mut id = 0;
    for field in Fields::of(model) {
        if let (PIECES, Field::Bytes(piece)) = field? {
            let (text, score, kind) = piece_of(piece)?;
            pieces.set(id, text, score, kind);
            id += 1;
        }
    }
    if id == 0 { Err(Broken) } else { Ok(()) }
}

fn piece_of(message: &[u8]) -> std::result::Result<(&str, f32, Kind), Broken> {
    let (mut text, mut score, mut kind) = ("", 0.0, Kind::Normal);
    for field in Fields::of(message) {
        match field? {
            (PIECE_TEXT, Field::Bytes(bytes)) => text = std::str::from_utf8(bytes).map_err(|_| Broken)?,
            (PIECE_SCORE, Field::Fixed32(bits)) => score = f32::from_bits(bits),
            (PIECE_TYPE, Field::Varint(code)) => kind = kind_of(code),
            _ => {}
        }
    }
    Ok((text, score, kind))
}

/// Pieces that the model's maker defined count as normal ones, as in the converter.
fn kind_of(code: u64) -> Kind {
    match code {
        2 => Kind::Unknown,
        3 => Kind::Control,
        5 => Kind::Unused,
        6 => Kind::Byte,
        _ => Kind::Normal,
    }
}

/// A vocabulary that transformers kept in `tokenizer.json` only: BPE that falls back to bytes. Its scores are lost.
pub(super) fn from_json(json: &TokenizerJson, config: Option<&Value>) -> Pieces {
    let base = json.model.vocab.ids.len();
    let beyond = json.added_tokens.iter().filter(|token| token.id as usize >= base);
    let mut pieces = Pieces::new(base + beyond.clone().count());
    let special = |text: &str| is_named(config, text);
    for (text, id) in json.model.vocab.pieces.iter().zip(&json.model.vocab.ids) {
        let text = String::from_utf8_lossy(text);
        let kind = if is_byte(&text) {
            Kind::Byte
        } else if special(&text) {
            Kind::Control
        } else {
            Kind::Normal
        };
        pieces.set(*id as usize, &text, ADDED, kind);
    }
    for token in beyond {
        let kind = if special(&token.content) { Kind::Control } else { Kind::UserDefined };
        pieces.set(token.id as usize, &token.content, ADDED, kind);
    }
    pieces
}

/// Whether `tokenizer.json` is such a vocabulary.
pub(super) fn is_in_json(json: &TokenizerJson) -> bool {
    let sequence = json.decoder.as_ref().and_then(|decoder| decoder.get("type")).and_then(Value::as_str) == Some("Sequence");
    json.model.kind == "BPE" && json.model.byte_fallback == Some(true) && sequence
}

fn is_byte(text: &str) -> bool {
    text.strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'))
        .is_some_and(|hex| hex.len() == 2 && u8::from_str_radix(hex, 16).is_ok())
}

/// Whether a tokenizer's configuration names this token as one of its special ones.
fn is_named(config: Option<&Value>, text: &str) -> bool {
    let content = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()) == Some(text);
    let Some(config) = config else { return false };
    let roles = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"].map(|role| config.get(format!("{role}_token")));
    let more = ["additional_special_tokens", "extra_special_tokens"].map(|key| config.get(key).and_then(Value::as_array));
    roles.into_iter().flatten().any(content) || more.into_iter().flatten().flatten().any(content)
}
