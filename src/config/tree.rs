//! The configuration before it has types: a tree whose every node remembers where it came from.
//!
//! Layers are trees; the one on top wins key by key, and a list replaces a list. No I/O, no knowledge of any key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in `default.toml`.
    Default,
    /// Worked out from this machine, e.g. from `$HOME`.
    Machine(&'static str),
    File {
        path: PathBuf,
        line: usize,
    },
    /// An environment variable, by name.
    Variable(String),
    /// A command-line flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Machine(what) => f.write_str(what),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One step from a node to a node inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// The way from the root to a node; written `server.listen` or `ollama[0].url`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// From dotted keys, e.g. `server.listen`.
    #[must_use]
    pub fn dotted(keys: &str) -> Self {
        Self(keys.split('.').map(|key| Step::Key(key.to_owned())).collect())
    }

    /// From a key and the steps below it; a number is a position in a list.
    #[must_use]
    pub fn below(key: &str, steps: &[String]) -> Self {
        let step = |text: &String| text.parse().map_or_else(|_| Step::Key(text.clone()), Step::Index);
        Self(std::iter::once(Step::Key(key.to_owned())).chain(steps.iter().map(step)).collect())
    }

    #[must_use]
    pub fn join(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, steps) = self.0.split_last()?;
        Some(Self(steps.to_vec()))
    }

    /// The last key on the way, leaving positions in lists out.
    #[must_use]
    pub fn last_key(&self) -> Option<&str> {
        self.0.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if n == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub origin: Origin,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Table(BTreeMap<String, Node>),
    List(Vec<Node>),
    Text(String),
    Integer(i128),
    Float(f64),
    Bool(bool),
    /// Text from a variable or a flag: the type that reads it decides what it means.
    Raw(String),
}

impl Node {
    #[must_use]
    pub fn table(origin: Origin) -> Self {
        Self { origin, value: Value::Table(BTreeMap::new()) }
    }

    /// Lays `over` on top of this layer.
    pub fn lay(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Table(below), Value::Table(above)) => {
                for (key, node) in above {
                    match below.get_mut(&key) {
                        Some(existing) => existing.lay(node),
                        None => {
                            below.insert(key, node);
                        }
                    }
                }
            }
            (value, above) => {
                *value = above;
                self.origin = over.origin;
            }
        }
    }

    #[must_use]
    pub fn at(&self, path: &Path) -> Option<&Self> {
        path.0.iter().try_fold(self, |node, step| match (&node.value, step) {
            (Value::Table(entries), Step::Key(key)) => entries.get(key),
            (Value::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        })
    }

    fn at_mut(&mut self, path: &Path) -> Option<&mut Self> {
        path.0.iter().try_fold(self, |node, step| match (&mut node.value, step) {
            (Value::Table(entries), Step::Key(key)) => entries.get_mut(key),
            (Value::List(items), Step::Index(index)) => items.get_mut(*index),
            _ => None,
        })
    }

    /// The origin of the node there, or of the nearest one around it.
    #[must_use]
    pub fn origin_of(&self, path: &Path) -> Origin {
        let mut path = path.clone();
        loop {
            if let Some(node) = self.at(&path) {
                return node.origin.clone();
            }
            match path.parent() {
                Some(parent) => path = parent,
                None => return self.origin.clone(),
            }
        }
    }

    /// Puts a node at a path of keys, making the tables on the way.
    ///
    /// # Errors
    /// The node that is in the way: a value where a table is needed, or one at the very place.
    pub fn put(&mut self, path: &[String], node: Self) -> Result<(), Origin> {
        let Value::Table(entries) = &mut self.value else { return Err(self.origin.clone()) };
        match path {
            [] => Err(self.origin.clone()),
            [key] => {
                if let Some(existing) = entries.get(key) {
                    return Err(existing.origin.clone());
                }
                entries.insert(key.clone(), node);
                Ok(())
            }
            [key, rest @ ..] => entries.entry(key.clone()).or_insert_with(|| Self::table(node.origin.clone())).put(rest, node),
        }
    }

    /// Takes what is wrong at a path out of the tree, so that the rest can be checked too: the default comes back where there
    /// is one. `false` when nothing can be done.
    pub fn mend(&mut self, path: &Path, defaults: &Self) -> bool {
        if let (Some(bad), Some(default)) = (self.at_mut(path), defaults.at(path)) {
            let changed = *bad != *default;
            *bad = default.clone();
            return changed;
        }
        let (Some(parent), Some(last)) = (path.parent(), path.0.last()) else { return false };
        match (self.at_mut(&parent).map(|node| &mut node.value), last) {
            (Some(Value::Table(entries)), Step::Key(key)) => entries.remove(key).is_some(),
            (Some(Value::List(items)), Step::Index(index)) if *index < items.len() => {
                items.remove(*index);
                true
            }
            _ => false,
        }
    }

    /// The dotted keys of every value, tables themselves left out; a list is one value.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        self.collect_keys(&Path::default(), &mut keys);
        keys
    }

    fn collect_keys(&self, path: &Path, keys: &mut Vec<String>) {
        let Value::Table(entries) = &self.value else { return keys.push(path.to_string()) };
        for (key, node) in entries {
            node.collect_keys(&path.join(Step::Key(key.clone())), keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(value: i128, flag: &'static str) -> Node {
        Node { origin: Origin::Flag(flag), value: Value::Integer(value) }
    }

    fn tree(pairs: &[(&str, i128)], flag: &'static str) -> Node {
        let mut root = Node::table(Origin::Flag(flag));
        for (path, value) in pairs {
            let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
            root.put(&keys, leaf(*value, flag)).expect("free");
        }
        root
    }

    #[test]
    fn the_upper_layer_wins_key_by_key_and_remembers_where_it_came_from() {
        let mut below = tree(&[("a.x", 1), ("a.y", 2), ("b", 3)], "--below");
        below.lay(tree(&[("a.y", 20), ("c", 4)], "--above"));
        for (path, value, flag) in [("a.x", 1, "--below"), ("a.y", 20, "--above"), ("b", 3, "--below"), ("c", 4, "--above")] {
            assert_eq!(below.at(&Path::dotted(path)), Some(&leaf(value, flag)), "{path}");
        }
        assert_eq!(below.origin_of(&Path::dotted("a.y.deeper")), Origin::Flag("--above"));
    }

    #[test]
    fn a_place_that_is_taken_is_not_overwritten() {
        let mut root = tree(&[("a", 1)], "--first");
        let keys = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(root.put(&keys("a"), leaf(2, "--second")), Err(Origin::Flag("--first")));
        assert_eq!(root.put(&keys("a.b"), leaf(2, "--second")), Err(Origin::Flag("--first")));
    }

    #[test]
    fn mending_brings_the_default_back_or_removes() {
        let defaults = tree(&[("a.x", 1)], "--default");
        let mut wrong = defaults.clone();
        wrong.lay(tree(&[("a.x", 9), ("a.z", 9)], "--wrong"));
        assert!(wrong.mend(&Path::dotted("a.x"), &defaults));
        assert!(wrong.mend(&Path::dotted("a.z"), &defaults));
        assert_eq!(wrong, defaults);
        assert!(!wrong.mend(&Path::dotted("a.x"), &defaults), "nothing is left to mend");
    }
}
