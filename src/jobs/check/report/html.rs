//! A report as one page: no script, nothing fetched from anywhere, and every text of a model escaped.

use std::fmt::Write as _;

use super::{Continued, Report, markdown, plot, words};
use crate::jobs::page::{STYLE, escape, svg};

pub(super) fn render(report: &Report) -> String {
    let names = (escape(&report.models.candidate.name), escape(&report.models.reference.name));
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{0} against {1}</title><style>{STYLE}</style></head><body><h1>{0} against {1}: {2}</h1>",
        names.0,
        names.1,
        verdict(report)
    );
    failures(report, &mut page);
    for (role, about) in [("Reference", &report.models.reference), ("Candidate", &report.models.candidate)] {
        let _ = write!(page, "<p>{role}: <b>{}</b> <span class=\"soft\">{}</span></p>", escape(&about.name), escape(&words::about(about)));
    }
    whole(report, &mut page);
    kinds(report, &mut page);
    speed(report, &mut page);
    edges(report, &mut page);
    page.push_str("<h2>Side by side</h2>");
    report.prompts.iter().for_each(|prompt| continued(prompt, &mut page));
    let _ = writeln!(page, "<p class=\"soft\">{}</p></body></html>", escape(&markdown::how(report)));
    page
}

fn verdict(report: &Report) -> &'static str {
    if report.verdict.passed { "<span class=\"good\">passed</span>" } else { "<span class=\"bad\">failed</span>" }
}

fn failures(report: &Report, page: &mut String) {
    if report.verdict.passed {
        return;
    }
    page.push_str("<ul>");
    for failure in &report.verdict.failures {
        let _ = write!(page, "<li class=\"bad\">{}</li>", escape(failure));
    }
    page.push_str("</ul>");
}

fn whole(report: &Report, page: &mut String) {
    page.push_str("<h2>The whole text</h2><div class=\"wide\"><table>");
    for (name, value) in words::rows(&report.whole) {
        let _ = write!(page, "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td></tr>", escape(name), escape(&value));
    }
    let plot = plot::histogram(&report.whole.histogram);
    let _ =
        write!(page, "</table></div><p class=\"soft\">{}</p><h2>How many tokens have which divergence</h2>{plot}", escape(words::LEGEND));
}

fn kinds(report: &Report, page: &mut String) {
    let bars: Vec<_> = report
        .kinds
        .iter()
        .map(|kind| (kind.kind.clone(), kind.comparison.divergence.value, format!("{:.4}", kind.comparison.divergence.value)))
        .collect();
    let _ = write!(page, "<h2>Mean divergence by kind of text</h2>{}", svg::bars("Mean divergence by kind of text", &bars));
    page.push_str("<div class=\"wide\"><table><tr><th>kind</th>");
    for name in ["tokens", "divergence", "perplexity", "change", "same token"] {
        let _ = write!(page, "<th class=\"n\">{name}</th>");
    }
    page.push_str("</tr>");
    for kind in &report.kinds {
        let found = &kind.comparison;
        let cells = [
            found.tokens.to_string(),
            words::figure(found.divergence, 4),
            format!("{:.2}", found.perplexity.candidate.value),
            words::change(found.perplexity_ratio),
            words::share(found.top_agreement),
        ];
        let _ = write!(page, "<tr><td>{}</td>", escape(&kind.kind));
        for cell in &cells {
            let _ = write!(page, "<td class=\"n\">{}</td>", escape(cell));
        }
        page.push_str("</tr>");
    }
    page.push_str("</table></div>");
}

fn speed(report: &Report, page: &mut String) {
    let Some(speed) = &report.speed else { return };
    page.push_str("<h2>Speed and memory</h2><div class=\"wide\"><table><tr><th></th><th class=\"n\">reference</th><th class=\"n\">candidate</th></tr>");
    for (name, [reference, candidate]) in words::speed(speed) {
        let _ = write!(page, "<tr><th scope=\"row\">{name}</th><td class=\"n\">{reference}</td><td class=\"n\">{candidate}</td></tr>");
    }
    page.push_str("</table></div>");
}

fn edges(report: &Report, page: &mut String) {
    page.push_str("<h2>Edges</h2><ul>");
    for edge in &report.edges {
        let (class, mark) = if edge.passed { ("good", "✓") } else { ("bad", "✗") };
        let _ = write!(page, "<li><span class=\"{class}\">{mark}</span> {}: {}</li>", escape(edge.name), escape(&edge.found));
    }
    page.push_str("</ul>");
}

fn continued(prompt: &Continued, page: &mut String) {
    let _ = write!(
        page,
        "<div class=\"wide\"><table><tr><td colspan=\"2\"><pre>{}</pre><span class=\"soft\">equal for {} of {} tokens</span></td></tr>\
         <tr><th>reference</th><th>candidate</th></tr><tr><td><pre>{}</pre></td><td><pre>{}</pre></td></tr></table></div>",
        escape(&prompt.prompt),
        prompt.equal_tokens,
        prompt.tokens,
        escape(&prompt.texts.reference),
        escape(&prompt.texts.candidate)
    );
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn a_page_needs_nothing_else_and_runs_nothing() {
        let mut failed = report();
        failed.verdict.passed = false;
        failed.verdict.failures.push("a <b> is & was".into());
        let page = render(&failed);
        for never in ["<script", "http://", "https://", "src=", "<link", "</pre> you", "c|<b>"] {
            assert!(!page.contains(never), "{never}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)") && page.contains("a &lt;b&gt; is &amp; was"));
        assert_eq!(page.matches("<svg").count(), 2);
        assert_eq!(page.matches("<table").count(), page.matches("</table>").count());
    }
}
