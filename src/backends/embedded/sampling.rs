//! Choosing the next token from logits. Pure: the same settings, seed and logits give the same token.
//!
//! The order of the steps is llama.cpp's: penalties, top k, typical, top p, min p, temperature.

use crate::domain::options::Options;

/// Ollama's defaults.
const TOP_K: i64 = 40;
const TOP_P: f64 = 0.9;
const TEMPERATURE: f64 = 0.8;
const REPEAT_LAST_N: i64 = 64;

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sampling {
    /// 0: always the most likely token.
    pub(super) temperature: f32,
    /// 0: all.
    pub(super) top_k: usize,
    pub(super) top_p: f32,
    pub(super) min_p: f32,
    pub(super) typical_p: f32,
    /// Tokens looked back on. `None`: all of them.
    pub(super) repeat_last_n: Option<usize>,
    pub(super) repeat_penalty: f32,
    pub(super) presence_penalty: f32,
    pub(super) frequency_penalty: f32,
    pub(super) seed: u64,
}

/// Why no token could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model gave no usable probabilities: {0}")]
pub(super) struct Unusable(&'static str);

impl Sampling {
    /// The options of a request over the defaults. `random` is the seed when the request does not fix one.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "narrower is enough, and a seed is any 64 bits")]
    pub(super) fn new(options: &Options, temperature: Option<f64>, random: u64) -> Self {
        let fraction = |value: Option<f64>, default: f64| value.unwrap_or(default) as f32;
        let count = |value: i64| usize::try_from(value).ok();
        Self {
            temperature: fraction(options.temperature.or(temperature), TEMPERATURE),
            top_k: count(options.top_k.unwrap_or(TOP_K)).unwrap_or(0),
            top_p: fraction(options.top_p, TOP_P),
            min_p: fraction(options.min_p, 0.0),
            typical_p: fraction(options.typical_p, 1.0),
            repeat_last_n: count(options.repeat_last_n.unwrap_or(REPEAT_LAST_N)),
            repeat_penalty: fraction(options.repeat_penalty, 1.0),
            presence_penalty: fraction(options.presence_penalty, 0.0),
            frequency_penalty: fraction(options.frequency_penalty, 0.0),
            seed: options.seed.filter(|seed| *seed != -1).map_or(random, |seed| seed as u64),
        }
    }

    fn has_penalties(&self) -> bool {
        (self.repeat_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)
    }

    /// The token behind `history` (prompt and answer so far); `step` counts the tokens chosen for this answer.
    pub(super) fn choose(&self, logits: &mut [f32], history: &[u32], step: u64) -> Result<u32, Unusable> {
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(Unusable("not a number"));
        }
        if self.has_penalties() {
            self.penalise(logits, history);
        }
        if self.temperature <= 0.0 {
            return greedy(logits);
        }
        let mut candidates = top_k(logits, self.top_k);
        if candidates.is_empty() {
            return Err(Unusable("no token is possible"));
        }
        typical(&mut candidates, self.typical_p);
        top_p(&mut candidates, self.top_p);
        min_p(&mut candidates, self.min_p);
        for candidate in &mut candidates {
            candidate.logit /= self.temperature;
        }
        Ok(pick(&mut candidates, uniform(self.seed, step)))
    }

    /// Makes tokens less likely that were there before (llama.cpp's `llama_sampler_penalties`).
    fn penalise(&self, logits: &mut [f32], history: &[u32]) {
        let window = self.repeat_last_n.unwrap_or(history.len()).min(history.len());
        let mut recent = history[history.len() - window..].to_vec();
        recent.sort_unstable();
        for same in recent.chunk_by(|a, b| a == b) {
            let Some(logit) = logits.get_mut(same[0] as usize) else { continue };
            #[expect(clippy::cast_precision_loss, reason = "contexts are far below 2^24 tokens")]
            let times = same.len() as f32;
            *logit = if *logit <= 0.0 { *logit * self.repeat_penalty } else { *logit / self.repeat_penalty };
            *logit -= times * self.frequency_penalty + self.presence_penalty;
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f32,
    /// Filled by [`softmax`].
    probability: f32,
}

/// The most likely token; of equals the first.
fn greedy(logits: &[f32]) -> Result<u32, Unusable> {
    let best = (0_u32..).zip(logits).fold(None, |best: Option<(u32, f32)>, (id, logit)| match best {
        Some((_, most)) if most >= *logit => best,
        _ => Some((id, *logit)),
    });
    best.filter(|(_, logit)| *logit > f32::NEG_INFINITY).map(|(id, _)| id).ok_or(Unusable("no token is possible"))
}

/// The `count` best (0: all) possible candidates, best first.
fn top_k(logits: &[f32], count: usize) -> Vec<Candidate> {
    let possible = (0_u32..).zip(logits).filter(|(_, logit)| **logit > f32::NEG_INFINITY);
    let mut candidates: Vec<Candidate> = possible.map(|(id, logit)| Candidate { id, logit: *logit, probability: 0.0 }).collect();
    let order = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id));
    if count > 0 && count < candidates.len() {
        candidates.select_nth_unstable_by(count - 1, order);
        candidates.truncate(count);
    }
    candidates.sort_unstable_by(order);
    candidates
}

