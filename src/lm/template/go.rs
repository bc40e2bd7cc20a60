//! The simple part of Go's template language, as requests to Ollama use it: `{{ .System }}`, `{{ .Prompt }}`, `{{ .Response }}`,
//! `{{ if .System }}…{{ else if .Prompt }}…{{ else }}…{{ end }}`, and the trim markers `{{-` and `-}}`.

use super::{Error, Message};

/// More nesting than any template has.
const MAX_DEPTH: usize = 64;
const MAX_SOURCE_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct GoTemplate {
    nodes: Vec<Node>,
}

#[derive(Debug, PartialEq, Eq)]
enum Node {
    Text(String),
    Field(Field),
    If { field: Field, then: Vec<Node>, otherwise: Vec<Node> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    System,
    Prompt,
    Response,
}

/// One turn: a question, what comes before it, and its answer.
#[derive(Debug, Clone, Copy, Default)]
struct Turn<'a> {
    system: &'a str,
    prompt: &'a str,
    response: &'a str,
}

impl Turn<'_> {
    fn get(&self, field: Field) -> &str {
        match field {
            Field::System => self.system,
            Field::Prompt => self.prompt,
            Field::Response => self.response,
        }
    }
}

impl GoTemplate {
    pub(super) fn parse(source: &str) -> Result<Self, Error> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::Syntax { message: format!("it has {} bytes, more than {MAX_SOURCE_BYTES}", source.len()) });
        }
        let mut tokens = tokens(source)?.into_iter();
        let (nodes, end) = block(&mut tokens, 0)?;
        match end {
            None => Ok(Self { nodes }),
            Some(_) => Err(Error::Syntax { message: "`else` or `end` without `if`".to_owned() }),
        }
    }

    /// As Ollama renders such a template: once for each turn, and where it `asks` of the last one what stands before `.Response`.
    pub(super) fn render(&self, messages: &[Message], asks: bool) -> String {
        let mut out = String::new();
        let mut turn = Turn::default();
        for message in messages {
            let starts_anew = match message.role.as_str() {
                "system" => !turn.prompt.is_empty() || !turn.response.is_empty(),
                "assistant" => false,
                _ => !turn.response.is_empty(),
            };
            if starts_anew {
                write(&self.nodes, &turn, false, &mut out);
                turn = Turn::default();
            }
            match message.role.as_str() {
                "system" => turn.system = &message.content,
                "assistant" => turn.response = &message.content,
                _ => turn.prompt = &message.content,
            }
        }
        write(&self.nodes, &turn, asks, &mut out);
        out
    }
}

/// Writes nodes. `cut`: no further than `.Response`; the answer says whether that was reached.
fn write(nodes: &[Node], turn: &Turn, cut: bool, out: &mut String) -> bool {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Field(Field::Response) if cut => return true,
            Node::Field(field) => out.push_str(turn.get(*field)),
            Node::If { field, then, otherwise } => {
                let branch = if turn.get(*field).is_empty() { otherwise } else { then };
                if write(branch, turn, cut, out) {
                    return true;
                }
            }
        }
    }
    false
}

#[derive(Debug)]
enum Token {
    Text(String),
    Action(String),
}

fn tokens(source: &str) -> Result<Vec<Token>, Error> {
    let mut tokens = Vec::new();
    let (mut rest, mut trim) = (source, false);
    while let Some((text, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").ok_or_else(|| Error::Syntax { message: "an action is not closed".to_owned() })?;
        let (left, action) = action.strip_prefix('-').filter(|a| a.starts_with(is_blank)).map_or((false, action), |a| (true, a));
        let (right, action) = action.strip_suffix('-').filter(|a| a.ends_with(is_blank)).map_or((false, action), |a| (true, a));
        push_text(&mut tokens, text, trim, left);
        tokens.push(Token::Action(action.trim_matches(is_blank).to_owned()));
        (rest, trim) = (after, right);
    }
    push_text(&mut tokens, rest, trim, false);
    Ok(tokens)
}

fn push_text(tokens: &mut Vec<Token>, text: &str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start_matches(is_blank) } else { text };
    let text = if trim_end { text.trim_end_matches(is_blank) } else { text };
    if !text.is_empty() {
        tokens.push(Token::Text(text.to_owned()));
    }
}

/// What Go's trim markers take away.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Nodes up to the `else` or `end` that closes them, and that action; `None` at the end of the source.
fn block(tokens: &mut std::vec::IntoIter<Token>, depth: usize) -> Result<(Vec<Node>, Option<String>), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Syntax { message: format!("more than {MAX_DEPTH} levels of `if`") });
    }
    let mut nodes = Vec::new();
    while let Some(token) = tokens.next() {
        let action = match token {
            Token::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Token::Action(action) => action,
        };
        if let Some(comment) = action.strip_prefix("/*") {
            if !comment.ends_with("*/") {
                return Err(Error::Syntax { message: "a comment is not closed".to_owned() });
            }
        } else if action == "end" || action == "else" || action.starts_with("else ") {
            return Ok((nodes, Some(action)));
        } else if let Some(condition) = action.strip_prefix("if ") {
            nodes.push(branch(condition, tokens, depth)?);
        } else {
            nodes.push(Node::Field(field(&action)?));
        }
    }
    Ok((nodes, None))
}

