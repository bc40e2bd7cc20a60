//! Plots as SVG. Colours come from the page, so that it may be light or dark; [`standalone`] brings its own.

use std::fmt::Write as _;

use super::escape;

pub(in crate::jobs) const WIDTH: f64 = 640.0;
pub(in crate::jobs) const HEIGHT: f64 = 200.0;
/// Room for the names of the axis.
pub(in crate::jobs) const BELOW: f64 = 24.0;
/// Height of one bar of a list, and the room of its name and of its figure.
const ROW: f64 = 22.0;
const NAMES: f64 = 120.0;
const FIGURES: f64 = 90.0;
/// Room for the figures beside curves, and above them.
const BESIDE: f64 = 56.0;
const ABOVE: f64 = 22.0;
/// Points of a curve, more than which nobody sees.
const MOST_POINTS: usize = 600;
/// Curves have so many colours.
const COLOURS: usize = 2;

/// Bars below each other, each with its name and its figure.
#[expect(clippy::cast_precision_loss, reason = "a few bars")]
pub(in crate::jobs) fn bars(title: &str, rows: &[(String, f64, String)]) -> String {
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

/// A name and points from left to right. What is no number is left out.
pub(in crate::jobs) type Curve<'a> = (&'a str, Vec<(f64, f64)>);

/// Curves over one axis.
pub(in crate::jobs) fn curves(title: &str, curves: &[Curve<'_>]) -> String {
    let curves: Vec<Curve<'_>> = curves.iter().map(|(name, points)| (*name, thinned(points))).collect();
    let all = || curves.iter().flat_map(|(_, points)| points);
    let (across, up) = (Axis::of(all().map(|(x, _)| *x)), Axis::of(all().map(|(_, y)| *y)));
    let place = |x: f64, y: f64| (BESIDE + (WIDTH - BESIDE - 8.0) * across.share(x), ABOVE + HEIGHT * (1.0 - up.share(y)));
    let mut svg = open(WIDTH, ABOVE + HEIGHT + BELOW, title);
    for value in up.ticks() {
        let (x, y) = place(across.least, value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{WIDTH}\" y2=\"{y:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            x - 6.0,
            y + 4.0,
            up.shown(value)
        );
    }
    for value in across.ticks() {
        let (x, y) = place(value, up.least);
        let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", y + 17.0, across.shown(value));
    }
    for (index, (name, points)) in curves.iter().enumerate() {
        curve(&mut svg, index, name, points.iter().map(|(x, y)| place(*x, *y)));
    }
    svg.push_str("</svg>");
    svg
}

#[expect(clippy::cast_precision_loss, reason = "a few curves")]
fn curve(svg: &mut String, index: usize, name: &str, places: impl Iterator<Item = (f64, f64)>) {
    let (colour, x) = (index % COLOURS, BESIDE + 150.0 * index as f64);
    let points: Vec<String> = places.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(
        svg,
        "<line class=\"curve c{colour}\" x1=\"{x:.1}\" y1=\"9\" x2=\"{:.1}\" y2=\"9\"/><text x=\"{:.1}\" y=\"13\">{}</text>\
         <polyline class=\"curve c{colour}\" points=\"{}\"/>",
        x + 18.0,
        x + 24.0,
        escape(name),
        points.join(" ")
    );
}

/// The means of as many points next to each other as are too many.
#[expect(clippy::cast_precision_loss, reason = "numbers of points")]
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let points: Vec<_> = points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let mean = |points: &[&(f64, f64)]| {
        let sum = points.iter().fold((0.0, 0.0), |sum, (x, y)| (sum.0 + x, sum.1 + y));
        (sum.0 / points.len() as f64, sum.1 / points.len() as f64)
    };
    points.chunks(points.len().div_ceil(MOST_POINTS).max(1)).map(mean).collect()
}

/// From where to where, by round steps.
struct Axis {
    least: f64,
    most: f64,
    step: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
        let (least, most) = if least < most { (least, most) } else { (least.clamp(-1e300, 1e300) - 0.5, least.clamp(-1e300, 1e300) + 0.5) };
        // A fifth of it or more: 1, 2 or 5 times a power of ten.
        let rough = (most - least) / 5.0;
        let power = 10.0_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= rough).unwrap_or(power);
        Self { least, most, step }
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.least) / (self.most - self.least)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.least / self.step).ceil();
        (0..=6).map(move |index| (first + f64::from(index)) * self.step).take_while(|value| *value <= self.most)
    }

    fn shown(&self, value: f64) -> String {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few digits")]
        let digits = (-self.step.log10().floor()).clamp(0.0, 9.0) as usize;
        format!("{value:.digits$}")
    }
}

pub(in crate::jobs) fn open(width: f64, height: f64, title: &str) -> String {
    let title = escape(title);
    format!("<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>")
}

/// A plot as a file of its own.
pub(in crate::jobs) fn standalone(svg: &str) -> String {
    const STYLE: &str = "<style>text{font:12px system-ui,sans-serif;fill:#5b6570}.bar{fill:#2f6f9f}.curve{fill:none;stroke-width:1.5}\
         .c0{stroke:#2f6f9f}.c1{stroke:#b3261e}.grid{stroke:#d8dde2}</style>";
    svg.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1).replacen("</title>", &format!("</title>{STYLE}"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_of_nothing_and_of_no_numbers_are_plots() {
        let svg = bars("a <b>", &[("x & y".into(), f64::NAN, "?".into()), ("z".into(), 1.0, "1".into())]);
        assert!(svg.contains("x &amp; y") && svg.contains("a &lt;b&gt;") && !svg.contains("NaN"), "{svg}");
        for points in [vec![], vec![(1.0, f64::NAN)], vec![(3.0, 2.0)], vec![(0.0, 1e-12), (1.0, 1e300)]] {
            let svg = curves("x", &[("a", points)]);
            assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.ends_with("</svg>"), "{svg}");
        }
    }

    #[test]
    fn curves_go_from_edge_to_edge_with_round_figures_beside() {
        let svg = curves("loss", &[("training", vec![(0.0, 3.0), (100.0, 1.0)]), ("<v>", vec![(50.0, 2.0)])]);
        assert!(svg.contains("points=\"56.0,22.0 632.0,222.0\"") && svg.contains("points=\"344.0,122.0\""), "{svg}");
        for shown in [">1.0<", ">1.5<", ">3.0<", ">0<", ">100<", "&lt;v&gt;"] {
            assert!(svg.contains(shown), "{shown}: {svg}");
        }
        let long: Vec<_> = (0..10_000).map(|x| (f64::from(x), 1.0)).collect();
        assert_eq!(thinned(&long).len(), 589);
        let file = standalone(&svg);
        assert!(file.starts_with("<svg xmlns=") && file.contains("<style>"));
    }
}
