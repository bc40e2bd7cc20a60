//! What limits let in and hold back.

use super::{
    LIMIT_ACCOUNTS_SHARED, LIMIT_ADDRESSES_FORGOTTEN, LIMIT_BUDGET_WRITE_FAILURES, LIMIT_DEBT, LIMIT_REFUSALS, LIMIT_RESERVATIONS,
    LIMIT_TOKENS_RESERVED, LIMIT_TOKENS_SETTLED, Metrics, number,
};

const INPUT: &str = "input";
const OUTPUT: &str = "output";

impl Metrics {
    pub(super) fn start_limits_at_zero(&self) {
        let registry = &self.0.registry;
        for counter in [&LIMIT_ACCOUNTS_SHARED, &LIMIT_ADDRESSES_FORGOTTEN, &LIMIT_BUDGET_WRITE_FAILURES] {
            registry.counter(counter, &[]).absolute(0);
        }
        for kind in [INPUT, OUTPUT] {
            registry.counter(&LIMIT_TOKENS_RESERVED, &[kind]).absolute(0);
            registry.counter(&LIMIT_TOKENS_SETTLED, &[kind]).absolute(0);
        }
        for gauge in [&LIMIT_RESERVATIONS, &LIMIT_DEBT] {
            registry.gauge(gauge, &[]).set(0.0);
        }
    }

    /// A limit was in the way; both words are from closed sets, such as `limits::Kind` and `limits::Scope` give.
    pub fn limit_refused(&self, kind: &'static str, scope: &'static str) {
        self.0.registry.counter(&LIMIT_REFUSALS, &[kind, scope]).increment(1);
    }

    /// A request was let in, and is expected to use this much.
    pub fn limit_reserved(&self, prompt_tokens: u64, generated_tokens: u64) {
        self.0.registry.gauge(&LIMIT_RESERVATIONS, &[]).increment(1.0);
        self.0.registry.counter(&LIMIT_TOKENS_RESERVED, &[INPUT]).increment(prompt_tokens);
        self.0.registry.counter(&LIMIT_TOKENS_RESERVED, &[OUTPUT]).increment(generated_tokens);
    }

    /// A request that was let in has ended, and used this much.
    pub fn limit_settled(&self, prompt_tokens: u64, generated_tokens: u64) {
        self.0.registry.gauge(&LIMIT_RESERVATIONS, &[]).decrement(1.0);
        self.0.registry.counter(&LIMIT_TOKENS_SETTLED, &[INPUT]).increment(prompt_tokens);
        self.0.registry.counter(&LIMIT_TOKENS_SETTLED, &[OUTPUT]).increment(generated_tokens);
    }

    /// All that is owed now.
    pub fn limit_debt(&self, tokens: u64) {
        self.0.registry.gauge(&LIMIT_DEBT, &[]).set(number(tokens));
    }

    pub fn limit_accounts_shared(&self, times: u64) {
        self.add(&LIMIT_ACCOUNTS_SHARED, times);
    }

    pub fn limit_addresses_forgotten(&self, addresses: u64) {
        self.add(&LIMIT_ADDRESSES_FORGOTTEN, addresses);
    }

    pub fn limit_budgets_not_written(&self) {
        self.add(&LIMIT_BUDGET_WRITE_FAILURES, 1);
    }

    fn add(&self, counter: &'static super::MetricSpec, times: u64) {
        if times > 0 {
            self.0.registry.counter(counter, &[]).increment(times);
        }
    }
}
