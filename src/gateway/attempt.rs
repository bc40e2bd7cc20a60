//! One model, asked of one backend after the other until one has begun to answer.
//!
//! Each attempt waits for its turn first. It goes on to another backend only while nothing of an answer has been seen, where that
//! can help, and within the budget of retries; what no server heard costs none of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::choice::{Choice, Host};
use super::error::{Error, Stage};
use super::generate::Gateway;
use super::held::Held;
use super::learning::Lesson;
use super::production::Started;
use crate::backends::{self, Events};
use crate::domain::blame::{Blame, Retry};
use crate::domain::generation::{Event, Priority, Request};
use crate::domain::principal::Principal;
use crate::domain::waiting::Progress;
use crate::routing::Timeouts;
use crate::scheduler::{Candidates, Entry, Permit, Runner};

/// Longest pause that a backend may ask for and is waited for when there is no other.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// One request, ready to be asked of whichever backend is best.
pub struct Prepared {
    pub request: Arc<Request>,
    pub runner: Runner,
    pub choice: Arc<Choice>,
    pub timeouts: Timeouts,
    pub lesson: Lesson,
    pub class: Priority,
    pub principal: Arc<Principal>,
    /// Names the conversation, for slots that hold it warm.
    pub warm: Option<u64>,
    /// How long it waits for its turn before another way is looked for.
    pub patience: Option<Duration>,
    /// The same for the first token.
    pub first_token_within: Option<Duration>,
    /// Requests for the model that each backend works on at a time, where its policy says so.
    pub slots: Option<u32>,
    pub bytes: usize,
}

/// What became of one attempt.
enum Tried {
    Started(Box<Started>),
    /// An urgent request took its place before anything was seen of it.
    Displaced,
    Failed {
        backend: Arc<str>,
        error: Error,
    },
}

