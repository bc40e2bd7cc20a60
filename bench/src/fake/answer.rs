//! What a fake model says: deterministic pieces of text, where they end, and how long a text is in tokens.

use serde_json::{Value, json};

/// The text of an answer and the length at which the model stops by itself.
#[derive(Debug, Clone)]
pub enum Text {
    /// Words that depend on model, prompt and seed alone.
    Words(usize),
    /// ` t0`, ` t1`, …: a lost, doubled or reordered token shows.
    Numbered(usize),
    /// ` <n>@<nanoseconds since 1970 at which it was made>`: for measuring delays.
    Stamped(usize),
    /// Exactly these pieces.
    Given(Vec<String>),
}

impl Default for Text {
    fn default() -> Self {
        Self::Words(32)
    }
}

const WORDS: [&str; 32] = [
    " the", " mule", " driver", " of", " a", " caravan", " walks", " over", " dry", " hills", " and", " counts", " each", " load", " at",
    " dawn", " with", " care", " so", " then", " they", " rest", " near", " old", " wells", " where", " water", " is", " cold", " but",
    " sweet", ",",
];

/// One step of a well-mixed sequence (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A stable hash (FNV-1a).
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// 64 hexadecimal digits that belong to a text. Not a cryptographic digest.
pub(super) fn digest(text: &str) -> String {
    let seed = hash(text);
    let parts: Vec<String> = (0..4_u64).map(|i| format!("{:016x}", mix(seed.wrapping_add(i)))).collect();
    parts.concat()
}

/// The seed of the words that answer a prompt.
pub fn seed_of(model: &str, prompt: &str, seed: i64) -> u64 {
    mix(hash(model) ^ hash(prompt).rotate_left(17) ^ mix(seed.cast_unsigned()))
}

impl Text {
    /// The piece of this number; none after the natural end.
    pub fn piece(&self, seed: u64, number: usize) -> Option<String> {
        match self {
            Self::Words(count) if number < *count => Some(word(seed, number).to_owned()),
            Self::Numbered(count) if number < *count => Some(format!(" t{number}")),
            Self::Stamped(count) if number < *count => Some(format!(" {number}@{}", crate::clock::nanos())),
            Self::Given(pieces) => pieces.get(number).cloned(),
            _ => None,
        }
    }
}

/// A sentence has twelve words.
fn word(seed: u64, number: usize) -> &'static str {
    if number % 12 == 11 {
        return ".";
    }
    WORDS[usize::try_from(mix(seed.wrapping_add(number as u64)) % 32).unwrap_or(0)]
}

/// A count of tokens: one for the beginning, one a word, one for a blank at the end.
pub fn tokens_in(text: &str) -> usize {
    1 + text.split_whitespace().count() + usize::from(text.ends_with(char::is_whitespace))
}

/// What is left of an over-long prompt: half of what lies behind the kept head is thrown away (measured: 6,002 → 2,051 at 4,096).
pub(super) fn truncated(num_ctx: usize, num_keep: usize) -> usize {
    let keep = (num_keep + 1).min(num_ctx.saturating_sub(1));
    num_ctx - ((num_ctx - keep) / 2).max(1)
}

/// What to say next.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    Thinking(String),
    Text(String),
    Call(Value),
    /// A token was made, but its text may be the beginning of a stop sequence.
    Held,
    /// `stop` or `length`.
    End(&'static str),
}

/// Says an answer piece by piece.
pub(super) struct Speaker {
    pub text: Text,
    pub seed: u64,
    pub limit: usize,
    pub stop: Vec<String>,
    pub thinking: usize,
    pub call: Option<Value>,
    /// Tokens made so far.
    pub spoken: usize,
    held: String,
    ended: bool,
}

impl Speaker {
    pub fn new(text: Text, seed: u64, limit: usize) -> Self {
        Self { text, seed, limit, stop: Vec::new(), thinking: 0, call: None, spoken: 0, held: String::new(), ended: false }
    }

