//! Questions that mean the same, and prompts that are kept warm.

use std::time::Duration;

use arriero::cache::semantic::Route;
use arriero::config::Config;
use arriero_bench::fake::FakeOllama;
use reqwest::Method;
use serde_json::{Value, json};

use crate::keys::{guarded, make};
use crate::support::{TestApp, asked, eventually, fake};

const MODEL: &str = "gemma3:270m";
/// The fake's vectors are sums over words: of this question in other words, they are as alike as most of its words are the same.
const ASKED: &str = "Please be so kind and tell me in a few plain words and without any long story what exactly it is that makes the \
                     sky over our heads look blue on a bright and sunny day in the middle of summer 2019";
const NEAR: &str = "Please be so kind and tell me in a few plain words and without any long story what exactly it is that makes the \
                    sky over our heads look blue on a bright and sunny day in the middle of summer 2020";
const AGAIN: &str = "Please be so kind and do tell me in a few plain words and without any long story what exactly it is that makes the \
                     sky over our heads look blue on a bright and sunny day in the middle of summer 2019";

fn request(prompt: &str) -> Value {
    json!({"model": MODEL, "prompt": prompt, "options": {"num_predict": 5}})
}

fn on(config: &mut Config) {
    config.cache.semantic.model = Some("minilm".into());
    config.cache.semantic.routes = vec![Route::Generate];
    config.cache.semantic.check_share = 0.0;
}

async fn ask(app: &TestApp, key: &str, body: Value) -> Value {
    let answer = app.post_as(key, body).await;
    assert_eq!(answer.status(), 200);
    answer.json().await.expect("JSON")
}

fn status(answer: &Value) -> &str {
    answer["arriero"]["cache"]["status"].as_str().unwrap_or("none")
}

fn embedded(fake: &FakeOllama) -> usize {
    fake.seen(|seen| seen.on("/api/embed").count())
}

#[tokio::test]
async fn a_question_that_means_the_same_is_answered_from_the_cache() {
    let fake = fake(|_| {}).await;
    let (app, first) = guarded(&fake, on).await;
    let (a, _) = make(&app, &first, json!({"name": "a"})).await;
    let (b, _) = make(&app, &first, json!({"name": "b"})).await;
    let original = ask(&app, &a, request(ASKED)).await;
    assert_ne!(status(&original), "semantic", "{original}");
    let again = ask(&app, &a, request(AGAIN)).await;
    assert_eq!((status(&again), &again["response"]), ("semantic", &original["response"]), "{again}");
    let similarity = again["arriero"]["cache"]["similarity"].as_f64().expect("a number");
    assert!((0.95..=1.0).contains(&similarity), "{again}");
    assert_eq!((asked(&fake), embedded(&fake)), (1, 2));

    assert_ne!(status(&ask(&app, &a, request(NEAR)).await), "semantic", "another year is another question");
    assert_ne!(status(&ask(&app, &b, request(AGAIN)).await), "semantic", "another tenant");
    let mut system = request(AGAIN);
    system["system"] = json!("Answer in French.");
    assert_ne!(status(&ask(&app, &a, system).await), "semantic", "another system prompt");
    let mut options = request(AGAIN);
    options["options"]["temperature"] = json!(0.1);
    assert_ne!(status(&ask(&app, &a, options).await), "semantic", "other options");
    let mut bypass = request(AGAIN);
    bypass["cache"] = json!("bypass");
    assert_eq!(status(&ask(&app, &a, bypass).await), "bypass");
    assert_eq!(asked(&fake), 6);
}

#[tokio::test]
async fn it_is_off_until_it_is_asked_for() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    for prompt in [ASKED, AGAIN] {
        assert_ne!(status(&app.ask(request(prompt)).await.1), "semantic");
    }
    assert_eq!((asked(&fake), embedded(&fake)), (2, 0));
}

#[tokio::test]
async fn without_a_vector_the_model_is_asked() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |config| {
        on(config);
        config.cache.semantic.model = Some("missing".into());
    })
    .await;
    for prompt in [ASKED, AGAIN] {
        assert_eq!(app.ask(request(prompt)).await.0, 200);
    }
    assert_eq!(asked(&fake), 2);
}

#[tokio::test]
async fn a_prompt_is_kept_warm_across_restarts() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let url = format!("{}/admin/cache/warm", app.url);
    let body = json!({"name": "support", "model": MODEL, "system": "You answer questions about mules.", "prompt": "Question:"});
    let put = async || app.client.post(&url).json(&body).send().await.expect("an answer").status().as_u16();
    assert_eq!((put().await, put().await), (201, 200));
    let sent = |fake: &FakeOllama| {
        let is_it = |body: &Value| {
            body["system"] == "You answer questions about mules." && body["prompt"] == "Question:" && body["options"]["num_predict"] == 1
        };
        fake.seen(|seen| seen.on("/api/generate").filter(|request| is_it(&request.json())).count())
    };
    eventually("that it is sent", async || sent(&fake) == 1).await;
    // The look after the next one: it stays warm by itself.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(sent(&fake), 1, "it is not sent again while it is warm");
    let data = app.end().await;
    let app = TestApp::on(data, &[&fake], |_| {}).await;
    eventually("that it is sent after the start", async || sent(&fake) == 2).await;
    let list: Value = app.get("/admin/cache/warm").await.json().await.expect("JSON");
    assert_eq!((&list["prompts"][0]["name"], list["prompts"].as_array().map(Vec::len)), (&json!("support"), Some(1)), "{list}");
    let cooled = app.client.request(Method::DELETE, format!("{}/admin/cache/warm/support", app.url)).send().await.expect("an answer");
    assert_eq!(cooled.status(), 204);
    let list: Value = app.get("/admin/cache/warm").await.json().await.expect("JSON");
    assert_eq!(list["prompts"], json!([]));
}
