//! Which prompts a runner still knows, as llama-server keeps them: one in each slot, and older ones in host memory.
//!
//! Pure. Tokens are words ([`ids`]); what is reused is the longest common prefix, to the token. The rules are those of
//! llama.cpp b10488: the idle slot that shares most with the new prompt (more than a tenth of it), else the one unused
//! longest; a slot that would keep less than half of its old prompt saves it first, and takes the best saved one if that
//! shares more. Saved prompts leave in the order they came when there are too many tokens of them. It knows neither
//! checkpoints nor the shifting of chunks.

use super::answer::hash;
use std::collections::VecDeque;

/// What a slot must share with a new prompt to be preferred, as a part of that prompt.
const SIMILAR: f64 = 0.1;
/// A slot that keeps less than this of its old prompt saves it.
const KEEPS: f64 = 0.5;
/// A saved prompt of which less than this would be used stays where it is.
const WORTH: f64 = 0.25;

/// Tokens of a text: its beginning, its words. Case does not matter, so that roles are spelled as one likes.
pub(super) fn ids(text: &str) -> Vec<u64> {
    std::iter::once(0).chain(text.split_whitespace().map(|word| hash(&word.to_ascii_lowercase()))).collect()
}

/// The tokens of a prompt of which `count` are processed: padded where blanks count too, its middle thrown away where it was cut.
pub(super) fn processed(mut ids: Vec<u64>, count: usize, keep: usize) -> Vec<u64> {
    if ids.len() > count {
        let keep = keep.min(count);
        let tail = ids.split_off(ids.len() - (count - keep));
        ids.truncate(keep);
        ids.extend(tail);
    }
    ids.resize(count, 1);
    ids
}

fn common(a: &[u64], b: &[u64]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[expect(clippy::cast_precision_loss, reason = "tokens are few")]
fn part(of: usize, whole: usize) -> f64 {
    of as f64 / whole.max(1) as f64
}

#[derive(Debug, Default, Clone)]
struct Slot {
    tokens: Vec<u64>,
    used: u64,
    busy: bool,
}

#[derive(Debug)]
pub(super) struct Cache {
    slots: Vec<Slot>,
    saved: VecDeque<Vec<u64>>,
    /// Tokens that may be saved.
    bound: usize,
    clock: u64,
}

impl Cache {
    pub fn new(slots: usize, bound: usize) -> Self {
        Self { slots: vec![Slot::default(); slots], saved: VecDeque::new(), bound, clock: 0 }
    }

    /// Takes an idle slot for a prompt; gives its number and how many tokens need no work. None: all are busy.
    pub fn take(&mut self, prompt: &[u64]) -> Option<(usize, usize)> {
        self.clock += 1;
        let idle = || self.slots.iter().enumerate().filter(|(_, slot)| !slot.busy);
        let similar = idle()
            .map(|(number, slot)| (common(&slot.tokens, prompt), number))
            .filter(|(shared, _)| part(*shared, prompt.len()) > SIMILAR)
            .max_by_key(|(shared, number)| (*shared, std::cmp::Reverse(*number)));
        let (number, keeps) = match similar {
            Some((shared, number)) => (number, part(shared, self.slots[number].tokens.len())),
            None => (idle().min_by_key(|(_, slot)| slot.used)?.0, 0.0),
        };
        if keeps < KEEPS {
            self.exchange(number, prompt);
        }
        let slot = &mut self.slots[number];
        (slot.busy, slot.used) = (true, self.clock);
        // The last token is always worked on: its result is the first of the answer.
        Some((number, common(&slot.tokens, prompt).min(prompt.len().saturating_sub(1))))
    }

    /// Saves what a slot holds and puts the best saved prompt in its place.
    fn exchange(&mut self, number: usize, prompt: &[u64]) {
        let old = std::mem::take(&mut self.slots[number].tokens);
        let mut best = (part(common(&old, prompt), old.len()), common(&old, prompt), None);
        if !old.is_empty() && !self.saved.iter().any(|saved| saved.starts_with(&old)) {
            self.saved.retain(|saved| !old.starts_with(saved));
            self.saved.push_back(old.clone());
        }
        for (place, saved) in self.saved.iter().enumerate() {
            let shared = common(saved, prompt);
            let kept = part(shared, saved.len());
            if kept >= WORTH && kept > best.0 && shared > best.1 {
                best = (kept, shared, Some(place));
            }
        }
        self.slots[number].tokens = match best.2 {
            Some(place) => self.saved.remove(place).unwrap_or_default(),
            None => old,
        };
        while self.saved.iter().map(Vec::len).sum::<usize>() > self.bound {
            self.saved.pop_front();
        }
    }

    /// A slot is idle again and holds these tokens.
    pub fn give_back(&mut self, number: usize, tokens: Vec<u64>) {
        if let Some(slot) = self.slots.get_mut(number) {
            slot.tokens = tokens;
            slot.busy = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(conversation: u64, length: u64) -> Vec<u64> {
        (0..length).map(|token| conversation * 1_000_000 + token).collect()
    }

    fn cached(cache: &mut Cache, prompt: &[u64]) -> usize {
        let (slot, cached) = cache.take(prompt).expect("a slot is idle");
        cache.give_back(slot, prompt.to_vec());
        cached
    }

    #[test]
    fn a_repeated_prompt_costs_one_token_and_another_ending_costs_the_ending() {
        let mut cache = Cache::new(1, 10_000);
        assert_eq!(cached(&mut cache, &prompt(1, 362)), 0);
        assert_eq!(cached(&mut cache, &prompt(1, 362)), 361);
        let other = [prompt(1, 300), prompt(2, 62)].concat();
        assert_eq!(cached(&mut cache, &other), 300);
    }

    #[test]
    fn a_conversation_comes_back_from_memory() {
        let mut cache = Cache::new(1, 10_000);
        cached(&mut cache, &prompt(1, 1_000));
        assert_eq!(cached(&mut cache, &prompt(2, 1_000)), 0);
        assert_eq!(cached(&mut cache, &prompt(1, 1_200)), 1_000);
        assert_eq!(cached(&mut cache, &prompt(2, 1_200)), 1_000);
    }

    /// Measured by users: a few conversations in turn stay warm, some more and all of them are lost each time.
    #[test]
    fn too_many_conversations_in_turn_are_all_lost() {
        let hits = |conversations: u64| {
            let mut cache = Cache::new(1, 5_000);
            let turns = (0..4).flat_map(|_| 0..conversations);
            turns.filter(|conversation| cached(&mut cache, &prompt(*conversation, 1_000)) > 0).count()
        };
        assert_eq!(hits(5), 15);
        assert_eq!(hits(8), 0);
    }

    #[test]
    fn each_conversation_goes_to_the_slot_that_knows_it() {
        let mut cache = Cache::new(2, 0);
        let (first, _) = cache.take(&prompt(1, 100)).expect("idle");
        let (second, _) = cache.take(&prompt(2, 100)).expect("idle");
        assert!(cache.take(&prompt(3, 100)).is_none());
        cache.give_back(first, prompt(1, 100));
        cache.give_back(second, prompt(2, 100));
        assert_eq!(cache.take(&prompt(2, 120)), Some((second, 100)));
        assert_eq!(cache.take(&prompt(1, 120)), Some((first, 100)));
    }

    #[test]
    fn a_cut_prompt_keeps_its_head_and_its_end() {
        assert_eq!(processed((0..10).collect(), 6, 2), [0, 1, 6, 7, 8, 9]);
        assert_eq!(processed(vec![0, 7], 3, 5), [0, 7, 1]);
        assert_eq!(ids("A b"), ids("a  B\n"));
    }
}
