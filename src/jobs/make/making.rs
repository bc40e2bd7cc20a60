//! One job of the kind `convert` at work, step by step.
//!
//! What is made lies in the job's folder until all of it is done, so that an attempt goes on with the files that an earlier one finished.
//! A publication comes last: what is published has passed, and is an artifact already.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::errand::{self, fault, wrong};
use super::kind::threads;
use super::places::Places;
use super::steps;
use super::wish::{Named, Wish};
use crate::gguf::file_type::FileType;
use crate::jobs::convert::{Options, Target};
use crate::jobs::kind::Fault;
use crate::jobs::worker::{Context, Reporter};

/// Folders in that of the job: for what was asked for, and for what it is compared with.
const FILES: &str = "files";
const REFERENCE: &str = "reference";

/// A file that was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Made {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    size_bytes: u64,
    sha256: String,
    tensors: usize,
    parameters: u64,
}

/// One step of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// From the Hub.
    Fetch,
    /// A file to compare with, where the source is none that can be run.
    Reference,
    Convert(FileType),
    Check(FileType),
    Publish(FileType),
    Keep,
}

impl Stage {
    pub(super) fn all(wish: &Wish, types: &[FileType]) -> Vec<Self> {
        let mut all = Vec::new();
        if let Named::Hub(_) = Named::of(&wish.source) {
            all.push(Self::Fetch);
        }
        if wish.check.is_some() {
            all.push(Self::Reference);
        }
        all.extend(types.iter().copied().map(Self::Convert));
        all.extend(types.iter().copied().filter(|_| wish.check.is_some()).map(Self::Check));
        // What was made is kept also where nobody can be given it.
        all.push(Self::Keep);
        all.extend(types.iter().copied().filter(|_| wish.publish.is_some()).map(Self::Publish));
        all
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Fetch => "fetch".to_owned(),
            Self::Reference => "reference".to_owned(),
            Self::Convert(kind) => format!("convert {kind}"),
            Self::Check(kind) => format!("check {kind}"),
            Self::Publish(kind) => format!("publish {kind}"),
            Self::Keep => "keep".to_owned(),
        }
    }
}

/// What the job answers.
#[derive(Debug, Default, Serialize)]
pub(super) struct Results {
    files: Vec<Made>,
    checks: Vec<Value>,
    published: Vec<Value>,
    /// What the files are compared with.
    #[serde(skip)]
    reference: PathBuf,
}

impl Results {
    fn of(&self, kind: FileType) -> Result<&Made, Fault> {
        let found = self.files.iter().find(|made| made.kind == kind.name());
        found.ok_or_else(|| Fault::Final(format!("there is no file of type {kind}")))
    }
}

/// One conversion under way.
pub(super) struct Making {
    pub wish: Wish,
    places: Places,
    folder: PathBuf,
    threads: NonZeroUsize,
    reporter: Reporter,
}

impl Making {
    pub(super) fn new(context: &Context, wish: Wish, places: Places, reporter: Reporter) -> Result<Self, Fault> {
        let folder = context.work_dir().join("made");
        for folder in [FILES, REFERENCE].map(|name| folder.join(name)) {
            std::fs::create_dir_all(&folder)?;
            tidy(&folder)?;
        }
        Ok(Self { wish, places, folder, threads: threads(context.threads()), reporter })
    }

    pub(super) fn stage(&self, context: &mut Context, number: u32, stage: Stage, several: bool, result: &mut Results) -> Result<(), Fault> {
        match stage {
            // It had to come before everything else.
            Stage::Fetch => Ok(()),
            Stage::Reference => {
                result.reference = match self.places.reference() {
                    Some(source) => source.to_owned(),
                    None => self.path(REFERENCE, &self.made(context, number, self.places.reference_type(), REFERENCE)?),
                };
                Ok(())
            }
            Stage::Convert(kind) => self.made(context, number, kind, FILES).map(|made| result.files.push(made)),
            Stage::Check(kind) => {
                let made = result.of(kind)?;
                let checked = context.step(number, &json!(made.sha256), |context| self.check(context, made, kind, &result.reference))?;
                result.checks.push(checked);
                Ok(())
            }
            Stage::Publish(kind) => {
                let made = result.of(kind)?;
                let published: Vec<Value> =
                    context.step(number, &json!(made.sha256), |context| self.publish(context, made, kind, several))?;
                result.published.extend(published);
                Ok(())
            }
            Stage::Keep => {
                let files: Vec<&str> = result.files.iter().map(|made| made.sha256.as_str()).collect();
                context.step(number, &json!(files), |context| result.files.iter().try_for_each(|made| self.keep(context, made, several)))
            }
        }
    }

