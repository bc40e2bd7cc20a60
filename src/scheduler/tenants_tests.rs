use std::time::Duration;

use super::*;

const NOW: At = Duration::from_secs(100);
/// No credit.
const NONE: Duration = Duration::ZERO;

fn name(name: &str) -> Arc<str> {
    name.into()
}

fn item(id: Id) -> Item {
    Item { due: Duration::from_secs(id), id, service_s: 1.0 }
}

/// Serves as many turns as asked, each of `tokens(tenant)`, with everyone always waiting. What each was served, before weights.
fn served(weights: &[(&str, u32)], turns: usize, tokens: impl Fn(&str) -> u64) -> HashMap<String, u64> {
    let mut tenants = Tenants::default();
    let mut names = HashMap::new();
    for (n, (who, weight)) in weights.iter().enumerate() {
        tenants.insert(&name(who), *weight, &item(n as Id), NOW, NONE);
        names.insert(n as Id, *who);
    }
    let mut served = HashMap::new();
    for _ in 0..turns {
        let id = tenants.in_order().next().expect("all wait");
        let cost = tokens(names[&id]);
        tenants.served(&name(names[&id]), cost);
        *served.entry(names[&id].to_owned()).or_default() += cost;
    }
    served
}

#[test]
fn whatever_they_ask_for_they_are_served_the_same() {
    let served = served(&[("short", 1), ("long", 1)], 1_000, |who| if who == "long" { 500 } else { 20 });
    assert!(served["short"].abs_diff(served["long"]) <= 500, "{served:?}");
}

#[test]
fn weights_divide_what_there_is() {
    let served = served(&[("one", 1), ("three", 3)], 4_000, |_| 100);
    assert!(served["three"].abs_diff(3 * served["one"]) <= 600, "{served:?}");
}

