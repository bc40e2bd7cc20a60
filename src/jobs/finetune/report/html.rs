//! A report as one page: no script, nothing fetched from anywhere, and every text of a model escaped.

use std::fmt::Write as _;

use super::{Report, words};
use crate::jobs::page::{STYLE, escape};

pub(super) fn render(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Fine-tuning {0}</title><style>{STYLE}</style></head><body><h1>Fine-tuning {0}: {1}</h1><div class=\"wide\"><table>",
        escape(&report.name),
        escape(&words::ending(report))
    );
    for (name, value) in words::rows(report) {
        let _ = write!(page, "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", escape(&value));
    }
    let _ = write!(page, "</table></div><h2>Loss</h2>{}", report.loss_plot());
    evaluations(report, &mut page);
    samples(report, &mut page);
    answers(report, &mut page);
    let options = serde_json::to_string_pretty(&report.options).unwrap_or_default();
    let _ = writeln!(page, "<h2>Options</h2><pre>{}</pre></body></html>", escape(&options));
    page
}

fn evaluations(report: &Report, page: &mut String) {
    if report.summary.evaluations.is_empty() {
        return;
    }
    page.push_str("<h2>On the validation rows</h2><div class=\"wide\"><table><tr>");
    for name in words::COLUMNS {
        let _ = write!(page, "<th class=\"n\">{name}</th>");
    }
    page.push_str("</tr>");
    for evaluation in &report.summary.evaluations {
        let cells = words::cells(evaluation).map(|cell| format!("<td class=\"n\">{cell}</td>"));
        let _ = write!(page, "<tr>{}</tr>", cells.concat());
    }
    page.push_str("</table></div>");
}

fn answers(report: &Report, page: &mut String) {
    let Some(tested) = &report.tested else { return };
    page.push_str("<h2>Some test rows</h2><div class=\"wide\"><table><tr><th>expected</th><th>the base</th><th>the model</th></tr>");
    for (before, after) in tested.before.answers.iter().zip(&tested.after.answers) {
        let cells = [&after.expected, &before.answer, &after.answer].map(|text| format!("<td><pre>{}</pre></td>", escape(text)));
        let _ = write!(page, "<tr>{}</tr>", cells.concat());
    }
    page.push_str("</table></div>");
}

fn samples(report: &Report, page: &mut String) {
    let Some(last) = report.summary.evaluations.last().filter(|last| !last.samples.is_empty()) else { return };
    let _ = write!(page, "<h2>What it writes after step {}</h2><div class=\"wide\"><table>", last.step);
    for sample in &last.samples {
        let _ = write!(page, "<tr><td><pre>{}</pre></td><td><pre>{}</pre></td></tr>", escape(&sample.prompt), escape(&sample.text));
    }
    page.push_str("</table></div>");
}
