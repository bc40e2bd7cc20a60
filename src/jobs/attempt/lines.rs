//! Lines of a pipe, bounded in length. Dropping a `next` that is waiting loses nothing.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::jobs::worker::MAX_LINE_BYTES;

pub struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub fn new(pipe: R) -> Self {
        Self { reader: BufReader::new(pipe), line: Vec::new() }
    }

    /// The next line, or a piece of one that is too long. `None`: there is no more; a pipe that breaks has ended too.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let Ok(bytes) = self.reader.fill_buf().await else { return self.rest() };
            if bytes.is_empty() {
                return self.rest();
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(bytes.len(), |end| end + 1);
            self.line.extend_from_slice(&bytes[..taken]);
            self.reader.consume(taken);
            if end.is_some() || self.line.len() >= MAX_LINE_BYTES {
                return Some(std::mem::take(&mut self.line));
            }
        }
    }

    fn rest(&mut self) -> Option<Vec<u8>> {
        let rest = std::mem::take(&mut self.line);
        (!rest.is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_one_by_one_and_are_bounded() {
        let long = "x".repeat(MAX_LINE_BYTES + 10_000);
        let text = format!("a\n\n{long}\nb");
        let mut lines = Lines::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some(line) = lines.next().await {
            assert!(line.len() < MAX_LINE_BYTES + 10_000);
            found.push(String::from_utf8(line).expect("text"));
        }
        assert_eq!(found.concat(), text);
        assert_eq!((found[0].as_str(), found[1].as_str(), found.last().expect("some").as_str()), ("a\n", "\n", "b"));
    }
}