    /// Makes a file, or finds the one that an earlier attempt made.
    fn made(&self, context: &mut Context, number: u32, kind: FileType, folder: &str) -> Result<Made, Fault> {
        let target = Target::Folder(self.folder.join(folder));
        let options = Options { overwrite: true, ..self.wish.options(&self.places, vec![kind], target, self.threads) };
        let convert = |_: &mut Context| {
            let outcome = steps::convert(&options, &self.reporter).map_err(fault)?;
            let name = outcome.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (size_bytes, tensors, parameters) = (outcome.size_bytes, outcome.tensors, outcome.parameters);
            Ok(Made { name, kind: kind.name().to_owned(), size_bytes, sha256: outcome.sha256, tensors, parameters })
        };
        let made: Made = context.step(number, &json!(kind.name()), convert)?;
        if self.path(folder, &made).is_file() {
            return Ok(made);
        }
        // It ended, but what it made is gone: once more.
        context.step(number, &json!([kind.name(), context.attempt()]), convert)
    }

    fn check(&self, context: &mut Context, made: &Made, kind: FileType, reference: &Path) -> Result<Value, Fault> {
        let checking = self.wish.check.clone().unwrap_or_default();
        let text = checking.text.as_deref().map(|path| context.resolve(path)).transpose()?;
        let compared = steps::compare(&self.path(FILES, made), reference, &checking, text, &self.reporter);
        let compared = compared.map_err(|error| match error {
            steps::CompareError::Cancelled => Fault::Stopped,
            steps::CompareError::Failed(why) => Fault::Final(why),
        })?;
        for (ending, text) in [("json", &compared.json), ("md", &compared.markdown), ("html", &compared.html)] {
            context.artifact(&format!("check-{kind}.{ending}"), &json!({"of": made.name, "sha256": made.sha256}), |out| {
                out.write_all(text.as_bytes())?;
                Ok(())
            })?;
        }
        if compared.passed {
            return Ok(json!({"type": kind.name(), "passed": true, "figures": compared.figures}));
        }
        let why = compared.failures.join("; ");
        Err(Fault::Final(format!("{} does not pass its check: {why}; the artifact check-{kind}.md has the figures", made.name)))
    }

    fn publish(&self, context: &Context, made: &Made, kind: FileType, several: bool) -> Result<Vec<Value>, Fault> {
        let Some(publishing) = &self.wish.publish else { return Ok(Vec::new()) };
        let lineage = json!({"source": self.wish.source, "adapter": self.wish.adapter, "type": made.kind});
        errand::publish(context, publishing, (&self.path(FILES, made), &made.sha256), (kind, several), &lineage, &self.reporter)
    }

    /// Makes artifacts of a file and its Modelfile.
    fn keep(&self, context: &mut Context, made: &Made, several: bool) -> Result<(), Fault> {
        let lineage = json!({"type": made.kind, "tensors": made.tensors, "parameters": made.parameters});
        context.share(&made.name, &self.path(FILES, made), Some(made.sha256.clone()), &lineage)?;
        let kind = made.kind.parse::<FileType>().map_err(|error| Fault::Final(error.to_string()))?;
        let Some(publishing) = &self.wish.publish else { return Ok(()) };
        let text = steps::modelfile(&publishing.manifest(kind, several).map_err(|error| wrong(&error))?, &made.name);
        context.artifact(&format!("{}.Modelfile", made.name), &json!({"of": made.name}), |out| {
            out.write_all(text.as_bytes())?;
            Ok(())
        })?;
        Ok(())
    }

    fn path(&self, folder: &str, made: &Made) -> PathBuf {
        self.folder.join(folder).join(&made.name)
    }
}

/// Removes what an attempt that was killed left unfinished.
fn tidy(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "part") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_unfinished_goes_and_what_is_whole_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in [".m.gguf.123-0.part", "m.gguf"] {
            std::fs::write(folder.path().join(name), "x").expect("written");
        }
        tidy(folder.path()).expect("tidied");
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(left, ["m.gguf"]);
    }
}
