//! What the training side is made of: several sets in given shares, and variants of rows.
//!
//! All of it is chosen by hashes of the seed and of what rows say, so that the same rows give the same mixture. The sides that are kept back
//! are not touched: they stay as the sources have them.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::example::{Body, Example, Role, Turn};
use super::import::Source;

/// Rows are copied so often at most.
const MAX_WEIGHT: f64 = 100.0;
/// What stands for the question in a variant.
const QUESTION: &str = "{prompt}";

/// Variants of rows, for models that are to take a task in other words, too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Variants {
    /// One of these is put before a conversation that has no system's text.
    pub systems: Vec<String>,
    /// One of these takes the place of the first question; `{prompt}` in it stands for that question.
    pub prompts: Vec<String>,
    /// Of each row so many variants are made beside the row itself; 0: the row itself is changed.
    pub copies: u32,
}

impl Variants {
    fn is_nothing(&self) -> bool {
        self.systems.is_empty() && self.prompts.is_empty()
    }

    /// # Errors
    /// A question that would be lost.
    pub fn validate(&self) -> Result<(), Error> {
        if let Some(wrong) = self.prompts.iter().find(|text| !text.contains(QUESTION)) {
            let shown: String = wrong.chars().take(60).collect();
            return Err(Error::Options(format!("the variant `{shown}` has no `{QUESTION}`")));
        }
        if f64::from(self.copies) > MAX_WEIGHT {
            return Err(Error::Options(format!("`copies` may be up to {MAX_WEIGHT}")));
        }
        if self.copies > 0 && self.is_nothing() {
            return Err(Error::Options("`copies` needs `systems` or `prompts` to make variants of".to_owned()));
        }
        Ok(())
    }

    fn apply(&self, examples: Vec<Example>, seed: u64) -> Vec<Example> {
        if self.is_nothing() {
            return examples;
        }
        let mut all = Vec::with_capacity(examples.len() * (self.copies as usize + 1));
        for example in examples {
            if self.copies == 0 {
                all.push(self.variant(&example, seed, 0));
                continue;
            }
            for copy in 0..self.copies {
                let variant = self.variant(&example, seed, copy);
                all.push(variant);
            }
            all.push(example);
        }
        all
    }

    fn variant(&self, example: &Example, seed: u64, copy: u32) -> Example {
        let dice = Dice::new(seed, example);
        let mut variant = example.clone();
        let turns = match &mut variant.body {
            Body::Text(_) => return variant,
            Body::Chat(turns) | Body::Preference { prompt: turns, .. } => turns,
        };
        if let Some(text) = dice.choose(&self.prompts, "prompt", copy)
            && let Some(turn) = turns.iter_mut().find(|turn| turn.role == Role::User)
        {
            turn.content = text.replace(QUESTION, &turn.content);
        }
        if let Some(text) = dice.choose(&self.systems, "system", copy)
            && turns.first().is_none_or(|turn| turn.role != Role::System)
        {
            turns.insert(0, Turn::new(Role::System, text));
        }
        variant
    }
}

/// Throws that depend on the seed and on a row alone.
struct Dice {
    seed: u64,
    digest: [u8; 32],
}

impl Dice {
    fn new(seed: u64, example: &Example) -> Self {
        Self { seed, digest: example.digest() }
    }

    fn throw(&self, what: &str, number: u32) -> u64 {
        let hash = Sha256::new().chain_update(self.seed.to_le_bytes()).chain_update(what).chain_update(number.to_le_bytes());
        let hash = hash.chain_update(self.digest).finalize();
        hash[..8].iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
    }

    /// From 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    fn share(&self, what: &str) -> f64 {
        (self.throw(what, 0) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn choose<'a>(&self, of: &'a [String], what: &str, number: u32) -> Option<&'a str> {
        let count = u64::try_from(of.len()).ok().filter(|count| *count > 0)?;
        // Copies of a row differ as long as there is something to choose from.
        let index = (self.throw(what, 0) % count + u64::from(number)) % count;
        of.get(usize::try_from(index).ok()?).map(String::as_str)
    }
}

/// # Errors
/// Weights and shares that make no sense.
pub(super) fn validate(sources: &[Source]) -> Result<(), Error> {
    for (number, source) in sources.iter().enumerate() {
        source.validate()?;
        if source.collected.is_some() && sources[..number].iter().any(|earlier| earlier.collected == source.collected) {
            return Err(Error::Options(format!("`{}` is named twice; a `weight` has rows more often", source.name())));
        }
        if source.weight.is_some_and(|weight| !(0.0..=MAX_WEIGHT).contains(&weight)) {
            return Err(Error::Options(format!("the weight of `{}` is not from 0 to {MAX_WEIGHT}", source.name())));
        }
        if source.share.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            return Err(Error::Options(format!("the share of `{}` is not above 0 and up to 1", source.name())));
        }
    }
    let shares: Vec<f64> = sources.iter().filter_map(|source| source.share).collect();
    if !shares.is_empty() && (shares.len() < sources.len() || (shares.iter().sum::<f64>() - 1.0).abs() > 1e-6) {
        return Err(Error::Options("when a source has a `share`, all have one, and together they are 1".to_owned()));
    }
    Ok(())
}

