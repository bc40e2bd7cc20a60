//! Whether a model on a server is the one that is to be published, as far as the server tells. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Manifest, Publication};
use crate::backends::ollama::shelf::Shown;

/// A part of a model that is not what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Difference {
    pub what: &'static str,
    /// Nothing of it is there.
    pub missing: bool,
}

/// Whether it is this very model. A server that rewrote the file has another one, which this cannot know: then it is not.
pub(super) fn is_published(shown: &Shown, publication: &Publication) -> bool {
    let Publication { model, adapter, manifest } = publication;
    let adapters: Vec<_> = adapter.iter().map(|adapter| adapter.digest).collect();
    shown.files().first() == Some(&model.digest)
        && shown.adapters() == adapters
        && differences(shown, manifest).is_empty()
        && nothing_more(shown, manifest)
}

/// Where the server has something else than it was sent.
pub(super) fn differences(shown: &Shown, manifest: &Manifest) -> Vec<Difference> {
    let text = |what, sent: &str, there: &str| {
        let (sent, there) = (sent.trim(), there.trim());
        (sent != there).then_some(Difference { what, missing: there.is_empty() })
    };
    let optional = |what, sent: &Option<String>, there: &str| text(what, sent.as_ref()?, there);
    let found = [
        optional("system text", &manifest.system, &shown.system),
        optional("template", &manifest.template, &shown.template),
        if manifest.license.is_empty() { None } else { text("licence", &manifest.license.join("\n"), &shown.license) },
        (shown.messages != manifest.messages && !manifest.messages.is_empty())
            .then_some(Difference { what: "messages", missing: shown.messages.is_empty() }),
        parameters_differ(shown, manifest),
    ];
    found.into_iter().flatten().collect()
}

fn parameters_differ(shown: &Shown, manifest: &Manifest) -> Option<Difference> {
    let there = parameters(&shown.parameters);
    let same = |name: &str, value: &Value| there.get(name).is_some_and(|values| is_same(value, values));
    let sent = manifest.parameters.iter().filter(|(_, value)| !value.is_null());
    let different = sent.into_iter().any(|(name, value)| !same(name, value));
    different.then_some(Difference { what: "parameters", missing: there.is_empty() })
}

/// Whether what was not sent is not there either. A server that recognises the file's template adds it, and stops that go with it.
fn nothing_more(shown: &Shown, manifest: &Manifest) -> bool {
    let known = |name: &String| manifest.parameters.contains_key(name) || (name == "stop" && manifest.template.is_none());
    (manifest.system.is_some() || shown.system.trim().is_empty())
        && (!manifest.license.is_empty() || shown.license.trim().is_empty())
        && (!manifest.messages.is_empty() || shown.messages.is_empty())
        && parameters(&shown.parameters).keys().all(known)
}

/// `stop      "User:"` as a name and its values, without the quotes.
fn parameters(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::<String, Vec<String>>::new();
    for line in text.lines() {
        let Some((name, value)) = line.trim().split_once(char::is_whitespace) else { continue };
        let value = value.trim();
        // The server quotes as Go does, which for most texts is as JSON does.
        let value = serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_owned());
        all.entry(name.to_owned()).or_default().push(value);
    }
    all
}

fn is_same(sent: &Value, there: &[String]) -> bool {
    match (sent, there) {
        (Value::Array(sent), there) => {
            sent.len() == there.len() && sent.iter().all(|value| value.as_str().is_some_and(|text| there.iter().any(|t| t == text)))
        }
        (Value::Number(sent), [there]) => is_same_number(sent.as_f64(), there.parse().ok()),
        (Value::Bool(sent), [there]) => there == if *sent { "true" } else { "false" },
        (Value::String(sent), [there]) => sent == there,
        _ => false,
    }
}

/// Servers may keep numbers in single precision.
fn is_same_number(sent: Option<f64>, there: Option<f64>) -> bool {
    let (Some(sent), Some(there)) = (sent, there) else { return false };
    (sent - there).abs() <= f64::from(f32::EPSILON) * sent.abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::ModelName;
    use crate::jobs::publish::Artifact;
    use serde_json::json;

    const RECORDED: &str =
        "stop                           \"User:\"\ntemperature                    0.1\nnum_ctx                        2048";

    fn publication(parameters: &Value) -> Publication {
        let mut manifest = Manifest::new(ModelName::parse("m").expect("a name"));
        manifest.parameters = parameters.as_object().cloned().unwrap_or_default();
        Publication { model: Artifact { path: "a.gguf".into(), digest: [0xab; 32].into() }, adapter: None, manifest }
    }

    fn shown(parameters: &str) -> Shown {
        let modelfile = format!("FROM /models/blobs/sha256-{}\n", "ab".repeat(32));
        Shown { modelfile, parameters: parameters.to_owned(), template: "{{ .Prompt }}".to_owned(), ..Shown::default() }
    }

    #[test]
    fn the_same_model_is_recognised() {
        let all = json!({"stop": ["User:"], "temperature": 0.1, "num_ctx": 2048});
        assert!(is_published(&shown(RECORDED), &publication(&all)));
        let without_stop = json!({"temperature": 0.1, "num_ctx": 2048});
        assert!(is_published(&shown(RECORDED), &publication(&without_stop)), "a server adds the stops of a template it knows");
        assert!(is_published(&shown(""), &publication(&json!({}))));
    }

    #[test]
    fn another_model_is_not_taken_for_it() {
        let of = |parameters: Value| publication(&parameters);
        assert!(!is_published(&shown(RECORDED), &of(json!({}))), "the earlier one had parameters");
        assert!(!is_published(&shown(""), &of(json!({"num_ctx": 2048}))));
        assert!(!is_published(&shown("num_ctx 4096"), &of(json!({"num_ctx": 2048}))));
        assert!(!is_published(&Shown { system: "S".into(), ..shown("") }, &of(json!({}))));
        let mut other = of(json!({}));
        other.model.digest = [1; 32].into();
        assert!(!is_published(&shown(""), &other));
        let mut adapted = of(json!({}));
        adapted.adapter = Some(adapted.model.clone());
        assert!(!is_published(&shown(""), &adapted));
    }

    #[test]
    fn what_was_lost_is_told_from_what_is_different() {
        let mut manifest = publication(&json!({"num_ctx": 2048})).manifest;
        manifest.system = Some("S".into());
        let found = differences(&shown("num_ctx 4096"), &manifest);
        let expected = [Difference { what: "system text", missing: true }, Difference { what: "parameters", missing: false }];
        assert_eq!(found, expected);
    }
}
