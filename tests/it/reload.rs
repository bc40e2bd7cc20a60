//! Another configuration for a running gateway: what holds at once, what is refused, and that nobody notices.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arriero::app;
use arriero::config::Config;
use arriero::domain::clock::Clock;
use arriero::domain::principal::Role;
use arriero_bench::fake::{FakeOllama, Model, Script};
use serde_json::{Value, json};

use crate::support::{TestApp, asked, config, fake, load};

/// A gateway, and the file it reads, so to speak.
struct Changeable {
    app: TestApp,
    next: Arc<Mutex<Result<Config, Vec<String>>>>,
}

impl Changeable {
    async fn new(fakes: &[&FakeOllama]) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let mut config = config(&data, fakes);
        config.auth.anonymous.role = Role::Admin;
        let next = Arc::new(Mutex::new(Ok(config.clone())));
        let read = Arc::clone(&next);
        let source: app::Source = Arc::new(move || read.lock().expect("no panic").clone());
        let app = app::start_from(config, source, Clock::system()).await.expect("starts");
        Self { app: TestApp::around(app, data), next }
    }

    fn write(&self, change: impl FnOnce(&mut Config)) {
        let mut next = self.next.lock().expect("no panic");
        change(next.as_mut().expect("a configuration"));
    }

    async fn reload(&self) -> (u16, Value) {
        let answer = self.app.client.post(format!("{}/admin/config/reload", self.app.url)).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// Changes, reloads, and tells what was changed.
    async fn change(&self, change: impl FnOnce(&mut Config)) -> Value {
        self.write(change);
        let (code, applied) = self.reload().await;
        assert_eq!(code, 200, "{applied}");
        applied
    }
}

fn request(model: &str, prompt: &str) -> Value {
    json!({"model": model, "prompt": prompt, "options": {"num_predict": 8}})
}

#[tokio::test]
async fn limits_queue_and_names_change_at_once() {
    let fake = fake(|script| script.models = vec![Model::new("a"), Model::new("b")]).await;
    let gateway = Changeable::new(&[&fake]).await;
    let app = &gateway.app;
    assert_eq!(app.ask(request("a", "1")).await.0, 200);
    assert_eq!(app.ask(request("smart", "1")).await.0, 404);
    let applied = gateway
        .change(|config| {
            config.routing.alias = vec![toml::from_str("name = \"smart\"\nsteps = [{ model = \"b\" }]").expect("an alias")];
        })
        .await;
    assert_eq!((&applied["changed"], &applied["needs_restart"]), (&json!(["routing"]), &json!([])), "{applied}");
    assert_eq!(app.ask(request("smart", "2")).await.1["arriero"]["model"], "b");

    let applied = gateway.change(|config| config.limits.anonymous.max_num_predict = Some(3)).await;
    assert_eq!(applied["changed"], json!(["limits"]), "{applied}");
    let (code, problem) = app.ask(request("a", "3")).await;
    assert!(code >= 400 && problem["code"] == "above_maximum", "{code} {problem}");
    gateway.change(|config| config.limits.anonymous.max_num_predict = None).await;
    assert_eq!(app.ask(request("a", "4")).await.0, 200);

    gateway.change(|config| (config.queue.max_waiting, config.queue.displace_waiting) = (0, false)).await;
    fake.adjust(|script| script.prefill = Duration::from_millis(400));
    gateway.change(|config| config.model = vec![toml::from_str("name = \"*\"\nslots = 1").expect("a policy")]).await;
    let running: Vec<_> = (0..4).map(|n| app.start(&request("a", &format!("5.{n}")))).collect();
    let mut refused = 0;
    for answer in running {
        let answer = answer.await.expect("no panic");
        refused += u32::from(answer.status() == 503 && answer.json::<Value>().await.expect("JSON")["code"] == "queue_full");
    }
    assert!(refused >= 2, "{refused} of 4 were refused");
}

