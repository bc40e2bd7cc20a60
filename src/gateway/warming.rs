//! Sends the prompts that are kept warm, when nobody else needs the backend.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::call::Call;
use super::deadline::Bounds;
use super::error::Error;
use super::generate::Gateway;
use super::production::Production;
use crate::cache::prefix::Chain as Prefix;
use crate::cache::warm::{self, Seen};
use crate::cache::warm_set::{Row, WarmSet};
use crate::domain::generation::{Ask, Control, Dialect, Fallback, Priority};
use crate::domain::id::{ModelName, RequestId};
use crate::domain::principal::{Principal, Role};
use crate::domain::waiting::Progress;
use crate::models::{Entry, Loaded};
use crate::routing::fallback::Chain;

/// How often it is looked whether a prompt is to be sent.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long one may take.
const PATIENCE: Duration = Duration::from_mins(10);

impl Gateway {
    /// The prompts that are kept warm.
    pub fn warm(&self) -> &WarmSet {
        &self.parts().warm
    }

    /// Keeps prompts warm for ever; to be run as one supervised task.
    pub async fn keep_warm(self) {
        loop {
            for row in self.warm().rows().iter() {
                self.look_after(row);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn look_after(&self, row: &Row) {
        let Ok(model) = ModelName::parse(&row.model) else { return };
        let ask = warm::ask(row);
        let held = self.parts().prefixes.longest(&Prefix::of(self.parts().prefixes.config(), &model, &ask));
        // Before it was looked at, the queue knows nothing of a backend.
        let ready = |entry: &Entry| entry.is_up() && entry.resident().is_some();
        for (entry, _) in self.registry().having(&model).into_iter().filter(|(entry, _)| ready(entry)) {
            let backend = entry.backend.name().to_owned();
            let seen = seen(&entry, &model, !self.parts().prefixes.config().enabled || held.iter().any(|warm| *warm.backend == *backend));
            if let Some(cause) = self.warm().due(&row.name, &backend, seen) {
                tracing::debug!(name = row.name, backend, cause = cause.as_str(), "warming a prompt");
                let (gateway, name, model, ask) = (self.clone(), row.name.clone(), model.clone(), ask.clone());
                self.parts().tasks.spawn(async move {
                    let sent = tokio::time::timeout(PATIENCE, gateway.send(model, ask, &backend)).await;
                    let worked = matches!(sent, Ok(Ok(())));
                    if let Ok(Err(error)) = &sent {
                        tracing::warn!(name, backend, %error, "a prompt could not be kept warm");
                    }
                    gateway.parts().ledger.metrics.warm_sent(cause.as_str(), worked);
                    gateway.warm().finished(&name, &backend, worked);
                });
            }
        }
    }

    /// Has one backend read a prompt, at the lowest priority.
    async fn send(&self, model: ModelName, ask: Ask, backend: &str) -> Result<(), Error> {
        let settings = self.settings();
        let chain = Chain::resolve(&settings.aliases, &model, &Fallback::Switch(false)).on(backend);
        let call = Call {
            id: RequestId::generate(),
            dialect: Dialect::Native,
            principal: Arc::new(Principal::anonymous(Role::Operator)),
            asked: model,
            ask,
            control: Control::default(),
            streamed: false,
            class: Priority::Batch,
            chain,
            deadline: None,
            settings,
            changed: Vec::new(),
            not_applied: Vec::new(),
            standing: crate::limits::Standing::default(),
        };
        let (_, started) = self.produce(&call, &Progress::new().0).await?;
        let mut events = Production::new(started, None, None, Bounds::default());
        while let Some(event) = events.next().await {
            event?;
        }
        Ok(())
    }
}

fn seen(entry: &Entry, model: &ModelName, warm: bool) -> Seen {
    let resident = entry.resident();
    let expires_at_ms = resident.as_ref().and_then(|all| all.iter().find(|one| one.model == *model)?.expires_at_unix_ms);
    Seen { loaded: matches!(entry.loaded(model), Loaded::Yes(_)), expires_at_ms, warm }
}
