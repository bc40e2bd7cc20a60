//! The embedded engine's library: a folder of finished files, each under the name it is served by.
//!
//! [`place`] promises: a file appears whole under its name or not at all, whatever is killed when; it is flushed to the disk before it
//! appears; a file of the same bytes that is there already stays. Where the file system allows, the bytes are not copied but linked.
//! It does not make a running engine load the file: `serve` does that when it starts.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::Artifact;
use crate::domain::digest::Digest;
use crate::domain::id::ModelName;
use crate::jobs::hash;

/// The folder of the library, in the data folder.
pub const FOLDER: &str = "library";
/// What files end with that are not finished.
const UNFINISHED: &str = ".part";
const ENDING: &str = ".gguf";

/// Why a file is not in the library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not the file that was to be put into the library ({expected}): it has the digest {found}; make it again", path.display())]
    Digest { path: PathBuf, expected: Digest, found: Digest },
}

/// What was done to the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// The same bytes were there.
    Unchanged(PathBuf),
    New(PathBuf),
}

impl Placed {
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Unchanged(path) | Self::New(path) => path,
        }
    }
}

/// Where the model of this name lies. The engine serves a file under its name without the ending, in which `/` and `:` cannot be.
#[must_use]
pub fn path_of(library: &Path, name: &ModelName) -> PathBuf {
    let safe: String = name.as_str().chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    library.join(format!("{}{ENDING}", safe.trim_start_matches(['.', '-'])))
}

/// The finished files of the library, in the order of their names. A folder that is not there is empty.
///
/// # Errors
/// A folder that cannot be read.
pub fn files(library: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Io { doing: "look into", path: library.to_owned(), source };
    let entries = match fs::read_dir(library) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let mut found: Vec<_> = paths.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "gguf")).collect();
    found.sort();
    Ok(found)
}

/// Puts a file into the library under a model's name. Reads the whole file, to be sure of its bytes: call it where blocking is allowed.
///
/// # Errors
/// A file that is not the one that was announced, or a folder that cannot be written to. The library is then as it was.
pub fn place(library: &Path, name: &ModelName, artifact: &Artifact) -> Result<Placed, Error> {
    fs::create_dir_all(library).map_err(io_error("make the folder", library))?;
    place_at(&path_of(library, name), artifact)
}

/// Puts a file to a path, as [`place`] does.
pub(super) fn place_at(target: &Path, artifact: &Artifact) -> Result<Placed, Error> {
    if target.is_file() && digest_of(target)? == artifact.digest {
        return Ok(Placed::Unchanged(target.to_owned()));
    }
    let part = target.with_extension(format!("gguf{UNFINISHED}"));
    remove(&part)?;
    let placed = link_or_copy(artifact, &part).and_then(|()| appear(&part, target));
    if placed.is_err() {
        // What is left of it must not look like a model; the error to tell is the first one.
        let _ = remove(&part);
    }
    placed.map(|()| Placed::New(target.to_owned()))
}

/// Takes a model out of the library. Whether it was there.
///
/// # Errors
/// A file that cannot be removed.
pub fn withdraw(library: &Path, name: &ModelName) -> Result<bool, Error> {
    let target = path_of(library, name);
    let there = target.is_file();
    remove(&target)?;
    Ok(there)
}

fn link_or_copy(artifact: &Artifact, part: &Path) -> Result<(), Error> {
    let source = &artifact.path;
    // Not across file systems, and not on all of them.
    if fs::hard_link(source, part).is_err() {
        fs::copy(source, part).map_err(io_error("copy", source))?;
    }
    let found = digest_of(part)?;
    if found != artifact.digest {
        return Err(Error::Digest { path: source.clone(), expected: artifact.digest, found });
    }
    File::open(part).and_then(|file| file.sync_all()).map_err(io_error("flush", part))
}

fn appear(part: &Path, target: &Path) -> Result<(), Error> {
    fs::rename(part, target).map_err(io_error("give its name to", target))?;
    // The new name itself must survive a power cut; not all systems let a folder be flushed.
    let _ = target.parent().map(|folder| File::open(folder).and_then(|folder| folder.sync_all()));
    Ok(())
}

fn digest_of(path: &Path) -> Result<Digest, Error> {
    let hashed = File::open(path).and_then(|file| hash::read(file, |_| Ok(())));
    let (hasher, _) = hashed.map_err(io_error("read", path))?;
    Ok(Digest::new(hasher.finalize().into()))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use sha2::Sha256;

    use super::*;

    fn name(text: &str) -> ModelName {
        ModelName::parse(text).expect("a name")
    }

    fn artifact(folder: &Path, bytes: &[u8]) -> Artifact {
        let path = folder.join("made.gguf");
        fs::write(&path, bytes).expect("written");
        Artifact { path, digest: Digest::new(Sha256::digest(bytes).into()) }
    }

    #[test]
    fn a_file_is_placed_once_found_and_withdrawn() {
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join(FOLDER);
        assert!(files(&library).expect("an empty list").is_empty());
        let made = artifact(folder.path(), b"GGUF one");
        let placed = place(&library, &name("me/coder:1b"), &made).expect("placed");
        assert_eq!(placed, Placed::New(library.join("me-coder-1b.gguf")));
        assert_eq!(place(&library, &name("me/coder:1b"), &made).expect("again"), Placed::Unchanged(library.join("me-coder-1b.gguf")));
        assert_eq!(files(&library).expect("a list"), [library.join("me-coder-1b.gguf")]);
        fs::remove_file(&made.path).expect("removed");
        assert_eq!(fs::read(placed.path()).expect("still there"), b"GGUF one");
        assert!(withdraw(&library, &name("me/coder:1b")).expect("removed") && !withdraw(&library, &name("me/coder:1b")).expect("gone"));
    }

    #[test]
    fn another_file_takes_the_place_and_a_wrong_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join(FOLDER);
        place(&library, &name("m"), &artifact(folder.path(), b"GGUF one")).expect("placed");
        // Written anew, not over the linked bytes.
        fs::remove_file(folder.path().join("made.gguf")).expect("removed");
        let second = artifact(folder.path(), b"GGUF two");
        let wrong = Artifact { digest: [7; 32].into(), ..second.clone() };
        assert!(matches!(place(&library, &name("m"), &wrong), Err(Error::Digest { .. })));
        assert_eq!(fs::read(path_of(&library, &name("m"))).expect("there"), b"GGUF one");
        place(&library, &name("m"), &second).expect("placed");
        assert_eq!(fs::read(path_of(&library, &name("m"))).expect("there"), b"GGUF two");
        assert_eq!(fs::read_dir(&library).expect("a folder").count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn what_was_left_unfinished_is_no_model_and_in_nobodys_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join(FOLDER);
        fs::create_dir_all(&library).expect("a folder");
        fs::write(library.join("m.gguf.part"), b"half").expect("written");
        assert!(files(&library).expect("a list").is_empty());
        place(&library, &name("m"), &artifact(folder.path(), b"GGUF")).expect("placed");
        assert_eq!(fs::read_dir(&library).expect("a folder").count(), 1);
    }

    #[test]
    fn no_name_leaves_the_folder() {
        let library = Path::new("/l");
        for (spelled, file) in [("../../etc/x", "etc-x.gguf"), ("a:b", "a-b.gguf"), ("Gemma.3", "Gemma.3.gguf")] {
            let path = path_of(library, &name(spelled));
            assert_eq!(path.parent(), Some(library));
            assert!(path.ends_with(file), "{}", path.display());
        }
    }
}
