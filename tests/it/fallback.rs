//! Names that stand for a chain of models: who answers when the first cannot, and what the client is told of it.

use std::time::Duration;

use arriero::config::Config;
use arriero::routing::fallback::Alias;
use arriero_bench::fake::{FakeOllama, Fault, Model, Plan, Text};
use serde_json::{Value, json};

use crate::keys::make;
use crate::support::{TestApp, asked, data, fake};

/// The chain `smart`: the model `big`, then, as the table says, `small`.
fn chain(second: &str) -> Vec<Alias> {
    let text = format!("name = \"smart\"\nsteps = [{{ model = \"big\" }}, {{ model = \"small\"{second} }}]");
    vec![toml::from_str(&text).expect("an alias")]
}

/// A server that has the first model only, and one that has the second.
async fn two() -> (FakeOllama, FakeOllama) {
    let only = async |name: &str| fake(|script| script.models = vec![Model::new(name)]).await;
    (only("big").await, only("small").await)
}

async fn app(big: &FakeOllama, small: &FakeOllama, second: &str, change: impl FnOnce(&mut Config)) -> TestApp {
    let alias = chain(second);
    TestApp::with(&[big, small], |config| {
        config.routing.alias = alias;
        config.ollama[0].slots = Some(1);
        change(config);
    })
    .await
}

fn request(model: &str) -> Value {
    json!({"model": model, "prompt": "Hello", "options": {"num_predict": 12}})
}

/// Asks for the chain, which must be served by its second step; says why.
async fn fell(app: &TestApp, body: Value) -> (Value, String) {
    let (code, answer) = app.ask(body).await;
    assert_eq!(code, 200, "{answer}");
    let about = &answer["arriero"];
    assert_eq!((&answer["model"], &about["model"]), (&json!("smart"), &json!("small")), "{answer}");
    assert_eq!((&about["fallback"]["asked"], &about["fallback"]["step"]), (&json!("smart"), &json!(2)), "{answer}");
    let why = about["fallback"]["why"].as_str().expect("a reason").to_owned();
    (answer, why)
}

#[tokio::test]
async fn the_first_step_serves_while_it_can() {
    let (big, small) = two().await;
    let app = app(&big, &small, "", |_| {}).await;
    let (code, answer) = app.ask(request("smart")).await;
    assert_eq!((code, &answer["arriero"]["model"], &answer["arriero"]["fallback"]["step"]), (200, &json!("big"), &json!(1)), "{answer}");
    let (_, plain) = app.ask(request("small")).await;
    assert!(plain["arriero"].get("fallback").is_none(), "{plain}");
}

#[tokio::test]
async fn a_failure_goes_on_to_the_next_step() {
    let (big, small) = two().await;
    let app = app(&big, &small, "", |_| {}).await;
    big.fail(Plan::always(Fault::status(500)));
    let (_, why) = fell(&app, request("smart")).await;
    assert!(why.contains("failed"), "{why}");
    let events = app.events(request("smart")).await;
    assert_eq!(data(&events[0])["model"], "small", "{events:?}");
    assert_eq!(data(events.last().expect("events"))["arriero"]["fallback"]["step"], 2);
    let (code, problem) = app
        .ask({
            let mut body = request("smart");
            body["fallback"] = json!(false);
            body
        })
        .await;
    assert_eq!((code, &problem["code"]), (502, &json!("failed")), "{problem}");
    assert_eq!(asked(&small), 2);
    let (code, _) = app.ask(request("big")).await;
    assert_eq!(code, 502, "a model that is no alias has no second step");
}

#[tokio::test]
async fn only_the_errors_that_are_named_go_on() {
    let (big, small) = two().await;
    let app = app(&big, &small, ", when = { errors = [\"overloaded\"] }", |_| {}).await;
    big.fail(Plan::always(Fault::status(500)));
    let (code, problem) = app.ask(request("smart")).await;
    assert_eq!((code, &problem["code"]), (502, &json!("failed")), "{problem}");
    big.fail(Plan::always(Fault::status(503).retry_after(30)));
    let (_, why) = fell(&app, request("smart")).await;
    assert!(why.contains("overloaded"), "{why}");
}

#[tokio::test]
async fn a_server_that_is_gone_goes_on_to_the_next_step() {
    let (big, small) = two().await;
    let app = app(&big, &small, ", when = { errors = [\"unreachable\"] }", |_| {}).await;
    big.kill().await;
    let (_, why) = fell(&app, request("smart")).await;
    assert!(why.contains("unreachable"), "{why}");
}

#[tokio::test]
async fn a_long_wait_goes_on_to_the_next_step() {
    let (big, small) = two().await;
    big.adjust(|script| (script.token_gap, script.text) = (Duration::from_millis(5), Text::Words(1_000_000)));
    let app = app(&big, &small, ", when = { queue_wait_over = \"150ms\" }", |_| {}).await;
    let mut occupant = app.listen(json!({"model": "big", "prompt": "x", "options": {"num_predict": 1_000_000}})).await;
    occupant.until("token", 1).await;
    let (_, why) = fell(&app, request("smart")).await;
    assert!(why.contains("wait for a slot"), "{why}");
    drop(occupant);
}

