use super::*;
use crate::auth::{Expiry, new_terms};
use crate::storage;

struct Place {
    folder: tempfile::TempDir,
    storage: Storage,
    clock: Clock,
}

const START_MS: i64 = 1_800_000_000_000;

async fn place() -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Storage::open(folder.path(), &storage::Config::default()).await.expect("opened");
    Place { folder, storage, clock: Clock::fake(START_MS) }
}

impl Place {
    async fn open(&self, config: &Config, exposed: bool) -> Keys {
        Keys::open(config, &self.storage, self.clock.clone(), Metrics::default(), exposed).await.expect("opened")
    }

    async fn keys(&self) -> Keys {
        self.open(&Config::default(), false).await
    }
}

fn active(keys: &Keys) -> String {
    let text = keys.0.metrics.render();
    text.lines().find_map(|line| line.strip_prefix("arriero_keys_active ")).expect("is there").to_owned()
}

#[tokio::test]
async fn a_key_is_taken_from_its_making_on_and_after_a_restart() {
    let place = place().await;
    let keys = place.keys().await;
    let (key, secret) = keys.create(new_terms("a")).await.expect("made");
    assert_eq!(keys.authenticate(secret.reveal()).expect("taken").name.as_ref(), "a");
    assert_eq!(active(&keys), "1");
    let again = place.keys().await;
    assert_eq!(again.authenticate(secret.reveal()).expect("taken").key_id.as_deref(), Some(key.id.as_str()));
    assert_eq!(again.show(&key.id).expect("there").terms, key.terms);
}

