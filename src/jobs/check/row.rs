//! What two models expect at one place of a text, from the logits of both. Pure; sums in double precision over the whole vocabulary.

use crate::lm::measure::largest;

/// One place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    /// −ln p of the token that came, to the reference and to the candidate.
    pub reference_loss: f64,
    pub candidate_loss: f64,
    /// KL(reference ‖ candidate) = Σ p ln(p/q), in nats.
    pub divergence: f64,
    /// Whether both expected the same token above all.
    pub agrees: bool,
}

/// ln Σ exp(logits), and the largest logit.
struct Normaliser {
    largest: f64,
    ln_sum: f64,
}

impl Normaliser {
    fn of(logits: &[f32]) -> Self {
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
        Self { largest, ln_sum: largest + sum.ln() }
    }
}

/// Compares two rows of logits of which the token `next` followed. `None`: one of them holds what is no number, or `next` is outside.
pub(super) fn compare(reference: &[f32], candidate: &[f32], next: u32) -> Option<Row> {
    let next = next as usize;
    if reference.len() != candidate.len() || next >= reference.len() {
        return None;
    }
    let (p, q) = (Normaliser::of(reference), Normaliser::of(candidate));
    let divergence = divergence(reference, candidate, &p, &q);
    let row = Row {
        reference_loss: p.ln_sum - f64::from(reference[next]),
        candidate_loss: q.ln_sum - f64::from(candidate[next]),
        divergence,
        agrees: largest(reference) == largest(candidate),
    };
    (row.reference_loss.is_finite() && row.candidate_loss.is_finite() && row.divergence.is_finite()).then_some(row)
}

/// Σ p (ln p − ln q) = Σ p (a − b) − (ln Z_a − ln Z_b): equal rows give exactly 0.
fn divergence(reference: &[f32], candidate: &[f32], p: &Normaliser, q: &Normaliser) -> f64 {
    let mut sum = 0.0;
    for (a, b) in reference.iter().zip(candidate) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        let weight = (a - p.largest).exp();
        // What cannot come at all adds nothing; its difference may be no number.
        if weight > 0.0 {
            sum += weight * (a - b);
        }
    }
    let total = (p.ln_sum - p.largest).exp();
    // Rounding may leave what should be 0 a little below it.
    (sum / total - (p.ln_sum - q.ln_sum)).max(0.0) + if sum.is_nan() { f64::NAN } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By the definition, from probabilities.
    fn plain(reference: &[f32], candidate: &[f32]) -> f64 {
        let softmax = |logits: &[f32]| {
            let powers: Vec<f64> = logits.iter().map(|l| f64::from(*l).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.into_iter().map(|power| power / sum).collect::<Vec<_>>()
        };
        softmax(reference).iter().zip(softmax(candidate)).map(|(p, q)| p * (p / q).ln()).sum()
    }

    #[test]
    fn equal_rows_differ_by_nothing_at_all() {
        let row = [1.5_f32, -3.0, 0.25, 7.0];
        let found = compare(&row, &row, 2).expect("numbers");
        assert_eq!((found.divergence, found.reference_loss - found.candidate_loss), (0.0, 0.0));
        assert!(found.agrees);
    }

    #[test]
    fn a_known_case() {
        // p = (1/2, 1/2), q = (3/4, 1/4): KL = ½ ln(2/3) + ½ ln 2 = ½ ln(4/3).
        let found = compare(&[0.0, 0.0], &[3.0_f32.ln(), 0.0], 1).expect("numbers");
        assert!((found.divergence - 0.5 * (4.0_f64 / 3.0).ln()).abs() < 1e-7);
        assert!((found.reference_loss - 2.0_f64.ln()).abs() < 1e-12 && (found.candidate_loss - 4.0_f64.ln()).abs() < 1e-7);
    }

    #[test]
    fn what_is_no_number_is_told() {
        assert_eq!(compare(&[0.0, f32::NAN], &[0.0, 1.0], 0), None);
        assert_eq!(compare(&[0.0, 1.0], &[f32::NAN, 1.0], 1), None);
        assert_eq!(compare(&[0.0, 1.0], &[0.0, f32::INFINITY], 1), None);
        assert_eq!(compare(&[0.0, 1.0], &[f32::NEG_INFINITY, 1.0], 1), None, "the candidate rules out what may come");
        assert_eq!(compare(&[0.0], &[0.0, 1.0], 0), None);
        assert_eq!(compare(&[0.0, 1.0], &[0.0, 1.0], 2), None);
        assert!(compare(&[f32::NEG_INFINITY, 1.0], &[f32::NEG_INFINITY, 1.0], 1).is_some_and(|row| row.divergence == 0.0));
    }

    proptest! {
        #[test]
        fn it_is_what_the_definition_says(
            pairs in proptest::collection::vec((-20.0_f32..20.0, -20.0_f32..20.0), 1..50),
            next in 0_usize..50,
        ) {
            let (reference, candidate): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let next = u32::try_from(next % reference.len()).expect("small");
            let found = compare(&reference, &candidate, next).expect("numbers");
            prop_assert!((found.divergence - plain(&reference, &candidate)).abs() < 1e-9);
            prop_assert!(found.divergence >= 0.0 && found.reference_loss >= 0.0);
        }
    }
}
