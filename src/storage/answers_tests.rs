use super::*;
use crate::storage::Config;

async fn table() -> (tempfile::TempDir, AnswerTable) {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Storage::open(folder.path(), &Config::default()).await.expect("opened");
    (folder, storage.answers())
}

fn row(n: u8) -> Row {
    Row {
        key: [n; 32],
        model: "m:latest".into(),
        digest: Some("d".into()),
        tenant: "t ' ; DROP".into(),
        key_id: None,
        created_at_ms: i64::from(n),
        expires_at_ms: 100 + i64::from(n),
        answer: vec![n; 10],
    }
}

#[tokio::test]
async fn what_is_written_is_read_and_replaced() {
    let (_folder, table) = table().await;
    table.write(&[row(1), row(2)], &[]).await.expect("written");
    let found = table.read(&[1; 32]).await.expect("read").expect("there");
    assert_eq!((found.model.as_str(), found.tenant.as_str(), found.created_at_ms), ("m:latest", "t ' ; DROP", 1));
    assert_eq!((found.expires_at_ms, found.answer), (101, vec![1; 10]));
    assert_eq!(table.read(&[9; 32]).await.expect("read"), None);
    table.write(&[Row { answer: vec![], ..row(1) }], &[]).await.expect("replaced");
    assert_eq!(table.size().await.expect("counted"), Size { rows: 2, bytes: 10 });
    table.write(&[], &[]).await.expect("nothing to do");
}

#[tokio::test]
async fn the_least_lately_used_go_first_and_no_more_than_needed() {
    let (_folder, table) = table().await;
    let rows: Vec<_> = (1..=5).map(row).collect();
    table.write(&rows, &[([1; 32], 50), ([2; 32], 0), ([99; 32], 5)]).await.expect("written");
    assert_eq!(table.delete_least_used(0).await.expect("nothing"), Size::default());
    assert_eq!(table.delete_least_used(11).await.expect("two"), Size { rows: 2, bytes: 20 });
    for (n, there) in [(1, true), (2, false), (3, false), (4, true), (5, true)] {
        assert_eq!(table.read(&[n; 32]).await.expect("read").is_some(), there, "{n}");
    }
    assert_eq!(table.delete_least_used(u64::MAX).await.expect("the rest").rows, 3);
    assert_eq!(table.delete_least_used(1).await.expect("none left"), Size::default());
}

#[tokio::test]
async fn deleting_is_bounded_and_names_what_went() {
    let (_folder, table) = table().await;
    let rows: Vec<_> = (1..=5).map(row).collect();
    table.write(&rows, &[]).await.expect("written");
    assert_eq!(table.delete(&Which::ExpiredAt(102), 9).await.expect("deleted").len(), 2);
    assert_eq!(table.delete(&Which::Key([3; 32]), 9).await.expect("deleted"), [[3; 32]]);
    assert_eq!(table.delete(&Which::Tenant("nobody".into()), 9).await.expect("deleted").len(), 0);
    assert_eq!(table.delete(&Which::Model("m:latest".into()), 1).await.expect("deleted").len(), 1);
    let keep = Which::OtherDigests { model: "m:latest".into(), digests: vec!["x".into(), "d".into()] };
    assert_eq!(table.delete(&keep, 9).await.expect("deleted").len(), 0);
    assert_eq!(table.delete(&Which::All, 9).await.expect("deleted").len(), 1);
    assert_eq!(table.size().await.expect("counted"), Size::default());
}
