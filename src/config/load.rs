//! The layers on top of each other, decoded and checked: a pure function that reports everything that is wrong, not the first thing.
//!
//! It knows no key: what the keys are comes from the type, their defaults from a TOML text, their short variables from a [`Shape`].

use serde::de::DeserializeOwned;

use super::decode::decode;
use super::file::{self, File};
use super::problem::Problem;
use super::tree::{Node, Origin, Path, Value};
use super::variables::{self, Form, Short, Variables};

/// What is fixed about a configuration beside its type.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// TOML with every key that has a default.
    pub defaults: &'static str,
    pub shorts: &'static [Short],
    /// Variables with our prefix that set no key.
    pub other_variables: &'static [&'static str],
}

/// A value given on the command line.
#[derive(Debug, Clone)]
pub struct Override {
    /// With its dashes.
    pub flag: &'static str,
    /// Dotted.
    pub key: &'static str,
    pub form: Form,
    /// More than one where the flag may be repeated.
    pub texts: Vec<String>,
}

impl Override {
    fn node(&self) -> Node {
        let origin = Origin::Flag(self.flag);
        match self.form {
            Form::Tables(key) => variables::tables(key, self.texts.iter().map(String::as_str), &origin),
            Form::List => {
                let item = |text: &String| Node { origin: origin.clone(), value: Value::Raw(text.clone()) };
                Node { value: Value::List(self.texts.iter().map(item).collect()), origin }
            }
            Form::Plain => Node { origin, value: Value::Raw(self.texts.concat()) },
        }
    }
}

/// What a type can say about its values beyond what each of them is.
pub trait Check {
    /// Keys that contradict each other or name something impossible, with what is wrong.
    fn check(&self) -> Vec<(Path, String)>;
}

/// A configuration that holds, and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    pub config: C,
    tree: Node,
}

impl<C> Loaded<C> {
    /// Where the value at a path came from.
    #[must_use]
    pub fn origin(&self, path: &Path) -> Origin {
        self.tree.origin_of(path)
    }

    /// Notes where a value came from that was worked out after loading. `key` is dotted.
    pub(super) fn note(&mut self, key: &str, text: &str, origin: Origin) {
        self.tree.lay(root_of(key, Node { origin, value: Value::Raw(text.to_owned()) }));
    }
}

/// More problems than anybody reads at once.
const MAX_PROBLEMS: usize = 100;

/// # Errors
/// Everything that is wrong with the file, the variables and the flags.
pub fn load<C: DeserializeOwned + Check>(
    shape: &Shape,
    file: Option<File<'_>>,
    variables: &Variables,
    flags: &[Override],
) -> Result<Loaded<C>, Vec<Problem>> {
    let defaults = file::defaults(shape.defaults);
    let mut problems = Vec::new();
    let mut tree = defaults.clone();
    match file.map(file::parse) {
        Some(Ok(layer)) => tree.lay(layer),
        Some(Err(wrong)) => problems.extend(wrong),
        None => {}
    }
    let (layer, wrong) = variables::layer(variables, shape.shorts, shape.other_variables);
    problems.extend(wrong);
    tree.lay(layer);
    for flag in flags {
        tree.lay(root_of(flag.key, flag.node()));
    }
    let config = decode_all(&mut tree, &defaults, shape, &mut problems);
    match config {
        Some(config) => finish(config, tree, problems),
        None => Err(problems),
    }
}

/// A layer with one value.
fn root_of(key: &str, node: Node) -> Node {
    let mut root = Node::table(node.origin.clone());
    let keys: Vec<String> = key.split('.').map(str::to_owned).collect();
    // Every place of an empty table is free.
    let _ = root.put(&keys, node);
    root
}

/// Decodes; at each fault the wrong place goes back to its default and decoding starts again, so that all faults come out.
fn decode_all<C: DeserializeOwned>(tree: &mut Node, defaults: &Node, shape: &Shape, problems: &mut Vec<Problem>) -> Option<C> {
    let names: Vec<&str> = shape.shorts.iter().map(|short| short.variable).chain(shape.other_variables.iter().copied()).collect();
    while problems.len() < MAX_PROBLEMS {
        let fault = match decode(tree.clone()) {
            Ok(config) => return Some(config),
            Err(fault) => fault,
        };
        problems.push(Problem::of(&fault, tree, defaults, &names));
        let mut place = Some(fault.path());
        while let Some(path) = place {
            if tree.mend(&path, defaults) {
                break;
            }
            place = path.parent();
            place.as_ref()?;
        }
    }
    None
}

