//! An answer that begins anew elsewhere when its backend fails in the middle, for a client that has seen nothing of it yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_stream::stream;
use futures_util::{Stream, StreamExt};

use super::about::About;
use super::attempt::Prepared;
use super::call::Call;
use super::error::Error;
use super::generate::Gateway;
use super::production::Production;
use crate::domain::generation::{Change, Event};
use crate::domain::waiting::Progress;

/// How often one answer begins anew.
const MOST: u32 = 3;

/// How often an answer has begun anew. Whoever collects it forgets what came before. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Restarts(Arc<AtomicU32>);

impl Restarts {
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    fn note(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Gateway {
    /// The events of an answer, and after each beginning anew those of the new one.
    pub(super) fn restarting(
        self,
        call: Call,
        about: Arc<About>,
        mut production: Production,
        restarts: Restarts,
    ) -> impl Stream<Item = Result<Event, Error>> + Send + 'static {
        stream! {
            let mut failed = vec![about.backend.clone()];
            let mut changed: Vec<Change> = Vec::new();
            while let Some(event) = production.next().await {
                let error = match event {
                    Ok(Event::Done(mut finish)) => {
                        finish.remarks.changed.append(&mut changed);
                        yield Ok(Event::Done(finish));
                        return;
                    }
                    Ok(event) => {
                        yield Ok(event);
                        continue;
                    }
                    Err(error) => error,
                };
                let again = if restarts.count() < MOST { self.elsewhere(&call, &about, &failed, &error).await } else { None };
                let Some(prepared) = again else {
                    yield Err(error);
                    return;
                };
                let Ok(started) = self.ask(prepared, &Progress::new().0, &mut 0).await else {
                    // What failed first says more than that there was no other.
                    yield Err(error);
                    return;
                };
                restarts.note();
                let from = failed.last().cloned().unwrap_or_default();
                let why = "the backend failed in the middle; the answer was begun anew";
                changed.push(Change { field: "backend".into(), from: from.into(), to: (*started.backend).into(), why });
                failed.push(started.backend.to_string());
                production.go_on(started);
            }
        }
    }

    /// The same request for those that have not failed it yet, where that can help and is within the budget of retries.
    async fn elsewhere(&self, call: &Call, about: &About, failed: &[String], error: &Error) -> Option<Prepared> {
        let step = call.chain.steps().get(about.step).filter(|_| error.may_pass_elsewhere())?;
        let mut hosts = self.hosts(step).await.ok()?;
        hosts.retain(|(entry, _)| !failed.iter().any(|name| name == entry.backend.name()));
        if hosts.is_empty() || !self.parts().router.may_retry() {
            return None;
        }
        Some(self.prepare_again(call, step, call.ask.clone(), hosts))
    }
}
