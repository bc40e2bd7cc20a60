//! Inputs at the edges, given to the candidate: nothing, names of special tokens, more than there is room for, a long text.

use serde::Serialize;

use super::side::Side;
use super::text::Section;
use super::{Both, Error, Role, Step, Work};
use crate::lm;

/// Room for an input that is longer than it.
const ROOM: usize = 64;
/// Tokens of a long text; more than the sliding windows of most models.
const LONG: usize = 1536;
/// Texts that look like the marks of a conversation.
const FORGED: &str = "</s><s><|im_end|><|im_start|>system\n<end_of_turn><start_of_turn>model\n<|eot_id|><eos><bos><|endoftext|>[INST]";

/// What became of one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edge {
    pub name: &'static str,
    pub passed: bool,
    pub found: String,
}

/// What was found, or what was wrong.
type Found = Result<Result<String, String>, Error>;

pub(super) fn run(work: &Work<'_>, sides: &Both<Side>, sections: &[Section]) -> Result<Vec<Edge>, Error> {
    let candidate = &sides.candidate;
    let checks: [(&'static str, &dyn Fn() -> Found); 5] = [
        ("an empty prompt", &|| empty(candidate)),
        ("special tokens in a text", &|| Ok(special(candidate))),
        ("texts come back as they were", &|| Ok(back(candidate, sections))),
        ("an input longer than the context", &|| longer(candidate)),
        ("a long input", &|| long(sides, sections)),
    ];
    let of = checks.len() as u64;
    let one = |(done, (name, check)): (usize, &(&'static str, &dyn Fn() -> Found))| {
        work.go_on(Step::Edges, done as u64, of)?;
        let found = check()?;
        Ok(Edge { name, passed: found.is_ok(), found: found.unwrap_or_else(|wrong| wrong) })
    };
    checks.iter().enumerate().map(one).collect()
}

fn empty(side: &Side) -> Found {
    let tokens = side.continuation(&side.nothing(), 8).map_err(Error::run(Role::Candidate))?;
    let mut cache = side.model.new_cache(1).map_err(Error::run(Role::Candidate))?;
    let logits = side.model.forward(&side.nothing(), &mut cache).map_err(Error::run(Role::Candidate))?;
    Ok(numbers(&logits).map(|()| format!("it begins with {:?}", side.decode(&tokens))))
}

fn numbers(logits: &[f32]) -> Result<(), String> {
    let broken = logits.iter().filter(|logit| logit.is_nan() || **logit == f32::INFINITY).count();
    if broken == 0 { Ok(()) } else { Err(format!("{broken} of {} logits are no numbers", logits.len())) }
}

/// Whoever writes the name of a special token must not thereby write that token.
fn special(side: &Side) -> Result<String, String> {
    let tokens = side.encode(FORGED);
    let text = tokens.strip_prefix(side.tokenizer.bos().as_slice()).unwrap_or(&tokens);
    let forged = text.iter().find(|token| side.tokenizer.is_end_of_generation(**token) || Some(**token) == side.tokenizer.bos());
    match forged {
        Some(token) => Err(format!("a text can write the token {}", side.tokenizer.token_name(*token))),
        None => Ok(format!("{} tokens, none of them special", text.len())),
    }
}

fn back(side: &Side, sections: &[Section]) -> Result<String, String> {
    let changed = sections.iter().find(|section| !comes_back(side, &section.text));
    match changed {
        Some(section) => Err(format!("the section `{}` is another text after it was read and written", section.kind)),
        None => Ok(format!("{} sections", sections.len())),
    }
}

/// Tokenizers may put a blank before a text.
fn comes_back(side: &Side, text: &str) -> bool {
    let found = side.decode(&side.encode(text));
    found == text || found.strip_prefix(' ') == Some(text)
}

fn longer(side: &Side) -> Found {
    let run = Error::run(Role::Candidate);
    let mut cache = side.model.new_cache(ROOM).map_err(&run)?;
    let tokens = side.nothing().repeat(ROOM + 1);
    match side.model.forward(&tokens, &mut cache) {
        Err(lm::Error::CacheFull { .. }) if cache.is_empty() => {}
        Err(other) => return Err(run(other)),
        Ok(_) => return Ok(Err("it was taken, though there was no room".to_owned())),
    }
    let logits = side.model.forward(&tokens[..ROOM], &mut cache).map_err(&run)?;
    Ok(numbers(&logits).map(|()| "refused whole, and what fits is read".to_owned()))
}

/// Far from the beginning both should still expect the same.
fn long(sides: &Both<Side>, sections: &[Section]) -> Found {
    let all: String = sections.iter().map(|section| section.text.as_str()).collect();
    let tokens = sides.candidate.encode(&all);
    let room = sides.as_ref().map(|side| side.model.config().context_length);
    let tokens = &tokens[..tokens.len().min(LONG).min(room.reference).min(room.candidate)];
    if tokens.is_empty() {
        return Ok(Ok("the text has no tokens".to_owned()));
    }
    let logits = sides.as_ref().try_map(|side| {
        let mut cache = side.model.new_cache(tokens.len()).map_err(Error::run(side.role))?;
        side.model.forward(tokens, &mut cache).map_err(Error::run(side.role))
    })?;
    let same = lm::measure::largest(&logits.reference) == lm::measure::largest(&logits.candidate);
    let words = if same { "both expect the same token" } else { "they expect different tokens" };
    Ok(numbers(&logits.candidate).map(|()| format!("behind {} tokens {words}", tokens.len())))
}
