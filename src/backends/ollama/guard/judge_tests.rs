use proptest::prelude::*;

use super::*;
use TroubleKind::{EvictionDeadlock, HungRunner, LeakedSlot};

const WEDGED_AFTER: Duration = Duration::from_secs(8);

fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn judge(slots: Option<u32>) -> Judge {
    Judge::new(Limits { wedged_after: WEDGED_AFTER, slots })
}

fn waiting(id: u64, model: &str, started: f64) -> Answer {
    Answer {
        id,
        model: model.to_owned(),
        shape: "default".to_owned(),
        prompt_bytes: 100,
        started: s(started),
        spoke: None,
        discreet: false,
    }
}

fn speaking(id: u64, model: &str, started: f64, spoke: f64) -> Answer {
    Answer { spoke: Some(s(spoke)), ..waiting(id, model, started) }
}

fn list(models: &[&str]) -> List {
    took(0.01, models)
}

fn took(seconds: f64, models: &[&str]) -> List {
    let models = models.iter().map(|model| Listed { model: (*model).to_owned(), stays_until: Some(s(300.0)) }).collect();
    List::Known { took: s(seconds), models }
}

/// A judge before whom `a` has just answered, and stays in memory.
fn warm(slots: Option<u32>) -> Judge {
    let mut judge = judge(slots);
    judge.ended(&speaking(0, "a", 0.0, 0.5), s(0.6));
    assert_eq!(judge.look(s(1.0), &[], &list(&["a"])), []);
    judge
}

fn reported(actions: &[Action]) -> Option<TroubleKind> {
    actions.iter().find_map(|action| if let Action::Report { kind, .. } = action { Some(*kind) } else { None })
}

fn let_go(actions: &[Action]) -> Vec<u64> {
    actions.iter().filter_map(|action| if let Action::LetGo(id) = action { Some(*id) } else { None }).collect()
}

fn cures(actions: &[Action]) -> Vec<Vec<String>> {
    actions.iter().filter_map(|action| if let Action::Cure { unload, .. } = action { Some(unload.clone()) } else { None }).collect()
}

/// Looks once a second at what a test shows, until something is reported. When, and what.
fn first_report(judge: &mut Judge, seconds: std::ops::Range<u32>, seen: impl Fn(f64) -> (Vec<Answer>, List)) -> Option<(u32, TroubleKind)> {
    seconds.into_iter().find_map(|second| {
        let (answers, list) = seen(f64::from(second));
        reported(&judge.look(s(f64::from(second)), &answers, &list)).map(|kind| (second, kind))
    })
}

#[test]
fn a_leaked_slot_is_found_within_ten_seconds() {
    for slots in [None, Some(1), Some(4)] {
        let mut judge = warm(slots);
        let found = first_report(&mut judge, 2..60, |_| (vec![waiting(1, "a", 2.0)], list(&["a"])));
        assert_eq!(found, Some((11, LeakedSlot)), "{slots:?}");
    }
}

#[test]
fn a_slot_leaked_beside_others_that_work_is_found_where_slots_are_known() {
    let both = |now: f64| (vec![waiting(1, "a", 2.0), speaking(2, "a", 2.0, now)], list(&["a"]));
    assert_eq!(first_report(&mut warm(Some(2)), 2..60, both), Some((11, LeakedSlot)));
    assert_eq!(first_report(&mut warm(Some(1)), 2..60, both), None, "it waits for the only slot");
    assert_eq!(first_report(&mut warm(None), 2..60, both), None, "perhaps there is one slot");
    // It waited for a slot for a while; only then does its time begin.
    let later = |now: f64| if now < 20.0 { both(now) } else { (vec![waiting(1, "a", 2.0)], list(&["a"])) };
    assert_eq!(first_report(&mut warm(Some(1)), 2..60, later), Some((28, LeakedSlot)));
}

