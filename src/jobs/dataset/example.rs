//! One row of a data set, whatever file it came from, and the one way in which it is written.

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Who says a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Role {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation. Calls of tools are part of the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Turn {
    pub role: Role,
    pub content: String,
}

impl Turn {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// What there is to learn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A conversation; at least one of its turns is the assistant's, but where a teacher is still to answer.
    Chat(Vec<Turn>),
    /// Text as it is.
    Text(String),
    /// Two ways to go on, the first of them better.
    Preference { prompt: Vec<Turn>, chosen: Vec<Turn>, rejected: Vec<Turn> },
}

/// A row, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub body: Body,
    /// Rows of one group go to the same side of a split.
    pub group: Option<String>,
    /// Which of the sources, from 0.
    pub source: u32,
    /// Its line in the source, or its number where the source has no lines; from 1.
    pub row: u64,
}

impl Body {
    /// All texts, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let (text, turns) = match self {
            Self::Text(text) => (Some(text.as_str()), [&[][..]; 3]),
            Self::Chat(turns) => (None, [turns.as_slice(), &[], &[]]),
            Self::Preference { prompt, chosen, rejected } => (None, [prompt.as_slice(), chosen, rejected]),
        };
        text.into_iter().chain(turns.into_iter().flatten().map(|turn| turn.content.as_str()))
    }

    /// All texts, to be changed.
    pub fn texts_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let (text, turns) = match self {
            Self::Text(text) => (Some(text), [&mut [][..], &mut [], &mut []]),
            Self::Chat(turns) => (None, [turns.as_mut_slice(), &mut [], &mut []]),
            Self::Preference { prompt, chosen, rejected } => (None, [prompt.as_mut_slice(), chosen, rejected]),
        };
        text.into_iter().chain(turns.into_iter().flatten().map(|turn| &mut turn.content))
    }

    /// The texts that are to be learnt: plain text, what the assistant says, and what is preferred.
    pub fn answers(&self) -> impl Iterator<Item = &str> {
        let (text, turns) = match self {
            Self::Text(text) => (Some(text.as_str()), &[][..]),
            Self::Chat(turns) | Self::Preference { chosen: turns, .. } => (None, turns.as_slice()),
        };
        text.into_iter().chain(turns.iter().filter(|turn| turn.role == Role::Assistant).map(|turn| turn.content.as_str()))
    }

    /// What comes before the first answer; nothing of a plain text.
    #[must_use]
    pub fn prompt(&self) -> &[Turn] {
        match self {
            Self::Text(_) => &[],
            Self::Chat(turns) => &turns[..turns.iter().position(|turn| turn.role == Role::Assistant).unwrap_or(turns.len())],
            Self::Preference { prompt, .. } => prompt,
        }
    }

    /// Bytes of all texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.texts().map(str::len).sum()
    }
}

impl Example {
    /// Its line in the canonical form of a data set, without the line break.
    #[must_use]
    pub fn line(&self) -> String {
        // Strings and lists of them can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What it says, as a hash: the same wherever it is from.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let bare = Bare(&self.body);
        Sha256::digest(serde_json::to_vec(&bare).unwrap_or_default()).into()
    }
}

/// A body alone, in the canonical form.
struct Bare<'a>(&'a Body);

impl Serialize for Bare<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write(self.0, &mut map)?;
        map.end()
    }
}

impl Serialize for Example {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write(&self.body, &mut map)?;
        if let Some(group) = &self.group {
            map.serialize_entry("group", group)?;
        }
        map.end()
    }
}

fn write<M: SerializeMap>(body: &Body, map: &mut M) -> Result<(), M::Error> {
    match body {
        Body::Chat(turns) => map.serialize_entry("messages", turns),
        Body::Text(text) => map.serialize_entry("text", text),
        Body::Preference { prompt, chosen, rejected } => {
            map.serialize_entry("prompt", prompt)?;
            map.serialize_entry("chosen", chosen)?;
            map.serialize_entry("rejected", rejected)
        }
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    pub fn chat(user: &str, assistant: &str) -> Example {
        example(Body::Chat(vec![Turn::new(Role::User, user), Turn::new(Role::Assistant, assistant)]))
    }

    /// Words of their own, with a space behind each.
    pub fn words(numbers: impl Iterator<Item = u32>) -> String {
        numbers.flat_map(|n| ["w".to_owned(), n.to_string(), " ".to_owned()]).collect()
    }

    pub fn text(text: &str) -> Example {
        example(Body::Text(text.to_owned()))
    }

    pub fn example(body: Body) -> Example {
        Example { body, group: None, source: 0, row: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{chat, example, text};
    use super::*;

    #[test]
    fn every_body_has_a_line() {
        assert_eq!(
            chat("Hi", "\"Yes\"").line(),
            r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"\"Yes\""}]}"#
        );
        assert_eq!(Example { group: Some("g".to_owned()), ..text("a\nb") }.line(), r#"{"text":"a\nb","group":"g"}"#);
        let turn = |text| vec![Turn::new(Role::Assistant, text)];
        let body = Body::Preference { prompt: vec![Turn::new(Role::User, "q")], chosen: turn("a"), rejected: turn("b") };
        assert_eq!(body.texts().collect::<Vec<_>>(), ["q", "a", "b"]);
        assert_eq!(body.answers().collect::<Vec<_>>(), ["a"]);
        let line = example(body).line();
        assert!(line.starts_with(r#"{"prompt":[{"role":"user","content":"q"}],"chosen":["#), "{line}");
    }

    #[test]
    fn a_hash_is_of_what_is_said_not_of_where_it_is_from() {
        let one = chat("a", "b");
        assert_eq!(one.digest(), Example { source: 3, row: 9, group: Some("g".to_owned()), ..one.clone() }.digest());
        assert_ne!(one.digest(), chat("ab", "").digest());
    }
}
