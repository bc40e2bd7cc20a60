//! Files that clients send for their jobs to read.

use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, Method};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::*;

const ROWS: &str =
    "{\"prompt\": \"q\", \"completion\": \"a\"}\n{\"prompt\": \"r\", \"completion\": \"b\"}\n{\"prompt\": \"s\", \"completion\": \"c\"}\n";

async fn send(yard: &Yard, name: &str, body: impl Into<Body>) -> (u16, Value) {
    let response = yard.process.client.put(format!("{}/files/{name}", yard.process.url)).body(body).send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

/// A body that comes as it is sent, and ends when the sender is dropped.
fn slow() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let pieces = stream::unfold(receiver, |mut receiver| async move { Some((Ok::<_, std::io::Error>(receiver.recv().await?), receiver)) });
    (sender, Body::wrap_stream(pieces))
}

/// The files below the folder of jobs, as they lie there.
fn files(yard: &Yard) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                walk(&entry.path(), found);
            } else {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(&yard.data.path().join("jobs"), &mut found);
    found
}

#[tokio::test]
async fn a_file_is_sent_read_by_a_job_and_deleted() {
    let yard = Yard::new().await;
    let (status, file) = send(&yard, "rows.jsonl", ROWS).await;
    assert_eq!((status, &file["name"], &file["size_bytes"]), (201, &json!("rows.jsonl"), &json!(ROWS.len())), "{file}");
    let id = file["id"].as_str().expect("an id");
    assert_eq!(file["path"], format!("artifact:{id}/rows.jsonl"));
    assert_eq!(yard.artifact(id, "rows.jsonl").await, ROWS.as_bytes());
    let job = yard.job(id).await;
    assert_eq!((&job["kind"], &job["state"], &job["result"]["sha256"]), (&json!("upload"), &json!("succeeded"), &file["sha256"]));
    assert_eq!(yard.get("/jobs?kind=upload").await["jobs"][0]["id"], id);
    let told: Vec<String> = yard.events(id).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(told, ["state", "artifact", "state"]);

    // A job that waits for its turn still needs it.
    assert_eq!(yard.ask(Method::POST, "/jobs/pool", Some(json!({"order": "pause"}))).await.0, 200);
    let input = json!({"sources": [{"path": file["path"]}], "split": {"validation": 0, "test": 0}});
    let dataset = yard.submit(json!({"kind": "dataset", "input": input, "after": [id]})).await;
    let needs = yard.job(&dataset).await["needs"]["memory_bytes"].as_u64().expect("a number");
    assert!(needs < 200 << 20, "planned for a file of {} bytes: {needs}", ROWS.len());
    let (status, problem) = yard.ask(Method::DELETE, &format!("/files/{id}"), None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("file_in_use")), "{problem}");
    assert_eq!(yard.ask(Method::POST, "/jobs/pool", Some(json!({"order": "run"}))).await.0, 200);
    yard.until(&dataset, "succeeded").await;
    let rows = String::from_utf8(yard.artifact(&dataset, "train.jsonl").await).expect("text");
    assert_eq!(rows.lines().count(), 3, "{rows}");

    let (status, problem) = yard.ask(Method::POST, &format!("/jobs/{id}/retry"), None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("job_not_retryable")));
    let (status, problem) = yard.ask(Method::DELETE, &format!("/files/{dataset}"), None).await;
    assert_eq!((status, &problem["code"]), (404, &json!("job_not_found")), "what is no upload is not deleted");
    assert_eq!(yard.ask(Method::DELETE, &format!("/files/{id}"), None).await.0, 204);
    assert_eq!(yard.ask(Method::DELETE, &format!("/files/{id}"), None).await.0, 404);
    assert!(!files(&yard).contains(&"rows.jsonl".to_owned()), "{:?}", files(&yard));
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_and_leaves_nothing() {
    let yard = Yard::with(&[("ARRIERO_JOBS__MAX_UPLOAD_BYTES", "1000")]).await;
    for (name, refused) in [
        (".hidden", (422, "file_name_invalid")),
        ("r%20s.jsonl", (422, "file_name_invalid")),
        ("%C3%BC.jsonl", (422, "file_name_invalid")),
        (&"x".repeat(201), (422, "file_name_invalid")),
        ("a%2Fb", (400, "malformed_request")),
        ("..%2F..%2Fx", (400, "malformed_request")),
        ("", (404, "not_found")),
    ] {
        let (status, problem) = send(&yard, name, ROWS).await;
        assert_eq!((status, problem["code"].as_str().unwrap_or_default()), refused, "{name}: {problem}");
    }
    let (status, problem) = send(&yard, "large.bin", vec![0_u8; 1001]).await;
    assert_eq!((status, &problem["code"]), (413, &json!("body_too_large")), "{problem}");
    assert_eq!(yard.get("/jobs?kind=upload").await["jobs"], json!([]), "none of these was begun");

    // As large, but nobody says so before.
    let (sender, body) = slow();
    let sending = send(&yard, "large.bin", body);
    let feed = async {
        for _ in 0..3 {
            let _ = sender.send(Bytes::from(vec![0_u8; 400])).await;
        }
        drop(sender);
    };
    let ((status, problem), ()) = tokio::join!(sending, feed);
    assert_eq!((status, &problem["code"]), (413, &json!("body_too_large")), "{problem}");
    let job = &yard.get("/jobs?kind=upload").await["jobs"][0];
    assert_eq!((&job["state"], &job["error"]["kind"]), (&json!("failed"), &json!("upload")), "{job}");
    assert_eq!(files(&yard), [""; 0]);
    let (status, kept) = send(&yard, "small.bin", vec![0_u8; 1000]).await;
    assert_eq!(status, 201, "{kept}");
    let (status, empty) = send(&yard, "empty", "").await;
    assert_eq!((status, &empty["size_bytes"]), (201, &json!(0)));
}

