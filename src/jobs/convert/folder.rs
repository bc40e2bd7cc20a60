//! The folder of a model: its files by plain names, never anything outside.
//!
//! A name with a separator, a drive or dots that climb is refused. Links within the folder are followed: the Hub's cache is made of
//! them. Every file read whole has a bound.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::error::{Error, Result, shown};

/// More than any configuration, template or model card has.
const MAX_TEXT_BYTES: u64 = 8 << 20;
/// More files than any model comes in.
const MAX_FILES: usize = 16_384;

#[derive(Debug, Clone)]
pub(in crate::jobs) struct Folder {
    path: PathBuf,
    name: String,
}

impl Folder {
    pub(in crate::jobs) fn open(given: &Path) -> Result<Self> {
        let path = fs::canonicalize(given).map_err(Error::io("open", given))?;
        if !path.is_dir() {
            return Err(Error::Impossible(format!("{} is no folder; give the folder that holds config.json", path.display())));
        }
        // Where the folder is a link, the model is called as the link is.
        let name = given.file_name().or(path.file_name()).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { path, name })
    }

    /// The folder's own name.
    pub(in crate::jobs) fn name(&self) -> String {
        self.name.clone()
    }

    pub(in crate::jobs) fn path_of(&self, name: &str) -> Result<PathBuf> {
        let mut parts = Path::new(name).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(part)), None) if part == name && !name.contains('\\') => Ok(self.path.join(part)),
            _ => Err(Error::malformed(name, "this is no plain name of a file in the model's folder")),
        }
    }

    pub(in crate::jobs) fn has(&self, name: &str) -> bool {
        self.path_of(name).is_ok_and(|path| path.is_file())
    }

    pub(in crate::jobs) fn file(&self, name: &str) -> Result<File> {
        let path = self.path_of(name)?;
        File::open(&path).map_err(Error::io("open", &path))
    }

    /// A folder within; `None` if it is not there.
    pub(in crate::jobs) fn inner(&self, name: &str) -> Result<Option<Self>> {
        let path = self.path_of(name)?;
        if path.is_dir() { Self::open(&path).map(Some) } else { Ok(None) }
    }

    /// All bytes of a file; `None` if it is not there.
    pub(in crate::jobs) fn bytes(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let path = self.path_of(name)?;
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(Error::io("open", &path))?,
        };
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        if bytes.len() as u64 > most {
            return Err(Error::malformed(name, format!("larger than {most} bytes, which no such file is")));
        }
        Ok(Some(bytes))
    }

    /// A text; `None` if it is not there.
    pub(in crate::jobs) fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(bytes) = self.bytes(name, MAX_TEXT_BYTES)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|error| Error::malformed(name, error.to_string()))
    }

    /// A small JSON object; `None` if it is not there.
    pub(in crate::jobs) fn json(&self, name: &str) -> Result<Option<Value>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        // Some converters write a byte-order mark, which JSON does not have.
        let value: Value =
            serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| Error::malformed(name, error.to_string()))?;
        if value.is_object() { Ok(Some(value)) } else { Err(Error::malformed(name, "not a JSON object")) }
    }

    /// Names of the files that begin and end so, sorted.
    pub(in crate::jobs) fn names(&self, prefix: &str, suffix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (seen, entry) in fs::read_dir(&self.path).map_err(Error::io("list", &self.path))?.enumerate() {
            if seen >= MAX_FILES {
                return Err(Error::Impossible(format!("{} has more than {MAX_FILES} files", self.path.display())));
            }
            let name = entry.map_err(Error::io("list", &self.path))?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(prefix) && name.ends_with(suffix) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The error for a file that has to be there.
    pub(in crate::jobs) fn lacks(&self, name: &str, why: &str) -> Error {
        Error::Impossible(format!("{} has no {}: {why}", self.path.display(), shown(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let folder = Folder { path: "/models/x".into(), name: "x".into() };
        for name in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a/", "./a", "..\\a", "a\\b"] {
            assert!(folder.path_of(name).is_err(), "{name:?}");
        }
        for name in ["model.safetensors", "..a", "a..b", ".hidden"] {
            assert_eq!(folder.path_of(name).expect("plain"), Path::new("/models/x").join(name));
        }
    }
}
