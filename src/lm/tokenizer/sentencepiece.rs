//! SentencePiece's BPE: of all neighbours that together are a piece, those with the best score are joined first.
//!
//! The order, ties included, is that of llama.cpp (`llm_tokenizer_spm`): better score, then further left.

use std::collections::BinaryHeap;

use super::vocabulary::{SPACE, Vocabulary};
use super::{Error, checked_id};
use crate::gguf::Metadata;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct SentencePiece {
    scores: Vec<f32>,
    /// What a byte becomes that no piece holds.
    bytes: Box<[Option<u32>; 256]>,
    unknown: Option<u32>,
    add_space_prefix: bool,
}

/// A part of the text that is one piece so far. Those that were joined to their left neighbour have no bytes.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: usize,
    bytes: usize,
    left: u32,
    right: u32,
}

/// Two neighbours that together are a piece.
#[derive(Debug, Clone, Copy)]
struct Pair {
    score: f32,
    left: u32,
    right: u32,
    /// Of both together when the pair was found: it is out of date when they have changed since.
    bytes: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

impl SentencePiece {
    pub(super) fn new(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Self, Error> {
        const SCORES: &str = "tokenizer.ggml.scores";
        let tokens = vocabulary.len();
        let scores = match metadata.f32s(SCORES) {
            Some(scores) if scores.len() != tokens => return Err(Error::Length { key: SCORES, found: scores.len(), tokens }),
            // Minus zero would sort below zero.
            Some(scores) => scores.iter().map(|score| score + 0.0).collect(),
            None => vec![0.0; tokens],
        };
        let mut bytes = Box::new([None; 256]);
        for (byte, id) in (0_u8..=255).zip(bytes.iter_mut()) {
            *id = vocabulary.find(format!("<0x{byte:02X}>").as_bytes()).or_else(|| vocabulary.find(&[byte]));
        }
        let unknown = checked_id(metadata, vocabulary, "tokenizer.ggml.unknown_token_id")?;
        let add_space_prefix = metadata.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true);
        Ok(Self { scores, bytes, unknown, add_space_prefix })
    }

    /// Appends the ids of a text without special tokens. `begins`: nothing but such a token comes before it.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, begins: bool, ids: &mut Vec<u32>) {
        let prefix = if begins && self.add_space_prefix { SPACE } else { "" };
        let text = prefix.to_owned() + &text.replace(' ', SPACE);
        // Positions are 32 bits wide: texts of gigabytes are taken in parts.
        for part in parts(&text) {
            self.encode_part(vocabulary, part, ids);
        }
    }

    fn encode_part(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) {
        let mut work = Work { tokenizer: self, vocabulary, text: text.as_bytes(), symbols: symbols(text), queue: BinaryHeap::new() };
        work.join_all();
        let mut at = 0;
        while let Some(symbol) = work.symbols.get(at as usize) {
            self.push(vocabulary, &work.text[symbol.start..symbol.start + symbol.bytes], ids);
            at = symbol.right;
        }
    }

    fn push(&self, vocabulary: &Vocabulary, piece: &[u8], ids: &mut Vec<u32>) {
        match vocabulary.find(piece) {
            Some(id) => ids.push(id),
            None => ids.extend(piece.iter().filter_map(|byte| self.bytes[usize::from(*byte)].or(self.unknown))),
        }
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    const MAX_BYTES: usize = 1 << 30;
    let mut rest = text;
    std::iter::from_fn(move || {
        let (part, after) = rest.split_at(rest.floor_char_boundary(MAX_BYTES));
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

/// One symbol for each character.
fn symbols(text: &str) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = (0_u32..)
        .zip(text.char_indices())
        .map(|(index, (start, c))| Symbol { start, bytes: c.len_utf8(), left: index.wrapping_sub(1), right: index + 1 })
        .collect();
    if let Some(last) = symbols.last_mut() {
        last.right = NONE;
    }
    symbols
}

struct Work<'a> {
    tokenizer: &'a SentencePiece,
    vocabulary: &'a Vocabulary,
    text: &'a [u8],
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Pair>,
}

impl Work<'_> {
    fn join_all(&mut self) {
        for (left, right) in (0_u32..).zip(1..u32::try_from(self.symbols.len()).unwrap_or(NONE)) {
            self.offer(left, right);
        }
        while let Some(pair) = self.queue.pop() {
            let (left, right) = (self.symbols[pair.left as usize], self.symbols[pair.right as usize]);
            if left.bytes == 0 || right.bytes == 0 || left.bytes + right.bytes != pair.bytes {
                continue;
            }
            self.join(pair, right);
            self.offer(left.left, pair.left);
            self.offer(pair.left, right.right);
        }
    }

    fn join(&mut self, pair: Pair, right: Symbol) {
        let left = &mut self.symbols[pair.left as usize];
        left.bytes = pair.bytes;
        left.right = right.right;
        self.symbols[pair.right as usize].bytes = 0;
        if let Some(next) = self.symbols.get_mut(right.right as usize) {
            next.left = pair.left;
        }
    }

    /// Queues two neighbours, if both are there and together are a piece.
    fn offer(&mut self, left: u32, right: u32) {
        let (Some(first), Some(second)) = (self.symbols.get(left as usize), self.symbols.get(right as usize)) else { return };
        let bytes = first.bytes + second.bytes;
        if let Some(id) = self.vocabulary.find(&self.text[first.start..first.start + bytes]) {
            self.queue.push(Pair { score: self.tokenizer.scores[id as usize], left, right, bytes });
        }
    }
}
