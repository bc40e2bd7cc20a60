//! Publishing to servers that behave, and to servers that do not.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use arriero::backends::ollama::shelf::{Message, Patience, Role};
use arriero::backends::ollama::{self, Ollama};
use arriero::domain::digest::Digest;
use arriero::domain::id::ModelName;
use arriero::jobs::publish::{self, Action, Artifact, Config, Error, Kept, Manifest, Outcome, Publication, Step};
use arriero_bench::fake::{FakeOllama, Fault, Midway, On, Plan, Script, When};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, TestApp, fake};

const FILE_BYTES: usize = 3 << 20;

/// A file that the fake takes for a model.
fn artifact(folder: &Path, name: &str, head: &[u8]) -> Artifact {
    let mut bytes = head.to_vec();
    bytes.resize(FILE_BYTES, 7);
    let path = folder.join(name);
    std::fs::write(&path, &bytes).expect("written");
    Artifact { path, digest: Digest::new(Sha256::digest(&bytes).into()) }
}

struct Bench {
    fake: FakeOllama,
    server: Ollama,
    folder: TempDir,
    publication: Publication,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Script)) -> Self {
        let fake = fake(change).await;
        let folder = tempfile::tempdir().expect("a folder");
        let model = artifact(folder.path(), "model.gguf", b"GGUF one");
        let mut manifest = Manifest::new(ModelName::parse("me/new:1b").expect("a name"));
        manifest.system = Some("You are kind.".to_owned());
        manifest.parameters = json!({"temperature": 0.5, "stop": ["User:", "<end>"]}).as_object().cloned().expect("a map");
        manifest.license = vec!["One".to_owned(), "Two".to_owned()];
        manifest.messages = vec![Message { role: Role::User, content: "hi".to_owned() }];
        let server = server(&fake);
        Self { fake, server, folder, publication: Publication { model, adapter: None, manifest } }
    }

    async fn publish(&self) -> Result<Outcome, Error> {
        self.publish_with(&config(), &CancellationToken::new()).await
    }

    async fn publish_with(&self, config: &Config, cancel: &CancellationToken) -> Result<Outcome, Error> {
        let publishing = publish::publish(std::slice::from_ref(&self.server), &self.publication, config, &|_| {}, cancel);
        let all = tokio::time::timeout(PATIENCE, publishing).await.expect("comes to an end").expect("a manifest");
        all.into_iter().next().expect("one server").outcome
    }

    fn posts_of_files(&self) -> usize {
        self.fake.seen(|seen| seen.requests.iter().filter(|r| r.method == "POST" && r.path.starts_with("/api/blobs/")).count())
    }

    /// What the list has beside the models it began with.
    fn new_models(&self) -> Vec<String> {
        let known: Vec<String> = Script::default().models.into_iter().map(|model| model.name).collect();
        self.fake.models().into_iter().filter(|name| !known.contains(name)).collect()
    }
}

fn server(fake: &FakeOllama) -> Ollama {
    Ollama::new(ollama::Config { url: fake.url(), ..ollama::Config::default() }).expect("a client")
}

fn config() -> Config {
    Config::default()
}

/// For tests in which a wait is to end.
fn hasty() -> Config {
    let soon = Duration::from_millis(400);
    Config { patience: Patience { answer: soon, upload_stall: soon, upload_end: soon, build_silence: soon }, ..config() }
}

#[tokio::test]
async fn a_model_is_sent_built_tried_and_named_and_repeating_it_changes_nothing() {
    let bench = Bench::new().await;
    let told = Mutex::new(Vec::new());
    let hear = |news: publish::Progress<'_>| told.lock().expect("unpoisoned").push((news.step, news.bytes, news.words.map(str::to_owned)));
    let cancel = CancellationToken::new();
    let all =
        publish::publish(std::slice::from_ref(&bench.server), &bench.publication, &config(), &hear, &cancel).await.expect("a manifest");
    let outcome = all[0].outcome.as_ref().expect("published");
    assert_eq!((outcome.action, outcome.kept, outcome.uploaded_bytes), (Action::Created, Kept::AsSent, FILE_BYTES as u64));
    assert_eq!((outcome.version.as_str(), &outcome.remarks[..]), ("0.33.0", &[][..]));
    assert!(!outcome.says.as_deref().unwrap_or_default().is_empty());
    let told = told.into_inner().expect("unpoisoned");
    assert!(told.contains(&(Step::Uploading, Some((FILE_BYTES as u64, FILE_BYTES as u64)), None)));
    assert!(told.contains(&(Step::Building, None, Some("success".to_owned()))));

    assert_eq!(bench.new_models(), ["me/new:1b"]);
    let model = bench.fake.model("me/new:1b").expect("there");
    assert_eq!((model.blob.as_str(), model.system.as_deref()), (bench.publication.model.digest.hex().as_str(), Some("You are kind.")));
    assert_eq!((model.license.as_deref(), model.messages.len()), (Some("One\nTwo"), 1));
    let again = bench.publish().await.expect("published");
    assert_eq!((again.action, again.uploaded_bytes, again.says), (Action::Unchanged, 0, None));
    assert_eq!((bench.posts_of_files(), bench.new_models().len()), (1, 1));
}