#[tokio::test]
async fn nothing_on_disk_holds_the_secret() {
    let place = place().await;
    let (_, secret) = place.keys().await.create(new_terms("a")).await.expect("made");
    place.storage.close().await;
    let part = secret.reveal().rsplit('_').next().expect("a secret part").as_bytes().to_vec();
    for file in std::fs::read_dir(place.folder.path()).expect("a folder") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("reads");
        assert!(!bytes.windows(part.len()).any(|window| window == part));
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_and_its_work_told_to_end() {
    let place = place().await;
    let keys = place.keys().await;
    let (key, secret) = keys.create(new_terms("a")).await.expect("made");
    let who = keys.authenticate(secret.reveal()).expect("taken");
    let revoked = keys.revoke(&key.id).await.expect("revoked");
    assert!(who.ended.is_cancelled());
    assert_eq!(keys.authenticate(secret.reveal()).err(), Some(Denied::Revoked));
    assert_eq!(keys.revoke(&key.id).await.expect("again"), revoked);
    assert!(matches!(keys.rotate(&key.id, Duration::ZERO).await, Err(Error::Revoked { .. })));
    assert!(matches!(keys.update(&key.id, Change::default()).await, Err(Error::Revoked { .. })));
    assert_eq!(active(&keys), "0");
    assert!(keys.required(), "revoking the last key opens nothing");
    assert_eq!(place.keys().await.authenticate(secret.reveal()).err(), Some(Denied::Revoked));
}

#[tokio::test]
async fn a_rotation_gives_a_new_secret_and_the_old_one_its_grace() {
    let place = place().await;
    let keys = place.keys().await;
    let (key, first) = keys.create(new_terms("a")).await.expect("made");
    let (_, second) = keys.rotate(&key.id, Duration::from_mins(1)).await.expect("rotated");
    let keys = place.keys().await;
    assert!(keys.authenticate(first.reveal()).is_ok() && keys.authenticate(second.reveal()).is_ok());
    place.clock.advance(Duration::from_mins(1));
    assert_eq!(keys.authenticate(first.reveal()).err(), Some(Denied::Unknown));
    let (_, third) = keys.rotate(&key.id, Duration::ZERO).await.expect("rotated");
    assert_eq!(keys.authenticate(second.reveal()).err(), Some(Denied::Unknown));
    assert!(keys.authenticate(third.reveal()).is_ok());
}

#[tokio::test]
async fn terms_are_checked_and_names_are_one_keys_only() {
    let place = place().await;
    let keys = place.keys().await;
    assert!(matches!(keys.create(new_terms("")).await, Err(Error::Invalid(wrong)) if wrong.len() == 2));
    let (a, _) = keys.create(new_terms("a")).await.expect("made");
    let (b, _) = keys.create(new_terms("b")).await.expect("made");
    assert!(matches!(keys.create(new_terms("a")).await, Err(Error::NameTaken { .. })));
    let rename = |name: &str| Change { name: Some(name.into()), ..Change::default() };
    assert!(matches!(keys.update(&b.id, rename("a")).await, Err(Error::NameTaken { .. })));
    keys.update(&a.id, rename("a")).await.expect("its own name");
    keys.revoke(&a.id).await.expect("revoked");
    assert_eq!(keys.update(&b.id, rename("a")).await.expect("free again").terms.name, "a");
    assert!(matches!(keys.show("nothing"), Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn the_number_of_keys_is_bounded_and_revoked_ones_make_room() {
    let place = place().await;
    let keys = place.open(&Config { max_keys: 2, ..Config::default() }, false).await;
    let (a, _) = keys.create(new_terms("a")).await.expect("made");
    keys.create(new_terms("b")).await.expect("made");
    assert!(matches!(keys.create(new_terms("c")).await, Err(Error::TooMany { most: 2 })));
    keys.revoke(&a.id).await.expect("revoked");
    keys.create(new_terms("c")).await.expect("made");
    let names: Vec<String> = keys.list().into_iter().map(|key| key.terms.name).collect();
    assert_eq!(names.len(), 2);
    assert!(!names.contains(&"a".to_owned()), "{names:?}");
    assert_eq!(place.keys().await.list(), keys.list());
}

#[tokio::test]
async fn keys_are_required_as_configured() {
    let place = place().await;
    for (required, exposed, before, after) in [
        (Required::Auto, false, false, true),
        (Required::Auto, true, true, true),
        (Required::Always, false, true, true),
        (Required::Never, true, false, false),
    ] {
        let keys = place.open(&Config { required, ..Config::default() }, exposed).await;
        assert_eq!(keys.required(), before, "{required:?}");
        let (key, _) = keys.create(new_terms("a")).await.expect("made");
        assert_eq!(keys.required(), after, "{required:?}");
        keys.0.table.delete(&key.id).await.expect("deleted");
    }
}

#[tokio::test]
async fn the_first_start_makes_one_key_where_keys_are_required() {
    let place = place().await;
    for exposed in [false, true] {
        let keys = place.open(&Config::default(), exposed).await;
        assert!(keys.bootstrap().await.expect("asked").is_none(), "an address that others can reach is refused instead");
    }
    let keys = place.open(&Config { required: Required::Always, ..Config::default() }, false).await;
    let secret = keys.bootstrap().await.expect("made").expect("a key");
    assert_eq!(keys.authenticate(secret.reveal()).expect("taken").role, Role::Admin);
    assert!(keys.bootstrap().await.expect("asked").is_none(), "once");
}

#[tokio::test]
async fn a_key_that_has_ended_already_is_not_made_but_one_may_be_ended_so() {
    let place = place().await;
    let keys = place.keys().await;
    let past = Some(Expiry::At(jiff::Timestamp::from_millisecond(START_MS).expect("a time")));
    let change = Change { name: Some("a".into()), expires_at: past, ..Change::default() };
    let refused = keys.create(change.into_terms()).await;
    assert!(matches!(refused, Err(Error::Invalid(wrong)) if wrong.len() == 1 && wrong[0].field == "expires_at"));
    let (key, secret) = keys.create(new_terms("a")).await.expect("made");
    keys.update(&key.id, Change { expires_at: past, ..Change::default() }).await.expect("changed");
    assert_eq!(keys.authenticate(secret.reveal()).err(), Some(Denied::Expired));
}

/// What runs in the background, driven by a clock of the test.
#[tokio::test]
async fn at_its_time_a_key_ends_what_was_started_with_it() {
    let place = place().await;
    let keys = place.keys().await;
    let end = jiff::Timestamp::from_millisecond(START_MS + 5_000).expect("a time");
    let change = Change { name: Some("a".into()), expires_at: Some(Expiry::At(end)), ..Change::default() };
    let (_, secret) = keys.create(change.into_terms()).await.expect("made");
    let who = keys.authenticate(secret.reveal()).expect("taken");
    tokio::time::pause(); // the database is asked no more
    let cancel = CancellationToken::new();
    let watching = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!who.ended.is_cancelled());
        place.clock.advance(Duration::from_secs(5));
        let waited = Instant::now();
        who.ended.cancelled().await;
        assert!(waited.elapsed() < Duration::from_secs(1), "of paused time");
        assert_eq!(keys.authenticate(secret.reveal()).err(), Some(Denied::Expired));
        cancel.cancel();
    };
    tokio::join!(keys.clone().run(cancel.clone()), watching);
}

#[tokio::test]
async fn uses_are_written_at_the_end() {
    let place = place().await;
    let keys = place.keys().await;
    let (_, secret) = keys.create(new_terms("a")).await.expect("made");
    place.clock.advance(Duration::from_secs(3));
    keys.authenticate(secret.reveal()).expect("taken");
    assert_eq!(place.storage.keys().all().await.expect("read")[0].key.last_used_at_ms, None, "not on the way");
    let cancel = CancellationToken::new();
    cancel.cancel();
    keys.run(cancel).await;
    assert_eq!(place.storage.keys().all().await.expect("read")[0].key.last_used_at_ms, Some(START_MS + 3_000));
}

#[tokio::test]
async fn a_change_whose_caller_leaves_is_found_out() {
    let place = place().await;
    let keys = place.keys().await;
    let (key, secret) = keys.create(new_terms("a")).await.expect("made");
    let cancel = CancellationToken::new();
    let background = keys.clone().run(cancel.clone());
    let leaving = async {
        // Dropped at each of its first steps, until one of them had reached the database.
        for steps in 0..200 {
            let mut revoking = Box::pin(keys.revoke(&key.id));
            for _ in 0..steps {
                let _ = std::future::poll_fn(|cx| std::task::Poll::Ready(revoking.as_mut().poll(cx))).await;
                tokio::task::yield_now().await;
            }
            drop(revoking);
            tokio::time::sleep(Duration::from_millis(2)).await;
            let stored = keys.0.table.all().await.expect("read")[0].key.revoked_at_ms;
            if stored.is_some() {
                break;
            }
        }
        while keys.authenticate(secret.reveal()).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    tokio::join!(background, leaving);
}
