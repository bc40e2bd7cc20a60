//! A model file that is run to see what it does: by comparisons and by evaluations.

use std::path::Path;

use crate::gguf::{self, Header};
use crate::lm::measure::largest;
use crate::lm::template::{self, Message, Names, Template};
use crate::lm::tokenizer::{self, Detokenizer, Encode, Tokenizer};
use crate::lm::{self, Device, Model};

/// Why a file cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is no model file that can be read: {0}")]
    File(#[from] gguf::Error),
    #[error("its tokenizer cannot be used: {0}")]
    Tokenizer(#[from] tokenizer::Error),
    #[error("its chat template cannot be used: {0}")]
    Template(#[from] template::Error),
    #[error(transparent)]
    Model(#[from] lm::Error),
}

/// A loaded model.
pub struct Subject {
    pub header: Header,
    pub model: Model,
    pub tokenizer: Tokenizer,
    template: Template,
}

impl Subject {
    /// # Errors
    /// A file that cannot be read or run.
    pub fn load(path: &Path, device: &Device) -> Result<Self, Error> {
        let header = Header::read_file(path)?;
        let tokenizer = Tokenizer::from_header(&header)?;
        let template = Template::from_header(&header)?;
        let model = Model::load(path, &header, device)?;
        Ok(Self { header, model, tokenizer, template })
    }

    /// A text as the model was trained to read one: nothing in it is a special token, whatever it says.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text, Encode { add_bos: self.tokenizer.adds_bos(), parse_special: false })
    }

    /// A prompt: as one turn of a conversation where the model has a template, else as the beginning of a text. Never empty.
    ///
    /// # Errors
    /// When the template refuses it.
    pub fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>, template::Error> {
        let ids = if self.template.is_plain() { self.encode(prompt) } else { self.encode_turn(prompt)? };
        Ok(if ids.is_empty() { self.nothing() } else { ids })
    }

    fn encode_turn(&self, prompt: &str) -> Result<Vec<u32>, template::Error> {
        self.render(&[Message::new("user", prompt)])
    }

    /// A conversation that the model is to go on with; where it has no template, as a text of paragraphs. Never empty.
    ///
    /// # Errors
    /// When the template refuses it.
    pub fn encode_messages(&self, messages: &[Message]) -> Result<Vec<u32>, template::Error> {
        let plain = || self.encode(&messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n"));
        let ids = if self.template.is_plain() { plain() } else { self.render(messages)? };
        Ok(if ids.is_empty() { self.nothing() } else { ids })
    }

    fn render(&self, messages: &[Message]) -> Result<Vec<u32>, template::Error> {
        let name = |id: Option<u32>| id.map(|id| self.tokenizer.token_name(id)).unwrap_or_default();
        let names = Names { bos: name(self.tokenizer.bos()), eos: name(self.tokenizer.eos()) };
        let text = self.template.render(messages, &names)?;
        Ok(self.tokenizer.encode(&text, Encode { add_bos: false, parse_special: true }))
    }

    /// What to read when there is nothing to read.
    pub fn nothing(&self) -> Vec<u32> {
        vec![self.tokenizer.bos().or(self.tokenizer.eos()).unwrap_or(0)]
    }

    /// The most likely tokens behind a prompt, one after the other, until the model ends (with the token that says so) or there are `count`.
    ///
    /// # Errors
    /// Those of [`Model::forward`].
    pub fn continuation(&self, prompt: &[u32], count: usize) -> Result<Vec<u32>, lm::Error> {
        let mut cache = self.model.new_cache(prompt.len() + count)?;
        let mut logits = self.model.forward(prompt, &mut cache)?;
        let mut tokens = Vec::new();
        while tokens.len() < count {
            let token = largest(&logits);
            tokens.push(token);
            if self.tokenizer.is_end_of_generation(token) {
                break;
            }
            if tokens.len() < count {
                logits = self.model.forward(&[token], &mut cache)?;
            }
        }
        Ok(tokens)
    }

    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut detokenizer = Detokenizer::default();
        let mut text: String = tokens.iter().map(|token| detokenizer.push(self.tokenizer.token_bytes(*token))).collect();
        text.push_str(&detokenizer.flush());
        text
    }
}