#[tokio::test]
async fn what_is_not_given_is_not_sent_and_a_file_that_is_there_is_not_sent_again() {
    let mut bench = Bench::new().await;
    bench.publish().await.expect("published");
    bench.publication.manifest = Manifest::new(ModelName::parse("bare").expect("a name"));
    // The server has it: where it lay does not matter any more.
    std::fs::remove_file(&bench.publication.model.path).expect("removed");
    let outcome = bench.publish().await.expect("published");
    assert_eq!((outcome.action, outcome.uploaded_bytes), (Action::Created, 0));
    let body = bench.fake.seen(|seen| seen.on("/api/create").last().expect("one").json());
    let fields: Vec<&String> = body.as_object().expect("a map").keys().collect();
    assert_eq!(fields, ["model", "files"]);
}

#[tokio::test]
async fn the_earlier_model_gives_way_whole_or_stays() {
    let mut bench = Bench::new().await;
    bench.publish().await.expect("published");
    let before = bench.fake.model("me/new:1b").expect("there").digest;
    bench.publication.model = artifact(bench.folder.path(), "second.gguf", b"GGUF two");
    let full = || Fault::Status { code: 500, message: "write: no space left on device".into(), retry_after_s: None };
    for (path, when, fault) in [
        ("/api/show", When::Nth(0), Fault::status(500)),
        ("/api/create", When::Always, Fault::LineOfError(2, "write /models/blobs/x: no space left on device".into())),
        ("/api/create", When::Always, Fault::After(2, Midway::Reset)),
        ("/api/create", When::Always, Fault::After(1, Midway::EndWithoutDone)),
        ("/api/create", When::Always, Fault::After(1, Midway::Garbage)),
        ("/api/create", When::Always, full()),
        ("/api/generate", When::Always, Fault::After(2, Midway::RunnerDeath)),
        ("/api/generate", When::Always, Fault::status(500)),
        ("/api/show", When::Nth(1), Fault::CloseBeforeHeaders),
        // The first copy sets the earlier model aside, the second one gives the name.
        ("/api/copy", When::Nth(0), full()),
        ("/api/copy", When::Nth(1), full()),
        ("/api/copy", When::Nth(1), Fault::HalfCopy),
        ("/api/copy", When::Nth(1), Fault::ResetBeforeHeaders),
    ] {
        bench.fake.fail(Plan::none().rule(On::Path(path.into()), when, fault.clone()));
        let error = bench.publish().await.expect_err("fails");
        let what = format!("{path} {when:?} {fault:?}: {error}");
        assert_eq!(bench.new_models(), ["me/new:1b"], "{what}");
        assert_eq!(bench.fake.model("me/new:1b").expect("there").digest, before, "{what}");
        if what.contains("no space left") {
            assert!(error.to_string().contains("free some space"), "{error}");
        }
    }
    bench.fake.fail(Plan::none());
    assert_eq!(bench.publish().await.expect("published").action, Action::Replaced);
    assert_ne!(bench.fake.model("me/new:1b").expect("there").digest, before);
    assert_eq!(bench.new_models(), ["me/new:1b"]);
}

