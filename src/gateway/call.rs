//! A request that was let in: which model it means, what it may use, until when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deadline::Deadline;
use super::error::Error;
use super::generate::Gateway;
use super::settings::Settings;
use crate::domain::generation::{Ask, Change, Control, Dialect, Draft, Fallback, NotApplied, Priority};
use crate::domain::id::{ModelName, RequestId};
use crate::domain::model::ModelInfo;
use crate::domain::principal::{Principal, Role};
use crate::domain::waiting::{Progress, Reason, Waiting};
use crate::limits::{Admission, Estimate, Reservation, Standing};
use crate::routing::fallback::Chain;

/// Tokens that an answer without a bound is expected to have, for limits that reserve before anything is known.
const EXPECTED_TOKENS: u64 = 256;

/// A request that was let in.
#[derive(Clone)]
pub struct Call {
    pub id: RequestId,
    pub dialect: Dialect,
    pub principal: Arc<Principal>,
    /// The name that was asked for, or the default.
    pub asked: ModelName,
    pub ask: Ask,
    pub control: Control,
    pub streamed: bool,
    pub class: Priority,
    pub chain: Chain,
    pub deadline: Option<Deadline>,
    pub settings: Arc<Settings>,
    /// What was changed for the sake of limits.
    pub changed: Vec<Change>,
    pub not_applied: Vec<NotApplied>,
    pub standing: Standing,
}

impl Call {
    /// The model that is asked first, which an alias only stands for.
    pub fn first_model(&self) -> &ModelName {
        self.chain.steps().first().map_or(&self.asked, |step| &step.model)
    }

    /// Whether the client may come back to its answer.
    pub fn is_resumable(&self) -> bool {
        self.control.detach || (self.streamed && !self.settings.config.kept.resume_window.is_zero())
    }
}

impl Gateway {
    /// Lets a request in, or says why not. Nothing is asked of a backend.
    pub(super) async fn call(
        &self,
        draft: Draft,
        asked: ModelName,
        deadline: Option<Deadline>,
        progress: &Progress,
    ) -> Result<(Call, Reservation), Error> {
        let settings = self.settings();
        let Draft { id, dialect, principal, mut ask, control, streamed, .. } = draft;
        let chain = chain(&settings, &asked, &control, &principal)?;
        if is_unload(&ask) && principal.role < Role::Operator {
            return Err(Error::UnloadForbidden);
        }
        let estimate = self.estimate(&chain, &asked, &ask);
        let wait = settings.config.wait_for_rate;
        let reservation = self.admit(&principal, &estimate, wait, deadline, progress).await?;
        let mut changed = Vec::new();
        let caps = reservation.caps();
        cap(&mut ask, caps.num_predict, caps.num_ctx, &mut changed);
        let class = principal.priority(control.priority);
        let not_applied = not_applied(&control, &chain, class);
        let standing = reservation.standing().clone();
        let call = Call {
            id,
            dialect,
            principal,
            asked,
            ask,
            control,
            streamed,
            class,
            chain,
            deadline,
            settings,
            changed,
            not_applied,
            standing,
        };
        Ok((call, reservation))
    }

    fn estimate(&self, chain: &Chain, asked: &ModelName, ask: &Ask) -> Estimate {
        let model = chain.steps().first().map_or(asked, |step| &step.model);
        let bound = ask.options.num_predict.and_then(|most| u64::try_from(most).ok()).filter(|most| *most > 0);
        Estimate {
            prompt_tokens: self.parts().sizes.estimate(model, ask),
            predict_tokens: bound.map_or(EXPECTED_TOKENS, |most| most.min(EXPECTED_TOKENS)),
            num_predict: ask.options.num_predict,
            num_ctx: ask.options.num_ctx,
        }
    }

    /// Asks the limits, and waits for a rate to clear where that is allowed.
    async fn admit(
        &self,
        who: &Principal,
        estimate: &Estimate,
        wait: Duration,
        deadline: Option<Deadline>,
        progress: &Progress,
    ) -> Result<Reservation, Error> {
        let limits = &self.parts().limits;
        if wait.is_zero() {
            return Ok(limits.admit(who, estimate)?);
        }
        let clock = &self.parts().ledger.clock;
        let until = deadline.map_or(clock.now() + wait, |deadline| deadline.at.min(clock.now() + wait));
        loop {
            match limits.admit_before(who, estimate, until) {
                Admission::Now(reservation) => return Ok(reservation),
                Admission::Refused(refusal) => return Err(refusal.into()),
                Admission::Later { at, .. } => {
                    let eta = at.saturating_duration_since(clock.now());
                    progress.tell(Waiting { ahead: 0, reason: Reason::RateLimit, eta: Some(eta) });
                    tokio::time::sleep_until(Instant::now().checked_add(eta).unwrap_or(at).into()).await;
                }
            }
        }
    }

