//! Keys: who is let in where, by which channel, and what of a key is left behind where.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use arriero::api::listener::Identity;
use arriero::api::{AUTHORISATION, Needs};
use arriero::app::{self, App};
use arriero::auth::Required;
use arriero::config::Config;
use arriero::domain::clock::Clock;
use arriero::domain::principal::Role;
use arriero_bench::fake::FakeOllama;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{self, Process, refused};
use crate::support::{PATIENCE, TestApp, config, fake};

/// An app that requires keys, and the key of its first admin.
pub async fn guarded(fake: &FakeOllama, change: impl FnOnce(&mut Config)) -> (TestApp, String) {
    let app = TestApp::with(&[fake], |config| {
        config.auth.required = Required::Always;
        change(config);
    })
    .await;
    let first = app.app().summary().first_key.clone().expect("a first key");
    (app, first.reveal().to_owned())
}

/// Asks the admin API.
pub async fn admin(app: &TestApp, key: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/admin/{path}", app.url);
    let response = app.client.request(method, url).bearer_auth(key).json(&body).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

/// Makes a key; its secret and its id.
pub async fn make(app: &TestApp, key: &str, body: Value) -> (String, String) {
    let (status, made) = admin(app, key, Method::POST, "keys", body).await;
    assert_eq!(status, 201, "{made}");
    (made["secret"].as_str().expect("a secret").to_owned(), made["key"]["id"].as_str().expect("an id").to_owned())
}

async fn status_with(app: &TestApp, path: &str, key: &str) -> u16 {
    app.client.get(format!("{}{path}", app.url)).bearer_auth(key).send().await.expect("an answer").status().as_u16()
}

/// Who asks: what they present, by which address they stand for it, and as whom they are known.
struct Caller {
    name: &'static str,
    presents: Option<String>,
    known: Option<Role>,
}

const CALLERS: [&str; 10] =
    ["none", "wrong", "wrong secret", "malformed", "revoked", "expired", "user", "other user", "operator", "metrics"];

async fn callers(app: &TestApp, first: &str) -> Vec<Caller> {
    let mut callers = Vec::new();
    for name in CALLERS {
        let role = name.split(' ').next_back().unwrap_or_default();
        let body = |role: &str| json!({"name": name, "role": role});
        let (presents, known) = match name {
            "none" => (None, None),
            "wrong" => (Some(format!("ark_0123456789abcdef_{}", "A".repeat(43))), None),
            "wrong secret" => {
                let id = first.split('_').nth(1).expect("an id");
                (Some(format!("ark_{id}_{}", "A".repeat(43))), None)
            }
            "malformed" => (Some("hunter2".to_owned()), None),
            "revoked" => {
                let (secret, id) = make(app, first, body("admin")).await;
                admin(app, first, Method::DELETE, &format!("keys/{id}"), json!({})).await;
                (Some(secret), None)
            }
            "expired" => {
                let (secret, id) = make(app, first, body("admin")).await;
                admin(app, first, Method::PATCH, &format!("keys/{id}"), json!({"expires_at": "2020-01-01T00:00:00Z"})).await;
                (Some(secret), None)
            }
            _ => {
                let known = serde_json::from_value(json!(role)).expect("a role");
                (Some(make(app, first, body(role)).await.0), Some(known))
            }
        };
        callers.push(Caller { name, presents, known });
    }
    callers.push(Caller { name: "bootstrap", presents: Some(first.to_owned()), known: Some(Role::Admin) });
    callers
}

/// By which way a credential comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Channel {
    Bearer,
    ApiKey,
    Both,
    /// An address that stands for the caller, with nothing in the headers, or with a wrong key in them.
    Identity,
    IdentityAndWrongKey,
}

const CHANNELS: [Channel; 5] = [Channel::Bearer, Channel::ApiKey, Channel::Both, Channel::Identity, Channel::IdentityAndWrongKey];