#[tokio::test]
async fn a_name_that_could_not_be_given_back_is_kept_and_given_back_next_time() {
    let mut bench = Bench::new().await;
    bench.publish().await.expect("published");
    let before = bench.fake.model("me/new:1b").expect("there").digest;
    bench.publication.model = artifact(bench.folder.path(), "second.gguf", b"GGUF two");
    let copies = On::Path("/api/copy".into());
    bench.fake.fail(Plan::none().rule(copies.clone(), When::Nth(1), Fault::HalfCopy).rule(copies, When::Nth(2), Fault::status(500)));
    let error = bench.publish().await.expect_err("fails");
    let Error::NotRestored { kept, .. } = &error else { panic!("{error}") };
    assert!(error.to_string().contains("ollama cp"), "{error}");
    assert_eq!(bench.fake.model(kept.as_str()).expect("kept").digest, before);
    assert!(bench.fake.model("me/new:1b").is_none());
    // The next one fails too, but gives the name back first.
    bench.fake.fail(Plan::none().rule(On::Path("/api/create".into()), When::Always, Fault::status(500)));
    bench.publish().await.expect_err("fails");
    assert_eq!(bench.fake.model("me/new:1b").expect("back").digest, before);
    assert_eq!(bench.new_models(), ["me/new:1b"]);
}

#[tokio::test]
async fn answers_that_are_lost_are_no_failures_where_the_work_was_done() {
    let bench = Bench::new().await;
    let path = format!("/api/blobs/{}", bench.publication.model.digest);
    let plan = Plan::none().rule(On::Path("/api/copy".into()), When::Nth(0), Fault::DoneThenReset);
    // The first request to the file asks whether it is there.
    bench.fake.fail(plan.rule(On::Path(path), When::Nth(1), Fault::DoneThenReset));
    assert_eq!(bench.publish().await.expect("published").action, Action::Created);
    assert_eq!(bench.new_models(), ["me/new:1b"]);
}

#[tokio::test]
async fn uploads_that_break_say_so_and_the_next_one_succeeds() {
    let bench = Bench::new().await;
    let path = On::Path(format!("/api/blobs/{}", bench.publication.model.digest));
    for fault in [Fault::ResetInBody(1 << 20), Fault::StallInBody(1 << 20), Fault::Hang, Fault::status(503)] {
        bench.fake.fail(Plan::none().rule(path.clone(), When::Nth(1), fault.clone()));
        let error = bench.publish_with(&hasty(), &CancellationToken::new()).await.expect_err("fails");
        assert!(error.to_string().contains("while sending the file"), "{fault:?}: {error}");
        assert!(bench.new_models().is_empty());
    }
    bench.fake.fail(Plan::none());
    bench.publish().await.expect("published");
}

#[tokio::test]
async fn a_file_that_changed_is_not_published() {
    let bench = Bench::new().await;
    std::fs::write(&bench.publication.model.path, b"GGUF something else").expect("written");
    let error = bench.publish().await.expect_err("fails");
    assert!(matches!(error, Error::Digest { .. }), "{error}");
    std::fs::remove_file(&bench.publication.model.path).expect("removed");
    assert!(matches!(bench.publish().await.expect_err("fails"), Error::File { .. }));
    assert!(bench.new_models().is_empty());
}

#[tokio::test]
async fn a_file_that_the_server_lost_in_between_is_sent_once_more() {
    let bench = Bench::with(|script| script.build_gap = Duration::from_millis(50)).await;
    let gone = Fault::LineOfError(1, "open /models/blobs/sha256-x: no such file or directory".into());
    bench.fake.fail(Plan::none().rule(On::Path("/api/create".into()), When::Nth(0), gone));
    let outcome = {
        let publishing = bench.publish();
        tokio::pin!(publishing);
        let restart = async {
            bench.fake.wait_for(|seen| seen.on("/api/create").next().is_some()).await.expect("begins to build");
            bench.fake.prune();
            std::future::pending::<()>().await;
        };
        tokio::select! { outcome = &mut publishing => outcome, () = restart => unreachable!("it waits for ever") }
    };
    assert_eq!(outcome.expect("published").uploaded_bytes, 2 * FILE_BYTES as u64);
    assert_eq!(bench.posts_of_files(), 2);
}

#[tokio::test]
async fn what_is_no_model_is_refused_with_advice() {
    let mut bench = Bench::new().await;
    bench.publication.model = artifact(bench.folder.path(), "x.gguf", b"something");
    let error = bench.publish().await.expect_err("fails");
    assert!(error.to_string().contains("not in GGUF format; the server cannot read the file: convert it again"), "{error}");
    assert!(bench.new_models().is_empty());
}

