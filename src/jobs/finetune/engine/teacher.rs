//! A model that another one learns from: frozen, and read beside it.
//!
//! It only reads: nothing of it is dropped, changed or kept but one row for each label, from which its logits are made when they are needed,
//! some at a time. It is no judge of vocabularies beyond their length: that they mean the same is for those to see who have the files.

use candle_core::Result;

use super::compute::Compute;
use super::error::{Error, Result as Loaded};
use super::loss::Lesson;
use super::settings::{Method, Settings};
use super::{Engine, Tensors};
use crate::gguf::Header;
use crate::jobs::finetune::batch::Batch;
use crate::jobs::finetune::options::Distill;
use crate::lm::weights::Source;

#[derive(Debug)]
pub struct Teacher(Box<Engine>);

impl Teacher {
    /// # Errors
    /// A model that is not supported or broken.
    pub fn load(source: &Source, header: &Header, settings: &Settings, compute: Compute) -> Loaded<Self> {
        // Without parameters, of which none are ever given, it is the file.
        let settings = Settings { method: Method::Full(Vec::new()), ..settings.clone() };
        Ok(Self(Box::new(Engine::load_with(source, header, &settings, compute)?)))
    }

    /// A teacher may have more tokens, of which the learner has none: larger models are padded further.
    ///
    /// # Errors
    /// When it has fewer.
    pub fn expect_vocabulary(&self, tokens: usize) -> Loaded<()> {
        let known = self.0.config.vocab_size;
        if known >= tokens {
            return Ok(());
        }
        Err(Error::Setting { what: "teacher", why: format!("it knows {known} tokens, and the model that is to learn from it {tokens}") })
    }

    /// Reads a batch up to its head.
    ///
    /// # Errors
    /// What the device says.
    pub fn lesson(&self, batch: &Batch, how: Distill) -> Result<Lesson<'_>> {
        let hidden = self.0.hidden(&Tensors::new(), batch)?;
        Ok(Lesson { compute: &self.0.compute, head: &self.0.head, hidden, how })
    }

    pub fn engine(&self) -> &Engine {
        &self.0
    }

    /// Bytes of its weights.
    pub fn weights_bytes(&self) -> u64 {
        self.0.weights_bytes
    }

    /// Numbers that are there while it reads, and those that stay while the learner does.
    pub fn numbers(&self, tokens: usize, longest_row: usize) -> [usize; 2] {
        [self.0.reading(tokens, longest_row), tokens * self.0.config.embedding_length]
    }

    /// Numbers of each label while its logits are there.
    pub fn vocabulary(&self) -> usize {
        self.0.config.vocab_size
    }
}
