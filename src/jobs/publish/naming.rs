//! Giving a name to what was built, so that it is never half given; and taking away what is only there meanwhile.

use jiff::{SignedDuration, Timestamp};

use super::attempt::Attempt;
use super::names;
use super::{Action, Error, Outcome, Step};
use crate::backends::Error as Failure;
use crate::backends::ollama::shelf::{self, Listed};
use crate::domain::clock::Clock;
use crate::domain::id::ModelName;

/// Something unfinished that is older than this was left by a publication that never came back.
const LEFT_BEHIND: SignedDuration = SignedDuration::from_hours(24);

impl Attempt<'_> {
    /// Puts in order what killed publications left: a name that was lost is given back, and old unfinished models are removed.
    pub(super) async fn recover(&self) -> Result<(), Error> {
        let list = self.listed(Step::Looking).await?;
        let there = |name: &ModelName| list.iter().any(|listed| listed.is(name));
        if there(&self.names.previous) && !there(&self.names.wanted) {
            self.copy(&self.names.previous, &self.names.wanted).await?;
        }
        for name in left_behind(&list, now()) {
            if let Err(error) = self.shelf.delete(&name).await {
                tracing::debug!(backend = self.backend(), %name, %error, "an old unfinished model could not be removed");
            }
        }
        Ok(())
    }

    /// The name goes to the new model, or stays with the old one.
    pub(super) async fn give_name(&self) -> Result<Action, Error> {
        let list = self.listed(Step::Naming).await?;
        let before = digest_of(&list, &self.names.wanted);
        let new = digest_of(&list, &self.names.unfinished)
            .ok_or_else(|| Error::NotThere { backend: self.backend(), name: self.names.unfinished.clone() })?;
        if before.as_ref() == Some(&new) {
            return Ok(Action::Unchanged);
        }
        if before.is_some() {
            self.copy(&self.names.wanted, &self.names.previous).await?;
        }
        match self.take_name(&new).await {
            Ok(()) if before.is_some() => Ok(Action::Replaced),
            Ok(()) => Ok(Action::Created),
            Err(why) => Err(self.give_back(why, before.is_some()).await),
        }
    }

    /// Copies, and looks whether that is what is there now: the answer to a copy may be lost, or the copy cut short.
    async fn take_name(&self, new: &str) -> Result<(), Error> {
        let copied = self.copy(&self.names.unfinished, &self.names.wanted).await;
        let list = self.listed(Step::Naming).await?;
        if digest_of(&list, &self.names.wanted).as_deref() == Some(new) {
            return Ok(());
        }
        copied.and(Err(Error::NotThere { backend: self.backend(), name: self.names.wanted.clone() }))
    }

    /// After a name could not be taken: what had it has it again, or nothing has. Gives the error to report.
    async fn give_back(&self, why: Error, had: bool) -> Error {
        if !had {
            // Whatever is there now is the broken half of ours.
            self.forget(&self.names.wanted).await;
            return why;
        }
        match self.shelf.copy(&self.names.previous, &self.names.wanted).await {
            Ok(()) => why,
            Err(error) => Error::NotRestored {
                backend: self.backend(),
                name: self.names.wanted.clone(),
                kept: self.names.previous.clone(),
                why: Box::new(why),
                source: server_side(error),
            },
        }
    }

    /// Removes what was there only meanwhile. Failing at this spoils nothing: the next publication does it.
    pub(super) async fn tidy(&self, outcome: &Result<Outcome, Error>) {
        if matches!(outcome, Err(Error::Server { step: Step::Looking, .. } | Error::NotRestored { .. })) {
            return;
        }
        self.tell(Step::Tidying, None, None);
        for name in [&self.names.unfinished, &self.names.previous] {
            self.forget(name).await;
        }
    }

    async fn forget(&self, name: &ModelName) {
        if let Err(error) = self.shelf.delete(name).await {
            tracing::warn!(backend = self.backend(), %name, %error, "what a publication left could not be removed; the next one does it");
            self.remark(format!("`{name}` could not be removed; the next publication does it ({error})"));
        }
    }

    async fn copy(&self, from: &ModelName, to: &ModelName) -> Result<(), Error> {
        self.shelf.copy(from, to).await.map_err(|error| self.failed(Step::Naming, error))
    }
}

/// A copy reads no files of ours.
fn server_side(error: shelf::Error) -> Failure {
    match error {
        shelf::Error::Server(failure) => failure,
        other => Failure::Failed { status: None, message: other.to_string() },
    }
}

fn digest_of(list: &[Listed], name: &ModelName) -> Option<String> {
    list.iter().find(|listed| listed.is(name)).map(|listed| listed.digest.clone())
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(Clock::system().unix_ms()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Unfinished models that nobody works on any more.
fn left_behind(list: &[Listed], now: Timestamp) -> Vec<ModelName> {
    let old = |listed: &&Listed| {
        let changed = listed.modified_at.parse::<Timestamp>();
        names::is_unfinished(&listed.name) && changed.is_ok_and(|changed| now.duration_since(changed) > LEFT_BEHIND)
    };
    list.iter().filter(old).filter_map(|listed| ModelName::parse(&listed.name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_unfinished_models_are_left_behind() {
        let listed = |name: &str, modified_at: &str| Listed { name: name.into(), digest: String::new(), modified_at: modified_at.into() };
        let list = [
            listed("arriero-unfinished/aa:11", "2026-01-01T00:00:00.5Z"),
            listed("arriero-unfinished/bb:22", "2026-01-02T23:00:00Z"),
            listed("arriero-unfinished/cc:previous", "2026-01-01T00:00:00Z"),
            listed("arriero-unfinished/dd:33", "at some time"),
            listed("gemma3:270m", "2020-01-01T00:00:00Z"),
        ];
        let found = left_behind(&list, "2026-01-03T00:00:00Z".parse().expect("a time"));
        assert_eq!(found.iter().map(ModelName::as_str).collect::<Vec<_>>(), ["arriero-unfinished/aa:11"]);
    }
}
