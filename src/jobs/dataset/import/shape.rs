//! What the fields of a row mean: the shapes in which people keep data for fine-tuning.

use serde_json::{Map, Value};

use super::Reason;
use crate::jobs::dataset::example::{Body, Role, Turn};

type Fields = Map<String, Value>;

const CONVERSATIONS: [&str; 3] = ["messages", "conversations", "conversation"];
const QUESTIONS: [&str; 4] = ["prompt", "question", "query", "instruction"];
const ANSWERS: [&str; 5] = ["completion", "response", "answer", "output", "chosen_response"];

/// Reads a row. Shapes are told apart by the fields that are there, the more particular ones first.
pub(super) fn read(fields: &Fields) -> Result<Body, Reason> {
    if fields.contains_key("chosen") && fields.contains_key("rejected") {
        return preference(fields);
    }
    if let Some(key) = CONVERSATIONS.into_iter().find(|key| fields.get(*key).is_some_and(|value| !value.is_null())) {
        let turns = turns(&fields[key], key)?;
        return chat(preamble(fields)?.into_iter().chain(turns).collect());
    }
    let given = |key: &&str| fields.get(*key).is_some_and(|value| !value.is_null());
    let named = |key: &&str| fields.contains_key(*key) && !fields.contains_key("text");
    if let Some(answer) = ANSWERS.into_iter().find(given).or_else(|| ANSWERS.into_iter().find(named)) {
        return answered(fields, answer);
    }
    match fields.get("text") {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Body::Text(text.clone())),
        Some(Value::String(_)) => Err(Reason::Empty("text")),
        _ => Err(unknown(fields)),
    }
}

/// A conversation that no answer belongs to yet.
pub fn conversation(fields: &Fields, key: &'static str) -> Result<Vec<Turn>, Reason> {
    let turns = turns(fields.get(key).ok_or(Reason::Field(key))?, key)?;
    let all: Vec<Turn> = preamble(fields)?.into_iter().chain(turns).collect();
    if all.iter().any(|turn| turn.role == Role::User) { Ok(all) } else { Err(Reason::Empty("prompt")) }
}

/// Reads a row that asks something and has no answer yet: a conversation in which the assistant says nothing; a question by itself, with or
/// without an empty field for the answer. `None`: it is none of these.
pub(super) fn read_prompt(fields: &Fields) -> Result<Option<Body>, Reason> {
    let given = |key: &&str| fields.get(*key).is_some_and(|value| !value.is_null());
    if given(&"chosen") && given(&"rejected") {
        return Ok(None);
    }
    if let Some(key) = CONVERSATIONS.into_iter().find(given) {
        return unanswered(preamble(fields)?.into_iter().chain(turns(&fields[key], key)?).collect());
    }
    let is_blank = |value: &Value| value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty());
    let Some(question) = QUESTIONS.into_iter().find(given) else { return Ok(None) };
    if ANSWERS.into_iter().any(|key| fields.get(key).is_some_and(|value| !is_blank(value))) {
        return Ok(None);
    }
    let mut all = preamble(fields)?;
    all.extend(history(fields)?);
    match &fields[question] {
        value @ Value::Array(_) => all.extend(turns(value, question)?),
        value => all.push(Turn::new(Role::User, with_input(fields, text(value, question)?)?)),
    }
    unanswered(all)
}

fn unanswered(mut turns: Vec<Turn>) -> Result<Option<Body>, Reason> {
    if turns.last().is_some_and(|last| last.role == Role::Assistant && last.content.trim().is_empty()) {
        turns.pop();
    }
    // One that was answered before is learnt from up to there, as ever.
    if turns.iter().any(|turn| turn.role == Role::Assistant) || turns.iter().all(|turn| turn.role == Role::System) {
        return Ok(None);
    }
    if turns.iter().filter(|turn| turn.role == Role::User).all(|turn| turn.content.trim().is_empty()) {
        return Err(Reason::Empty("prompt"));
    }
    Ok(Some(Body::Chat(turns)))
}

