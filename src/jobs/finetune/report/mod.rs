//! What is kept of a run for people and for programs: records as it goes ([`Lines`], [`Events`]), and a [`Report`] at its end, as JSON,
//! Markdown, a page of HTML that needs nothing else, and its loss as a plot.
//!
//! Plots are SVG; there are none as PNG, since nothing here can draw into pixels.

mod crc32c;
mod html;
mod lines;
mod markdown;
mod tensorboard;
mod words;

use serde::Serialize;

pub use lines::Lines;
pub use tensorboard::Events;

use super::job::{Model, Tested};
use super::options::Options;
use super::trainer::Summary;
use crate::jobs::page::svg;

/// The model that was trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Base {
    pub name: String,
    pub digest: String,
}

/// What it was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Data {
    pub hash: String,
    pub rows: usize,
    pub validation_rows: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What the result is called.
    pub name: String,
    pub base: Base,
    /// What it learnt from beside the rows, logit by logit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<Base>,
    pub data: Data,
    pub trained_parameters: u64,
    pub predicted_peak_bytes: u64,
    pub device: String,
    pub options: Options,
    pub summary: Summary,
    /// What was made of it; `None`: nothing yet.
    pub model: Option<Model>,
    /// How it does on the test rows; `None`: there are none.
    pub tested: Option<Tested>,
}

impl Report {
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

    /// A page that refers to nothing outside of it, with the plot.
    #[must_use]
    pub fn to_html(&self) -> String {
        html::render(self)
    }

    /// The loss of training and of validation, as a file.
    #[must_use]
    pub fn to_svg(&self) -> String {
        svg::standalone(&self.loss_plot())
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn loss_plot(&self) -> String {
        let learnt = (1_u32..).map(f64::from).zip(self.summary.losses.iter().copied()).collect();
        let seen = self.summary.evaluations.iter().map(|evaluation| (evaluation.step as f64, evaluation.loss)).collect();
        svg::curves("Loss by step", &[("training", learnt), ("validation", seen)])
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::jobs::evaluate::{Answer, Score};
    use crate::jobs::finetune::checkpoint::{Best, Ending, Evaluation, Sample};
    use crate::jobs::finetune::job::Survived;
    use crate::jobs::finetune::objective::Preferences;
    use crate::jobs::finetune::trainer::{Record, Step};

    /// A step, a step, a look after it, a step.
    pub fn records() -> Vec<Record> {
        let preferences = Preferences { accuracy: 0.75, chosen_reward: 0.5, rejected_reward: -0.25, margin: 0.75 };
        let step = |step, loss, preferences| {
            Record::Step(Step {
                step,
                epoch: 0,
                loss,
                gradient_norm: 1.25,
                learning_rate: 2e-4,
                tokens: 4000,
                labels: 3000,
                seconds: 2.0,
                tokens_per_s: 2000.0,
                memory_bytes: Some(1 << 30),
                device_use: Some(0.75),
                preferences,
            })
        };
        vec![step(1, 2.5, None), step(2, 2.25, None), Record::Evaluation(evaluation()), step(300, 2.0, Some(preferences))]
    }

    fn evaluation() -> Evaluation {
        let samples = vec![Sample { prompt: "Say `hi` <script>".into(), text: "hi ``` </pre> | there".into() }];
        Evaluation { step: 2, loss: 2.125, perplexity: 8.375, labels: 500, preferences: None, samples }
    }

    fn report() -> Report {
        Report {
            name: "a <b> | c".into(),
            teacher: None,
            base: Base { name: "gemma3:270m".into(), digest: "sha256:00".into() },
            data: Data { hash: "ab".into(), rows: 100, validation_rows: 10 },
            trained_parameters: 1_474_560,
            predicted_peak_bytes: 1_400_000_000,
            device: "CPU".into(),
            options: Options::default(),
            summary: Summary {
                ending: Ending::EarlyStopped,
                step: 3,
                steps: 9,
                left_out_rows: 4,
                tokens: 12_000,
                labels: 9000,
                training_seconds: 6.0,
                tokens_per_s: 2000.0,
                epoch_seconds: vec![3.0, 3.5],
                peak_memory_bytes: Some(1_500_000_000),
                losses: vec![2.5, 2.25, 2.0],
                evaluations: vec![evaluation()],
                best: Some(Best { step: 2, figure: 2.125, checkpoint: "step-00000002".into() }),
                last: Some("step-00000003".into()),
            },
            model: Some(Model {
                file: "a.gguf".into(),
                sha256: "cd".into(),
                size_bytes: 1_000_000,
                file_type: "Q8_0".into(),
                adapter_file: None,
                survival: vec![Survived { tensor: "blk.0.attn_q.weight".into(), stored_as: "Q8_0".into(), gain: 0.987, change: 0.01 }],
                warnings: vec!["mind <this>".into()],
            }),
            tested: Some(Tested { before: score(0.125), after: score(0.875) }),
        }
    }

    fn score(accuracy: f64) -> Score {
        let answer = Answer {
            prompt: "which | one?".into(),
            expected: "<b>".into(),
            answer: "c".into(),
            right: false,
            f1: 0.0,
            nll: 1.0,
            expected_tokens: 1,
            tokens: 2,
            seconds: 0.5,
        };
        Score { items: 8, accuracy, f1: accuracy, labels: None, perplexity: 1.5, tokens: 16, seconds: 4.0, answers: vec![answer] }
    }

    #[test]
    fn a_report_says_it_all_in_every_form_and_nothing_in_it_is_markup() {
        let report = report();
        let (markdown, page) = (report.to_markdown(), report.to_html());
        for text in [&markdown, &page] {
            for word in [
                "2000.0",
                "3.2 s, the mean of 2",
                "1.50 GB",
                "perplexity 8.375",
                "2.5000, 2.0000",
                "learning_rate",
                "ended early after 3 of 9",
            ] {
                assert!(text.contains(word), "{word}: {text}");
            }
        }
        assert!(markdown.contains("````\nhi ``` </pre> | there\n````") && markdown.contains("| 2 | 2.1250 | 8.375 |  |"), "{markdown}");
        for never in ["<script", "http://", "https://", "src=", "<link", "a <b>"] {
            assert!(!page.contains(never), "{never}");
        }
        assert_eq!((page.matches("<svg").count(), page.matches("<table").count()), (1, page.matches("</table>").count()));
        let value: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");
        assert_eq!((&value["summary"]["tokens_per_s"], &value["options"]["schedule"]), (&2000.0.into(), &"cosine".into()));
        assert!(report.to_svg().starts_with("<svg xmlns="));
    }
}
