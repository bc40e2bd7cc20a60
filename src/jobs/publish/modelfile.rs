//! A Modelfile beside a finished file, for people and for `ollama create`.
//!
//! What is published goes over the API, never through this text: a Modelfile cannot say everything. It has no escapes, so a text that
//! holds `"""`, or begins or ends with a quote, cannot be written in it; then [`render`] says which one.

use std::fmt::Write as _;

use serde_json::Value;

use super::Manifest;

/// What a text that is not plain stands between.
const QUOTES: &str = "\"\"\"";

/// Why there can be no Modelfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "a Modelfile cannot hold the {what}: it has quotes (\"\"\") in it, for which Modelfiles have no other way of writing; publish over the API"
    )]
    Quotes { what: &'static str },
    #[error("a Modelfile cannot hold the {what}: it is empty, or begins or ends with a blank or a quote; publish over the API")]
    Edges { what: &'static str },
    #[error("a Modelfile cannot name the file `{path}`: it has a line break in its name")]
    Path { path: String },
}

/// The text of a Modelfile. `model` and `adapter` are written as they are: relative to the Modelfile (`./model.gguf`) or absolute.
///
/// # Errors
/// A text that no Modelfile can hold.
pub fn render(manifest: &Manifest, model: &str, adapter: Option<&str>) -> Result<String, Error> {
    let mut text = format!("# To make this model without Arriero: ollama create {} -f Modelfile\n", manifest.name);
    file(&mut text, "FROM", model)?;
    adapter.map_or(Ok(()), |adapter| file(&mut text, "ADAPTER", adapter))?;
    for (name, value) in &manifest.parameters {
        parameter(&mut text, name, value)?;
    }
    let optional = [("SYSTEM", "system text", &manifest.system), ("TEMPLATE", "template", &manifest.template)];
    for (command, what, value) in optional {
        value.as_deref().map_or(Ok(()), |value| put(&mut text, command, what, value))?;
    }
    for message in &manifest.messages {
        put(&mut text, &format!("MESSAGE {}", message.role.as_str()), "message", &message.content)?;
    }
    manifest.license.iter().try_for_each(|license| put(&mut text, "LICENSE", "licence", license))?;
    Ok(text)
}

fn file(text: &mut String, command: &str, path: &str) -> Result<(), Error> {
    if path.contains(['\n', '\r']) {
        return Err(Error::Path { path: path.escape_debug().take(80).collect() });
    }
    let _ = writeln!(text, "{command} {path}");
    Ok(())
}

/// A list is one line for each of its values.
fn parameter(text: &mut String, name: &str, value: &Value) -> Result<(), Error> {
    match value {
        Value::Null => Ok(()),
        Value::Array(values) => values.iter().try_for_each(|value| parameter(text, name, value)),
        Value::String(value) => put(text, &format!("PARAMETER {name}"), "parameter", value),
        other => {
            let _ = writeln!(text, "PARAMETER {name} {other}");
            Ok(())
        }
    }
}

/// A short plain text stands by itself, any other between quotes.
fn put(text: &mut String, command: &str, what: &'static str, value: &str) -> Result<(), Error> {
    let value = value.replace("\r\n", "\n");
    if value.contains(QUOTES) {
        return Err(Error::Quotes { what });
    }
    let edge = |c: char| c == '"' || c.is_whitespace();
    if is_plain(&value) {
        let _ = writeln!(text, "{command} {value}");
    } else if value.starts_with('"') || value.ends_with('"') || (command.starts_with("PARAMETER") && value.trim_matches(edge).is_empty()) {
        return Err(Error::Edges { what });
    } else {
        let _ = writeln!(text, "{command} {QUOTES}{value}{QUOTES}");
    }
    Ok(())
}

/// Whether a text means itself when it stands on a line alone.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.trim() == value && !value.contains(['\n', '\r', '"', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::ollama::shelf::{Message, Role};
    use crate::domain::id::ModelName;
    use serde_json::json;

    fn manifest() -> Manifest {
        Manifest::new(ModelName::parse("me/coder:1b").expect("a name"))
    }

    #[test]
    fn every_command_is_written() {
        let full = Manifest {
            parameters: json!({"temperature": 0.2, "stop": ["User:", "# end"], "num_ctx": 8192, "seed": null})
                .as_object()
                .cloned()
                .expect("a map"),
            system: Some("You are kind.\nAnswer briefly.".into()),
            template: Some("{{ .Prompt }}".into()),
            license: vec!["MIT".into()],
            messages: vec![
                Message { role: Role::User, content: "hi".into() },
                Message { role: Role::Assistant, content: "say \"yes\" now".into() },
            ],
            ..manifest()
        };
        let text = render(&full, "./model.gguf", Some("./adapter.gguf")).expect("a Modelfile");
        let expected = "# To make this model without Arriero: ollama create me/coder:1b -f Modelfile\nFROM ./model.gguf\nADAPTER ./adapter.gguf\n\
             PARAMETER temperature 0.2\nPARAMETER stop User:\nPARAMETER stop \"\"\"# end\"\"\"\nPARAMETER num_ctx 8192\n\
             SYSTEM \"\"\"You are kind.\nAnswer briefly.\"\"\"\nTEMPLATE {{ .Prompt }}\nMESSAGE user hi\nMESSAGE assistant \"\"\"say \"yes\" now\"\"\"\nLICENSE MIT\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_a_modelfile_cannot_hold_is_said() {
        let system = |text: &str| render(&Manifest { system: Some(text.into()), ..manifest() }, "m.gguf", None);
        assert_eq!(system("a \"\"\" b"), Err(Error::Quotes { what: "system text" }));
        assert_eq!(system("ends with \"quotes\""), Err(Error::Edges { what: "system text" }));
        assert!(system("in \"the\" middle").is_ok());
        assert!(render(&manifest(), "a\nFROM b", None).is_err());
    }
}
