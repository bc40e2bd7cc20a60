//! One process a data folder.
//!
//! The lock is the operating system's, on an open file: it goes with the process, however that ends, so there is no stale lock to
//! remove by hand. The number of the process in the file is only there to be read by people.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

use super::Error;

pub(super) const FILE_NAME: &str = "arriero.lock";

/// The right to use a data folder, held as long as this lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the folder if need be and takes the lock, without waiting.
    pub(super) fn take(data_dir: &Path) -> Result<Self, Error> {
        let unwritable = |error: std::io::Error| Error::Unwritable { path: data_dir.to_owned(), why: error.to_string() };
        std::fs::create_dir_all(data_dir).map_err(unwritable)?;
        let path = data_dir.join(FILE_NAME);
        // Not truncated before the lock is ours: the number in it belongs to the holder.
        let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(&path).map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path: data_dir.to_owned(), holder: holder(&path) }),
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unwritable)?;
        Ok(Self { _file: file })
    }
}

fn holder(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_to_come_is_told_who_has_it_and_gets_it_when_that_leaves() {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("a/b");
        let first = Lock::take(&data_dir).expect("free");
        match Lock::take(&data_dir) {
            Err(Error::InUse { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        Lock::take(&data_dir).expect("free again");
    }
}
