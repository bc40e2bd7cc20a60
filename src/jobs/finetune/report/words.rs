//! Figures in words, the same in all forms of a report.

use super::Report;
use crate::jobs::evaluate::Score;
use crate::jobs::finetune::checkpoint::{Ending, Evaluation};
use crate::jobs::finetune::job::Model;
use crate::jobs::page::size;

pub(super) fn ending(report: &Report) -> String {
    let summary = &report.summary;
    match summary.ending {
        Ending::Completed => format!("completed after {} steps", summary.step),
        Ending::EarlyStopped => format!("ended early after {} of {} steps, since nothing better was found", summary.step, summary.steps),
        Ending::Stopped => format!("stopped after {} of {} steps", summary.step, summary.steps),
    }
}

/// What it is, and what it came to.
pub(super) fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let summary = &report.summary;
    let mut rows = vec![
        ("Base model", format!("{} ({})", report.base.name, report.base.digest)),
        ("Rows", rows_of(report)),
        ("Trained parameters", report.trained_parameters.to_string()),
        ("Device", report.device.clone()),
        ("Tokens read", format!("{}, {} of them labels", summary.tokens, summary.labels)),
        ("Tokens/s", format!("{:.1}", summary.tokens_per_s)),
        ("Time per epoch", epochs(&summary.epoch_seconds)),
        ("Peak memory", summary.peak_memory_bytes.map_or_else(|| "not measured".to_owned(), size)),
        ("Peak memory, predicted", size(report.predicted_peak_bytes)),
    ];
    if let Some(teacher) = &report.teacher {
        rows.insert(1, ("Teacher", format!("{} ({})", teacher.name, teacher.digest)));
    }
    if let (Some(first), Some(last)) = (summary.losses.first(), summary.losses.last()) {
        rows.push(("Loss, first and last step", format!("{first:.4}, {last:.4}")));
    }
    let seen = |evaluation: &Evaluation| format!("loss {:.4}, perplexity {:.3}", evaluation.loss, evaluation.perplexity);
    if let Some(best) = best(report) {
        rows.push(("Best on the validation rows", format!("{} after step {}", seen(best), best.step)));
    }
    if let Some(last) = summary.evaluations.last() {
        rows.push(("Last on the validation rows", seen(last)));
    }
    if let Some(tested) = &report.tested {
        rows.push(("Test rows, the base", score(&tested.before)));
        rows.push(("Test rows, the model", score(&tested.after)));
    }
    rows.extend(report.model.iter().flat_map(model));
    rows
}

/// How test rows were answered.
fn score(score: &Score) -> String {
    let labels = score.labels.as_ref().map(|labels| format!(", macro F1 {:.3}", labels.macro_f1)).unwrap_or_default();
    format!(
        "{:.1} % right of {}, F1 of words {:.3}{labels}, perplexity {:.3}",
        100.0 * score.accuracy,
        score.items,
        score.f1,
        score.perplexity
    )
}

fn model(model: &Model) -> Vec<(&'static str, String)> {
    let mut rows = vec![("Model", format!("{}, {}, {} (sha256:{})", model.file, model.file_type, size(model.size_bytes), model.sha256))];
    if let Some(least) = model.survival.first() {
        let words = format!("{:.3} of {}, stored as {}", least.gain, least.tensor, least.stored_as);
        rows.push(("Least of a change that survives", words));
    }
    rows.extend(model.warnings.iter().map(|warning| ("Mind", warning.clone())));
    rows
}

fn rows_of(report: &Report) -> String {
    let left_out = match report.summary.left_out_rows {
        0 => String::new(),
        rows => format!(", {rows} of them left out as too short"),
    };
    let data = &report.data;
    format!("{} to learn{left_out}; {} to validate ({})", data.rows, data.validation_rows, data.hash)
}

pub(super) fn best(report: &Report) -> Option<&Evaluation> {
    let best = report.summary.best.as_ref()?;
    report.summary.evaluations.iter().find(|evaluation| evaluation.step == best.step)
}

#[expect(clippy::cast_precision_loss, reason = "a few epochs")]
fn epochs(seconds: &[f64]) -> String {
    if seconds.is_empty() {
        return "no epoch was whole".to_owned();
    }
    format!("{:.1} s, the mean of {}", seconds.iter().sum::<f64>() / seconds.len() as f64, seconds.len())
}

/// An evaluation as cells of a table.
pub(super) fn cells(evaluation: &Evaluation) -> [String; 4] {
    let accuracy = evaluation.preferences.map_or_else(String::new, |found| format!("{:.1} %", found.accuracy * 100.0));
    [evaluation.step.to_string(), format!("{:.4}", evaluation.loss), format!("{:.3}", evaluation.perplexity), accuracy]
}

pub(super) const COLUMNS: [&str; 4] = ["step", "loss", "perplexity", "preferred"];
