//! The lines on standard error.
//!
//! Text for people when standard error is a terminal, one JSON object a line otherwise, or as configured. [`init`] is called once,
//! by the process; tests that start several services in one process do without it. Standard output is left to commands.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged, and in which form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A level, or levels by target: `info`, `warn,arriero=debug`.
    pub level: String,
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: Format::Auto }
    }
}

/// The form of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the log level `{level}` is wrong ({why}): write a level (error, warn, info, debug, trace) or `target=level`, separated by commas"
    )]
    Level { level: String, why: String },
    #[error("logging is already set up in this process")]
    Already,
}

/// Starts logging for the whole process.
///
/// # Errors
/// When the level cannot be read, or on a second call.
pub fn init(config: &Config) -> Result<(), Error> {
    let terminal = std::io::stderr().is_terminal();
    subscriber(config, terminal, std::io::stderr)?.try_init().map_err(|_| Error::Already)
}

/// Whether a level can be read, for checking a configuration without starting anything.
///
/// # Errors
/// When it cannot.
pub fn check(config: &Config) -> Result<(), Error> {
    filter(&config.level).map(drop)
}

fn subscriber<W>(config: &Config, terminal: bool, writer: W) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&config.level)?).with_writer(writer);
    let json = match config.format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    Ok(if json {
        Box::new(builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish())
    } else {
        Box::new(builder.with_ansi(terminal).with_target(false).compact().finish())
    })
}

fn filter(level: &str) -> Result<EnvFilter, Error> {
    let wrong = |why: String| Error::Level { level: level.to_owned(), why };
    if level.trim().is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    // A bare word that is no level would be read as the name of a target, and silence everything else.
    if let Some(word) = level.split(',').map(str::trim).find(|word| !is_directive(word)) {
        return Err(wrong(format!("`{word}` is no level")));
    }
    EnvFilter::try_new(level).map_err(|error| wrong(error.to_string()))
}

fn is_directive(word: &str) -> bool {
    !word.is_empty() && word != "=" && (word.contains(['=', '[']) || word.parse::<tracing::level_filters::LevelFilter>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(config: &Config, terminal: bool) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(config, terminal, move || writer.clone()).expect("a good configuration");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("request", request_id = "r1").in_scope(|| tracing::info!(backend = "local", "started"));
            tracing::debug!("not shown at info");
        });
        let bytes = lines.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn away_from_a_terminal_each_line_is_an_object_with_its_span() {
        let text = logged(&Config::default(), false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 1, "{text}");
        let object: serde_json::Value = serde_json::from_str(lines[0]).expect("JSON");
        assert_eq!(object["message"], "started");
        assert_eq!(object["backend"], "local");
        assert_eq!(object["span"]["request_id"], "r1");
    }

    #[test]
    fn text_is_for_terminals_and_for_those_who_ask() {
        let on_terminal = logged(&Config::default(), true);
        assert!(on_terminal.contains("started") && !on_terminal.trim_start().starts_with('{'), "{on_terminal}");
        let asked = logged(&Config { format: Format::Text, ..Config::default() }, false);
        assert!(!asked.contains('\u{1b}'), "no colours away from a terminal: {asked:?}");
    }

    #[test]
    fn a_wrong_level_is_an_error_that_says_what_to_write() {
        for wrong in ["", "loud", "info,arriero=loud", "info,,", "=", "arriero=debug,[", "verbose"] {
            let error = check(&Config { level: wrong.to_owned(), ..Config::default() }).expect_err(wrong);
            assert!(error.to_string().contains("write a level"), "{error}");
        }
        for right in ["info", "WARN", "off", "warn,arriero=debug", "arriero[request]=trace,info"] {
            check(&Config { level: right.to_owned(), ..Config::default() }).expect(right);
        }
    }
}
