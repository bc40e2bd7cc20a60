//! What rows of tokens are like, as numbers.

use serde::{Deserialize, Serialize};

use super::encoder::{Dropped, Encoded};
use crate::jobs::dataset::example::Example;
use crate::jobs::dataset::report::Tally;

/// Numbers of the rows of one side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    pub rows: u64,
    pub tokens: u64,
    /// Tokens that are learnt.
    pub labels: u64,
    /// Lengths of rows, in tokens.
    pub p50_tokens: u32,
    pub p95_tokens: u32,
    pub max_tokens: u32,
    /// Rows that lost their end, or are pieces of a longer text.
    pub cut: u64,
    /// Rows in which names of control tokens were read as text.
    pub defused: u64,
    /// Rows with an answer that no token ends.
    pub unended: u64,
    /// Rows that cannot be trained on, by reason.
    pub dropped: Tally,
}

impl Statistics {
    /// Share of the tokens that are learnt.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn label_share(&self) -> f64 {
        self.labels as f64 / self.tokens.max(1) as f64
    }
}

/// Counts as rows come.
#[derive(Debug, Default)]
pub(super) struct Counting {
    statistics: Statistics,
    lengths: Vec<u32>,
}

impl Counting {
    pub fn add(&mut self, encoded: &Encoded) {
        let all = &mut self.statistics;
        for row in &encoded.rows {
            self.lengths.push(u32::try_from(row.tokens.len()).unwrap_or(u32::MAX));
            all.tokens += row.tokens.len() as u64;
            all.labels += row.weights.iter().skip(1).filter(|weight| **weight != 0.0).count() as u64;
        }
        let count = encoded.rows.len() as u64;
        all.rows += count;
        all.cut += if encoded.cut { count } else { 0 };
        all.defused += if encoded.defused { count } else { 0 };
        all.unended += if encoded.unended { count } else { 0 };
    }

    pub fn drop(&mut self, dropped: &Dropped, example: &Example) {
        self.statistics.dropped.add(dropped.kind(), &format!("{}: {dropped}", example.row));
    }

    pub fn finish(mut self) -> Statistics {
        self.lengths.sort_unstable();
        let at = |per_cent: usize| self.lengths.get((self.lengths.len() * per_cent / 100).min(self.lengths.len().saturating_sub(1)));
        let all = &mut self.statistics;
        all.p50_tokens = at(50).copied().unwrap_or(0);
        all.p95_tokens = at(95).copied().unwrap_or(0);
        all.max_tokens = at(100).copied().unwrap_or(0);
        self.statistics
    }
}
