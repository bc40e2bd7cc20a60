//! Texts inside Markdown, in which nothing of them is markup.

/// One line, in which nothing ends a cell of a table or is markup.
pub(in crate::jobs) fn cell(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('|', "\\|")
}

/// One line of code, whatever backquotes it holds.
pub(in crate::jobs) fn code(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let ticks = "`".repeat(longest_run(&line) + 1);
    let room = if ticks.len() > 1 { " " } else { "" };
    format!("{ticks}{room}{line}{room}{ticks}")
}

/// What stands before and behind a text of several lines.
pub(in crate::jobs) fn fence(text: &str) -> String {
    "`".repeat(longest_run(text).max(2) + 1)
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}
