//! What can be said about a key, and what of it cannot be so. Pure.

use std::collections::BTreeMap;
use std::str::FromStr;

use jiff::Timestamp;
use serde::Deserialize;

use super::error::Wrong;
use crate::domain::allowance::Allowance;
use crate::domain::generation::Priority;
use crate::domain::principal::Role;
use crate::storage::keys::Terms;

/// Longest name of a key or tenant, and of a label, in characters.
const MAX_NAME: usize = 64;
const MAX_LABELS: usize = 32;
/// Longest value of a label, in characters.
const MAX_LABEL: usize = 256;
const MAX_MODELS: usize = 256;
/// Longest pattern of models, in characters.
const MAX_PATTERN: usize = 256;
const MAX_WEIGHT: u32 = 1_000;

/// The terms of a key of which only the name is known.
#[must_use]
pub fn new(name: impl Into<String>) -> Terms {
    let name = name.into();
    Terms {
        tenant: name.clone(),
        name,
        role: Role::User,
        models: Vec::new(),
        default_priority: Priority::Normal,
        priority_ceiling: Priority::High,
        weight: 1,
        allowance: Allowance::default(),
        labels: BTreeMap::new(),
        expires_at_ms: None,
        collect: false,
    }
}

/// When a key ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Expiry {
    Never,
    At(Timestamp),
}

impl FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        text.parse().map(Self::At).map_err(|_| "write a time such as 2030-01-31T00:00:00Z, or \"never\"".to_owned())
    }
}

impl TryFrom<String> for Expiry {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What is to be different about a key; what is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    pub name: Option<String>,
    pub tenant: Option<String>,
    pub role: Option<Role>,
    pub models: Option<Vec<String>>,
    pub default_priority: Option<Priority>,
    pub priority_ceiling: Option<Priority>,
    pub weight: Option<u32>,
    pub allowance: Option<Allowance>,
    pub labels: Option<BTreeMap<String, String>>,
    pub expires_at: Option<Expiry>,
    pub collect: Option<bool>,
}

impl Change {
    /// The terms of a new key. Without a tenant it is one of its own, called like the key.
    #[must_use]
    pub fn into_terms(self) -> Terms {
        let mut terms = new(self.name.clone().unwrap_or_default());
        // A lone ceiling below the usual default takes the default with it.
        terms.default_priority = terms.default_priority.min(self.priority_ceiling.unwrap_or(terms.priority_ceiling));
        if self.priority_ceiling.is_none() {
            terms.priority_ceiling = terms.priority_ceiling.max(self.default_priority.unwrap_or_default());
        }
        self.apply(&mut terms);
        terms
    }

    pub fn apply(self, terms: &mut Terms) {
        fn put<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        put(&mut terms.name, self.name);
        put(&mut terms.tenant, self.tenant);
        put(&mut terms.role, self.role);
        put(&mut terms.models, self.models);
        put(&mut terms.default_priority, self.default_priority);
        put(&mut terms.priority_ceiling, self.priority_ceiling);
        put(&mut terms.weight, self.weight);
        put(&mut terms.allowance, self.allowance);
        put(&mut terms.labels, self.labels);
        put(&mut terms.collect, self.collect);
        match self.expires_at {
            None => {}
            Some(Expiry::Never) => terms.expires_at_ms = None,
            Some(Expiry::At(time)) => terms.expires_at_ms = Some(time.as_millisecond()),
        }
    }
}

/// Everything about the terms that cannot be so.
pub fn wrong(terms: &Terms) -> Vec<Wrong> {
    let mut found = Vec::new();
    let mut check = |right: bool, field: &str, takes: String, got: String| {
        if !right {
            found.push(Wrong { field: field.to_owned(), takes, got });
        }
    };
    let characters = |text: &str| format!("{} characters", text.chars().count());
    for (field, name) in [("name", &terms.name), ("tenant", &terms.tenant)] {
        check(is_name(name), field, format!("1 to {MAX_NAME} characters, none of them a control character"), characters(name));
    }
    check(terms.models.len() <= MAX_MODELS, "models", format!("at most {MAX_MODELS} patterns"), terms.models.len().to_string());
    for (n, pattern) in terms.models.iter().enumerate() {
        let right = (1..=MAX_PATTERN).contains(&pattern.chars().count());
        check(right, &format!("models[{n}]"), format!("1 to {MAX_PATTERN} characters"), characters(pattern));
    }
    let (default, ceiling) = (terms.default_priority.as_str(), terms.priority_ceiling.as_str());
    let ordered = terms.default_priority <= terms.priority_ceiling;
    check(ordered, "default_priority", format!("at most the ceiling, `{ceiling}`"), format!("`{default}`"));
    check((1..=MAX_WEIGHT).contains(&terms.weight), "weight", format!("1 to {MAX_WEIGHT}"), terms.weight.to_string());
    check(terms.labels.len() <= MAX_LABELS, "labels", format!("at most {MAX_LABELS} labels"), terms.labels.len().to_string());
    for (name, value) in &terms.labels {
        check(is_name(name), "labels", format!("names of 1 to {MAX_NAME} characters"), characters(name));
        check(value.chars().count() <= MAX_LABEL, "labels", format!("values of at most {MAX_LABEL} characters"), characters(value));
    }
    found
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control) && text.trim() == text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_enough_and_a_change_changes_what_it_names() {
        let mut terms = Change { name: Some("a".into()), ..Change::default() }.into_terms();
        assert_eq!((wrong(&terms), terms.tenant.as_str(), terms.role), (vec![], "a", Role::User));
        let at = "2030-01-31T00:00:00Z".parse().expect("a time");
        Change { weight: Some(3), expires_at: Some(Expiry::At(at)), ..Change::default() }.apply(&mut terms);
        assert_eq!((terms.weight, terms.expires_at_ms, terms.name.as_str()), (3, Some(at.as_millisecond()), "a"));
        Change { expires_at: Some(Expiry::Never), ..Change::default() }.apply(&mut terms);
        assert_eq!((terms.weight, terms.expires_at_ms), (3, None));
    }

    #[test]
    fn one_priority_alone_takes_the_other_with_it() {
        for priority in Priority::ALL {
            let low = Change { name: Some("a".into()), priority_ceiling: Some(priority), ..Change::default() }.into_terms();
            assert_eq!((wrong(&low), low.priority_ceiling), (vec![], priority));
            let high = Change { name: Some("a".into()), default_priority: Some(priority), ..Change::default() }.into_terms();
            assert_eq!((wrong(&high), high.default_priority), (vec![], priority));
        }
    }

    #[test]
    fn everything_wrong_is_named() {
        let long = "x".repeat(MAX_PATTERN + 1);
        let terms = Terms {
            name: String::new(),
            tenant: "a\nb".into(),
            models: vec!["fine".into(), long.clone()],
            default_priority: Priority::Urgent,
            weight: 0,
            labels: [("a".into(), long), (String::new(), String::new())].into(),
            ..new("x")
        };
        let fields: Vec<String> = wrong(&terms).into_iter().map(|wrong| wrong.field).collect();
        assert_eq!(fields, ["name", "tenant", "models[1]", "default_priority", "weight", "labels", "labels"]);
    }

    #[test]
    fn an_expiry_is_a_time_or_never() {
        assert_eq!("never".parse(), Ok(Expiry::Never));
        assert!(matches!("2030-01-31T00:00:00Z".parse(), Ok(Expiry::At(_))));
        for wrong in ["", "soon", "2030", "5m"] {
            assert!(wrong.parse::<Expiry>().is_err(), "{wrong}");
        }
    }
}
