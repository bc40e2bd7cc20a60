//! An answer that goes on elsewhere when its backend fails in the middle, where the configuration asks for that.

use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use futures_util::{Stream, StreamExt};

use super::about::About;
use super::call::Call;
use super::continuation::{self, Heard};
use super::error::Error;
use super::generate::Gateway;
use super::production::{Production, Started};
use crate::domain::generation::{Ask, Change, Event, Request};
use crate::domain::model::ModelInfo;
use crate::domain::waiting::Progress;
use crate::models::Entry;
use crate::routing::fallback::Step;

/// How often one answer goes on elsewhere.
const MOST: usize = 3;
/// How long a backend may take to say what a prompt becomes; it may have to load the model for that.
const RENDERED_WITHIN: Duration = Duration::from_secs(30);

/// How a cut answer ends.
enum Next {
    /// Another backend writes what follows.
    Started(Box<Started>),
    /// It was whole but for its end.
    Whole,
}

impl Gateway {
    pub(super) fn continued(
        self,
        call: Call,
        about: Arc<About>,
        mut production: Production,
    ) -> impl Stream<Item = Result<Event, Error>> + Send + 'static {
        stream! {
            let (mut heard, mut before) = (Heard::default(), Heard::default());
            let mut changed: Vec<Change> = Vec::new();
            let mut backend = about.backend.clone();
            while let Some(event) = production.next().await {
                let error = match event {
                    Ok(Event::Delta(delta)) => {
                        heard.piece(&delta);
                        yield Ok(Event::Delta(delta));
                        continue;
                    }
                    Ok(Event::Done(finish)) => {
                        let mut finish = if changed.is_empty() { *finish } else { continuation::joined(*finish, &before) };
                        finish.remarks.changed.extend(changed);
                        yield Ok(Event::Done(Box::new(finish)));
                        return;
                    }
                    Err(error) => error,
                };
                let next = if changed.len() < MOST { self.next(&call, &about, &heard, &backend, &error).await } else { None };
                match next {
                    Some(Next::Started(started)) => {
                        let why = "the backend failed in the middle; another one with the same model went on";
                        changed.push(Change { field: "backend".into(), from: backend.into(), to: (*started.backend).into(), why });
                        (backend, before) = (started.backend.to_string(), heard.clone());
                        production.go_on(*started);
                    }
                    Some(Next::Whole) => {
                        yield Ok(Event::Done(Box::new(continuation::full(&heard))));
                        return;
                    }
                    None => {
                        yield Err(error);
                        return;
                    }
                }
            }
        }
    }

    /// Where a cut answer goes on, if it can.
    async fn next(&self, call: &Call, about: &About, heard: &Heard, failed: &str, error: &Error) -> Option<Next> {
        if !error.may_pass_elsewhere() || heard.pieces == 0 {
            return None;
        }
        if let Some(why) = continuation::obstacle(&call.ask, heard) {
            tracing::info!(request = %call.id, why, "an answer that was cut is not continued");
            return None;
        }
        let step = call.chain.steps().get(about.step)?;
        let others = self.twins(step, failed).await?;
        let rendered = match continuation::rendering(&call.ask) {
            None => None,
            Some(ask) => Some(self.rendered(call, step, ask, &others).await?),
        };
        let Some(ask) = continuation::question(&call.ask, rendered.as_deref(), heard) else { return Some(Next::Whole) };
        let prepared = self.prepare_again(call, step, ask, others);
        let started = self.ask(prepared, &Progress::new().0, &mut 0).await;
        started.map(|started| Next::Started(Box::new(started))).ok()
    }

    /// The other backends that have the very same model as the one that failed.
    async fn twins(&self, step: &Step, failed: &str) -> Option<Vec<(Arc<Entry>, Arc<ModelInfo>)>> {
        let mut hosts = self.hosts(step).await.ok()?;
        let digest = hosts.iter().find(|(entry, _)| entry.backend.name() == failed)?.1.digest.clone()?;
        hosts.retain(|(entry, model)| entry.backend.name() != failed && model.digest.as_ref() == Some(&digest) && entry.is_up());
        (!hosts.is_empty()).then_some(hosts)
    }

    /// The prompt as the model's template makes it, by one of those who have the model.
    async fn rendered(&self, call: &Call, step: &Step, ask: Ask, hosts: &[(Arc<Entry>, Arc<ModelInfo>)]) -> Option<String> {
        let request = Arc::new(Request { id: call.id.clone(), model: step.model.clone(), ask, deadline: None });
        let asking = async {
            let mut events = hosts[0].0.backend.generate(request).await.ok()?;
            while let Some(event) = events.next().await {
                match event.ok()? {
                    Event::Done(finish) => return continuation::rendered(&finish).map(str::to_owned),
                    // It does not know the wish and has begun to answer, which nobody asked for. Dropping it stops it.
                    Event::Delta(delta) if !delta.text.is_empty() || !delta.thinking.is_empty() => return None,
                    Event::Delta(_) => {}
                }
            }
            None
        };
        tokio::time::timeout(RENDERED_WITHIN, asking).await.ok().flatten()
    }
}
