//! Environment variables as a layer: `ARRIERO_SERVER__LISTEN` is `server.listen`, and a few have short names.
//!
//! [`Variables::of_process`] is the only place of the program that reads the environment.

use std::collections::BTreeMap;

use super::decode::pieces;
use super::file;
use super::problem::Problem;
use super::tree::{Node, Origin, Value};

/// What all of our variables begin with.
pub const PREFIX: &str = "ARRIERO_";

/// Set by the tests, for the tests.
const FOR_TESTS: &str = "ARRIERO_TEST_";

/// The environment, as text. Variables whose value is empty count as not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables {
    values: BTreeMap<String, String>,
    /// Ours, but with a value that is not Unicode.
    unreadable: Vec<String>,
}

impl Variables {
    #[must_use]
    pub fn of_process() -> Self {
        let mut variables = Self::default();
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) if !value.is_empty() => {
                    variables.values.insert(name, value);
                }
                (Ok(name), Err(_)) if name.starts_with(PREFIX) => variables.unreadable.push(name),
                _ => {}
            }
        }
        variables
    }

    /// Only what says where things are on this machine, nothing of ours.
    #[must_use]
    pub fn machine_only(&self) -> Self {
        let values = self.values.iter().filter(|(name, _)| !name.starts_with(PREFIX));
        Self { values: values.map(|(name, value)| (name.clone(), value.clone())).collect(), unreadable: Vec::new() }
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Variables {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let values = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        Self { values: values.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), unreadable: Vec::new() }
    }
}

/// A variable with a short name, and the key it sets.
#[derive(Debug, Clone, Copy)]
pub struct Short {
    pub variable: &'static str,
    /// Dotted.
    pub key: &'static str,
    pub form: Form,
}

/// How the text of a variable or a flag becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The text is the value.
    Plain,
    /// A list: each piece between commas is one item.
    List,
    /// A list of tables: each piece between commas sets this key of one table.
    Tables(&'static str),
}

impl Form {
    /// # Errors
    /// When text that is written as a TOML list is not one.
    pub fn read(self, text: &str, origin: &Origin) -> Result<Node, String> {
        match self {
            Self::Tables(_) if text.trim_start().starts_with('[') => file::value(text, origin),
            Self::Tables(key) => Ok(tables(key, pieces(text), origin)),
            // Read as a list by the type that asks for one.
            Self::Plain | Self::List => Ok(Node { origin: origin.clone(), value: Value::Raw(text.to_owned()) }),
        }
    }
}

/// One table with one key for each text.
pub fn tables<'a>(key: &str, texts: impl Iterator<Item = &'a str>, origin: &Origin) -> Node {
    let node = |value| Node { origin: origin.clone(), value };
    let table = |text: &str| node(Value::Table(BTreeMap::from([(key.to_owned(), node(Value::Raw(text.to_owned())))])));
    node(Value::List(texts.map(table).collect()))
}

/// The layer that the variables make, and what is wrong with them. `known` are variables of ours that set no key.
pub fn layer(variables: &Variables, shorts: &[Short], known: &[&str]) -> (Node, Vec<Problem>) {
    let mut root = Node::table(Origin::Default);
    let mut problems: Vec<Problem> = variables.unreadable.iter().map(|name| unreadable(name)).collect();
    let ours = variables.values.iter().filter(|(name, _)| name.starts_with(PREFIX) && !name.starts_with(FOR_TESTS));
    for (name, text) in ours.filter(|(name, _)| !known.contains(&name.as_str())) {
        let origin = Origin::Variable(name.clone());
        let (key, form) = target(name, shorts);
        let put = form.read(text, &origin).and_then(|node| {
            let keys: Vec<String> = key.split('.').map(str::to_owned).collect();
            root.put(&keys, node).map_err(|taken| format!("is set twice: by ${name} and by {taken}; unset one of them"))
        });
        if let Err(what) = put {
            problems.push(Problem::new(key, origin, what));
        }
    }
    (root, problems)
}

fn target(name: &str, shorts: &[Short]) -> (String, Form) {
    match shorts.iter().find(|short| short.variable == name) {
        Some(short) => (short.key.to_owned(), short.form),
        None => (name[PREFIX.len()..].to_ascii_lowercase().replace("__", "."), Form::Plain),
    }
}

fn unreadable(name: &str) -> Problem {
    Problem::new(name, Origin::Variable(name.to_owned()), "holds bytes that are no Unicode text")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::tree::Path;

    const SHORTS: [Short; 2] = [
        Short { variable: "ARRIERO_LISTEN", key: "server.listen", form: Form::Plain },
        Short { variable: "ARRIERO_OLLAMA", key: "ollama", form: Form::Tables("url") },
    ];

    fn read(pairs: &[(&str, &str)]) -> (Node, Vec<Problem>) {
        layer(&pairs.iter().copied().collect(), &SHORTS, &["ARRIERO_URL"])
    }

    #[test]
    fn names_become_keys_and_short_names_too() {
        let (tree, problems) = read(&[
            ("ARRIERO_SERVER__MAX_CONNECTIONS", "5"),
            ("ARRIERO_LISTEN", "0.0.0.0:1"),
            ("ARRIERO_OLLAMA", "http://a, http://b"),
            ("ARRIERO_URL", "not a key"),
            ("ARRIERO_TEST_MODEL", "not a key"),
            ("ARRIERO_LOG__LEVEL", ""),
            ("HOME", "/home/x"),
        ]);
        assert_eq!(problems, []);
        assert_eq!(tree.keys(), ["ollama", "server.listen", "server.max_connections"]);
        let second = Path(vec![
            crate::config::tree::Step::Key("ollama".into()),
            crate::config::tree::Step::Index(1),
            crate::config::tree::Step::Key("url".into()),
        ]);
        assert_eq!(tree.at(&second).map(|node| &node.value), Some(&Value::Raw("http://b".into())));
    }

    #[test]
    fn a_key_that_is_set_twice_is_a_problem() {
        let (_, problems) = read(&[("ARRIERO_LISTEN", "a:1"), ("ARRIERO_SERVER__LISTEN", "b:1")]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().contains("$ARRIERO_LISTEN"), "{}", problems[0]);
    }

    proptest! {
        #[test]
        fn every_key_reaches_its_place(
            keys in proptest::collection::vec("[a-z][a-z0-9]{0,5}(_[a-z0-9]{1,4})?", 1..4),
            text in ".{1,20}",
        ) {
            let name = crate::config::problem::variable(&keys.join("."));
            prop_assume!(!name.starts_with(FOR_TESTS));
            let (tree, problems) = layer(&[(name.as_str(), text.as_str())].into_iter().collect(), &[], &[]);
            prop_assert_eq!(problems, vec![]);
            let node = tree.at(&Path::dotted(&keys.join("."))).expect("is there");
            prop_assert_eq!(&node.value, &Value::Raw(text));
            prop_assert_eq!(&node.origin, &Origin::Variable(name));
        }

        #[test]
        fn no_set_of_names_makes_it_panic(names in proptest::collection::vec("ARRIERO_[A-Z_]{0,8}", 0..6)) {
            let variables: Variables = names.iter().map(|name| (name.as_str(), "x")).collect();
            let _ = layer(&variables, &SHORTS, &[]);
        }
    }
}
