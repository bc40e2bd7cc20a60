//! The name of a model on the Hub. Pure.

use std::fmt;
use std::str::FromStr;

/// The branch that is meant when none is named.
const DEFAULT_REVISION: &str = "main";
const PREFIXES: [&str; 3] = ["hf:", "https://huggingface.co/", "hf.co/"];
const MAX_PART_BYTES: usize = 96;
const MAX_PATH_BYTES: usize = 512;

/// `OWNER/NAME`, or one file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// `None`: all that is needed of the model.
    pub file: Option<String>,
}

/// A text that is no name of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is no name on the Hub: {why}; write it as hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME/FILE.gguf")]
pub struct NameError {
    shown: String,
    why: &'static str,
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        read(text.trim()).map_err(|why| NameError { shown: text.chars().take(120).collect(), why })
    }
}

fn read(text: &str) -> Result<Name, &'static str> {
    let text = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    let mut parts = text.splitn(3, '/');
    let (owner, rest) = (parts.next().unwrap_or_default(), parts.next().ok_or("it has no /")?);
    let (name, revision) = rest.split_once('@').unwrap_or((rest, DEFAULT_REVISION));
    let file = parts.next().map(str::to_owned);
    if ![owner, name, revision].into_iter().all(is_part) {
        return Err("owner, name and revision are made of letters, digits, -, _ and .");
    }
    if file.as_deref().is_some_and(|file| !is_path(file)) {
        return Err("the path of the file leaves its folder or has strange characters");
    }
    Ok(Name { repository: format!("{owner}/{name}"), revision: revision.to_owned(), file })
}

fn is_part(part: &str) -> bool {
    let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    plain && !part.is_empty() && part.len() <= MAX_PART_BYTES && !part.starts_with('.') && !part.contains("..")
}

/// Whether a path, from whomever, stays below the folder it is put into, on any system.
pub(super) fn is_path(path: &str) -> bool {
    let plain = |part: &str| {
        let known = |c: char| c.is_alphanumeric() || "-_.+=@ ()[]".contains(c);
        !part.is_empty() && part != "." && part != ".." && !part.ends_with(['.', ' ']) && part.chars().all(known)
    };
    path.len() <= MAX_PATH_BYTES && path.split('/').all(plain)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if self.revision != DEFAULT_REVISION {
            write!(f, "@{}", self.revision)?;
        }
        self.file.as_ref().map_or(Ok(()), |file| write!(f, "/{file}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, repository, revision, file, shown) in [
            ("hf:Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "main", None, "Qwen/Qwen3-0.6B"),
            ("a/b@v1.0", "a/b", "v1.0", None, "a/b@v1.0"),
            ("hf:a/b/sub/x.Q4_K_M.gguf", "a/b", "main", Some("sub/x.Q4_K_M.gguf"), "a/b/sub/x.Q4_K_M.gguf"),
            ("https://huggingface.co/a/b", "a/b", "main", None, "a/b"),
        ] {
            let name: Name = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((name.repository.as_str(), name.revision.as_str(), name.file.as_deref()), (repository, revision, file));
            assert_eq!(name.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_name_or_leaves_its_place_is_refused() {
        for text in
            ["", "a", "a/", "/b", "../b", "a/b@", "a/b@x y", "a/b/../../c", "a/b//c", "a/b/.", "a/b/c\\d", "a/b/c?d", "a..b/c", ".a/b"]
        {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        for path in ["/etc/passwd", "a/../b", "..", "C:/x", "a\0b", "a/", "~x\\y", "nul.", "a\nb"] {
            assert!(!is_path(path), "{path}");
        }
        assert!(is_path("model-00001-of-00002.safetensors") && is_path("onnx/model (1).onnx") && is_path("größe.txt"));
    }
}
