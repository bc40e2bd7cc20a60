//! What a name has stood for. Each model that is published becomes a version of its name: its file, what it is published as, and where it came
//! from, kept so that an earlier one can be published again.
//!
//! In the data folder: `versions/NAME/N.gguf` and `N.json`, and `turns.json`, which version was given the name when. Promises: a version is
//! whole or not there; the same file with the same texts is the same version; numbers are never given twice; the version that has the name
//! and the one that had it before are never removed. Where the file system allows, files are linked, not copied. Does not publish.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::library::{self, Error};
use super::{Artifact, Manifest};
use crate::domain::id::ModelName;

/// The folder, in the data folder.
pub const FOLDER: &str = "versions";
const TURNS: &str = "turns.json";
/// Turns that are remembered.
const MAX_TURNS: usize = 100;

/// What a name stands for, or stood for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    pub name: ModelName,
    /// From 1.
    pub number: u32,
    pub made_at_unix_ms: i64,
    /// In hexadecimal.
    pub sha256: String,
    pub size_bytes: u64,
    pub manifest: Manifest,
    /// Names of the servers it was published to.
    pub to: Vec<String>,
    /// Whether it was put into the embedded engine's library.
    pub library: bool,
    /// What it was made from and how, and what it is worth, in the words of what made it.
    pub lineage: Value,
}

/// What is to become a version.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    pub artifact: &'a Artifact,
    pub manifest: &'a Manifest,
    pub to: Vec<String>,
    pub library: bool,
    pub lineage: &'a Value,
}

/// A version was given the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub number: u32,
    pub at_unix_ms: i64,
}

/// A name with its versions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct History {
    pub name: ModelName,
    /// The one that has the name. `None`: it has been removed, or was never published to the end.
    pub current: Option<u32>,
    /// The one that had it before, and gets it back by a rollback.
    pub previous: Option<u32>,
    /// The oldest first.
    pub versions: Vec<Version>,
}

/// The versions of one name.
#[derive(Debug)]
pub struct Versions {
    folder: PathBuf,
    name: ModelName,
}

impl Versions {
    /// `all`: the folder of all names ([`FOLDER`]).
    #[must_use]
    pub fn of(all: &Path, name: &ModelName) -> Self {
        Self { folder: all.join(folder_name(name)), name: name.clone() }
    }

    /// Keeps a model as a version, if it is none yet, and gives it the name. Of all versions the last `keep` stay.
    ///
    /// # Errors
    /// A file that is not the one that was announced, or a folder that cannot be written to.
    pub fn record(&self, candidate: &Candidate<'_>, keep: usize, now_unix_ms: i64) -> Result<Version, Error> {
        fs::create_dir_all(&self.folder).map_err(io_error("make the folder", &self.folder))?;
        let _alone = self.alone()?;
        let there = self.all()?;
        let sha256 = candidate.artifact.digest.hex();
        let same = |version: &&Version| version.sha256 == sha256 && version.manifest == *candidate.manifest;
        let version = match there.iter().find(same) {
            Some(version) => Version { to: candidate.to.clone(), library: candidate.library, ..version.clone() },
            None => self.made(candidate, there.last().map_or(1, |last| last.number + 1), now_unix_ms)?,
        };
        self.write(&format!("{}.json", version.number), &version)?;
        self.take_turn(version.number, now_unix_ms)?;
        self.prune(keep.max(2))?;
        Ok(version)
    }

    fn made(&self, candidate: &Candidate<'_>, number: u32, now_unix_ms: i64) -> Result<Version, Error> {
        let number = number.max(self.turns()?.iter().map(|turn| turn.number + 1).max().unwrap_or(1));
        let placed = library::place_at(&self.file(number), candidate.artifact)?;
        let size_bytes = fs::metadata(placed.path()).map_err(io_error("look at", placed.path()))?.len();
        Ok(Version {
            name: self.name.clone(),
            number,
            made_at_unix_ms: now_unix_ms,
            sha256: candidate.artifact.digest.hex(),
            size_bytes,
            manifest: candidate.manifest.clone(),
            to: candidate.to.clone(),
            library: candidate.library,
            lineage: candidate.lineage.clone(),
        })
    }

