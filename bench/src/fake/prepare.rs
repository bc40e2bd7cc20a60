//! What generate and chat check before a model is asked, and the refusals Ollama gives.

use super::{
    Server,
    answer::{self, Speaker, Text},
    bind::Bound,
    gojson,
    options::{self, Life, Options},
    record::{Phase, Ticket},
    scheduler::{BUSY, Lease, Wanted},
    script::{Model, Script},
    wire::Reply,
};
use serde_json::{Value, json};

/// A request that is not served. `late` ones arise where a stream would already have been promised.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: u16,
    pub message: String,
    pub late: bool,
}

pub(super) fn refuse<T>(status: u16, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, message: message.into(), late: false })
}

pub(super) fn late<T>(status: u16, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, message: message.into(), late: true })
}

impl Refusal {
    pub fn reply(&self, stream: bool) -> Reply {
        let mut reply = Reply::error(self.status, &self.message);
        if self.late && stream {
            reply.headers = vec![("Content-Type", "application/json".to_owned())];
            reply.chunked = true;
        }
        reply
    }
}

/// The first value of a body, bound to a struct.
pub(super) fn bound(name: &str, fields: &'static [(&'static str, super::bind::Kind)], body: &[u8]) -> Result<Bound, Refusal> {
    gojson::first_value(body).and_then(|value| super::bind::bind(name, fields, value)).or_else(|message| refuse(400, message))
}

/// Letters, digits and the separators of a model name.
pub(super) fn valid_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b))
}

/// The model of a generate or chat request, with the refusals in Ollama's order.
pub(super) fn model<'a>(script: &'a Script, asked: &str) -> Result<&'a Model, Refusal> {
    if asked.ends_with(":cloud") || asked.ends_with("-cloud") {
        return refuse(403, "ollama cloud is disabled: remote model is unavailable");
    }
    if !valid_name(asked) {
        return refuse(400, "invalid model name");
    }
    script.find(asked).map_or_else(|| refuse(404, format!("model '{asked}' not found")), Ok)
}

/// `registry.ollama.ai/library/chat:latest`
pub(super) fn full_name(model: &Model) -> String {
    format!("registry.ollama.ai/library/{}", model.name)
}

/// `think` and `top_logprobs`, which both endpoints check alike.
pub(super) fn check_common(bound: &Bound, asked: &str, model: &Model) -> Result<(), Refusal> {
    if !(0..=20).contains(&bound.get("top_logprobs").and_then(Value::as_i64).unwrap_or(0)) {
        return refuse(400, "top_logprobs must be between 0 and 20");
    }
    if wants_thinking(bound) == Some(true) && !model.thinking {
        return refuse(400, format!("\"{asked}\" does not support thinking"));
    }
    Ok(())
}

fn wants_thinking(bound: &Bound) -> Option<bool> {
    bound.get("think").map(|value| value.as_bool().unwrap_or(true))
}

pub(super) fn life(bound: &Bound) -> Option<Life> {
    bound.get("keep_alive").and_then(|value| options::keep_alive(value).ok())
}

pub(super) fn options(bound: &Bound, model: &Model, script: &Script) -> Result<Options, Refusal> {
    let none = serde_json::Map::new();
    let given = bound.get("options").and_then(Value::as_object).unwrap_or(&none);
    options::read(given, bound.flag("shift").unwrap_or(true), model, script).or_else(|message| refuse(500, message))
}

/// Waits for a loaded runner.
pub(super) async fn lease(
    server: &Server,
    script: &Script,
    model: &Model,
    options: &Options,
    life: Option<Life>,
    ticket: &Ticket,
) -> Result<Lease, Refusal> {
    ticket.phase(Phase::Queued);
    let wanted = Wanted { model, shape: options.shape.clone(), life, script };
    server.scheduler.acquire(wanted).await.or_else(|_| refuse(503, BUSY))
}

/// How many tokens of a prompt are processed, or why it is not.
pub(super) fn fit(tokens: usize, bound: &Bound, options: &Options) -> Result<usize, Refusal> {
    let num_ctx = options.shape.num_ctx as usize;
    if tokens <= num_ctx {
        return Ok(tokens);
    }
    if bound.flag("truncate") == Some(false) {
        let inner = json!({"error": {
            "code": 400,
            "message": format!("request ({tokens} tokens) exceeds the available context size ({num_ctx} tokens), try increasing it"),
            "type": "exceed_context_size_error", "n_prompt_tokens": tokens, "n_ctx": num_ctx,
        }});
        return late(400, inner.to_string());
    }
    if !options.shape.shift {
        return late(
            400,
            "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the context length in settings, or use a model with a longer context length",
        );
    }
    Ok(answer::truncated(num_ctx, options.num_keep))
}

/// What only llama-server finds out: images and formats it cannot take.
pub(super) fn check_late(bound: &Bound, images: bool, model: &Model) -> Result<(), Refusal> {
    let inner = |message: &str| json!({"error": {"code": 400, "message": message, "type": "invalid_request_error"}}).to_string();
    match bound.get("format") {
        Some(Value::String(word)) if word.is_empty() || word == "json" => {}
        Some(schema @ Value::Object(_)) if answer::example(schema).is_err() => {
            let told = format!("Field 'json_schema': \"json_schema\": JSON schema conversion failed:\nUnrecognized schema: {schema}");
            return late(400, inner(&told));
        }
        None | Some(Value::Object(_)) => {}
        Some(other) => {
            let shown = Value::from(other.to_string());
            return late(500, format!("invalid format: {shown}; expected \"json\" or a valid JSON Schema object"));
        }
    }
    if images && !model.vision {
        return late(400, inner("Multimodal data provided, but model does not support multimodal requests."));
    }
    Ok(())
}

/// The one who will say the answer.
pub(super) fn speaker(bound: &Bound, model: &Model, script: &Script, options: &Options, prompt: &str, prompt_tokens: usize) -> Speaker {
    let num_ctx = options.shape.num_ctx as usize;
    // Without a limit the model goes on until the context is full, or ten times over when that is tiny.
    let full = if num_ctx > prompt_tokens + 16 { num_ctx - prompt_tokens } else { 10 * num_ctx };
    let limit = if options.num_predict < 1 { full } else { usize::try_from(options.num_predict).unwrap_or(full).min(10 * num_ctx) };
    let text = formatted(bound).map_or_else(|| script.text.clone(), Text::Given);
    let mut speaker = Speaker::new(text, answer::seed_of(&model.name, prompt, options.seed), limit);
    speaker.stop.clone_from(&options.stop);
    if model.thinking && wants_thinking(bound) != Some(false) {
        speaker.thinking = 8;
    }
    speaker
}

/// The pieces of an answer in a prescribed format.
fn formatted(bound: &Bound) -> Option<Vec<String>> {
    let text = match bound.get("format")? {
        Value::String(word) if word == "json" => "{ }".to_owned(),
        schema @ Value::Object(_) => answer::example(schema).ok()?.to_string(),
        _ => return None,
    };
    let pieces: Vec<char> = text.chars().collect();
    Some(pieces.chunks(4).map(|piece| piece.iter().collect()).collect())
}
