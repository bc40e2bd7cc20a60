//! The report of a fine-tuning as a whole.

use super::outcome::{Ingredients, Model, Tested};
use super::stages::{Base, Tuning};
use crate::jobs::finetune::report::{self, Report};

/// What is to be said of a run and of what came out of it.
#[must_use]
pub fn report(tuning: &Tuning<'_>, made_of: Ingredients<'_>, model: &Model, tested: Option<&Tested>) -> Report {
    let Ingredients { base, teacher, data, run } = made_of;
    let named = |model: &Base| report::Base { name: model.name.clone(), digest: format!("sha256:{}", model.sha256) };
    let rows = |statistics: u64| usize::try_from(statistics).unwrap_or(usize::MAX);
    Report {
        name: tuning.name(base),
        base: named(base),
        teacher: teacher.map(named),
        data: report::Data {
            hash: data.version.clone(),
            rows: rows(data.train.rows),
            validation_rows: data.validation.as_ref().map_or(0, |statistics| rows(statistics.rows)),
        },
        trained_parameters: run.trained_parameters,
        predicted_peak_bytes: run.predicted_peak_bytes,
        device: tuning.device.describe(),
        options: tuning.wish.training.clone(),
        summary: run.summary.clone(),
        model: Some(model.clone()),
        tested: tested.cloned(),
    }
}

/// Every form of it, by the name of its file.
#[must_use]
pub fn texts(report: &Report) -> [(&'static str, String); 4] {
    [
        ("report.json", report.to_json()),
        ("report.md", report.to_markdown()),
        ("report.html", report.to_html()),
        ("loss.svg", report.to_svg()),
    ]
}
