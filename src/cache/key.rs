//! Under what an answer is kept: a digest of everything that decides it.
//!
//! SHA-256 over fields that each begin with what they are and how long they are, so that no two requests that differ run
//! together. What does not decide the answer is left out: how long the model stays loaded, who asks (but for the tenant), in which
//! dialect, with which priority. The order in which options and unknown fields were written does not count; inside their values,
//! and in a JSON schema, it does, because a model may answer differently.

use std::fmt;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::domain::generation::{Ask, Effort, Format, Prompt, Think};
use crate::domain::id::ModelName;
use crate::domain::options::Options;

/// Changed whenever the same request would get another key or another answer.
const FORM: u64 = 1;

/// Names one request among all: equal for requests with equal answers only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

/// Who may be given an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    Tenant(&'a str),
    /// Every tenant.
    Shared,
}

impl Key {
    /// The key of a request. With a digest the model's name does not matter: the same weights and template answer the same.
    #[must_use]
    pub fn new(scope: Scope<'_>, model: &ModelName, digest: Option<&str>, ask: &Ask) -> Self {
        let mut fields = Fields(Sha256::new());
        fields.number(FORM);
        match scope {
            Scope::Tenant(tenant) => fields.optional(Some(tenant)),
            Scope::Shared => fields.optional(None),
        }
        fields.optional(digest);
        if digest.is_none() {
            fields.text(model.canonical());
        }
        fields.ask(ask);
        Self(fields.0.finalize().into())
    }

    /// A key that is no request's, for what is told apart by a name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut fields = Fields(Sha256::new());
        fields.number(0);
        fields.text(name);
        Self(fields.0.finalize().into())
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From what [`Key::as_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// From 64 hexadecimal digits, as [`fmt::Display`] writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each hit says its key: formatting the bytes one by one would be a hundredth of it.
        let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
        let text: String = self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        f.write_str(&text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Whether the same request gives the same answer each time: it always takes the likeliest token, or it fixes the seed (a negative
/// one means a random one).
#[must_use]
pub fn is_deterministic(ask: &Ask) -> bool {
    ask.options.temperature.is_some_and(|temperature| temperature == 0.0) || ask.options.seed.is_some_and(|seed| seed >= 0)
}

/// Takes in fields. Each kind is written so that the next field cannot be mistaken for a part of it.
struct Fields(Sha256);

impl Fields {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    fn tag(&mut self, tag: u8) {
        self.0.update([tag]);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        self.with(text, Self::text);
    }

    fn with<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.tag(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn integer(&mut self, value: Option<i64>) {
        self.with(value, |fields, value| fields.0.update(value.to_be_bytes()));
    }

    fn float(&mut self, value: Option<f64>) {
        // Adding zero makes one of the two zeros.
        self.with(value, |fields, value| fields.number((value + 0.0).to_bits()));
    }

    fn switch(&mut self, value: Option<bool>) {
        self.integer(value.map(i64::from));
    }

    fn list<'a>(&mut self, items: impl ExactSizeIterator<Item = &'a String>) {
        self.number(items.len() as u64);
        items.for_each(|item| self.text(item));
    }

    fn ask(&mut self, ask: &Ask) {
        // Every field is named, so that a new one cannot be forgotten here.
        let Ask { prompt, options, format, think, keep_alive: _, truncate, extra } = ask;
        self.prompt(prompt);
        self.options(options);
        match format {
            None => self.tag(0),
            Some(Format::Json) => self.tag(1),
            Some(Format::Schema(schema)) => {
                self.tag(2);
                self.object(schema.iter());
            }
        }
        match think {
            None => self.tag(0),
            Some(Think::Switch(on)) => self.tag(1 + u8::from(*on)),
            Some(Think::Effort(effort)) => self.tag(match effort {
                Effort::Low => 3,
                Effort::Medium => 4,
                Effort::High => 5,
                Effort::Max => 6,
            }),
        }
        self.switch(*truncate);
        self.unordered(extra);
    }

    fn prompt(&mut self, prompt: &Prompt) {
        let Prompt { text, suffix, system, template, context, images, raw } = prompt;
        self.text(text);
        self.optional(suffix.as_deref());
        self.optional(system.as_deref());
        self.optional(template.as_deref());
        self.number(context.len() as u64);
        for token in context {
            self.0.update(token.to_be_bytes());
        }
        self.list(images.iter());
        self.tag(u8::from(*raw));
    }

    fn options(&mut self, options: &Options) {
        #[rustfmt::skip]
        let Options {
            num_keep, seed, num_predict, top_k, top_p, min_p, typical_p, repeat_last_n, temperature, repeat_penalty, presence_penalty,
            frequency_penalty, penalize_newline, stop, num_ctx, num_batch, num_gpu, main_gpu, use_mmap, num_thread, draft_num_predict, extra,
        } = options;
        for value in [num_keep, seed, num_predict, top_k, repeat_last_n, num_gpu, main_gpu, draft_num_predict] {
            self.integer(*value);
        }
        for value in [num_ctx, num_batch, num_thread] {
            self.integer(value.map(i64::from));
        }
        for value in [top_p, min_p, typical_p, temperature, repeat_penalty, presence_penalty, frequency_penalty] {
            self.float(*value);
        }
        self.switch(*penalize_newline);
        self.switch(*use_mmap);
        self.with(stop.as_ref(), |fields, stop| fields.list(stop.iter()));
        self.unordered(extra);
    }

    /// An object whose order means nothing.
    fn unordered(&mut self, map: &Map<String, Value>) {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_unstable_by_key(|(name, _)| *name);
        self.object(entries.into_iter());
    }

    fn object<'a>(&mut self, entries: impl ExactSizeIterator<Item = (&'a String, &'a Value)>) {
        self.number(entries.len() as u64);
        for (name, value) in entries {
            self.text(name);
            self.value(value);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.tag(0),
            Value::Bool(on) => self.tag(1 + u8::from(*on)),
            Value::Number(number) => {
                self.tag(3);
                self.text(&number.to_string());
            }
            Value::String(text) => {
                self.tag(4);
                self.text(text);
            }
            Value::Array(items) => {
                self.tag(5);
                self.number(items.len() as u64);
                for item in items {
                    self.value(item);
                }
            }
            Value::Object(map) => {
                self.tag(6);
                self.object(map.iter());
            }
        }
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
