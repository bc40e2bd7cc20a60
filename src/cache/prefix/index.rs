//! The beginnings that each backend holds. Pure.
//!
//! What a server keeps is modelled as it is (ollama-compat, section 2.3): whole prompts, the oldest given up first when they are too
//! many tokens together; a prompt that goes on from another replaces it. Hashes are chained, so a prompt is held up to the last
//! of its blocks that is known.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::Config;
use super::chain::{Chain, model_hash};
use super::sessions::Sessions;
use super::speed::Speed;
use crate::domain::generation::{Timing, Usage};
use crate::domain::id::ModelName;

/// What one backend holds of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Warm {
    pub backend: Arc<str>,
    /// The first blocks of the prompt that it has read before.
    pub blocks: usize,
    /// About how many tokens these are.
    pub tokens: u64,
    /// The time that saves. `None` until the speed of the backend is known.
    pub saves: Option<Duration>,
}

/// What an answer said about a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was predicted warm, and it was.
    Hit,
    /// It was predicted warm, and was read anew.
    Miss,
    /// Nothing was predicted, and the backend had it all the same.
    Surprise,
    /// Nothing was predicted, and nothing was there.
    Cold,
    /// The backend says too little to tell.
    Unknown,
}

impl Verdict {
    pub const ALL: [Self; 5] = [Self::Hit, Self::Miss, Self::Surprise, Self::Cold, Self::Unknown];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Surprise => "surprise",
            Self::Cold => "cold",
            Self::Unknown => "unknown",
        }
    }
}

/// What was learnt from one answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    pub verdict: Verdict,
    /// As the backend said, or as its speed shows.
    pub cached_tokens: Option<u64>,
    /// The time that the cached tokens saved.
    pub saved: Option<Duration>,
    /// Blocks that were forgotten because of a bound.
    pub evicted: usize,
}

/// One model on one backend.
#[derive(Debug, Default)]
struct Runner {
    /// By age, the oldest first.
    prompts: BTreeMap<u64, Held>,
    /// The age of the prompt that ends with this block.
    ends: HashMap<u64, u64>,
    /// How many prompts have this block, and about how many tokens there are up to its end.
    blocks: HashMap<u64, (u32, u64)>,
    tokens: u64,
    speed: Speed,
}

#[derive(Debug)]
struct Held {
    hashes: Vec<u64>,
    tokens: u64,
}

/// Which backend holds which beginnings, and where sessions are. See the module.
#[derive(Debug)]
pub struct PrefixIndex {
    config: Config,
    runners: BTreeMap<(Arc<str>, u64), Runner>,
    sessions: Sessions,
    blocks: usize,
    now: u64,
}

impl PrefixIndex {
    #[must_use]
    pub fn new(config: Config) -> Self {
        let sessions = Sessions::new(config.max_sessions);
        Self { config, runners: BTreeMap::new(), sessions, blocks: 0, now: 0 }
    }

    /// Blocks remembered now.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// A backend has read, or is reading, this prompt. Tells how many blocks were forgotten because of a bound.
    pub fn insert(&mut self, backend: &str, chain: &Chain, tokens: u64) -> usize {
        if chain.is_empty() {
            return 0;
        }
        self.now += 1;
        let now = self.now;
        let runner = self.runner(backend, chain.model());
        let before = runner.blocks.len();
        runner.replace_beginnings(chain);
        runner.add(now, chain, tokens);
        let grown = runner.blocks.len();
        let mut evicted = 0;
        let most = self.config.max_warm_tokens;
        let runner = self.runner(backend, chain.model());
        while runner.tokens > most && runner.prompts.len() > 1 {
            evicted += runner.drop_oldest();
        }
        self.blocks = self.blocks + grown - before - evicted;
        evicted + self.shrink()
    }

    /// Who holds something of this prompt, the longest first; equal ones in the order of their names.
    #[must_use]
    pub fn longest(&self, chain: &Chain) -> Vec<Warm> {
        let of_model = self.runners.iter().filter(|((_, model), _)| *model == chain.model());
        let mut found: Vec<Warm> = of_model.filter_map(|((backend, _), runner)| runner.warm(backend, chain)).collect();
        found.sort_by_key(|warm| std::cmp::Reverse(warm.blocks));
        found
    }

    /// Learns from an answer: the speed of the backend, whether `predicted` was right (if not, what was believed is forgotten),
    /// and that the backend holds this prompt now.
    pub fn observed(&mut self, backend: &str, chain: &Chain, predicted: Option<&Warm>, usage: &Usage, timing: &Timing) -> Observed {
        let runner = self.runner(backend, chain.model());
        let cached_tokens = runner.learn(predicted, usage, timing);
        let predicted_tokens = predicted.map_or(0, |warm| warm.tokens);
        let verdict = verdict(predicted_tokens, cached_tokens);
        let saved = cached_tokens.filter(|tokens| *tokens > 0).and_then(|tokens| runner.speed.time_for(tokens));
        let prompt_tokens = usage.prompt_tokens.unwrap_or_else(|| chain.guessed_tokens());
        // A server does not bother with a small share of a prompt, so its absence proves nothing about the rest.
        if let Some(warm) = predicted.filter(|warm| verdict == Verdict::Miss && warm.tokens * 2 >= prompt_tokens) {
            let lost = chain.hashes().nth(warm.blocks.saturating_sub(1)).map_or(0, |block| runner.drop_with(block));
            self.blocks -= lost;
        }
        let evicted = self.insert(backend, chain, prompt_tokens);
        Observed { verdict, cached_tokens, saved, evicted }
    }

