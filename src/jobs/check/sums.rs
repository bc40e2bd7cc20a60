//! From single places of a text to the figures of a report. Pure.

use serde::Serialize;

use super::Both;
use super::row::Row;

/// A figure and its standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figure {
    pub value: f64,
    pub error: f64,
}

/// Running mean and spread (Welford, *Technometrics* 4, 1962): exact enough for any number of values.
#[derive(Debug, Clone, Copy, Default)]
struct Running {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Running {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let before = value - self.mean;
        self.mean += before / self.count;
        self.squares += before * (value - self.mean);
    }

    /// Chan, Golub and LeVeque, 1979.
    fn join(&mut self, other: Self) {
        let count = self.count + other.count;
        if count > 0.0 {
            let apart = other.mean - self.mean;
            self.squares += other.squares + apart * apart * self.count * other.count / count;
            self.mean += apart * other.count / count;
            self.count = count;
        }
    }

    fn figure(self) -> Figure {
        let error = if self.count > 1.0 { (self.squares / (self.count - 1.0) / self.count).sqrt() } else { 0.0 };
        Figure { value: self.mean, error }
    }

    /// exp of the mean; its error follows from the derivative.
    fn exponential(self) -> Figure {
        let Figure { value, error } = self.figure();
        Figure { value: value.exp(), error: value.exp() * error }
    }
}

/// What was found at all places of a text so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    losses: Both<Running>,
    /// Candidate less reference, place by place: their common ups and downs drop out.
    loss_apart: Running,
    divergence: Running,
    agreement: Running,
    divergences: Vec<f64>,
    /// Places where a model gave no numbers.
    broken: u64,
}

impl Tally {
    /// `None`: a place where there were no numbers.
    pub fn add(&mut self, row: Option<Row>) {
        let Some(row) = row else {
            self.broken += 1;
            return;
        };
        self.losses.reference.add(row.reference_loss);
        self.losses.candidate.add(row.candidate_loss);
        self.loss_apart.add(row.candidate_loss - row.reference_loss);
        self.divergence.add(row.divergence);
        self.agreement.add(if row.agrees { 1.0 } else { 0.0 });
        self.divergences.push(row.divergence);
    }

    pub fn join(&mut self, other: &Self) {
        self.losses.reference.join(other.losses.reference);
        self.losses.candidate.join(other.losses.candidate);
        self.loss_apart.join(other.loss_apart);
        self.divergence.join(other.divergence);
        self.agreement.join(other.agreement);
        self.divergences.extend_from_slice(&other.divergences);
        self.broken += other.broken;
    }

    pub fn comparison(&self) -> Comparison {
        let mut sorted = self.divergences.clone();
        sorted.sort_by(f64::total_cmp);
        let ratio = self.loss_apart.exponential();
        Comparison {
            tokens: sorted.len() as u64,
            broken_tokens: self.broken,
            perplexity: self.losses.map(Running::exponential),
            perplexity_ratio: ratio,
            divergence: self.divergence.figure(),
            divergence_median: quantile(&sorted, 0.5),
            divergence_p90: quantile(&sorted, 0.9),
            divergence_p99: quantile(&sorted, 0.99),
            divergence_max: sorted.last().copied().unwrap_or_default(),
            top_agreement: self.agreement.figure(),
            histogram: histogram(&sorted),
        }
    }
}

/// The figures of a text. Divergences are in nats, shares from 0 to 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    pub tokens: u64,
    pub broken_tokens: u64,
    pub perplexity: Both<Figure>,
    /// The candidate's as a multiple of the reference's; the error is that of the paired difference.
    pub perplexity_ratio: Figure,
    /// Mean of KL(reference ‖ candidate).
    pub divergence: Figure,
    pub divergence_median: f64,
    pub divergence_p90: f64,
    pub divergence_p99: f64,
    pub divergence_max: f64,
    pub top_agreement: Figure,
    /// Tokens by the power of ten of their divergence, two bins a power, from 1e-8 to 1e2; what is outside counts at the ends.
    pub histogram: Vec<u64>,
}

/// Bins of [`Comparison::histogram`] and where they begin.
pub(super) const BINS: usize = 20;
pub(super) const FIRST_POWER: f64 = -8.0;
const BINS_A_POWER: f64 = 2.0;

/// Of sorted values; the nearest one that is there.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index, between 0 and the last one"
)]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    sorted[((last as f64 * share).round() as usize).min(last)]
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded on both sides before")]
fn histogram(divergences: &[f64]) -> Vec<u64> {
    let mut bins = vec![0; BINS];
    for divergence in divergences {
        let at = (divergence.max(1e-300).log10() - FIRST_POWER) * BINS_A_POWER;
        bins[(at.max(0.0) as usize).min(BINS - 1)] += 1;
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(loss: f64, apart: f64, divergence: f64, agrees: bool) -> Row {
        Row { reference_loss: loss, candidate_loss: loss + apart, divergence, agrees }
    }

    #[test]
    fn figures_of_a_small_text() {
        let mut tally = Tally::default();
        for (loss, agrees) in [(1.0, true), (2.0, true), (3.0, false), (2.0, true)] {
            tally.add(Some(row(loss, 0.1, 0.01 * loss, agrees)));
        }
        tally.add(None);
        let found = tally.comparison();
        assert_eq!((found.tokens, found.broken_tokens), (4, 1));
        assert!((found.perplexity.reference.value - 2.0_f64.exp()).abs() < 1e-12);
        // The spread of 1, 2, 3, 2 is √(2/3); its standard error a half of that.
        assert!((found.perplexity.reference.error / 2.0_f64.exp() - (2.0_f64 / 3.0).sqrt() / 2.0).abs() < 1e-12);
        assert!((found.perplexity_ratio.value - 0.1_f64.exp()).abs() < 1e-12 && found.perplexity_ratio.error < 1e-12);
        assert!((found.divergence.value - 0.02).abs() < 1e-12 && (found.top_agreement.value - 0.75).abs() < 1e-12);
        assert!((found.divergence_max - 0.03).abs() < 1e-12);
        assert_eq!(found.histogram.iter().sum::<u64>(), 4);
    }

    #[test]
    fn nothing_gives_no_figures_and_no_panic() {
        let found = Tally::default().comparison();
        assert_eq!((found.tokens, found.divergence_p99), (0, 0.0));
        assert!(found.divergence.value.abs() < 1e-300);
    }

    proptest! {
        #[test]
        fn parts_joined_are_the_whole(values in proptest::collection::vec((0.0_f64..10.0, -1.0_f64..1.0, 0.0_f64..3.0, any::<bool>()), 2..60), at in 0_usize..60) {
            let rows: Vec<Row> = values.into_iter().map(|(loss, apart, divergence, agrees)| row(loss, apart, divergence, agrees)).collect();
            let (mut whole, mut first, mut second) = (Tally::default(), Tally::default(), Tally::default());
            for (index, row) in rows.iter().enumerate() {
                whole.add(Some(*row));
                if index < at { first.add(Some(*row)) } else { second.add(Some(*row)) }
            }
            first.join(&second);
            let (whole, joined) = (whole.comparison(), first.comparison());
            prop_assert!((whole.divergence.value - joined.divergence.value).abs() < 1e-9);
            prop_assert!((whole.divergence.error - joined.divergence.error).abs() < 1e-9);
            prop_assert!((whole.perplexity_ratio.value - joined.perplexity_ratio.value).abs() < 1e-9);
            prop_assert!((whole.divergence_p90 - joined.divergence_p90).abs() < 1e-12);
            prop_assert_eq!(whole.histogram, joined.histogram);
        }
    }
}
