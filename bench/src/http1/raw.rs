//! One request over one connection, byte for byte, and what came back chunk by chunk.
//!
//! For looking at framing and at broken answers; it sends whatever bytes it is given, valid or not. Bounded by the time
//! the caller allows and by 64 MiB.

use std::{fmt::Write as _, io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const MAX_BYTES: usize = 64 << 20;

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By its length or its last chunk.
    Complete,
    /// By a close before that, or before any byte.
    Cut,
    /// By a reset.
    Reset,
    /// Not within the time allowed.
    TimedOut,
}

/// An answer as it arrived.
#[derive(Debug, Clone)]
pub struct Reply {
    /// 0 when no head came.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// The chunks of a chunked body; a body with a length is one chunk.
    pub chunks: Vec<Vec<u8>>,
    pub ended: Ended,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn body(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }
}

/// The bytes of a request. `Host`, `Connection: close` and a length are added unless they are given.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let given = |name: &str| headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if !given("host") {
        text.push_str("Host: localhost\r\n");
    }
    if !given("connection") {
        text.push_str("Connection: close\r\n");
    }
    let needs_length = !body.is_empty() || !matches!(method, "GET" | "HEAD" | "OPTIONS");
    if needs_length && !given("content-length") && !given("transfer-encoding") {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// Sends bytes and reads one answer.
pub async fn exchange(address: SocketAddr, bytes: &[u8], bound: Duration) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut reader = Incremental { head_only: bytes.starts_with(b"HEAD "), ..Incremental::default() };
    let ended = match tokio::time::timeout(bound, converse(&mut stream, bytes, &mut reader)).await {
        Ok(ended) => ended,
        Err(_) => Ended::TimedOut,
    };
    Ok(Reply { status: reader.status, headers: reader.headers, chunks: reader.chunks, ended })
}

async fn converse(stream: &mut TcpStream, bytes: &[u8], reader: &mut Incremental) -> Ended {
    // A server that refuses early may close while we still write; its answer counts all the same.
    let _ = stream.write_all(bytes).await;
    let mut total = 0;
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return if reader.to_close { Ended::Complete } else { Ended::Cut },
            Ok(count) => {
                total += count;
                reader.pending.extend_from_slice(&buffer[..count]);
                if reader.advance() {
                    return Ended::Complete;
                }
                if total > MAX_BYTES {
                    return Ended::Cut;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ended::Reset,
            Err(_) => return Ended::Cut,
        }
    }
}

/// Takes an answer apart as it comes.
#[derive(Default)]
struct Incremental {
    pending: Vec<u8>,
    status: u16,
    headers: Vec<(String, String)>,
    chunks: Vec<Vec<u8>>,
    head_only: bool,
    /// Neither length nor chunks: the close is the end.
    to_close: bool,
    length: Option<usize>,
}

impl Incremental {
    /// Whether the answer is whole.
    fn advance(&mut self) -> bool {
        while self.status == 0 || self.status == 100 {
            let Some(end) = find(&self.pending, b"\r\n\r\n") else { return false };
            let head = String::from_utf8_lossy(&self.pending[..end]).into_owned();
            self.pending.drain(..end + 4);
            self.read_head(&head);
        }
        if self.head_only || matches!(self.status, 204 | 304) || self.length == Some(0) {
            return true;
        }
        if let Some(length) = self.length {
            let body = self.chunks.pop().unwrap_or_default();
            self.chunks.push([body, std::mem::take(&mut self.pending)].concat());
            return self.chunks[0].len() >= length;
        }
        if self.to_close {
            let part = std::mem::take(&mut self.pending);
            self.chunks.push(part);
            return false;
        }
        self.read_chunks()
    }

    fn read_head(&mut self, head: &str) {
        let mut lines = head.split("\r\n");
        self.status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap_or(599);
        self.headers = lines.filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect();
        let value = |name: &str| self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
        self.length = value("content-length").and_then(|value| value.parse().ok());
        self.to_close = self.length.is_none() && value("transfer-encoding").is_none();
    }

    fn read_chunks(&mut self) -> bool {
        while let Some(end) = find(&self.pending, b"\r\n") {
            let size = String::from_utf8_lossy(&self.pending[..end]).into_owned();
            let Ok(size) = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16) else { return false };
            let next = end + 2 + size + 2;
            if self.pending.len() < next {
                return false;
            }
            if size == 0 {
                return true;
            }
            self.chunks.push(self.pending[end + 2..end + 2 + size].to_vec());
            self.pending.drain(..next);
        }
        false
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
