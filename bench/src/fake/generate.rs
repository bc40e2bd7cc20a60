//! `/api/generate`.

use super::{
    Call, Server,
    answer::{self, tokens_in},
    bind::{self, Bound},
    dialect::Dialect,
    emit::{After, Emission},
    options::Life,
    prepare::{self, Refusal, refuse},
    script::{Model, Script},
    wire::{JSON, Reply, Writer},
};
use std::{io, sync::Arc, time::Duration};

/// A stable number for a piece of text, of the size token ids have.
pub(super) fn token_id(text: &str) -> u32 {
    u32::try_from(answer::hash(text) % 262_144).unwrap_or(0)
}

/// What a prepared request leads to.
pub(super) enum Ready<'a> {
    Emit(Box<Emission<'a>>),
    Reply(Reply),
}

pub(super) async fn handle(server: &Server, call: &Call<'_>, out: &mut Writer<'_>) -> io::Result<After> {
    let bound = match prepare::bound("GenerateRequest", bind::GENERATE, &call.request.body) {
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
    let model = prepare::model(&script, &asked)?.clone();
    if model.embedding {
        return refuse(400, format!("\"{asked}\" does not support generate"));
    }
    let (prompt, raw) = (bound.text("prompt"), bound.flag("raw") == Some(true));
    let life = prepare::life(bound);
    let mut dialect = Dialect { chat: false, model: asked.clone(), context: None, logprobs: logprobs(bound) };
    if prompt.is_empty() && life == Some(Life::For(Duration::ZERO)) {
        server.scheduler.unload(&model);
        return Ok(Ready::Reply(Reply::new(200, JSON, dialect.nothing("unload"))));
    }
    check(bound, &asked, &model, raw)?;
    let options = prepare::options(bound, &model, &script)?;
    let lease = prepare::lease(server, &script, &model, &options, life, call.ticket).await?;
    if prompt.is_empty() {
        return Ok(Ready::Reply(Reply::new(200, JSON, dialect.nothing("load"))));
    }
    let rendered = if raw { prompt.to_owned() } else { render(bound, &model)? };
    if bound.flag("_debug_render_only") == Some(true) {
        return Ok(Ready::Reply(Reply::new(200, JSON, dialect.rendered(&rendered))));
    }
    prepare::check_late(bound, !bound.list("images").is_empty(), &model)?;
    let tokens = prepare::fit(tokens_in(&rendered) + bound.list("context").len(), bound, &options)?;
    let speaker = prepare::speaker(bound, &model, &script, &options, prompt, tokens);
    dialect.context = (!raw).then(|| context(bound, &rendered, tokens));
    let earlier: Vec<String> = bound.list("context").iter().map(ToString::to_string).collect();
    let prompt = (format!("{} {rendered}", earlier.join(" ")), options.num_keep + 1);
    Ok(Ready::Emit(Box::new(emission(call, script, Emitted { lease, dialect, speaker, tokens, prompt, stream: bound.flag("stream") }))))
}

/// The parts of an emission that an endpoint knows.
pub(super) struct Emitted {
    pub lease: super::scheduler::Lease,
    pub dialect: Dialect,
    pub speaker: answer::Speaker,
    pub tokens: usize,
    /// The prompt as text, and what is kept of its beginning.
    pub prompt: (String, usize),
    pub stream: Option<bool>,
}

pub(super) fn emission<'a>(call: &Call<'a>, script: Arc<Script>, parts: Emitted) -> Emission<'a> {
    let mut emission = Emission::new(script, parts.lease, call.ticket, parts.dialect, parts.speaker);
    emission.prompt_tokens = parts.tokens;
    emission.prompt = parts.prompt;
    emission.midway = call.fault.as_ref().and_then(super::fault::Fault::midway);
    emission.stream = parts.stream.unwrap_or(true);
    emission.received = call.received;
    emission
}

pub(super) fn logprobs(bound: &Bound) -> Option<usize> {
    let wanted = bound.flag("logprobs") == Some(true);
    wanted.then(|| bound.get("top_logprobs").and_then(serde_json::Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
}

fn check(bound: &Bound, asked: &str, model: &Model, raw: bool) -> Result<(), Refusal> {
    let set = |key: &str| !bound.text(key).is_empty();
    if raw && (set("template") || set("system") || !bound.list("context").is_empty()) {
        return refuse(400, "raw mode does not support template, system, or context");
    }
    prepare::check_common(bound, asked, model)?;
    if set("suffix") && !model.insert {
        return refuse(400, format!("{} does not support insert", prepare::full_name(model)));
    }
    Ok(())
}

/// System text, example messages and prompt, one a line: no template engine, but texts of the right length.
fn render(bound: &Bound, model: &Model) -> Result<String, Refusal> {
    let template = bound.text("template");
    if template.matches("{{").count() != template.matches("}}").count() {
        return refuse(500, "template: :1: unclosed action");
    }
    let prompt = bound.text("prompt");
    let system = Some(bound.text("system")).filter(|text| !text.is_empty()).or(model.system.as_deref());
    if system.is_none() && model.messages.is_empty() {
        return Ok(format!("{prompt}{}", bound.text("suffix")));
    }
    let mut lines: Vec<String> = system.map(|text| format!("System: {text}")).into_iter().collect();
    lines.extend(model.messages.iter().map(|(role, text)| format!("{role}: {text}")));
    lines.push(format!("User: {prompt}\nAssistant:"));
    Ok(lines.join("\n"))
}

fn context(bound: &Bound, rendered: &str, tokens: usize) -> Vec<u32> {
    let earlier = bound.list("context").iter().filter_map(serde_json::Value::as_u64).filter_map(|id| u32::try_from(id).ok());
    let mut ids: Vec<u32> = earlier.chain(rendered.split_whitespace().map(token_id)).collect();
    ids.truncate(tokens.saturating_sub(1));
    ids
}
