//! One service a data folder, and workers beside it.
//!
//! [`Lock`] is the service's alone. [`Form`] is shared by all who have the database open and rely on its form; whoever changes the form
//! must be alone, so that no older worker writes into a newer file.
//!
//! A lock is the operating system's, on an open file: it goes with the process, however that ends, so there is no stale lock to
//! remove by hand. The number of the process in the file is only there to be read by people.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Error;

pub(super) const FILE_NAME: &str = "arriero.lock";
const FORM_FILE_NAME: &str = "arriero.form.lock";

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

/// The right to rely on the form of the database, or to change it, held as long as this lives.
#[derive(Debug)]
pub(super) struct Form {
    file: File,
    data_dir: PathBuf,
    alone: bool,
}

impl Form {
    /// Shared with all others who rely on it; without waiting.
    pub(super) fn rely_on(data_dir: &Path) -> Result<Self, Error> {
        Self::take(data_dir, false)
    }

    /// Alone; without waiting.
    pub(super) fn change(data_dir: &Path) -> Result<Self, Error> {
        Self::take(data_dir, true)
    }

    fn take(data_dir: &Path, alone: bool) -> Result<Self, Error> {
        let path = data_dir.to_owned();
        let unwritable = |error: std::io::Error| Error::Unwritable { path: data_dir.to_owned(), why: error.to_string() };
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(data_dir.join(FORM_FILE_NAME)).map_err(unwritable)?;
        match if alone { file.try_lock() } else { file.try_lock_shared() } {
            Ok(()) => Ok(Self { file, data_dir: path, alone }),
            Err(TryLockError::WouldBlock) if alone => Err(Error::Relied { path }),
            Err(TryLockError::WouldBlock) => Err(Error::Changing { path }),
            Err(TryLockError::Error(error)) => Err(unwritable(error)),
        }
    }

    /// The form has been changed: others may rely on it now.
    pub(super) fn settled(self) -> Result<Self, Error> {
        if self.alone {
            // Between the two nobody else can change it: that takes the service's lock too.
            self.file.unlock().map_err(|error| Error::Unwritable { path: self.data_dir.clone(), why: error.to_string() })?;
            return Self::rely_on(&self.data_dir);
        }
        Ok(self)
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

    #[test]
    fn the_form_is_changed_by_one_who_is_alone_and_relied_on_by_many() {
        let folder = tempfile::tempdir().expect("a folder");
        let changing = Form::change(folder.path()).expect("free");
        assert!(matches!(Form::rely_on(folder.path()), Err(Error::Changing { .. })));
        let first = changing.settled().expect("shared");
        let second = Form::rely_on(folder.path()).expect("shared");
        assert!(matches!(Form::change(folder.path()), Err(Error::Relied { .. })));
        drop((first, second));
        Form::change(folder.path()).expect("free again");
    }
}
