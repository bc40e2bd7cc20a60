//! `/api/chat`.

use super::{
    Call, Server,
    answer::{self, tokens_in},
    bind::{self, Bound},
    dialect::Dialect,
    emit::After,
    generate::{Emitted, Ready, emission, logprobs},
    options::{Life, Options},
    prepare::{self, Refusal, refuse},
    script::Model,
    wire::{JSON, Reply, Writer},
};
use serde_json::{Value, json};
use std::{io, sync::Arc, time::Duration};

pub(super) async fn handle(server: &Server, call: &Call<'_>, out: &mut Writer<'_>) -> io::Result<After> {
    let bound = match prepare::bound("ChatRequest", bind::CHAT, &call.request.body) {
        Ok(bound) => bound,
        Err(refusal) => return call.reply(&refusal.reply(true), out).await,
    };
    let stream = bound.flag("stream").unwrap_or(true);
    match ready(server, call, &bound).await {
        Err(refusal) => call.reply(&refusal.reply(stream), out).await,
        Ok(Ready::Reply(reply)) => call.reply(&reply, out).await,
        Ok(Ready::Emit(emission)) => emission.run(out).await,
    }
}

async fn ready<'a>(server: &Server, call: &Call<'a>, bound: &Bound) -> Result<Ready<'a>, Refusal> {
    let script = Arc::clone(&call.script);
    let asked = bound.text("model").to_owned();
    if asked.is_empty() {
        return refuse(400, "model is required");
    }
    let model = prepare::model(&script, &asked)?.clone();
    if model.embedding {
        return refuse(400, format!("\"{asked}\" does not support chat"));
    }
    let messages = bound.list("messages");
    let life = prepare::life(bound);
    let dialect = Dialect { chat: true, model: asked.clone(), context: None, logprobs: logprobs(bound) };
    if messages.is_empty() && life == Some(Life::For(Duration::ZERO)) {
        server.scheduler.unload(&model);
        return Ok(Ready::Reply(Reply::new(200, JSON, dialect.nothing("unload"))));
    }
    if !bound.list("tools").is_empty() && !model.tools {
        return refuse(400, format!("{} does not support tools", prepare::full_name(&model)));
    }
    prepare::check_common(bound, &asked, &model)?;
    let options = prepare::options(bound, &model, &script)?;
    let lease = prepare::lease(server, &script, &model, &options, life, call.ticket).await?;
    if messages.is_empty() {
        return Ok(Ready::Reply(Reply::new(200, JSON, dialect.nothing("load"))));
    }
    let rendered = conversation(messages, &model);
    if bound.flag("_debug_render_only") == Some(true) {
        return Ok(Ready::Reply(Reply::new(200, JSON, dialect.rendered(&rendered.join("\n")))));
    }
    prepare::check_late(bound, messages.iter().any(has_images), &model)?;
    let tokens = shortened(&rendered, bound, &options)?;
    let mut speaker = prepare::speaker(bound, &model, &script, &options, &rendered.join("\n"), tokens);
    speaker.call = tool_call(bound, speaker.seed);
    let prompt = (rendered.join("\n"), options.num_keep + 1);
    Ok(Ready::Emit(Box::new(emission(call, script, Emitted { lease, dialect, speaker, tokens, prompt, stream: bound.flag("stream") }))))
}

fn has_images(message: &Value) -> bool {
    message.get("images").and_then(Value::as_array).is_some_and(|images| !images.is_empty())
}

/// One text a message, those of the Modelfile first, and the beginning of the answer last.
fn conversation(messages: &[Value], model: &Model) -> Vec<String> {
    let text = |message: &Value, key: &str| message.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let own_system = messages.first().is_some_and(|first| text(first, "role").eq_ignore_ascii_case("system"));
    let system = model.system.iter().filter(|_| !own_system).map(|text| format!("System: {text}"));
    let examples = model.messages.iter().map(|(role, text)| format!("{role}: {text}"));
    let asked = messages.iter().map(|message| format!("{}: {}", text(message, "role"), text(message, "content")));
    let mut lines: Vec<String> = system.chain(examples).chain(asked).collect();
    if let Some(last) = lines.last_mut() {
        last.push_str("\nAssistant:");
    }
    lines
}

/// Leaves out the oldest messages until the rest fits; a last one that is too long by itself is cut.
fn shortened(lines: &[String], bound: &Bound, options: &Options) -> Result<usize, Refusal> {
    let counts: Vec<usize> = lines.iter().map(|line| line.split_whitespace().count()).collect();
    let whole = counts.iter().sum::<usize>() + 1;
    let num_ctx = options.shape.num_ctx as usize;
    if whole <= num_ctx || bound.flag("truncate") == Some(false) || !options.shape.shift {
        return prepare::fit(whole, bound, options);
    }
    let keeps_system = usize::from(lines[0].to_ascii_lowercase().starts_with("system:") && lines.len() > 1);
    let mut left = whole;
    for count in &counts[keeps_system..counts.len() - 1] {
        if left <= num_ctx {
            break;
        }
        left -= count;
    }
    prepare::fit(left.max(tokens_in("")), bound, options)
}

/// A model with tools calls the first one, unless it was just told a result.
fn tool_call(bound: &Bound, seed: u64) -> Option<Value> {
    let last = bound.list("messages").last()?;
    let function = bound.list("tools").first()?.get("function")?;
    if last.get("role").and_then(Value::as_str) == Some("tool") {
        return None;
    }
    let letters: String = (0..8).map(|i| char::from(b'a' + u8::try_from(answer::mix(seed.wrapping_add(i)) % 26).unwrap_or(0))).collect();
    let arguments = function.get("parameters").map_or_else(|| json!({}), |schema| answer::example(schema).unwrap_or_else(|()| json!({})));
    Some(json!({"id": format!("call_{letters}"), "function": {"index": 0, "name": function.get("name"), "arguments": arguments}}))
}
