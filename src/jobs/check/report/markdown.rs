//! A report as Markdown. Texts of models are shown as code, so that nothing in them is markup.

use std::fmt::Write as _;

use super::{Continued, Report, words};
use crate::jobs::page::markdown::{cell, code, fence};

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("# {}\n\n", title(report));
    for failure in &report.verdict.failures {
        let _ = writeln!(text, "- **{}**", cell(failure));
    }
    let _ = writeln!(text, "\nReference: {} ({})  ", code(&report.models.reference.name), words::about(&report.models.reference));
    let _ = writeln!(text, "Candidate: {} ({})\n", code(&report.models.candidate.name), words::about(&report.models.candidate));
    let _ = writeln!(text, "| figure | value |\n|---|---|");
    for (name, value) in words::rows(&report.whole) {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    let _ = writeln!(text, "\n{}\n", words::LEGEND);
    kinds(report, &mut text);
    speed(report, &mut text);
    edges(report, &mut text);
    let _ = writeln!(text, "## Side by side\n");
    report.prompts.iter().for_each(|prompt| continued(prompt, &mut text));
    let _ = writeln!(text, "{}", how(report));
    text
}

fn title(report: &Report) -> String {
    let verdict = if report.verdict.passed { "passed" } else { "failed" };
    format!("{} against {}: {verdict}", code(&report.models.candidate.name), code(&report.models.reference.name))
}

/// Which text, how it was read, how long it took.
pub(super) fn how(report: &Report) -> String {
    let text = if report.built_in_text { "the built-in text" } else { "a given text" };
    format!("Compared on {text}, {} tokens in one go, in {:.1} s.", report.window, report.took.as_secs_f64())
}

fn kinds(report: &Report, text: &mut String) {
    let _ = writeln!(
        text,
        "## By kind of text\n\n| kind | tokens | divergence | perplexity | change | same token |\n|---|--:|--:|--:|--:|--:|"
    );
    for kind in &report.kinds {
        let found = &kind.comparison;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} | {} | {} |",
            cell(&kind.kind),
            found.tokens,
            words::figure(found.divergence, 4),
            found.perplexity.candidate.value,
            words::change(found.perplexity_ratio),
            words::share(found.top_agreement)
        );
    }
    text.push('\n');
}

fn speed(report: &Report, text: &mut String) {
    let Some(speed) = &report.speed else { return };
    let _ = writeln!(text, "## Speed and memory\n\n| | reference | candidate |\n|---|--:|--:|");
    for (name, [reference, candidate]) in words::speed(speed) {
        let _ = writeln!(text, "| {name} | {reference} | {candidate} |");
    }
    text.push('\n');
}

fn edges(report: &Report, text: &mut String) {
    let _ = writeln!(text, "## Edges\n");
    for edge in &report.edges {
        let _ = writeln!(text, "- {} {}: {}", if edge.passed { "✓" } else { "✗" }, edge.name, cell(&edge.found));
    }
    text.push('\n');
}

fn continued(prompt: &Continued, text: &mut String) {
    let _ = writeln!(text, "{} — equal for {} of {} tokens\n", code(&prompt.prompt), prompt.equal_tokens, prompt.tokens);
    for (name, said) in [("Reference", &prompt.texts.reference), ("Candidate", &prompt.texts.candidate)] {
        let fence = fence(said);
        let _ = writeln!(text, "{name}:\n\n{fence}\n{said}\n{fence}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn a_report_says_it_all_and_nothing_in_it_is_markup() {
        let text = render(&report());
        assert!(text.starts_with("# `c|<b>.gguf` against `r.gguf`: passed\n"), "{text}");
        assert!(text.contains("| Mean divergence (nats) | 0.03100 ± 0.00031 |"));
        assert!(text.contains("| code &amp; &lt;x> | 3000 |"));
        assert!(text.contains("`` Say `hi` <script>alert(1)</script> | now please `` — equal for 1 of 3 tokens"));
        assert!(text.contains("````\nhi ``` there\n````"));
        assert!(text.contains("✓ an empty prompt"));
    }
}
