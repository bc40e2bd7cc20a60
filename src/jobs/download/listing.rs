//! What the Hub says a model consists of, and which of that is needed. Nothing in it is trusted.

use std::collections::HashSet;

use futures_util::StreamExt;
use serde::Deserialize;

use super::name::is_path;
use super::{Error, Name, error};
use crate::domain::digest::Digest;

/// Most that is read of a listing, and the most files in one.
const MAX_BYTES: usize = 16 * 1024 * 1024;
const MAX_FILES: usize = 20_000;
/// What a model is beside its weights. Code is not fetched: nothing here would run it.
const TEXTS: [&str; 3] = [".json", ".jinja", ".model"];
const LICENSES: [&str; 3] = ["LICENSE", "NOTICE", "USE_POLICY"];
const WEIGHTS: &str = ".safetensors";
const GGUF: &str = ".gguf";

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub path: String,
    pub size_bytes: Option<u64>,
    /// Told for large files only.
    pub digest: Option<Digest>,
}

#[derive(Debug)]
pub(super) struct Listing {
    pub revision: String,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    size: Option<u64>,
}

impl Listing {
    pub async fn read(response: reqwest::Response, name: &Name) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| Error::Network { place: "the Hub".to_owned(), why: error::root(&error) })?;
            if bytes.len() + piece.len() > MAX_BYTES {
                return Err(wrong(name, "it is too long"));
            }
            bytes.extend_from_slice(&piece);
        }
        Self::parse(&bytes, name)
    }

    fn parse(bytes: &[u8], name: &Name) -> Result<Self, Error> {
        let answer: Answer = serde_json::from_slice(bytes).map_err(|error| wrong(name, &error.to_string()))?;
        let commit = answer.sha.len() <= 64 && !answer.sha.is_empty() && answer.sha.bytes().all(|b| b.is_ascii_hexdigit());
        if !commit {
            return Err(wrong(name, "its revision is no commit"));
        }
        if answer.siblings.len() > MAX_FILES {
            return Err(wrong(name, "it has too many files"));
        }
        Ok(Self { revision: answer.sha, entries: answer.siblings.into_iter().map(Sibling::entry).collect() })
    }

    /// The files that are needed, the small ones first: what is wrong with a model shows in those.
    pub fn wanted(&self, name: &Name) -> Result<Vec<Entry>, Error> {
        let mut wanted: Vec<Entry> = match &name.file {
            Some(file) => self.entries.iter().filter(|entry| entry.path == *file).cloned().collect(),
            None => self.entries.iter().filter(|entry| is_needed(&entry.path)).cloned().collect(),
        };
        let complete = name.file.is_some() || wanted.iter().any(|entry| entry.path.ends_with(WEIGHTS));
        if wanted.is_empty() || !complete {
            return Err(Error::Nothing { name: name.to_string(), why: self.instead(name) });
        }
        let mut seen = HashSet::new();
        let clash = |entry: &&Entry| !is_path(&entry.path) || !seen.insert(entry.path.to_lowercase());
        if let Some(bad) = wanted.iter().find(clash) {
            return Err(wrong(name, &format!("a file is called {:?}", bad.path.chars().take(80).collect::<String>())));
        }
        wanted.sort_by_key(|entry| entry.size_bytes.unwrap_or(u64::MAX));
        Ok(wanted)
    }

    fn instead(&self, name: &Name) -> String {
        if name.file.is_some() {
            return "it has no file of that name".to_owned();
        }
        let files: Vec<&str> = self.entries.iter().map(|entry| entry.path.as_str()).filter(|path| path.ends_with(GGUF)).take(5).collect();
        match files.first() {
            None => "it has no safetensors".to_owned(),
            Some(_) => format!("it has GGUF files; name one of them: {}", files.join(", ")),
        }
    }
}

impl Sibling {
    fn entry(self) -> Entry {
        let lfs = self.lfs.as_ref();
        Entry {
            size_bytes: lfs.and_then(|lfs| lfs.size).or(self.size),
            digest: lfs.and_then(|lfs| lfs.sha256.as_deref()).and_then(|text| text.parse().ok()),
            path: self.rfilename,
        }
    }
}

/// Only what lies at the top: folders hold the same model in other forms.
fn is_needed(path: &str) -> bool {
    let text = TEXTS.iter().any(|ending| path.ends_with(ending)) || LICENSES.iter().any(|begin| path.starts_with(begin));
    !path.contains('/') && (path.ends_with(WEIGHTS) || text || matches!(path, "merges.txt" | "vocab.txt"))
}

fn wrong(name: &Name, why: &str) -> Error {
    Error::Listing { name: name.to_string(), why: why.chars().take(200).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: &[&str]) -> Listing {
        let siblings: Vec<_> = files.iter().map(|file| serde_json::json!({"rfilename": file, "size": file.len()})).collect();
        let text = serde_json::json!({"sha": "ab12", "siblings": siblings, "new": 1}).to_string();
        Listing::parse(text.as_bytes(), &name("a/b")).expect("sound")
    }

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn what_is_needed_is_fetched_and_code_and_copies_are_not() {
        let all = [
            "model.safetensors",
            "config.json",
            "modeling_x.py",
            "onnx/model.onnx",
            "sub/model.safetensors",
            "README.md",
            "LICENSE.txt",
            "x.gguf",
            "pytorch_model.bin",
            "tokenizer.model",
        ];
        let wanted = listing(&all).wanted(&name("a/b")).expect("files");
        let mut paths: Vec<&str> = wanted.iter().map(|entry| entry.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["LICENSE.txt", "config.json", "model.safetensors", "tokenizer.model"]);
        assert_eq!(listing(&all).wanted(&name("a/b/x.gguf")).expect("a file").len(), 1);
        let error = listing(&["x.gguf", "config.json"]).wanted(&name("a/b")).expect_err("no weights").to_string();
        assert!(error.contains("name one of them: x.gguf"), "{error}");
    }

    #[test]
    fn names_that_leave_the_folder_or_are_one_file_on_some_systems_are_refused() {
        for bad in ["..\\..\\x.json", "a\0.json", "C:x.json"] {
            assert!(matches!(listing(&["m.safetensors", bad]).wanted(&name("a/b")), Err(Error::Listing { .. })), "{bad:?}");
        }
        assert!(matches!(listing(&["m.safetensors", "M.safetensors"]).wanted(&name("a/b")), Err(Error::Listing { .. })));
    }

    #[test]
    fn listings_that_are_none_are_refused() {
        for text in ["", "[]", "{\"sha\":\"../x\",\"siblings\":[]}", "{\"sha\":\"\",\"siblings\":[]}", "{\"siblings\":[]}"] {
            assert!(matches!(Listing::parse(text.as_bytes(), &name("a/b")), Err(Error::Listing { .. })), "{text}");
        }
    }
}
