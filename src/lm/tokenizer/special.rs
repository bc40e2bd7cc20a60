//! Finding the tokens that a text names outright, before the rest of it is broken up.
//!
//! Leftmost first, the longest at each place. llama.cpp looks for the longest names in the whole text first, which differs only
//! where two names overlap in part; no known vocabulary has such names.

use std::collections::{HashMap, HashSet};

use super::{Kind, Vocabulary};

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    Text(&'a str),
    /// One that is named, with the bytes of the text that its name takes, and the white space that goes with it.
    Token(u32, usize),
}

/// The names as a tree of bytes.
#[derive(Debug)]
pub(super) struct Special {
    /// From a node and a byte to the next node. The root is 0.
    edges: HashMap<(u32, u8), u32>,
    /// Which name ends at a node.
    ends: Vec<Option<(u32, Kind)>>,
    /// First bytes of the names, to pass over all else quickly.
    first: [bool; 256],
    /// Tokens that take the white space behind them with them.
    greedy: HashSet<u32>,
}

/// Names that never take the white space behind them.
const NEVER_GREEDY: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];

impl Special {
    /// `greedy`: the model was trained with the white space behind its tokens left out, as Phi 3 was.
    pub(super) fn new(vocabulary: &Vocabulary, greedy: bool) -> Self {
        let mut special = Self { edges: HashMap::new(), ends: vec![None], first: [false; 256], greedy: HashSet::new() };
        for (id, name, kind) in vocabulary.specials() {
            if greedy && !NEVER_GREEDY.contains(&name) {
                special.greedy.insert(id);
            }
            // A name that is no text cannot be cut out of one.
            if let (Some(first), Ok(_)) = (name.first(), std::str::from_utf8(name)) {
                special.first[usize::from(*first)] = true;
                special.insert(name, id, kind);
            }
        }
        special
    }

    fn insert(&mut self, name: &[u8], id: u32, kind: Kind) {
        let mut node = 0;
        for byte in name {
            let ends = &mut self.ends;
            node = *self.edges.entry((node, *byte)).or_insert_with(|| {
                ends.push(None);
                u32::try_from(ends.len() - 1).unwrap_or(0)
            });
        }
        self.ends[node as usize] = Some((id, kind));
    }

    /// The longest name that `text` begins with, and its length.
    fn longest(&self, text: &[u8], parse_special: bool) -> Option<(u32, usize)> {
        let mut found = None;
        let mut node = 0;
        for (length, byte) in (1..).zip(text) {
            let Some(next) = self.edges.get(&(node, *byte)) else { break };
            node = *next;
            if let Some((id, kind)) = self.ends[node as usize]
                && (parse_special || kind == Kind::UserDefined)
            {
                found = Some((id, length));
            }
        }
        found
    }

    /// The text with a marker behind the first character of every name of a token that is no text.
    pub(super) fn defuse(&self, text: &str, marker: char) -> String {
        let mut out = String::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            out.push(c);
            if self.first[usize::from(text.as_bytes()[at])] && self.begins_control(&text.as_bytes()[at..]) {
                out.push(marker);
            }
        }
        out
    }

    fn begins_control(&self, text: &[u8]) -> bool {
        let mut node = 0;
        for byte in text {
            let Some(next) = self.edges.get(&(node, *byte)) else { return false };
            node = *next;
            if self.ends[node as usize].is_some_and(|(_, kind)| kind != Kind::UserDefined) {
                return true;
            }
        }
        false
    }

    /// The text as named tokens and what lies between them, none of it empty.
    pub(super) fn fragments<'a>(&self, text: &'a str, parse_special: bool) -> Vec<Fragment<'a>> {
        let mut fragments = Vec::new();
        let (mut done, mut at) = (0, 0);
        while at < text.len() {
            let found =
                if self.first[usize::from(text.as_bytes()[at])] { self.longest(&text.as_bytes()[at..], parse_special) } else { None };
            let Some((id, length)) = found else {
                at += 1;
                continue;
            };
            if done < at {
                fragments.push(Fragment::Text(&text[done..at]));
            }
            let blank = if self.greedy.contains(&id) { blank_bytes(&text[at + length..]) } else { 0 };
            fragments.push(Fragment::Token(id, length + blank));
            at += length + blank;
            done = at;
        }
        if done < text.len() {
            fragments.push(Fragment::Text(&text[done..]));
        }
        fragments
    }
}

/// White space that a text begins with, as C's `isspace` knows it.
fn blank_bytes(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_whitespace() || *byte == 0x0b).count()
}