/// Fills the probabilities.
fn softmax(candidates: &mut [Candidate]) {
    let most = candidates.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for candidate in candidates.iter_mut() {
        candidate.probability = (candidate.logit - most).exp();
        sum += candidate.probability;
    }
    for candidate in candidates {
        candidate.probability /= sum;
    }
}

/// Keeps candidates, in their order, until their probabilities reach `share`; at least one.
fn keep_share(candidates: &mut Vec<Candidate>, share: f32) {
    let mut sum = 0.0;
    let kept = candidates.iter().position(|candidate| {
        sum += candidate.probability;
        sum >= share
    });
    candidates.truncate(kept.map_or(candidates.len(), |last| last + 1));
}

/// Locally typical sampling (Meister et al. 2022): first those whose surprise is nearest to the expected one.
fn typical(candidates: &mut Vec<Candidate>, share: f32) {
    if share >= 1.0 {
        return;
    }
    softmax(candidates);
    let surprise = |candidate: &Candidate| -candidate.probability.max(f32::MIN_POSITIVE).ln();
    let entropy: f32 = candidates.iter().map(|candidate| candidate.probability * surprise(candidate)).sum();
    let distance = |candidate: &Candidate| (surprise(candidate) - entropy).abs();
    candidates.sort_by(|a, b| distance(a).total_cmp(&distance(b)).then(a.id.cmp(&b.id)));
    keep_share(candidates, share);
    candidates.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
}

/// Nucleus sampling (Holtzman et al. 2019).
fn top_p(candidates: &mut Vec<Candidate>, share: f32) {
    if share < 1.0 {
        softmax(candidates);
        keep_share(candidates, share);
    }
}

/// Keeps what is at least `share` times as likely as the best.
fn min_p(candidates: &mut Vec<Candidate>, share: f32) {
    if share > 0.0 {
        let least = candidates.first().map_or(0.0, |best| best.logit) + share.ln();
        let kept = candidates.iter().take_while(|candidate| candidate.logit >= least).count();
        candidates.truncate(kept.max(1));
    }
}

/// The candidate at the point `at` (0 to 1) of the summed probabilities. There is at least one.
fn pick(candidates: &mut [Candidate], at: f32) -> u32 {
    softmax(candidates);
    let mut rest = at;
    for candidate in candidates.iter() {
        rest -= candidate.probability;
        if rest < 0.0 {
            return candidate.id;
        }
    }
    // Rounding can leave a little over.
    candidates.last().map_or(0, |candidate| candidate.id)
}

