//! From a conversation to the text a model continues.
//!
//! A model's own template is Jinja (`tokenizer.chat_template`). A request may bring one in Go's language, as Ollama does; the common
//! simple part of it is understood and everything else refused by name. A model without a template gets a plain one.
//! Templates come from model files and clients and are not trusted: work, output and nesting are bounded.
//! It does not tokenize, and it does not know tools, images or thinking.

mod go;
mod jinja;
mod plain;

use serde::Serialize;

use crate::gguf::Header;

use go::GoTemplate;
use jinja::Jinja;

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not written in the language it should be in.
    #[error("the template cannot be read: {message}")]
    Syntax { message: String },
    #[error("the template uses {what}, which is not supported")]
    Unsupported { what: String },
    /// It refused the conversation, or needed too much work.
    #[error("the template failed: {message}")]
    Render { message: String },
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    pub content: String,
}

impl Message {
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into() }
    }
}

/// Names of the tokens around a text, as templates write them. Empty: the model has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub bos: String,
    pub eos: String,
}

/// A template that has been read.
#[derive(Debug)]
pub struct Template(Language);

#[derive(Debug)]
enum Language {
    Jinja(Box<Jinja>),
    Go(GoTemplate),
    Plain,
}

impl Template {
    /// The template that the model brings, or the plain one.
    ///
    /// # Errors
    /// When the model's template is no Jinja.
    pub fn from_header(header: &Header) -> Result<Self, Error> {
        header.metadata.str("tokenizer.chat_template").map_or_else(|| Ok(Self::plain()), Self::jinja)
    }

    /// For models that were not trained for conversations: lines of `System:`, `User:` and `Assistant:`, with a worked example.
    #[must_use]
    pub fn plain() -> Self {
        Self(Language::Plain)
    }

    /// # Errors
    /// When the source is no Jinja.
    pub fn jinja(source: &str) -> Result<Self, Error> {
        Ok(Self(Language::Jinja(Box::new(Jinja::parse(source)?))))
    }

    /// A template in Go's language with `.System`, `.Prompt`, `.Response`, `if`, `else` and `end`.
    ///
    /// # Errors
    /// When something is not closed, or when it uses anything else of that language.
    pub fn go(source: &str) -> Result<Self, Error> {
        GoTemplate::parse(source).map(|template| Self(Language::Go(template)))
    }

    /// Whether this is the plain template of [`Template::plain`].
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.0, Language::Plain)
    }

    /// The text up to where the model is to answer.
    ///
    /// # Errors
    /// When the template refuses the conversation, or works too long.
    pub fn render(&self, messages: &[Message], names: &Names) -> Result<String, Error> {
        self.render_with(messages, names, true)
    }

    /// As [`Template::render`]; `asks`: up to where the model is to answer, else the conversation alone, as it is learnt from
    /// (`add_generation_prompt`).
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_with(&self, messages: &[Message], names: &Names, asks: bool) -> Result<String, Error> {
        match &self.0 {
            Language::Jinja(template) => template.render(messages, names, asks),
            Language::Go(template) => Ok(template.render(messages, asks)),
            Language::Plain => Ok(plain::render(messages, asks)),
        }
    }

    /// What the answer ends before, because the model does not end by itself.
    #[must_use]
    pub fn stops(&self) -> &'static [&'static str] {
        if self.is_plain() { &plain::STOPS } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::writer::Writer;

    #[test]
    fn a_model_without_a_template_gets_the_plain_one() {
        let header = |writer: Writer| Header::parse(&writer.finish()).expect("sound");
        assert!(Template::from_header(&header(Writer::default())).expect("plain").is_plain());
        let own = header(Writer::default().str("tokenizer.chat_template", "{{ messages[0].content }}"));
        assert!(!Template::from_header(&own).expect("Jinja").is_plain());
        let broken = header(Writer::default().str("tokenizer.chat_template", "{% if %}"));
        assert!(matches!(Template::from_header(&broken), Err(Error::Syntax { .. })));
    }
}