#[tokio::test]
async fn adapters_are_published_where_the_server_still_takes_them() {
    let mut bench = Bench::new().await;
    bench.publication.adapter = Some(artifact(bench.folder.path(), "adapter.gguf", b"GGUF adapter"));
    let outcome = bench.publish().await.expect("published");
    assert_eq!(outcome.uploaded_bytes, 2 * FILE_BYTES as u64);
    let adapters = bench.fake.model("me/new:1b").expect("there").adapters;
    assert_eq!(adapters, [bench.publication.adapter.as_ref().expect("one").digest.hex()]);
    assert_eq!(bench.publish().await.expect("again").action, Action::Unchanged);

    let newer = Bench::with(|script| script.version = "0.34.1".into()).await;
    let publication = Publication { adapter: bench.publication.adapter.clone(), ..newer.publication.clone() };
    let newer = Bench { publication, ..newer };
    let error = newer.publish().await.expect_err("refused");
    assert!(error.to_string().contains("merge the adapter into the model"), "{error}");
    assert_eq!(error.retry(), arriero::domain::blame::Retry::Never);
    assert!(newer.new_models().is_empty());
}

#[tokio::test]
async fn a_file_that_the_server_rewrites_is_told_and_still_repeatable() {
    let bench = Bench::with(|script| script.rewrites = true).await;
    let outcome = bench.publish().await.expect("published");
    assert!(matches!(outcome.kept, Kept::Rewritten(_)) && outcome.remarks.len() == 1, "{outcome:?}");
    assert_eq!(bench.publish().await.expect("again").action, Action::Unchanged);
    assert_eq!(bench.new_models(), ["me/new:1b"]);
}

#[tokio::test]
async fn a_model_that_only_embeds_is_tried_with_a_text() {
    let mut bench = Bench::new().await;
    bench.publication.model = artifact(bench.folder.path(), "e.gguf", b"GGUF bert");
    let outcome = bench.publish().await.expect("published");
    assert_eq!(outcome.says.as_deref(), Some("a vector of 384 numbers"));
}

#[tokio::test]
async fn a_cancelled_publication_leaves_nothing() {
    let bench = Bench::new().await;
    let blob = format!("/api/blobs/{}", bench.publication.model.digest);
    for (path, when, fault) in [
        (blob.as_str(), When::Nth(1), Fault::StallInBody(1 << 20)),
        ("/api/create", When::Always, Fault::After(1, Midway::Stall)),
        ("/api/generate", When::Always, Fault::After(1, Midway::Stall)),
    ] {
        bench.fake.fail(Plan::none().rule(On::Path(path.into()), when, fault.clone()));
        let cancel = CancellationToken::new();
        let publishing = async { bench.publish_with(&config(), &cancel).await };
        let stop = async {
            let reached = |seen: &arriero_bench::fake::Seen| seen.on(path).last().is_some_and(|r| r.fault.as_ref() == Some(&fault));
            bench.fake.wait_for(reached).await.expect("gets there");
            cancel.cancel();
        };
        let (outcome, ()) = tokio::join!(publishing, stop);
        assert!(matches!(outcome, Err(Error::Cancelled { .. })), "{path}: {outcome:?}");
        assert!(bench.new_models().is_empty(), "{path}: {:?}", bench.new_models());
    }
}

/// Dropping a publication is what `kill -9` is to the server: the connection goes, and nothing is tidied up.
#[tokio::test]
async fn whatever_a_killed_publication_leaves_the_next_one_finishes() {
    let mut bench = Bench::new().await;
    bench.publish().await.expect("published");
    let digest = |bench: &Bench| bench.fake.model("me/new:1b").map(|model| model.digest);
    let first = digest(&bench);
    for (round, (path, when)) in [
        ("/api/create", When::Nth(0)),
        ("/api/show", When::Nth(1)),
        ("/api/generate", When::Nth(0)),
        ("/api/copy", When::Nth(0)),
        ("/api/copy", When::Nth(1)),
        ("/api/delete", When::Nth(0)),
        ("/api/delete", When::Nth(1)),
    ]
    .into_iter()
    .enumerate()
    {
        bench.publication.model = artifact(bench.folder.path(), "next.gguf", format!("GGUF {round}").as_bytes());
        bench.fake.fail(Plan::none().rule(On::Path(path.into()), when, Fault::Hang));
        let before = digest(&bench);
        {
            let publishing = bench.publish();
            tokio::pin!(publishing);
            let hangs =
                |seen: &arriero_bench::fake::Seen| seen.on(path).last().is_some_and(|r| r.fault == Some(Fault::Hang) && r.ended.is_none());
            tokio::select! {
                outcome = &mut publishing => panic!("{path} {when:?}: {outcome:?}"),
                reached = bench.fake.wait_for(hangs) => reached.expect("gets there"),
            }
        }
        assert!(digest(&bench).is_some(), "{path}: there is always a model of the name");
        bench.fake.fail(Plan::none());
        let outcome = bench.publish().await.expect("published");
        let named_already = path == "/api/delete";
        assert_eq!(outcome.action == Action::Unchanged, named_already, "{path} {when:?}: {outcome:?}");
        assert!(digest(&bench) != before && digest(&bench) != first);
        assert_eq!(bench.new_models(), ["me/new:1b"], "{path} {when:?}");
        let model = bench.fake.model("me/new:1b").expect("there");
        assert_eq!(model.blob, bench.publication.model.digest.hex());
    }
}

