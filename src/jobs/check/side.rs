//! One of the two models, ready to be run.

use std::fmt;

use serde::Serialize;

use super::report::About;
use super::{Both, Error, Step, Work};
use crate::gguf::Header;
use crate::lm::measure::largest;
use crate::lm::template::{Message, Names, Template};
use crate::lm::tokenizer::{Detokenizer, Encode, Tokenizer};
use crate::lm::{Device, Model};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Reference,
    Candidate,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reference => "reference",
            Self::Candidate => "candidate",
        })
    }
}

/// A loaded model.
pub(super) struct Side {
    pub role: Role,
    pub name: String,
    pub header: Header,
    pub model: Model,
    pub tokenizer: Tokenizer,
    template: Template,
}

pub(super) fn load_both(work: &Work<'_>) -> Result<Both<Side>, Error> {
    let threads = Some(work.spec.threads).filter(|threads| *threads > 0);
    let device = Device::choose(work.spec.device, threads).map_err(Error::Device)?;
    let roles = Both { reference: (Role::Reference, 0), candidate: (Role::Candidate, 1) };
    let sides = roles.try_map(|(role, done)| {
        work.go_on(Step::Loading, done, 2)?;
        Side::load(work, role, &device)
    })?;
    work.go_on(Step::Loading, 2, 2)?;
    same_vocabulary(&sides)?;
    Ok(sides)
}

fn same_vocabulary(sides: &Both<Side>) -> Result<(), Error> {
    let sizes = sides.as_ref().map(|side| (side.model.config().vocab_size, side.tokenizer.vocab_size()));
    if sizes.reference == sizes.candidate {
        return Ok(());
    }
    let what = format!("vocabularies of {} and {} tokens", sizes.reference.1, sizes.candidate.1);
    Err(Error::Vocabulary { what })
}

impl Side {
    fn load(work: &Work<'_>, role: Role, device: &Device) -> Result<Self, Error> {
        let path = work.spec.path(role);
        let header = Header::read_file(path).map_err(|source| Error::File { role, path: path.clone(), source })?;
        let tokenizer = Tokenizer::from_header(&header).map_err(|source| Error::Tokenizer { role, path: path.clone(), source })?;
        let template = Template::from_header(&header).map_err(|source| Error::Template { role, source })?;
        let model = Model::load(path, &header, device).map_err(|source| Error::load(role, path.clone(), source))?;
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        Ok(Self { role, name, header, model, tokenizer, template })
    }

    pub fn about(&self) -> About {
        About {
            name: self.name.clone(),
            architecture: self.model.config().architecture.clone(),
            quantization: self.header.file_type().map(str::to_owned),
            parameters: self.header.parameters(),
            file_size_bytes: self.header.file_size_bytes,
        }
    }

    /// A text as the model was trained to read one: nothing in it is a special token, whatever it says.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text, Encode { add_bos: self.tokenizer.adds_bos(), parse_special: false })
    }

    /// A prompt: as one turn of a conversation where the model has a template, else as the beginning of a text.
    pub fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>, Error> {
        if self.template.is_plain() {
            return Ok(self.encode(prompt));
        }
        let name = |id: Option<u32>| id.map(|id| self.tokenizer.token_name(id)).unwrap_or_default();
        let names = Names { bos: name(self.tokenizer.bos()), eos: name(self.tokenizer.eos()) };
        let text = self.template.render(&[Message::new("user", prompt)], &names);
        let text = text.map_err(|source| Error::Template { role: self.role, source })?;
        Ok(self.tokenizer.encode(&text, Encode { add_bos: false, parse_special: true }))
    }

    /// What to read when there is nothing to read.
    pub fn nothing(&self) -> Vec<u32> {
        vec![self.tokenizer.bos().or(self.tokenizer.eos()).unwrap_or(0)]
    }

    /// The most likely tokens behind a prompt, one after the other, until the model ends.
    pub fn continuation(&self, prompt: &[u32], count: usize) -> Result<Vec<u32>, Error> {
        let run = Error::run(self.role);
        let mut cache = self.model.new_cache(prompt.len() + count).map_err(&run)?;
        let mut logits = self.model.forward(prompt, &mut cache).map_err(&run)?;
        let mut tokens = Vec::new();
        while tokens.len() < count {
            let token = largest(&logits);
            tokens.push(token);
            if self.tokenizer.is_end_of_generation(token) {
                break;
            }
            if tokens.len() < count {
                logits = self.model.forward(&[token], &mut cache).map_err(&run)?;
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