#[test]
fn equals_take_turns() {
    let mut tenants = Tenants::default();
    for (n, who) in ["a", "b", "c"].iter().enumerate() {
        tenants.insert(&name(who), 1, &item(n as Id), NOW, NONE);
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        let id = tenants.in_order().next().expect("all wait");
        order.push(id);
        tenants.served(&name(["a", "b", "c"][usize::try_from(id).expect("small")]), 10);
    }
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn who_was_away_has_saved_up_nothing_and_keeps_what_it_owes() {
    let mut tenants = Tenants::default();
    tenants.insert(&name("busy"), 1, &item(1), NOW, NONE);
    tenants.served(&name("busy"), 1_000);
    tenants.insert(&name("new"), 1, &item(2), NOW, NONE);
    tenants.served(&name("new"), 1);
    assert_eq!(tenants.in_order().next(), Some(1), "one token more than the other, from the same start");
    tenants.charge(&name("busy"), 5_000);
    tenants.remove(&name("busy"), &item(1));
    tenants.insert(&name("busy"), 1, &item(3), NOW, NONE);
    assert_eq!(tenants.in_order().collect::<Vec<_>>(), [2, 3], "leaving for a moment pays no debt");
    assert_eq!(tenants.lead("busy"), 4_999);
    tenants.refund(&name("busy"), 5_000);
    assert_eq!(tenants.in_order().next(), Some(3));
}

/// A tenant that asks for its share of the turns, but unevenly, beside one that always waits: how many turns the other has
/// while its burst is served.
fn turns_of_the_other_during_a_burst(credit: Duration) -> usize {
    let (mut tenants, mut now) = (Tenants::default(), NOW);
    tenants.insert(&name("uneven"), 1, &item(0), now, credit);
    tenants.served(&name("uneven"), 1);
    tenants.remove(&name("uneven"), &item(0));
    for id in 100..200 {
        tenants.insert(&name("busy"), 1, &item(id), now, credit);
    }
    for id in 100..120 {
        now += Duration::from_millis(500);
        tenants.served(&name("busy"), 10);
        tenants.remove(&name("busy"), &item(id));
        tenants.insert(&name("busy"), 1, &item(id + 100), now, credit);
    }
    for id in 1..=5 {
        tenants.insert(&name("uneven"), 1, &item(id), now, credit);
    }
    let mut others = 0;
    while tenants.waiting_of("uneven") > 0 {
        let id = tenants.in_order().next().expect("all wait");
        let who = if id < 100 { "uneven" } else { "busy" };
        others += usize::from(id >= 100);
        tenants.served(&name(who), 10);
        tenants.remove(&name(who), &item(id));
    }
    others
}

#[test]
fn what_was_left_unused_lately_may_be_used_at_once_and_no_more_than_that() {
    assert_eq!(turns_of_the_other_during_a_burst(Duration::from_secs(10)), 0);
    // One second is two turns of the other, and the burst has five.
    assert!((1..4).contains(&turns_of_the_other_during_a_burst(Duration::from_secs(1))));
    assert!(turns_of_the_other_during_a_burst(NONE) >= 4);
}

#[test]
fn a_newcomer_has_no_credit_and_a_long_absence_earns_no_more_than_a_short_one() {
    let credit = Duration::from_secs(10);
    let mut tenants = Tenants::default();
    tenants.insert(&name("away"), 1, &item(0), NOW, credit);
    tenants.remove(&name("away"), &item(0));
    for n in 1..1_000 {
        let at = NOW + Duration::from_secs(n);
        tenants.insert(&name("busy"), 1, &item(n), at, credit);
        tenants.served(&name("busy"), 100);
    }
    assert!(tenants.past.len() <= 2 * STEPS as usize, "{}", tenants.past.len());
    let at = NOW + Duration::from_secs(1_000);
    tenants.insert(&name("new"), 1, &item(5_000), at, credit);
    tenants.insert(&name("away"), 1, &item(5_001), at, credit);
    let counter = |who: &str| tenants.known[who].rank.0 / UNIT;
    assert!(counter("new") >= counter("busy") - 100);
    assert!((900..=1_100).contains(&(counter("busy") - counter("away"))), "{} {}", counter("busy"), counter("away"));
}

#[test]
fn within_a_tenant_the_due_time_decides() {
    let mut tenants = Tenants::default();
    for id in [5, 3, 4] {
        tenants.insert(&name("t"), 1, &item(id), NOW, NONE);
    }
    assert_eq!(tenants.in_order().collect::<Vec<_>>(), [3, 4, 5]);
    tenants.remove(&name("t"), &item(3));
    tenants.remove(&name("t"), &item(3));
    assert_eq!((tenants.in_order().next(), tenants.waiting_of("t")), (Some(4), 2));
}

#[test]
fn tenants_that_come_and_go_are_forgotten() {
    let mut tenants = Tenants::default();
    for n in 0..50_000_u64 {
        let who = name(&n.to_string());
        tenants.insert(&who, 1, &item(n), NOW, NONE);
        tenants.served(&who, 10);
        tenants.remove(&who, &item(n));
    }
    assert!(tenants.known.len() <= MOST_IDLE + 3 && tenants.active.is_empty(), "{}", tenants.known.len());
}

#[test]
fn what_goes_before_a_newcomer_is_a_turn_of_each_not_a_backlog() {
    let mut tenants = Tenants::default();
    for id in 0..100 {
        tenants.insert(&name("heavy"), 1, &item(id), NOW, NONE);
    }
    let light = tenants.ahead_s("light", 1.0, 100.0, 1.0);
    assert!(light <= 1.0, "{light}");
    let more = tenants.ahead_s("heavy", 1.0, 100.0, 1.0);
    assert!((more - 100.0).abs() < 1e-6, "{more}");
    let short = tenants.ahead_s("heavy", 0.1, 100.0, 1.0);
    assert!(short < 1e-6, "shorter than all of its own: {short}");
}
