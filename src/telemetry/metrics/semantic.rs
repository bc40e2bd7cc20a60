//! Figures of the prefix and the semantic cache.

use std::time::Duration;

use super::{
    Metrics, PREFIX_BLOCKS, PREFIX_CACHED_TOKENS, PREFIX_EVICTED, PREFIX_PREDICTIONS, PREFIX_SAVED, SEMANTIC_BYTES, SEMANTIC_CHECKS,
    SEMANTIC_ENTRIES, SEMANTIC_EVICTED, SEMANTIC_FALSE_HITS, SEMANTIC_LOOKUPS, SEMANTIC_THRESHOLD, WARM_SENT, number,
};

impl Metrics {
    /// What the prefix index holds now, and how much it forgot because of a bound.
    pub fn prefix_blocks(&self, blocks: usize, evicted: usize) {
        self.0.registry.gauge(&PREFIX_BLOCKS, &[]).set(number(blocks as u64));
        self.0.registry.counter(&PREFIX_EVICTED, &[]).increment(evicted as u64);
    }

    /// What an answer said about a prediction; `result` is a word from a closed set.
    pub fn prefix_observed(&self, backend: &str, result: &'static str, cached_tokens: Option<u64>, saved: Option<Duration>) {
        let registry = &self.0.registry;
        registry.counter(&PREFIX_PREDICTIONS, &[backend, result]).increment(1);
        registry.counter(&PREFIX_CACHED_TOKENS, &[backend]).increment(cached_tokens.unwrap_or(0));
        let saved_ms = saved.map_or(0, |saved| u64::try_from(saved.as_millis()).unwrap_or(u64::MAX));
        registry.counter(&PREFIX_SAVED, &[backend]).increment(saved_ms);
    }

    /// A prompt was sent to keep it warm; `cause` is a word from a closed set.
    pub fn warm_sent(&self, cause: &'static str, worked: bool) {
        self.0.registry.counter(&WARM_SENT, &[cause, if worked { "ok" } else { "failed" }]).increment(1);
    }

    /// A lookup in the semantic cache; `result` is a word from a closed set.
    pub fn semantic_lookup(&self, result: &'static str) {
        self.0.registry.counter(&SEMANTIC_LOOKUPS, &[result]).increment(1);
    }

    /// What the semantic cache holds now.
    pub fn semantic_size(&self, entries: usize, bytes: usize) {
        self.0.registry.gauge(&SEMANTIC_ENTRIES, &[]).set(number(entries as u64));
        self.0.registry.gauge(&SEMANTIC_BYTES, &[]).set(number(bytes as u64));
    }

    /// Answers that left the semantic cache; `reason` is a word from a closed set.
    pub fn semantic_evicted(&self, reason: &'static str, entries: usize) {
        self.0.registry.counter(&SEMANTIC_EVICTED, &[reason]).increment(entries as u64);
    }

    /// A hit that was checked, whatever was found.
    pub fn semantic_checked(&self, ok: bool) {
        self.0.registry.counter(&SEMANTIC_CHECKS, &[if ok { "ok" } else { "false_hit" }]).increment(1);
    }

    /// Where the threshold stands, and the measured share of false hits with the bounds of its confidence.
    pub fn semantic_threshold(&self, threshold: f32, measured: f64, lower: f64, upper: f64) {
        self.0.registry.gauge(&SEMANTIC_THRESHOLD, &[]).set(f64::from(threshold));
        for (bound, value) in [("measured", measured), ("lower", lower), ("upper", upper)] {
            self.0.registry.gauge(&SEMANTIC_FALSE_HITS, &[bound]).set(value);
        }
    }
}
