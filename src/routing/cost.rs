//! What it costs to ask a backend, in seconds: the one with the least is asked.
//!
//! ```text
//! cost = (ttft × (1 + in_flight / slots) + wait + load − warm) ÷ (weight × share)
//!
//! ttft   peak EWMA of its times to the first token; a failure counts as a slow one          [ewma]
//! wait   whole answers that must end first: (in_flight + 1 − slots) / slots × usual answer, at least 0
//! load   0 when the model is in its memory, else the time that loading it took, or an estimate
//! warm   the time that a prefix in its cache saves; at the most it takes everything before it away
//! weight from the configuration; share grows to 1 during the slow start                      [outlier]
//! ```
//!
//! `ttft × (1 + in_flight / slots)` is Finagle's and linkerd's cost, for a server that works on `slots` requests at a time. A
//! backend that is down costs a day more: it is asked when nothing else is left. Pure.

use std::time::Duration;

/// What the caller knows of a backend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Whether its last check succeeded.
    pub up: bool,
    /// Whether the model's weights are in its memory now.
    pub loaded: bool,
    /// Generations of the model running or waiting there now.
    pub in_flight: u32,
    /// Generations of the model it works on at a time; 0 means 1.
    pub slots: u32,
    /// The time that a prefix in its cache saves.
    pub warm_saves: Duration,
    /// How much it is to do in relation to the others, above 0.
    pub weight: f64,
}

impl Default for Look {
    fn default() -> Self {
        Self { up: true, loaded: true, in_flight: 0, slots: 1, warm_saves: Duration::ZERO, weight: 1.0 }
    }
}

/// What was learnt of a backend, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learnt {
    pub ttft_s: f64,
    /// A whole answer.
    pub answer_s: f64,
    pub load_s: f64,
    /// 1, or less during the slow start.
    pub share: f64,
}

/// What being down costs.
const DOWN_S: f64 = 86_400.0;
/// Nothing costs less than this, so that weights still mean something.
const LEAST_S: f64 = 0.000_1;
/// The least weight, so that nothing is divided by nothing.
const LEAST_WEIGHT: f64 = 0.000_1;

/// The cost in seconds. See the module for the formula.
#[must_use]
pub fn cost(look: &Look, learnt: &Learnt) -> f64 {
    let (busy, slots) = (f64::from(look.in_flight), f64::from(look.slots.max(1)));
    let ttft = learnt.ttft_s * (1.0 + busy / slots);
    let wait = ((busy + 1.0 - slots) / slots).max(0.0) * learnt.answer_s;
    let load = if look.loaded { 0.0 } else { learnt.load_s };
    let seconds = (ttft + wait + load - look.warm_saves.as_secs_f64()).max(LEAST_S);
    let part = (look.weight * learnt.share).max(LEAST_WEIGHT);
    seconds / part + if look.up { 0.0 } else { DOWN_S }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEARNT: Learnt = Learnt { ttft_s: 0.2, answer_s: 4.0, load_s: 5.0, share: 1.0 };

    fn of(look: Look) -> f64 {
        cost(&look, &LEARNT)
    }

    #[test]
    fn the_formula_is_the_one_in_the_documentation() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        near(of(Look::default()), 0.2);
        near(of(Look { in_flight: 2, slots: 4, ..Look::default() }), 0.3);
        near(of(Look { in_flight: 4, slots: 4, ..Look::default() }), 0.4 + 1.0);
        near(of(Look { in_flight: 1, ..Look::default() }), 0.4 + 4.0);
        near(of(Look { loaded: false, ..Look::default() }), 5.2);
        near(of(Look { warm_saves: Duration::from_millis(150), ..Look::default() }), 0.05);
        near(of(Look { weight: 2.0, ..Look::default() }), 0.1);
        near(cost(&Look::default(), &Learnt { share: 0.1, ..LEARNT }), 2.0);
        near(of(Look { up: false, ..Look::default() }), 0.2 + DOWN_S);
    }

    #[test]
    fn an_order_of_preferences_holds() {
        let idle = Look { slots: 4, ..Look::default() };
        // From the best to the worst.
        let row = [
            Look { warm_saves: Duration::from_secs(1), ..idle },
            idle,
            Look { in_flight: 2, ..idle },
            Look { in_flight: 4, ..idle },
            Look { loaded: false, ..idle },
            Look { loaded: false, in_flight: 4, ..idle },
            Look { up: false, ..idle },
        ];
        assert!(row.map(of).is_sorted_by(|a, b| a < b), "{:?}", row.map(of));
    }

    proptest! {
        /// Worse in any one respect never costs less, and a cost is always a positive number.
        #[test]
        fn cost_rises_with_everything_bad(
            in_flight in 0_u32..1000, slots in 0_u32..64, warm_ms in 0_u64..100_000, weight in 0.0_f64..10.0, ttft in 0.0_f64..100.0,
            loaded: bool, up: bool, share in 0.0_f64..1.0,
        ) {
            let look = Look { up, loaded, in_flight, slots, warm_saves: Duration::from_millis(warm_ms), weight };
            let learnt = Learnt { ttft_s: ttft, share, ..LEARNT };
            let base = cost(&look, &learnt);
            prop_assert!(base.is_finite() && base > 0.0);
            let worse = [
                cost(&Look { in_flight: in_flight + 1, ..look }, &learnt),
                cost(&Look { loaded: false, ..look }, &learnt),
                cost(&Look { up: false, ..look }, &learnt),
                cost(&look, &Learnt { ttft_s: ttft + 1.0, ..learnt }),
            ];
            let better = [
                cost(&Look { weight: weight + 1.0, ..look }, &learnt),
                cost(&Look { warm_saves: look.warm_saves + Duration::from_secs(1), ..look }, &learnt),
            ];
            prop_assert!(worse.iter().all(|cost| *cost >= base), "{base} {worse:?}");
            prop_assert!(better.iter().all(|cost| *cost <= base), "{base} {better:?}");
        }
    }
}
