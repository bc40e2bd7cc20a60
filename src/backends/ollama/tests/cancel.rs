//! Leaving: the server hears of it at once, in every phase, and a finished connection serves again.

use std::time::Duration;

use futures_util::StreamExt;

use super::server::{LONG, Server, Talk, signal};
use super::{DONE, client, piece, start};

/// A server that does this, then says whether the client closed the connection, and the receiver of that.
fn watched(before: impl Fn(&mut Talk) + Send + Sync + 'static) -> (Server, std::sync::mpsc::Receiver<bool>) {
    let (sender, closed) = signal();
    let server = Server::start(move |talk| {
        before(talk);
        let gone = talk.wait_for_close();
        let _ = sender.lock().expect("unpoisoned").send(gone);
        talk.close();
    });
    (server, closed)
}

async fn hears(closed: std::sync::mpsc::Receiver<bool>) -> bool {
    tokio::task::spawn_blocking(move || closed.recv_timeout(LONG / 3).unwrap_or(false)).await.expect("no panic")
}

#[tokio::test]
async fn before_the_answer_begins() {
    let (server, closed) = watched(|_| {});
    let ollama = client(&server.url());
    let waiting = tokio::time::timeout(Duration::from_secs(1), start(&ollama));
    assert!(waiting.await.is_err());
    assert!(hears(closed).await, "the connection stayed open");
}

#[tokio::test]
async fn after_the_head_and_before_the_first_piece() {
    let (server, closed) = watched(Talk::stream);
    let events = start(&client(&server.url())).await.expect("an answer");
    drop(events);
    assert!(hears(closed).await, "the connection stayed open");
}

#[tokio::test]
async fn in_the_middle_while_the_server_is_silent() {
    let (server, closed) = watched(|talk| {
        talk.stream();
        talk.chunk(piece("a"));
    });
    let ollama = client(&server.url());
    let mut events = start(&ollama).await.expect("an answer");
    assert!(events.next().await.expect("an event").is_ok());
    drop(events);
    assert!(hears(closed).await, "the connection stayed open");
}

#[tokio::test]
async fn in_the_middle_while_waiting_for_more() {
    let (server, closed) = watched(|talk| {
        talk.stream();
        talk.chunk(piece("a"));
    });
    let ollama = client(&server.url());
    let mut events = start(&ollama).await.expect("an answer");
    assert!(events.next().await.expect("an event").is_ok());
    assert!(tokio::time::timeout(Duration::from_millis(200), events.next()).await.is_err());
    drop(events);
    assert!(hears(closed).await, "the connection stayed open");
}

#[tokio::test]
async fn in_the_middle_while_the_server_talks_on() {
    let (sender, closed) = signal();
    let server = Server::start(move |talk| {
        talk.stream();
        let gone = (0..10_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            talk.try_chunk(piece("more")).is_err()
        });
        let _ = sender.lock().expect("unpoisoned").send(gone);
        talk.close();
    });
    let ollama = client(&server.url());
    let mut events = start(&ollama).await.expect("an answer");
    for _ in 0..3 {
        assert!(events.next().await.expect("an event").is_ok());
    }
    drop(events);
    assert!(hears(closed).await, "the server could go on talking");
}

#[tokio::test]
async fn a_finished_answer_leaves_its_connection_usable() {
    let (sender, ended) = signal();
    let server = Server::start(move |talk| {
        talk.stream();
        talk.chunk(piece("a"));
        talk.chunk(DONE);
        // The mark of the end comes late, as it does from a server that writes it by itself.
        std::thread::sleep(Duration::from_millis(20));
        talk.end();
        let _ = sender.lock().expect("unpoisoned").send(true);
    });
    let ollama = client(&server.url());
    for _ in 0..8 {
        let mut events = start(&ollama).await.expect("an answer");
        while !matches!(events.next().await.expect("an event"), Ok(crate::domain::generation::Event::Done(_))) {}
        drop(events);
        // Let the connection's own task see the mark.
        while ended.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // One, unless this machine was too busy for a moment; eight if each were left before its mark.
    assert!(server.connections() <= 4, "{} connections", server.connections());
}

#[tokio::test]
async fn each_piece_comes_out_before_the_next_is_sent() {
    let (sender, go) = signal();
    let go = std::sync::Mutex::new(go);
    let server = Server::start(move |talk| {
        talk.stream();
        for n in 0..5 {
            talk.chunk(piece(&n.to_string()));
            // The next one is written only when the client has this one.
            if go.lock().expect("unpoisoned").recv_timeout(LONG) != Ok(true) {
                return talk.close();
            }
        }
        talk.chunk(DONE);
        talk.end();
    });
    let ollama = client(&server.url());
    let mut events = start(&ollama).await.expect("an answer");
    let mut pieces = 0;
    while let Some(event) = events.next().await {
        event.expect("an event");
        pieces += 1;
        let _ = sender.lock().expect("unpoisoned").send(true);
    }
    assert_eq!(pieces, 6);
}