    pub fn next(&mut self) -> Said {
        if self.ended {
            return Said::End("stop");
        }
        if self.spoken >= self.limit {
            return self.flush("length");
        }
        if self.spoken < self.thinking {
            self.spoken += 1;
            return Said::Thinking(word(self.seed, self.spoken - 1).to_owned());
        }
        if let Some(call) = self.call.take() {
            self.spoken += 1;
            self.ended = true;
            return Said::Call(call);
        }
        match self.text.piece(self.seed, self.spoken - self.thinking) {
            Some(piece) => self.say(&piece),
            None => self.flush("stop"),
        }
    }

    fn say(&mut self, piece: &str) -> Said {
        self.spoken += 1;
        if self.stop.is_empty() {
            return Said::Text(piece.to_owned());
        }
        self.held.push_str(piece);
        if let Some(at) = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.ended = true;
            self.held.truncate(at);
            return if at == 0 { Said::End("stop") } else { Said::Text(std::mem::take(&mut self.held)) };
        }
        if self.stop.iter().any(|stop| may_become(&self.held, stop)) {
            return Said::Held;
        }
        Said::Text(std::mem::take(&mut self.held))
    }

    fn flush(&mut self, reason: &'static str) -> Said {
        if self.held.is_empty() { Said::End(reason) } else { Said::Text(std::mem::take(&mut self.held)) }
    }
}

/// Whether a text ends with a beginning of a stop sequence.
fn may_become(text: &str, stop: &str) -> bool {
    (1..stop.len()).any(|length| stop.get(..length).is_some_and(|head| text.ends_with(head)))
}

/// The smallest value a JSON Schema allows, as far as a fake needs it.
pub(super) fn example(schema: &Value) -> Result<Value, ()> {
    if let Some(first) = schema.get("enum").and_then(Value::as_array).and_then(|values| values.first()) {
        return Ok(first.clone());
    }
    match schema.get("type").and_then(Value::as_str) {
        None => Ok(json!({})),
        Some("object") => {
            let none = serde_json::Map::new();
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
            properties.iter().map(|(key, inner)| Ok((key.clone(), example(inner)?))).collect::<Result<_, ()>>().map(Value::Object)
        }
        Some("array") => Ok(json!([])),
        Some("string") => Ok(json!("x")),
        Some("integer" | "number") => Ok(json!(1)),
        Some("boolean") => Ok(json!(true)),
        Some("null") => Ok(Value::Null),
        Some(_) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(speaker: &mut Speaker) -> (String, &'static str) {
        let mut text = String::new();
        loop {
            match speaker.next() {
                Said::Text(piece) => text.push_str(&piece),
                Said::End(reason) => return (text, reason),
                _ => {}
            }
        }
    }

    fn given(pieces: &[&str], limit: usize, stop: &str) -> Speaker {
        let text = Text::Given(pieces.iter().map(|&piece| piece.to_owned()).collect());
        Speaker { stop: vec![stop.to_owned()], ..Speaker::new(text, 0, limit) }
    }

    #[test]
    fn stop_sequences_across_pieces_are_cut_out() {
        assert_eq!(all(&mut given(&["a", "b<", "en", "d>", "c"], 9, "<end>")), ("ab".into(), "stop"));
        assert_eq!(all(&mut given(&["a", "b<", "eX", "c"], 9, "<end>")), ("ab<eXc".into(), "stop"));
        assert_eq!(all(&mut given(&["a", "b<", "eX", "c"], 2, "<end>")), ("ab<".into(), "length"));
    }

    #[test]
    fn lengths_are_those_measured() {
        assert_eq!(tokens_in("The capital of France is"), 6);
        assert_eq!(tokens_in(&"word ".repeat(6_000)), 6_002);
        assert_eq!(truncated(4_096, 4), 2_051);
        assert_eq!(truncated(4, 4), 3);
    }

    #[test]
    fn words_depend_on_their_seed_alone() {
        let said = |seed| (0..20).filter_map(|i| Text::Words(20).piece(seed, i)).collect::<String>();
        assert_eq!(said(1), said(1));
        assert_ne!(said(1), said(2));
        assert_eq!(Text::Words(20).piece(1, 20), None);
    }
}
