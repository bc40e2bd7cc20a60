//! Each way in which a server can fail, and what comes of it.

use std::net::TcpListener;
use std::time::Duration;

use super::server::{Server, Talk};
use super::{DONE, Outcome, client, hasty, outcome, piece};
use crate::backends::Error;
use crate::backends::ollama::{Config, Ollama};

async fn against(answer: impl Fn(&mut Talk) + Send + Sync + 'static) -> Outcome {
    let server = Server::start(answer);
    outcome(&client(&server.url())).await
}

async fn against_status(status: &'static str, headers: &'static [&'static str], body: &'static str) -> Error {
    let outcome = against(move |talk| talk.answer(status, headers, body)).await;
    assert!(outcome.events.is_empty());
    outcome.error.expect("it failed")
}

#[tokio::test]
async fn a_whole_answer() {
    let outcome = against(|talk| {
        talk.stream();
        talk.chunk(piece("Hel"));
        talk.chunk(piece("lo") + DONE + "{\"ignored\":1}\ngarbage");
        talk.end();
    })
    .await;
    assert_eq!((outcome.text().as_str(), outcome.events.len()), ("Hello", 3));
}

#[tokio::test]
async fn nobody_listens() {
    let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let outcome = outcome(&client(&format!("http://{address}"))).await;
    let Error::Unreachable { message } = outcome.failure() else { panic!("{outcome:?}") };
    assert!(message.contains(&address.to_string()) && message.contains("is Ollama running"), "{message}");
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    let outcome = outcome(&client("http://no-such-host.invalid:1")).await;
    let Error::Unreachable { message } = outcome.failure() else { panic!("{outcome:?}") };
    // Where names are looked up slowly, the bound on connecting comes first.
    assert!(message.contains("no-such-host.invalid"), "{message}");
}

#[tokio::test]
async fn https_where_http_is_spoken() {
    let server = Server::start(Talk::close);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("https://{}", silent.local_addr().expect("an address"));
    for url in [server.url().replace("http", "https"), silent] {
        let config =
            Config { url, connect_timeout: Duration::from_millis(500), ca_file: Some(super::secure::certificate()), ..Config::default() };
        let outcome = outcome(&Ollama::new(config).expect("a client")).await;
        assert!(matches!(outcome.failure(), Error::Unreachable { message } if message.contains("127.0.0.1")), "{outcome:?}");
    }
}

#[tokio::test]
async fn silence_before_and_in_the_middle() {
    let server = Server::start(|talk| {
        talk.wait_for_close();
        talk.close();
    });
    let waiting = outcome(&hasty(&server.url())).await;
    assert!(matches!(waiting.failure(), Error::Stalled { stage: "waiting for the first token", .. }), "{waiting:?}");

    let server = Server::start(|talk| {
        talk.stream();
        talk.chunk(piece("a"));
        talk.wait_for_close();
        talk.close();
    });
    let ollama = Ollama::new(Config { url: server.url(), idle_timeout: Duration::from_secs(1), ..Config::default() }).expect("a client");
    let outcome = outcome(&ollama).await;
    assert!(matches!(outcome.failure(), Error::Stalled { stage: "generating", .. }), "{outcome:?}");
    assert_eq!(outcome.text(), "a");
}

#[tokio::test]
async fn a_slow_reader_is_not_a_silent_server() {
    use futures_util::StreamExt;
    let server = Server::start(|talk| {
        talk.stream();
        talk.chunk(piece("a"));
        talk.chunk(piece("b") + DONE);
        talk.end();
    });
    let ollama = Ollama::new(Config { url: server.url(), idle_timeout: Duration::from_secs(2), ..Config::default() }).expect("a client");
    let mut events = super::start(&ollama).await.expect("an answer");
    let first = events.next().await.expect("an event");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(first.is_ok() && super::collect(events).await.error.is_none());
}

#[tokio::test]
async fn slow_headers_and_single_bytes() {
    let outcome = against(|talk| {
        for byte in b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n" {
            talk.send([*byte]);
            std::thread::sleep(Duration::from_millis(1));
        }
        for byte in (piece("h\u{e4}llo \u{1f999}") + DONE).bytes() {
            talk.chunk([byte]);
        }
        talk.end();
    })
    .await;
    assert_eq!((outcome.text().as_str(), outcome.error.is_none()), ("h\u{e4}llo \u{1f999}", true));
}

