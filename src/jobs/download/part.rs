//! A file on its way: under a name that says so, hashed as it comes, whole before it has its own name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::Error;
use super::listing::Entry;
use crate::domain::digest::Digest;
use crate::jobs::hash;

/// What the name of an unfinished file ends with.
const ENDING: &str = ".part";

/// What has come of a file.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    pub length: u64,
}

impl Part {
    /// The part that is there, or an empty one.
    pub async fn open(target: &Path) -> Result<Self, Error> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(ENDING);
        let path = target.with_file_name(name);
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(Error::io(folder))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).await.map_err(Error::io(&path))?;
        let (hasher, length) = hashed(path.clone()).await.map_err(Error::io(&path))?;
        Ok(Self { path, file, hasher, length })
    }

    /// Forgets what has come.
    pub async fn clear(&mut self) -> Result<(), Error> {
        self.file.set_len(0).await.map_err(Error::io(&self.path))?;
        (self.hasher, self.length) = (Sha256::new(), 0);
        Ok(())
    }

    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).await.map_err(Error::io(&self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// What has come is on the disk when this returns; another call can go on from there.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.file.flush().await.map_err(Error::io(&self.path))
    }

    /// Gives the file its name, if it is what was announced; else throws it away.
    pub async fn finish(mut self, target: &Path, entry: &Entry) -> Result<u64, Error> {
        self.flush().await?;
        let digest = Digest::new(self.hasher.clone().finalize().into());
        if let Some(why) = wrong(entry, self.length, digest) {
            self.clear().await?;
            return Err(Error::Corrupt { path: target.to_owned(), why });
        }
        let io = Error::io(target);
        self.file.sync_all().await.map_err(&io)?;
        tokio::fs::rename(&self.path, target).await.map_err(&io)?;
        if let Some(folder) = target.parent() {
            // The name itself must survive a power cut; not all systems let a folder be flushed.
            if let Ok(folder) = File::open(folder).await {
                let _ = folder.sync_all().await;
            }
        }
        Ok(self.length)
    }
}

fn wrong(entry: &Entry, length: u64, digest: Digest) -> Option<String> {
    match (entry.size_bytes, entry.digest) {
        (Some(size), _) if size != length => Some(format!("{length} bytes instead of {size}")),
        (_, Some(expected)) if expected != digest => Some(format!("{digest} instead of {expected}")),
        _ => None,
    }
}

/// The length of a file that is there and is what was announced. One without a known size has to be fetched again.
pub(super) async fn finished(target: &Path, entry: &Entry) -> Result<Option<u64>, Error> {
    let Ok(about) = tokio::fs::metadata(target).await else { return Ok(None) };
    if !about.is_file() || entry.size_bytes != Some(about.len()) {
        return Ok(None);
    }
    if entry.digest.is_none() {
        return Ok(Some(about.len()));
    }
    let (hasher, length) = hashed(target.to_owned()).await.map_err(Error::io(target))?;
    Ok(wrong(entry, length, Digest::new(hasher.finalize().into())).is_none().then_some(length))
}

/// Reads a file to hash it, where that holds nobody up.
async fn hashed(path: PathBuf) -> io::Result<(Sha256, u64)> {
    let hash = move || hash::read(fs::File::open(path)?, |_| Ok(()));
    tokio::task::spawn_blocking(hash).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
