//! A prompt as a chain of hashes: each stands for one block and everything before it.
//!
//! Two prompts that begin the same way have chains that begin the same way, and chains that agree at one place agree before it.
//! Block 0 is what templates put first: the model, the system prompt, the template, the tools. Then come the token ids of an earlier answer
//! (`context`), images, and the text, cut at character boundaries. Thinking switches and options are left out: they hardly ever
//! change how a prompt begins.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::Config;
use crate::domain::generation::Ask;
use crate::domain::id::ModelName;

/// Token ids in one block.
const IDS_A_BLOCK: usize = 64;
/// Bytes of text that one token is taken for, where only the ids are known.
const BYTES_A_TOKEN: u64 = 4;

/// The hashes of one prompt. Holds nothing of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    model: u64,
    blocks: Vec<Block>,
    /// Of the whole prompt, blocks beyond the bound included.
    total_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) hash: u64,
    /// Bytes of the prompt up to the end of this block.
    pub(super) end_bytes: u64,
}

impl Chain {
    /// The chain of a request.
    #[must_use]
    pub fn of(config: &Config, model: &ModelName, ask: &Ask) -> Self {
        Self::with_context(config, model, ask, &ask.prompt.context, &ask.prompt.text)
    }

    /// The chain of what a client sends that goes on from an answer: its `context` then stands for prompt and answer.
    #[must_use]
    pub fn continued(config: &Config, model: &ModelName, ask: &Ask, context: &[u32]) -> Self {
        Self::with_context(config, model, ask, context, "")
    }

    fn with_context(config: &Config, model: &ModelName, ask: &Ask, context: &[u32], text: &str) -> Self {
        let mut links = Links::new(model, config.max_prompt_blocks.max(1));
        links.head(ask);
        for ids in context.chunks(IDS_A_BLOCK) {
            links.push(ids.len() as u64 * BYTES_A_TOKEN, &(1u8, ids));
        }
        for turn in turns(ask) {
            links.value(turn);
        }
        for image in &ask.prompt.images {
            links.push(image.len() as u64, &(2u8, image));
        }
        for block in pieces(text, config.block_bytes.max(1)) {
            links.push(block.len() as u64, &(3u8, block));
        }
        links.finish()
    }

    /// How many blocks it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// The hash of its first blocks, at most so many: equal for prompts that begin alike for that long.
    #[must_use]
    pub fn hash_after(&self, blocks: usize) -> Option<u64> {
        let last = blocks.min(self.blocks.len()).checked_sub(1)?;
        self.blocks.get(last).map(|block| block.hash)
    }

    /// Never: block 0 is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(super) fn model(&self) -> u64 {
        self.model
    }

    pub(super) fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        self.blocks.iter().map(|block| block.hash)
    }

    /// The tokens of the first `blocks` blocks, when the whole prompt has `total`.
    pub(super) fn tokens_of(&self, blocks: usize, total: u64) -> u64 {
        let Some(end) = blocks.checked_sub(1).and_then(|last| self.blocks.get(last)) else { return 0 };
        let share = u128::from(total) * u128::from(end.end_bytes) / u128::from(self.total_bytes.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// About how many tokens the prompt has, before anyone has counted them.
    #[must_use]
    pub fn guessed_tokens(&self) -> u64 {
        self.total_bytes.div_ceil(BYTES_A_TOKEN)
    }

    #[cfg(test)]
    pub(super) fn made_of(model: &str, parts: &[u8]) -> Self {
        let mut links = Links::new(&ModelName::parse(model).expect("a name"), 1000);
        for part in parts {
            links.push(4, part);
        }
        links.finish()
    }
}

/// The hash of a model's name, `x` and `x:latest` being one.
pub(super) fn model_hash(model: &ModelName) -> u64 {
    let mut hasher = DefaultHasher::new();
    model.canonical().hash(&mut hasher);
    hasher.finish()
}

/// Messages that a dialect left for the backend to understand.
fn turns(ask: &Ask) -> impl Iterator<Item = &Value> {
    ask.extra.get("messages").and_then(Value::as_array).into_iter().flatten()
}

/// `text` in pieces of at most `size` bytes (or one character, where that is longer).
fn pieces(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = rest.floor_char_boundary(size);
        let cut = if cut == 0 { rest.chars().next().map_or(rest.len(), char::len_utf8) } else { cut };
        let (piece, after) = rest.split_at(cut);
        rest = after;
        Some(piece)
    })
}

