//! Raw sockets: ambiguous HTTP is refused, silent and dripping peers are let go.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{PATIENCE, TestApp, fake};

/// Everything the server says to these bytes until it closes.
async fn say(app: &TestApp, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(app.address).await.expect("connects");
    socket.write_all(bytes).await.expect("written");
    until_closed(&mut socket).await
}

async fn until_closed(socket: &mut TcpStream) -> String {
    let mut said = Vec::new();
    // A reset after an answer is an end too.
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut said)).await.expect("the connection is closed");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_their_connection_closed() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let requests: [&[u8]; 12] = [
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: x-secret\r\n\r\n",
        b"GET /a/../livez HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /%2e%2e/livez HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET //livez HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /livez HTTP/1.1\r\nhost: a\r\nbad header: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for request in requests {
        let said = say(&app, request).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{}: {said}", String::from_utf8_lossy(request));
    }
}

#[tokio::test]
async fn a_second_request_cannot_hide_behind_two_framings() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let smuggled = b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /version HTTP/1.1\r\nhost: a\r\n\r\n";
    let said = say(&app, smuggled).await;
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
}

#[tokio::test]
async fn a_head_beyond_the_bound_is_refused() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |c| c.server.max_header_bytes = 8192).await;
    let said = say(&app, format!("GET /livez HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(20_000)).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 431 ") || said.is_empty(), "{said}");
}

#[tokio::test]
async fn silent_dripping_and_idle_connections_are_closed() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |c| {
        c.server.header_timeout = Duration::from_millis(400);
        c.api.body.idle_timeout = Duration::from_millis(400);
    })
    .await;
    let silent = async { say(&app, b"").await };
    let dripping = async {
        let mut socket = TcpStream::connect(app.address).await.expect("connects");
        for byte in b"GET /livez HTTP/1.1\r\nhost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
            if socket.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        until_closed(&mut socket).await
    };
    let idle = async { say(&app, b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await };
    let slow_body = async { say(&app, b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{").await };
    let (silent, dripping, idle, slow_body) = tokio::join!(silent, dripping, idle, slow_body);
    assert!(!silent.contains("200 OK") && !dripping.contains("200 OK"), "{silent} {dripping}");
    assert_eq!(idle.matches("200 OK").count(), 1);
    assert!(slow_body.starts_with("HTTP/1.1 408 "), "{slow_body}");
}

#[tokio::test]
async fn connections_beyond_the_bound_are_told_so() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |c| c.server.max_connections = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(app.address).await.expect("connects");
        socket.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("written");
        socket.read_exact(&mut [0; 15]).await.expect("answered");
        held.push(socket);
    }
    let mut beyond = TcpStream::connect(app.address).await.expect("connects");
    assert!(until_closed(&mut beyond).await.starts_with("HTTP/1.1 503 "));
    drop(held);
    crate::support::eventually("room again", async || {
        let mut socket = TcpStream::connect(app.address).await.expect("connects");
        socket.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.is_ok()
            && until_closed(&mut socket).await.starts_with("HTTP/1.1 200")
    })
    .await;
}
