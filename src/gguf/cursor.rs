//! Reading little-endian values from a file whose size is known, never past its end and never more than was promised to be there.

use std::io::{self, Read, Seek, SeekFrom};

use super::Error;

/// A header beyond this is no model's: the largest vocabularies take some 20 MB.
const MAX_HEADER_BYTES: u64 = 512 << 20;

/// How much is read at once into an array of numbers.
const CHUNK_BYTES: usize = 64 * 1024;

pub(super) struct Cursor<R> {
    reader: R,
    at: u64,
    size_bytes: u64,
}

impl<R: Read + Seek> Cursor<R> {
    pub(super) fn new(mut reader: R) -> Result<Self, Error> {
        let io = |source| Error::Io { at: 0, source };
        let size_bytes = reader.seek(SeekFrom::End(0)).map_err(io)?;
        reader.seek(SeekFrom::Start(0)).map_err(io)?;
        Ok(Self { reader, at: 0, size_bytes })
    }
}

impl<R: Read> Cursor<R> {
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn file_size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn malformed(&self, what: impl Into<String>) -> Error {
        Error::Malformed { at: self.at, what: what.into() }
    }

    /// Fails unless `count` things of at least `each_bytes` can still follow. Call it before allocating for them.
    pub(super) fn expect(&self, count: u64, each_bytes: u64, what: &'static str) -> Result<usize, Error> {
        let needed_bytes = count.checked_mul(each_bytes).ok_or_else(|| self.malformed(format!("{what}: the size overflows")))?;
        if needed_bytes > self.size_bytes - self.at {
            return Err(Error::Truncated { at: self.at, needed_bytes, file_size_bytes: self.size_bytes, what });
        }
        if self.at + needed_bytes > MAX_HEADER_BYTES {
            return Err(self.malformed(format!("{what}: the header is larger than {MAX_HEADER_BYTES} bytes")));
        }
        usize::try_from(count).map_err(|_| self.malformed(format!("{what}: too many for this machine")))
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), Error> {
        self.expect(buffer.len() as u64, 1, what)?;
        self.reader.read_exact(buffer).map_err(|source| match source.kind() {
            // The file shrank while it was read.
            io::ErrorKind::UnexpectedEof => {
                Error::Truncated { at: self.at, needed_bytes: buffer.len() as u64, file_size_bytes: self.size_bytes, what }
            }
            _ => Error::Io { at: self.at, source },
        })?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    pub(super) fn bytes<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// A string with its length before it.
    pub(super) fn string(&mut self, what: &'static str, max_bytes: u64) -> Result<String, Error> {
        let start = self.at;
        let mut text = Vec::new();
        self.append_string(&mut text, what, max_bytes)?;
        String::from_utf8(text).map_err(|_| Error::Malformed { at: start, what: format!("{what} is not UTF-8") })
    }

    /// Reads a string and puts its bytes, whatever they are, behind those in `text`.
    pub(super) fn append_string(&mut self, text: &mut Vec<u8>, what: &'static str, max_bytes: u64) -> Result<(), Error> {
        let length = self.u64(what)?;
        if length > max_bytes {
            return Err(Error::Malformed { at: self.at - 8, what: format!("{what} has {length} bytes, more than {max_bytes}") });
        }
        let length = self.expect(length, 1, what)?;
        let old = text.len();
        text.resize(old + length, 0);
        self.fill(&mut text[old..], what)
    }

    /// `count` numbers of `N` bytes each.
    pub(super) fn numbers<T, const N: usize>(&mut self, count: u64, what: &'static str, read: fn([u8; N]) -> T) -> Result<Vec<T>, Error> {
        let count = self.expect(count, N as u64, what)?;
        let mut numbers = Vec::with_capacity(count);
        let mut buffer = vec![0; count.saturating_mul(N).min(CHUNK_BYTES)];
        while numbers.len() < count {
            let now = (count - numbers.len()).min(CHUNK_BYTES / N);
            let bytes = &mut buffer[..now * N];
            self.fill(bytes, what)?;
            numbers.extend(bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)));
        }
        Ok(numbers)
    }
}
