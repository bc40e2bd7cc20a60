//! `arriero chat`: a conversation in the terminal, or line by line from a pipe.
//!
//! The conversation is the token ids that come with each final object; an answer that was stopped or failed leaves it as it was.

use std::io::{BufRead, IsTerminal};

use serde_json::Value;
use tokio::sync::mpsc;

use super::args::{Asking, Chat};
use super::asking::{self, Ended};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal::{self, Output};
use crate::config::Variables;

const COMMANDS: &str = "\
/system TEXT  start anew with this system prompt (without TEXT: with none)
/model NAME   start anew with this model (without NAME: say which one)
/clear        forget the conversation
/bye          leave (also Ctrl-D)
\"\"\"           begin and end a prompt of several lines";

/// # Errors
/// When the gateway cannot be reached; in a pipe also when an answer fails.
pub async fn run(args: Chat, variables: &Variables) -> Result<Exit, Failure> {
    let client = Client::new(args.target.url.as_deref(), variables)?;
    client.live().await?;
    let mut talk = Talk { asking: args.asking, context: Value::Null };
    let interactive = std::io::stdin().is_terminal();
    let mut lines = Lines::start(interactive);
    if interactive {
        terminal::note("Type a prompt, or /help. Ctrl-C stops an answer, Ctrl-D leaves.");
    }
    let mut interrupted = false;
    loop {
        match lines.next().await? {
            Input::End => return Ok(Exit::Ok),
            Input::Interrupt if interrupted || !interactive => return Ok(Exit::Interrupted),
            Input::Interrupt => {
                interrupted = true;
                terminal::note("\n(Ctrl-C again, Ctrl-D or /bye leaves)");
            }
            Input::Prompt(text) => {
                interrupted = false;
                match turn(&client, &mut talk, &text).await {
                    Ok(Next::Go) => {}
                    Ok(Next::Leave) => return Ok(Exit::Ok),
                    Err(failure) if interactive && !failure.what.is_empty() => terminal::note(&format!("arriero: {failure}")),
                    Err(failure) => return Err(failure),
                }
            }
        }
    }
}

/// What is said, and how.
#[derive(Debug)]
struct Talk {
    asking: Asking,
    /// Token ids of the conversation so far; null at its start.
    context: Value,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    Leave,
}

async fn turn(client: &Client, talk: &mut Talk, text: &str) -> Result<Next, Failure> {
    if text.trim().is_empty() {
        return Ok(Next::Go);
    }
    if let Some(command) = text.strip_prefix('/') {
        let (next, said) = obey(talk, command);
        if !said.is_empty() {
            terminal::note(&said);
        }
        return Ok(next);
    }
    let mut output = Output::standard();
    let answer = asking::ask(client, body(talk, text), &mut output).await;
    output.end()?;
    match answer? {
        Ended::Done { last, .. } => {
            if talk.asking.verbose {
                terminal::note(&asking::summary(&last));
            }
            remember(talk, last);
        }
        Ended::Stopped => terminal::note("(stopped; this turn is not remembered)"),
    }
    Ok(Next::Go)
}

/// The system prompt is part of the conversation from its first turn on and is sent only then.
fn body(talk: &Talk, text: &str) -> serde_json::Map<String, Value> {
    let mut body = asking::body(&talk.asking);
    body.insert("prompt".to_owned(), Value::String(text.to_owned()));
    if !talk.context.is_null() {
        body.remove("system");
        body.insert("context".to_owned(), talk.context.clone());
    }
    body
}

fn remember(talk: &mut Talk, mut last: Value) {
    if last["context"].is_array() {
        talk.context = last["context"].take();
    } else {
        terminal::note("(the backend gives no context: the next turn starts anew)");
        talk.context = Value::Null;
    }
}

