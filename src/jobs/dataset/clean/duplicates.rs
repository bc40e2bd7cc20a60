//! Rows that say what an earlier one said.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use crate::jobs::dataset::example::Body;
use crate::jobs::dataset::similarity::{Index, Signature};

/// What has been said so far.
#[derive(Debug)]
pub(super) struct Seen {
    exact: Option<HashSet<[u8; 16]>>,
    near: Option<Index>,
}

impl Seen {
    pub fn new(exact: bool, near: Option<f64>) -> Self {
        Self { exact: exact.then(HashSet::new), near: near.map(Index::new) }
    }

    /// Why a row is left out. One that is not is remembered.
    pub fn fault(&mut self, body: &Body) -> Option<&'static str> {
        if let Some(exact) = &mut self.exact
            && !exact.insert(said(body))
        {
            return Some("duplicate");
        }
        if let Some(near) = &mut self.near
            && let Some(signature) = Signature::of(body)
        {
            if !near.similar(&signature, true).is_empty() {
                return Some("near duplicate");
            }
            near.add(signature);
        }
        None
    }
}

/// A hash of letters and digits alone, text by text; of texts without any, of what is there instead.
fn said(body: &Body) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for text in body.texts() {
        let plain: String = text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        hasher.update(if plain.is_empty() { text.trim() } else { &plain });
        hasher.update([0xff]);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize()[..16]);
    half
}
