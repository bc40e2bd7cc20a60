//! What a row asks, and what it expects.

use crate::jobs::finetune::batch::Row;

/// A prompt and its answer, in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub prompt: Vec<u32>,
    /// With the token that ends it, where the row has one.
    pub expected: Vec<u32>,
}

impl Item {
    /// What is foretold last in a row is its answer, and everything before it the prompt. `None`: nothing is, or nothing comes before it.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        let counts = |index: usize| row.weights.get(index).is_some_and(|weight| *weight != 0.0);
        let end = (0..row.tokens.len()).rev().find(|index| counts(*index))? + 1;
        let start = (0..end).rev().take_while(|index| counts(*index)).last().unwrap_or(end);
        // The first token of a row is foretold from nothing.
        let start = start.max(1);
        (start < end).then(|| Self { prompt: row.tokens[..start].to_vec(), expected: row.tokens[start..end].to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(weights: &[f32]) -> Option<(usize, usize)> {
        let row = Row { tokens: (0..).take(weights.len()).collect(), weights: weights.to_vec() };
        Item::of(&row).map(|item| (item.prompt.len(), item.expected.len()))
    }

    #[test]
    fn the_last_run_of_what_is_foretold_is_the_answer() {
        assert_eq!(item(&[0.0, 0.0, 1.0, 1.0]), Some((2, 2)));
        assert_eq!(item(&[0.0, 1.0, 1.0, 0.0, 1.0, 0.0]), Some((4, 1)));
        assert_eq!(item(&[1.0, 1.0, 1.0]), Some((1, 2)));
        assert_eq!(item(&[0.0, 0.0]), None);
        assert_eq!(item(&[1.0]), None);
        assert_eq!(item(&[]), None);
    }
}
