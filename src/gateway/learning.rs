//! What an answer teaches about its prompt: how many tokens its bytes are, and what of it the backend had in its cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cache::prefix::{Chain, Prefixes, Warm};
use crate::domain::generation::{Ask, Finish, Request};
use crate::domain::id::ModelName;

/// Bytes of a token before anything was learnt: English text with a common vocabulary.
const USUAL_BYTES: f64 = 4.0;
/// How much one answer counts.
const WEIGHT: f64 = 0.1;
/// Beyond these an answer says something else than how long a token is (a cut prompt, a template far longer than the text).
const BYTES_RANGE: std::ops::RangeInclusive<f64> = 0.5..=12.0;
/// Models of which the figure is remembered.
const MAX_MODELS: usize = 1_024;
/// Tokens that a template adds, about.
const TEMPLATE_TOKENS: u64 = 8;

/// How many bytes a token has, by model. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TokenSizes(Arc<Mutex<HashMap<Box<str>, f64>>>);

impl TokenSizes {
    /// About how many tokens a prompt has.
    #[must_use]
    pub fn estimate(&self, model: &ModelName, ask: &Ask) -> u64 {
        let size = self.lock().get(model.canonical()).copied().unwrap_or(USUAL_BYTES);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an estimate, positive and small"
        )]
        let tokens = (text_bytes(ask) as f64 / size).ceil() as u64;
        tokens + ask.prompt.context.len() as u64 + if ask.prompt.raw { 0 } else { TEMPLATE_TOKENS }
    }

    /// Learns from a prompt that a backend has counted.
    pub fn observe(&self, model: &ModelName, bytes: usize, tokens: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let size = bytes as f64 / tokens.saturating_sub(TEMPLATE_TOKENS).max(1) as f64;
        // Short prompts are mostly template.
        if bytes < 64 || !BYTES_RANGE.contains(&size) {
            return;
        }
        let mut sizes = self.lock();
        if sizes.len() < MAX_MODELS || sizes.contains_key(model.canonical()) {
            let known = sizes.entry(model.canonical().into()).or_insert(size);
            *known += (size - *known) * WEIGHT;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, f64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Text of a prompt that becomes tokens, in bytes.
#[must_use]
pub fn text_bytes(ask: &Ask) -> usize {
    let prompt = &ask.prompt;
    prompt.text.len() + prompt.system.as_ref().map_or(0, String::len) + prompt.suffix.as_ref().map_or(0, String::len)
}

/// What is to be learnt from one answer.
pub struct Lesson {
    pub sizes: TokenSizes,
    pub prefixes: Prefixes,
    pub chain: Arc<Chain>,
    pub request: Arc<Request>,
    /// What each backend was believed to hold of the prompt.
    pub predicted: Arc<[Warm]>,
    /// Bytes of text; `None` where they are not all of the prompt.
    pub bytes: Option<usize>,
    pub estimated_tokens: u64,
    /// Where the session is to stay.
    pub session: Option<Arc<str>>,
}

impl Lesson {
    /// About how many tokens the prompt has.
    pub fn prompt_tokens(&self) -> u64 {
        self.estimated_tokens
    }

    /// The prompt is given to a backend.
    pub fn asked(&self, backend: &str) {
        self.prefixes.insert(backend, &self.chain, self.estimated_tokens);
        if let Some(session) = &self.session {
            self.prefixes.stick(session, backend);
        }
    }

    /// The answer is whole. What the backend does not say of its cache is inferred.
    pub fn learn(&self, backend: &str, finish: &mut Finish) {
        if let (Some(bytes), Some(tokens), None) = (self.bytes, finish.usage.prompt_tokens, finish.remarks.truncated) {
            self.sizes.observe(&self.request.model, bytes, tokens);
        }
        let predicted = self.predicted.iter().find(|warm| &*warm.backend == backend);
        let observed = self.prefixes.observed(backend, &self.chain, predicted, &finish.usage, &finish.timing);
        if let Some(context) = &finish.context {
            let continued = Chain::continued(self.prefixes.config(), &self.request.model, &self.request.ask, context);
            self.prefixes.insert(backend, &continued, context.len() as u64);
        }
        finish.usage.cached_tokens = finish.usage.cached_tokens.or(observed.and_then(|observed| observed.cached_tokens));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::generation::Prompt;

    fn ask(bytes: usize) -> Ask {
        Ask { prompt: Prompt { text: "x".repeat(bytes), raw: true, ..Prompt::default() }, ..Ask::default() }
    }

    #[test]
    fn the_size_of_a_token_is_learnt_by_model() {
        let sizes = TokenSizes::default();
        let [a, b] = ["a", "b"].map(|name| ModelName::parse(name).expect("a name"));
        assert_eq!(sizes.estimate(&a, &ask(400)), 100);
        for _ in 0..100 {
            sizes.observe(&a, 2_000, 1_000 + TEMPLATE_TOKENS);
        }
        assert_eq!(sizes.estimate(&a, &ask(400)), 200);
        assert_eq!(sizes.estimate(&b, &ask(400)), 100);
    }

    #[test]
    fn what_cannot_be_a_tokens_size_is_not_believed() {
        let sizes = TokenSizes::default();
        let model = ModelName::parse("a").expect("a name");
        for (bytes, tokens) in [(1_000_000, 10), (100, 100_000), (10, 20)] {
            sizes.observe(&model, bytes, tokens);
        }
        assert_eq!(sizes.estimate(&model, &ask(400)), 100);
    }
}