#[test]
fn long_prompts_get_as_long_as_they_usually_take() {
    let long = |bytes| move |_| (vec![Answer { prompt_bytes: bytes, ..waiting(1, "a", 2.0) }], list(&["a"]));
    assert_eq!(first_report(&mut warm(Some(1)), 2..200, long(10_000)), Some((53, LeakedSlot)), "50 tokens a second are believed");
    let mut judge = warm(Some(1));
    judge.learn("a", 10_000, s(5.0));
    assert_eq!(first_report(&mut judge, 2..200, long(10_000)), Some((23, LeakedSlot)), "four times what it took");
    for _ in 0..200 {
        judge.learn("a", 10_000, s(0.1));
        judge.learn("a", 300, s(9.0));
    }
    judge.cured("a", true, s(30.0));
    judge.ended(&speaking(2, "a", 30.0, 31.0), s(31.0));
    let after = |_| (vec![Answer { prompt_bytes: 10_000, ..waiting(3, "a", 32.0) }], list(&["a"]));
    assert_eq!(first_report(&mut judge, 32..200, after), Some((53, LeakedSlot)), "what caches held, and short prompts, say nothing");
    for _ in 0..200 {
        judge.learn("a", 10_000, s(2.0));
    }
    judge.cured("a", true, s(60.0));
    judge.ended(&speaking(4, "a", 60.0, 61.0), s(61.0));
    let after = |_| (vec![Answer { prompt_bytes: 10_000, ..waiting(5, "a", 62.0) }], list(&["a"]));
    assert_eq!(first_report(&mut judge, 62..200, after), Some((73, LeakedSlot)), "250 tokens a second are the most that is believed");
}

#[test]
fn loading_is_not_taken_for_a_leak() {
    let wait = |now: f64| if now > 61.0 { (vec![], list(&[])) } else { (vec![waiting(1, "a", 2.0)], list(&["a"])) };
    assert_eq!(first_report(&mut judge(Some(1)), 2..100, wait), None, "never answered: perhaps it is being loaded");
    let other = |now: f64| (vec![Answer { shape: "num_ctx=9".into(), ..waiting(1, "a", 2.0) }], wait(now).1);
    assert_eq!(first_report(&mut warm(Some(1)), 2..60, other), None, "other settings load it anew");
    // It had left memory before it was asked again.
    let mut judge = judge(Some(1));
    judge.ended(&speaking(0, "a", 0.0, 0.5), s(0.6));
    let short = |now: f64| List::Known { took: s(0.01), models: vec![Listed { model: "a".into(), stays_until: Some(s(now.min(20.0))) }] };
    judge.look(s(1.0), &[], &short(20.0));
    assert_eq!(first_report(&mut judge, 40..90, |_| (vec![waiting(1, "a", 40.0)], list(&["a"]))), None);
    // But it is not being loaded for ever.
    let ever = |_| (vec![waiting(1, "b", 2.0)], list(&["b"]));
    assert_eq!(first_report(&mut warm(Some(1)), 2..100, ever), Some((63, LeakedSlot)));
}

#[test]
fn a_stopped_runner_is_found_by_the_list_that_hangs() {
    let answers = || vec![speaking(1, "a", 2.0, 5.0)];
    for slow in [took(3.5, &["a"]), took(5.0, &[]), List::Late(s(4.0))] {
        let mut judge = warm(None);
        assert_eq!(reported(&judge.look(s(6.0), &answers(), &list(&["a"]))), None);
        let actions = judge.look(s(8.5), &answers(), &slow);
        assert_eq!(reported(&actions), Some(HungRunner), "{slow:?}");
        assert_eq!(let_go(&actions), [] as [u64; 0], "what has begun gets some time to go on");
        assert_eq!(let_go(&judge.look(s(17.0), &answers(), &list(&["a"]))), [1], "and not for ever");
    }
    let mut judge = warm(None);
    let goes_on = judge.look(s(8.5), &[speaking(1, "a", 2.0, 8.0)], &List::Late(s(4.0)));
    assert_eq!(reported(&goes_on), None, "a busy machine is slow, too");
}

#[test]
fn a_runner_that_has_left_in_the_middle_is_found() {
    let seen = |now: f64| (vec![speaking(1, "a", 2.0, 4.0)], list(if now < 5.0 { &["a"] } else { &[] }));
    assert_eq!(first_report(&mut warm(None), 2..60, seen), Some((8, HungRunner)));
}

