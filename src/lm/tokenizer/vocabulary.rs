//! The pieces of a vocabulary: what they are, what they stand for, and finding one by its text.

use std::hash::{BuildHasher, RandomState};

use super::{Error, bpe};
use crate::gguf::{Metadata, Strings};

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "\u{2581}";

/// More tokens than any vocabulary has.
const MAX_TOKENS: usize = 1 << 24;

/// What a token is for (llama.cpp's `llama_token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    /// Added by hand: found in a text before anything else is.
    UserDefined,
    Unused,
    Byte,
}

impl Kind {
    fn from_code(code: i32) -> Self {
        match code {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

#[derive(Debug)]
pub(super) struct Vocabulary {
    /// As the file writes them.
    pieces: Strings,
    /// What they stand for.
    bytes: Strings,
    kinds: Vec<Kind>,
    /// Finds the pieces that text can become. For BPE by what they stand for, for SentencePiece by how they are written.
    table: Table,
    by_bytes: bool,
}

impl Vocabulary {
    pub(super) fn sentencepiece(metadata: &Metadata, ends: &[&str]) -> Result<Self, Error> {
        let (pieces, kinds) = read(metadata, ends)?;
        let mut bytes = Strings::default();
        for (piece, kind) in pieces.iter().zip(&kinds) {
            match kind {
                Kind::Normal => push_unescaped(&mut bytes, piece),
                Kind::UserDefined => bytes.push(piece),
                Kind::Byte => bytes.push(byte_piece(piece).as_ref().map_or(piece, std::slice::from_ref)),
                Kind::Unknown | Kind::Control | Kind::Unused => bytes.push(b""),
            }
        }
        let table = Table::new(&pieces, |_| true);
        Ok(Self { pieces, bytes, kinds, table, by_bytes: false })
    }

    pub(super) fn bpe(metadata: &Metadata, ends: &[&str]) -> Result<Self, Error> {
        let (pieces, kinds) = read(metadata, ends)?;
        let mut bytes = Strings::default();
        for (piece, kind) in pieces.iter().zip(&kinds) {
            match kind {
                Kind::Normal | Kind::Byte => bytes.push(bpe::decode(piece).as_deref().unwrap_or(piece)),
                Kind::UserDefined => bytes.push(piece),
                Kind::Unknown | Kind::Control | Kind::Unused => bytes.push(b""),
            }
        }
        let table = Table::new(&bytes, |id| matches!(kinds[id], Kind::Normal | Kind::Byte));
        Ok(Self { pieces, bytes, kinds, table, by_bytes: true })
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The token that this text can become.
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        self.table.find(if self.by_bytes { &self.bytes } else { &self.pieces }, text)
    }

    /// The token that is not plain text and has this name.
    pub(super) fn find_special(&self, name: &[u8]) -> Option<u32> {
        self.specials().find(|(_, piece, _)| *piece == name).map(|(id, ..)| id)
    }

    /// Tokens that are looked for in a text by name.
    pub(super) fn specials(&self) -> impl Iterator<Item = (u32, &[u8], Kind)> {
        (0_u32..)
            .zip(self.pieces.iter().zip(&self.kinds))
            .filter(|(_, (_, kind))| matches!(kind, Kind::Control | Kind::UserDefined | Kind::Unknown))
            .map(|(id, (piece, kind))| (id, piece, *kind))
    }

    pub(super) fn piece(&self, id: u32) -> &[u8] {
        self.pieces.get(id as usize).unwrap_or_default()
    }

    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).unwrap_or_default()
    }

    pub(super) fn longest_bytes(&self) -> usize {
        self.table.longest
    }
}

fn read(metadata: &Metadata, ends: &[&str]) -> Result<(Strings, Vec<Kind>), Error> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    const TYPES: &str = "tokenizer.ggml.token_type";
    let pieces = metadata.strings(TOKENS).ok_or(Error::Missing { key: TOKENS })?;
    if pieces.is_empty() || pieces.len() > MAX_TOKENS {
        return Err(Error::Size(pieces.len()));
    }
    let mut kinds = match metadata.i32s(TYPES) {
        Some(types) if types.len() != pieces.len() => {
            return Err(Error::Length { key: TYPES, found: types.len(), tokens: pieces.len() });
        }
        Some(types) => types.iter().map(|code| Kind::from_code(*code)).collect(),
        None => vec![Kind::Normal; pieces.len()],
    };
    for (piece, kind) in pieces.iter().zip(&mut kinds) {
        // As llama.cpp: what ends an answer is a control token, also where the file does not say so.
        if matches!(piece.first(), Some(b'<' | b'[' | b'_')) && ends.iter().any(|end| end.as_bytes() == piece) {
            *kind = Kind::Control;
        }
    }
    Ok((pieces.clone(), kinds))
}

fn push_unescaped(bytes: &mut Strings, piece: &[u8]) {
    let Ok(text) = std::str::from_utf8(piece) else { return bytes.push(piece) };
    if text.contains(SPACE) { bytes.push(text.replace(SPACE, " ").as_bytes()) } else { bytes.push(piece) }
}

/// The byte that a piece such as `<0x0A>` stands for.
fn byte_piece(piece: &[u8]) -> Option<u8> {
    let digits = piece.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 2)?, 16).ok()
}

/// A hash table of ids, keyed by strings that live elsewhere: no copy of a quarter of a million keys.
#[derive(Debug)]
struct Table {
    /// Ids, or `EMPTY`; the number of slots is a power of two and at least twice the ids'.
    slots: Vec<u32>,
    hasher: RandomState,
    longest: usize,
}

const EMPTY: u32 = u32::MAX;

impl Table {
    fn new(strings: &Strings, wanted: impl Fn(usize) -> bool) -> Self {
        let size = (strings.len() * 2).next_power_of_two();
        let mut table = Self { slots: vec![EMPTY; size], hasher: RandomState::new(), longest: 0 };
        for (id, text) in (0_u32..).zip(strings.iter()) {
            if !text.is_empty() && wanted(id as usize) {
                let slot = table.slot(strings, text);
                // Of doubles the last one counts, as in llama.cpp.
                table.slots[slot] = id;
                table.longest = table.longest.max(text.len());
            }
        }
        table
    }

    /// Where the text is, or would go.
    fn slot(&self, strings: &Strings, text: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
        let mut at = self.hasher.hash_one(text) as usize & mask;
        while self.slots[at] != EMPTY && strings.get(self.slots[at] as usize) != Some(text) {
            at = (at + 1) & mask;
        }
        at
    }

    fn find(&self, strings: &Strings, text: &[u8]) -> Option<u32> {
        if text.len() > self.longest {
            return None;
        }
        Some(self.slots[self.slot(strings, text)]).filter(|id| *id != EMPTY)
    }
}
