//! The routes that change the library: blobs, create, copy, delete. As recorded; without a registry, and without reading GGUF.
//!
//! A file counts as GGUF when it begins so, as an embedding model when `bert` is among its first bytes. What is created is a [`Model`] of
//! the script like any other; the same content has the same digest under every name.

use super::{
    Call, Server, answer,
    bind::{self, Bound},
    emit::After,
    fault::{Fault, Midway},
    prepare::{self, Refusal, late, refuse},
    script::{Model, Script},
    wire::{self, NDJSON, Reply, Writer},
};
use crate::clock;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io;

pub(super) const BLOBS: &str = "/api/blobs/";
const SUCCESS: &str = "{\"status\":\"success\"}";

/// Files that were sent, by the 64 digits of their digest.
#[derive(Debug, Default)]
pub(super) struct Blobs(BTreeMap<String, Blob>);

#[derive(Debug, Clone, Copy, Default)]
struct Blob {
    gguf: bool,
    embedding: bool,
    size_bytes: u64,
}

impl Blobs {
    /// Forgets what no model uses, as a server does that starts anew.
    pub fn prune(&mut self, used: &[String]) {
        self.0.retain(|digest, _| used.contains(digest));
    }

    fn take(&mut self, bytes: &[u8]) -> String {
        let digest = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let head = &bytes[..bytes.len().min(256)];
        let embedding = head.windows(4).any(|window| window == b"bert");
        self.0.insert(digest.clone(), Blob { gguf: bytes.starts_with(b"GGUF"), embedding, size_bytes: bytes.len() as u64 });
        digest
    }
}

/// All digests that a model is made of.
pub(super) fn used(script: &Script) -> Vec<String> {
    script.models.iter().flat_map(|model| model.adapters.iter().chain([&model.blob]).cloned()).collect()
}

/// The answer to all but create; faults that need the change to be made are looked at here.
pub(super) async fn handle(server: &Server, call: &Call<'_>, out: &mut Writer<'_>) -> io::Result<After> {
    if call.request.path == "/api/create" {
        return create(server, call, out).await;
    }
    let reply = match call.request.path.as_str() {
        "/api/copy" => copy(server, call),
        "/api/delete" => delete(server, &call.request.body),
        path => blob(server, path.trim_start_matches(BLOBS), call),
    };
    if call.fault == Some(Fault::DoneThenReset) {
        call.ticket.broken();
        return Ok(After::Reset);
    }
    call.reply(&reply.unwrap_or_else(|refusal| refusal.reply(false)), out).await
}

