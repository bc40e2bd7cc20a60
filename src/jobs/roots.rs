//! The folders that jobs may read, and opening what clients name in them.
//!
//! A path is `NAME/rest`, NAME being the last name of a root, or absolute and below one. The rest is opened beneath a handle of the
//! root: neither `..` nor a link, however it changes meanwhile, leads out of it.

use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File};
use serde::{Deserialize, Serialize};

/// Longest path that is taken from a client, in bytes.
const MAX_PATH_BYTES: usize = 4_096;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{path}` does not lie in a folder that jobs may read; those are {}", roots.join(", "))]
    Outside { path: String, roots: Vec<String> },
    #[error("`{path}` is not there")]
    Missing { path: String },
    #[error("`{path}` leads out of the folder that jobs may read")]
    Escapes { path: String },
    #[error("`{path}` cannot be opened: {source}")]
    Io { path: String, source: std::io::Error },
}

/// The folders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots(Vec<PathBuf>);

/// Something in one of the folders.
#[derive(Debug)]
pub enum Found {
    File(File),
    Folder(Dir),
}

impl Roots {
    #[must_use]
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self(folders)
    }

    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.0
    }

    /// Opens what a client names.
    ///
    /// # Errors
    /// What does not lie in a root, is not there or cannot be read.
    pub fn open(&self, path: &str) -> Result<Found, Error> {
        let (root, rest) = self.place(path)?;
        let failed = |error| sorted(path, error);
        let dir = Dir::open_ambient_dir(root, ambient_authority()).map_err(failed)?;
        if rest.as_os_str().is_empty() {
            return Ok(Found::Folder(dir));
        }
        if dir.metadata(&rest).map_err(failed)?.is_dir() {
            return Ok(Found::Folder(dir.open_dir(&rest).map_err(failed)?));
        }
        let file = dir.open(&rest).map_err(failed)?;
        let is_file = file.metadata().map_err(failed)?.is_file();
        if is_file { Ok(Found::File(file)) } else { Err(failed(std::io::Error::other("it is neither a file nor a folder"))) }
    }

    /// Where what a client names really lies, links followed: for what is read by its path rather than by a handle. Nobody who only sends
    /// requests can change what lies there; who can write into a root could do so between this look and the reading.
    ///
    /// # Errors
    /// Those of [`Roots::open`].
    pub fn resolve(&self, path: &str) -> Result<PathBuf, Error> {
        self.open(path)?;
        let (root, rest) = self.place(path)?;
        let real = |path: &Path| path.canonicalize();
        let (real_root, found) =
            (real(root).map_err(|error| sorted(path, error))?, real(&root.join(rest)).map_err(|error| sorted(path, error))?);
        if found.starts_with(real_root) { Ok(found) } else { Err(Error::Escapes { path: path.to_owned() }) }
    }

    /// The root that a path lies in, and the rest of the path. Nothing on the disk is looked at.
    fn place(&self, path: &str) -> Result<(&Path, PathBuf), Error> {
        let outside = || Error::Outside { path: path.to_owned(), roots: self.names() };
        if path.len() > MAX_PATH_BYTES || path.contains('\0') {
            return Err(outside());
        }
        let given = Path::new(path);
        let below = |root: &PathBuf| {
            let above = if given.is_absolute() { root.as_os_str() } else { root.file_name()? };
            given.strip_prefix(above).ok().map(Path::to_owned)
        };
        let (root, rest) = self.0.iter().find_map(|root| Some((root, below(root)?))).ok_or_else(outside)?;
        if rest.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Ok((root, rest));
        }
        Err(Error::Escapes { path: path.to_owned() })
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().filter_map(|root| Some(root.file_name()?.to_string_lossy().into_owned())).collect()
    }
}

fn sorted(path: &str, source: std::io::Error) -> Error {
    let path = path.to_owned();
    match source.kind() {
        std::io::ErrorKind::NotFound => Error::Missing { path },
        // How cap-std says that a path leads out.
        std::io::ErrorKind::PermissionDenied if source.raw_os_error().is_none() => Error::Escapes { path },
        std::io::ErrorKind::CrossesDevices => Error::Escapes { path },
        _ => Error::Io { path, source },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_lies_beneath_a_root_is_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("files");
        std::fs::create_dir_all(root.join("inner")).expect("made");
        std::fs::write(root.join("inner/a"), "inside").expect("written");
        std::fs::write(folder.path().join("secret"), "outside").expect("written");
        symlink("inner/a", root.join("near")).expect("made");
        symlink("../secret", root.join("up")).expect("made");
        symlink(folder.path().join("secret"), root.join("far")).expect("made");
        symlink("..", root.join("out")).expect("made");
        let roots = Roots::new(vec![root.clone()]);

        for path in ["files/inner/a", "files/./inner/a", "files/near", root.join("inner/a").to_str().expect("text")] {
            let Found::File(mut file) = roots.open(path).expect(path) else { panic!("{path} is a file") };
            let mut text = String::new();
            file.read_to_string(&mut text).expect("read");
            assert_eq!(text, "inside");
        }
        let real = root.canonicalize().expect("there");
        assert_eq!(roots.resolve("files/near").expect("inside"), real.join("inner/a"));
        for path in ["files", "files/inner", "files/"] {
            assert!(matches!(roots.open(path), Ok(Found::Folder(_))), "{path}");
            assert!(roots.resolve(path).expect("inside").starts_with(&real), "{path}");
        }
        for path in ["files/up", "files/far", "files/out/secret", "files/../secret", "files/inner/../../secret", "files/inner/../inner/a"] {
            assert!(matches!(roots.open(path), Err(Error::Escapes { .. })), "{path}: {:?}", roots.open(path).err());
            assert!(matches!(roots.resolve(path), Err(Error::Escapes { .. })), "{path}");
        }
        let secret = folder.path().join("secret");
        for path in ["", "/", "secret", "..", "filesystem/x", "/etc/passwd", secret.to_str().expect("text"), "files\0", &"x".repeat(5_000)]
        {
            assert!(matches!(roots.open(path), Err(Error::Outside { .. })), "{path}");
        }
        assert!(matches!(roots.open("files/none"), Err(Error::Missing { .. })));
    }
}
