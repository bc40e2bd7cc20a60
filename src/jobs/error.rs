//! Why something that was asked of the jobs is not done.

use super::admission::TooLarge;
use super::machine::Wrong;
use super::roots;
use crate::storage;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no kind of job called `{kind}`; there are {}", known.join(", "))]
    UnknownKind { kind: String, known: Vec<String> },
    #[error("the input does not fit the kind `{kind}`: {why}")]
    Input { kind: String, why: String },
    #[error(transparent)]
    Path(#[from] roots::Error),
    #[error("there is no job `{0}`")]
    NotFound(String),
    #[error("there is no schedule `{0}`")]
    ScheduleNotFound(String),
    #[error("`{0}` is no name for a file: it takes up to 200 letters of ASCII, digits, `-`, `_` and `.`, and does not begin with a dot")]
    FileName(String),
    #[error("an upload is not tried again by itself: send the file again")]
    UploadAgain,
    #[error("the file `{0}` is still coming")]
    StillComing(String),
    #[error("the job `{by}`, which has not ended, is going to read the file `{file}`")]
    Needed { file: String, by: String },
    #[error("the file `{0}` was cancelled while it came")]
    Cancelled(String),
    #[error("the job has no artifact `{0}`")]
    ArtifactNotFound(String),
    #[error("the job `{0}`, after which this one is to come, is not there")]
    AfterNotFound(String),
    #[error("`{0}` is no name of an artifact of a job that this one comes after (`artifact:JOB/NAME`, with JOB in `after`)")]
    Reference(String),
    #[error("the schedule is not understood: {0}")]
    Calendar(String),
    #[error("it takes {} {}, and there is room for {}", .0.needed, if matches!(.0.resource, "memory" | "disk") { .0.resource.to_owned() + " bytes" } else { .0.resource.to_owned() + "s" }, .0.available)]
    TooLarge(TooLarge),
    #[error("the idempotency key was used for another submission")]
    OtherBody,
    #[error("as many jobs wait as may ({most})")]
    TooMany { most: u64 },
    #[error("there are as many schedules as may be ({most})")]
    TooManySchedules { most: u64 },
    #[error(transparent)]
    Wrong(#[from] Wrong),
    #[error(transparent)]
    Storage(#[from] storage::Error),
    #[error("{doing}: {source}")]
    Io { doing: String, source: std::io::Error },
}

impl Error {
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