/// Instruction and output, prompt and completion, question and answer.
fn answered(fields: &Fields, answer: &str) -> Result<Body, Reason> {
    let question = QUESTIONS.into_iter().find(|key| fields.get(*key).is_some_and(|value| !value.is_null()));
    let mut all = preamble(fields)?;
    all.extend(history(fields)?);
    match question {
        Some(key) if fields[key].is_array() => all.extend(turns(&fields[key], key)?),
        Some(key) => all.push(Turn::new(Role::User, with_input(fields, text(&fields[key], key)?)?)),
        // Rows of nothing but `input` and `output`.
        None => all.push(Turn::new(Role::User, text(fields.get("input").ok_or_else(|| unknown(fields))?, "input")?)),
    }
    match &fields[answer] {
        value @ Value::Array(_) => all.extend(turns(value, "completion")?),
        value => all.push(Turn::new(Role::Assistant, text(value, "completion")?)),
    }
    chat(all)
}

/// What an instruction is about, in a paragraph of its own.
fn with_input(fields: &Fields, question: String) -> Result<String, Reason> {
    let found = ["input", "context"].into_iter().find_map(|key| fields.get(key).filter(|value| !value.is_null()).map(|value| (key, value)));
    let Some((key, value)) = found else { return Ok(question) };
    let input = text(value, key)?;
    Ok(if input.trim().is_empty() { question } else { format!("{question}\n\n{input}") })
}

/// Earlier questions and answers, as pairs.
fn history(fields: &Fields) -> Result<Vec<Turn>, Reason> {
    let Some(Value::Array(pairs)) = fields.get("history") else { return Ok(Vec::new()) };
    let mut turns = Vec::new();
    for pair in pairs {
        let (Some(question), Some(answer)) = (pair.get(0), pair.get(1)) else { return Err(Reason::Field("history")) };
        turns.push(Turn::new(Role::User, text(question, "history")?));
        turns.push(Turn::new(Role::Assistant, text(answer, "history")?));
    }
    Ok(turns)
}

fn preference(fields: &Fields) -> Result<Body, Reason> {
    let mut prompt = preamble(fields)?;
    if let Some(key) = QUESTIONS.into_iter().find(|key| fields.get(*key).is_some_and(|value| !value.is_null())) {
        match &fields[key] {
            value @ Value::Array(_) => prompt.extend(turns(value, key)?),
            value => prompt.push(Turn::new(Role::User, text(value, key)?)),
        }
    }
    let (mut chosen, mut rejected) = (side(fields, "chosen")?, side(fields, "rejected")?);
    // Some have the whole conversation on both sides.
    let shared = chosen.iter().zip(&rejected).take_while(|(one, other)| one == other).count();
    let mut before: Vec<Turn> = chosen.drain(..shared).collect();
    rejected.drain(..shared);
    if prompt.is_empty() || before.iter().filter(|turn| turn.role == Role::User).eq(prompt.iter().filter(|turn| turn.role == Role::User)) {
        prompt.retain(|turn| turn.role == Role::System && before.first().is_none_or(|first| first.role != Role::System));
    }
    prompt.append(&mut before);
    let answers = |turns: &[Turn]| turns.iter().any(|turn| turn.role == Role::Assistant);
    if chosen == rejected {
        return Err(Reason::Same);
    }
    if !answers(&chosen) || !answers(&rejected) {
        return Err(Reason::NoAnswer);
    }
    if prompt.iter().all(|turn| turn.role == Role::System) {
        return Err(Reason::Empty("prompt"));
    }
    Ok(Body::Preference { prompt, chosen, rejected })
}

fn side(fields: &Fields, key: &'static str) -> Result<Vec<Turn>, Reason> {
    match &fields[key] {
        value @ Value::Array(_) => turns(value, key),
        value => Ok(vec![Turn::new(Role::Assistant, text(value, key)?)]),
    }
}

/// A conversation is learnt from up to its last answer.
fn chat(mut turns: Vec<Turn>) -> Result<Body, Reason> {
    let last = turns.iter().rposition(|turn| turn.role == Role::Assistant).ok_or(Reason::NoAnswer)?;
    turns.truncate(last + 1);
    if turns.iter().any(|turn| turn.role == Role::Assistant && turn.content.trim().is_empty()) {
        return Err(Reason::Empty("answer"));
    }
    if turns.iter().all(|turn| matches!(turn.role, Role::Assistant | Role::System)) {
        return Err(Reason::Empty("prompt"));
    }
    Ok(Body::Chat(turns))
}