/// The training side, mixed and in an order that the seed gives.
pub(super) fn mix(examples: Vec<Example>, sources: &[Source], variants: &Variants, seed: u64) -> Vec<Example> {
    let weighed = weigh(examples, sources, seed);
    let shared = share(weighed, sources, seed);
    let mut keyed: Vec<(u64, usize, Example)> = variants
        .apply(shared, seed)
        .into_iter()
        .enumerate()
        .map(|(index, example)| (Dice::new(seed, &example).throw("order", u32::try_from(index).unwrap_or(0)), index, example))
        .collect();
    keyed.sort_by_key(|(key, index, _)| (*key, *index));
    keyed.into_iter().map(|(.., example)| example).collect()
}

/// Every row as often as its source weighs; the part of the weight behind the point is the probability of one more.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "weights are from 0 to 100")]
fn weigh(examples: Vec<Example>, sources: &[Source], seed: u64) -> Vec<Example> {
    let weight = |example: &Example| sources.get(example.source as usize).and_then(|source| source.weight).unwrap_or(1.0);
    if examples.iter().all(|example| weight(example).to_bits() == 1.0_f64.to_bits()) {
        return examples;
    }
    let times = |example: &Example| {
        let weight = weight(example);
        weight as usize + usize::from(Dice::new(seed, example).share("weight") < weight.fract())
    };
    examples.into_iter().flat_map(|example| std::iter::repeat_n(example.clone(), times(&example))).collect()
}

/// As many rows of each source as keep the shares; of the source that has the fewest for its share all are kept.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of rows")]
fn share(examples: Vec<Example>, sources: &[Source], seed: u64) -> Vec<Example> {
    let shares: Vec<f64> = sources.iter().filter_map(|source| source.share).collect();
    if shares.is_empty() || shares.len() < sources.len() {
        return examples;
    }
    let mut by_source: Vec<Vec<Example>> = vec![Vec::new(); sources.len()];
    for example in examples {
        if let Some(rows) = by_source.get_mut(example.source as usize) {
            rows.push(example);
        }
    }
    let whole = by_source.iter().zip(&shares).map(|(rows, share)| rows.len() as f64 / share).fold(f64::INFINITY, f64::min);
    for (rows, share) in by_source.iter_mut().zip(&shares) {
        rows.sort_by_cached_key(|example| Dice::new(seed, example).throw("share", 0));
        rows.truncate((whole * share).round() as usize);
    }
    by_source.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::example::samples::{chat, text};
    use super::*;

    fn rows(source: u32, count: u32) -> Vec<Example> {
        (0..count).map(|n| Example { source, ..chat(&format!("q{source}-{n}"), "a") }).collect()
    }

    fn count(rows: &[Example], source: u32) -> usize {
        rows.iter().filter(|row| row.source == source).count()
    }

    #[test]
    fn sources_are_repeated_or_thinned_by_weight() {
        let source = |weight| Source { weight: Some(weight), ..Source::new("x") };
        let all = [rows(0, 400), rows(1, 400), rows(2, 400)].concat();
        let sources = [source(1.0), source(2.5), source(0.0)];
        let mixed = mix(all.clone(), &sources, &Variants::default(), 1);
        assert_eq!((count(&mixed, 0), count(&mixed, 2)), (400, 0));
        assert!((950..=1_050).contains(&count(&mixed, 1)), "{}", count(&mixed, 1));
        assert_eq!(mixed, mix(all.clone(), &sources, &Variants::default(), 1));
        assert_ne!(mixed, mix(all, &sources, &Variants::default(), 2));
    }

    #[test]
    fn sources_are_thinned_to_their_shares() {
        let source = |share| Source { share: Some(share), ..Source::new("x") };
        let mixed = mix([rows(0, 100), rows(1, 1_000)].concat(), &[source(0.25), source(0.75)], &Variants::default(), 1);
        assert_eq!((count(&mixed, 0), count(&mixed, 1)), (100, 300));
        let bare = Source::new("y");
        assert!(validate(&[source(0.5), source(0.6)]).is_err() && validate(&[source(1.0), bare.clone()]).is_err());
        assert!(validate(&[source(0.5), source(0.5)]).is_ok() && validate(&[bare]).is_ok());
    }

    #[test]
    fn variants_are_made_beside_or_in_the_place_of_rows() {
        let systems = vec!["Be brief.".to_owned(), "Be kind.".to_owned()];
        let prompts = vec!["{prompt}".to_owned(), "Please answer: {prompt}".to_owned()];
        let variants = Variants { systems: systems.clone(), prompts, copies: 2 };
        assert!(variants.validate().is_ok());
        let made = mix(vec![chat("q", "a"), text("t")], &[Source::new("x")], &variants, 5);
        let mut lines: Vec<String> = made.iter().map(Example::line).collect();
        lines.sort();
        lines.dedup();
        assert_eq!((made.len(), lines.len()), (6, 4), "{lines:?}");
        let changed = mix(vec![chat("q", "a")], &[Source::new("x")], &Variants { systems, ..Variants::default() }, 5);
        assert!(changed.len() == 1 && changed[0].line().contains("\"system\""));
        assert!(Variants { prompts: vec!["no place".to_owned()], ..Variants::default() }.validate().is_err());
        assert!(Variants { copies: 1, ..Variants::default() }.validate().is_err());
    }
}
