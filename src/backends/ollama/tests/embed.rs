//! Embeddings: recorded answers, and answers that cannot be right.

use serde_json::{Value, json};

use super::client;
use super::metadata::fixture;
use super::server::Server;
use crate::backends::{Backend, Error};
use crate::domain::id::ModelName;

/// The recorded exchange: status line and body.
fn recorded(name: &str) -> (String, String) {
    let text = std::fs::read_to_string(fixture("ollama-transcripts/native-embed.jsonl")).expect("a fixture");
    let found = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("json")).find(|e| e["name"] == name).expect("recorded");
    let body = found["response"]["chunks"].as_array().expect("chunks").iter().map(|c| c.as_str().expect("text")).collect();
    (format!("{} Recorded", found["response"]["status"]), body)
}

async fn embed(answer: (String, String), texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    let expected = texts.clone();
    let server = Server::start(move |talk| {
        assert!(talk.received.head.starts_with("POST /api/embed "), "{}", talk.received.head);
        let body: Value = serde_json::from_slice(&talk.received.body).expect("json");
        assert_eq!(body, json!({"model": "minilm", "input": expected}));
        talk.answer(&answer.0, &[], &answer.1);
    });
    client(&server.url()).embed(&ModelName::parse("minilm").expect("a name"), texts).await
}

#[tokio::test]
async fn recorded_vectors_come_in_the_order_of_the_texts() {
    let vectors = embed(recorded("embed_list"), &["hello world", "goodbye", ""]).await.expect("vectors");
    assert_eq!(vectors.len(), 3);
    assert!(vectors.iter().all(|vector| vector.len() == 384));
    assert!((vectors[0][0] - -0.034_486_25).abs() < 1e-7 && vectors[0] != vectors[1]);
    assert!((vectors[1].iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4);
}

#[tokio::test]
async fn nothing_is_asked_for_no_texts() {
    let ollama = client("http://127.0.0.1:1");
    assert_eq!(ollama.embed(&ModelName::parse("m").expect("a name"), Vec::new()).await.expect("nothing"), Vec::<Vec<f32>>::new());
}

#[tokio::test]
async fn refusals_name_the_model() {
    let missing = embed(recorded("embed_unknown"), &["x"]).await.expect_err("missing");
    assert!(matches!(&missing, Error::ModelNotFound { model } if model == "minilm"), "{missing}");
    let generates = embed(recorded("embed_generation_model"), &["x"]).await.expect_err("generates");
    assert!(matches!(generates, Error::Unsupported { field: "model", .. }), "{generates}");
}

#[tokio::test]
async fn vectors_that_cannot_be_right_are_refused() {
    for vectors in [json!([]), json!([[]]), json!([[1.0], [2.0]]), json!([[1e39]])] {
        let body = json!({"embeddings": vectors}).to_string();
        let error = embed(("200 OK".to_owned(), body.clone()), &["x"]).await.expect_err(&body);
        assert!(matches!(error, Error::Protocol { .. }), "{body}: {error}");
    }
    let uneven = json!({"embeddings": [[1.0], [1.0, 2.0]]}).to_string();
    assert!(embed(("200 OK".to_owned(), uneven), &["x", "y"]).await.is_err());
}