/// Carries a command out; gives what to say about it.
fn obey(talk: &mut Talk, command: &str) -> (Next, String) {
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = Some(rest.trim()).filter(|rest| !rest.is_empty()).map(str::to_owned);
    let said = match (name, rest) {
        ("bye" | "exit" | "quit", _) => return (Next::Leave, String::new()),
        ("clear", _) => {
            talk.context = Value::Null;
            "(the conversation is forgotten)".to_owned()
        }
        ("system", text) => {
            talk.context = Value::Null;
            talk.asking.system = text;
            "(a new conversation)".to_owned()
        }
        ("model", Some(name)) => {
            talk.context = Value::Null;
            talk.asking.model = Some(name);
            "(a new conversation)".to_owned()
        }
        ("model", None) => talk.asking.model.clone().unwrap_or_else(|| "(the gateway's default model)".to_owned()),
        ("help" | "?", _) => COMMANDS.to_owned(),
        (other, _) => format!("(there is no /{other}; /help lists what there is)"),
    };
    (Next::Go, said)
}

/// What comes from the keyboard or the pipe.
#[derive(Debug)]
enum Input {
    Prompt(String),
    Interrupt,
    End,
}

/// Lines of standard input, read on a thread of their own: a blocked read must hold up neither Ctrl-C nor the end of the program.
struct Lines {
    asks: mpsc::Sender<()>,
    read: mpsc::Receiver<std::io::Result<Option<String>>>,
    interactive: bool,
    waiting: bool,
}

impl Lines {
    fn start(interactive: bool) -> Self {
        let (asks, mut asked) = mpsc::channel::<()>(1);
        let (send, read) = mpsc::channel(1);
        std::thread::spawn(move || {
            while asked.blocking_recv().is_some() {
                let line = std::io::stdin().lock().lines().next().transpose();
                if send.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self { asks, read, interactive, waiting: false }
    }

    /// The next prompt: one line, or several between `"""`.
    async fn next(&mut self) -> Result<Input, Failure> {
        let first = match self.line(">>> ").await? {
            Ok(line) => line,
            Err(other) => return Ok(other),
        };
        let Some(begun) = first.trim_start().strip_prefix("\"\"\"") else { return Ok(Input::Prompt(first)) };
        let mut text = begun.to_owned();
        while !text.trim_end().ends_with("\"\"\"") {
            match self.line("... ").await? {
                Ok(line) => {
                    text.push('\n');
                    text.push_str(&line);
                }
                Err(other) => return Ok(other),
            }
        }
        let end = text.rfind("\"\"\"").unwrap_or(text.len());
        text.truncate(end);
        Ok(Input::Prompt(text))
    }

    async fn line(&mut self, sign: &str) -> Result<Result<String, Input>, Failure> {
        if self.interactive {
            let mut out = std::io::stdout().lock();
            std::io::Write::write_all(&mut out, sign.as_bytes())?;
            std::io::Write::flush(&mut out)?;
        }
        if !self.waiting {
            self.waiting = true;
            // The thread lives as long as this sender does.
            let _ = self.asks.try_send(());
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => Ok(Err(Input::Interrupt)),
            line = self.read.recv() => {
                self.waiting = false;
                Ok(line.transpose()?.flatten().ok_or(Input::End))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn talk() -> Talk {
        Talk { asking: Asking { system: Some("s".into()), ..Asking::default() }, context: Value::Null }
    }

    #[test]
    fn the_system_prompt_opens_a_conversation_and_the_context_carries_it_on() {
        let mut talk = talk();
        assert_eq!(Value::Object(body(&talk, "a")), json!({"system": "s", "stream": true, "prompt": "a"}));
        remember(&mut talk, json!({"context": [1, 2]}));
        assert_eq!(Value::Object(body(&talk, "b")), json!({"stream": true, "prompt": "b", "context": [1, 2]}));
    }

    #[test]
    fn commands_do_what_they_say() {
        let mut talk = talk();
        talk.context = json!([1]);
        assert_eq!(obey(&mut talk, "bye").0, Next::Leave);
        assert!(obey(&mut talk, "nonsense").1.contains("/help"));
        assert_eq!(talk.context, json!([1]));
        obey(&mut talk, "system  be brief ");
        assert_eq!((talk.asking.system.as_deref(), &talk.context), (Some("be brief"), &Value::Null));
        talk.context = json!([1]);
        obey(&mut talk, "model x:1b");
        assert_eq!((talk.asking.model.as_deref(), &talk.context), (Some("x:1b"), &Value::Null));
        talk.context = json!([1]);
        obey(&mut talk, "clear");
        assert_eq!(talk.context, Value::Null);
    }
}