    /// What a backend held for a model is gone.
    pub fn forget(&mut self, backend: &str, model: &ModelName) {
        if let Some(runner) = self.runners.get_mut(&(Arc::from(backend), model_hash(model))) {
            self.blocks -= runner.blocks.len();
            // The speed stays: it is the machine's.
            *runner = Runner { speed: runner.speed, ..Runner::default() };
        }
    }

    /// A backend is gone, with its sessions.
    pub fn forget_backend(&mut self, backend: &str) {
        self.runners.retain(|(name, _), _| &**name != backend);
        self.blocks = self.runners.values().map(|runner| runner.blocks.len()).sum();
        self.sessions.forget(backend);
    }

    pub fn stick(&mut self, session: &str, backend: &str) {
        self.sessions.stick(session, backend.into());
    }

    #[must_use]
    pub fn where_is(&self, session: &str) -> Option<Arc<str>> {
        self.sessions.where_is(session)
    }

    /// The time that so many warm tokens save there.
    #[must_use]
    pub fn saves(&self, backend: &str, model: &ModelName, tokens: u64) -> Option<Duration> {
        self.runners.get(&(Arc::from(backend), model_hash(model)))?.speed.time_for(tokens)
    }

    fn runner(&mut self, backend: &str, model: u64) -> &mut Runner {
        self.runners.entry((Arc::from(backend), model)).or_default()
    }

    /// Keeps to the bound on all blocks: the prompts used longest ago go first.
    fn shrink(&mut self) -> usize {
        let mut evicted = 0;
        while self.blocks > self.config.max_blocks {
            let oldest = self.runners.values_mut().filter(|runner| !runner.prompts.is_empty());
            let Some(runner) = oldest.min_by_key(|runner| runner.prompts.keys().next().copied()) else { break };
            let lost = runner.drop_oldest();
            self.blocks -= lost;
            evicted += lost;
        }
        evicted
    }

    #[cfg(test)]
    pub(super) fn counted_blocks(&self) -> usize {
        self.runners.values().map(|runner| runner.blocks.len()).sum()
    }
}

fn verdict(predicted_tokens: u64, cached_tokens: Option<u64>) -> Verdict {
    match (predicted_tokens, cached_tokens) {
        (_, None) => Verdict::Unknown,
        (0, Some(0)) => Verdict::Cold,
        (0, Some(_)) => Verdict::Surprise,
        (predicted, Some(cached)) if cached * 2 >= predicted => Verdict::Hit,
        _ => Verdict::Miss,
    }
}

impl Runner {
    fn warm(&self, backend: &Arc<str>, chain: &Chain) -> Option<Warm> {
        let held = chain.hashes().map_while(|hash| self.blocks.get(&hash));
        let (blocks, tokens) = held.fold((0, 0), |(blocks, _), (_, tokens)| (blocks + 1, *tokens));
        let warm = Warm { backend: Arc::clone(backend), blocks, tokens, saves: self.speed.time_for(tokens) };
        (blocks > 0).then_some(warm)
    }

    /// A server that goes on from a prompt no longer holds the shorter one by itself.
    fn replace_beginnings(&mut self, chain: &Chain) {
        for hash in chain.hashes() {
            if let Some(age) = self.ends.get(&hash).copied() {
                self.drop_aged(age);
            }
        }
    }

    fn add(&mut self, age: u64, chain: &Chain, tokens: u64) {
        let hashes: Vec<u64> = chain.hashes().collect();
        for (index, hash) in hashes.iter().enumerate() {
            let held = self.blocks.entry(*hash).or_default();
            *held = (held.0 + 1, chain.tokens_of(index + 1, tokens));
        }
        if let Some(last) = hashes.last() {
            self.ends.insert(*last, age);
        }
        self.tokens = self.tokens.saturating_add(tokens);
        self.prompts.insert(age, Held { hashes, tokens });
    }

    /// How many blocks went with it, as for all below.
    fn drop_oldest(&mut self) -> usize {
        self.prompts.keys().next().copied().map_or(0, |age| self.drop_aged(age))
    }

    fn drop_with(&mut self, block: u64) -> usize {
        let ages: Vec<u64> = self.prompts.iter().filter(|(_, held)| held.hashes.contains(&block)).map(|(age, _)| *age).collect();
        ages.into_iter().map(|age| self.drop_aged(age)).sum()
    }

    fn drop_aged(&mut self, age: u64) -> usize {
        let Some(held) = self.prompts.remove(&age) else { return 0 };
        self.tokens = self.tokens.saturating_sub(held.tokens);
        if let Some(last) = held.hashes.last() {
            self.ends.remove(last);
        }
        held.hashes.iter().filter(|hash| self.let_go(**hash)).count()
    }

    /// Whether that was the last prompt with this block.
    fn let_go(&mut self, hash: u64) -> bool {
        let Some(held) = self.blocks.get_mut(&hash) else { return false };
        held.0 -= 1;
        held.0 == 0 && self.blocks.remove(&hash).is_some()
    }

    /// How many tokens were cached, and how fast the others were read.
    fn learn(&mut self, predicted: Option<&Warm>, usage: &Usage, timing: &Timing) -> Option<u64> {
        let (tokens, took) = (usage.prompt_tokens?, timing.prompt_eval);
        if let Some(cached) = usage.cached_tokens {
            if let Some(took) = took {
                self.speed.note(tokens.saturating_sub(cached), took);
            }
            return Some(cached.min(tokens));
        }
        let took = took?;
        let cached = self.speed.cached(tokens, took);
        if predicted.is_none_or(|warm| warm.tokens == 0) && !self.speed.is_suspicious(tokens, took) {
            self.speed.note(tokens, took);
        }
        cached
    }
}
