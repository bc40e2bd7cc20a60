//! What is read in one pass: rows of tokens, one behind the other, without padding and without attention from one to another.

use std::io;
use std::ops::Range;

/// A row of a data set, as tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    pub tokens: Vec<u32>,
    /// How much each token counts as something to be foretold; 0: it is only read. That of the first token does not matter, since nothing
    /// comes before it.
    pub weights: Vec<f32>,
}

/// The rows of a data set, wherever they lie. Of preferences, row 2i is the one that is preferred to row 2i + 1.
pub trait Rows: Send + Sync {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of a row; 0 for one that is not there.
    fn length(&self, index: usize) -> usize;

    /// # Errors
    /// When it cannot be read, or is not there.
    fn row(&self, index: usize) -> io::Result<Row>;
}

impl Rows for Vec<Row> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn length(&self, index: usize) -> usize {
        self.get(index).map_or(0, |row| row.tokens.len())
    }

    fn row(&self, index: usize) -> io::Result<Row> {
        self.get(index).cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no row {index}")))
    }
}

/// Rows that are read together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Of all rows, one behind the other.
    pub tokens: Vec<u32>,
    /// Of each token in its own row, from 0.
    pub positions: Vec<u32>,
    /// Where rows begin, and the end of the last: one more than there are rows.
    pub starts: Vec<usize>,
    /// What is to be foretold, in ascending order of places.
    pub labels: Vec<Label>,
}

/// A token that is to be foretold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Label {
    /// The place in [`Batch::tokens`] from whose hidden state it is foretold: that of the token before it.
    pub place: usize,
    pub token: u32,
    /// What −log p of the token is multiplied with in the loss. May be negative (what is to become less likely).
    pub weight: f32,
}

impl Batch {
    /// Puts a row behind those that are there. Rows of no tokens are passed over.
    pub fn push(&mut self, row: &Row) {
        if row.tokens.is_empty() {
            return;
        }
        let start = self.tokens.len();
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        self.tokens.extend(&row.tokens);
        self.positions.extend((0_u32..).take(row.tokens.len()));
        self.starts.push(self.tokens.len());
        let labels = row.tokens.iter().zip(&row.weights).enumerate().skip(1).filter(|(_, (_, weight))| **weight != 0.0);
        self.labels.extend(labels.map(|(index, (&token, &weight))| Label { place: start + index - 1, token, weight }));
    }

    /// The places of each row.
    pub fn rows(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.starts.windows(2).map(|ends| ends[0]..ends[1])
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_foretold_from_the_token_before_them_and_never_across_a_seam() {
        let mut batch = Batch::default();
        batch.push(&Row { tokens: vec![1, 2, 3], weights: vec![9.0, 0.0, 1.0] });
        batch.push(&Row::default());
        batch.push(&Row { tokens: vec![4, 5], weights: vec![9.0, 0.5] });
        assert_eq!((batch.tokens.as_slice(), batch.positions.as_slice()), ([1, 2, 3, 4, 5].as_slice(), [0, 1, 2, 0, 1].as_slice()));
        assert_eq!(batch.rows().collect::<Vec<_>>(), [0..3, 3..5]);
        assert_eq!(batch.labels, [Label { place: 1, token: 3, weight: 1.0 }, Label { place: 3, token: 5, weight: 0.5 }]);
    }
}
