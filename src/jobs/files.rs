//! Where jobs keep their files, in the data folder: `jobs/work/JOB` while they run, `jobs/artifacts/JOB/EPOCH/NAME` for what they made.
//!
//! The epoch is part of the place, so that a worker that has lost its lease cannot write over what its successor made.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct Folders {
    jobs: PathBuf,
}

impl Folders {
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { jobs: data_dir.join("jobs") }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.jobs
    }

    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.jobs.join("work")
    }

    #[must_use]
    pub fn work_of(&self, job: &str) -> PathBuf {
        self.work().join(job)
    }

    #[must_use]
    pub fn artifacts(&self) -> PathBuf {
        self.jobs.join("artifacts")
    }

    /// Makes what is missing.
    pub fn make(&self) -> io::Result<()> {
        std::fs::create_dir_all(self.work())?;
        std::fs::create_dir_all(self.artifacts())
    }

    /// Moves a whole file that is on the disk to its place, so that it stays there whatever happens then. Gives its path below the folder of
    /// artifacts.
    pub fn keep(&self, job: &str, epoch: i64, file: &str, name: &str) -> io::Result<String> {
        let (of_job, of_epoch) = (self.artifacts().join(job), self.artifacts().join(job).join(epoch.to_string()));
        std::fs::create_dir_all(&of_epoch)?;
        std::fs::rename(self.work_of(job).join(file), of_epoch.join(name))?;
        for folder in [&of_epoch, &of_job, &self.artifacts()] {
            File::open(folder)?.sync_all()?;
        }
        Ok(format!("{job}/{epoch}/{name}"))
    }

    /// What can still be written on the disk that holds them.
    pub fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.jobs)
    }
}

/// What can still be written on the disk that holds a path, where its file system says so.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_moved_to_a_place_of_its_epoch() {
        let folder = tempfile::tempdir().expect("a folder");
        let folders = Folders::new(folder.path());
        folders.make().expect("made");
        std::fs::create_dir_all(folders.work_of("j")).expect("made");
        for epoch in [1, 2] {
            std::fs::write(folders.work_of("j").join("x.tmp"), epoch.to_string()).expect("written");
            assert_eq!(folders.keep("j", epoch, "x.tmp", "x").expect("moved"), format!("j/{epoch}/x"));
        }
        assert_eq!(std::fs::read_to_string(folders.artifacts().join("j/1/x")).expect("read"), "1");
        assert!(!folders.work_of("j").join("x.tmp").exists());
        assert!(folders.free_bytes().expect("a disk") > 0);
    }
}
