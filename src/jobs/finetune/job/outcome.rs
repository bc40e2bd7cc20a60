//! From trained parameters to files, and what they are worth.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::Error;
use super::stages::{Base, Data, Run, Tuning};
use super::wish::Trained as What;
use crate::gguf::file_type::FileType;
use crate::jobs::convert::{Progress, Source};
use crate::jobs::evaluate::Score;
use crate::jobs::finetune::checkpoint::Sample;
use crate::jobs::finetune::export::{
    AdapterGguf, FolderOptions, Lineage, MergeOptions, Merged, PeftOptions, Storage, Strengths, Trained, merge_gguf, merge_safetensors,
    write_adapter_gguf, write_peft,
};
use crate::jobs::finetune::learner::Tensors;
use crate::jobs::make::{Places, Watcher};
use crate::jobs::subject::Subject;

/// Folder of the adapter in PEFT's format.
pub const ADAPTER: &str = "adapter";
/// Folder of merged weights as Hugging Face's libraries load them.
pub const SAFETENSORS: &str = "safetensors";
/// Tokens of a sample.
const SAMPLE_TOKENS: usize = 96;

/// The merged model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Of its file, in the folder.
    pub file: String,
    /// In hexadecimal.
    pub sha256: String,
    pub size_bytes: u64,
    #[serde(rename = "type")]
    pub file_type: String,
    /// The adapter as a GGUF file, in the folder; where it was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_file: Option<String>,
    /// Of each trained tensor, the share of its change that survives its storage; the least first.
    pub survival: Vec<Survived>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Survived {
    pub tensor: String,
    pub stored_as: String,
    pub gain: f64,
    /// How large the change is, over the size of the base.
    pub change: f64,
}

/// What a model is made of.
#[derive(Debug, Clone, Copy)]
pub struct Ingredients<'a> {
    pub base: &'a Base,
    pub teacher: Option<&'a Base>,
    pub data: &'a Data,
    pub run: &'a Run,
}

/// The test rows, before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    pub before: Score,
    pub after: Score,
}

