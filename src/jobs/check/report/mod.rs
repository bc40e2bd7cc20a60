//! What a check found, and whether it passes. As JSON, Markdown and a page of HTML that needs nothing else.

mod html;
mod markdown;
mod plot;
mod words;

use std::time::Duration;

use serde::Serialize;

use super::edges::Edge;
use super::prompts::Continued;
use super::speed::Speed;
use super::{Both, Comparison, Spec, Thresholds};

/// One of the two files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct About {
    /// The file's, without its folder.
    pub name: String,
    pub architecture: String,
    pub quantization: Option<String>,
    pub parameters: u64,
    pub file_size_bytes: u64,
}

/// Whether the candidate passes, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub passed: bool,
    pub failures: Vec<String>,
}

/// The figures of one kind of text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kind {
    pub kind: String,
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub verdict: Verdict,
    pub models: Both<About>,
    /// Whether the text was the built-in one.
    pub built_in_text: bool,
    pub window: usize,
    pub whole: Comparison,
    pub kinds: Vec<Kind>,
    pub prompts: Vec<Continued>,
    pub edges: Vec<Edge>,
    pub speed: Option<Both<Speed>>,
    pub thresholds: Thresholds,
    #[serde(with = "crate::domain::span")]
    pub took: Duration,
}

impl Report {
    #[expect(clippy::too_many_arguments, reason = "a report is made of all that was found, once")]
    pub(super) fn new(
        spec: &Spec,
        models: Both<About>,
        whole: Comparison,
        kinds: Vec<(String, Comparison)>,
        prompts: Vec<Continued>,
        edges: Vec<Edge>,
        speed: Option<Both<Speed>>,
        took: Duration,
    ) -> Self {
        Self {
            verdict: judge(&whole, &edges, &spec.thresholds),
            models,
            built_in_text: spec.text.is_none(),
            window: spec.window,
            whole,
            kinds: kinds.into_iter().map(|(kind, comparison)| Kind { kind, comparison }).collect(),
            prompts,
            edges,
            speed,
            thresholds: spec.thresholds,
            took,
        }
    }

    /// All of it, for programs.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Only maps with keys that are no texts, and there are none, could fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// For people, and for what shows Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        markdown::render(self)
    }

    /// A page that refers to nothing outside of it, with plots.
    #[must_use]
    pub fn to_html(&self) -> String {
        html::render(self)
    }
}

fn judge(whole: &Comparison, edges: &[Edge], thresholds: &Thresholds) -> Verdict {
    let mut failures = Vec::new();
    if whole.broken_tokens > 0 {
        failures.push(format!("{} tokens of the text got no numbers from one of the models", whole.broken_tokens));
    }
    let above = |what: &str, found: f64, most: Option<f64>| {
        // A figure that is none keeps no bound.
        most.filter(|most| found.is_nan() || found > *most).map(|most| format!("{what} is {found:.5}, at most {most} was allowed"))
    };
    failures.extend(above("the mean divergence", whole.divergence.value, thresholds.max_divergence));
    failures.extend(above(
        "the perplexity as a multiple of the reference's",
        whole.perplexity_ratio.value,
        thresholds.max_perplexity_ratio,
    ));
    let agreement = whole.top_agreement.value;
    let least = thresholds.min_top_agreement.filter(|least| agreement.is_nan() || agreement < *least);
    failures
        .extend(least.map(|least| format!("both expect the same token at {agreement:.4} of all places, at least {least} was asked for")));
    failures.extend(edges.iter().filter(|edge| !edge.passed).map(|edge| format!("{}: {}", edge.name, edge.found)));
    Verdict { passed: failures.is_empty(), failures }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::jobs::check::Figure;

    pub fn report() -> Report {
        let figure = |value| Figure { value, error: value / 100.0 };
        let whole = Comparison {
            tokens: 3000,
            broken_tokens: 0,
            perplexity: Both { reference: figure(21.0), candidate: figure(21.9) },
            perplexity_ratio: figure(1.043),
            divergence: figure(0.031),
            divergence_median: 0.008,
            divergence_p90: 0.07,
            divergence_p99: 0.4,
            divergence_max: 3.2,
            top_agreement: figure(0.912),
            histogram: (0..20).map(|bin| bin * bin).collect(),
        };
        let about = |name: &str, quantization: &str| About {
            name: name.into(),
            architecture: "gemma3".into(),
            quantization: Some(quantization.into()),
            parameters: 268_098_176,
            file_size_bytes: 253_113_180,
        };
        let speed = Speed { prefill_tokens_per_s: 650.0, decode_tokens_per_s: 72.0, weights_bytes: 240 << 20, cache_bytes: 9 << 20 };
        Report::new(
            &Spec { thresholds: Thresholds { max_divergence: Some(0.05), ..Thresholds::default() }, ..Spec::new("c.gguf", "r.gguf") },
            Both { reference: about("r.gguf", "F16"), candidate: about("c|<b>.gguf", "Q4_K_M") },
            whole.clone(),
            vec![("prose".into(), whole.clone()), ("code & <x>".into(), whole)],
            vec![Continued {
                prompt: "Say `hi` <script>alert(1)</script> | now\nplease".into(),
                texts: Both { reference: "hi ``` there".into(), candidate: "hi\n</pre> you".into() },
                equal_tokens: 1,
                tokens: 3,
            }],
            vec![Edge { name: "an empty prompt", passed: true, found: "it begins with \"The\"".into() }],
            Some(Both { reference: speed, candidate: speed }),
            Duration::from_millis(12_345),
        )
    }

    #[test]
    fn bounds_that_are_kept_pass_and_others_are_named() {
        let passed = report();
        assert_eq!(passed.verdict, Verdict { passed: true, failures: Vec::new() });
        let strict = Thresholds { max_divergence: Some(0.01), max_perplexity_ratio: Some(1.01), min_top_agreement: Some(0.99) };
        let mut bad = passed.edges.clone();
        bad[0].passed = false;
        let verdict = judge(&Comparison { broken_tokens: 2, ..passed.whole.clone() }, &bad, &strict);
        assert_eq!((verdict.passed, verdict.failures.len()), (false, 5), "{:?}", verdict.failures);
        let nan = Comparison { divergence: Figure { value: f64::NAN, error: 0.0 }, ..passed.whole };
        assert!(!judge(&nan, &[], &Thresholds { max_divergence: Some(1.0), ..Thresholds::default() }).passed);
    }

    #[test]
    fn the_json_has_all_figures() {
        let value: serde_json::Value = serde_json::from_str(&report().to_json()).expect("JSON");
        assert_eq!(value["verdict"]["passed"], true);
        assert_eq!(value["kinds"][0]["kind"], "prose");
        assert_eq!(value["kinds"][0]["divergence"]["value"], 0.031);
        assert_eq!(value["models"]["candidate"]["quantization"], "Q4_K_M");
        assert_eq!(value["took"], "12s 345ms");
    }
}
