//! From the end of a generation to the native final object.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::types::{About, CacheStatus, FallbackStatus, GenerateResponse};
use crate::api::middleware::rate_limit;
use crate::domain::generation::{Finish, FinishReason, Usage};
use crate::domain::id::RequestId;
use crate::gateway::{self, Answer, Generation};

/// The object of an answer that was collected.
pub fn whole(id: &RequestId, generation: &Generation, answer: Answer, created_at: String) -> GenerateResponse {
    let mut response = last(id, generation, answer.finish, created_at);
    response.response = answer.text;
    response.thinking = answer.thinking;
    response.extra.extend(answer.extra);
    response
}

/// The object of the `done` event.
pub fn last(id: &RequestId, generation: &Generation, finish: Finish, created_at: String) -> GenerateResponse {
    let about = generation.about();
    GenerateResponse {
        model: about.asked.to_string(),
        created_at,
        response: String::new(),
        thinking: String::new(),
        done: true,
        done_reason: reason(finish.reason),
        context: finish.context,
        total_duration: nanoseconds(finish.timing.total),
        load_duration: nanoseconds(finish.timing.load),
        prompt_eval_count: finish.usage.prompt_tokens,
        prompt_eval_cached_count: finish.usage.cached_tokens,
        prompt_eval_duration: nanoseconds(finish.timing.prompt_eval),
        eval_count: finish.usage.completion_tokens,
        eval_duration: nanoseconds(finish.timing.eval),
        extra: finish.extra,
        arriero: About {
            request_id: id.to_string(),
            backend: about.backend.clone(),
            model: about.model.to_string(),
            queued_ms: milliseconds(generation.queued()),
            ttft_ms: generation.ttft().map(milliseconds),
            total_ms: milliseconds(generation.elapsed()),
            not_applied: [about.not_applied.clone(), finish.remarks.not_applied].concat(),
            changed: [about.changed.clone(), finish.remarks.changed].concat(),
            cache: cache(about, finish.usage),
            fallback: fallback(about),
            truncated: finish.remarks.truncated,
        },
    }
}

fn cache(about: &gateway::About, usage: Usage) -> CacheStatus {
    CacheStatus {
        status: about.cache.status,
        why: about.cache.why,
        age_ms: about.cache.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        similarity: about.cache.similarity,
        key: about.cache.key.map(|key| key.to_string()),
        prompt_tokens: usage.cached_tokens,
    }
}

/// Says nothing where the model that was asked for answered.
fn fallback(about: &gateway::About) -> Option<FallbackStatus> {
    let named = || FallbackStatus { asked: about.asked.to_string(), step: about.step + 1, why: about.why.clone().unwrap_or_default() };
    (about.step > 0 || about.asked != about.model).then(named)
}

/// What of an answer is told in headers: how long it waited, and how much of its limits is left.
pub fn headers(generation: &Generation) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let about = generation.about();
    let mut put = |name: &'static str, value: u64| headers.insert(name, HeaderValue::from(value));
    put("x-arriero-queue-wait-ms", u64::try_from(generation.queued().as_millis()).unwrap_or(u64::MAX));
    if let Some(standing) = &about.standing {
        rate_limit::write(&mut headers, standing);
    }
    headers
}

fn reason(reason: FinishReason) -> String {
    match reason {
        FinishReason::Stop => "stop".into(),
        FinishReason::Length => "length".into(),
        FinishReason::Load => "load".into(),
        FinishReason::Unload => "unload".into(),
        FinishReason::Other(word) => word,
    }
}

fn nanoseconds(span: Option<Duration>) -> Option<u64> {
    span.map(|span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// Rounded to microseconds.
fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}
