//! What both models make of the same prompts, side by side.

use serde::Serialize;

use super::side::Side;
use super::{Both, Error, Step, Work};

/// What is continued when nothing else is given: things that small changes of a model spoil first.
const BUILT_IN: [&str; 6] = [
    "The capital of Italy is",
    "Write a function in Python that tells whether a number is prime.",
    "List the planets of the solar system in the order of their distance from the sun.",
    "17 + 25 =",
    "Translate into Spanish: The weather is good today.",
    "Once upon a time there was a mule that",
];
/// Most prompts, and the longest, in bytes.
const MAX_PROMPTS: usize = 64;
const MAX_PROMPT_BYTES: usize = 64 * 1024;
/// Tokens of a prompt that are used, from its end.
const MAX_PROMPT_TOKENS: usize = 2048;

/// One prompt and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Continued {
    pub prompt: String,
    pub texts: Both<String>,
    /// Tokens until the first that differs, of so many.
    pub equal_tokens: usize,
    pub tokens: usize,
}

pub(super) fn run(work: &Work<'_>, sides: &Both<Side>) -> Result<Vec<Continued>, Error> {
    let given: Vec<&str> = work.spec.prompts.iter().map(String::as_str).collect();
    let prompts: &[&str] = if given.is_empty() { &BUILT_IN } else { &given[..given.len().min(MAX_PROMPTS)] };
    let of = prompts.len() as u64;
    let one = |(done, prompt): (usize, &&str)| {
        work.go_on(Step::Continuing, done as u64, of)?;
        continued(sides, prompt, work.spec.continuation_tokens)
    };
    prompts.iter().enumerate().map(one).collect()
}

fn continued(sides: &Both<Side>, prompt: &str, count: usize) -> Result<Continued, Error> {
    let end = (0..=prompt.len().min(MAX_PROMPT_BYTES)).rev().find(|at| prompt.is_char_boundary(*at)).unwrap_or(0);
    let prompt = &prompt[..end];
    let tokens = sides.as_ref().try_map(|side| {
        let ids = side.encode_prompt(prompt).map_err(|source| Error::Template { role: side.role, source })?;
        side.continuation(&ids[ids.len().saturating_sub(MAX_PROMPT_TOKENS)..], count).map_err(Error::run(side.role))
    })?;
    let equal_tokens = tokens.reference.iter().zip(&tokens.candidate).take_while(|(a, b)| a == b).count();
    Ok(Continued {
        prompt: prompt.to_owned(),
        equal_tokens,
        tokens: tokens.reference.len().max(tokens.candidate.len()),
        texts: Both { reference: sides.reference.decode(&tokens.reference), candidate: sides.candidate.decode(&tokens.candidate) },
    })
}