async fn send(app: &TestApp, method: &str, path: &str, caller: &Caller, channel: Channel, identities: &[SocketAddr]) -> (u16, String) {
    let place = CALLERS.iter().position(|name| *name == caller.name).unwrap_or(CALLERS.len());
    let base = match channel {
        Channel::Identity | Channel::IdentityAndWrongKey => format!("http://{}", identities[place]),
        _ => app.url.clone(),
    };
    let method: Method = method.parse().expect("a method");
    let mut request = app.client.request(method, format!("{base}{path}"));
    let key = caller.presents.as_deref();
    match (channel, key) {
        (Channel::Bearer, Some(key)) => request = request.bearer_auth(key),
        (Channel::ApiKey, Some(key)) => request = request.header("x-api-key", key),
        (Channel::Both, Some(key)) => request = request.bearer_auth(key).header("x-api-key", key),
        (Channel::IdentityAndWrongKey, _) => request = request.bearer_auth("wrong").header("x-api-key", "other"),
        _ => {}
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    assert_eq!(response.headers().contains_key("www-authenticate"), status == 401);
    let problem: Value = serde_json::from_slice(&response.bytes().await.expect("a body")).unwrap_or_default();
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

/// R16: no route is open to whom it should not be, by no channel. The routes come from the table, which a test beside it compares
/// with the router.
#[tokio::test]
async fn every_route_lets_in_whom_it_should_by_every_channel() {
    let fake = fake(|_| {}).await;
    let (app, first) = guarded(&fake, |config| {
        let identity = |name: &str| Identity { listen: SocketAddr::from(([127, 0, 0, 1], 0)), key_name: name.to_owned() };
        config.server.identity = CALLERS.iter().copied().chain(["bootstrap"]).map(identity).collect();
    })
    .await;
    let callers = callers(&app, &first).await;
    let identities = app.app().identity_addresses().to_vec();
    let mut asked = 0;
    for rule in AUTHORISATION {
        let path = rule.path.replace("{id}", "0000000000000000").replace("{*file}", "swagger-ui.css");
        for caller in &callers {
            for channel in CHANNELS {
                let (status, code) = send(&app, rule.method, &path, caller, channel, &identities).await;
                let what = format!("{} {path} as {} by {channel:?}: {status} {code}", rule.method, caller.name);
                asked += 1;
                match (rule.needs, caller.known) {
                    (Needs::Nothing, _) => assert!(status < 400 || status == 503, "{what}"),
                    (_, None) if caller.presents.is_none() && !matches!(channel, Channel::Identity | Channel::IdentityAndWrongKey) => {
                        assert_eq!((status, code.as_str()), (401, "credentials_missing"), "{what}");
                    }
                    (_, None) => assert_eq!((status, code.as_str()), (401, "credentials_invalid"), "{what}"),
                    (needs, Some(role)) if needs.met_by(role) => {
                        assert!(![401, 403, 405].contains(&status) && code != "not_found", "{what}");
                    }
                    _ => assert_eq!((status, code.as_str()), (403, "forbidden"), "{what}"),
                }
            }
        }
    }
    assert_eq!(asked, AUTHORISATION.len() * callers.len() * CHANNELS.len());
}

#[tokio::test]
async fn two_different_keys_in_one_request_are_refused() {
    let fake = fake(|_| {}).await;
    let (app, first) = guarded(&fake, |_| {}).await;
    let (other, _) = make(&app, &first, json!({"name": "other"})).await;
    for rule in AUTHORISATION.iter().filter(|rule| rule.needs != Needs::Nothing) {
        let url = format!("{}{}", app.url, rule.path.replace("{id}", "0"));
        let request = app.client.request(rule.method.parse().expect("a method"), url);
        let response = request.bearer_auth(&first).header("x-api-key", &other).send().await.expect("an answer");
        assert_eq!(response.status(), 400, "{} {}", rule.method, rule.path);
    }
}

#[tokio::test]
async fn strangers_do_not_learn_what_there_is() {
    let fake = fake(|_| {}).await;
    let (app, first) = guarded(&fake, |_| {}).await;
    for path in ["/nothing", "/admin", "/admin/nothing", "/generate"] {
        assert_eq!(app.get(path).await.status(), 401, "{path}");
    }
    for rule in AUTHORISATION {
        let path = rule.path.replace("{id}", "0").replace("{*file}", "swagger-ui.css");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "ODD"] {
            let open = rule.needs == Needs::Nothing && ["GET", "HEAD"].contains(&method);
            let request = app.client.request(method.parse().expect("a method"), format!("{}{path}", app.url));
            let status = request.send().await.expect("an answer").status();
            assert_eq!(status == 401, !open, "{method} {path}: {status}");
        }
    }
    let (metrics, _) = make(&app, &first, json!({"name": "m", "role": "metrics"})).await;
    let (user, _) = make(&app, &first, json!({"name": "u"})).await;
    assert_eq!((status_with(&app, "/nothing", &metrics).await, status_with(&app, "/nothing", &user).await), (404, 404));
    assert_eq!((status_with(&app, "/generate", &metrics).await, status_with(&app, "/generate", &user).await), (403, 405));
    assert_eq!((status_with(&app, "/metrics", &metrics).await, status_with(&app, "/metrics", &user).await), (200, 403));
}

#[tokio::test]
async fn a_key_lives_from_its_making_to_its_revocation() {
    let fake = fake(|_| {}).await;
    let (app, first) = guarded(&fake, |_| {}).await;
    let body =
        json!({"name": "n", "models": ["gemma*"], "allowance": {"burst": 3}, "labels": {"a": "b"}, "expires_at": "2100-01-01T00:00:00Z"});
    let (secret, id) = make(&app, &first, body).await;
    assert_eq!(status_with(&app, "/models", &secret).await, 200);
    let path = format!("keys/{id}");

    let (status, shown) = admin(&app, &first, Method::GET, &path, json!({})).await;
    assert_eq!((status, &shown["state"], &shown["allowance"]), (200, &json!("active"), &json!({"burst": 3})));
    assert!(shown["last_used_at"].is_string() && !shown.to_string().contains("hash"), "{shown}");
    let (status, changed) = admin(&app, &first, Method::PATCH, &path, json!({"role": "metrics", "expires_at": "never"})).await;
    assert_eq!((status, &changed["role"], &changed["expires_at"], &changed["name"]), (200, &json!("metrics"), &Value::Null, &json!("n")));
    assert_eq!(status_with(&app, "/models", &secret).await, 403);

    let (status, rotated) = admin(&app, &first, Method::POST, &format!("{path}/rotate"), json!({"grace": "1h"})).await;
    assert_eq!(status, 200);
    let renewed = rotated["secret"].as_str().expect("a secret");
    assert_eq!((status_with(&app, "/metrics", &secret).await, status_with(&app, "/metrics", renewed).await), (200, 200));
    let (_, rotated) = admin(&app, &first, Method::POST, &format!("{path}/rotate"), json!({})).await;
    let newest = rotated["secret"].as_str().expect("a secret");
    assert_eq!((status_with(&app, "/metrics", renewed).await, status_with(&app, "/metrics", newest).await), (401, 200));

    assert_eq!(admin(&app, &first, Method::DELETE, &path, json!({})).await.1["state"], "revoked");
    assert_eq!(status_with(&app, "/metrics", newest).await, 401);
    assert_eq!(admin(&app, &first, Method::PATCH, &path, json!({"weight": 2})).await.1["code"], "key_revoked");
    let (_, list) = admin(&app, &first, Method::GET, "keys", json!({})).await;
    assert_eq!(list["keys"].as_array().expect("a list").len(), 2);
    let unknown = app.metric("arriero_authentications_total{outcome=\"unknown\"}").await;
    assert_eq!(unknown, None, "the metrics themselves need a key");
}

#[tokio::test]
async fn every_wrong_field_of_a_key_is_named() {
    let fake = fake(|_| {}).await;
    let (app, first) = guarded(&fake, |_| {}).await;
    let named = async |body: Value| {
        let (status, problem) = admin(&app, &first, Method::POST, "keys", body).await;
        assert_eq!(status, 422, "{problem}");
        let errors = problem["errors"].as_array().expect("a list").clone();
        errors.iter().filter_map(|error| error["field"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(named(json!({})).await, ["name"]);
    let wrong =
        json!({"name": 1, "role": "king", "models": "x", "weight": -1, "allowance": {"burst": "x", "brst": 1}, "expires_at": "soon"});
    assert_eq!(named(wrong).await, ["name", "role", "models", "weight", "allowance.burst", "allowance.brst", "expires_at"]);
    assert_eq!(named(json!({"name": "a", "wieght": 1})).await, ["wieght"]);
    assert_eq!(named(json!({"name": "", "tenant": "t", "weight": 0})).await, ["name", "weight"]);
    assert_eq!(admin(&app, &first, Method::POST, "keys", json!({"name": "bootstrap"})).await.0, 409);
    assert_eq!(admin(&app, &first, Method::GET, "keys/nothing", json!({})).await.1["code"], "key_not_found");
}

#[tokio::test]
async fn without_keys_a_text_that_means_nothing_is_passed_over_and_the_first_key_closes_the_door() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |config| config.auth.anonymous.role = Role::Admin).await;
    assert_eq!((app.get("/models").await.status().as_u16(), status_with(&app, "/models", "ollama").await), (200, 200));
    assert_eq!(status_with(&app, "/models", &format!("ark_0123456789abcdef_{}", "A".repeat(43))).await, 401);
    let made = app.client.post(format!("{}/admin/keys", app.url)).json(&json!({"name": "a"})).send().await.expect("an answer");
    assert_eq!(made.status(), 201);
    assert_eq!((app.get("/models").await.status().as_u16(), status_with(&app, "/models", "ollama").await), (401, 401));

    let app = TestApp::spawn(&fake).await;
    let made = app.client.post(format!("{}/admin/keys", app.url)).json(&json!({"name": "a"})).send().await.expect("an answer");
    assert_eq!(made.status(), 403, "whoever bears no key makes none");
}

/// The keys of a folder, made without a server.
async fn arriero(data: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.args(args).env_clear().env("ARRIERO_DATA_DIR", data).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("in time").expect("runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn an_address_others_can_reach_needs_a_key_that_can_be_made_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = fake(|_| {}).await;
    let public = ["--listen", "0.0.0.0:0", "--ollama", &fake.url()];
    let (code, said) = refused(folder.path(), &public).await;
    assert!(code == 9 && said.contains("arriero keys create --role admin"), "{said}");

    let (code, secret, told) = arriero(folder.path(), &["keys", "create", "--role", "admin"]).await;
    assert!(code == Some(0) && secret.starts_with("ark_") && secret.lines().count() == 1, "{secret} {told}");
    let process = Process::of(process::command(folder.path()).args(public)).await;
    let get = async |key: Option<&str>| {
        let request = process.client.get(format!("{}/models", process.url));
        let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!((get(None).await, get(Some(secret.trim())).await), (401, 200));
    drop(process);
    let (_, mut refusing) = (folder, config(&tempfile::tempdir().expect("a folder"), &[&fake]));
    refusing.server.identity = vec![Identity { listen: SocketAddr::from(([0, 0, 0, 0], 0)), key_name: "a".into() }];
    let place = tempfile::tempdir().expect("a folder");
    place.path().clone_into(&mut refusing.data_dir);
    let refused: Result<App, _> = app::start(refusing, Clock::system()).await;
    assert!(matches!(refused, Err(app::Error::PublicIdentity { .. })));
}

#[tokio::test]
async fn the_command_line_works_with_and_without_a_gateway() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let (_, secret, _) = arriero(data, &["keys", "create", "--role", "admin"]).await;
    let secret = secret.trim();
    let (code, _, told) = arriero(data, &["keys", "create", "--role", "admin"]).await;
    assert!(code == Some(1) && told.contains("exists already"), "{told}");
    let (_, list, _) = arriero(data, &["keys", "list", "--json"]).await;
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let id = list["keys"][0]["id"].as_str().expect("an id");
    assert!(arriero(data, &["keys", "show", id]).await.1.contains("admin"));
    assert_eq!(arriero(data, &["keys", "show", "nothing"]).await.0, Some(1));

    let fake = fake(|_| {}).await;
    let process = Process::start(data, &fake, &[]).await;
    let through = async |args: &[&str]| arriero(data, &[&["keys"], args, &["--url", &process.url, "--key", secret]].concat()).await;
    let (code, user, told) = through(&["create", "n", "--allow", "burst=3", "--label", "a=b", "--model", "gemma*"]).await;
    assert!(code == Some(0) && user.starts_with("ark_"), "{told}");
    let (_, list, _) = through(&["list"]).await;
    assert_eq!(list.lines().count(), 3, "{list}");
    let (code, renewed, _) = through(&["rotate", id, "--grace", "1m"]).await;
    assert!(code == Some(0) && renewed.starts_with("ark_") && renewed.trim() != secret);
    let (code, _, told) = arriero(data, &["keys", "list", "--url", &process.url]).await;
    assert!(code == Some(11) && told.contains("ARRIERO_KEY") || told.contains("API key"), "{told}");
    assert!(through(&["revoke", id]).await.1.contains("revoked"));
    assert_eq!(through(&["list"]).await.0, Some(11), "its own key was revoked");

    // Client commands bear the key of the variable.
    let mut models = Command::new(env!("CARGO_BIN_EXE_arriero"));
    models.args(["models", "--url", &process.url]).env_clear().env("ARRIERO_KEY", user.trim());
    assert!(models.output().await.expect("runs").status.success());
    models.env("ARRIERO_KEY", secret);
    assert_eq!(models.output().await.expect("runs").status.code(), Some(11));
}

#[tokio::test]
async fn the_first_start_prints_a_key_once_and_logs_it_never() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = fake(|_| {}).await;
    let log = folder.path().join("log");
    let start = async || {
        let mut command = process::command(folder.path());
        command.args(["--listen", "127.0.0.1:0", "--ollama", &fake.url()]);
        command.env("ARRIERO_AUTH__REQUIRED", "always").env("ARRIERO_LOG", "trace");
        command.stderr(std::fs::File::options().create(true).append(true).open(&log).expect("a file"));
        let mut process = Process::of(&mut command).await;
        let mut said = String::new();
        while let Some(line) = process.said.recv().await {
            said.push_str(&line);
            if line.starts_with("API page") {
                break;
            }
        }
        (process, said)
    };
    let (mut process, said) = start().await;
    let (_, secret) = said.split_once("ARRIERO_KEY=").expect("a key");
    let secret: String = secret.chars().take(64).collect();
    let response = process.client.get(format!("{}/models", process.url)).bearer_auth(&secret).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    process.signal("-TERM");
    process.ended().await;
    let (_second, said) = start().await;
    assert!(!said.contains("ARRIERO_KEY=ark"), "{said}");
    assert!(!std::fs::read_to_string(&log).expect("a log").contains(&secret[21..]), "the secret is logged");
}

/// R18: the secret of a key is nowhere but in the answer that makes it.
#[tokio::test]
async fn no_secret_is_left_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let fake = fake(|_| {}).await;
    let (_, secret, _) = arriero(data, &["keys", "create", "--role", "admin"]).await;
    let first = secret.trim();
    let log = data.join("log");
    let mut command = process::command(data);
    command.args(["--listen", "127.0.0.1:0", "--ollama", &fake.url()]).env("ARRIERO_LOG", "trace");
    command.stderr(std::fs::File::create(&log).expect("a file"));
    let mut process = Process::of(&mut command).await;
    let mut canaries: Vec<String> = vec![first[21..].to_owned()];
    let mut answers = String::new();
    let ask = async |method: Method, path: &str, key: &str, body: Value| {
        let request = process.client.request(method, format!("{}{path}", process.url)).bearer_auth(key).header("x-api-key", key);
        request.json(&body).send().await.expect("an answer").text().await.expect("text")
    };
    let made: Value = serde_json::from_str(&ask(Method::POST, "/admin/keys", first, json!({"name": "n"})).await).expect("JSON");
    let second = made["secret"].as_str().expect("a secret").to_owned();
    canaries.push(second[21..].to_owned());
    // Wrong ones are secrets too: of another place, or with a slip of the finger.
    for wrong in [format!("ark_0123456789abcdef_{}", "canary".repeat(7) + "A"), "sk-canary-of-elsewhere".to_owned()] {
        answers.push_str(&ask(Method::GET, "/models", &wrong, json!({})).await);
        canaries.push(wrong[21.min(wrong.len() / 2)..].to_owned());
    }
    for (method, path, key) in [
        (Method::GET, "/models", second.as_str()),
        (Method::GET, "/admin/keys", &second),
        (Method::GET, "/nothing", first),
        (Method::GET, "/admin/keys", first),
        (Method::POST, "/generate", first),
        (Method::GET, "/metrics", first),
    ] {
        answers.push_str(&ask(method, path, key, json!({"model": "gemma3:270m", "prompt": "x", "options": {"num_predict": 2}})).await);
    }
    assert!(answers.contains("arriero_authentications_total{outcome=\"unknown\"} 1"), "{answers}");
    process.signal("-TERM");
    process.ended().await;
    for canary in &canaries {
        assert!(!answers.contains(canary), "an answer holds {canary}");
        for file in files(data) {
            let bytes = std::fs::read(&file).expect("reads");
            assert!(!bytes.windows(canary.len()).any(|window| window == canary.as_bytes()), "{} holds {canary}", file.display());
        }
    }
    assert!(std::fs::read_to_string(&log).expect("a log").contains("/admin/keys"), "something was logged at all");
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_file()).collect()
}

