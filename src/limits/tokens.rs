//! Tokens a minute, of prompts and generated: an estimate is reserved, the truth is settled.
//!
//! Nobody knows beforehand how long an answer becomes. So a request that turned out larger than its estimate leaves a debt, which
//! time pays off before the next one is let in; one that turned out smaller gets the rest back. An estimate larger than a whole
//! minute's share is let in when nothing of the share is in use: it would otherwise never be. In the long run no more is used than
//! the rate gives.

use super::meter::{Meter, Rate};
use super::refusal::{Bound, Measure, Scope};
use crate::domain::allowance::Allowance;

/// Tokens of prompt and answer: of an estimate, or of what was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub prompt: u64,
    pub generated: u64,
}

impl Amount {
    pub fn total(self) -> u64 {
        self.prompt.saturating_add(self.generated)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    prompt: Meter,
    generated: Meter,
}

fn rate(limit: Option<u64>) -> Option<Rate> {
    limit.map(|limit| Rate::per_minute(limit, limit))
}

fn rates(allowance: &Allowance) -> (Option<Rate>, Option<Rate>) {
    (rate(allowance.prompt_tokens_per_minute), rate(allowance.generated_tokens_per_minute))
}

/// Charges what was used beyond what was reserved, or gives back the rest.
fn correct(meter: &mut Meter, rate: Option<Rate>, reserved: u64, used: u64, now_ns: u64) {
    let Some(rate) = rate else { return };
    meter.remove(rate, reserved.saturating_sub(used), now_ns);
    meter.add(rate, used.saturating_sub(reserved), now_ns);
}

impl Tokens {
    /// How these bounds stand for a request with this estimate.
    pub fn bounds(&self, scope: Scope, allowance: &Allowance, ask: Amount, now_ns: u64) -> impl Iterator<Item = Bound> {
        let (prompt, generated) = rates(allowance);
        let both = [
            (Measure::PromptTokensPerMinute, prompt, self.prompt, ask.prompt),
            (Measure::GeneratedTokensPerMinute, generated, self.generated, ask.generated),
        ];
        both.into_iter().filter_map(move |(measure, rate, meter, amount)| {
            let rate = rate?;
            let mut bound = Bound::of_meter(scope, measure, &meter, rate, amount.min(rate.burst()), now_ns);
            if rate.burst() == 0 && amount > 0 {
                bound.close();
            }
            Some(bound)
        })
    }

    /// Reserves an estimate; tells how much of it is on the meters. Where there is no rate nothing is.
    pub fn reserve(&mut self, allowance: &Allowance, ask: Amount, now_ns: u64) -> Amount {
        self.settle(allowance, Amount::default(), ask, now_ns);
        let (prompt, generated) = rates(allowance);
        Amount { prompt: prompt.map_or(0, |_| ask.prompt), generated: generated.map_or(0, |_| ask.generated) }
    }

    /// Puts what was used in the place of what is on the meters.
    pub fn settle(&mut self, allowance: &Allowance, reserved: Amount, used: Amount, now_ns: u64) {
        let (prompt, generated) = rates(allowance);
        correct(&mut self.prompt, prompt, reserved.prompt, used.prompt, now_ns);
        correct(&mut self.generated, generated, reserved.generated, used.generated, now_ns);
    }

    /// Tokens used beyond what the rates allow, and not paid off yet.
    pub fn debt(&self, allowance: &Allowance, now_ns: u64) -> u64 {
        let (prompt, generated) = rates(allowance);
        let of = |meter: &Meter, rate: Option<Rate>| rate.map_or(0, |rate| meter.debt(rate, now_ns));
        of(&self.prompt, prompt).saturating_add(of(&self.generated, generated))
    }

    /// To be called before the allowance changes.
    pub fn catch_up(&mut self, allowance: &Allowance, now_ns: u64) {
        let (prompt, generated) = rates(allowance);
        self.prompt.catch_up(prompt, now_ns);
        self.generated.catch_up(generated, now_ns);
    }

    pub fn is_idle(&self, allowance: &Allowance, now_ns: u64) -> bool {
        let (prompt, generated) = rates(allowance);
        prompt.is_none_or(|rate| self.prompt.is_empty(rate, now_ns)) && generated.is_none_or(|rate| self.generated.is_empty(rate, now_ns))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::meter::Wait;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn allowance(prompt: u64, generated: u64) -> Allowance {
        Allowance { prompt_tokens_per_minute: Some(prompt), generated_tokens_per_minute: Some(generated), ..Allowance::default() }
    }

    fn wait(tokens: &Tokens, allowance: &Allowance, ask: Amount, now_ns: u64) -> Wait {
        tokens.bounds(Scope::Key, allowance, ask, now_ns).map(|bound| bound.wait).find(|wait| *wait != Wait::Free).unwrap_or(Wait::Free)
    }

    proptest! {
        #[test]
        fn settling_is_exact_and_more_than_the_rate_gives_is_only_let_in_by_a_request(
            steps in prop::collection::vec((0_u64..30, 0_u64..200, 0_u64..300), 1..100),
        ) {
            // Each is settled at once: then the meter holds exactly what was used, less what time has made good.
            let allowance = allowance(60, 60);
            let (mut tokens, mut level, mut now) = (Tokens::default(), 0_u64, 0_u64);
            for (pause, estimate, truth) in steps {
                now += pause * SECOND;
                level = level.saturating_sub(pause);
                let ask = Amount { prompt: 0, generated: estimate };
                let free = wait(&tokens, &allowance, ask, now) == Wait::Free;
                prop_assert_eq!(free, level + estimate.min(60) <= 60);
                if free {
                    tokens.reserve(&allowance, ask, now);
                    tokens.settle(&allowance, ask, Amount { prompt: 0, generated: truth }, now);
                    level += truth;
                }
                prop_assert_eq!(tokens.debt(&allowance, now), level.saturating_sub(60));
            }
        }
    }

    #[test]
    fn a_debt_holds_back_until_it_is_paid() {
        let (allowance, ask) = (allowance(600, 60), Amount { prompt: 10, generated: 30 });
        let mut tokens = Tokens::default();
        tokens.reserve(&allowance, ask, 0);
        tokens.settle(&allowance, ask, Amount { prompt: 10, generated: 120 }, 0);
        assert_eq!(tokens.debt(&allowance, 0), 60);
        assert_eq!(wait(&tokens, &allowance, ask, 0), Wait::For(Duration::from_secs(90)));
        assert_eq!(wait(&tokens, &allowance, ask, 90 * SECOND), Wait::Free);
        assert!(!tokens.is_idle(&allowance, 119 * SECOND) && tokens.is_idle(&allowance, 120 * SECOND));
    }

    #[test]
    fn an_estimate_beyond_the_share_waits_for_all_of_it() {
        let (allowance, huge) = (allowance(600, 60), Amount { prompt: 0, generated: 1_000 });
        let mut tokens = Tokens::default();
        assert_eq!(wait(&tokens, &allowance, huge, 0), Wait::Free);
        tokens.reserve(&allowance, Amount { prompt: 0, generated: 1 }, 0);
        assert_eq!(wait(&tokens, &allowance, huge, 0), Wait::For(Duration::from_secs(1)));
    }

    #[test]
    fn a_share_of_nothing_lets_in_only_what_asks_for_nothing() {
        let none = allowance(0, 0);
        assert_eq!(wait(&Tokens::default(), &none, Amount { prompt: 1, generated: 0 }, 0), Wait::Never);
        assert_eq!(wait(&Tokens::default(), &none, Amount::default(), 0), Wait::Free);
    }
}
