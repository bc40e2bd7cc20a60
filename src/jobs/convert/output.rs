//! The file in the making: under a temporary name in its own folder, hashed as it is written, and given its name when all is there.
//!
//! A value that is dropped before that takes the file with it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::{Error, Result};
use super::rows::length;
use crate::domain::digest::Digest;
use crate::jobs::files::free_bytes;

#[derive(Debug)]
pub(in crate::jobs) struct Output {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    hash: Sha256,
    size_bytes: u64,
    overwrite: bool,
    kept: bool,
}

impl Output {
    /// Begins a file that will have this path and this size.
    pub(in crate::jobs) fn create(path: &Path, size_bytes: u64, overwrite: bool) -> Result<Self> {
        if !overwrite && path.exists() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let folder = parent(path);
        expect_room(folder, size_bytes)?;
        let (temporary, file) = temporary(path, folder)?;
        Ok(Self { path: path.to_owned(), temporary, file, hash: Sha256::new(), size_bytes: 0, overwrite, kept: false })
    }

    pub(in crate::jobs) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.temporary))?;
        self.hash.update(bytes);
        self.size_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Fills with zeros up to a place.
    pub(in crate::jobs) fn pad_to(&mut self, place: u64) -> Result<()> {
        let missing = place.saturating_sub(self.size_bytes);
        self.write(&vec![0; length(missing)?])
    }

    /// Bytes written so far.
    pub(in crate::jobs) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Makes the file durable and gives it its name; answers its SHA-256 in hexadecimal.
    pub(in crate::jobs) fn keep(mut self) -> Result<String> {
        self.file.sync_all().map_err(Error::io("save", &self.temporary))?;
        self.name()?;
        self.kept = true;
        sync_folder(parent(&self.path))?;
        let hash = std::mem::take(&mut self.hash).finalize();
        Ok(Digest::new(hash.into()).hex())
    }

    fn name(&self) -> Result<()> {
        if !self.overwrite {
            // A link, unlike a renaming, takes nobody else's place.
            match fs::hard_link(&self.temporary, &self.path) {
                Ok(()) => return fs::remove_file(&self.temporary).map_err(Error::io("remove", &self.temporary)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(Error::Exists { path: self.path.clone() }),
                // Some file systems have no links.
                Err(_) if self.path.exists() => return Err(Error::Exists { path: self.path.clone() }),
                Err(_) => {}
            }
        }
        fs::rename(&self.temporary, &self.path).map_err(Error::io("rename to", &self.path))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed is named so that it is known for what it is.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file beside the one it will become.
fn temporary(path: &Path, folder: &Path) -> Result<(PathBuf, File)> {
    let Some(name) = path.file_name() else { return Err(Error::Impossible(format!("{} names no file", path.display()))) };
    for attempt in 0..1000_u32 {
        let temporary = folder.join(format!(".{}.{}-{attempt}.part", name.to_string_lossy(), std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            file => return file.map(|file| (temporary.clone(), file)).map_err(Error::io("create", &temporary)),
        }
    }
    Err(Error::Impossible(format!("{} is full of unfinished files; remove those that end with .part", folder.display())))
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("save", folder))
}

/// Elsewhere a folder cannot be opened as a file.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<()> {
    Ok(())
}

/// Says no before anything is written where it cannot fit. A file system that does not say how much is free is tried.
fn expect_room(folder: &Path, needed_bytes: u64) -> Result<()> {
    let folder = fs::canonicalize(folder).map_err(Error::io("open", folder))?;
    match free_bytes(&folder) {
        Some(free_bytes) if free_bytes < needed_bytes => Err(Error::DiskFull { path: folder, needed_bytes, free_bytes }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).expect("listed").map(|entry| entry.expect("listed").file_name().into_string().expect("text")).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_kept_file_has_its_name_and_hash() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.gguf");
        let mut output = Output::create(&path, 3, false).expect("begun");
        output.write(b"a").expect("written");
        output.write(b"bc").expect("written");
        assert_eq!(output.size_bytes(), 3);
        assert_eq!(output.keep().expect("kept"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((left(folder.path()), fs::read(&path).expect("read")), (vec!["a.gguf".to_owned()], b"abc".to_vec()));
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut output = Output::create(&folder.path().join("a.gguf"), 3, false).expect("begun");
        output.write(b"a").expect("written");
        drop(output);
        assert!(left(folder.path()).is_empty());
    }

    #[test]
    fn nothing_is_overwritten_unless_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.gguf");
        let late = Output::create(&path, 0, false).expect("begun");
        fs::write(&path, "old").expect("written");
        assert!(matches!(Output::create(&path, 0, false), Err(Error::Exists { .. })));
        assert!(matches!(late.keep(), Err(Error::Exists { .. })));
        assert_eq!((left(folder.path()), fs::read(&path).expect("read")), (vec!["a.gguf".to_owned()], b"old".to_vec()));
        Output::create(&path, 0, true).expect("begun").keep().expect("kept");
        assert_eq!(fs::read(&path).expect("read"), b"");
    }

    #[test]
    fn what_cannot_fit_is_refused_with_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Output::create(&folder.path().join("a.gguf"), u64::MAX, false).expect_err("too much");
        assert!(error.to_string().contains(&u64::MAX.to_string()), "{error}");
        assert!(left(folder.path()).is_empty());
    }
}
