//! A configuration file's text as a tree with line numbers. All syntax errors are found, not only the first.

use std::path::Path as FilePath;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use super::tree::{Node, Origin, Value};

/// A file that was read.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// As it is named in problems.
    pub path: &'a FilePath,
    pub text: &'a str,
}

/// # Errors
/// Every syntax error of the file.
pub fn parse(file: File<'_>) -> Result<Node, Vec<Problem>> {
    let lines = Lines(file.text);
    let origin = |offset: usize| Origin::File { path: file.path.to_owned(), line: lines.of(offset) };
    let (table, errors) = DeTable::parse_recoverable(file.text);
    if errors.is_empty() {
        return Ok(Node { origin: origin(0), value: entries(table.into_inner(), &origin) });
    }
    let mut errors: Vec<_> = errors.iter().map(|error| (error.span().map_or(0, |span| span.start), error.message())).collect();
    errors.sort_unstable();
    Err(errors.into_iter().map(|(start, message)| Problem::syntax(origin(start), message)).collect())
}

/// One value written as TOML, all of it with the same origin.
///
/// # Errors
/// The first syntax error.
pub fn value(text: &str, origin: &Origin) -> Result<Node, String> {
    let value = DeValue::parse(text.trim()).map_err(|error| format!("not valid TOML: {}", error.message()))?;
    Ok(node(value.into_inner(), origin.clone(), &|_| origin.clone()))
}

/// The built-in defaults. Their syntax is checked by the tests.
pub fn defaults(text: &str) -> Node {
    let table = DeTable::parse_recoverable(text).0;
    Node { origin: Origin::Default, value: entries(table.into_inner(), &|_| Origin::Default) }
}

fn entries(table: DeTable<'_>, origin: &impl Fn(usize) -> Origin) -> Value {
    let entry = |(key, value): (Spanned<_>, Spanned<DeValue<'_>>)| {
        let place = origin(key.span().start);
        (std::borrow::Cow::into_owned(key.into_inner()), node(value.into_inner(), place, origin))
    };
    Value::Table(table.into_iter().map(entry).collect())
}

fn node(value: DeValue<'_>, place: Origin, origin: &impl Fn(usize) -> Origin) -> Node {
    let value = match value {
        DeValue::Table(table) => entries(table, origin),
        DeValue::Array(items) => {
            let item = |item: Spanned<DeValue<'_>>| {
                let place = origin(item.span().start);
                node(item.into_inner(), place, origin)
            };
            Value::List(items.into_iter().map(item).collect())
        }
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Text(number.to_string()),
        },
        DeValue::Float(number) => number.as_str().parse().map_or_else(|_| Value::Text(number.to_string()), Value::Float),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
    };
    Node { origin: place, value }
}

struct Lines<'a>(&'a str);

impl Lines<'_> {
    /// The line, counted from 1, that a byte is on.
    fn of(&self, offset: usize) -> usize {
        self.0.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::Path;

    fn read(text: &str) -> Result<Node, Vec<Problem>> {
        parse(File { path: FilePath::new("a.toml"), text })
    }

    #[test]
    fn every_value_knows_its_line() {
        let tree = read("x = 1\n\n[server]\nlisten = \"a\"\n[[ollama]]\nurl = \"u\"\n").expect("valid");
        let line = |path: &str| match tree.origin_of(&Path::dotted(path)) {
            Origin::File { line, .. } => line,
            other => panic!("{other:?}"),
        };
        assert_eq!((line("x"), line("server"), line("server.listen"), line("ollama")), (1, 3, 4, 5));
    }

    #[test]
    fn all_syntax_errors_are_reported_with_their_lines() {
        let problems = read("a = \nb = 1\nc = [\nd = }\n").expect_err("invalid");
        assert!(problems.len() >= 2, "{problems:?}");
        assert!(problems[0].to_string().starts_with("a.toml:1: "), "{}", problems[0]);
    }
}
