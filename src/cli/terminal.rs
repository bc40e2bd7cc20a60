//! Writing for people and for pipes.
//!
//! On a terminal, control characters in a model's answer are shown, not obeyed; in a pipe, the answer's bytes are left alone.

use std::io::{self, IsTerminal, Write};

const DIM: &str = "\u{1b}[2m";
/// Back to the start of the line, and the line away.
const LINE_AWAY: &str = "\r\u{1b}[K";
/// The whole screen away, and to its top.
pub const SCREEN_AWAY: &str = "\u{1b}[2J\u{1b}[H";
const PLAIN: &str = "\u{1b}[0m";

/// Where an answer goes.
#[derive(Debug)]
pub struct Output {
    terminal: bool,
    /// Nothing is written while an answer comes.
    quiet: bool,
    dimmed: bool,
    at_line_start: bool,
}

impl Output {
    #[must_use]
    pub fn standard() -> Self {
        Self { terminal: io::stdout().is_terminal(), quiet: false, dimmed: false, at_line_start: true }
    }

    /// Swallows the answer.
    #[must_use]
    pub fn quiet() -> Self {
        Self { quiet: true, ..Self::standard() }
    }

    /// A piece of the answer.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        if self.dimmed && !text.is_empty() {
            self.dimmed = false;
            self.write(&format!("{PLAIN}\n\n"))?;
        }
        self.piece(text)
    }

    /// A piece of what the model thinks; shown on a terminal only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn thinking(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() || !self.terminal {
            return Ok(());
        }
        if !self.dimmed {
            self.dimmed = true;
            self.write(DIM)?;
        }
        self.piece(text)
    }

    /// Ends the answer with a line break, unless it has one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.dimmed) {
            self.write(PLAIN)?;
        }
        if self.at_line_start { Ok(()) } else { self.piece("\n") }
    }

    fn piece(&mut self, text: &str) -> io::Result<()> {
        if let Some(last) = text.chars().last() {
            self.at_line_start = last == '\n';
        }
        if self.terminal { self.write(&harmless(text)) } else { self.write(text) }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// The text with control characters made visible, so that it cannot steer a terminal.
#[must_use]
pub fn harmless(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c,
        c if u32::from(c) < 0x20 => char::from_u32(u32::from(c) + 0x2400).unwrap_or('\u{fffd}'),
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// Prints lines of text.
///
/// # Errors
/// When they cannot be written.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// A note that is not part of the output.
pub fn note(text: &str) {
    // Nobody can be told that standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// One line on the terminal's standard error that is written over until it is taken away.
#[derive(Debug)]
pub struct Status {
    terminal: bool,
    shown: bool,
}

impl Status {
    /// Shown on a terminal only.
    #[must_use]
    pub fn standard() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: false }
    }

    /// Whether anybody sees it.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.terminal
    }

    pub fn show(&mut self, text: &str) {
        if self.terminal {
            self.shown = true;
            // As with notes.
            let _ = write!(io::stderr().lock(), "{LINE_AWAY}{DIM}{}{PLAIN}", harmless(text));
        }
    }

    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr().lock(), "{LINE_AWAY}");
        }
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Columns of text, as wide as their widest cell.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2J\r\nb\tü\u{9b}"), "a␛[2J␍\nb\tü\u{fffd}");
    }

    #[test]
    fn columns_line_up() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        assert_eq!(table(&[row(&["NAME", "X"]), row(&["é", "long"])]), "NAME  X\né     long\n");
    }
}