#[tokio::test]
async fn servers_come_and_go_and_nobody_is_dropped() {
    let script = |script: &mut arriero_bench::fake::Script| script.token_gap = Duration::from_millis(10);
    let (first, second) = (fake(script).await, fake(script).await);
    let gateway = Changeable::new(&[&first]).await;
    gateway.change(|config| config.ollama[0].slots = Some(2)).await;
    let app = &gateway.app;
    let ask = |n: usize| app.start(&request("gemma3:270m", &format!("{n}")));
    // Loading it takes no time, but a gateway that does not know that prefers where the model is.
    load(&second, "gemma3:270m").await;
    let mut running: Vec<_> = (0..10).map(ask).collect();
    first.wait_for(|seen| seen.generating > 0).await.expect("they run");

    let mut added = gateway.next.lock().expect("no panic").clone().expect("a configuration").ollama[0].clone();
    added.url = second.url();
    let applied = gateway.change(|config| config.ollama.push(added)).await;
    assert_eq!(applied["backends_added"], json!([second.address().to_string()]), "{applied}");
    let mut number = 10..;
    while asked(&second) <= 1 {
        assert!(running.len() < 1_000, "the new one is never asked");
        running.extend(number.by_ref().take(4).map(ask));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let applied = gateway.change(|config| drop(config.ollama.remove(0))).await;
    assert_eq!(applied["backends_removed"], json!([first.address().to_string()]), "{applied}");
    running.extend(number.by_ref().take(10).map(ask));
    for answer in running {
        let answer = answer.await.expect("no panic");
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    }
    let before = asked(&first);
    for answer in number.by_ref().take(10).map(ask).collect::<Vec<_>>() {
        assert_eq!(answer.await.expect("no panic").status(), 200);
    }
    assert_eq!(asked(&first), before, "the one that went is not asked");
    let report: Value = app.get("/admin/backends").await.json().await.expect("JSON");
    assert_eq!(report["backends"].as_array().map(Vec::len), Some(1), "{report}");
}

#[tokio::test]
async fn what_is_wrong_is_refused_whole() {
    let (first, second) = (fake(|_| {}).await, fake(|_| {}).await);
    let gateway = Changeable::new(&[&first]).await;
    let app = &gateway.app;
    let good = gateway.next.lock().expect("no panic").clone();
    *gateway.next.lock().expect("no panic") = Err(vec!["queue.max_waiting: is no number".into(), "limits.burst: is unknown".into()]);
    let (code, problem) = gateway.reload().await;
    assert_eq!((code, &problem["code"]), (422, &json!("invalid_configuration")), "{problem}");
    assert_eq!(problem["problems"], json!(["queue.max_waiting: is no number", "limits.burst: is unknown"]));

    // Everything in it is right but one thing, which only shows when it is put together.
    *gateway.next.lock().expect("no panic") = good.clone();
    let mut added = good.expect("a configuration").ollama[0].clone();
    added.url = second.url();
    gateway.write(|config| {
        config.ollama.push(added);
        config.limits.anonymous.max_num_predict = Some(1);
        config.routing.alias = vec![toml::from_str("name = \"smart\"\nsteps = []").expect("an alias")];
    });
    let (code, problem) = gateway.reload().await;
    assert_eq!((code, &problem["code"]), (422, &json!("invalid_configuration")), "{problem}");
    assert!(problem["detail"].as_str().expect("text").contains("smart"), "{problem}");
    let report: Value = app.get("/admin/backends").await.json().await.expect("JSON");
    assert_eq!(report["backends"].as_array().map(Vec::len), Some(1), "no server was added: {report}");
    for n in 0..6 {
        assert_eq!(app.ask(request("gemma3:270m", &format!("{n}"))).await.0, 200, "no limit was lowered");
    }
    assert_eq!(asked(&second), 0);
}

#[tokio::test]
async fn what_needs_a_new_start_is_told() {
    let fake = fake(|_| {}).await;
    let gateway = Changeable::new(&[&fake]).await;
    let applied = gateway
        .change(|config| {
            config.server.max_connections += 1;
            config.cache.exact.enabled = false;
            config.queue.patience = Duration::from_secs(7);
        })
        .await;
    assert_eq!((&applied["changed"], &applied["needs_restart"]), (&json!(["queue"]), &json!(["cache", "server"])), "{applied}");
    let applied = gateway.change(|_| {}).await;
    assert_eq!(applied["changed"], json!([]), "{applied}");
}

#[tokio::test]
async fn what_waits_for_a_backend_that_is_replaced_is_served_by_the_other() {
    let slow = |script: &mut Script| (script.slots, script.prefill) = (1, Duration::from_millis(1_500));
    let (old, new) = (fake(slow).await, fake(|_| {}).await);
    let gateway = Changeable::new(&[&old]).await;
    let app = &gateway.app;
    gateway.change(|config| config.model = vec![toml::from_str("name = \"*\"\nslots = 1").expect("a policy")]).await;
    let running: Vec<_> = (0..4).map(|n| app.start(&request("gemma3:270m", &format!("{n}")))).collect();
    app.until_waiting(3).await;
    let url = new.url();
    gateway.change(|config| (config.ollama[0].url, config.ollama[0].name) = (url, Some("other".to_owned()))).await;
    for answer in running {
        let answer = answer.await.expect("no panic");
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    }
    // The queue hears of it a moment later.
    assert!(asked(&old) + asked(&new) == 4 && asked(&new) >= 2, "{} {}", asked(&old), asked(&new));
    let (_, again) = gateway.reload().await;
    assert_eq!((&again["changed"], &again["needs_restart"]), (&json!([]), &json!([])), "{again}");
    let most = gateway.change(|config| config.server.max_connections += 1).await;
    assert_eq!(most["needs_restart"], json!(["server"]), "{most}");
    let still = gateway.reload().await.1;
    assert_eq!(still["needs_restart"], json!(["server"]), "it has not been started anew: {still}");
    let back = gateway.change(|config| config.server.max_connections -= 1).await;
    assert_eq!(back["needs_restart"], json!([]), "nothing is pending: {back}");
}