/// R11, a few rounds of it: what was acknowledged before a kill is there after it.
#[tokio::test]
async fn no_acknowledged_key_is_lost_by_a_kill() {
    let folder: TempDir = tempfile::tempdir().expect("a folder");
    let fake = fake(|_| {}).await;
    let (_, first, _) = arriero(folder.path(), &["keys", "create", "--role", "admin"]).await;
    let mut acknowledged = vec![first.trim().to_owned()];
    for round in 0..4_u64 {
        let mut process = Process::start(folder.path(), &fake, &[]).await;
        for key in &acknowledged {
            let response = process.client.get(format!("{}/models", process.url)).bearer_auth(key).send().await.expect("an answer");
            assert_eq!(response.status(), 200, "round {round}");
        }
        let (client, url, first) = (process.client.clone(), process.url.clone(), acknowledged[0].clone());
        let (count, mut counted) = tokio::sync::watch::channel(0);
        let making = tokio::spawn(async move {
            let mut made = Vec::new();
            for n in 0.. {
                let request = client.post(format!("{url}/admin/keys")).bearer_auth(&first).json(&json!({"name": format!("{round}-{n}")}));
                let Ok(response) = request.send().await else { break };
                let Ok(answer) = response.json::<Value>().await else { break };
                made.push(answer["secret"].as_str().expect("a secret").to_owned());
                count.send_replace(made.len());
            }
            made
        });
        // Some have been acknowledged, and another is somewhere on its way.
        tokio::time::timeout(PATIENCE, counted.wait_for(|made| *made > 2)).await.expect("some are made").expect("and more");
        tokio::time::sleep(Duration::from_millis(3 * round)).await;
        process.signal("-KILL");
        process.ended().await;
        acknowledged.extend(making.await.expect("no panic"));
    }
    assert!(acknowledged.len() > 12, "three a round: {}", acknowledged.len());
    let process = Process::start(folder.path(), &fake, &[]).await;
    for key in &acknowledged {
        let response = process.client.get(format!("{}/models", process.url)).bearer_auth(key).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
    }
}
