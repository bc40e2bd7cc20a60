use std::time::Duration;

use super::*;

fn tenant(counter: u64, items: &[(Id, u64)]) -> TenantNow {
    let item = |&(id, cost): &(Id, u64)| ItemNow { due: Duration::from_secs(id), id, cost, service_s: Some(1.0) };
    TenantNow { counter, weight: 1, items: items.iter().map(item).collect() }
}

fn lane(classes: Vec<Vec<TenantNow>>, slots_s: &[f64]) -> LaneNow {
    let classes = classes.into_iter().map(|tenants| ClassNow { tenants, factor: 1.0 }).collect();
    LaneNow { classes, slots_s: slots_s.to_vec(), loading: false }
}

fn ids(stands: &[Stands]) -> Vec<Id> {
    stands.iter().map(|stands| stands.id).collect()
}

#[test]
fn tenants_take_turns_by_what_they_were_and_will_be_served() {
    let stands = standing(lane(vec![vec![tenant(0, &[(1, 10), (2, 10), (3, 10)]), tenant(5_000_000, &[(4, 10), (5, 10)])]], &[0.0]));
    assert_eq!(ids(&stands), [1, 4, 2, 5, 3]);
    assert_eq!(stands.iter().map(|s| s.ahead).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn higher_classes_go_first_and_are_counted() {
    let stands = standing(lane(vec![vec![tenant(0, &[(9, 1)])], vec![tenant(0, &[(1, 1), (2, 1)])]], &[0.0]));
    assert_eq!(ids(&stands), [9, 1, 2]);
    assert_eq!(stands.iter().map(|s| s.higher).collect::<Vec<_>>(), [0, 1, 1]);
}

#[test]
fn the_slots_are_filled_one_after_the_other() {
    let stands = standing(lane(vec![vec![tenant(0, &[(1, 1), (2, 1), (3, 1)])]], &[0.5, 2.0]));
    assert_eq!(stands.iter().map(|s| s.eta_s).collect::<Vec<_>>(), [Some(0.5), Some(1.5), Some(2.0)]);
    let nobody = standing(lane(vec![vec![tenant(0, &[(1, 1)])]], &[]));
    assert_eq!(nobody[0].eta_s, None);
}

#[test]
fn a_place_that_is_shown_gets_worse_only_by_higher_classes() {
    let stands = |ahead, higher| Stands { id: 1, ahead, higher, reason: Reason::Busy, eta_s: None, left_s: None };
    assert_eq!(shown(None, &stands(7, 2)), 7);
    assert_eq!(shown(Some((5, 2)), &stands(7, 2)), 5, "others overtook it within its class: not shown");
    assert_eq!(shown(Some((5, 2)), &stands(7, 3)), 6);
    assert_eq!(shown(Some((5, 2)), &stands(9, 9)), 9);
    assert_eq!(shown(Some((5, 2)), &stands(3, 0)), 3);
}
