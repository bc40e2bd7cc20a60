//! Making a request smaller, so that a smaller model, or one with less memory, can serve it.
//!
//! Options are only ever lowered. Of the prompt the oldest goes first: the tokens of earlier answers, then the beginning of the
//! text; the system prompt, the suffix and the images stay. A raw prompt is left alone: where its system prompt ends cannot be
//! told. Every change is told with sizes, never with text. There is no tokenizer here: text is cut by an estimate.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::generation::{Ask, Change, Prompt};

/// What is made smaller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Simplify {
    /// The context is at most this, in tokens.
    pub num_ctx: Option<u32>,
    /// At most this many tokens are asked for.
    pub num_predict: Option<u32>,
    /// The prompt has at most this many tokens, the system prompt included, which is never cut.
    pub trim_history: Option<u64>,
}

impl Simplify {
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The smaller of both, wherever one says something.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            [a, b].into_iter().flatten().min()
        }
        Self {
            num_ctx: least(self.num_ctx, other.num_ctx),
            num_predict: least(self.num_predict, other.num_predict),
            trim_history: least(self.trim_history, other.trim_history),
        }
    }
}

const WHY: &str = "a fallback serves a simpler request";

/// Bytes of plain text that make a token, about.
const BYTES_PER_TOKEN: u64 = 4;

/// About how many tokens a text has: one for four bytes of ASCII, one for any other character. Rather too many than too few.
#[must_use]
pub fn estimate_tokens(text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count() as u64;
    let other = text.chars().filter(|c| !c.is_ascii()).count() as u64;
    ascii.div_ceil(BYTES_PER_TOKEN) + other
}

/// The smaller request, and what was changed. What is small enough already is left as it is.
#[must_use]
pub fn simplify(ask: &Ask, simplify: &Simplify) -> (Ask, Vec<Change>) {
    let (mut ask, mut changes) = (ask.clone(), Vec::new());
    let changed = |field: &str, from: Value, to: Value| Change { field: field.to_owned(), from, to, why: WHY };
    let options = &mut ask.options;
    if let Some(most) = simplify.num_ctx.filter(|most| options.num_ctx.is_none_or(|asked| asked > *most)) {
        changes.push(changed("options.num_ctx", json!(options.num_ctx), json!(most)));
        options.num_ctx = Some(most);
    }
    // Below 1 means without a bound.
    if let Some(most) = simplify.num_predict.map(i64::from).filter(|most| options.num_predict.is_none_or(|n| n < 1 || n > *most)) {
        changes.push(changed("options.num_predict", json!(options.num_predict), json!(most)));
        options.num_predict = Some(most);
    }
    if let Some(most) = simplify.trim_history.filter(|_| !ask.prompt.raw) {
        let trimmed = trim(&mut ask.prompt, most);
        changes.extend(trimmed.into_iter().map(|(field, from, to)| changed(field, from, to)));
    }
    (ask, changes)
}

/// Brings a prompt down to about `most` tokens; says what was cut, with its size before and after.
fn trim(prompt: &mut Prompt, most: u64) -> Vec<(&'static str, Value, Value)> {
    let kept_whole = [&prompt.system, &prompt.suffix].into_iter().flatten().map(|text| estimate_tokens(text)).sum::<u64>();
    let (text, history) = (estimate_tokens(&prompt.text), prompt.context.len());
    let mut cut = Vec::new();
    let room = most.saturating_sub(kept_whole + text);
    let keep = usize::try_from(room).unwrap_or(usize::MAX).min(history);
    if keep < history {
        prompt.context.drain(..history - keep);
        cut.push(("context", json!({ "tokens": history }), json!({ "tokens": keep })));
    }
    let room = most.saturating_sub(kept_whole);
    if text > room {
        let kept = ending(&prompt.text, room);
        let (from, to) = (prompt.text.len(), kept.len());
        if to < from {
            prompt.text = kept.to_owned();
            cut.push(("prompt", json!({ "bytes": from }), json!({ "bytes": to })));
        }
    }
    cut
}

/// The longest ending of about this many tokens that begins with a line, or else with a word; the whole last word at the least.
fn ending(text: &str, tokens: u64) -> &str {
    let mut at = text.len();
    let (mut ascii, mut other) = (0_u64, 0_u64);
    for (index, character) in text.char_indices().rev() {
        let count = if character.is_ascii() { &mut ascii } else { &mut other };
        *count += 1;
        if ascii.div_ceil(BYTES_PER_TOKEN) + other > tokens {
            break;
        }
        at = index;
    }
    let kept = &text[at..];
    // Not more than half is given up for a good beginning.
    let after = |sign: char| kept.find(sign).map(|n| n + 1).filter(|n| *n <= kept.len() / 2);
    let start = match text[..at].chars().next_back() {
        None | Some('\n') => 0,
        Some(' ') => after('\n').unwrap_or(0),
        Some(_) => after('\n').or_else(|| after(' ')).unwrap_or(0),
    };
    let kept = &kept[start..];
    if kept.trim().is_empty() { last_word(text) } else { kept }
}

fn last_word(text: &str) -> &str {
    let end = text.trim_end();
    let start = end.rfind(char::is_whitespace).map_or(0, |at| at + end[at..].chars().next().map_or(1, char::len_utf8));
    &text[start..]
}

#[cfg(test)]
#[path = "simplify_tests.rs"]
mod tests;
