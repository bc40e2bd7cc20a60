//! Tests of the service: what is kept of whom, and what becomes of it.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::clock::Clock;
use crate::domain::generation::{
    Ask, Change, Control, Delta, Dialect, Draft, Finish, FinishReason, Prompt, Remarks, Timing, Truncated, Usage,
};
use crate::domain::id::{ModelName, RequestId};
use crate::domain::principal::{Principal, Role};
use crate::storage::Storage;
use crate::telemetry::Metrics;

struct Place {
    folder: tempfile::TempDir,
    collection: Collection,
    keeper: Option<Keeper>,
    metrics: Metrics,
    clock: Clock,
    cancel: CancellationToken,
}

impl Place {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { enabled: true, everyone_without_a_key_consents: true, ..Config::default() };
        change(&mut config);
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), &crate::storage::Config::default()).await.expect("opened");
        let (metrics, clock) = (Metrics::default(), Clock::fake(1_000_000));
        let (collection, keeper) = collection(&config, &storage, &metrics, &clock);
        Self { folder, collection, keeper: Some(keeper), metrics, clock, cancel: CancellationToken::new() }
    }

    #[expect(clippy::disallowed_methods, reason = "a test has no supervisor")]
    fn run(&mut self) -> JoinHandle<()> {
        tokio::spawn(self.keeper.take().expect("once").run(self.cancel.clone()))
    }

    fn has(&self, line: &str) {
        let text = self.metrics.render();
        assert!(text.lines().any(|found| found == line), "no line `{line}` in\n{text}");
    }

    async fn kept(&self) -> Vec<Row> {
        self.collection.page(&Filter::default(), None, 100).await.expect("read").0
    }
}

fn draft(text: &str) -> Draft {
    Draft {
        id: RequestId::from_client("r").expect("an id"),
        dialect: Dialect::Native,
        principal: Arc::new(Principal::anonymous(Role::User)),
        model: None,
        ask: Ask { prompt: Prompt { text: text.to_owned(), system: Some("s".to_owned()), ..Prompt::default() }, ..Ask::default() },
        deadline: None,
        streamed: false,
        control: Control { collect: true, ..Control::default() },
    }
}

fn delta(text: &str, thinking: &str) -> Delta {
    Delta { text: text.to_owned(), thinking: thinking.to_owned(), extra: Map::new() }
}

fn finish(reason: FinishReason) -> Finish {
    let usage = Usage { prompt_tokens: Some(2), completion_tokens: Some(3), cached_tokens: None };
    Finish { reason, context: None, usage, timing: Timing::default(), remarks: Remarks::default(), extra: Map::new() }
}

fn model() -> ModelName {
    ModelName::parse("Gemma3").expect("a name")
}

fn change(field: &str) -> Change {
    Change { field: field.to_owned(), from: Value::Null, to: Value::Null, why: "" }
}

/// Hands over one exchange.
fn exchange(place: &Place, draft: &Draft, pieces: &[Delta], changed: &[Change], finish: &Finish) {
    let mut collecting = place.collection.begin(draft, 7).expect("all agree");
    for piece in pieces {
        collecting.piece(piece);
    }
    collecting.whole(&model(), changed, finish);
}

