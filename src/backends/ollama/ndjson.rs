//! Cuts a stream of bytes into lines.
//!
//! Promises: the same lines however the bytes are split; a line that lies within one chunk is a slice of it, not a copy; what is
//! kept between chunks never exceeds the bound, because a longer line is refused before it is stored. Blank lines are skipped.
//! Does no I/O and does not look inside lines.

use bytes::{Bytes, BytesMut};

/// A line exceeds the bound. Nothing after it can be trusted to start where a line starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line has more than {max_bytes} bytes")]
pub struct LineTooLong {
    pub max_bytes: usize,
}

/// The unfinished line between two chunks.
#[derive(Debug)]
pub struct Framer {
    partial: BytesMut,
    max_bytes: usize,
}

impl Framer {
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { partial: BytesMut::new(), max_bytes }
    }

    /// Takes the next line, without its line feed, off `input`. `None`: `input` is used up, give the next chunk.
    ///
    /// # Errors
    /// The line is longer than the bound; the framer is of no use afterwards.
    pub fn next_line(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, LineTooLong> {
        while let Some(end) = memchr::memchr(b'\n', input) {
            self.check(end)?;
            let tail = input.split_to(end + 1).slice(..end);
            let line = self.complete(tail);
            if !is_blank(&line) {
                return Ok(Some(line));
            }
        }
        self.check(input.len())?;
        self.partial.extend_from_slice(input);
        input.clear();
        Ok(None)
    }

    /// What follows the last line feed, for a stream that ended without one.
    #[must_use]
    pub fn finish(&mut self) -> Option<Bytes> {
        Some(std::mem::take(&mut self.partial).freeze()).filter(|line| !is_blank(line))
    }

    fn check(&self, more: usize) -> Result<(), LineTooLong> {
        let fits = self.partial.len().saturating_add(more) <= self.max_bytes;
        if fits { Ok(()) } else { Err(LineTooLong { max_bytes: self.max_bytes }) }
    }

    /// The whole line of which `tail` is the end. The kept part is given away with its memory.
    fn complete(&mut self, tail: Bytes) -> Bytes {
        if self.partial.is_empty() {
            return tail;
        }
        let mut line = std::mem::take(&mut self.partial);
        line.extend_from_slice(&tail);
        line.freeze()
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(framer: &mut Framer, chunk: &[u8]) -> Result<Vec<Bytes>, LineTooLong> {
        let mut input = Bytes::copy_from_slice(chunk);
        let mut found = Vec::new();
        while let Some(line) = framer.next_line(&mut input)? {
            found.push(line);
        }
        Ok(found)
    }

    #[test]
    fn a_line_within_a_chunk_is_not_copied() {
        let mut input = Bytes::from_static(b"{\"a\":1}\n{\"b\":2}\n");
        let start = input.as_ptr();
        let line = Framer::new(100).next_line(&mut input).expect("short").expect("a line");
        assert_eq!(&line[..], b"{\"a\":1}");
        assert_eq!(line.as_ptr(), start);
    }

    #[test]
    fn blank_lines_are_no_lines() {
        let mut framer = Framer::new(100);
        assert_eq!(lines(&mut framer, b"\n\r\n  \n\t\na\n\n").expect("short"), ["a"]);
        assert_eq!(lines(&mut framer, b" \r").expect("short").len(), 0);
        assert_eq!(framer.finish(), None);
    }

    #[test]
    fn a_line_of_exactly_the_bound_passes_and_one_byte_more_is_refused() {
        for split in 0..=8 {
            let mut framer = Framer::new(8);
            let text = b"12345678\n";
            let mut found = lines(&mut framer, &text[..split]).expect("fits");
            found.extend(lines(&mut framer, &text[split..]).expect("fits"));
            assert_eq!(found, ["12345678"]);
            let mut framer = Framer::new(7);
            let outcome = lines(&mut framer, &text[..split]).and_then(|_| lines(&mut framer, &text[split..]));
            assert_eq!(outcome, Err(LineTooLong { max_bytes: 7 }));
        }
    }

    #[test]
    fn an_endless_line_is_refused_before_it_is_kept() {
        let mut framer = Framer::new(1 << 20);
        let chunk = vec![b'x'; 16 * 1024];
        let refused_at = (0..10_000).find(|_| lines(&mut framer, &chunk).is_err());
        assert_eq!(refused_at, Some(64));
        assert!(framer.partial.len() <= 1 << 20);
        assert!(framer.partial.capacity() <= 2 << 20, "{}", framer.partial.capacity());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            text in proptest::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(b'\n'), 1 => Just(b' ')], 0..400),
            cuts in proptest::collection::vec(0usize..400, 0..20),
            max_bytes in 1usize..80,
        ) {
            let mut expected = Vec::new();
            let mut too_long = false;
            for line in text.split(|b| *b == b'\n') {
                if line.len() > max_bytes {
                    too_long = true;
                    break;
                }
                if !is_blank(line) {
                    expected.push(line.to_vec());
                }
            }

            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut framer = Framer::new(max_bytes);
            let mut found = Vec::new();
            let mut refused = false;
            'chunks: for pair in cuts.windows(2) {
                let mut input = Bytes::copy_from_slice(&text[pair[0]..pair[1]]);
                loop {
                    match framer.next_line(&mut input) {
                        Ok(Some(line)) => found.push(line.to_vec()),
                        Ok(None) => break,
                        Err(_) => {
                            refused = true;
                            break 'chunks;
                        }
                    }
                    prop_assert!(framer.partial.len() <= max_bytes);
                }
            }
            if !refused {
                found.extend(framer.finish().map(|line| line.to_vec()));
            }
            prop_assert_eq!(refused, too_long);
            prop_assert_eq!(found, expected);
        }
    }
}