/// What follows `if`, up to its `end`.
fn branch(condition: &str, tokens: &mut std::vec::IntoIter<Token>, depth: usize) -> Result<Node, Error> {
    let open = || Error::Syntax { message: "an `if` has no `end`".to_owned() };
    let field = field(condition.trim())?;
    let (then, end) = block(tokens, depth + 1)?;
    let end = end.ok_or_else(open)?;
    if end == "end" {
        return Ok(Node::If { field, then, otherwise: Vec::new() });
    }
    let otherwise = match end.strip_prefix("else").map(str::trim) {
        Some("") => {
            let (nodes, end) = block(tokens, depth + 1)?;
            if end.ok_or_else(open)? != "end" {
                return Err(Error::Syntax { message: "a second `else`".to_owned() });
            }
            nodes
        }
        Some(chained) => {
            let condition = chained.strip_prefix("if ").ok_or_else(|| unsupported(&end))?;
            vec![branch(condition, tokens, depth + 1)?]
        }
        None => return Err(unsupported(&end)),
    };
    Ok(Node::If { field, then, otherwise })
}

fn field(action: &str) -> Result<Field, Error> {
    match action {
        ".System" => Ok(Field::System),
        ".Prompt" => Ok(Field::Prompt),
        ".Response" => Ok(Field::Response),
        _ => Err(unsupported(action)),
    }
}

fn unsupported(action: &str) -> Error {
    Error::Unsupported { what: format!("`{{{{ {} }}}}`", action.chars().take(60).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn render(source: &str, messages: &[Message]) -> String {
        GoTemplate::parse(source).expect("a template").render(messages, true)
    }

    fn ask(system: &str) -> Vec<Message> {
        let mut messages = vec![Message::new("user", "Why?")];
        if !system.is_empty() {
            messages.insert(0, Message::new("system", system));
        }
        messages
    }

    #[test]
    fn fields_conditions_and_trimming() {
        let source = "{{ if .System }}<<{{ .System }}>>\n{{ else }}none {{- end }}\nQ: {{.Prompt}}\nA: {{ .Response }} never";
        assert_eq!(render(source, &ask("Be.")), "<<Be.>>\n\nQ: Why?\nA: ");
        assert_eq!(render(source, &ask("")), "none\nQ: Why?\nA: ");
        assert_eq!(render("a \n {{- .Prompt -}} \n b", &ask("")), "aWhy?b");
        assert_eq!(render("{{ if .Response }}x{{ else if .Prompt }}y{{ else }}z{{ end }}", &ask("")), "y");
        assert_eq!(render("{{/* a comment */}}{{- /* another */ -}} x", &ask("")), "x");
    }

    #[test]
    fn earlier_turns_are_written_whole() {
        let messages =
            [Message::new("system", "S"), Message::new("user", "1"), Message::new("assistant", "one"), Message::new("user", "2")];
        assert_eq!(render("[{{ .System }}|{{ .Prompt }}|{{ .Response }}]", &messages), "[S|1|one][|2|");
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (source, named) in [
            ("{{ range .Messages }}{{ end }}", "range .Messages"),
            ("{{ .Tools }}", ".Tools"),
            ("{{ if and .System .Prompt }}{{ end }}", "and .System"),
            ("{{ $x := .Prompt }}", "$x"),
            ("{{ .Prompt | upper }}", "upper"),
            ("{{ else with .Prompt }}", "without"),
            ("{{ if .Prompt }}{{ else with .System }}{{ end }}", "else with"),
        ] {
            let error = GoTemplate::parse(source).expect_err("must be refused").to_string();
            assert!(error.contains(named), "{source}: {error}");
        }
        for open in ["{{ .Nope", "{{ if .Prompt }}", "{{ end }}", "{{ if .Prompt }}{{ else }}{{ else }}{{ end }}", "{{/* x }}"] {
            assert!(matches!(GoTemplate::parse(open), Err(Error::Syntax { .. })), "{open}");
        }
        assert!(GoTemplate::parse(&"{{ if .Prompt }}".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_source_panics(source in "(\\{\\{|\\}\\}|-| |if |else|end|\\.Prompt|\\.System|x|/\\*|\\*/){0,20}") {
            if let Ok(template) = GoTemplate::parse(&source) {
                template.render(&ask("S"), true);
            }
        }
    }
}
