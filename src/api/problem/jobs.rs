//! Refusals of background jobs.

use super::Problem;
use crate::jobs::{Error, PathError, Wrong};

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = Self::new(code(&error), error.to_string());
        match &error {
            Error::UnknownKind { known, .. } => problem.with("known", known.clone()),
            Error::TooLarge(too) => problem.with("resource", too.resource).with("needed", too.needed).with("available", too.available),
            Error::Storage(_) | Error::Io { .. } => {
                tracing::error!(%error, "a request for a job failed");
                problem
            }
            _ => problem,
        }
    }
}

fn code(error: &Error) -> &'static str {
    match error {
        Error::UnknownKind { .. } => "job_kind_unknown",
        Error::Input { .. } | Error::Reference(_) | Error::AfterNotFound(_) => "job_input_invalid",
        Error::Path(PathError::Outside { .. } | PathError::Escapes { .. }) => "path_forbidden",
        Error::Path(PathError::Missing { .. } | PathError::Io { .. }) => "path_not_found",
        Error::FileName(_) => "file_name_invalid",
        Error::StillComing(_) | Error::Needed { .. } => "file_in_use",
        Error::NotFound(_) => "job_not_found",
        Error::ScheduleNotFound(_) => "schedule_not_found",
        Error::ArtifactNotFound(_) => "artifact_not_found",
        Error::Calendar(_) => "schedule_invalid",
        Error::TooLarge(_) => "job_too_large",
        Error::OtherBody => "idempotency_conflict",
        Error::TooMany { .. } => "too_many_jobs",
        Error::TooManySchedules { .. } => "too_many_schedules",
        Error::Wrong(Wrong::Ended) => "job_ended",
        Error::Wrong(Wrong::NotRetryable) | Error::UploadAgain => "job_not_retryable",
        Error::Wrong(Wrong::Lost | Wrong::NotQueued) | Error::Cancelled(_) => "job_changed",
        Error::Storage(_) => "not_stored",
        Error::Io { .. } => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::TooLarge;

    #[test]
    fn what_does_not_fit_says_how_much_is_short() {
        let problem = Problem::from(Error::TooLarge(TooLarge { resource: "memory", needed: 9, available: 7 }));
        assert_eq!((problem.status, problem.code), (507, "job_too_large"));
        assert_eq!(problem.detail, "it takes 9 memory bytes, and there is room for 7");
        assert_eq!((problem.more["needed"].as_u64(), problem.more["available"].as_u64()), (Some(9), Some(7)));
    }

    #[test]
    fn every_code_has_its_row() {
        let path = |error| Error::Path(error);
        for error in [
            Error::UnknownKind { kind: "x".into(), known: vec![] },
            Error::Reference("x".into()),
            path(PathError::Outside { path: "x".into(), roots: vec![] }),
            path(PathError::Missing { path: "x".into() }),
            Error::NotFound("x".into()),
            Error::ScheduleNotFound("x".into()),
            Error::ArtifactNotFound("x".into()),
            Error::Calendar("x".into()),
            Error::OtherBody,
            Error::TooMany { most: 1 },
            Error::TooManySchedules { most: 1 },
            Error::Wrong(Wrong::Ended),
            Error::Wrong(Wrong::NotRetryable),
            Error::Wrong(Wrong::Lost),
        ] {
            assert_ne!(Problem::from(error).code, "internal");
        }
    }
}