fn hex_of(digest: &str) -> Option<&str> {
    let digits = digest.strip_prefix("sha256:").or_else(|| digest.strip_prefix("sha256-"))?;
    (digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
}

fn blob(server: &Server, digest: &str, call: &Call<'_>) -> Result<Reply, Refusal> {
    let Some(digits) = hex_of(digest) else { return refuse(400, "invalid digest format") };
    let mut blobs = server.blobs();
    let there = blobs.0.contains_key(digits) || used(&call.script).iter().any(|used| used == digits);
    if call.request.method == "HEAD" {
        return if there { Ok(Reply::empty(200)) } else { refuse(404, format!("blob \"{digest}\" not found")) };
    }
    if there {
        return Ok(Reply::empty(200));
    }
    let found = blobs.take(&call.request.body);
    if found == digits {
        return Ok(Reply::empty(201));
    }
    refuse(400, format!("digest mismatch, expected \"sha256:{digits}\", got \"sha256:{found}\""))
}

fn copy(server: &Server, call: &Call<'_>) -> Result<Reply, Refusal> {
    let bound = prepare::bound("CopyRequest", bind::COPY, &call.request.body)?;
    let (source, destination) = (bound.text("source"), bound.text("destination"));
    for (what, name) in [("source", source), ("destination", destination)] {
        if name.is_empty() || !prepare::valid_name(name) {
            return refuse(400, format!("{what} {name:?} is invalid"));
        }
    }
    let Some(model) = call.script.find(source).cloned() else { return refuse(404, format!("model {source:?} not found")) };
    if call.fault == Some(Fault::HalfCopy) {
        // The file of the name was emptied before the disk was found to be full: it is in no list any more.
        server.change(|script| drop(script.remove(destination)));
        return refuse(500, "write /models/manifests: no space left on device");
    }
    server.change(|script| script.put(Model { name: tagged(destination), modified: Some(clock::since_epoch()), ..model }));
    Ok(Reply::empty(200))
}

fn delete(server: &Server, body: &[u8]) -> Result<Reply, Refusal> {
    let bound = prepare::bound("DeleteRequest", bind::DELETE, body)?;
    let Some(name) = [bound.text("model"), bound.text("name")].into_iter().find(|name| !name.is_empty()) else {
        return refuse(400, "name \"\" is invalid");
    };
    if !prepare::valid_name(name) {
        return refuse(400, format!("name {name:?} is invalid"));
    }
    match server.change(|script| script.remove(name)) {
        None => refuse(404, format!("model '{name}' not found")),
        Some(model) => {
            let still = used(&server.shared().script);
            let parts = model.adapters.iter().chain([&model.blob]);
            let mut blobs = server.blobs();
            blobs.0.retain(|digest, _| still.contains(digest) || !parts.clone().any(|part| part == digest));
            Ok(Reply::empty(200))
        }
    }
}

fn tagged(name: &str) -> String {
    if name.rsplit('/').next().is_some_and(|last| last.contains(':')) { name.to_owned() } else { format!("{name}:latest") }
}

/// Lines, and perhaps an error at their end; or a refusal before the first.
type Told = Result<Vec<Value>, Refusal>;

async fn create(server: &Server, call: &Call<'_>, out: &mut Writer<'_>) -> io::Result<After> {
    let bound = match prepare::bound("CreateRequest", bind::CREATE, &call.request.body).and_then(checked) {
        Ok(bound) => bound,
        Err(refusal) => return call.reply(&refusal.reply(false), out).await,
    };
    let streamed = bound.flag("stream").unwrap_or(true);
    // A model is there once its last line is due; a fault before that leaves none.
    let told = lines(server, call, &bound);
    match told {
        Err(refusal) => call.reply(&refusal.reply(true), out).await,
        Ok(_) if !streamed => call.reply(&Reply::new(200, "application/json", SUCCESS), out).await,
        Ok(lines) => tell(call, &lines, out).await,
    }
}

fn checked(bound: Bound) -> Result<Bound, Refusal> {
    let name = [bound.text("model"), bound.text("name")].into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    if name.is_empty() || !prepare::valid_name(name) {
        return refuse(400, "invalid model name");
    }
    let paths = ["files", "adapters"].into_iter().filter_map(|field| bound.get(field)?.as_object()).flat_map(|map| map.keys());
    if paths.into_iter().any(|path| path.starts_with('/') || path.contains("..")) {
        return refuse(400, "file path must be relative");
    }
    Ok(bound)
}

fn lines(server: &Server, call: &Call<'_>, bound: &Bound) -> Told {
    if bound.get("adapters").is_some() && call.script.refuses_adapters() {
        return late(400, "LoRA adapters are no longer supported");
    }
    let mut lines = Vec::new();
    let base = match (bound.get("from").and_then(Value::as_str), bound.get("files").and_then(Value::as_object)) {
        (Some(from), _) => match call.script.find(from) {
            Some(base) => base.clone(),
            None => return Ok(unreachable(from)),
        },
        (None, Some(files)) => match from_files(server, call, files.values().next().and_then(Value::as_str), &mut lines) {
            Ok(base) => base,
            Err(error) => return Ok([lines, vec![json!({"error": error})]].concat()),
        },
        (None, None) => return late(400, "neither 'from' or 'files' was specified"),
    };
    if !bound.text("quantize").is_empty() && !matches!(base.quantization.as_str(), "F16" | "BF16" | "F32") {
        return late(500, "quantization is only supported for F16, BF16 and F32 models");
    }
    let model = made(base, bound);
    lines.push(layer(&model.blob, true));
    lines.extend(model.adapters.iter().map(|adapter| layer(adapter, true)));
    lines.extend((0..2).map(|part| layer(&answer::digest(&format!("part {part} of {}", model.digest)), false)));
    lines.extend(["writing manifest", "success"].map(|status| json!({"status": status})));
    let breaks = matches!(call.fault, Some(Fault::After(..) | Fault::LineOfError(..)));
    if !breaks {
        server.change(|script| script.put(model));
    }
    Ok(lines)
}

/// The recorded server could not reach its registry.
fn unreachable(from: &str) -> Vec<Value> {
    let place = format!("https://registry.ollama.ai/v2/library/{from}/manifests/latest");
    let told = format!("pull model manifest: Get {place:?}: dial tcp: lookup registry.ollama.ai: no such host");
    vec![json!({"status": "pulling manifest"}), json!({"error": told})]
}

fn layer(digest: &str, existing: bool) -> Value {
    json!({"status": format!("{} layer sha256:{digest}", if existing { "using existing" } else { "creating new" })})
}

/// The model of a file, without anything else.
fn from_files(server: &Server, call: &Call<'_>, digest: Option<&str>, lines: &mut Vec<Value>) -> Result<Model, String> {
    lines.push(json!({"status": "parsing GGUF"}));
    let digits = digest.and_then(hex_of).unwrap_or_default();
    let known = call.script.models.iter().find(|model| model.blob == digits);
    let gone = || format!("open /models/blobs/sha256-{digits}: no such file or directory");
    let blob = match (server.blobs().0.get(digits).copied(), known) {
        (Some(blob), _) => blob,
        (None, Some(model)) => Blob { gguf: true, embedding: model.embedding, size_bytes: model.size_bytes },
        (None, None) => return Err(gone()),
    };
    if !blob.gguf {
        return Err("supplied file was not in GGUF format".to_owned());
    }
    lines.push(json!({"status": "verifying conversion"}));
    let blank = if blob.embedding { Model::embedding("x") } else { Model::new("x") };
    let blob_digest = if call.script.rewrites { answer::digest(&format!("rewritten {digits}")) } else { digits.to_owned() };
    Ok(Model { blob: blob_digest, size_bytes: blob.size_bytes, ..blank })
}

/// A model with what the request says beside its weights.
fn made(base: Model, bound: &Bound) -> Model {
    let text = |field: &str| Some(bound.text(field).to_owned()).filter(|text| !text.is_empty());
    let license = match bound.get("license") {
        Some(Value::Array(list)) => Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")),
        _ => text("license"),
    };
    let adapters = bound.get("adapters").and_then(Value::as_object).map(|map| map.values().filter_map(Value::as_str).collect::<Vec<_>>());
    let adapters = adapters.unwrap_or_default().into_iter().filter_map(hex_of).map(str::to_owned).collect();
    let said = |message: &Value| {
        (message["role"].as_str().unwrap_or_default().to_owned(), message["content"].as_str().unwrap_or_default().to_owned())
    };
    let messages: Vec<_> = bound.list("messages").iter().map(said).collect();
    let model = Model {
        name: tagged([bound.text("model"), bound.text("name")].into_iter().find(|name| !name.is_empty()).unwrap_or_default()),
        template: text("template").unwrap_or(base.template),
        system: text("system").or(base.system),
        license: license.or(base.license),
        parameters: bound.get("parameters").and_then(parameters).or(base.parameters),
        messages: if messages.is_empty() { base.messages } else { messages },
        adapters: if base.adapters.is_empty() { adapters } else { base.adapters },
        modified: Some(clock::since_epoch()),
        ..base
    };
    let content = (&model.blob, &model.template, &model.system, &model.license, &model.parameters, &model.messages, &model.adapters);
    Model { digest: answer::digest(&format!("{content:?}")), ..model }
}

/// As `/api/show` prints them.
fn parameters(given: &Value) -> Option<String> {
    let mut lines: Vec<String> = Vec::new();
    for (name, value) in given.as_object()? {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        lines.extend(values.iter().map(|value| format!("{name:<30} {value}")));
    }
    lines.sort();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// One line a chunk, as far as the fault lets it come.
async fn tell(call: &Call<'_>, lines: &[Value], out: &mut Writer<'_>) -> io::Result<After> {
    let (whole, midway) = match &call.fault {
        Some(Fault::After(count, midway)) => (*count, Some(*midway)),
        Some(Fault::LineOfError(count, _)) => (*count, None),
        _ => (lines.len(), None),
    };
    let mut head = Some(wire::head(200, &[("Content-Type", NDJSON.to_owned())], None, out.close));
    let mut texts: Vec<String> = lines.iter().take(whole).map(Value::to_string).collect();
    match &call.fault {
        Some(Fault::LineOfError(_, message)) => texts.push(json!({"error": message}).to_string()),
        Some(Fault::After(_, Midway::ErrorLine)) => texts.push(json!({"error": "unexpected EOF"}).to_string()),
        Some(Fault::After(_, Midway::Garbage)) => texts.push("<html>".to_owned()),
        _ => {}
    }
    for text in texts {
        let chunk = wire::chunk(format!("{text}\n").as_bytes());
        match head.take() {
            Some(head) => out.send_head(head, &chunk).await?,
            None => out.send(&chunk).await?,
        }
        tokio::time::sleep(call.script.build_gap).await;
    }
    if let Some(head) = head.take() {
        out.send_head(head, b"").await?;
    }
    match midway {
        Some(Midway::Stall) => std::future::pending().await,
        Some(Midway::Close | Midway::Reset) => {
            call.ticket.broken();
            Ok(if midway == Some(Midway::Reset) { After::Reset } else { After::Close })
        }
        _ => {
            out.send(b"0\r\n\r\n").await?;
            call.ticket.answered(200);
            Ok(After::Next)
        }
    }
}
