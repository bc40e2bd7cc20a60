//! Tests of the table of what was collected.

use super::*;
use crate::storage::Config;

pub(crate) fn exchange(request_id: &str, at_ms: i64) -> Exchange {
    Exchange {
        request_id: request_id.to_owned(),
        at_ms,
        key_id: Some("k1".to_owned()),
        tenant: "t".to_owned(),
        dialect: "native".into(),
        model: "gemma3:latest".to_owned(),
        messages: r#"[{"role":"user","content":"q"}]"#.to_owned(),
        tools: None,
        answer: "a".to_owned(),
        thinking: None,
        finish_reason: "stop".to_owned(),
        prompt_tokens: Some(3),
        completion_tokens: None,
    }
}

async fn open() -> (tempfile::TempDir, Storage) {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Storage::open(folder.path(), &Config::default()).await.expect("opened");
    (folder, storage)
}

fn said(rating: Rating, correction: Option<&str>) -> Feedback {
    Feedback { rating, correction: correction.map(str::to_owned), comment: None, at_ms: 9 }
}

async fn ids(table: &CollectionTable, filter: Filter) -> Vec<String> {
    let rows = table.page(&filter, Order::OldestFirst(0), 100, u64::MAX).await.expect("read");
    rows.into_iter().map(|row| row.exchange.request_id).collect()
}