#[tokio::test]
async fn a_late_first_token_goes_on_to_the_next_step() {
    let (big, small) = two().await;
    let app = app(&big, &small, ", when = { ttft_over = \"300ms\" }", |_| {}).await;
    assert_eq!(app.ask(request("big")).await.0, 200, "it is loaded now");
    big.adjust(|script| script.prefill = Duration::from_mins(5));
    let (_, why) = fell(&app, request("smart")).await;
    assert!(why.contains("first token"), "{why}");
    big.wait_for(|seen| seen.in_flight == 0).await.expect("the first is not left running");
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_goes_on_to_the_next_step() {
    let (big, small) = two().await;
    small.adjust(|script| script.num_ctx = 16_384);
    let app = app(&big, &small, ", when = { errors = [\"context_too_long\"] }", |config| {
        config.model = vec![toml::from_str("name = \"small\"\nnum_ctx = 16384").expect("a policy")];
    })
    .await;
    let mut body = request("smart");
    body["prompt"] = json!("word ".repeat(6_000));
    let (answer, why) = fell(&app, body).await;
    assert!(why.contains("context_too_long"), "{why}");
    assert!(answer["arriero"].get("truncated").is_none(), "{answer}");
}

#[tokio::test]
async fn what_a_step_makes_simpler_is_told() {
    let (big, small) = two().await;
    let app = app(&big, &small, ", simplify = { num_predict = 5, trim_history = 50 }", |_| {}).await;
    big.fail(Plan::always(Fault::status(500)));
    let mut body = request("smart");
    body["prompt"] = json!(format!("{} the end", "word ".repeat(1_000)));
    body["system"] = json!("Stay.");
    let (answer, _) = fell(&app, body).await;
    assert_eq!(answer["eval_count"], 5);
    let changed: Vec<&str> = answer["arriero"]["changed"].as_array().expect("a list").iter().filter_map(|c| c["field"].as_str()).collect();
    assert!(changed.contains(&"options.num_predict") && changed.contains(&"prompt"), "{answer}");
    let sent = small.requests().into_iter().rfind(|request| request.path == "/api/generate").expect("asked").json();
    assert_eq!(sent["system"], "Stay.");
    let prompt = sent["prompt"].as_str().expect("text");
    assert!(prompt.ends_with("the end") && prompt.len() < 300, "{prompt}");
}

#[tokio::test]
async fn a_client_may_name_its_own_chain() {
    let (big, small) = two().await;
    let app = app(&big, &small, "", |_| {}).await;
    big.fail(Plan::always(Fault::status(500)));
    let mut body = request("big");
    body["fallback"] = json!(["missing", "small"]);
    let (code, answer) = app.ask(body).await;
    assert_eq!((code, &answer["arriero"]["model"], &answer["arriero"]["fallback"]["step"]), (200, &json!("small"), &json!(3)), "{answer}");
}

#[tokio::test]
async fn a_key_is_not_led_round_its_models() {
    let (big, small) = two().await;
    let app = app(&big, &small, "", |config| config.auth.required = arriero::auth::Required::Always).await;
    let first = app.app().summary().first_key.clone().expect("a first key");
    let first = first.reveal();
    big.fail(Plan::always(Fault::status(500)));
    let (other, _) = make(&app, first, json!({"name": "other", "models": ["other"]})).await;
    let (only_big, _) = make(&app, first, json!({"name": "big", "models": ["big"]})).await;
    let (smart, _) = make(&app, first, json!({"name": "smart", "models": ["smart"]})).await;
    let code = async |key: &str, body: Value| {
        let answer = app.post_as(key, body).await;
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON")["code"].as_str().unwrap_or_default().to_owned())
    };
    let forbidden = (403, "model_forbidden".to_owned());
    assert_eq!(code(&other, request("smart")).await, forbidden);
    assert_eq!(code(&other, request("big")).await, forbidden);
    let mut listed = request("big");
    listed["fallback"] = json!(["small"]);
    assert_eq!(code(&only_big, listed).await, (502, "failed".to_owned()), "the list does not lead to a model that is not its own");
    let list = async |secret: &str| -> Value {
        let response = app.client.get(format!("{}/models", app.url)).bearer_auth(secret).send().await.expect("an answer");
        response.json().await.expect("JSON")
    };
    let (of_big, of_smart) = (list(&only_big).await, list(&smart).await);
    let names = |list: &Value| list["models"].as_array().map(|all| all.iter().map(|model| model["name"].clone()).collect::<Vec<_>>());
    assert_eq!(
        (names(&of_big), of_big["aliases"].clone()),
        (Some(vec![json!("big:latest")]), json!([])),
        "what it may not use is not shown"
    );
    assert_eq!(names(&of_smart), Some(Vec::new()));
    assert_eq!(of_smart["aliases"][0]["name"], "smart:latest");
    assert_eq!(code(&only_big, request("smart")).await, (502, "failed".to_owned()), "nor does an alias that is not its own");
    assert_eq!(asked(&small), 0);
    assert_eq!(code(&smart, request("smart")).await.0, 200, "who may use an alias may use what stands behind it");
}
