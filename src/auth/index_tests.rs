use proptest::prelude::*;

use super::*;
use crate::auth::new_terms;

fn row(id: &str, hash: u8) -> Row {
    let key = Key {
        id: id.to_owned(),
        terms: new_terms(format!("name of {id}")),
        created_at_ms: 0,
        revoked_at_ms: None,
        rotated_at_ms: None,
        last_used_at_ms: None,
    };
    Row { key, hash: [hash; 32], previous: None }
}

fn index(row: Row) -> Index {
    let mut index = Index::default();
    index.put(row, 0);
    index
}

fn ask(index: &Index, hash: u8, now_ms: i64) -> Result<Arc<Principal>, Denied> {
    index.authenticate("a", &[hash; 32], now_ms)
}

#[test]
fn only_the_right_secret_of_the_right_key_is_taken() {
    let index = index(row("a", 1));
    assert_eq!(ask(&index, 1, 0).expect("right").key_id.as_deref(), Some("a"));
    assert_eq!(ask(&index, 2, 0).err(), Some(Denied::Unknown));
    assert_eq!(index.authenticate("b", &[1; 32], 0).err(), Some(Denied::Unknown));
}

#[test]
fn a_key_ends_at_its_time_and_only_its_holder_learns_why() {
    let mut ending = row("a", 1);
    ending.key.terms.expires_at_ms = Some(100);
    let index = index(ending);
    let who = ask(&index, 1, 99).expect("not yet");
    assert_eq!(index.sweep(99), 1);
    assert!(!who.ended.is_cancelled());
    assert_eq!(ask(&index, 1, 100).err(), Some(Denied::Expired));
    assert_eq!(ask(&index, 2, 100).err(), Some(Denied::Unknown));
    assert_eq!(index.named("name of a", 100).err(), Some(Denied::Expired));
    assert_eq!(index.sweep(100), 0);
    assert!(who.ended.is_cancelled());
    assert!(!index.has_usable(100) && index.has_usable(99));
}

#[test]
fn a_revoked_key_ends_at_once_and_gives_its_name_free() {
    let mut index = index(row("a", 1));
    let who = ask(&index, 1, 0).expect("taken");
    let mut revoked = row("a", 1);
    revoked.key.revoked_at_ms = Some(5);
    index.put(revoked, 5);
    assert!(who.ended.is_cancelled());
    assert_eq!(ask(&index, 1, 5).err(), Some(Denied::Revoked));
    assert_eq!((index.id_of("name of a"), index.oldest_revoked()), (None, Some("a")));
    index.remove("a");
    assert_eq!((ask(&index, 1, 5).err(), index.len()), (Some(Denied::Unknown), 0));
}

#[test]
fn a_rotation_ends_the_old_secret_now_or_after_its_grace() {
    let mut index = index(row("a", 1));
    let first = ask(&index, 1, 0).expect("taken");
    index.put(Row { hash: [2; 32], previous: Some(([1; 32], 50)), ..row("a", 2) }, 10);
    let second = ask(&index, 2, 10).expect("the new one");
    let still = ask(&index, 1, 49).expect("the old one, within its grace");
    assert_eq!(ask(&index, 1, 50).err(), Some(Denied::Unknown));
    index.sweep(49);
    assert!(!first.ended.is_cancelled() && !still.ended.is_cancelled());
    index.sweep(50);
    assert!(first.ended.is_cancelled() && still.ended.is_cancelled() && !second.ended.is_cancelled());
    index.put(row("a", 3), 60);
    assert!(second.ended.is_cancelled(), "without a grace at once");
    assert_eq!(ask(&index, 2, 60).err(), Some(Denied::Unknown));
}

#[test]
fn a_change_of_terms_leaves_running_work_alone_and_can_still_end_it() {
    let mut index = index(row("a", 1));
    let before = ask(&index, 1, 0).expect("taken");
    let mut changed = row("a", 1);
    changed.key.terms.weight = 9;
    changed.key.terms.name = "another".into();
    index.put(changed.clone(), 0);
    let after = ask(&index, 1, 0).expect("taken");
    assert_eq!((before.weight, after.weight), (1, 9));
    assert!(!before.ended.is_cancelled());
    assert_eq!((index.id_of("name of a"), index.id_of("another")), (None, Some("a")));
    changed.key.revoked_at_ms = Some(1);
    index.put(changed, 1);
    assert!(before.ended.is_cancelled() && after.ended.is_cancelled());
}

