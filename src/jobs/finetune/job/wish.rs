//! What is wanted of a fine-tuning, as people and programs write it.

use serde::{Deserialize, Serialize};

use crate::gguf::file_type::FileType;
use crate::jobs::dataset::tokenise::{Control, Long, Mask};
use crate::jobs::dataset::{self, Source};
use crate::jobs::evaluate::Bounds;
use crate::jobs::finetune::engine::Checkpointing;
use crate::jobs::finetune::options::{Method, Options};
use crate::jobs::make::Publishing;
use crate::lm::Choice;

/// A model to be fine-tuned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// A GGUF file, a folder as Hugging Face has it, `ollama:TAG`, `hf:OWNER/NAME` or `artifact:JOB/NAME`.
    pub base: String,
    pub data: dataset::Wish,
    /// What is learnt of a conversation.
    #[serde(default)]
    pub mask: Mask,
    #[serde(default)]
    pub control: Control,
    #[serde(default)]
    pub long: Long,
    #[serde(default)]
    pub adapter: Adapter,
    #[serde(default)]
    pub training: Options,
    /// What is kept of a pass for its way back. It changes memory and time, not what is learnt, so a run may go on with another.
    #[serde(default = "as_much_as_fits")]
    pub checkpointing: Checkpointing,
    /// A model like the base, of the same vocabulary, that `training.method` distills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// How the test rows are asked, before and after.
    #[serde(default)]
    pub evaluate: Bounds,
    /// Prompts whose answers are shown at each look at the validation rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<String>,
    #[serde(default)]
    pub export: Export,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publishing>,
    #[serde(default)]
    pub device: Choice,
}

/// What is trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trained {
    /// Low-rank matrices beside frozen ones (Hu et al. 2021, arXiv:2106.09685).
    #[default]
    Lora,
    /// The same, with the lengths of rows trained apart (Liu et al. 2024, arXiv:2402.09353).
    Dora,
    /// The matrices themselves.
    Full,
}

/// The adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adapter {
    pub method: Trained,
    pub rank: usize,
    /// `None`: twice the rank.
    pub alpha: Option<f64>,
    pub dropout: f64,
    /// Matrices by name or pattern (`attn_q`, `ffn_*`); empty: all of the blocks.
    pub targets: Vec<String>,
    /// rsLoRA (Kalajdzievski 2023, arXiv:2312.03732): alpha is divided by the root of the rank.
    pub rank_stabilized: bool,
}

impl Default for Adapter {
    fn default() -> Self {
        Self { method: Trained::default(), rank: 16, alpha: None, dropout: 0.0, targets: Vec::new(), rank_stabilized: false }
    }
}

/// No matrix that is trained so has a higher rank.
const MAX_RANK: usize = 4_096;

impl Adapter {
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    #[must_use]
    pub fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(2.0 * self.rank as f64)
    }

    fn validate(&self) -> Result<(), Wrong> {
        let wrong = |what| Err(Wrong::Adapter(what));
        if self.rank == 0 || self.rank > MAX_RANK {
            return wrong("`rank` is from 1 to 4096");
        }
        if self.alpha.is_some_and(|alpha| !alpha.is_finite() || alpha <= 0.0) {
            return wrong("`alpha` is above 0");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong("`dropout` is a share from 0 to below 1");
        }
        Ok(())
    }
}

/// What is made of it, besides the merged GGUF file and the adapter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// What the merged model is called; else as the base, with `fine-tuned` behind it.
    pub name: Option<String>,
    /// Merged weights as safetensors, too.
    pub safetensors: bool,
    /// The adapter as a GGUF file, too: for programs that apply it while they run the base.
    pub adapter_gguf: bool,
    /// Keep adapted matrices of 4 and 5 bits as they are stored, though hardly anything of the training is left in them.
    pub allow_low_bit: bool,
}

fn as_much_as_fits() -> Checkpointing {
    Checkpointing::Auto
}

/// Prompts that are answered at each look.
const MAX_SAMPLES: usize = 16;

