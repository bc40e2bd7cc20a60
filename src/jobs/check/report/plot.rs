//! Plots as SVG inside a page. Colours come from the page, so that it may be light or dark.

use std::fmt::Write as _;

use super::html::escape;
use crate::jobs::check::sums::{BINS, FIRST_POWER};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 200.0;
/// Room for the names of the axis.
const BELOW: f64 = 24.0;
/// Height of one bar of a list, and the room of its name and of its figure.
const ROW: f64 = 22.0;
const NAMES: f64 = 120.0;
const FIGURES: f64 = 90.0;

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

/// Bars below each other, each with its name and its figure.
#[expect(clippy::cast_precision_loss, reason = "a few bars")]
pub(super) fn bars(title: &str, rows: &[(String, f64, String)]) -> String {
    let most = rows.iter().map(|(_, value, _)| *value).filter(|value| value.is_finite()).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let mut svg = open(WIDTH, ROW * rows.len() as f64 + 4.0, title);
    for (index, (name, value, figure)) in rows.iter().enumerate() {
        let y = ROW * index as f64;
        let value = if value.is_finite() { value.max(0.0) } else { most };
        let width = (WIDTH - NAMES - FIGURES) * value / most;
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect class=\"bar\" x=\"{NAMES}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            NAMES - 8.0,
            y + 15.0,
            escape(name),
            y + 3.0,
            ROW - 6.0,
            NAMES + width + 6.0,
            y + 15.0,
            escape(figure)
        );
    }
    svg.push_str("</svg>");
    svg
}

fn open(width: f64, height: f64, title: &str) -> String {
    let title = escape(title);
    format!("<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_of_nothing_and_of_no_numbers_are_plots() {
        assert!(histogram(&[0; BINS]).ends_with("</svg>"));
        let svg = bars("a <b>", &[("x & y".into(), f64::NAN, "?".into()), ("z".into(), 1.0, "1".into())]);
        assert!(svg.contains("x &amp; y") && svg.contains("a &lt;b&gt;") && !svg.contains("NaN"), "{svg}");
    }
}
