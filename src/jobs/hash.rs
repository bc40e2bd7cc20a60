//! The SHA-256 of what is read, a piece at a time.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

const PIECE_BYTES: usize = 1 << 20;

/// Reads to the end; `told` hears of each piece how many bytes it has, and may end it. Gives the hash, which more can be added to, and how
/// many bytes were read.
///
/// # Errors
/// Those of the reader and of `told`.
pub(super) fn read<E: From<io::Error>>(mut reader: impl Read, mut told: impl FnMut(u64) -> Result<(), E>) -> Result<(Sha256, u64), E> {
    let (mut hasher, mut length, mut piece) = (Sha256::new(), 0, vec![0; PIECE_BYTES]);
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok((hasher, length)),
            Ok(count) => {
                hasher.update(&piece[..count]);
                length += count as u64;
                told(count as u64)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_is_read_and_told() {
        let bytes = vec![7; PIECE_BYTES + 3];
        let mut heard = Vec::new();
        let told = |count| {
            heard.push(count);
            Ok::<_, io::Error>(())
        };
        let (hasher, length) = read(bytes.as_slice(), told).expect("read");
        assert_eq!((hasher.finalize(), length), (Sha256::digest(&bytes), bytes.len() as u64));
        assert_eq!(heard, [PIECE_BYTES as u64, 3]);
        let stopped = read(bytes.as_slice(), |_| Err(io::Error::other("stop")));
        assert!(stopped.is_err());
    }
}