    /// The model a request means: the one it names, the configured default, the only one there is, the only one that is loaded.
    pub(super) fn model_of(&self, named: Option<&ModelName>) -> Result<ModelName, Error> {
        if let Some(name) = named.or(self.settings().config.default_model.as_ref()) {
            return Ok(name.clone());
        }
        let mut models: Vec<ModelInfo> = self.registry().list().into_iter().map(|view| view.model).filter(ModelInfo::generates).collect();
        models.sort_by(|a, b| a.name.canonical().cmp(b.name.canonical()).then(b.loaded.cmp(&a.loaded)));
        models.dedup_by(|a, b| a.name == b.name);
        let only = |models: &[ModelInfo]| (models.len() == 1).then(|| models[0].name.clone());
        let loaded = || only(&models.iter().filter(|model| model.loaded).cloned().collect::<Vec<_>>());
        only(&models).or_else(loaded).ok_or_else(|| Error::ModelMissing { known: models.iter().map(|m| m.name.to_string()).collect() })
    }

    pub(super) fn deadline(&self, asked: Option<Duration>, model: &ModelName) -> Result<Option<Deadline>, Error> {
        let settings = self.settings();
        let config = &settings.config;
        let allowed = match asked {
            Some(asked) if asked > config.max_deadline => return Err(Error::DeadlineTooLong { asked, most: config.max_deadline }),
            Some(asked) => Some(asked),
            None => config.default_deadline,
        };
        let total = settings.timeouts.of(model).total;
        Ok(allowed.into_iter().chain(total).min().map(Deadline::after))
    }
}

/// The models a request may be served by, as far as the key may use them.
fn chain(settings: &Settings, asked: &ModelName, control: &Control, who: &Principal) -> Result<Chain, Error> {
    let wish = control.fallback.clone().unwrap_or(Fallback::Switch(true));
    let resolved = Chain::resolve(&settings.aliases, asked, &wish);
    // Who may use an alias may use what its owner put behind it; models of the request's own list must be allowed one by one.
    let named = who.may_use(asked) && !matches!(wish, Fallback::Models(_));
    let permitted = if named { resolved } else { resolved.permit(|model| who.may_use(model) || (model == asked && who.may_use(asked))) };
    if permitted.steps().is_empty() || !(who.may_use(asked) || settings.aliases.has(asked)) {
        return Err(Error::ModelForbidden { model: asked.to_string(), allowed: who.models.to_vec() });
    }
    Ok(permitted)
}

/// Whether nothing is asked but that the model leaves memory.
pub(super) fn is_unload(ask: &Ask) -> bool {
    let at_once = |value: &serde_json::Value| {
        value.as_f64() == Some(0.0) || value.as_str().is_some_and(|text| text.trim_end_matches(['s', 'm', 'h']) == "0")
    };
    ask.prompt.text.is_empty() && ask.prompt.images.is_empty() && ask.keep_alive.as_ref().is_some_and(|keep| at_once(&keep.0))
}

/// Lowers what is above the key's caps, and sets a bound where there is none.
fn cap(ask: &mut Ask, num_predict: Option<u64>, num_ctx: Option<u32>, changed: &mut Vec<Change>) {
    let why = "the key allows no more";
    let most = num_predict.map(|most| i64::try_from(most).unwrap_or(i64::MAX));
    if let Some(most) = most.filter(|most| ask.options.num_predict.is_none_or(|asked| asked < 1 || asked > *most))
        && let Some(asked) = ask.options.num_predict.replace(most)
    {
        changed.push(Change { field: "options.num_predict".into(), from: asked.into(), to: most.into(), why });
    }
    if let Some(most) = num_ctx.filter(|most| ask.options.num_ctx.is_some_and(|asked| asked > *most)) {
        let asked = ask.options.num_ctx.replace(most);
        changed.push(Change { field: "options.num_ctx".into(), from: asked.into(), to: most.into(), why });
    }
}