fn finish<C: Check>(config: C, tree: Node, mut problems: Vec<Problem>) -> Result<Loaded<C>, Vec<Problem>> {
    for (path, what) in config.check() {
        let origin = tree.origin_of(&path);
        // What was wrong before has already been replaced by its default, which is not to blame.
        if problems.is_empty() || origin != Origin::Default {
            problems.push(Problem::new(path.to_string(), origin, what));
        }
    }
    if problems.is_empty() { Ok(Loaded { config, tree }) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use std::path::Path as FilePath;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Toy {
        name: String,
        server: Server,
        ollama: Vec<Upstream>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Server {
        port: u16,
        verbose: bool,
        note: Option<String>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Upstream {
        url: String,
        #[serde(default)]
        slots: u32,
    }

    impl Check for Toy {
        fn check(&self) -> Vec<(Path, String)> {
            if self.name == "bad" { vec![(Path::dotted("name"), "must not be bad".to_owned())] } else { Vec::new() }
        }
    }

    const SHAPE: Shape = Shape {
        defaults: "name = \"d\"\n[server]\nport = 1\nverbose = false\n[[ollama]]\nurl = \"u\"\nslots = 1\n",
        shorts: &[
            Short { variable: "ARRIERO_PORT", key: "server.port", form: Form::Plain },
            Short { variable: "ARRIERO_OLLAMA", key: "ollama", form: Form::Tables("url") },
        ],
        other_variables: &["ARRIERO_URL"],
    };

    fn run(text: &str, variables: &[(&str, &str)], flags: &[Override]) -> Result<Loaded<Toy>, Vec<String>> {
        let file = File { path: FilePath::new("a.toml"), text };
        load(&SHAPE, Some(file), &variables.iter().copied().collect(), flags)
            .map_err(|problems| problems.iter().map(Problem::to_string).collect())
    }

    fn port(text: &str) -> Override {
        Override { flag: "--port", key: "server.port", form: Form::Plain, texts: vec![text.to_owned()] }
    }

    #[test]
    fn each_layer_covers_the_one_below_and_says_so() {
        let text = "name = \"f\"\n[server]\nport = 2\n";
        let origin = |loaded: &Loaded<Toy>| loaded.origin(&Path::dotted("server.port")).to_string();
        let loaded = run("", &[], &[]).expect("defaults");
        assert_eq!((loaded.config.server.port, origin(&loaded).as_str()), (1, "default"));
        let loaded = run(text, &[], &[]).expect("file");
        assert_eq!((loaded.config.server.port, origin(&loaded).as_str()), (2, "a.toml:3"));
        let loaded = run(text, &[("ARRIERO_PORT", "3")], &[]).expect("variable");
        assert_eq!((loaded.config.server.port, origin(&loaded).as_str()), (3, "$ARRIERO_PORT"));
        let loaded = run(text, &[("ARRIERO_PORT", "3")], &[port("4")]).expect("flag");
        assert_eq!((loaded.config.server.port, origin(&loaded).as_str()), (4, "--port"));
        assert_eq!(loaded.config.name, "f");
        assert_eq!(loaded.config.ollama, [Upstream { url: "u".into(), slots: 1 }]);
    }

    #[test]
    fn a_list_from_a_variable_replaces_the_list() {
        let loaded = run("[[ollama]]\nurl=\"x\"\nslots=7\n", &[("ARRIERO_OLLAMA", "a,b")], &[]).expect("valid");
        let urls: Vec<&str> = loaded.config.ollama.iter().map(|upstream| upstream.url.as_str()).collect();
        assert_eq!(urls, ["a", "b"]);
    }

    #[test]
    fn all_problems_come_at_once_each_with_its_place() {
        let text = "nme = 1\nport = 3\n[server]\nport = 70000\nverbose = \"yes\"\nnotte = \"\"\n[[ollama]]\nslots = -1\n";
        let variables = [("ARRIERO_SERVER__VERBSE", "1"), ("ARRIERO_OLAMA", "x"), ("ARRIERO_URL", "fine")];
        let problems = run(text, &variables, &[port("many")]).expect_err("wrong");
        let mut sorted = problems.clone();
        sorted.sort();
        assert_eq!(
            sorted,
            [
                "$ARRIERO_OLAMA: `olama` is unknown; did you mean $ARRIERO_OLLAMA?",
                "$ARRIERO_SERVER__VERBSE: `server.verbse` is unknown; did you mean $ARRIERO_SERVER__VERBOSE?",
                "--port: `server.port` takes a whole number from 0 to 65535, not \"many\"",
                "a.toml:1: `nme` is unknown; did you mean `name`?",
                "a.toml:2: `port` is unknown; did you mean `server.port`?",
                "a.toml:5: `server.verbose` takes true or false, not \"yes\"",
                "a.toml:6: `server.notte` is unknown; did you mean `server.note`?",
                "a.toml:7: `ollama[0]` lacks `url`",
                "a.toml:8: `ollama[0].slots` takes a whole number from 0 to 4294967295, not -1",
            ]
        );
    }

    #[test]
    fn checks_across_keys_are_reported_with_their_place() {
        assert_eq!(run("name = \"bad\"", &[], &[]).expect_err("refused"), ["a.toml:1: `name` must not be bad"]);
    }

    #[test]
    fn a_file_that_is_no_toml_does_not_hide_wrong_variables() {
        let problems = run("name = ", &[("ARRIERO_PORT", "x")], &[]).expect_err("wrong");
        assert!(problems[0].starts_with("a.toml:1: not valid TOML: "), "{problems:?}");
        assert_eq!(problems[1], "$ARRIERO_PORT: `server.port` takes a whole number from 0 to 65535, not \"x\"");
    }

    #[test]
    fn a_table_where_a_value_belongs_and_the_other_way_round() {
        let problems = run("server = 3\n[name]\nx = 1\n", &[], &[]).expect_err("wrong");
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