impl Tuning<'_> {
    /// What the merged model is called.
    #[must_use]
    pub fn name(&self, base: &Base) -> String {
        let published = self.wish.publish.as_ref().map(|publishing| publishing.name.to_string());
        self.wish.export.name.clone().or(published).unwrap_or_else(|| format!("{} fine-tuned", base.name))
    }

    /// Writes the merged GGUF file, the adapter, and merged safetensors where they are wanted.
    ///
    /// # Errors
    /// Parameters that cannot be written so, and what the disk says.
    pub fn export(&self, places: &Places, made_of: Ingredients<'_>) -> Result<Model, Error> {
        let base = made_of.base;
        let parameters = load(&self.parameters())?;
        let strengths = Strengths::new(self.wish.adapter.alpha(), self.wish.adapter.rank_stabilized);
        let trained = Trained { base: &base.path, parameters: &parameters, strengths: &strengths };
        let original = if let Source::Folder(folder) = &places.source { Some(folder.clone()) } else { None };
        if self.wish.adapter.method != What::Full {
            let path = emptied(self.folder.join(ADAPTER))?;
            let base = original.as_ref().map_or_else(|| self.wish.base.clone(), |folder| folder.display().to_string());
            write_peft(&trained, &PeftOptions { path, base: Some(base), dropout: self.wish.adapter.dropout })?;
        }
        if self.wish.export.safetensors {
            let path = emptied(self.folder.join(SAFETENSORS))?;
            let options = FolderOptions { original, threads: self.threads, ..FolderOptions::new(path) };
            for note in merge_safetensors(&trained, &options, &self.heard("merge safetensors"))?.notes {
                self.watcher.note(&note);
            }
        }
        let stem = file_name(&self.name(base));
        let adapter_file = self.wish.export.adapter_gguf.then(|| format!("{stem}-adapter.gguf"));
        if let Some(file) = &adapter_file {
            let (path, name) = (self.folder.join(file), Some(self.name(base)));
            let wanted = AdapterGguf { path, file_type: FileType::F16, name, overwrite: true };
            write_adapter_gguf(&trained, &wanted, &self.heard("write the adapter as GGUF"))?;
        }
        let file = format!("{stem}.gguf");
        let merged = self.merged(&trained, self.folder.join(&file), self.noted(made_of))?;
        merged.warnings.iter().for_each(|warning| self.watcher.note(warning));
        Ok(Model { adapter_file, ..model(file, merged) })
    }

    fn merged(&self, trained: &Trained<'_>, path: PathBuf, lineage: Lineage) -> Result<Merged, Error> {
        let storage = if self.wish.export.allow_low_bit { Storage::AsBase } else { Storage::default() };
        let options = MergeOptions { storage, lineage, threads: self.threads, overwrite: true, ..MergeOptions::new(path) };
        Ok(merge_gguf(trained, &options, &self.heard("merge"))?)
    }

    /// What the model was made from and how, and what it is worth.
    #[must_use]
    pub fn lineage(&self, Ingredients { base, teacher, data, run }: Ingredients<'_>, tested: Option<&Tested>) -> Value {
        let figures =
            |score: &Score| json!({"accuracy": score.accuracy, "f1": score.f1, "perplexity": score.perplexity, "rows": score.items});
        json!({
            "base": {"name": base.name, "source": self.wish.base, "sha256": base.sha256},
            "teacher": teacher.map(|teacher| json!({"name": teacher.name, "sha256": teacher.sha256})),
            "data": {"version": data.version, "rows": data.train.rows, "teacher": data.report.taught},
            "adapter": self.wish.adapter,
            "training": self.wish.training,
            "steps": run.summary.step,
            "loss": run.summary.losses.last(),
            "validation_loss": run.summary.evaluations.last().map(|look| look.loss),
            "test": tested.map(|tested| json!({"before": figures(&tested.before), "after": figures(&tested.after)})),
        })
    }

    /// What of that is written into the file itself.
    fn noted(&self, Ingredients { base, teacher, data, run }: Ingredients<'_>) -> Lineage {
        let loss = |loss: Option<f64>| loss.map(|loss| format!("{loss:.6}")).unwrap_or_default();
        let last = run.summary.evaluations.last().map(|look| look.loss);
        let notes = [
            ("base.sha256", base.sha256.clone()),
            ("data.version", data.version.clone()),
            ("options", json!({"adapter": self.wish.adapter, "training": self.wish.training}).to_string()),
            ("steps", run.summary.step.to_string()),
            ("loss", loss(run.summary.losses.last().copied())),
            ("validation_loss", loss(last)),
            ("data.teacher", data.report.taught.as_ref().map(|taught| json!(taught).to_string()).unwrap_or_default()),
            ("teacher.name", teacher.map(|teacher| teacher.name.clone()).unwrap_or_default()),
            ("teacher.sha256", teacher.map(|teacher| teacher.sha256.clone()).unwrap_or_default()),
        ];
        let notes: BTreeMap<String, String> =
            notes.into_iter().filter(|(_, text)| !text.is_empty()).map(|(key, text)| (key.to_owned(), text)).collect();
        Lineage { name: Some(self.name(base)), notes, ..Lineage::default() }
    }

    fn heard<'a>(&'a self, what: &'a str) -> Heard<'a> {
        Heard { what, watcher: self.watcher }
    }

    /// What the model writes to the prompts, with parameters as they are: merged for the purpose, since what generates knows no adapters.
    pub(super) fn sampled(&self, base: &Base, parameters: &Tensors) -> Result<Vec<Sample>, Error> {
        let strengths = Strengths::new(self.wish.adapter.alpha(), self.wish.adapter.rank_stabilized);
        let trained = Trained { base: &base.path, parameters, strengths: &strengths };
        let path = self.folder.join("sample.gguf");
        self.merged(&trained, path.clone(), Lineage::default())?;
        let answers = self.answers(&path);
        std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        answers
    }

    fn answers(&self, path: &Path) -> Result<Vec<Sample>, Error> {
        let failed = |source| Error::Subject { path: path.to_owned(), source };
        let subject = Subject::load(path, self.device).map_err(failed)?;
        let answer = |prompt: &String| {
            let tokens = subject.encode_prompt(prompt).map_err(|source| failed(source.into()))?;
            let answer = subject.continuation(&tokens, SAMPLE_TOKENS).map_err(|source| failed(source.into()))?;
            Ok(Sample { prompt: prompt.clone(), text: subject.decode(&answer) })
        };
        self.wish.samples.iter().map(answer).collect()
    }
}

