//! One exchange on its way to be kept: the conversation as it was asked, and the answer as it comes.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::service::Collection;
use super::{Config, Exchange};
use crate::domain::generation::{Ask, Change, Delta, Draft, Finish, FinishReason};
use crate::domain::id::ModelName;
use crate::telemetry::metrics::Uncollected;

/// What is changed of a request when its answer goes on elsewhere.
const BACKEND: &str = "backend";
/// What changes of a request are named that take something of what was asked.
const ASKED: [&str; 2] = ["prompt", "system"];

/// Dropped before it was told of the answer's end, nothing is kept.
#[derive(Debug)]
pub struct Collecting {
    collection: Collection,
    exchange: Exchange,
    bytes: usize,
    /// Why it is not kept, though all agree.
    refused: Option<Uncollected>,
}

impl Collecting {
    pub(super) fn new(collection: Collection, draft: &Draft, at_ms: i64) -> Self {
        let who = &draft.principal;
        let mut exchange = Exchange {
            request_id: draft.id.to_string(),
            at_ms,
            key_id: who.key_id.as_deref().map(str::to_owned),
            tenant: who.tenant.to_string(),
            dialect: Cow::Borrowed(draft.dialect.as_str()),
            model: String::new(),
            messages: String::new(),
            tools: None,
            answer: String::new(),
            thinking: None,
            finish_reason: String::new(),
            prompt_tokens: None,
            completion_tokens: None,
        };
        let refused = match conversation(&draft.ask, collection.config()) {
            Ok((messages, tools)) => {
                (exchange.messages, exchange.tools) = (messages, tools);
                None
            }
            Err(why) => Some(why),
        };
        let bytes = exchange.bytes();
        Self { collection, exchange, bytes, refused }
    }

    /// A piece of the answer.
    pub fn piece(&mut self, delta: &Delta) {
        if self.refused.is_some() {
            return;
        }
        self.bytes += delta.text.len() + delta.thinking.len();
        if self.bytes > self.collection.config().max_exchange_bytes {
            return self.refuse(Uncollected::TooLarge);
        }
        if delta.extra.get("tool_calls").is_some_and(|calls| !calls.is_null()) {
            return self.refuse(Uncollected::NotText);
        }
        self.exchange.answer.push_str(&delta.text);
        if !delta.thinking.is_empty() {
            self.exchange.thinking.get_or_insert_default().push_str(&delta.thinking);
        }
    }

    /// Forgets what has come: nothing of it is needed any more.
    fn refuse(&mut self, why: Uncollected) {
        self.refused = Some(why);
        for text in [&mut self.exchange.messages, &mut self.exchange.answer] {
            *text = String::new();
        }
        (self.exchange.thinking, self.exchange.tools) = (None, None);
    }

    /// The answer is whole: hands the exchange over. `changed`: what was changed in the request before it was asked.
    pub fn whole(mut self, model: &ModelName, changed: &[Change], finish: &Finish) {
        if matches!(finish.reason, FinishReason::Load | FinishReason::Unload) {
            return;
        }
        let refused = self.refused.or_else(|| self.is_lacking(changed, finish));
        if let Some(why) = refused {
            return self.collection.left_out(why);
        }
        model.canonical().clone_into(&mut self.exchange.model);
        self.exchange.finish_reason =
            serde_json::to_value(&finish.reason).ok().and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default();
        (self.exchange.prompt_tokens, self.exchange.completion_tokens) = (finish.usage.prompt_tokens, finish.usage.completion_tokens);
        self.collection.put(self.exchange);
    }

    fn is_lacking(&self, changed: &[Change], finish: &Finish) -> Option<Uncollected> {
        let cut = changed.iter().any(|change| ASKED.contains(&change.field.as_str()));
        let mended = finish.remarks.changed.iter().any(|change| change.field == BACKEND);
        if cut || mended || finish.remarks.truncated.is_some() {
            return Some(Uncollected::NotWhole);
        }
        self.exchange.answer.trim().is_empty().then_some(Uncollected::NotText)
    }
}

/// Messages and tools as JSON.
///
/// # Errors
/// What is no conversation of texts, or too large.
fn conversation(ask: &Ask, config: &Config) -> Result<(String, Option<String>), Uncollected> {
    let prompt = &ask.prompt;
    let odd = prompt.raw || prompt.suffix.is_some() || prompt.template.is_some() || !prompt.context.is_empty() || !prompt.images.is_empty();
    if odd || prompt.text.trim().is_empty() {
        return Err(Uncollected::NotText);
    }
    // Before it is copied: as JSON it has no fewer bytes.
    if prompt.text.len() + prompt.system.as_ref().map_or(0, String::len) > config.max_exchange_bytes {
        return Err(Uncollected::TooLarge);
    }
    let system = prompt.system.iter().filter(|text| !text.is_empty()).map(|text| json!({"role": "system", "content": text}));
    let messages = Value::Array(system.chain([json!({"role": "user", "content": prompt.text})]).collect()).to_string();
    let tools = ask.extra.get("tools").filter(|tools| tools.as_array().is_some_and(|list| !list.is_empty())).map(Value::to_string);
    if messages.len() + tools.as_ref().map_or(0, String::len) > config.max_exchange_bytes {
        return Err(Uncollected::TooLarge);
    }
    Ok((messages, tools))
}
