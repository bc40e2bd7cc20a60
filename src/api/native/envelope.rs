//! From the end of a generation to the native final object.

use std::time::Duration;

use super::types::{About, GenerateResponse};
use crate::domain::generation::{Finish, FinishReason};
use crate::domain::id::RequestId;
use crate::gateway::{Answer, Generation};

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
        model: about.model.to_string(),
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
            truncated: finish.remarks.truncated,
        },
    }
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
