//! HTTP/1.1 as the fake server speaks it: by hand on the socket, because its faults live below any HTTP library.
//!
//! Reads one request after the other from a connection and writes answers framed as Go's server frames them: a body of up
//! to 2,048 bytes carries its length, a longer one is chunked. Promises nothing to hostile clients beyond bounded memory.

use crate::clock;
use std::{fmt::Write as _, io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
};

const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_BODY_BYTES: usize = 256 << 20;
/// What Go's server collects before it gives up counting the length of a body.
const COUNTED_BODY_BYTES: usize = 2048;

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub close: bool,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The reading side of a connection with the bytes read ahead.
pub(super) struct Reader<'a> {
    half: ReadHalf<'a>,
    ahead: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub fn new(half: ReadHalf<'a>) -> Self {
        Self { half, ahead: Vec::with_capacity(4096) }
    }

    async fn more(&mut self) -> io::Result<usize> {
        self.ahead.reserve(4096);
        self.half.read_buf(&mut self.ahead).await
    }

    /// Resolves when the client has left; bytes it sends meanwhile are kept for the next request.
    pub async fn gone(&mut self) {
        while self.ahead.len() < MAX_HEAD_BYTES {
            if !matches!(self.more().await, Ok(1..)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// The next request without its body; none when the connection ended between requests.
    pub async fn head(&mut self) -> io::Result<Option<Request>> {
        let end = loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                break end;
            }
            if self.ahead.len() > MAX_HEAD_BYTES {
                return Err(bad("head too long"));
            }
            if self.more().await? == 0 {
                return if self.ahead.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        let request = parse_head(&self.ahead[..end])?;
        self.ahead.drain(..end + 4);
        Ok(Some(request))
    }

    pub async fn body(&mut self, request: &mut Request) -> io::Result<()> {
        if request.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16).map_err(|_| bad("chunk size"))?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    return Ok(());
                }
                self.exactly(size, &mut request.body).await?;
                self.line().await?;
            }
        }
        let length = request.header("content-length").map_or(Ok(0), |value| value.trim().parse().map_err(|_| bad("content-length")))?;
        self.exactly(length, &mut request.body).await
    }

    /// The first bytes of a body whose length is known.
    pub async fn some(&mut self, bytes: usize, request: &mut Request) -> io::Result<()> {
        let length = request.header("content-length").and_then(|value| value.trim().parse().ok()).unwrap_or(0);
        self.exactly(bytes.min(length), &mut request.body).await
    }

    async fn line(&mut self) -> io::Result<String> {
        let end = loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                break end;
            }
            if self.ahead.len() > MAX_HEAD_BYTES || self.more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let line = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
        self.ahead.drain(..end + 2);
        Ok(line)
    }

    async fn exactly(&mut self, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
        if into.len().saturating_add(length) > MAX_BODY_BYTES {
            return Err(bad("body too long"));
        }
        while self.ahead.len() < length {
            if self.more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        into.extend(self.ahead.drain(..length));
        Ok(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn parse_head(bytes: &[u8]) -> io::Result<Request> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or("").split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(bad("request line"));
    };
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(':')).map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect();
    let says_close =
        headers.iter().any(|(key, value)| key.eq_ignore_ascii_case("connection") && value.to_ascii_lowercase().contains("close"));
    Ok(Request {
        method: method.to_owned(),
        path: target.split('?').next().unwrap_or("").to_owned(),
        headers,
        body: Vec::new(),
        close: says_close || version == "HTTP/1.0",
    })
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Chunked whatever its size, as an answer that was meant to be a stream is.
    pub chunked: bool,
}

pub(super) const JSON: &str = "application/json; charset=utf-8";
pub(super) const NDJSON: &str = "application/x-ndjson";

impl Reply {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("Content-Type", content_type.to_owned())], body: body.into(), chunked: false }
    }

    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::new(status, JSON, super::gojson::escape(&value.to_string()))
    }

    pub fn error(status: u16, message: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": message }))
    }

    /// No body and no type.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), chunked: false }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Head and body as they go over the wire.
    pub fn bytes(&self, head_only: bool, close: bool) -> (Vec<u8>, Vec<u8>) {
        let chunked = self.chunked || self.body.len() > COUNTED_BODY_BYTES;
        let length = if chunked { None } else { Some(self.body.len()) };
        let head = head(self.status, &self.headers, length, close);
        let body = match (head_only || self.body.is_empty(), chunked) {
            (true, _) => Vec::new(),
            (false, true) => [chunk(&self.body), b"0\r\n\r\n".to_vec()].concat(),
            (false, false) => self.body.clone(),
        };
        (head, body)
    }
}

/// The head of an answer; without a length it announces chunks.
pub(super) fn head(status: u16, headers: &[(&'static str, String)], length: Option<usize>, close: bool) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()).unwrap_or("status");
    let mut text = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let _ = write!(text, "Date: {}\r\n", clock::http_date(clock::since_epoch()));
    match length {
        _ if status == 204 => {}
        Some(length) => drop(write!(text, "Content-Length: {length}\r\n")),
        None => text.push_str("Transfer-Encoding: chunked\r\n"),
    }
    text.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
    text.into_bytes()
}

/// One chunk of a chunked body.
pub(super) fn chunk(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
    out
}

/// The writing side of a connection. Every `send` is one write, unless a fault says otherwise.
pub(super) struct Writer<'a> {
    half: WriteHalf<'a>,
    /// Every byte by itself.
    pub split: bool,
    /// Bytes of a head this far apart.
    pub slow_head: Option<Duration>,
    /// The answer to a HEAD request has no body.
    pub head_only: bool,
    /// The connection ends after this answer.
    pub close: bool,
}

impl<'a> Writer<'a> {
    pub fn new(half: WriteHalf<'a>) -> Self {
        Self { half, split: false, slow_head: None, head_only: false, close: false }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.split {
            return self.half.write_all(bytes).await;
        }
        for byte in bytes {
            self.half.write_all(std::slice::from_ref(byte)).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// A head and the first bytes after it: together in one write, as Go flushes them.
    pub async fn send_head(&mut self, head: Vec<u8>, first: &[u8]) -> io::Result<()> {
        if let Some(gap) = self.slow_head {
            for byte in &head {
                self.half.write_all(std::slice::from_ref(byte)).await?;
                tokio::time::sleep(gap).await;
            }
            return self.send(first).await;
        }
        let mut bytes = head;
        bytes.extend_from_slice(first);
        self.send(&bytes).await
    }

    pub async fn reply(&mut self, reply: &Reply) -> io::Result<()> {
        let (head, body) = reply.bytes(self.head_only, self.close);
        self.send_head(head, &body).await
    }
}
