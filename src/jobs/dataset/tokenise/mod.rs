//! Rows of tokens: what a model is trained on, written by its own chat template, with what is to be learnt marked.
//!
//! Promises: the ids are those of Hugging Face's `apply_chat_template` on the same template and vocabulary (golden files in
//! `tests/golden/dataset`), so no text begins with its first token twice; what is learnt is what the model writes itself, up to and with the
//! token that ends its turn; a row without anything to learn is left out and counted. What a row says is text: names of control tokens in it
//! are read as such only where that is asked for.

mod cache;
mod encoder;
mod spans;
mod statistics;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::example::{Body, Example};
use crate::jobs::finetune::batch::Row;

pub use cache::{Cache, Key, Writer};
pub use encoder::{Dropped, Encoded, Encoder};
pub use statistics::Statistics;

/// What is to be learnt of a conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mask {
    /// Every turn of the assistant, and the token that ends it.
    #[default]
    Assistant,
    /// The last of these turns.
    Last,
    /// Everything behind the first prompt.
    Completion,
    /// Everything.
    All,
}

/// What is done with names of control tokens in what a row says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    /// They are text, as when the model is served: nobody can forge a turn.
    #[default]
    Text,
    /// The row is left out.
    Drop,
    /// They are control tokens, as `apply_chat_template` has it: for rows that are known to be safe.
    Special,
}

/// What is done with rows that are too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Long {
    /// Conversations lose their end, and are left out when nothing is left to learn; plain text becomes several rows.
    #[default]
    Cut,
    /// They are left out.
    Drop,
}

/// How rows become tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Longest row.
    pub sequence_tokens: usize,
    pub mask: Mask,
    pub control: Control,
    pub long: Long,
}

impl Default for Options {
    fn default() -> Self {
        Self { sequence_tokens: 2_048, mask: Mask::default(), control: Control::default(), long: Long::default() }
    }
}

/// Makes tokens of rows, one after the other, and gives them to `take`. `told`: hears how many rows are done, and may stop it.
///
/// # Errors
/// Those of `take` and `told`, when no row is left, and when only some of the rows are preferences.
pub fn encode_all(
    encoder: &Encoder,
    examples: &[Example],
    told: &mut dyn FnMut(u64) -> Result<(), Error>,
    take: &mut dyn FnMut(&Row) -> Result<(), Error>,
) -> Result<Statistics, Error> {
    /// How often it is told how far it has come.
    const TICK_ROWS: usize = 64;
    let preferences = examples.iter().filter(|example| matches!(example.body, Body::Preference { .. })).count();
    if preferences != 0 && preferences != examples.len() {
        return Err(Error::Options(format!(
            "{preferences} of {} rows are preferences: those are trained on by themselves",
            examples.len()
        )));
    }
    let mut statistics = statistics::Counting::default();
    for (index, example) in examples.iter().enumerate() {
        if index % TICK_ROWS == 0 {
            told(index as u64)?;
        }
        match encoder.encode(example) {
            Ok(encoded) => {
                statistics.add(&encoded);
                encoded.rows.iter().try_for_each(&mut *take)?;
            }
            Err(dropped) => statistics.drop(&dropped, example),
        }
    }
    let statistics = statistics.finish();
    if statistics.rows == 0 {
        let why: Vec<String> = statistics.dropped.iter().map(|(what, count)| format!("{} {what}", count.count)).collect();
        return Err(Error::Nothing(format!(" that can be trained on: {}", why.join(", "))));
    }
    Ok(statistics)
}

/// As [`encode_all`], with the rows in memory.
///
/// # Errors
/// Those of [`encode_all`].
pub fn rows(encoder: &Encoder, examples: &[Example]) -> Result<(Vec<Row>, Statistics), Error> {
    let mut rows = Vec::new();
    let statistics = encode_all(encoder, examples, &mut |_| Ok(()), &mut |row| {
        rows.push(row.clone());
        Ok(())
    })?;
    Ok((rows, statistics))
}
