//! The front matter of a model card: the little of YAML that people write there.
//!
//! Plain and quoted scalars, lists of them in both styles. Anything deeper (a table of results, a text in a block) is passed over.

use std::collections::BTreeMap;

/// What a key has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Text(String),
    List(Vec<String>),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Card(BTreeMap<String, Entry>);

/// More lines of front matter than any card has.
const MAX_LINES: usize = 10_000;

impl Card {
    /// Reads what stands between the first line `---` and the next.
    pub(super) fn parse(readme: &str) -> Self {
        let mut lines = readme.lines();
        if lines.next() != Some("---") {
            return Self::default();
        }
        let lines: Vec<&str> = lines.take(MAX_LINES).take_while(|line| *line != "---").collect();
        let mut card = BTreeMap::new();
        let mut at = 0;
        while at < lines.len() {
            let line = lines[at];
            at += 1;
            let Some((key, value)) = pair(line) else { continue };
            let below = lines[at..].iter().take_while(|line| is_below(line)).count();
            if let Some(entry) = entry(value, &lines[at..at + below]) {
                card.insert(key.to_owned(), entry);
            }
            at += below;
        }
        Self(card)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        if let Entry::Text(text) = self.0.get(key)? { Some(text) } else { None }
    }

    /// A list, or a single text as a list of one.
    pub(super) fn list(&self, key: &str) -> Option<Vec<String>> {
        Some(match self.0.get(key)? {
            Entry::Text(text) => vec![text.clone()],
            Entry::List(list) => list.clone(),
        })
    }
}

/// A line `key: value` that is not indented.
fn pair(line: &str) -> Option<(&str, &str)> {
    if line.starts_with([' ', '\t', '#', '-']) {
        return None;
    }
    let (key, value) = line.split_once(':')?;
    (value.is_empty() || value.starts_with([' ', '\t'])).then(|| (key.trim(), value.trim()))
}

/// Whether a line belongs to the key above it.
fn is_below(line: &str) -> bool {
    line.starts_with([' ', '\t']) || line.starts_with("- ") || line.trim().is_empty() || line.starts_with('#')
}

fn entry(value: &str, below: &[&str]) -> Option<Entry> {
    match value.chars().next() {
        None | Some('#') => list(below).map(Entry::List),
        Some('[') => value
            .strip_prefix('[')?
            .strip_suffix(']')
            .map(|items| Entry::List(items.split(',').filter_map(|item| scalar(item.trim())).collect())),
        Some('|' | '>' | '{' | '&' | '*' | '!') => None,
        Some(_) => scalar(value).map(Entry::Text),
    }
}

/// The items below a key; `None` if there are none, or any is more than a scalar.
fn list(below: &[&str]) -> Option<Vec<String>> {
    let lines = below.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let items: Option<Vec<String>> = lines.map(|line| scalar(line.strip_prefix("- ")?.trim())).collect();
    items.filter(|items| !items.is_empty())
}

fn scalar(text: &str) -> Option<String> {
    if let Some(text) = text.strip_prefix('\'') {
        return text.split_once('\'').map(|(text, _)| text.to_owned());
    }
    if text.starts_with('"') {
        // Within double quotes YAML escapes as JSON does, near enough for names.
        return serde_json::Deserializer::from_str(text).into_iter::<String>().next()?.ok();
    }
    let text = text.split_once(" #").map_or(text, |(text, _)| text).trim();
    let is_plain = !text.is_empty() && !text.contains(": ") && !text.ends_with(':') && !matches!(text, "null" | "~" | "Null" | "NULL");
    is_plain.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cards_have_is_read_and_the_rest_passed_over() {
        let card = Card::parse(
            "---\nlicense: apache-2.0  # free\nlanguage:\n- en\n- 'no'\ntags: [chat, \"a b\"]\nbase_model: Qwen/Qwen2.5-0.5B\n\
             extra_gated_prompt: >-\n  Please: read\n  this\nmodel-index:\n- name: x\n  results:\n  - y\nempty:\n\
             url: https://a.b/c\n---\nlicense: no\n",
        );
        assert_eq!(card.text("license"), Some("apache-2.0"));
        assert_eq!(card.list("language"), Some(vec!["en".to_owned(), "no".to_owned()]));
        assert_eq!(card.list("tags"), Some(vec!["chat".to_owned(), "a b".to_owned()]));
        assert_eq!(card.list("base_model"), Some(vec!["Qwen/Qwen2.5-0.5B".to_owned()]));
        assert_eq!(card.text("url"), Some("https://a.b/c"));
        for key in ["extra_gated_prompt", "model-index", "empty"] {
            assert_eq!(card.list(key), None, "{key}");
        }
        assert_eq!(Card::parse("# A model\n---\nlicense: mit\n---\n"), Card::default());
        assert_eq!(Card::parse(""), Card::default());
    }
}
