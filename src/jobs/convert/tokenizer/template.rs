//! The chat template of a folder: one, or several by name.

use serde_json::{Map, Value};

use super::super::error::Result;
use super::super::folder::Folder;
use super::super::metadata::Pairs;

/// The template: in the tokenizer's configuration, or in a file of its own.
pub(super) fn read(folder: &Folder, config: &Map<String, Value>) -> Result<Option<Value>> {
    if let Some(template) = config.get("chat_template") {
        return Ok(Some(template.clone()).filter(|template| template.is_string() || template.is_array()));
    }
    if let Some(text) = folder.text("chat_template.jinja")? {
        let default = Value::from(unix_lines(&text));
        let more = more_templates(folder)?;
        if more.is_empty() {
            return Ok(Some(default));
        }
        let named = |name: &str, template: Value| serde_json::json!({"name": name, "template": template});
        return Ok(Some(
            [named("default", default)].into_iter().chain(more.iter().map(|(name, text)| named(name, text.as_str().into()))).collect(),
        ));
    }
    let json = folder.json("chat_template.json")?;
    Ok(json.and_then(|json| json.get("chat_template").cloned()).filter(|template| template.is_string() || template.is_array()))
}

fn more_templates(folder: &Folder) -> Result<Vec<(String, String)>> {
    let Some(folder) = folder.inner("additional_chat_templates")? else { return Ok(Vec::new()) };
    let mut templates = Vec::new();
    for file in folder.names("", ".jinja")? {
        let text = folder.text(&file)?.unwrap_or_default();
        templates.push((file.trim_end_matches(".jinja").to_owned(), unix_lines(&text)));
    }
    Ok(templates)
}

/// As Python reads a text.
fn unix_lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// Writes one template, or several by name. Names come sorted: the converter's order is Python's of a set, which is none.
pub(super) fn write(pairs: &mut Pairs, template: &Value) {
    match template {
        Value::String(template) => pairs.string("tokenizer.chat_template", template),
        Value::Array(templates) => write_several(pairs, templates),
        _ => {}
    }
}

fn write_several(pairs: &mut Pairs, templates: &[Value]) {
    let mut names = Vec::new();
    let mut default = None;
    for choice in templates {
        let name: String = choice.get("name").and_then(Value::as_str).unwrap_or_default().chars().map(plain).collect();
        match choice.get("template").and_then(Value::as_str) {
            Some(template) if name == "default" => default = Some(template),
            Some(template) if !name.is_empty() => {
                pairs.string(format!("tokenizer.chat_template.{name}"), template);
                names.push(name);
            }
            _ => {}
        }
    }
    names.sort_unstable();
    names.dedup();
    pairs.strings("tokenizer.chat_templates", &names);
    pairs.string("tokenizer.chat_template", default.unwrap_or_default());
}

fn plain(c: char) -> char {
    if c.is_ascii_alphanumeric() { c } else { '_' }
}
