//! A file that becomes an artifact: written under a temporary name, hashed on the way.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::domain::digest::Digest;
use crate::jobs::hash;

/// Takes the bytes of an artifact, in order.
pub struct Writer {
    out: BufWriter<File>,
    hasher: Sha256,
    size_bytes: u64,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Writer {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { out: BufWriter::with_capacity(1 << 18, File::create(path)?), hasher: Sha256::new(), size_bytes: 0 })
    }

    /// Puts all of it onto the disk. Size and hash.
    pub(super) fn finish(self) -> io::Result<(u64, String)> {
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok((self.size_bytes, Digest::new(self.hasher.finalize().into()).hex()))
    }
}

/// Size and hash of a file that is there, which is put onto the disk.
pub(super) fn measure(
    path: &Path,
    tick: &mut dyn FnMut(u64) -> Result<(), crate::jobs::Fault>,
) -> Result<(u64, String), crate::jobs::Fault> {
    let file = File::open(path)?;
    file.sync_all()?;
    let mut done = 0;
    let (hasher, size_bytes) = hash::read(file, |bytes| {
        done += bytes;
        tick(done)
    })?;
    Ok((size_bytes, Digest::new(hasher.finalize().into()).hex()))
}

/// Whether a text can be the name of an artifact.
pub(crate) fn is_name(name: &str) -> bool {
    let safe = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    !name.is_empty() && name.len() <= 200 && safe && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere() {
        assert!(is_name("model-Q4_K_M.gguf"));
        for wrong in ["", ".", "..", ".x", "a/b", "a\\b", "ü", &"x".repeat(201)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_was_written_is_hashed_either_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let mut writer = Writer::create(&path).expect("made");
        writer.write_all(b"abc").expect("written");
        let written = writer.finish().expect("on the disk");
        assert_eq!(written.1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(measure(&path, &mut |_| Ok(())).expect("read"), written);
    }
}
