//! Kinds of jobs: what can be done in the background, each registered by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::checksum::Checksum;
use super::config::Unload;
use super::dataset::{self, Collected, Dataset};
#[cfg(feature = "embedded")]
use super::finetune::job::Finetune;
use super::make::{Convert, Promote, Server};
use super::roots::{Found, Roots};
use super::trial::Trial;
use super::worker::Context;
use super::{download, publish};
use crate::domain::principal::Role;
use crate::storage::jobs::Needs;

/// Why a submission or an attempt does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The input is not what the kind takes: trying again does not help.
    #[error("{0}")]
    Input(String),
    /// A path leads where it may not, or to nothing.
    #[error(transparent)]
    Path(#[from] super::roots::Error),
    /// Trying again does not help.
    #[error("{0}")]
    Final(String),
    /// Trying again may help.
    #[error("{0}")]
    Passing(String),
    /// The job was cancelled, or its worker is to stop: the kind stops at the next good place.
    #[error("stopped")]
    Stopped,
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Passing(error.to_string())
    }
}

/// What a job is going to do and take, known before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Names of its steps, in order.
    pub steps: Vec<String>,
    pub needs: Needs,
}

/// What plans and attempts may look at and use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ground {
    pub roots: Roots,
    /// Threads that all jobs together may keep busy.
    pub cpu_threads: u32,
    /// Accelerators that all jobs together may keep busy.
    pub gpus: u32,
    /// When Ollama's models make room for a training.
    pub unload: Unload,
    /// Servers that may be published to.
    pub servers: Vec<Server>,
    pub publish: publish::Config,
    /// From where models are fetched.
    pub hub: download::Config,
    /// Who is asked for the answers of teachers.
    pub teacher: dataset::teacher::Config,
    /// The embedded engine's library.
    pub library: PathBuf,
    /// Where versions of published models are kept.
    pub versions: PathBuf,
    /// Where an Ollama on this machine keeps its models.
    pub installed: PathBuf,
    /// How large the artifacts are that a job which is planned may read, by what its input calls them: those that are there by now.
    #[serde(skip)]
    pub sizes: BTreeMap<String, u64>,
}

impl Ground {
    /// How large a file is that an input names. `None`: an earlier job is going to make it.
    ///
    /// # Errors
    /// When it is not there, or may not be read.
    pub fn size_bytes(&self, path: &str) -> Result<Option<u64>, Fault> {
        if reference(path).is_some() {
            return Ok(self.sizes.get(path).copied());
        }
        Ok(Some(file(self.roots.open(path)?, path)?.metadata()?.len()))
    }
}

#[cfg(test)]
impl Ground {
    /// One with nothing but folders.
    pub fn beneath(roots: Roots) -> Self {
        let (servers, publish, hub) = (Vec::new(), publish::Config::default(), download::Config::default());
        let (library, versions, installed) = (PathBuf::new(), PathBuf::new(), PathBuf::new());
        let (unload, teacher) = (Unload::default(), dataset::teacher::Config::default());
        Self {
            roots,
            cpu_threads: 2,
            gpus: 0,
            unload,
            servers,
            publish,
            hub,
            teacher,
            library,
            versions,
            installed,
            sizes: BTreeMap::new(),
        }
    }
}

/// A kind of job.
pub trait Kind: Send + Sync {
    /// A short word in lower case.
    fn name(&self) -> &'static str;

    /// What it does, in a sentence or two.
    fn about(&self) -> &'static str;

    /// Grows whenever the same input makes another output: steps that an older version has ended are made anew.
    fn version(&self) -> u32;

    /// JSON Schema of the input, as OpenAPI takes it.
    fn schema(&self) -> Value;

    /// Who may ask for it: what reaches beyond the job and its artifacts is not for everyone.
    fn role(&self, input: &Value) -> Role {
        let _ = input;
        Role::User
    }

    /// What of the exchanges that the gateway collected an input asks for: its worker brings them to the job, whose process touches no
    /// database. Whoever gives any here asks for an operator in [`Kind::role`].
    fn collected(&self, input: &Value) -> Vec<Collected> {
        let _ = input;
        Vec::new()
    }

    /// Looks at an input, before the job is accepted. What `artifact:` stands for may not be there yet.
    ///
    /// # Errors
    /// An input that the kind does not take.
    fn plan(&self, input: &Value, ground: &Ground) -> Result<Plan, Fault>;

    /// Does it, in a process of its own. It is called again after a failure, and then passes over the steps that have ended
    /// ([`Context::step`]).
    ///
    /// # Errors
    /// Why not; the worker tries again unless that cannot help.
    fn run(&self, context: &mut Context, input: &Value) -> Result<Value, Fault>;
}

/// A file that was found, where a folder is of no use.
pub(super) fn file(found: Found, path: &str) -> Result<File, Fault> {
    match found {
        Found::File(file) => Ok(file.into_std()),
        Found::Folder(_) => Err(Fault::Input(format!("`{path}` is a folder: name the files in it"))),
    }
}

/// The kinds that there are. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<[Box<dyn Kind>]>);

impl Registry {
    /// All kinds of this program; with the one for trials where that is wanted.
    #[must_use]
    pub fn standard(trial: bool) -> Self {
        let mut kinds: Vec<Box<dyn Kind>> = vec![Box::new(Checksum), Box::new(Convert), Box::new(Dataset), Box::new(Promote)];
        #[cfg(feature = "embedded")]
        kinds.push(Box::new(Finetune));
        if trial {
            kinds.push(Box::new(Trial));
        }
        Self(kinds.into())
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&dyn Kind> {
        self.0.iter().find(|kind| kind.name() == name).map(AsRef::as_ref)
    }

    pub fn iter(&self) -> impl Iterator<Item = &dyn Kind> {
        self.0.iter().map(AsRef::as_ref)
    }

    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.iter().map(|kind| kind.name().to_owned()).collect()
    }
}

/// How an input names the artifact of another job: `artifact:JOB/NAME`.
pub const REFERENCE: &str = "artifact:";

/// All references in an input: (job, name).
#[must_use]
pub fn references(input: &Value) -> Vec<(String, String)> {
    match input {
        Value::String(text) => reference(text).into_iter().collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Object(fields) => fields.values().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

/// The job and the name that a text refers to.
#[must_use]
pub fn reference(text: &str) -> Option<(String, String)> {
    let (job, name) = text.strip_prefix(REFERENCE)?.split_once('/')?;
    Some((job.to_owned(), name.to_owned()))
}

/// What a reference stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referred {
    pub text: String,
    pub path: PathBuf,
    pub sha256: String,
    pub size_bytes: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_a_schema_of_an_object() {
        let kinds = Registry::standard(true);
        let mut names = kinds.names();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), kinds.iter().count());
        for kind in kinds.iter() {
            assert_eq!(kind.schema()["type"], "object", "{}", kind.name());
            assert!(!kind.about().is_empty() && kind.name().bytes().all(|b| b.is_ascii_lowercase()));
        }
        assert!(Registry::standard(false).get("trial").is_none());
    }

    #[test]
    fn references_are_found_wherever_they_are() {
        let input = json!({"a": "artifact:j1/x.json", "b": [{"c": "artifact:j2/d/e"}, 1, "artifact:", "no"]});
        assert_eq!(references(&input), [("j1".to_owned(), "x.json".to_owned()), ("j2".to_owned(), "d/e".to_owned())]);
    }
}
