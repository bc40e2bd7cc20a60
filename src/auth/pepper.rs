//! The installation's pepper: 32 random bytes in a file beside the database, without which the hashes in it are worth nothing.
//!
//! Apart from the database, so that a copy of that alone gives nobody anything to try secrets against. Made at the first start,
//! whole or not at all, readable by its owner only. Never made anew while there are keys: that would make all of them wrong.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::Error;
use super::key::{Hasher, random};

pub const FILE_NAME: &str = "keys.pepper";
const BYTES: usize = 32;

/// Reads the pepper in a folder, or makes it where there are no keys yet.
///
/// # Errors
/// When it cannot be read or written, or is missing although there are keys.
pub fn open(folder: &Path, keys_exist: bool) -> Result<Hasher, Error> {
    let path = folder.join(FILE_NAME);
    let failed = |why: String| Error::Pepper { path: path.clone(), why };
    match std::fs::read(&path) {
        Ok(bytes) if bytes.len() == BYTES => Ok(Hasher::new(&bytes)),
        Ok(bytes) => Err(failed(format!("it has {} bytes instead of {BYTES}", bytes.len()))),
        Err(error) if error.kind() == ErrorKind::NotFound && !keys_exist => {
            let bytes = random::<BYTES>()?;
            make(folder, &path, &bytes).map_err(|error| failed(error.to_string()))?;
            Ok(Hasher::new(&bytes))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

fn make(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    // The name, too, must survive a power cut.
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::key::{Presented, same};
    use super::*;

    #[test]
    fn it_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("keys.tmp"), "left by a crash").expect("written");
        let key = Presented::generate().expect("random bytes");
        let first = open(folder.path(), false).expect("made").hash(&key);
        assert!(same(&first, &open(folder.path(), true).expect("read").hash(&key)));
        let mode = std::fs::metadata(folder.path().join(FILE_NAME)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn where_there_are_keys_it_is_not_made_anew_and_a_cut_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(open(folder.path(), true), Err(Error::Pepper { .. })));
        std::fs::write(folder.path().join(FILE_NAME), "short").expect("written");
        assert!(matches!(open(folder.path(), false), Err(Error::Pepper { .. })));
    }
}