#[tokio::test]
async fn what_is_written_is_read_again_and_found_by_all_that_is_asked_for() {
    let (_folder, storage) = open().await;
    let table = storage.collection();
    let odd = Exchange {
        answer: "odd ' \" ; DROP \u{0} ü".to_owned(),
        tools: Some("[1]".to_owned()),
        thinking: Some("hm".to_owned()),
        key_id: None,
        model: "other:1b".to_owned(),
        ..exchange("b", 20)
    };
    table.insert(&[exchange("a", 10), odd.clone(), exchange("c", 30)]).await.expect("written");
    table.rate("a", None, &said(Rating::Good, None)).await.expect("noted");
    table.rate("c", None, &said(Rating::Bad, Some("right"))).await.expect("noted");
    let rows = table.page(&Filter::default(), Order::NewestFirst(None), 10, u64::MAX).await.expect("read");
    assert_eq!(rows.iter().map(|row| row.exchange.request_id.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
    assert_eq!((&rows[1].exchange, &rows[1].feedback), (&odd, &None));
    assert_eq!(rows[0].feedback, Some(said(Rating::Bad, Some("right"))));
    for (filter, found) in [
        (Filter { owner: Some(Owner::Nobody), ..Filter::default() }, "b"),
        (Filter { owner: Some(Owner::Key("k1".into())), rated: Some(Rated::Bad), ..Filter::default() }, "c"),
        (Filter { model: Some("other:1b".into()), ..Filter::default() }, "b"),
        (Filter { rated: Some(Rated::Unrated), ..Filter::default() }, "b"),
        (Filter { since_ms: Some(20), until_ms: Some(30), ..Filter::default() }, "b"),
        (Filter { request_id: Some("a".into()), rated: Some(Rated::Good), ..Filter::default() }, "a"),
    ] {
        assert_eq!(ids(&table, filter.clone()).await, [found], "{filter:?}");
    }
}

#[tokio::test]
async fn pages_go_on_and_are_short_where_rows_are_large() {
    let (_folder, storage) = open().await;
    let table = storage.collection();
    let rows: Vec<_> = (0..5).map(|n| Exchange { answer: "x".repeat(1_000), ..exchange(&n.to_string(), n) }).collect();
    table.insert(&rows).await.expect("written");
    let page = async |order| {
        let rows = table.page(&Filter::default(), order, 2, u64::MAX).await.expect("read");
        rows.into_iter().map(|row| (row.id, row.exchange.request_id)).collect::<Vec<_>>()
    };
    let first = page(Order::NewestFirst(None)).await;
    assert_eq!((first[0].1.as_str(), first[1].1.as_str()), ("4", "3"));
    assert_eq!(page(Order::NewestFirst(Some(first[1].0))).await[0].1, "2");
    assert_eq!(page(Order::OldestFirst(first[1].0)).await.len(), 1);
    let bounded = table.page(&Filter::default(), Order::OldestFirst(0), 100, 1_500).await.expect("read");
    assert_eq!(bounded.len(), 2);
    assert_eq!(table.page(&Filter::default(), Order::OldestFirst(0), 100, 0).await.expect("read").len(), 1);
}

#[tokio::test]
async fn the_last_feedback_holds_and_an_id_of_several_keys_is_nobodys() {
    let (_folder, storage) = open().await;
    let table = storage.collection();
    let other = Exchange { key_id: Some("k2".into()), ..exchange("same", 3) };
    table.insert(&[exchange("same", 1), exchange("same", 2), other]).await.expect("written");
    let key = |id: &str| Some(Owner::Key(id.to_owned()));
    let rate = async |owner: Option<Owner>, said: Feedback| table.rate("same", owner.as_ref(), &said).await.expect("asked");
    assert_eq!(rate(None, said(Rating::Bad, None)).await, Told::Ambiguous);
    assert_eq!(rate(key("k3"), said(Rating::Bad, None)).await, Told::Unknown);
    assert_eq!(rate(Some(Owner::Nobody), said(Rating::Bad, None)).await, Told::Unknown);
    let before = table.size().await.expect("measured");
    assert_eq!(rate(key("k1"), said(Rating::Bad, Some("long correction"))).await, Told::Kept);
    assert_eq!(table.size().await.expect("measured").bytes, before.bytes + 15);
    assert_eq!(rate(key("k1"), said(Rating::Good, None)).await, Told::Kept);
    assert_eq!(table.size().await.expect("measured"), before);
    let rows = table.page(&Filter::default(), Order::OldestFirst(0), 9, u64::MAX).await.expect("read");
    let rated: Vec<_> = rows.iter().map(|row| (row.exchange.at_ms, row.feedback.as_ref().map(|said| said.rating))).collect();
    assert_eq!(rated, [(1, None), (2, Some(Rating::Good)), (3, None)], "the latest of the key's");
}

#[tokio::test]
async fn the_oldest_go_first_and_deleting_is_bounded() {
    let (_folder, storage) = open().await;
    let table = storage.collection();
    let rows: Vec<_> = (0..5).map(|n| exchange(&n.to_string(), 10 - n)).collect();
    table.insert(&rows).await.expect("written");
    let one = table.size().await.expect("measured").bytes / 5;
    assert_eq!(table.delete_oldest(one + 1).await.expect("deleted"), Size { rows: 2, bytes: 2 * one });
    assert_eq!(ids(&table, Filter::default()).await, ["2", "3", "4"], "by when they came");
    assert_eq!(table.delete(&Filter::default(), 2).await.expect("deleted"), 2);
    assert_eq!(table.delete_oldest(u64::MAX).await.expect("deleted").rows, 1);
    assert_eq!(table.delete_oldest(1).await.expect("nothing"), Size::default());
}

/// Whether any file of the folder holds these bytes.
pub(crate) fn holds(folder: &std::path::Path, canary: &str) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("read").map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    let found = files.filter(|path| {
        let bytes = std::fs::read(path).expect("read");
        bytes.windows(canary.len()).any(|window| window == canary.as_bytes())
    });
    found.map(|path| path.display().to_string()).collect()
}

#[tokio::test]
async fn what_is_forgotten_is_in_no_file_any_more() {
    let (folder, storage) = open().await;
    let table = storage.collection();
    // Small ones that share pages, ones that nearly fill a page, and ones over many pages, between others that stay.
    let sizes = [0, 40, 300, 900, 3_000, 9_000, 70_000];
    for round in 0..30 {
        let rows: Vec<_> = sizes
            .iter()
            .map(|size| {
                let (key_id, word) = if round % 3 == 0 { ("stays", "HARMLESS-WORD") } else { ("goes", "CANARY-WORD") };
                let key_id = Some(key_id.to_owned());
                Exchange { answer: [word, &"x".repeat(*size), word].concat(), key_id, ..exchange(&format!("{round}-{size}"), round) }
            })
            .collect();
        table.insert(&rows).await.expect("written");
        let correction = "CANARY-WORD ".repeat(50 + usize::try_from(round).expect("small"));
        table.rate(&format!("{round}-0"), None, &said(Rating::Bad, Some(&correction))).await.expect("noted");
        table.rate(&format!("{round}-0"), None, &said(Rating::Good, None)).await.expect("replaced");
    }
    let goes = Filter { owner: Some(Owner::Key("goes".into())), ..Filter::default() };
    while table.delete(&goes, 7).await.expect("deleted") > 0 {}
    assert!(table.settle().await.expect("settled"));
    assert_eq!(holds(folder.path(), "CANARY-WORD"), Vec::<String>::new());
    assert!(!holds(folder.path(), "HARMLESS-WORD").is_empty(), "what stays is there");
    assert_eq!(table.size().await.expect("measured").rows, 70);
}

#[tokio::test]
async fn a_full_disk_is_told_apart_and_nothing_is_half_written() {
    let (_folder, storage) = open().await;
    storage.limit_pages(1).await; // no more than it has now
    let large = vec![Exchange { answer: "x".repeat(100_000), ..exchange("a", 1) }; 3];
    assert!(matches!(storage.collection().insert(&large).await, Err(Error::Full { .. })));
    storage.limit_pages(1_000_000).await;
    assert_eq!(storage.collection().size().await.expect("measured"), Size::default());
    storage.collection().insert(&large).await.expect("room again");
}