#[test]
fn answers_that_stop_are_found_unless_silence_is_to_be_expected() {
    let stopped = |_| (vec![speaking(1, "a", 2.0, 4.0)], list(&["a"]));
    assert_eq!(first_report(&mut warm(None), 4..60, stopped), Some((13, HungRunner)));
    let tool = |_| (vec![Answer { discreet: true, ..speaking(1, "a", 2.0, 4.0) }], list(&["a"]));
    assert_eq!(first_report(&mut warm(None), 4..60, tool), None, "a call of a tool comes as a whole");
    let prompt = |_| (vec![speaking(1, "a", 2.0, 4.0), Answer { prompt_bytes: 4000, ..waiting(2, "a", 4.0) }], list(&["a"]));
    assert_eq!(first_report(&mut warm(None), 4..60, prompt), Some((25, HungRunner)), "a long prompt holds up the others");
}

#[test]
fn an_eviction_that_does_not_happen_is_found() {
    let seen = |_| (vec![waiting(1, "b", 2.0)], list(&["a"]));
    let mut judge = warm(None);
    assert_eq!(first_report(&mut judge, 2..60, seen), Some((11, EvictionDeadlock)));
    let (answers, still) = seen(12.0);
    let actions = judge.look(s(12.0), &answers, &still);
    assert_eq!(let_go(&actions), [1]);
    assert!(judge.trouble_with("b").is_some() && judge.trouble_with("a").is_none(), "the one in memory can be asked");
    assert_eq!(cures(&actions), [] as [Vec<String>; 0], "one is under way since it was found");
    judge.cured("b", false, s(12.5));
    // The other leaves: all is well.
    assert_eq!(judge.look(s(13.0), &[], &list(&[])), [Action::Gone { model: "b".into(), kind: EvictionDeadlock }]);
}

#[test]
fn a_model_in_use_or_loading_is_no_deadlock() {
    let busy = |now: f64| (vec![waiting(1, "b", 2.0), speaking(2, "a", 2.0, now)], list(&["a"]));
    assert_eq!(first_report(&mut warm(Some(1)), 2..60, busy), None, "ours keep it busy");
    let just_left = |now: f64| if now < 30.0 { busy(now) } else { (vec![waiting(1, "b", 2.0)], list(&["a"])) };
    assert_eq!(first_report(&mut warm(Some(1)), 2..60, just_left), Some((38, EvictionDeadlock)), "its time begins when it is idle");
    let loading = |_| (vec![waiting(1, "b", 2.0), waiting(2, "c", 2.0)], list(&["a", "c"]));
    assert_eq!(first_report(&mut warm(Some(1)), 2..60, loading), None, "loads go one after another");
    let empty = |_| (vec![waiting(1, "b", 2.0)], list(&[]));
    assert_eq!(first_report(&mut warm(Some(1)), 2..60, empty), None, "nothing is in its way");
    let unknown = |_| (vec![waiting(1, "b", 2.0)], List::Unknown);
    assert_eq!(first_report(&mut warm(Some(1)), 2..60, unknown), None, "a server that is not there is not stuck");
}

#[test]
fn names_that_share_a_runner_are_not_missed_while_they_speak() {
    let shared = |now: f64| (vec![speaking(1, "a", 2.0, now), speaking(2, "b", 2.0, now)], list(&["b"]));
    assert_eq!(first_report(&mut warm(Some(2)), 2..60, shared), None);
}

#[test]
fn a_cure_waits_until_nobody_of_ours_is_disturbed_and_is_tried_ever_more_rarely() {
    let mut judge = warm(Some(2));
    let both = [waiting(1, "a", 2.0), speaking(2, "a", 2.0, 11.0)];
    assert_eq!(cures(&judge.look(s(11.0), &both, &list(&["a"]))), [] as [Vec<String>; 0]);
    assert_eq!(cures(&judge.look(s(12.0), &both[1..], &list(&["a"]))), [] as [Vec<String>; 0]);
    assert_eq!(cures(&judge.look(s(13.0), &[], &list(&["a"]))), [["a"]]);
    assert_eq!(cures(&judge.look(s(14.0), &[], &list(&["a"]))), [] as [Vec<String>; 0], "one at a time");
    let mut now = 14.0;
    for pause in [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0] {
        judge.cured("a", false, s(now));
        assert!(cures(&judge.look(s(now + pause - 1.0), &[], &list(&["a"]))).is_empty(), "{pause}");
        assert_eq!(cures(&judge.look(s(now + pause), &[], &list(&["a"]))).len(), 1, "{pause}");
        now += pause;
    }
    judge.cured("a", true, s(now));
    assert!(judge.trouble_with("a").is_none());
}

