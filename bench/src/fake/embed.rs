//! `/api/embed` and the older `/api/embeddings`. Vectors depend on the text alone and have length 1.

use super::{
    Call, Server,
    answer::{self, tokens_in},
    bind::{self, Bound},
    emit::After,
    prepare::{self, Refusal, refuse},
    record::Phase,
    script::{Model, Script},
    wire::{Reply, Writer},
};
use serde_json::{Value, json};
use std::{io, time::Instant};

pub(super) async fn handle(server: &Server, call: &Call<'_>, out: &mut Writer<'_>) -> io::Result<After> {
    let legacy = call.request.path == "/api/embeddings";
    let made = if legacy { legacy_answer(server, call).await } else { answer(server, call).await };
    match made {
        Ok(value) => call.reply(&Reply::json(200, &value), out).await,
        Err(refusal) => call.reply(&refusal.reply(false), out).await,
    }
}

async fn answer(server: &Server, call: &Call<'_>) -> Result<Value, Refusal> {
    let bound = prepare::bound("EmbedRequest", bind::EMBED, &call.request.body)?;
    let asked = bound.text("model");
    let inputs = inputs(&bound)?;
    if asked.is_empty() {
        return refuse(404, "model '' not found");
    }
    let model = find(&call.script, asked)?;
    if inputs.is_empty() {
        let _loaded = run(server, call, &bound, model, 0).await?;
        return Ok(json!({"model": asked, "embeddings": []}));
    }
    let limit = model.context_length as usize;
    let mut counts: Vec<usize> = inputs.iter().map(|text| tokens_in(text) + 1).collect();
    if bound.flag("truncate") == Some(false) && counts.iter().any(|&count| count > limit) {
        return refuse(400, "the input length exceeds the context length");
    }
    for count in &mut counts {
        *count = (*count).min(limit);
    }
    let tokens: usize = counts.iter().sum();
    let (started, load) = run(server, call, &bound, model, tokens).await?;
    let width = bound.get("dimensions").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let vectors: Vec<Vec<f32>> = inputs.iter().map(|text| vector(text, model, width)).collect();
    Ok(json!({
        "model": asked, "embeddings": vectors, "total_duration": nanos(started), "load_duration": load, "prompt_eval_count": tokens,
    }))
}

async fn legacy_answer(server: &Server, call: &Call<'_>) -> Result<Value, Refusal> {
    let bound = prepare::bound("EmbeddingRequest", bind::EMBEDDINGS, &call.request.body)?;
    let asked = bound.text("model");
    if asked.is_empty() {
        return refuse(400, "model is required");
    }
    let model = find(&call.script, asked)?;
    let prompt = bound.text("prompt");
    run(server, call, &bound, model, if prompt.is_empty() { 0 } else { tokens_in(prompt) }).await?;
    let vector = if prompt.is_empty() { Vec::new() } else { vector(prompt, model, None) };
    Ok(json!({ "embedding": vector }))
}

fn find<'a>(script: &'a Script, asked: &str) -> Result<&'a Model, Refusal> {
    script.find(asked).map_or_else(|| refuse(404, format!("model \"{asked}\" not found, try pulling it first")), Ok)
}

fn inputs(bound: &Bound) -> Result<Vec<String>, Refusal> {
    match bound.get("input") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map_or_else(|| refuse(400, "invalid input type"), |text| Ok(text.to_owned()))).collect()
        }
        Some(_) => refuse(400, "invalid input type"),
    }
}

/// Loads the model and works on this many tokens; gives when it began and how long the load took, in nanoseconds.
async fn run(server: &Server, call: &Call<'_>, bound: &Bound, model: &Model, tokens: usize) -> Result<(Instant, u64), Refusal> {
    let options = prepare::options(bound, model, &call.script)?;
    let lease = prepare::lease(server, &call.script, model, &options, prepare::life(bound), call.ticket).await?;
    let load = nanos(call.received);
    if tokens == 0 {
        return Ok((call.received, load));
    }
    if !model.embedding {
        return refuse(501, "This server does not support embeddings. Start it with `--embeddings`");
    }
    let Some(mut slot) = lease.slot(&[0], super::script::Leak::Never).await else {
        return refuse(500, "an error was encountered while running the model: EOF");
    };
    let _held = call.ticket.hold_slot(&model.name);
    call.ticket.phase(Phase::Prefill);
    let work = call.script.prefill + call.script.prefill_per_token.saturating_mul(u32::try_from(tokens).unwrap_or(u32::MAX));
    tokio::time::sleep(work).await;
    slot.finished = true;
    Ok((call.received, load))
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// Words add up, so that texts that share words point the same way a little.
fn vector(text: &str, model: &Model, width: Option<usize>) -> Vec<f32> {
    let full = model.embedding_length as usize;
    let width = width.map_or(full, |width| width.min(full));
    let mut sums = vec![0.0_f32; width];
    for word in std::iter::once("").chain(text.split_whitespace()) {
        let seed = answer::hash(word);
        for (place, sum) in sums.iter_mut().enumerate() {
            let bits = u16::try_from(answer::mix(seed.wrapping_add(place as u64)) & 0xFFFF).unwrap_or(0);
            *sum += f32::from(bits) / 32_768.0 - 1.0;
        }
    }
    let length = sums.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    sums.iter().map(|x| x / length).collect()
}
