//! The file that those that were made are compared with.

use std::path::{Path, PathBuf};

use super::{Command, failure};
use crate::cli::exit::Failure;
use crate::cli::watching::Watching;
use crate::jobs::convert::{Options, Outcome, Target};
use crate::jobs::make::steps;

/// The file that others are compared with; made for the purpose where the source is none that can be run.
pub struct Reference {
    pub path: PathBuf,
    _made_in: Option<Scratch>,
}

impl Reference {
    pub fn of(command: &Command<'_>, made: &[Outcome], watching: &Watching) -> Result<Self, Failure> {
        if let Some(path) = command.places.reference() {
            return Ok(Self { path: path.to_owned(), _made_in: None });
        }
        let beside = made.first().and_then(|outcome| outcome.path.parent()).unwrap_or(Path::new("."));
        let scratch = Scratch::new(beside)?;
        let types = vec![command.places.reference_type()];
        let options = Options { target: Target::Folder(scratch.0.clone()), ..command.options(types) };
        let outcome = steps::convert(&options, watching).map_err(|error| failure(&error))?;
        Ok(Self { path: outcome.path, _made_in: Some(scratch) })
    }
}

/// A folder that goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(beside: &Path) -> Result<Self, Failure> {
        let folder = beside.join(format!(".arriero-reference-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is named so that it is known for what it is.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