#[test]
fn troubles_that_pass_by_themselves_are_taken_back() {
    let mut judge = warm(None);
    assert_eq!(reported(&judge.look(s(13.0), &[speaking(1, "a", 2.0, 4.0)], &list(&["a"]))), Some(HungRunner));
    let gone = judge.look(s(14.0), &[speaking(1, "a", 2.0, 13.5)], &list(&["a"]));
    assert_eq!(gone, [Action::Gone { model: "a".into(), kind: HungRunner }]);
    let mut judge = warm(None);
    assert_eq!(reported(&judge.look(s(11.0), &[waiting(1, "a", 2.0)], &list(&["a"]))), Some(LeakedSlot));
    assert_eq!(judge.look(s(12.0), &[waiting(1, "a", 2.0)], &list(&[])).iter().filter(|a| matches!(a, Action::Gone { .. })).count(), 0);
    assert_eq!(judge.look(s(12.5), &[], &list(&[])), [Action::Gone { model: "a".into(), kind: LeakedSlot }]);
}

#[test]
fn the_models_remembered_are_bounded() {
    let mut judge = judge(None);
    for n in 0..1000 {
        judge.ended(&speaking(n, &format!("m{n}"), 0.0, 1.0), Duration::from_secs(n));
    }
    assert!(judge.models.len() == MAX_MODELS && judge.models.contains_key("m999"));
}

proptest! {
    /// A server that loads within a minute, reads no slower than is believed and says something every few seconds is never accused.
    #[test]
    fn a_healthy_server_is_never_called_stuck(
        steps in proptest::collection::vec((0_u8..3, 0.0_f64..5.0, 0_u64..1000), 1..120),
        slots in proptest::option::of(1_u32..4),
    ) {
        let models = ["a", "b", "c"];
        let mut judge = judge(slots);
        let mut now = 0.0;
        let mut loaded: Vec<&str> = Vec::new();
        for (id, (model, pause, bytes)) in steps.into_iter().enumerate() {
            let model = models[usize::from(model)];
            let started = now;
            let asked = |spoke: Option<f64>| Answer { prompt_bytes: bytes, spoke: spoke.map(s), ..waiting(id as u64, model, started) };
            // Loading shows at once in the list, at the expense of another.
            let cold = !loaded.contains(&model);
            if cold {
                loaded.truncate(1);
                loaded.push(model);
            }
            let first = now + pause + if cold { 40.0 } else { 0.0 };
            while now < first {
                prop_assert_eq!(judge.look(s(now), &[asked(None)], &list(&loaded)), []);
                now += 1.0;
            }
            prop_assert_eq!(judge.look(s(now), &[asked(Some(first.min(now)))], &list(&loaded)), []);
            judge.ended(&asked(Some(now)), s(now));
            now += 0.2;
        }
    }

    /// Whatever is seen: no panic, at most one trouble a model, and every action is about something that was seen.
    #[test]
    fn anything_may_be_seen(
        looks in proptest::collection::vec(
            (0.0_f64..30.0, proptest::collection::vec((0_u8..3, 0.0_f64..400.0, proptest::option::of(0.0_f64..400.0)), 0..5), 0_u8..6),
            1..40,
        ),
    ) {
        let names = ["a", "b", "c"];
        let mut judge = judge(Some(2));
        let mut now = 0.0;
        for (pause, answers, listed) in looks {
            now += pause;
            let answers: Vec<Answer> = answers
                .iter()
                .enumerate()
                .map(|(id, (model, started, spoke))| Answer { spoke: spoke.map(s), ..waiting(id as u64, names[usize::from(*model)], *started) })
                .collect();
            let list = match listed {
                4 => List::Unknown,
                5 => List::Late(s(4.0)),
                n => list(&names[..usize::from(n)]),
            };
            for action in judge.look(s(now), &answers, &list) {
                match action {
                    Action::LetGo(id) => prop_assert!(answers.iter().any(|answer| answer.id == id)),
                    Action::Cure { model, unload, .. } => {
                        prop_assert!(unload.iter().all(|name| answers.iter().all(|answer| answer.model != *name)));
                        judge.cured(&model, unload.len() % 2 == 0, s(now));
                    }
                    Action::Report { model, .. } => prop_assert!(judge.trouble_with(&model).is_some()),
                    Action::Gone { .. } => {}
                }
            }
            prop_assert!(judge.troubles().count() <= 3);
        }
    }
}