#[tokio::test]
async fn the_same_publication_twice_at_a_time_is_one() {
    for delay_ms in [0, 5, 20, 60] {
        let bench = Bench::with(|script| script.build_gap = Duration::from_millis(3)).await;
        let later = async {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            bench.publish().await
        };
        let (one, two) = tokio::join!(bench.publish(), later);
        assert!(one.is_ok() && two.is_ok(), "{delay_ms}: {one:?} {two:?}");
        assert_eq!(bench.new_models(), ["me/new:1b"], "{delay_ms}");
    }
}

#[tokio::test]
async fn old_unfinished_models_of_others_are_swept_and_never_offered() {
    let bench = Bench::new().await;
    bench.fake.adjust(|script| {
        let at = |name: &str, modified: Option<Duration>| arriero_bench::fake::Model { modified, ..arriero_bench::fake::Model::new(name) };
        script.models.push(at("arriero-unfinished/0123456789abcdef:0000", None));
        script.models.push(at("arriero-unfinished/0123456789abcdef:previous", None));
        script.models.push(at("arriero-unfinished/0123456789abcdef:1111", Some(arriero_bench::clock::since_epoch())));
    });
    bench.publish().await.expect("published");
    let left: Vec<String> = bench.fake.models().into_iter().filter(|name| name.starts_with("arriero-unfinished/")).collect();
    assert_eq!(left, ["arriero-unfinished/0123456789abcdef:previous", "arriero-unfinished/0123456789abcdef:1111"]);
    let offered = arriero::backends::Backend::models(&bench.server).await.expect("a list");
    assert!(offered.iter().any(|model| model.name.as_str() == "me/new:1b"));
    assert!(offered.iter().all(|model| !model.name.as_str().starts_with("arriero-unfinished/")));
}

#[tokio::test]
async fn one_server_that_is_away_does_not_keep_the_others_from_their_model() {
    let (one, two) = (Bench::new().await, Bench::new().await);
    let gone = fake(|_| {}).await;
    let servers = [one.server.clone(), server(&gone), two.server.clone()];
    gone.kill().await;
    let all = publish::publish(&servers, &one.publication, &config(), &|_| {}, &CancellationToken::new()).await.expect("a manifest");
    assert_eq!(all.iter().map(|published| published.outcome.is_ok()).collect::<Vec<_>>(), [true, false, true]);
    let error = all[1].outcome.as_ref().expect_err("away").to_string();
    assert!(error.contains("is Ollama running there?") && error.contains("publish again"), "{error}");
    assert_eq!((one.new_models(), two.new_models()), (vec!["me/new:1b".to_owned()], vec!["me/new:1b".to_owned()]));
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn what_is_in_the_library_is_served_after_a_start_and_garbage_there_harms_nobody() {
    let (fake, folder) = (fake(|_| {}).await, tempfile::tempdir().expect("a folder"));
    let names = async |app: &TestApp| {
        let list: serde_json::Value = app.get("/models").await.json().await.expect("JSON");
        list["models"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|model| model["name"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let library = folder.path().join(publish::library::FOLDER);
    let bytes = std::fs::read(crate::support::demo_model()).expect("the model");
    let artifact = Artifact { path: crate::support::demo_model(), digest: Digest::new(Sha256::digest(&bytes).into()) };
    publish::library::place(&library, &ModelName::parse("me/new:1b").expect("a name"), &artifact).expect("placed");
    let app = TestApp::on(folder, &[&fake], |_| {}).await;
    assert!(names(&app).await.contains(&"me-new-1b".to_owned()), "{:?}", names(&app).await);
    let folder = app.end().await;
    std::fs::write(library.join("broken.gguf"), b"GGUF and nothing").expect("written");
    let app = TestApp::on(folder, &[&fake], |_| {}).await;
    assert!(names(&app).await.contains(&"me-new-1b".to_owned()) && !names(&app).await.contains(&"broken".to_owned()));
    app.end().await;
}
