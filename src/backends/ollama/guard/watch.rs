//! Looks at a server's answers at intervals, and cures what is stuck.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::super::{Shared, library, residency};
use super::evidence::{List, SLOW_LIST};
use super::judge::Action;
use crate::backends::{Error, TroubleKind};
use crate::domain::clock::Clock;
use crate::domain::id::ModelName;

/// How long the list of loaded models is waited for: a little longer than what tells that it is slow.
const LIST_PATIENCE: Duration = SLOW_LIST.saturating_add(Duration::from_secs(1));
/// How often, and how far apart, it is looked whether a model has left memory.
const LOOKS_FOR_LEAVING: u32 = 10;
const PAUSE_FOR_LEAVING: Duration = Duration::from_millis(500);

/// For ever.
pub async fn watch(shared: &Shared) {
    let mut ticks = interval(shared.config.guard_interval.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cures = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => cures.extend(look(shared).await.into_iter().map(|action| cure(shared, action))),
            Some(()) = cures.next(), if !cures.is_empty() => {}
        }
    }
}

async fn look(shared: &Shared) -> Vec<Action> {
    if !shared.guard.is_active() {
        return Vec::new();
    }
    let asked = Instant::now();
    let answer = library::resident(&shared.client, LIST_PATIENCE).await;
    let (took, now, unix_ms) = (asked.elapsed(), shared.guard.now(), Clock::system().unix_ms());
    let mut contexts = Vec::new();
    let list = match answer {
        Ok(resident) => {
            let name = |model: &library::Resident| ModelName::parse(&model.name).ok().map(|name| name.canonical().to_owned());
            contexts = resident.iter().filter_map(|model| name(model).zip(model.context_length)).collect();
            List::Known { took, models: resident.iter().filter_map(|model| super::listed(model, now, unix_ms)).collect() }
        }
        Err(Error::Stalled { .. }) => List::Late(took),
        Err(_) => List::Unknown,
    };
    shared.guard.look(&list, contexts)
}

/// Unloads what is in the way or stuck, and sees whether that has helped.
async fn cure(shared: &Shared, action: Action) {
    let Action::Cure { model, kind, unload } = action else { return };
    let names: Vec<ModelName> = unload.iter().filter_map(|name| ModelName::parse(name).ok()).collect();
    for name in &names {
        if let Err(error) = residency::unload(&shared.client, name, shared.config.probe_timeout).await {
            tracing::debug!(backend = shared.name, model = %name, %error, "a model that is stuck cannot be unloaded");
        }
    }
    let healed = match kind {
        TroubleKind::EvictionDeadlock => have_left(shared, &names).await,
        TroubleKind::LeakedSlot | TroubleKind::HungRunner => generates(shared, &model).await,
    };
    tracing::info!(backend = shared.name, model, kind = kind.as_str(), healed, "a cure was tried on a backend that is stuck");
    shared.guard.count(|metrics, backend| metrics.cure_tried(backend, kind.as_str(), healed));
    shared.guard.cured(&model, healed);
}

async fn have_left(shared: &Shared, names: &[ModelName]) -> bool {
    for _ in 0..LOOKS_FOR_LEAVING {
        if let Ok(resident) = residency::resident(&shared.client, LIST_PATIENCE).await
            && !resident.iter().any(|resident| names.contains(&resident.model))
        {
            return true;
        }
        sleep(PAUSE_FOR_LEAVING).await;
    }
    false
}

async fn generates(shared: &Shared, model: &str) -> bool {
    let asked = shared.checks.one_token_of(&shared.client, &shared.config, model).await;
    // A refusal is an answer, too.
    matches!(asked, Ok(()) | Err(Error::Refused { .. } | Error::ModelNotFound { .. }))
}