/// Nothing that a client asks of the gateway is ignored in silence.
fn not_applied(control: &Control, chain: &Chain, class: Priority) -> Vec<NotApplied> {
    let lowered = control.priority.is_some_and(|asked| asked != class);
    [
        ("priority", lowered, "the key's ceiling is lower"),
        ("fallback", chain.left_out() > 0, "the list is too long; the rest of it was left out"),
    ]
    .into_iter()
    .filter(|(_, is, _)| *is)
    .map(|(field, _, why)| NotApplied { field: field.to_owned(), why })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::generation::{KeepAlive, Prompt};
    use crate::routing::fallback::{Alias, AliasStep, Aliases, Simplify, When};

    fn name(text: &str) -> ModelName {
        ModelName::parse(text).expect("a name")
    }

    fn settings() -> Settings {
        let step = |model: &str| AliasStep { model: name(model), backend: None, when: When::default(), simplify: Simplify::default() };
        let alias = Alias { name: name("smart"), steps: vec![step("big"), step("small")] };
        Settings { aliases: Aliases::new(&[alias]).expect("valid"), ..Settings::default() }
    }

    fn models(chain: &Chain) -> Vec<&str> {
        chain.steps().iter().map(|step| step.model.as_str()).collect()
    }

    fn key(models: &[&str]) -> Principal {
        Principal { models: models.iter().map(|m| (*m).to_owned()).collect(), ..Principal::anonymous(Role::User) }
    }

    #[test]
    fn a_key_reaches_only_what_it_may_use() {
        let settings = settings();
        let try_it = |asked: &str, fallback: Option<Fallback>, who: &Principal| {
            let control = Control { fallback, ..Control::default() };
            chain(&settings, &name(asked), &control, who).map(|chain| models(&chain).iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(try_it("big", None, &key(&[])).expect("allowed"), ["big"]);
        assert_eq!(try_it("smart", None, &key(&["smart"])).expect("allowed"), ["big", "small"], "an alias brings what is behind it");
        assert_eq!(try_it("smart", None, &key(&["small"])).expect("allowed"), ["small"], "or what of it may be used");
        assert!(matches!(try_it("big", None, &key(&["small"])), Err(Error::ModelForbidden { .. })));
        let list = || Some(Fallback::Models(vec![name("secret"), name("small")]));
        assert_eq!(try_it("big", list(), &key(&["big", "small"])).expect("allowed"), ["big", "small"]);
        assert!(matches!(try_it("big", list(), &key(&["small"])), Err(Error::ModelForbidden { .. })));
        assert_eq!(try_it("smart", Some(Fallback::Switch(false)), &key(&[])).expect("allowed"), ["big"]);
    }

    #[test]
    fn only_an_empty_prompt_with_no_time_to_stay_unloads() {
        let ask = |text: &str, keep: serde_json::Value| Ask {
            prompt: Prompt { text: text.into(), ..Prompt::default() },
            keep_alive: Some(KeepAlive(keep)),
            ..Ask::default()
        };
        for zero in [json!(0), json!(0.0), json!("0"), json!("0s")] {
            assert!(is_unload(&ask("", zero.clone())), "{zero}");
            assert!(!is_unload(&ask("x", zero)));
        }
        assert!(!is_unload(&ask("", json!("5m"))) && !is_unload(&ask("", json!(-1))) && !is_unload(&Ask::default()));
    }

    #[test]
    fn caps_lower_what_was_asked_and_bound_what_was_not() {
        let mut ask = Ask::default();
        let mut changed = Vec::new();
        cap(&mut ask, Some(10), Some(100), &mut changed);
        assert_eq!((ask.options.num_predict, ask.options.num_ctx, changed.len()), (Some(10), None, 0));
        ask.options.num_predict = Some(-1);
        ask.options.num_ctx = Some(200);
        cap(&mut ask, Some(10), Some(100), &mut changed);
        assert_eq!((ask.options.num_predict, ask.options.num_ctx), (Some(10), Some(100)));
        assert_eq!(changed.iter().map(|c| c.field.as_str()).collect::<Vec<_>>(), ["options.num_predict", "options.num_ctx"]);
        cap(&mut ask, Some(11), None, &mut changed);
        assert_eq!((ask.options.num_predict, changed.len()), (Some(10), 2));
    }
}