/// A number from 0 up to 1 that depends on nothing but seed and step (SplitMix64: Steele et al. 2014).
#[expect(clippy::cast_precision_loss, reason = "24 bits fit a float exactly")]
fn uniform(seed: u64, step: u64) -> f32 {
    let mixed = mix(mix(seed).wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (mixed >> 40) as f32 / (1_u64 << 24) as f32
}

fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn plain() -> Sampling {
        let open = Options { top_k: Some(0), top_p: Some(1.0), temperature: Some(1.0), ..Options::default() };
        Sampling::new(&open, None, 1)
    }

    /// How often each token comes in many draws.
    fn counts(sampling: &Sampling, logits: &[f32]) -> BTreeMap<u32, u32> {
        let mut counts = BTreeMap::new();
        for step in 0..20_000 {
            *counts.entry(sampling.choose(&mut logits.to_vec(), &[], step).expect("chosen")).or_default() += 1;
        }
        counts
    }

    fn survivors(sampling: &Sampling, probabilities: &[f32]) -> Vec<u32> {
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        counts(sampling, &logits).into_keys().collect()
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let counts = counts(&plain(), &[0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln()]);
        for (id, expected) in [(0, 10_000), (1, 6_000), (2, 4_000)] {
            assert!(counts[&id].abs_diff(expected) < 400, "{counts:?}");
        }
    }

    #[test]
    fn each_filter_keeps_what_its_paper_says() {
        let p = [0.4, 0.3, 0.2, 0.1];
        assert_eq!(survivors(&Sampling { top_k: 2, ..plain() }, &p), [0, 1]);
        assert_eq!(survivors(&Sampling { top_p: 0.65, ..plain() }, &p), [0, 1]);
        assert_eq!(survivors(&Sampling { top_p: 0.0, ..plain() }, &p), [0]);
        assert_eq!(survivors(&Sampling { min_p: 0.6, ..plain() }, &p), [0, 1]);
        assert_eq!(survivors(&Sampling { min_p: 1.0, ..plain() }, &p), [0]);
        // The entropy is 1.28: the surprise of 0.3 (1.20) is nearest, then 0.2 (1.61), then 0.4 (0.92).
        assert_eq!(survivors(&Sampling { typical_p: 0.25, ..plain() }, &p), [1]);
        assert_eq!(survivors(&Sampling { typical_p: 0.45, ..plain() }, &p), [1, 2]);
    }

    #[test]
    fn no_temperature_takes_the_best_and_of_equals_the_first() {
        let greedy = Sampling { temperature: 0.0, ..plain() };
        assert_eq!(greedy.choose(&mut [1.0, 3.0, 3.0, f32::NEG_INFINITY], &[], 0), Ok(1));
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "the numbers are exact")]
    fn penalties_are_llama_cpps() {
        let greedy = Sampling { temperature: 0.0, ..plain() };
        let after = |sampling: &Sampling, history: &[u32]| {
            let mut logits = [2.0, -1.0, 1.5];
            sampling.choose(&mut logits, history, 0).expect("chosen");
            logits
        };
        assert_eq!(after(&Sampling { repeat_penalty: 2.0, ..greedy.clone() }, &[0, 1, 1]), [1.0, -2.0, 1.5]);
        assert_eq!(after(&Sampling { frequency_penalty: 0.5, ..greedy.clone() }, &[1, 1, 0]), [1.5, -2.0, 1.5]);
        assert_eq!(after(&Sampling { presence_penalty: 0.5, ..greedy.clone() }, &[1, 1, 0]), [1.5, -1.5, 1.5]);
        let short = Sampling { presence_penalty: 0.5, repeat_last_n: Some(1), ..greedy.clone() };
        assert_eq!(after(&short, &[1, 1, 0]), [1.5, -1.0, 1.5]);
        assert_eq!(after(&Sampling { repeat_last_n: None, ..short.clone() }, &[1, 1, 0]), [1.5, -1.5, 1.5]);
        assert_eq!(after(&Sampling { repeat_last_n: Some(0), ..short }, &[1, 1, 9999]), [2.0, -1.0, 1.5]);
    }

    #[test]
    fn the_seed_decides_and_minus_one_is_none() {
        let with = |seed| Sampling::new(&Options { seed, ..Options::default() }, None, 77).seed;
        assert_eq!((with(Some(5)), with(None), with(Some(-1))), (5, 77, 77));
        let draw = |seed| (0..50).map(|step| Sampling { seed, ..plain() }.choose(&mut [0.0; 100], &[], step)).collect::<Vec<_>>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn numbers_that_are_none_are_an_error() {
        for bad in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
            for temperature in [0.0, 1.0] {
                assert!(Sampling { temperature, ..plain() }.choose(&mut bad.clone(), &[], 0).is_err());
            }
        }
        assert!(plain().choose(&mut [], &[], 0).is_err());
    }

    proptest! {
        #[test]
        fn whatever_the_settings_a_possible_token_is_chosen(
            logits in proptest::collection::vec(prop_oneof![-50.0..50.0_f32, Just(f32::NEG_INFINITY), Just(f32::MAX), Just(f32::MIN)], 1..40),
            top_k in 0..50_usize, top_p in 0.0..=1.0_f32, min_p in 0.0..=1.0_f32, typical_p in 0.0..=1.0_f32,
            temperature in prop_oneof![Just(0.0), Just(f32::MAX), 1e-30..3.0_f32], step in any::<u64>(),
        ) {
            prop_assume!(logits.iter().any(|logit| *logit > f32::NEG_INFINITY));
            let sampling = Sampling { temperature, top_k, top_p, min_p, typical_p, ..plain() };
            let id = sampling.choose(&mut logits.clone(), &[], step).expect("chosen");
            prop_assert!(logits[id as usize] > f32::NEG_INFINITY);
        }
    }
}
