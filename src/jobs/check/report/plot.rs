//! The plot of divergences.

use std::fmt::Write as _;

use crate::jobs::check::sums::{BINS, FIRST_POWER};
use crate::jobs::page::svg::{BELOW, HEIGHT, WIDTH, open};

/// How many tokens have which divergence, by powers of ten.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn histogram(bins: &[u64]) -> String {
    let most = bins.iter().copied().max().unwrap_or(0).max(1) as f64;
    let step = WIDTH / BINS as f64;
    let mut svg = open(WIDTH, HEIGHT + BELOW, "How many tokens have which divergence");
    for (index, count) in bins.iter().enumerate() {
        let height = HEIGHT * *count as f64 / most;
        let (x, y) = (step * index as f64, HEIGHT - height);
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{count} tokens</title></rect>",
            x + 1.0,
            step - 2.0
        );
    }
    for index in (0..=BINS).step_by(4) {
        let power = FIRST_POWER + index as f64 / 2.0;
        let x = (step * index as f64).clamp(14.0, WIDTH - 14.0);
        let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">1e{power:.0}</text>", HEIGHT + 17.0);
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_of_nothing_is_a_plot() {
        assert!(histogram(&[0; BINS]).ends_with("</svg>"));
    }
}
