//! A report as Markdown. Texts of models are shown as code, so that nothing in them is markup.

use std::fmt::Write as _;

use super::{Report, words};
use crate::jobs::page::markdown::{cell, code, fence};

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("# Fine-tuning {}: {}\n\n| figure | value |\n|---|---|\n", code(&report.name), words::ending(report));
    for (name, value) in words::rows(report) {
        let _ = writeln!(text, "| {name} | {} |", cell(&value));
    }
    evaluations(report, &mut text);
    samples(report, &mut text);
    answers(report, &mut text);
    let options = serde_json::to_string_pretty(&report.options).unwrap_or_default();
    let _ = writeln!(text, "\n## Options\n\n```json\n{options}\n```");
    text
}

fn evaluations(report: &Report, text: &mut String) {
    if report.summary.evaluations.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n## On the validation rows\n\n| {} |\n|--:|--:|--:|--:|", words::COLUMNS.join(" | "));
    for evaluation in &report.summary.evaluations {
        let _ = writeln!(text, "| {} |", words::cells(evaluation).join(" | "));
    }
}

fn answers(report: &Report, text: &mut String) {
    let Some(tested) = &report.tested else { return };
    let _ = writeln!(text, "\n## Some test rows\n\n| expected | the base | the model |\n|---|---|---|");
    for (before, after) in tested.before.answers.iter().zip(&tested.after.answers) {
        let _ = writeln!(text, "| {} | {} | {} |", cell(&code(&after.expected)), cell(&code(&before.answer)), cell(&code(&after.answer)));
    }
}

fn samples(report: &Report, text: &mut String) {
    let Some(last) = report.summary.evaluations.last().filter(|last| !last.samples.is_empty()) else { return };
    let _ = writeln!(text, "\n## What it writes after step {}\n", last.step);
    for sample in &last.samples {
        let fence = fence(&sample.text);
        let _ = writeln!(text, "{}\n\n{fence}\n{}\n{fence}\n", code(&sample.prompt), sample.text);
    }
}