impl Gateway {
    /// Asks until a backend has begun to answer; `attempts` counts how often one was asked.
    pub(super) async fn ask(&self, prepared: Prepared, progress: &Progress, attempts: &mut u32) -> Result<Started, Error> {
        let router = &self.parts().router;
        let mut here = 0;
        loop {
            let permit = self.turn(&prepared, &prepared.choice, prepared.patience, progress).await?;
            (here, *attempts) = (here + 1, *attempts + 1);
            let (backend, error) = match self.try_or_hedge(&prepared, permit, progress, attempts).await {
                Tried::Started(started) => return Ok(started.learning(prepared.lesson)),
                Tried::Displaced => continue,
                Tried::Failed { backend, error } => (backend, error),
            };
            self.note_refusal(&prepared.request, &backend, &error);
            let pause = match error.retry() {
                Retry::Never => return Err(error),
                Retry::After(pause) if prepared.choice.hosts().len() == 1 && pause <= MAX_PAUSE => pause,
                Retry::After(_) | Retry::Elsewhere => {
                    prepared.choice.leave_out(&backend);
                    if !prepared.choice.has_others() {
                        return Err(error);
                    }
                    router.backoff(here)
                }
            };
            if here >= router.max_attempts() || !(error.is_unheard() || router.may_retry()) {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits for a turn at one of the backends.
    async fn turn(
        &self,
        prepared: &Prepared,
        choice: &Arc<Choice>,
        patience: Option<Duration>,
        progress: &Progress,
    ) -> Result<Permit, Error> {
        let request = &prepared.request;
        let entry = Entry {
            request: request.id.clone(),
            runner: prepared.runner.clone(),
            candidates: Arc::clone(choice) as Arc<dyn Candidates>,
            class: prepared.class,
            tenant: Arc::clone(&prepared.principal.tenant),
            weight: prepared.principal.weight,
            key: prepared.principal.key_id.clone(),
            deadline: request.deadline,
            patience,
            prompt_tokens: prepared.lesson.prompt_tokens(),
            warm: prepared.warm,
            num_predict: request.ask.options.num_predict.and_then(|most| u64::try_from(most).ok()).filter(|most| *most > 0),
            slots: prepared.slots,
            bytes: prepared.bytes,
            progress: progress.clone(),
        };
        Ok(self.parts().scheduler.acquire(entry).await?)
    }

    /// One attempt; and, where the configuration allows it and the first token is late, a second one beside it at another backend.
    async fn try_or_hedge(&self, prepared: &Prepared, permit: Permit, progress: &Progress, attempts: &mut u32) -> Tried {
        let first = Arc::clone(permit.backend());
        let hedge_after = (prepared.choice.hosts().len() > 1 && !permit.loads())
            .then(|| self.parts().router.hedge_after(prepared.runner.model.as_ref()))
            .flatten();
        let mut trying = std::pin::pin!(self.try_once(prepared, permit));
        let Some(after) = hedge_after else { return trying.await };
        tokio::select! {
            biased;
            tried = &mut trying => return tried,
            () = tokio::time::sleep(after) => {}
        }
        let others = Arc::new(prepared.choice.without(&first));
        if !others.has_others() || !self.parts().router.hedge_token() {
            return trying.await;
        }
        *attempts += 1;
        let second = async {
            let permit = self.turn(prepared, &others, Some(after), progress).await.ok()?;
            Some(self.try_once(prepared, permit).await)
        };
        let mut second = std::pin::pin!(second);
        tokio::select! {
            biased;
            tried = &mut trying => match tried {
                Tried::Started(_) => tried,
                other => match second.await {
                    Some(hedged @ Tried::Started(_)) => hedged,
                    _ => other,
                },
            },
            hedged = &mut second => match hedged {
                Some(hedged @ Tried::Started(_)) => hedged,
                _ => trying.await,
            },
        }
    }

    async fn try_once(&self, prepared: &Prepared, permit: Permit) -> Tried {
        let backend = Arc::clone(permit.backend());
        let Some(host) = prepared.choice.host(&backend) else {
            let source = backends::Error::Closed;
            return Tried::Failed { error: Error::Backend { backend: backend.to_string(), source }, backend };
        };
        let clock = &self.parts().ledger.clock;
        let attempt = self.parts().router.attempt(&backend, &prepared.runner.model);
        let booked = (host.entry.backend.booked_after_cancel(false), host.entry.backend.booked_after_cancel(true));
        let (bound, stage) = prepared.bound(&permit);
        let mut held = Held::new(permit, attempt, host.entry.enter(), booked, clock.now());
        prepared.lesson.asked(&backend);
        let answer = tokio::select! {
            biased;
            answer = within(bound, stage, first_event(host, &prepared.request)) => answer,
            () = held.permit().displaced() => return Tried::Displaced,
        };
        match answer {
            Ok(Ok((first, events))) => {
                held.speaks(clock.now());
                Tried::Started(Box::new(Started { backend, first, events, held, lesson: None }))
            }
            Ok(Err(source)) => {
                held.failed(&source);
                Tried::Failed { error: Error::Backend { backend: backend.to_string(), source }, backend }
            }
            Err(error) => {
                held.failed(&backends::Error::Stalled { stage: "waiting for the first token", silent: bound.unwrap_or_default() });
                Tried::Failed { backend, error }
            }
        }
    }

    fn note_refusal(&self, request: &Request, backend: &str, error: &Error) {
        if error.blame() != Blame::Client {
            self.parts().ledger.metrics.upstream_error(backend, error.kind());
            tracing::warn!(request = %request.id, backend, %error, "a backend did not accept a request");
        }
    }
}

impl Prepared {
    /// How long the first token may take, and what the time is for.
    fn bound(&self, permit: &Permit) -> (Option<Duration>, Stage) {
        let stage = if permit.loads() { Stage::Loading } else { Stage::FirstToken };
        let bounds = [self.timeouts.until_first_token(!permit.loads()), self.first_token_within];
        (bounds.into_iter().flatten().min(), stage)
    }
}

/// The first event, after which the answer can no longer be asked for elsewhere.
async fn first_event(host: &Host, request: &Arc<Request>) -> Result<(Event, Events), backends::Error> {
    let mut events = host.entry.backend.generate(Arc::clone(request)).await?;
    match events.next().await {
        Some(first) => Ok((first?, events)),
        None => Err(backends::Error::Protocol { message: "it ended without a final object".into() }),
    }
}

async fn within<T>(bound: Option<Duration>, stage: Stage, work: impl Future<Output = T>) -> Result<T, Error> {
    match bound {
        None => Ok(work.await),
        Some(allowed) => tokio::time::timeout(allowed, work).await.map_err(|_| Error::TooSlow { stage, allowed }),
    }
}
