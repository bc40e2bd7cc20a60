//! What models are compared on: a text in sections, each of one kind.
//!
//! The built-in text was written for this purpose. It has a few thousand tokens of several kinds, because a quantisation that spares prose may
//! well spoil numbers or other languages. It is meant for comparing two models, not for ranking one among the models of the world.

use std::path::{Path, PathBuf};

/// The text that is used when none is given.
pub const BUILT_IN: &str = include_str!("builtin.txt");
/// What begins a section; its kind stands behind it.
const MARK: &str = "=== ";
/// The kind of a text without sections.
const WHOLE: &str = "text";
/// Longest text that is read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Most sections, and the longest name of one, in characters.
const MAX_SECTIONS: usize = 64;
const MAX_KIND_CHARS: usize = 40;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub kind: String,
    pub text: String,
}

/// Why a text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error("the text {} cannot be read: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the text {} has {bytes} bytes; at most {MAX_BYTES} are read: give a part of it", path.display())]
    TooLong { path: PathBuf, bytes: u64 },
    #[error("the text {} is not UTF-8: convert it, or give another one", path.display())]
    NotUtf8 { path: PathBuf },
    #[error("the text has no words")]
    Empty,
    #[error("the text has {0} sections (lines that begin with `{MARK}`), at most {MAX_SECTIONS} are compared")]
    Sections(usize),
}

/// The sections of a file, or of the built-in text.
///
/// # Errors
/// A file that cannot be read or holds nothing to compare.
pub fn read(path: Option<&Path>) -> Result<Vec<Section>, TextError> {
    let Some(path) = path else { return sections(BUILT_IN) };
    let io = |source| TextError::Io { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    if bytes > MAX_BYTES {
        return Err(TextError::TooLong { path: path.to_owned(), bytes });
    }
    let text = String::from_utf8(std::fs::read(path).map_err(io)?).map_err(|_| TextError::NotUtf8 { path: path.to_owned() })?;
    sections(&text)
}

/// Splits a text at its marks. A text without marks is one section.
///
/// # Errors
/// A text of blanks, or too many sections.
pub fn sections(text: &str) -> Result<Vec<Section>, TextError> {
    let mut found: Vec<Section> = Vec::new();
    for line in text.split_inclusive('\n') {
        match (line.strip_prefix(MARK), found.last_mut()) {
            (Some(kind), _) => found.push(Section { kind: kind.trim().chars().take(MAX_KIND_CHARS).collect(), text: String::new() }),
            (None, Some(section)) => section.text.push_str(line),
            (None, None) => found.push(Section { kind: WHOLE.to_owned(), text: line.to_owned() }),
        }
    }
    found.retain(|section| !section.text.trim().is_empty());
    match found.len() {
        0 => Err(TextError::Empty),
        count if count > MAX_SECTIONS => Err(TextError::Sections(count)),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_text_has_several_kinds() {
        let sections = sections(BUILT_IN).expect("sound");
        let kinds: Vec<&str> = sections.iter().map(|section| section.kind.as_str()).collect();
        assert_eq!(kinds, ["prose", "explanation", "code", "markup", "lists", "numbers", "dialogue", "languages"]);
        assert!(sections.iter().all(|section| section.text.len() > 400), "each is long enough to say something");
    }

    #[test]
    fn a_text_without_marks_is_one_section_and_blanks_are_none() {
        assert_eq!(sections("a\nb\n").expect("sound"), [Section { kind: "text".into(), text: "a\nb\n".into() }]);
        let mixed = sections("first\n=== x\n\n=== y\nsecond").expect("sound");
        assert_eq!(mixed.iter().map(|s| (s.kind.as_str(), s.text.as_str())).collect::<Vec<_>>(), [("text", "first\n"), ("y", "second")]);
        assert!(matches!(sections(" \n\n"), Err(TextError::Empty)));
        assert!(matches!(sections(&"=== x\ny\n".repeat(65)), Err(TextError::Sections(65))));
    }

    #[test]
    fn files_that_cannot_be_used_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.txt");
        assert!(matches!(read(Some(&path)), Err(TextError::Io { .. })));
        std::fs::write(&path, b"\xff\xfe").expect("written");
        assert!(matches!(read(Some(&path)), Err(TextError::NotUtf8 { .. })));
    }
}
