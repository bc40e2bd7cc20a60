//! Answers that are one of a few: how well each of them is recognised.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::words::ratio;

/// With more different answers than this, or longer ones, they are texts rather than labels.
const MAX_LABELS: usize = 50;
const MAX_LABEL_BYTES: usize = 64;

/// One of the answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label {
    pub label: String,
    /// Rows that expect it.
    pub expected: usize,
    /// Answers that were it.
    pub answered: usize,
    /// Of those, right ones.
    pub right: usize,
    /// 2 · right / (expected + answered).
    pub f1: f64,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Labels {
    pub labels: Vec<Label>,
    /// Mean of the labels' F1.
    pub macro_f1: f64,
}

impl Labels {
    /// `pairs` are (answer, expected). `None`: the expected answers are no labels, since hardly one comes twice, or there is only one.
    pub(super) fn of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Option<Self> {
        let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for (_, expected) in pairs.clone() {
            counts.entry(expected).or_default()[0] += 1;
        }
        let (rows, different) = (pairs.clone().count(), counts.len());
        if !(2..=MAX_LABELS).contains(&different) || 2 * different > rows || counts.keys().any(|label| label.len() > MAX_LABEL_BYTES) {
            return None;
        }
        for (answer, expected) in pairs {
            if let Some(count) = counts.get_mut(answer) {
                count[1] += 1;
                count[2] += usize::from(answer == expected);
            }
        }
        let label = |(label, [expected, answered, right]): (&str, [usize; 3])| Label {
            label: label.to_owned(),
            expected,
            answered,
            right,
            f1: ratio(2 * right, expected + answered),
        };
        let labels: Vec<Label> = counts.into_iter().map(label).collect();
        let macro_f1 = labels.iter().map(|label| label.f1).sum::<f64>() * ratio(1, labels.len());
        Some(Self { labels, macro_f1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_never_come_count_as_much_as_others() {
        let pairs = [("yes", "yes"), ("yes", "no"), ("maybe", "no"), ("yes", "yes")];
        let labels = Labels::of(pairs.into_iter()).expect("labels");
        assert_eq!(labels.labels.iter().map(|label| label.label.as_str()).collect::<Vec<_>>(), ["no", "yes"]);
        assert!((labels.labels[1].f1 - 0.8).abs() < 1e-12 && (labels.macro_f1 - 0.4).abs() < 1e-12);
    }

    #[test]
    fn texts_are_no_labels() {
        assert!(Labels::of([("a", "a b"), ("c", "c d")].into_iter()).is_none());
        assert!(Labels::of([("a", "a"), ("a", "a")].into_iter()).is_none());
    }
}
