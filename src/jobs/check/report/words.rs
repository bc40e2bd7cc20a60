//! Figures in words, the same in all forms of a report.

use crate::jobs::check::Figure;
use crate::jobs::page::{count, size};

use super::{About, Both, Comparison, Speed};

/// `0.0312 ± 0.0004`.
pub(super) fn figure(figure: Figure, digits: usize) -> String {
    format!("{:.digits$} ± {:.digits$}", figure.value, figure.error)
}

/// `+4.30 % ± 0.21 %` of a multiple of 1.
pub(super) fn change(figure: Figure) -> String {
    format!("{:+.2} % ± {:.2} %", (figure.value - 1.0) * 100.0, figure.error * 100.0)
}

/// `91.2 % ± 0.5 %` of a share.
pub(super) fn share(figure: Figure) -> String {
    format!("{:.2} % ± {:.2} %", figure.value * 100.0, figure.error * 100.0)
}

pub(super) fn about(about: &About) -> String {
    let quantization = about.quantization.as_deref().unwrap_or("of several types");
    format!("{}, {} parameters, {}, {}", about.architecture, count(about.parameters), quantization, size(about.file_size_bytes))
}

/// The figures of the whole text: what it is, and what it came to.
pub(super) fn rows(whole: &Comparison) -> Vec<(&'static str, String)> {
    vec![
        ("Mean divergence (nats)", figure(whole.divergence, 5)),
        ("Median, 90 %, 99 %, largest", spread(whole)),
        ("Perplexity of the reference", figure(whole.perplexity.reference, 3)),
        ("Perplexity of the candidate", figure(whole.perplexity.candidate, 3)),
        ("Change of the perplexity", change(whole.perplexity_ratio)),
        ("Same most likely token", share(whole.top_agreement)),
        ("Tokens compared", whole.tokens.to_string()),
    ]
}

fn spread(whole: &Comparison) -> String {
    let Comparison { divergence_median, divergence_p90, divergence_p99, divergence_max, .. } = whole;
    format!("{divergence_median:.5}, {divergence_p90:.4}, {divergence_p99:.3}, {divergence_max:.2}")
}

/// Names and figures of speed and memory, of the reference and of the candidate.
pub(super) fn speed(speed: &Both<Speed>) -> Vec<(&'static str, [String; 2])> {
    let both = |word: &dyn Fn(&Speed) -> String| [word(&speed.reference), word(&speed.candidate)];
    vec![
        ("Reading a prompt, tokens/s", both(&|speed| format!("{:.1}", speed.prefill_tokens_per_s))),
        ("Generating, tokens/s", both(&|speed| format!("{:.1}", speed.decode_tokens_per_s))),
        ("Weights", both(&|speed| size(speed.weights_bytes))),
        ("Keys and values of one window", both(&|speed| size(speed.cache_bytes))),
    ]
}

/// What the figures mean, in few words.
pub(super) const LEGEND: &str = "The divergence is KL(reference ‖ candidate): how much worse than the reference one would predict the \
    reference's own next token with the candidate's expectations; 0 for equal models. It is the figure to go by: perplexity also \
    rises and falls with luck. Behind ± stands the standard error; that of the change is of the paired difference.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(figure(Figure { value: 0.03123, error: 0.0004 }, 4), "0.0312 ± 0.0004");
        assert_eq!(change(Figure { value: 1.043, error: 0.002 }), "+4.30 % ± 0.20 %");
        assert_eq!(change(Figure { value: 0.999, error: 0.0 }), "-0.10 % ± 0.00 %");
    }
}
