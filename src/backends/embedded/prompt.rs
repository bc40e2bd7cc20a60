//! From a request to the tokens a model reads. Pure.

use crate::backends::Error;
use crate::domain::generation::{Prompt, Request, Think};
use crate::lm::template::{Error as TemplateError, Message, Names, Template};
use crate::lm::tokenizer::{Encode, Tokenizer};

/// Tokens of the beginning that survive shortening, when the request does not say (Ollama's default).
const NUM_KEEP: i64 = 4;

/// A prompt in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assembled {
    pub(super) tokens: Vec<u32>,
    /// Whether the first token is one that the engine put there.
    pub(super) has_bos: bool,
    /// How many tokens there were, if some were left out.
    pub(super) shortened_from: Option<usize>,
}

/// How a model wants its prompts.
#[derive(Debug)]
pub(super) struct Assembler {
    pub(super) tokenizer: std::sync::Arc<Tokenizer>,
    pub(super) template: Template,
}

/// Refuses what is not built. What would change the answer is never ignored.
pub(super) fn check_supported(request: &Request) -> Result<(), Error> {
    let unsupported = |field, why: &str| Err(Error::Unsupported { field, why: why.to_owned() });
    let prompt = &request.ask.prompt;
    if request.ask.format.is_some() {
        return unsupported("format", "the embedded engine cannot constrain its answers yet");
    }
    if !prompt.images.is_empty() {
        return unsupported("images", "the embedded engine cannot see images");
    }
    if prompt.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return unsupported("suffix", "the embedded engine cannot fill gaps yet");
    }
    if request.ask.think.is_some_and(|think| think != Think::Switch(false)) {
        return unsupported("think", "the embedded engine does not keep thinking apart yet");
    }
    if prompt.raw && (prompt.system.is_some() || prompt.template.is_some() || !prompt.context.is_empty()) {
        return Err(Error::Refused { status: 400, message: "raw mode does not support template, system, or context".to_owned() });
    }
    Ok(())
}

impl Assembler {
    /// The tokens of a prompt, none of them outside the vocabulary. Not yet bounded in number.
    pub(super) fn assemble(&self, prompt: &Prompt) -> Result<Assembled, Error> {
        self.check_context(&prompt.context)?;
        let bos = self.tokenizer.bos().filter(|_| self.tokenizer.adds_bos());
        let earlier = prompt.context.strip_prefix(bos.as_slice()).unwrap_or(&prompt.context);
        let own = if prompt.raw { self.tokenizer.encode(&prompt.text, SPECIAL) } else { self.templated(prompt)? };
        // Templates often write the first token themselves.
        let own = own.strip_prefix(bos.as_slice()).unwrap_or(&own);
        let tokens = bos.iter().chain(earlier).chain(own).copied().collect();
        Ok(Assembled { tokens, has_bos: bos.is_some(), shortened_from: None })
    }

    fn check_context(&self, context: &[u32]) -> Result<(), Error> {
        let size = self.tokenizer.vocab_size();
        match context.iter().find(|id| **id as usize >= size) {
            Some(id) => Err(Error::Refused { status: 400, message: format!("`context` has the token {id}, the model has only {size}") }),
            None => Ok(()),
        }
    }

    fn templated(&self, prompt: &Prompt) -> Result<Vec<u32>, Error> {
        let given = prompt.template.as_deref().filter(|template| !template.is_empty()).map(Template::go).transpose();
        let given = given.map_err(refused)?;
        let template = given.as_ref().unwrap_or(&self.template);
        let marker = free_character(prompt);
        let system = prompt.system.as_deref().filter(|system| !system.is_empty());
        let turns = system.map(|text| ("system", text)).into_iter().chain([("user", prompt.text.as_str())]);
        let messages: Vec<Message> = turns.map(|(role, text)| Message::new(role, self.tokenizer.defuse(text, marker))).collect();
        let name = |id: Option<u32>| id.map(|id| self.tokenizer.token_name(id)).unwrap_or_default();
        let names = Names { bos: name(self.tokenizer.bos()), eos: name(self.tokenizer.eos()) };
        let text = template.render(&messages, &names).map_err(refused)?;
        Ok(self.tokenizer.encode_parts(text.split(marker), SPECIAL))
    }

    /// Whether the plain template writes this prompt: it brings settings of its own.
    pub(super) fn is_plain(&self, prompt: &Prompt) -> bool {
        !prompt.raw && self.template.is_plain() && prompt.template.as_deref().is_none_or(str::is_empty)
    }
}

const SPECIAL: Encode = Encode { add_bos: false, parse_special: true };

/// A character that no part of the prompt has. Noncharacters are there for such uses; with all 32 in a text, any will do.
fn free_character(prompt: &Prompt) -> char {
    let texts = [Some(&prompt.text), prompt.system.as_ref(), prompt.template.as_ref()];
    let used = |c: &char| texts.iter().flatten().any(|text| text.contains(*c));
    ('\u{fdd0}'..='\u{fdef}').find(|c| !used(c)).unwrap_or('\u{fdd0}')
}

fn refused(error: TemplateError) -> Error {
    match error {
        TemplateError::Unsupported { what } => Error::Unsupported { field: "template", why: format!("it uses {what}") },
        other => Error::Refused { status: 400, message: other.to_string() },
    }
}

impl Assembled {
    /// Makes the prompt fit a context and leave room in it for an answer, by leaving out tokens of its middle if that is allowed.
    pub(super) fn fit(mut self, context: usize, request: &Request) -> Result<Self, Error> {
        let count = self.tokens.len();
        if count < context {
            return Ok(self);
        }
        if request.ask.truncate != Some(true) {
            return Err(Error::ContextTooLong { prompt_tokens: count as u64, context_tokens: context as u64 });
        }
        let answer = request.ask.options.num_predict.and_then(|most| usize::try_from(most).ok()).filter(|most| *most > 0);
        let room = answer.unwrap_or(context / 4).clamp(1, (context / 2).max(1));
        let kept = context.saturating_sub(room).max(1);
        let keep = usize::try_from(request.ask.options.num_keep.unwrap_or(NUM_KEEP)).unwrap_or(kept / 2);
        let head = keep.saturating_add(usize::from(self.has_bos)).min(kept - 1);
        self.tokens.drain(head..count - (kept - head));
        self.shortened_from = Some(count);
        Ok(self)
    }

    /// What an answer gives back as its context: without the token that will be put there again.
    pub(super) fn visible<'a>(&self, tokens: &'a [u32]) -> &'a [u32] {
        &tokens[usize::from(self.has_bos).min(tokens.len())..]
    }
}