/// What stands before the conversation: a system's text and the tools that there are.
fn preamble(fields: &Fields) -> Result<Vec<Turn>, Reason> {
    let mut parts = Vec::new();
    for key in ["system", "system_prompt"] {
        match fields.get(key) {
            Some(Value::String(text)) if !text.trim().is_empty() => parts.push(text.clone()),
            None | Some(Value::Null | Value::String(_)) => {}
            Some(_) => return Err(Reason::Field("system")),
        }
    }
    match fields.get("tools") {
        Some(Value::Array(tools)) if !tools.is_empty() => parts.push(format!("<tools>\n{}\n</tools>", Value::Array(tools.clone()))),
        Some(Value::String(tools)) if !tools.trim().is_empty() && tools.trim() != "[]" => parts.push(format!("<tools>\n{tools}\n</tools>")),
        _ => {}
    }
    Ok(if parts.is_empty() { Vec::new() } else { vec![Turn::new(Role::System, parts.join("\n\n"))] })
}

/// A list of turns; in a table it is written as JSON in a text.
fn turns(value: &Value, key: &'static str) -> Result<Vec<Turn>, Reason> {
    let parsed;
    let list = match value {
        Value::Array(list) => list,
        Value::String(json) => {
            parsed = serde_json::from_str::<Vec<Value>>(json).map_err(|_| Reason::Field(key))?;
            &parsed
        }
        _ => return Err(Reason::Field(key)),
    };
    list.iter().map(|item| turn(item, key)).collect()
}

fn turn(item: &Value, key: &'static str) -> Result<Turn, Reason> {
    let item = item.as_object().ok_or(Reason::Field(key))?;
    let says = item.get("role").or_else(|| item.get("from")).and_then(Value::as_str).ok_or(Reason::Field(key))?;
    let role = role(says)?;
    let mut content = match item.get("content").or_else(|| item.get("value")) {
        Some(Value::Null) | None => String::new(),
        Some(Value::Array(parts)) => parts.iter().map(part).collect::<Result<Vec<_>, _>>()?.concat(),
        Some(value) => text(value, key)?,
    };
    if let Some(Value::Array(calls)) = item.get("tool_calls") {
        for call in calls {
            let function = call.get("function").unwrap_or(call);
            let line = if content.is_empty() { "" } else { "\n" };
            content = format!("{content}{line}<tool_call>\n{}\n</tool_call>", called(function));
        }
    }
    if says == "function_call" {
        content = format!("<tool_call>\n{content}\n</tool_call>");
    }
    Ok(Turn { role, content })
}

/// A call with its arguments as JSON, where they are written as JSON in a text.
fn called(function: &Value) -> Value {
    let arguments = function.get("arguments").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let parsed = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
    serde_json::json!({"name": function.get("name").cloned().unwrap_or_default(), "arguments": parsed.unwrap_or(arguments)})
}

/// A part of a content that is given in parts.
fn part(part: &Value) -> Result<String, Reason> {
    match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
        (Some("text") | None, Some(text)) => Ok(text.to_owned()),
        _ => part.as_str().map(str::to_owned).ok_or(Reason::Media),
    }
}

fn role(says: &str) -> Result<Role, Reason> {
    match says.to_ascii_lowercase().as_str() {
        "system" | "developer" => Ok(Role::System),
        "user" | "human" | "prompter" => Ok(Role::User),
        "assistant" | "gpt" | "model" | "bot" | "chatgpt" | "bard" | "function_call" => Ok(Role::Assistant),
        "tool" | "function" | "observation" | "function_response" | "ipython" => Ok(Role::Tool),
        _ => Err(Reason::Role),
    }
}

/// A text; numbers and truth values, which tables and lists have, are taken as they are written.
fn text(value: &Value, key: &'static str) -> Result<String, Reason> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(yes) => Ok(yes.to_string()),
        _ => Err(Reason::Field(key)),
    }
}

fn unknown(fields: &Fields) -> Reason {
    let names: Vec<String> = fields.keys().take(12).map(|key| key.chars().take(40).collect()).collect();
    Reason::Shape(names.join(", "))
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
