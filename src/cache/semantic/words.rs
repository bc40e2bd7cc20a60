//! What the guards know of words: [`super::lists`] made quick to ask, and the endings of English.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::lists::{AMBIGUOUS_UNITS, EMPTY, NEGATIONS, NUMBERS, OPPOSITES, SAME, UNITS, UNITS_BEHIND_NUMBERS};

static EMPTY_SET: LazyLock<HashSet<&str>> = LazyLock::new(|| EMPTY.split_whitespace().collect());
static NEGATION_SET: LazyLock<HashSet<&str>> = LazyLock::new(|| NEGATIONS.split_whitespace().collect());
static SAME_MAP: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let line = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(stem).collect();
        let first = words.first().cloned().unwrap_or_default();
        words.into_iter().map(move |word| (word, first.clone())).collect::<Vec<_>>()
    };
    let mut map = HashMap::new();
    for (word, first) in SAME.lines().flat_map(line) {
        map.entry(word).or_insert(first);
    }
    map
});
static OPPOSITE_MAP: LazyLock<HashMap<String, Vec<Opposite>>> = LazyLock::new(|| {
    let mut map: HashMap<String, Vec<Opposite>> = HashMap::new();
    for (group, line) in (0u16..).zip(OPPOSITES.lines()) {
        for (side, words) in (0u8..).zip(line.split('|')) {
            for word in words.split_whitespace() {
                let bare = word.trim_start_matches('~');
                let opposite = Opposite { group, side, common: bare != word || is_empty(bare) };
                let known = map.entry(canonical(bare)).or_default();
                if !known.iter().any(|other| (other.group, other.side) == (group, side)) {
                    known.push(opposite);
                }
            }
        }
    }
    map
});
static NUMBER_MAP: LazyLock<HashMap<&str, u64>> =
    LazyLock::new(|| NUMBERS.iter().flat_map(|(words, value)| words.split_whitespace().map(|word| (word, *value))).collect());
static UNIT_MAP: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    let line = |line: &'static str| {
        let first = line.split_whitespace().next().unwrap_or_default();
        line.split_whitespace().map(move |word| (word, first))
    };
    UNITS.lines().flat_map(line).collect()
});

/// A side of a pair (or more) of words that exclude one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Opposite {
    pub(super) group: u16,
    pub(super) side: u8,
    /// So common that its absence says nothing.
    pub(super) common: bool,
}

/// All functions here take words in lower case.
pub(super) fn is_empty(word: &str) -> bool {
    EMPTY_SET.contains(word)
}

pub(super) fn is_negation(word: &str) -> bool {
    NEGATION_SET.contains(word)
}

pub(super) fn opposites(word: &str) -> &'static [Opposite] {
    OPPOSITE_MAP.get(&canonical(word)).map_or(&[], Vec::as_slice)
}

pub(super) fn number(word: &str) -> Option<u64> {
    NUMBER_MAP.get(word).copied()
}

/// The unit a word names; `behind_number`: whether a number stands before it.
pub(super) fn unit(word: &str, behind_number: bool) -> Option<&'static str> {
    let short = UNITS_BEHIND_NUMBERS.iter().find(|(known, _)| behind_number && *known == word).map(|(_, unit)| *unit);
    short.or_else(|| UNIT_MAP.get(word).copied().filter(|_| behind_number || !AMBIGUOUS_UNITS.contains(&word)))
}

/// The word that stands for all that mean the same, or are forms of the same.
pub(super) fn canonical(word: &str) -> String {
    let stem = stem(word);
    SAME_MAP.get(&stem).cloned().unwrap_or(stem)
}

/// A word without the endings of English grammar. Crude, and the same for both sides of a comparison.
pub(super) fn stem(word: &str) -> String {
    let mut stem = word.to_owned();
    let long = |stem: &str, length: usize| stem.chars().count() > length;
    if long(&stem, 4) && stem.ends_with("ies") {
        stem.truncate(stem.len() - 3);
        stem.push('y');
    } else if long(&stem, 4) && ["ses", "xes", "zes", "ches", "shes"].iter().any(|ending| stem.ends_with(ending)) {
        stem.truncate(stem.len() - 2);
    } else if long(&stem, 3) && stem.ends_with('s') && !["ss", "us", "is"].iter().any(|ending| stem.ends_with(ending)) {
        stem.pop();
    }
    for (ending, least) in [("ing", 5), ("ed", 4), ("ly", 5)] {
        if long(&stem, least) && stem.ends_with(ending) {
            stem.truncate(stem.len() - ending.len());
            undouble(&mut stem);
            break;
        }
    }
    if long(&stem, 3) && stem.ends_with('e') {
        stem.pop();
    }
    stem
}

/// `runn` is `run`.
fn undouble(stem: &mut String) {
    let mut last = stem.chars().rev();
    if let (Some(a), Some(b)) = (last.next(), last.next())
        && a == b
        && !"aeiouls".contains(a)
    {
        stem.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_word_are_one() {
        for (a, b) in
            [("lists", "list"), ("sorting", "sorted"), ("making", "makes"), ("cities", "city"), ("boxes", "box"), ("running", "run")]
        {
            assert_eq!(stem(a), stem(b));
        }
        assert_ne!(stem("class"), stem("clas"));
        assert_eq!(canonical("repairing"), canonical("fix"));
    }

    #[test]
    fn no_word_is_on_two_sides_of_one_line() {
        for (word, found) in OPPOSITE_MAP.iter() {
            let mut groups: Vec<_> = found.iter().map(|opposite| opposite.group).collect();
            groups.sort_unstable();
            groups.dedup();
            assert_eq!(groups.len(), found.len(), "{word}");
        }
    }

    #[test]
    fn no_two_words_that_exclude_one_another_mean_the_same() {
        for (word, first) in SAME_MAP.iter() {
            for a in OPPOSITE_MAP.get(word).into_iter().flatten() {
                for b in OPPOSITE_MAP.get(first).into_iter().flatten() {
                    assert!(a.group != b.group || a.side == b.side, "{word} {first}");
                }
            }
        }
    }
}