    /// All of it. `None`: nothing was published under this name.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn history(&self) -> Result<Option<History>, Error> {
        let versions = self.all()?;
        let there = |number: u32| versions.iter().any(|version| version.number == number);
        let turns = self.turns()?;
        let current = turns.last().map(|turn| turn.number);
        let previous = turns.iter().rev().map(|turn| turn.number).find(|number| Some(*number) != current && there(*number));
        let current = current.filter(|number| there(*number));
        // As it was last spelled.
        let name = versions.last().map(|version| version.name.clone());
        Ok(name.map(|name| History { name, current, previous, versions }))
    }

    /// The file of a version.
    #[must_use]
    pub fn file(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{number}.gguf"))
    }

    /// Two that publish under one name at a time must not take one number. Let go when it is dropped.
    fn alone(&self) -> Result<File, Error> {
        let path = self.folder.join("lock");
        let file = File::create(&path).map_err(io_error("open", &path))?;
        file.lock().map_err(io_error("lock", &path))?;
        Ok(file)
    }

    fn take_turn(&self, number: u32, at_unix_ms: i64) -> Result<(), Error> {
        let mut turns = self.turns()?;
        if turns.last().is_none_or(|last| last.number != number) {
            turns.push(Turn { number, at_unix_ms });
        }
        let spare = turns.len().saturating_sub(MAX_TURNS);
        self.write(TURNS, &turns[spare..])
    }

    fn turns(&self) -> Result<Vec<Turn>, Error> {
        Ok(read(&self.folder.join(TURNS))?.unwrap_or_default())
    }

    /// The oldest first. One without its file is none: its removal was interrupted.
    fn all(&self) -> Result<Vec<Version>, Error> {
        let mut found = Vec::new();
        for path in listed(&self.folder)? {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok());
            let is_record = path.extension().is_some_and(|ending| ending == "json");
            if let Some(number) = number.filter(|number| is_record && self.file(*number).is_file()) {
                found.extend(read::<Version>(&path)?.filter(|version| version.number == number && version.name == self.name));
            }
        }
        found.sort_by_key(|version| version.number);
        Ok(found)
    }

    fn prune(&self, keep: usize) -> Result<(), Error> {
        let Some(history) = self.history()? else { return Ok(()) };
        let spared: BTreeSet<_> = [history.current, history.previous].into_iter().flatten().collect();
        let spare = history.versions.len().saturating_sub(keep);
        for version in history.versions.iter().take(spare).filter(|version| !spared.contains(&version.number)) {
            // The file first: what is left without it is no version.
            for path in [self.file(version.number), self.folder.join(format!("{}.json", version.number))] {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, what: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let path = self.folder.join(name);
        let part = self.folder.join(format!("{name}.part"));
        let written = || -> io::Result<()> {
            let mut file = File::create(&part)?;
            file.write_all(&serde_json::to_vec_pretty(what)?)?;
            file.sync_all()?;
            fs::rename(&part, &path)
        };
        written().map_err(io_error("write", &path))
    }
}

/// All names that have versions, in the order of their names.
///
/// # Errors
/// A folder that cannot be read.
pub fn all(folder: &Path) -> Result<Vec<History>, Error> {
    let mut found = Vec::new();
    for path in listed(folder)? {
        let name = path.file_name().and_then(|name| name_of(name.to_str()?));
        if let Some(name) = name {
            found.extend(Versions::of(folder, &name).history()?);
        }
    }
    found.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
    Ok(found)
}

/// Names hold what names of folders cannot; two names never share a folder.
fn folder_name(name: &ModelName) -> String {
    name.canonical().replace('/', "+").replace(':', "@")
}

fn name_of(folder: &str) -> Option<ModelName> {
    ModelName::parse(&folder.replace('+', "/").replace('@', ":")).ok()
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = io_error("look into", folder);
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(unreadable),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unreadable(error)),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from).map_err(io_error("understand", path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::domain::digest::Digest;

    struct Shop {
        folder: tempfile::TempDir,
        name: ModelName,
    }

    impl Shop {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("a folder"), name: ModelName::parse("me/coder:1b").expect("a name") }
        }

        fn versions(&self) -> Versions {
            Versions::of(&self.folder.path().join(FOLDER), &self.name)
        }

        fn record(&self, bytes: &[u8], keep: usize) -> Version {
            let path = self.folder.path().join("made.gguf");
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes).expect("written");
            let artifact = Artifact { path, digest: Digest::new(Sha256::digest(bytes).into()) };
            let manifest = Manifest::new(self.name.clone());
            let lineage = json!({"loss": 0.5});
            let candidate =
                Candidate { artifact: &artifact, manifest: &manifest, to: vec!["box".to_owned()], library: true, lineage: &lineage };
            self.versions().record(&candidate, keep, 7).expect("recorded")
        }

        fn history(&self) -> History {
            self.versions().history().expect("read").expect("there")
        }
    }

    #[test]
    fn versions_are_numbered_and_the_same_is_the_same() {
        let shop = Shop::new();
        assert_eq!(shop.versions().history().expect("read"), None);
        assert_eq!([shop.record(b"one", 5).number, shop.record(b"two", 5).number, shop.record(b"one", 5).number], [1, 2, 1]);
        let history = shop.history();
        assert_eq!((history.current, history.previous, history.versions.len()), (Some(1), Some(2), 2));
        assert_eq!(fs::read(shop.versions().file(2)).expect("there"), b"two");
        assert_eq!(all(&shop.folder.path().join(FOLDER)).expect("listed"), [history]);
    }

    #[test]
    fn old_ones_go_but_not_the_one_to_go_back_to() {
        let shop = Shop::new();
        for bytes in [b"one", b"two", b"thr"] {
            shop.record(bytes, 5);
        }
        shop.record(b"one", 5);
        assert_eq!((shop.history().current, shop.history().previous), (Some(1), Some(3)));
        let last = shop.record(b"fou", 2);
        assert_eq!((last.number, shop.history().current, shop.history().previous), (4, Some(4), Some(1)));
        let numbers: Vec<_> = shop.history().versions.iter().map(|version| version.number).collect();
        assert_eq!(numbers, [1, 3, 4], "the last two, and the one that had the name");
        assert!(!shop.versions().file(2).exists());
        // A number is not given again although its version is gone.
        for number in [4, 3] {
            fs::remove_file(shop.versions().file(number)).expect("removed");
        }
        assert_eq!(shop.record(b"fiv", 2).number, 5);
    }

    #[test]
    fn a_file_that_was_changed_is_no_version_and_half_a_removal_is_no_harm() {
        let shop = Shop::new();
        shop.record(b"one", 5);
        let path = shop.folder.path().join("made.gguf");
        let wrong = Artifact { path, digest: [7; 32].into() };
        let manifest = Manifest::new(shop.name.clone());
        let candidate = Candidate { artifact: &wrong, manifest: &manifest, to: Vec::new(), library: false, lineage: &Value::Null };
        assert!(matches!(shop.versions().record(&candidate, 5, 9), Err(Error::Digest { .. })));
        assert_eq!(shop.history().versions.len(), 1);
        shop.record(b"two", 5);
        fs::remove_file(shop.versions().file(1)).expect("removed");
        let history = shop.history();
        assert_eq!((history.current, history.previous, history.versions.len()), (Some(2), None, 1));
    }

    #[test]
    fn names_and_folders_are_one_to_one() {
        for name in ["m", "me/m", "me-m", "host.example:5000/me/m:tag", "m:tag"] {
            let name = ModelName::parse(name).expect("a name");
            assert_eq!(name_of(&folder_name(&name)).expect("a name").canonical(), name.canonical());
        }
        assert_eq!(name_of("a b"), None);
    }
}