impl Wish {
    /// One with nothing but a base and files.
    #[must_use]
    pub fn of(base: String, sources: Vec<Source>) -> Self {
        Self {
            base,
            data: dataset::Wish::of(sources),
            mask: Mask::default(),
            control: Control::default(),
            long: Long::default(),
            adapter: Adapter::default(),
            training: Options::default(),
            checkpointing: as_much_as_fits(),
            teacher: None,
            evaluate: Bounds::default(),
            samples: Vec::new(),
            export: Export::default(),
            publish: None,
            device: Choice::default(),
        }
    }

    /// Looks at everything that can be looked at without the base and the rows.
    ///
    /// # Errors
    /// The first part in which something is wrong.
    pub fn validate(&self) -> Result<(), Wrong> {
        self.data.validate()?;
        self.training.validate().map_err(Wrong::Training)?;
        self.adapter.validate()?;
        match (&self.teacher, self.training.method) {
            (None, Method::Distill(_)) => return Err(Wrong::NoTeacher),
            (Some(_), Method::Distill(_)) | (None, _) => {}
            (Some(_), _) => return Err(Wrong::Idle),
        }
        if self.samples.len() > MAX_SAMPLES {
            return Err(Wrong::Samples(self.samples.len()));
        }
        if self.export.adapter_gguf && self.adapter.method != Trained::Lora {
            return Err(Wrong::Export("`adapter_gguf` is for the method lora: such a file knows neither magnitudes nor whole weights"));
        }
        if let Some(publishing) = &self.publish {
            publishing.manifest(FileType::Q8_0, false)?;
        }
        Ok(())
    }
}

/// Why a wish is none.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error("`data`: {0}")]
    Data(#[from] dataset::Error),
    #[error("`training`: {}", .0.join("; "))]
    Training(Vec<String>),
    #[error("`adapter`: {0}")]
    Adapter(&'static str),
    #[error("`training.method` is `distill`, and no `teacher` is named to learn from")]
    NoTeacher,
    #[error(
        "there is a `teacher`, and `training.method` is not `distill`: the answers of a model that is only to write some belong into `data.teacher`"
    )]
    Idle,
    #[error("`samples` has {0} prompts, at most {MAX_SAMPLES} are answered")]
    Samples(usize),
    #[error("`export`: {0}")]
    Export(&'static str),
    #[error("`publish`: {0}")]
    Publish(#[from] crate::jobs::make::Wrong),
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wish(change: &Value) -> Result<Wish, String> {
        let mut all = json!({"base": "models/m.gguf", "data": {"sources": [{"path": "files/a.jsonl"}]}});
        for (key, value) in change.as_object().expect("an object") {
            all[key] = value.clone();
        }
        let wish: Wish = serde_json::from_value(all).map_err(|error| error.to_string())?;
        wish.validate().map_err(|wrong| wrong.to_string())?;
        Ok(wish)
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let plain = wish(&json!({})).expect("right");
        let sources = plain.data.sources.clone();
        assert_eq!(plain, Wish::of("models/m.gguf".to_owned(), sources));
        assert!((plain.adapter.alpha() - 32.0).abs() < 1e-12);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (change, word) in [
            (json!({"data": {"sources": []}}), "source"),
            (json!({"training": {"learning_rate": -1.0, "accumulation": 0}}), "accumulation"),
            (json!({"adapter": {"rank": 0}}), "rank"),
            (json!({"adapter": {"dropout": 1.0}}), "dropout"),
            (json!({"adapter": {"alpha": 0.0}}), "alpha"),
            (json!({"samples": vec!["x"; 17]}), "17 prompts"),
            (json!({"checkpointing": "selective"}), "selective:LAYERS"),
            (json!({"adapter": {"method": "dora"}, "export": {"adapter_gguf": true}}), "adapter_gguf"),
            (json!({"training": {"method": {"distill": {}}}}), "no `teacher`"),
            (json!({"teacher": "models/t.gguf"}), "data.teacher"),
            (json!({"teacher": "models/t.gguf", "training": {"method": {"distill": {"alpha": 1.5}}}}), "at most 1"),
            (json!({"publish": {"name": "m", "parameters": {"x": 1}}}), "publish"),
            (json!({"learning_rate": 1.0}), "unknown field"),
        ] {
            let wrong = wish(&change).expect_err("wrong");
            assert!(wrong.contains(word), "{change}: {wrong}");
        }
    }
}