#[tokio::test]
async fn a_file_that_no_disk_has_room_for_is_refused_before_it_is_sent() {
    let yard = Yard::with(&[("ARRIERO_JOBS__RESOURCES__DISK_RESERVE_BYTES", "9000000000000000000")]).await;
    let (status, problem) = send(&yard, "rows.jsonl", ROWS).await;
    assert_eq!((status, &problem["code"], &problem["resource"]), (507, &json!("job_too_large"), &json!("disk")), "{problem}");
}

#[tokio::test]
async fn one_that_breaks_off_or_is_cancelled_leaves_nothing() {
    let yard = Yard::new().await;
    let uploading = async |state: &str| {
        let holds =
            async || yard.get(&format!("/jobs?kind=upload&state={state}")).await["jobs"].as_array().is_some_and(|jobs| jobs.len() == 1);
        eventually(&format!("that the upload is {state}"), holds).await;
    };
    // The client hangs up.
    let address = yard.process.url.strip_prefix("http://").expect("plain");
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("connects");
    let head = format!("PUT /files/half.bin HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000\r\n\r\nonly half");
    socket.write_all(head.as_bytes()).await.expect("sent");
    uploading("running").await;
    drop(socket);
    uploading("failed").await;
    assert_eq!(files(&yard), [""; 0]);

    // Somebody cancels it.
    let (sender, body) = slow();
    let sending = send(&yard, "slow.bin", body);
    let feed = async {
        sender.send(Bytes::from_static(b"some")).await.expect("taken");
        uploading("running").await;
        let id = yard.get("/jobs?kind=upload&state=running").await["jobs"][0]["id"].as_str().expect("an id").to_owned();
        let (status, problem) = yard.ask(Method::DELETE, &format!("/files/{id}"), None).await;
        assert_eq!((status, &problem["code"]), (409, &json!("file_in_use")), "{problem}");
        assert_eq!(yard.ask(Method::DELETE, &format!("/jobs/{id}"), None).await.0, 200);
        // The end is not sent before it has been heard of.
        while sender.send(Bytes::from_static(b"more")).await.is_ok() {
            a_moment().await;
        }
    };
    let ((status, problem), ()) = tokio::join!(sending, feed);
    assert_eq!((status, &problem["code"]), (409, &json!("job_changed")), "{problem}");
    uploading("cancelled").await;
    assert_eq!(files(&yard), [""; 0]);
}

#[tokio::test]
async fn one_that_outlives_its_lease_arrives_and_one_whose_gateway_is_killed_does_not() {
    let mut yard = Yard::with(&[("ARRIERO_JOBS__RETENTION__SWEEP_INTERVAL", "100ms")]).await;
    let (sender, body) = slow();
    let sending = send(&yard, "long.bin", body);
    let feed = async {
        // The lease is of two seconds.
        for _ in 0..12 {
            sender.send(Bytes::from_static(b"0123456789")).await.expect("taken");
            a_moment().await;
        }
        drop(sender);
    };
    let ((status, file), ()) = tokio::join!(sending, feed);
    assert_eq!((status, &file["size_bytes"]), (201, &json!(120)), "{file}");

    let (sender, body) = slow();
    let request = yard.process.client.put(format!("{}/files/lost.bin", yard.process.url)).body(body).send();
    let sending = tokio::spawn(request);
    sender.send(Bytes::from_static(b"some")).await.expect("taken");
    eventually("that it lies there", async || files(&yard).contains(&"lost.bin".to_owned())).await;
    yard.kill_and_start_again().await;
    assert!(sending.await.expect("ended").is_err());
    eventually("that it is given up", async || {
        yard.get("/jobs?kind=upload&state=failed").await["jobs"][0]["error"]["kind"] == "worker_lost"
    })
    .await;
    eventually("that nothing of it lies there", async || files(&yard) == ["long.bin"]).await;
    let id = file["id"].as_str().expect("an id");
    assert_eq!(yard.artifact(id, "long.bin").await.len(), 120);
}
