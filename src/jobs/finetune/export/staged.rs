//! A folder in the making: under a temporary name beside its own, which it gets when all of it is there.
//!
//! A value that is dropped before that takes the folder with it.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::jobs::convert::Error;
use crate::jobs::convert::error::Result;

#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    temporary: PathBuf,
    kept: bool,
}

impl Staged {
    /// Begins a folder that will have this path, which nothing may have yet but an empty folder.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let is_empty = |path: &Path| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if path.exists() && !is_empty(path) {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let Some(name) = path.file_name() else { return Err(Error::Impossible(format!("{} names no folder", path.display()))) };
        for attempt in 0..1000_u32 {
            let temporary = path.with_file_name(format!(".{}.{}-{attempt}.part", name.to_string_lossy(), std::process::id()));
            match fs::create_dir(&temporary) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    made.map_err(Error::io("create", &temporary))?;
                    return Ok(Self { path: path.to_owned(), temporary, kept: false });
                }
            }
        }
        Err(Error::Impossible(format!("there are too many unfinished folders beside {}; remove those that end with .part", path.display())))
    }

    /// Where a file of this name is to be written.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.temporary.join(name)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.file(name);
        let mut file = fs::File::create(&path).map_err(Error::io("create", &path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io("write", &path))
    }

    pub(super) fn write_json(&self, name: &str, json: &serde_json::Value) -> Result<()> {
        self.write(name, format!("{json:#}\n").as_bytes())
    }

    /// Gives the folder its name.
    pub(super) fn keep(mut self) -> Result<()> {
        // Renaming onto an empty folder is not possible everywhere.
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::Exists { path: self.path.clone() }),
            _ => {}
        }
        fs::rename(&self.temporary, &self.path).map_err(Error::io("rename to", &self.path))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed is named so that it is known for what it is.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).expect("listed").map(|entry| entry.expect("listed").file_name().into_string().expect("text")).collect()
    }

    #[test]
    fn a_folder_is_whole_or_not_there() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("out");
        let staged = Staged::create(&path).expect("begun");
        staged.write("a", b"1").expect("written");
        drop(staged);
        assert!(left(place.path()).is_empty());
        fs::create_dir(&path).expect("made");
        let staged = Staged::create(&path).expect("begun: it is empty");
        staged.write("a", b"1").expect("written");
        staged.keep().expect("kept");
        assert_eq!((left(place.path()), left(&path)), (vec!["out".to_owned()], vec!["a".to_owned()]));
        assert!(matches!(Staged::create(&path), Err(Error::Exists { .. })));
    }
}