#[tokio::test]
async fn a_whole_exchange_is_kept_as_it_was_asked_and_answered() {
    let mut place = Place::new(|_| {}).await;
    let running = place.run();
    let mut asked = draft("q");
    asked.ask.extra.insert("tools".to_owned(), json!([{"name": "t"}]));
    exchange(
        &place,
        &asked,
        &[delta("", "hm"), delta("an", ""), delta("swer", "")],
        &[change("options.num_ctx")],
        &finish(FinishReason::Length),
    );
    let rows = place.kept().await;
    let kept = &rows[0].exchange;
    assert_eq!(kept.messages, r#"[{"role":"system","content":"s"},{"role":"user","content":"q"}]"#);
    assert_eq!((kept.answer.as_str(), kept.thinking.as_deref(), kept.finish_reason.as_str()), ("answer", Some("hm"), "length"));
    assert_eq!((kept.model.as_str(), kept.tools.as_deref(), kept.at_ms), ("gemma3:latest", Some(r#"[{"name":"t"}]"#), 7));
    assert_eq!((kept.prompt_tokens, kept.completion_tokens, kept.key_id.as_deref()), (Some(2), Some(3), None));
    place.has("arriero_collection_kept_total 1");
    place.has("arriero_collection_exchanges 1");
    place.cancel.cancel();
    running.await.expect("ends");
}

#[tokio::test]
async fn nobody_is_collected_unasked() {
    let place = Place::new(|_| {}).await;
    let with = |collect: bool, key_id: Option<&str>, agreed: bool| {
        let principal = Principal { key_id: key_id.map(Into::into), collect: agreed, ..Principal::anonymous(Role::User) };
        let control = Control { collect, ..Control::default() };
        place.collection.begin(&Draft { principal: Arc::new(principal), control, ..draft("q") }, 0).is_some()
    };
    assert!(with(true, None, false) && with(true, Some("k"), true));
    assert!(!with(false, None, false) && !with(false, Some("k"), true) && !with(true, Some("k"), false));
    let own = Draft { control: Control::default(), ..draft("q") };
    assert!(place.collection.begin(&own, 0).is_none(), "the process' own requests");
}

#[tokio::test]
async fn what_is_no_whole_conversation_of_texts_is_left_out_and_counted() {
    let mut place = Place::new(|config| config.max_exchange_bytes = 200).await;
    let running = place.run();
    let (answer, stop) = ([delta("a", "")], finish(FinishReason::Stop));
    let odd = |change: &dyn Fn(&mut Prompt)| {
        let mut draft = draft("q");
        change(&mut draft.ask.prompt);
        exchange(&place, &draft, &answer, &[], &stop);
    };
    odd(&|prompt| prompt.images = vec!["aGk=".to_owned()]);
    odd(&|prompt| prompt.raw = true);
    odd(&|prompt| prompt.suffix = Some(String::new()));
    odd(&|prompt| prompt.template = Some("t".to_owned()));
    odd(&|prompt| prompt.context = vec![1]);
    exchange(&place, &draft("q"), &[delta(" ", "only thoughts")], &[], &stop);
    let calls = Delta { extra: Map::from_iter([("tool_calls".to_owned(), json!([]))]), ..Delta::default() };
    exchange(&place, &draft("q"), &[calls, delta("a", "")], &[], &stop);
    place.has("arriero_collection_dropped_total{reason=\"not_text\"} 7");

    odd(&|prompt| prompt.text = "q".repeat(201));
    odd(&|prompt| prompt.text = "\u{1}".repeat(50));
    exchange(&place, &draft("q"), &[delta(&"a".repeat(150), ""), delta("b", "")], &[], &stop);
    place.has("arriero_collection_dropped_total{reason=\"too_large\"} 3");

    exchange(&place, &draft("q"), &answer, &[change("prompt")], &stop);
    let mended = Remarks { changed: vec![change("backend")], ..Remarks::default() };
    exchange(&place, &draft("q"), &answer, &[], &Finish { remarks: mended, ..stop.clone() });
    let cut = Remarks { truncated: Some(Truncated { prompt_tokens: 9, kept_tokens: 1 }), ..Remarks::default() };
    exchange(&place, &draft("q"), &answer, &[], &Finish { remarks: cut, ..stop.clone() });
    place.has("arriero_collection_dropped_total{reason=\"not_whole\"} 3");

    exchange(&place, &draft("q"), &[], &[], &finish(FinishReason::Load));
    drop(place.collection.begin(&draft("q"), 0)); // its client left
    assert_eq!(place.kept().await, []);
    place.cancel.cancel();
    running.await.expect("ends");
}

#[tokio::test]
async fn too_many_are_left_out_and_nobody_waits() {
    let mut place = Place::new(|config| (config.max_waiting, config.max_waiting_bytes) = (3, 300)).await;
    for _ in 0..5 {
        exchange(&place, &draft("q"), &[delta("a", "")], &[], &finish(FinishReason::Stop));
    }
    place.has("arriero_collection_dropped_total{reason=\"queue_full\"} 2");
    let running = place.run();
    place.collection.flush().await;
    exchange(&place, &draft("q"), &[delta(&"a".repeat(300), "")], &[], &finish(FinishReason::Stop));
    place.has("arriero_collection_dropped_total{reason=\"queue_full\"} 3");
    assert_eq!(place.kept().await.len(), 3);
    place.cancel.cancel();
    running.await.expect("ends");
}

#[tokio::test]
async fn what_waits_at_the_end_is_written() {
    let mut place = Place::new(|config| config.flush_interval = Duration::from_hours(1)).await;
    let running = place.run();
    exchange(&place, &draft("q"), &[delta("a", "")], &[], &finish(FinishReason::Stop));
    place.cancel.cancel();
    running.await.expect("ends");
    place.collection.flush().await; // nobody is there any more, and nobody waits for it
    assert_eq!(place.kept().await.len(), 1);
}

#[tokio::test]
async fn the_oldest_make_room_and_the_old_are_forgotten() {
    let mut place = Place::new(|config| (config.max_bytes, config.keep) = (4_000, Some(Duration::from_secs(10)))).await;
    let running = place.run();
    for n in 0..10 {
        exchange(&place, &draft(&n.to_string()), &[delta(&"a".repeat(900), "")], &[], &finish(FinishReason::Stop));
    }
    let rows = place.kept().await;
    assert!((3..=4).contains(&rows.len()) && rows[0].exchange.messages.contains("\"9\""), "{rows:?}");
    place.has("arriero_collection_removed_total{reason=\"size\"} 7");
    place.cancel.cancel();
    running.await.expect("ends");

    let mut old = Place { keeper: None, cancel: CancellationToken::new(), ..place };
    let storage = Storage::open(&old.folder.path().join("other"), &crate::storage::Config::default()).await.expect("opened");
    let rows = [("old", 989_999), ("young", 990_000)].map(|(id, at_ms)| crate::storage::collection::tests::exchange(id, at_ms));
    storage.collection().insert(&rows).await.expect("written");
    let config = Config { keep: Some(Duration::from_secs(10)), ..Config::default() };
    let (collection, keeper) = collection(&config, &storage, &old.metrics, &old.clock);
    (old.collection, old.keeper) = (collection, Some(keeper));
    let running = old.run();
    let rows = old.kept().await;
    assert_eq!(rows.iter().map(|row| row.exchange.request_id.as_str()).collect::<Vec<_>>(), ["young"]);
    old.has("arriero_collection_removed_total{reason=\"age\"} 1");
    old.cancel.cancel();
    running.await.expect("ends");
}

#[tokio::test]
async fn feedback_finds_what_is_on_its_way_and_what_is_forgotten_is_gone() {
    let mut place = Place::new(|config| config.flush_interval = Duration::from_hours(1)).await;
    let running = place.run();
    exchange(&place, &draft("q"), &[delta("a", "")], &[], &finish(FinishReason::Stop));
    let said = Feedback { rating: Rating::Good, correction: None, comment: Some("c".to_owned()), at_ms: 5 };
    place.collection.rate("r", Some(&Owner::Nobody), &said).await.expect("noted");
    assert_eq!(place.kept().await[0].feedback, Some(said.clone()));
    exchange(&place, &draft("q2"), &[delta("a", "")], &[], &finish(FinishReason::Stop));
    let gone = place.collection.forget(&Filter::default()).await.expect("forgotten");
    assert_eq!(gone, Gone { exchanges: 2, overwritten: true }, "the one on its way, too");
    assert!(matches!(place.collection.rate("r", None, &said).await, Err(Refused::Unknown(_))));
    place.has("arriero_collection_bytes 0");
    exchange(&place, &draft("q3"), &[delta("a", "")], &[], &finish(FinishReason::Stop));
    assert_eq!(place.kept().await.len(), 1);
    place.has("arriero_collection_exchanges 1");
    place.cancel.cancel();
    running.await.expect("ends");
}
