//! Which handler answers a path, and the checks that come before: Host, Origin, method, trailing slash.

use super::{
    Call, Server, chat, embed,
    emit::After,
    generate, library, shelf,
    wire::{JSON, Reply, Request, Writer},
};
use std::{io, net::IpAddr};

/// What GET answers (HEAD too, but for `/api/ps`), and what POST answers.
const GET: [&str; 5] = ["/", "/api/version", "/api/tags", "/api/ps", "/api/status"];
const POST: [&str; 7] = ["/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/api/show", "/api/create", "/api/copy"];

const TEXT: &str = "text/plain";

pub(super) async fn answer(server: &Server, call: &Call<'_>, out: &mut Writer<'_>) -> io::Result<After> {
    let request = call.request;
    if let Some(reply) = guarded(request) {
        return call.reply(&reply, out).await;
    }
    match request.path.as_str() {
        "/api/generate" => generate::handle(server, call, out).await,
        "/api/chat" => chat::handle(server, call, out).await,
        "/api/embed" | "/api/embeddings" => embed::handle(server, call, out).await,
        "/api/create" | "/api/copy" | "/api/delete" => shelf::handle(server, call, out).await,
        path if path.starts_with(shelf::BLOBS) => shelf::handle(server, call, out).await,
        _ => {
            if request.path == "/api/ps" && server.scheduler.has_hung() {
                tokio::time::sleep(call.script.ping_timeout).await;
                server.scheduler.give_up_hung();
            }
            let mut reply = plain(server, call);
            if let Some(origin) = request.header("origin") {
                reply = reply.with("Access-Control-Allow-Origin", origin).with("Vary", "Origin");
            }
            call.reply(&reply, out).await
        }
    }
}

fn plain(server: &Server, call: &Call<'_>) -> Reply {
    match call.request.path.as_str() {
        "/" => Reply::new(200, "text/plain; charset=utf-8", "Ollama is running"),
        "/api/version" => Reply::json(200, &serde_json::json!({ "version": call.script.version })),
        "/api/tags" => Reply::json(200, &library::tags(&call.script)),
        "/api/ps" => Reply::json(200, &library::ps(server)),
        "/api/status" => Reply::new(200, JSON, "{\"cloud\":{\"disabled\":true,\"source\":\"env\"}}"),
        _ => library::show(&call.script, &call.request.body).unwrap_or_else(|refusal| refusal.reply(false)),
    }
}

/// An answer that no handler gives.
fn guarded(request: &Request) -> Option<Reply> {
    if !request.header("host").is_none_or(host_allowed) {
        return Some(Reply::empty(403));
    }
    let origin = request.header("origin");
    let preflighted = request.method == "OPTIONS" && origin.is_some();
    let refused = || if preflighted { Reply::empty(403).with("Allow", methods(&request.path).join(", ")) } else { Reply::empty(403) };
    match origin {
        Some(origin) if !origin_allowed(origin) => Some(refused()),
        Some(origin) if preflighted => Some(preflight(origin).with("Allow", methods(&request.path).join(", "))),
        _ => misplaced(&request.method, &request.path),
    }
}

fn preflight(origin: &str) -> Reply {
    Reply::empty(204)
        .with("Access-Control-Allow-Headers", "Authorization,Content-Type,User-Agent,Accept,X-Requested-With")
        .with("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS")
        .with("Access-Control-Allow-Origin", origin)
        .with("Access-Control-Max-Age", "43200")
}

fn methods(path: &str) -> &'static [&'static str] {
    match path {
        "/api/ps" | "/api/status" => &["GET"],
        _ if GET.contains(&path) => &["HEAD", "GET"],
        _ if POST.contains(&path) => &["POST"],
        "/api/delete" => &["DELETE"],
        _ if path.starts_with(shelf::BLOBS) => &["HEAD", "POST"],
        _ => &[],
    }
}

/// Wrong method, trailing slash, unknown path.
fn misplaced(method: &str, path: &str) -> Option<Reply> {
    let allowed = methods(path);
    if allowed.contains(&method) {
        return None;
    }
    if !allowed.is_empty() {
        return Some(Reply::new(405, TEXT, "405 method not allowed").with("Allow", allowed.join(", ")));
    }
    let bare = path.strip_suffix('/').unwrap_or(path);
    if bare != path && (GET.contains(&bare) || POST.contains(&bare)) {
        return Some(moved(method, bare));
    }
    Some(Reply::new(404, TEXT, "404 page not found"))
}

fn moved(method: &str, to: &str) -> Reply {
    if method == "GET" {
        let body = format!("<a href=\"{to}\">Moved Permanently</a>.\n\n");
        return Reply::new(301, "text/html; charset=utf-8", body).with("Location", to);
    }
    Reply::empty(307).with("Location", to)
}

/// A server on loopback takes local names and private addresses.
fn host_allowed(authority: &str) -> bool {
    let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(authority, |(host, _)| host);
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_unspecified() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified(),
        };
    }
    let host = host.to_ascii_lowercase();
    host.is_empty() || host == "localhost" || [".localhost", ".local", ".internal"].iter().any(|end| host.ends_with(end))
}

fn origin_allowed(origin: &str) -> bool {
    const SCHEMES: [&str; 5] = ["app://", "file://", "tauri://", "vscode-webview://", "vscode-file://"];
    if SCHEMES.iter().any(|scheme| origin.starts_with(scheme)) {
        return true;
    }
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    rest.is_some_and(|authority| matches!(authority.split(':').next(), Some("localhost" | "127.0.0.1" | "0.0.0.0")))
}
