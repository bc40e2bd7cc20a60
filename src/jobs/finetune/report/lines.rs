//! Records of a run as lines of JSON. A run that goes on leaves no line twice.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde::Deserialize;

use crate::jobs::finetune::trainer::Record;

#[derive(Debug)]
pub struct Lines {
    file: File,
}

impl Lines {
    /// Goes on with a file after so many steps and evaluations. What it says of others is cut off, as is a line that was not finished.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(path: &Path, steps: u64, evaluations: usize) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let kept_bytes = kept(BufReader::new(&file), steps, evaluations)?;
        file.set_len(kept_bytes)?;
        file.seek(SeekFrom::Start(kept_bytes))?;
        Ok(Self { file })
    }

    /// # Errors
    /// Of the file system.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// What is looked at in a line.
#[derive(Deserialize)]
struct Head {
    kind: String,
    step: u64,
}

/// Bytes up to the first line that does not count any more: with those behind it, it was written later than what does.
fn kept(mut from: BufReader<&File>, steps: u64, evaluations: usize) -> io::Result<u64> {
    let (mut kept_bytes, mut seen, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        let read_bytes = from.read_until(b'\n', &mut line)?;
        let head = serde_json::from_slice::<Head>(&line).ok().filter(|_| line.ends_with(b"\n"));
        let Some(head) = head.filter(|head| head.step <= steps) else { return Ok(kept_bytes) };
        seen += usize::from(head.kind == "evaluation");
        if seen > evaluations {
            return Ok(kept_bytes);
        }
        kept_bytes += read_bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::records;
    use super::*;

    #[test]
    fn no_line_is_there_twice_and_none_is_half() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let read = || std::fs::read_to_string(&path).expect("read");
        let write = |steps, evaluations, records: &[Record]| {
            let mut lines = Lines::open(&path, steps, evaluations).expect("opened");
            for record in records {
                lines.write(record).expect("written");
            }
        };
        // A step, a step, a look after it, a step.
        let records = records();
        write(0, 0, &records);
        let whole = read();
        assert_eq!(whole.lines().count(), 4);
        assert!(whole.starts_with("{\"kind\":\"step\",\"step\":1,\"epoch\":0,\"loss\":2.5,"), "{whole}");
        write(2, 1, &records[3..]);
        assert_eq!(read(), whole);
        // The look was not known of yet.
        write(2, 0, &records[2..]);
        assert_eq!(read(), whole);
        std::fs::write(&path, &whole[..whole.len() - 9]).expect("cut");
        write(3, 1, &records[3..]);
        assert_eq!(read(), whole);
        write(0, 0, &[]);
        assert_eq!(read(), "");
    }
}
