//! One of the two models, ready to be run.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;

use super::report::About;
use super::{Both, Error, Step, Work};
use crate::jobs::subject::Subject;
use crate::lm::Device;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Reference,
    Candidate,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reference => "reference",
            Self::Candidate => "candidate",
        })
    }
}

/// A loaded model, and which of the two it is.
pub(super) struct Side {
    pub role: Role,
    pub name: String,
    subject: Subject,
}

impl Deref for Side {
    type Target = Subject;

    fn deref(&self) -> &Subject {
        &self.subject
    }
}

pub(super) fn load_both(work: &Work<'_>) -> Result<Both<Side>, Error> {
    let threads = Some(work.spec.threads).filter(|threads| *threads > 0);
    let device = Device::choose(work.spec.device, threads).map_err(Error::Device)?;
    let roles = Both { reference: (Role::Reference, 0), candidate: (Role::Candidate, 1) };
    let sides = roles.try_map(|(role, done)| {
        work.go_on(Step::Loading, done, 2)?;
        Side::load(work, role, &device)
    })?;
    work.go_on(Step::Loading, 2, 2)?;
    same_vocabulary(&sides)?;
    Ok(sides)
}

fn same_vocabulary(sides: &Both<Side>) -> Result<(), Error> {
    let sizes = sides.as_ref().map(|side| (side.model.config().vocab_size, side.tokenizer.vocab_size()));
    if sizes.reference == sizes.candidate {
        return Ok(());
    }
    let what = format!("vocabularies of {} and {} tokens", sizes.reference.1, sizes.candidate.1);
    Err(Error::Vocabulary { what })
}

impl Side {
    fn load(work: &Work<'_>, role: Role, device: &Device) -> Result<Self, Error> {
        let path = work.spec.path(role);
        let subject = Subject::load(path, device).map_err(|source| Error::load(role, path.clone(), source))?;
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        Ok(Self { role, name, subject })
    }

    pub fn about(&self) -> About {
        About {
            name: self.name.clone(),
            architecture: self.model.config().architecture.clone(),
            quantization: self.header.file_type().map(str::to_owned),
            parameters: self.header.parameters(),
            file_size_bytes: self.header.file_size_bytes,
        }
    }
}
