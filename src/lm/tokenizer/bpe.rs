//! Byte-level BPE: each word begins as single bytes, and the pair with the earliest merge is joined until none is left.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::split::Rules;
use super::vocabulary::Vocabulary;
use super::{Error, checked_id};
use crate::gguf::Metadata;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Bpe {
    rules: Rules,
    /// From two neighbours to the rank of their merge and what they become.
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// The token of each byte; `NONE` where there is none.
    bytes: Box<[u32; 256]>,
}

/// A part of a word that is one token so far.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    /// `NONE` once it was joined to its left neighbour.
    id: u32,
    left: u32,
    right: u32,
}

/// Rank, then place: what is joined first. With both ids, to see whether the symbols have changed since.
type Candidate = Reverse<(u32, u32, u32, u32, u32)>;

impl Bpe {
    pub(super) fn new(metadata: &Metadata, vocabulary: &Vocabulary, rules: Rules) -> Result<Self, Error> {
        const MERGES: &str = "tokenizer.ggml.merges";
        let lines = metadata.strings(MERGES).ok_or(Error::Missing { key: MERGES })?;
        let mut merges = HashMap::with_capacity(lines.len());
        for (rank, line) in (0_u32..).zip(lines.iter()) {
            // A merge of or into something that is no token can never be used.
            if let Some((pair, whole)) = merge(vocabulary, line) {
                merges.entry(pair).or_insert((rank, whole));
            }
        }
        let unknown = checked_id(metadata, vocabulary, "tokenizer.ggml.unknown_token_id")?.unwrap_or(NONE);
        let mut bytes = Box::new([NONE; 256]);
        for (byte, id) in (0_u8..=255).zip(bytes.iter_mut()) {
            *id = vocabulary.find(&[byte]).unwrap_or(unknown);
        }
        Ok(Self { rules, merges, bytes })
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) {
        let mut work = Work { merges: &self.merges, symbols: Vec::new(), queue: BinaryHeap::new() };
        self.rules.each_word(text, |word| match vocabulary.find(word.as_bytes()) {
            Some(id) if self.rules.ignore_merges || word.len() == 1 => ids.push(id),
            _ => work.encode(word.bytes().map(|byte| self.bytes[usize::from(byte)]), ids),
        });
    }
}

/// A line `left right` of the list of merges, as tokens.
fn merge(vocabulary: &Vocabulary, line: &[u8]) -> Option<((u32, u32), u32)> {
    // The space is the one after the first character: a left part is never empty.
    let space = 1 + line.get(1..)?.iter().position(|byte| *byte == b' ')?;
    let (left, right) = (decode(&line[..space])?, decode(&line[space + 1..])?);
    let whole = vocabulary.find(&[&left[..], &right[..]].concat())?;
    Some(((vocabulary.find(&left)?, vocabulary.find(&right)?), whole))
}

struct Work<'a> {
    merges: &'a HashMap<(u32, u32), (u32, u32)>,
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Candidate>,
}

impl Work<'_> {
    fn encode(&mut self, bytes: impl Iterator<Item = u32>, ids: &mut Vec<u32>) {
        self.symbols.clear();
        self.queue.clear();
        // Bytes without a token are left out, as in llama.cpp.
        for (index, id) in (0_u32..).zip(bytes.filter(|id| *id != NONE)) {
            self.symbols.push(Symbol { id, left: index.wrapping_sub(1), right: index + 1 });
        }
        for right in 1..u32::try_from(self.symbols.len()).unwrap_or(NONE) {
            self.offer(right - 1, right);
        }
        while let Some(Reverse((_, left, right, left_id, right_id))) = self.queue.pop() {
            if self.symbols[left as usize].id == left_id && self.symbols[right as usize].id == right_id {
                self.join(left, right);
            }
        }
        ids.extend(self.symbols.iter().map(|symbol| symbol.id).filter(|id| *id != NONE));
    }

    fn join(&mut self, left: u32, right: u32) {
        let (first, second) = (self.symbols[left as usize], self.symbols[right as usize]);
        let Some((_, whole)) = self.merges.get(&(first.id, second.id)) else { return };
        self.symbols[left as usize] = Symbol { id: *whole, left: first.left, right: second.right };
        self.symbols[right as usize].id = NONE;
        if let Some(next) = self.symbols.get_mut(second.right as usize) {
            next.left = left;
        }
        self.offer(first.left, left);
        self.offer(left, second.right);
    }

    fn offer(&mut self, left: u32, right: u32) {
        let (Some(first), Some(second)) = (self.symbols.get(left as usize), self.symbols.get(right as usize)) else { return };
        if let Some((rank, _)) = self.merges.get(&(first.id, second.id)) {
            self.queue.push(Reverse((*rank, left, right, first.id, second.id)));
        }
    }
}

/// What a piece stands for: GPT-2 writes each byte as a printable character. `None` if it holds any other character.
pub(super) fn decode(piece: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(piece).ok()?.chars().map(byte_of).collect()
}

/// The byte behind one character of GPT-2's alphabet (`bytes_to_unicode` in its `encoder.py`): printable ones stand for
/// themselves, the others for U+0100 and on, in order.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_every_byte_once() {
        let mut bytes: Vec<u8> = ('\0'..='\u{200}').filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(decode("ĠHiĊ".as_bytes()), Some(b" Hi\n".to_vec()));
        assert_eq!(decode("▁".as_bytes()), None);
    }
}