#[test]
fn a_key_that_is_given_more_time_after_its_end_lives_again() {
    let mut ending = row("a", 1);
    ending.key.terms.expires_at_ms = Some(10);
    let mut index = index(ending.clone());
    index.sweep(10);
    ending.key.terms.expires_at_ms = Some(100);
    index.put(ending, 20);
    assert!(!ask(&index, 1, 20).expect("taken again").ended.is_cancelled());
}

#[test]
fn reading_all_again_forgets_what_is_gone_and_keeps_what_is_the_same() {
    let mut index = index(row("a", 1));
    index.put(row("b", 2), 0);
    let (a, b) = (ask(&index, 1, 7).expect("taken"), index.authenticate("b", &[2; 32], 0).expect("taken"));
    index.replace(vec![row("a", 1), row("c", 3)], 8);
    assert!(!a.ended.is_cancelled() && b.ended.is_cancelled());
    let ids: Vec<String> = index.list().into_iter().map(|key| key.id).collect();
    assert_eq!(ids, ["a", "c"]);
    assert_eq!(index.used(), [("a".to_owned(), 7)], "and when it was used");
}

#[test]
fn uses_are_told_until_they_are_written() {
    let mut index = index(row("a", 1));
    assert_eq!(index.used(), []);
    ask(&index, 1, 30).expect("taken");
    ask(&index, 1, 20).expect("taken");
    assert_eq!(index.used(), [("a".to_owned(), 30)]);
    assert_eq!(index.list()[0].last_used_at_ms, Some(30));
    index.written(&[("a".to_owned(), 30), ("gone".to_owned(), 1)]);
    assert_eq!(index.used(), []);
    let _ = ask(&index, 2, 99);
    assert_eq!(index.used(), [], "a wrong secret is no use");
}

/// What may happen to a key.
#[derive(Debug, Clone)]
enum Step {
    Rotate { grace: i64 },
    Expire { after: Option<i64> },
    Revoke,
    ReadAgain,
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..30_i64).prop_map(|grace| Step::Rotate { grace }),
        proptest::option::of(0..30_i64).prop_map(|after| Step::Expire { after }),
        Just(Step::Revoke),
        Just(Step::ReadAgain),
        (1..20_i64).prop_map(Step::Wait),
    ]
}

/// Until when each secret is taken, as one would work it out by hand.
#[derive(Default)]
struct Ends {
    of_secret: Vec<i64>,
    of_key: Option<i64>,
    revoked: bool,
}

impl Ends {
    fn taken(&self, secret: usize, now: i64) -> bool {
        !self.revoked && now < self.of_secret[secret] && self.of_key.is_none_or(|end| now < end)
    }
}

proptest! {
    #[test]
    fn a_secret_is_taken_exactly_in_its_time_and_its_work_is_told_of_the_end(steps in proptest::collection::vec(step(), 1..25)) {
        let (mut now, mut stored) = (0, row("a", 0));
        let mut index = index(stored.clone());
        let mut ends = Ends { of_secret: vec![i64::MAX], ..Ends::default() };
        let mut given: Vec<(usize, Arc<Principal>)> = Vec::new();
        for step in steps {
            match step {
                Step::Rotate { grace } => {
                    let secrets = ends.of_secret.len();
                    stored.previous = (grace > 0).then_some((stored.hash, now + grace));
                    stored.hash = [u8::try_from(secrets).expect("few steps"); 32];
                    // Only one secret before the present one is remembered.
                    ends.of_secret.iter_mut().for_each(|end| *end = (*end).min(now));
                    ends.of_secret[secrets - 1] = now + grace;
                    ends.of_secret.push(i64::MAX);
                }
                Step::Expire { after } => {
                    stored.key.terms.expires_at_ms = after.map(|after| now + after);
                    ends.of_key = stored.key.terms.expires_at_ms;
                }
                Step::Revoke => {
                    stored.key.revoked_at_ms = Some(now);
                    ends.revoked = true;
                }
                Step::ReadAgain => index.replace(vec![stored.clone()], now),
                Step::Wait(span) => now += span,
            }
            index.put(stored.clone(), now);
            index.sweep(now);
            for secret in 0..ends.of_secret.len() {
                let taken = ask(&index, u8::try_from(secret).expect("few steps"), now);
                prop_assert_eq!(taken.is_ok(), ends.taken(secret, now), "secret {} at {}", secret, now);
                if let Ok(who) = taken {
                    prop_assert!(!who.ended.is_cancelled(), "secret {} ended before its time", secret);
                    given.push((secret, who));
                }
            }
            for (secret, who) in &given {
                // Once ended, ended for good: what was started then does not live again with the key.
                prop_assert!(who.ended.is_cancelled() || ends.taken(*secret, now), "secret {} at {}", secret, now);
            }
        }
    }
}