#[tokio::test]
async fn closed_or_reset_before_the_answer() {
    for outcome in [against(Talk::close).await, against(Talk::reset).await] {
        assert!(
            matches!(outcome.failure(), Error::Failed { status: None, message } if message.contains("before it answered")),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn closed_or_reset_in_the_middle() {
    let middle = |end: fn(&mut Talk)| {
        against(move |talk| {
            talk.stream();
            talk.chunk(piece("a"));
            end(talk);
        })
    };
    let closed = middle(Talk::close).await;
    assert!(matches!(closed.failure(), Error::Failed { message, .. } if message.contains("in the middle")), "{closed:?}");
    assert_eq!(closed.text(), "a");
    let reset = middle(Talk::reset).await;
    assert!(matches!(reset.failure(), Error::Failed { .. }), "{reset:?}");
}

#[tokio::test]
async fn a_clean_end_without_the_final_object() {
    let outcome = against(|talk| {
        talk.stream();
        talk.chunk(piece("a"));
        talk.end();
    })
    .await;
    assert!(matches!(outcome.failure(), Error::Protocol { message } if message.contains("final object")), "{outcome:?}");
    assert_eq!(outcome.text(), "a");
    let empty = against(|talk| talk.json("")).await;
    assert!(matches!(empty.failure(), Error::Protocol { .. }), "{empty:?}");
}

#[tokio::test]
async fn an_end_without_its_line_feed() {
    let outcome = against(|talk| {
        talk.stream();
        talk.chunk(piece("a") + DONE.trim_end());
        talk.end();
    })
    .await;
    assert!(outcome.error.is_none(), "{outcome:?}");
    let load = against(|talk| talk.json("{\"model\":\"m\",\"response\":\"\",\"done\":true,\"done_reason\":\"load\"}")).await;
    assert_eq!((load.events.len(), load.error.is_none()), (1, true));
}

#[tokio::test]
async fn an_error_in_the_middle() {
    for (line, expected) in [
        (r#"{"error":"an error was encountered: unexpected EOF"}"#, "an error was encountered: unexpected EOF"),
        (r#"{"error":{"message":"out of memory","code":500}}"#, "out of memory"),
        (r#"{"error":"{\"error\":{\"message\":\"inner\"}}"}"#, "inner"),
        (r#"{"error":""}"#, "it does not say why"),
    ] {
        let outcome = against(move |talk| {
            talk.stream();
            talk.chunk(piece("a"));
            talk.chunk(format!("{line}\n{}", piece("b")));
            talk.end();
        })
        .await;
        assert!(matches!(outcome.failure(), Error::Failed { status: None, message } if message == expected), "{outcome:?}");
        assert_eq!(outcome.text(), "a");
    }
}

#[tokio::test]
async fn garbage() {
    let garbage: [&'static [u8]; 7] = [
        b"<html>\x1b[31mHello</html>\n",
        b"\xff\xfe\xfd\n",
        b"{\"response\":\"\xff\"}\n",
        b"{\"response\":\"cut\n",
        b"{\"response\":5}\n",
        b"[1]\n",
        b"{\"response\":\"a\",\"done\":\"yes\"}\n",
    ];
    for bytes in garbage {
        let outcome = against(move |talk| {
            talk.stream();
            talk.chunk(piece("a"));
            talk.chunk(bytes);
            talk.end();
        })
        .await;
        let Error::Protocol { message } = outcome.failure() else { panic!("{outcome:?}") };
        assert!(message.len() < 600 && !message.contains(char::is_control), "{message}");
        assert_eq!(outcome.text(), "a");
    }
}

#[tokio::test]
async fn a_line_of_eight_megabytes() {
    let answer = |bytes: usize| {
        move |talk: &mut Talk| {
            talk.stream();
            talk.chunk("{\"response\":\"");
            for _ in 0..bytes / 65536 {
                talk.chunk(vec![b'x'; 65536]);
            }
            talk.chunk("\"}\n");
            talk.chunk(DONE);
            talk.end();
        }
    };
    let outcome = against(answer(8 << 20)).await;
    assert!(matches!(outcome.failure(), Error::Protocol { message } if message.contains("8388608")), "{outcome:?}");
    let fits = against(answer(7 << 20)).await;
    assert_eq!((fits.text().len(), fits.error.is_none()), (7 << 20, true));
}

#[tokio::test]
async fn statuses() {
    const JSON: &[&str] = &["Content-Type: application/json"];
    let error = against_status("404 Not Found", JSON, r#"{"error":"model 'm' not found"}"#).await;
    assert!(matches!(&error, Error::ModelNotFound { model } if model == "m"), "{error:?}");
    let error = against_status("404 Not Found", &["Content-Type: text/plain"], "404 page not found").await;
    assert!(matches!(&error, Error::Failed { status: Some(404), message } if message.contains("Ollama server?")), "{error:?}");
    let error = against_status("400 Bad Request", JSON, r#"{"error":"\"m\" does not support thinking"}"#).await;
    assert!(matches!(&error, Error::Refused { status: 400, message } if message == "\"m\" does not support thinking"), "{error:?}");
    let error = against_status("400 Bad Request", &[], "Client sent an HTTP request to an HTTPS server.").await;
    assert!(matches!(&error, Error::Failed { status: Some(400), message } if message.contains("https")), "{error:?}");
    let oom = r#"{"error":"model requires more system memory (5.6 GiB) than is available (2.1 GiB)"}"#;
    let error = against_status("500 Internal Server Error", JSON, oom).await;
    assert!(matches!(&error, Error::Failed { status: Some(500), message } if message.contains("5.6 GiB")), "{error:?}");
    let error = against_status("502 Bad Gateway", &["Content-Type: text/html"], "<h1>Bad Gateway</h1>").await;
    assert!(matches!(&error, Error::Failed { status: Some(502), .. }), "{error:?}");
    let error = against_status("307 Temporary Redirect", &["Location: https://elsewhere/api/generate"], "").await;
    assert!(matches!(&error, Error::Failed { status: Some(307), message } if message.contains("elsewhere")), "{error:?}");
    let error = against_status("401 Unauthorized", &[], "").await;
    assert!(matches!(&error, Error::Failed { status: Some(401), message } if message.contains("credentials")), "{error:?}");
    let error = against_status("200 OK", &["Content-Type: text/html; charset=utf-8"], "<html></html>").await;
    assert!(matches!(&error, Error::Protocol { message } if message.contains("Ollama server?")), "{error:?}");
    let error = against_status("200 OK", &["Content-Type: application/json", "Content-Encoding: gzip"], "x").await;
    assert!(matches!(&error, Error::Protocol { message } if message.contains("gzip")), "{error:?}");
}

#[tokio::test]
async fn overload_says_when_to_come_back() {
    const BUSY: &str = r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#;
    let table: [(&'static str, &'static [&'static str], &'static str, Option<u64>); 7] = [
        ("503 Service Unavailable", &[], BUSY, None),
        ("503 Service Unavailable", &["Retry-After: 7"], BUSY, Some(7)),
        ("429 Too Many Requests", &["Retry-After: 3"], "slow down", Some(3)),
        ("429 Too Many Requests", &["Date: Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After: Sun, 06 Nov 1994 08:50:07 GMT"], BUSY, Some(30)),
        ("429 Too Many Requests", &["Retry-After: Sun, 06 Nov 1994 08:50:07 GMT"], BUSY, Some(0)),
        ("503 Service Unavailable", &["Retry-After: 99999999999"], BUSY, Some(3600)),
        ("503 Service Unavailable", &["Retry-After: soon"], BUSY, None),
    ];
    for (status, headers, body, seconds) in table {
        let error = against_status(status, headers, body).await;
        let Error::Overloaded { retry_after, .. } = error else { panic!("{error:?}") };
        assert_eq!(retry_after, seconds.map(Duration::from_secs), "{headers:?}");
    }
}

#[tokio::test]
async fn an_error_without_end_is_read_to_a_bound() {
    let outcome = against(|talk| {
        talk.head("500 Internal Server Error", &["Transfer-Encoding: chunked"]);
        for _ in 0..64 {
            talk.chunk(vec![b'x'; 65536]);
        }
        talk.wait_for_close();
        talk.close();
    })
    .await;
    assert!(matches!(outcome.failure(), Error::Failed { status: Some(500), message } if message.len() < 1000), "{outcome:?}");
}
