//! A teacher that is a file, run in this process: its likeliest answer to each question.

use std::fs::File;
use std::path::Path;

use super::{Answer, Question, Teacher, Told};
use crate::domain::digest::Digest;
use crate::jobs::dataset::error::Error;
use crate::jobs::hash;
use crate::jobs::subject::Subject;
use crate::lm::template::Message;
use crate::lm::{Choice, Device};

pub struct Local {
    subject: Subject,
    model: String,
    max_tokens: usize,
    pub sha256: String,
}

impl Local {
    /// # Errors
    /// A file that cannot be read or run; those of `told`, which hears of bytes while the file is read.
    pub fn open(teacher: &Teacher, (path, accelerated): (&Path, bool), told: Told<'_>) -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::teacher(&teacher.model, error);
        let file = File::open(path).map_err(|error| failed(&error))?;
        let (whole, mut done) = (file.metadata()?.len(), 0);
        let (hasher, _) = hash::read(file, |count| {
            done += count;
            told(done, whole)
        })?;
        let device = Device::choose(if accelerated { Choice::Auto } else { Choice::Cpu }, None).map_err(|error| failed(&error))?;
        let subject = Subject::load(path, &device).map_err(|error| failed(&error))?;
        let max_tokens = usize::try_from(teacher.max_tokens).unwrap_or(usize::MAX);
        Ok(Self { subject, model: teacher.model.clone(), max_tokens, sha256: Digest::new(sha2::Digest::finalize(hasher).into()).hex() })
    }

    /// # Errors
    /// A model that fails, and those of `keep` and `told`.
    pub fn ask_all(
        &self,
        questions: &[&Question],
        keep: &mut dyn FnMut(&Question, Answer) -> Result<(), Error>,
        told: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (done, question) in (1..).zip(questions) {
            keep(question, self.ask(question)?)?;
            told(done)?;
        }
        Ok(())
    }

    fn ask(&self, question: &Question) -> Result<Answer, Error> {
        let messages: Vec<Message> = question.turns.iter().map(|turn| Message::new(turn.role.name(), &turn.content)).collect();
        let prompt = match self.subject.encode_messages(&messages) {
            Ok(prompt) => prompt,
            Err(error) => return Ok(Answer::Refused(error.to_string())),
        };
        let context = self.subject.model.config().context_length;
        if prompt.len() + 1 > context {
            return Ok(Answer::Refused(format!("the question has {} tokens, and the model reads {context}", prompt.len())));
        }
        let most = self.max_tokens.min(context - prompt.len());
        let mut tokens = self.subject.continuation(&prompt, most).map_err(|error| Error::teacher(&self.model, &error))?;
        if tokens.pop_if(|token| self.subject.tokenizer.is_end_of_generation(*token)).is_none() {
            return Ok(Answer::Cut);
        }
        Ok(Answer::Whole(self.subject.decode(&tokens)))
    }
}