/// A chain in the making.
struct Links {
    chain: Chain,
    last: u64,
    most: usize,
}

impl Links {
    fn new(model: &ModelName, most: usize) -> Self {
        let model = model_hash(model);
        Self { chain: Chain { model, blocks: Vec::new(), total_bytes: 0 }, last: model, most }
    }

    fn push(&mut self, bytes: u64, what: &impl Hash) {
        self.chain.total_bytes += bytes;
        if self.chain.blocks.len() < self.most {
            let mut hasher = DefaultHasher::new();
            (self.last, what).hash(&mut hasher);
            self.last = hasher.finish();
            self.chain.blocks.push(Block { hash: self.last, end_bytes: self.chain.total_bytes });
        }
    }

    fn head(&mut self, ask: &Ask) {
        let prompt = &ask.prompt;
        let tools = ask.extra.get("tools").map(Value::to_string);
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let bytes = length(&prompt.system) + length(&prompt.template) + length(&tools);
        self.push(bytes as u64, &(0u8, &prompt.system, &prompt.template, &prompt.suffix, prompt.raw, tools));
    }

    fn value(&mut self, value: &Value) {
        let text = value.to_string();
        self.push(text.len() as u64, &(4u8, text));
    }

    fn finish(self) -> Chain {
        self.chain
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::generation::Prompt;

    fn chain(system: &str, text: &str) -> Chain {
        let prompt = Prompt { text: text.to_owned(), system: Some(system.to_owned()), ..Prompt::default() };
        let config = Config { block_bytes: 8, ..Config::default() };
        Chain::of(&config, &ModelName::parse("m").expect("a name"), &Ask { prompt, ..Ask::default() })
    }

    fn shared(a: &Chain, b: &Chain) -> usize {
        a.hashes().zip(b.hashes()).take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn what_begins_alike_has_chains_that_begin_alike() {
        let long = chain("be short", "12345678abcdefghXYZ");
        assert_eq!(long.len(), 4);
        assert_eq!(shared(&long, &chain("be short", "12345678abcdefghOther")), 3);
        assert_eq!(shared(&long, &chain("be short", "0")), 1);
        assert_eq!(shared(&long, &chain("be long", "12345678abcdefghXYZ")), 0, "block 0 is in every later one");
    }

    #[test]
    fn tokens_are_shared_out_by_bytes() {
        let chain = chain("", "12345678abcdefgh");
        assert_eq!([0, 1, 2, 3, 4].map(|blocks| chain.tokens_of(blocks, 100)), [0, 0, 50, 100, 0]);
        assert_eq!(chain.guessed_tokens(), 4);
    }

    #[test]
    fn a_prompt_beyond_the_bound_is_remembered_up_to_it() {
        let config = Config { block_bytes: 1, max_prompt_blocks: 3, ..Config::default() };
        let prompt = Prompt { text: "abcdefgh".to_owned(), ..Prompt::default() };
        let chain = Chain::of(&config, &ModelName::parse("m").expect("a name"), &Ask { prompt, ..Ask::default() });
        assert_eq!((chain.len(), chain.tokens_of(3, 80)), (3, 20));
    }

    #[test]
    fn context_goes_before_the_text_and_models_are_apart() {
        let (config, ask) = (Config::default(), Ask::default());
        let name = |text| ModelName::parse(text).expect("a name");
        let ids: Vec<u32> = (0..130).collect();
        let earlier = Chain::continued(&config, &name("m"), &ask, &ids[..128]);
        let prompt = Prompt { context: ids[..128].to_vec(), text: "and now".to_owned(), ..Prompt::default() };
        let later = Chain::of(&config, &name("m:latest"), &Ask { prompt, ..Ask::default() });
        assert_eq!((earlier.len(), later.len(), shared(&earlier, &later)), (3, 4, 3));
        assert_eq!(shared(&earlier, &Chain::continued(&config, &name("other"), &ask, &ids)), 0);
    }

    proptest! {
        #[test]
        fn pieces_put_together_are_the_text(text in ".{0,80}", size in 1usize..9) {
            let all: Vec<&str> = pieces(&text, size).collect();
            prop_assert!(all.iter().all(|piece| piece.len() <= size.max(4) && !piece.is_empty()));
            prop_assert_eq!(all.concat(), text);
        }
    }
}