struct Heard<'a> {
    what: &'a str,
    watcher: &'a dyn Watcher,
}

impl Progress for Heard<'_> {
    fn advanced(&self, done_bytes: u64, total_bytes: u64) {
        self.watcher.progress(self.what, done_bytes, total_bytes, "bytes");
        self.watcher.hold();
    }

    fn is_cancelled(&self) -> bool {
        self.watcher.cancel().is_cancelled()
    }
}

fn model(file: String, merged: Merged) -> Model {
    let survived = |tensor: crate::jobs::finetune::export::TensorSurvival| Survived {
        tensor: tensor.tensor,
        stored_as: tensor.to.to_owned(),
        gain: tensor.gain,
        change: tensor.change,
    };
    let mut survival: Vec<Survived> = merged.survival.tensors.into_iter().map(survived).collect();
    survival.sort_by(|one, other| one.gain.total_cmp(&other.gain));
    Model {
        file,
        sha256: merged.sha256,
        size_bytes: merged.size_bytes,
        file_type: merged.file_type.to_owned(),
        adapter_file: None,
        survival,
        warnings: merged.warnings,
    }
}

/// A name with nothing in it that a file's could not have.
#[must_use]
pub fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.chars().map(safe).collect();
    let name = name.trim_matches(['.', '-']).chars().take(120).collect::<String>();
    if name.is_empty() { "model".to_owned() } else { name }
}

/// Where a folder can be written anew.
fn emptied(path: PathBuf) -> Result<PathBuf, Error> {
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("empty", &path)(error)),
        _ => Ok(path),
    }
}

/// Keeps parameters in a file that is whole or not there.
pub(super) fn save(place: &Path, parameters: &Tensors) -> Result<(), Error> {
    let beside = place.with_extension("part");
    let named: HashMap<&str, Tensor> = parameters.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    let made = || -> std::io::Result<()> {
        candle_core::safetensors::save(&named, &beside).map_err(std::io::Error::other)?;
        std::fs::File::open(&beside)?.sync_all()?;
        std::fs::rename(&beside, place)
    };
    made().map_err(Error::io("write", place))
}

pub(super) fn load(place: &Path) -> Result<Tensors, Error> {
    let read = candle_core::safetensors::load(place, &Device::Cpu).map_err(std::io::Error::other).map_err(Error::io("read", place))?;
    Ok(read.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_one_of_a_file() {
        for (name, file) in [("me/my model:v1", "me-my-model-v1"), ("..", "model"), ("a.b_c", "a.b_c"), ("", "model"), ("ä", "model")] {
            assert_eq!(file_name(name), file, "{name}");
        }
    }

    #[test]
    fn parameters_come_back_as_they_were() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("trained.safetensors");
        let tensor = Tensor::new(&[[1_f32, -0.0], [f32::MIN_POSITIVE, 3.5]], &Device::Cpu).expect("a tensor");
        let parameters: Tensors = [("blk.0.attn_q.lora_a".to_owned(), tensor)].into();
        save(&place, &parameters).expect("written");
        let found = load(&place).expect("read");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["blk.0.attn_q.lora_a"]);
        assert_eq!(found["blk.0.attn_q.lora_a"].to_vec2::<f32>().expect("numbers"), [[1.0, -0.0], [f32::MIN_POSITIVE, 3.5]]);
    }
}
