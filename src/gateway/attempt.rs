//! Asking one backend after the other until one accepts.

use std::sync::Arc;

use crate::backends::{self, Events};
use crate::domain::blame::Retry;
use crate::domain::generation::Request;
use crate::domain::model::ModelInfo;
use crate::models::{Entry, InFlight};
use crate::routing::policy::{self, Candidate};

/// A backend that accepted, and its answer.
pub struct Accepted {
    pub entry: Arc<Entry>,
    pub events: Events,
    pub in_flight: InFlight,
}

/// A backend that did not, and why.
pub struct Refused {
    pub backend: String,
    pub source: backends::Error,
}

/// Asks the candidates in the order of [`policy::order`]. Goes on to the next one only where that can help and nothing of an
/// answer has been seen; the last refusal is the one that is reported.
pub async fn first_to_accept(
    candidates: Vec<(Arc<Entry>, ModelInfo)>,
    request: &Arc<Request>,
    mut on_refused: impl FnMut(&Refused),
) -> Result<Accepted, Refused> {
    let views: Vec<Candidate> = candidates.iter().map(|(entry, model)| view(entry, model)).collect();
    let mut last = None;
    for index in policy::order(&views) {
        let entry = &candidates[index].0;
        let in_flight = entry.enter();
        match entry.backend.generate(Arc::clone(request)).await {
            Ok(events) => return Ok(Accepted { entry: Arc::clone(entry), events, in_flight }),
            Err(source) => {
                let refused = Refused { backend: entry.backend.name().to_owned(), source };
                on_refused(&refused);
                if refused.source.retry() == Retry::Never {
                    return Err(refused);
                }
                last = Some(refused);
            }
        }
    }
    Err(last.unwrap_or_else(|| Refused { backend: String::new(), source: backends::Error::Closed }))
}

fn view(entry: &Entry, model: &ModelInfo) -> Candidate {
    Candidate { health: entry.backend.health(), loaded: model.loaded, in_flight: entry.in_flight() }
}
