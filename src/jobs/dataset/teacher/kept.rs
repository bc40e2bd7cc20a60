//! Answers on the disk: a line of JSON each, written as it comes. A line that a crash left unfinished is cut off; nothing else is changed.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Answer;

#[derive(Debug)]
pub struct Kept {
    file: File,
    answers: HashMap<String, Answer>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    finish: Finish,
    answer: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Finish {
    Stop,
    Length,
}

impl Kept {
    /// # Errors
    /// What the disk says, and lines that somebody else has written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64)?;
            file.seek(SeekFrom::End(0))?;
        }
        let mut answers = HashMap::new();
        for (number, line) in (1..).zip(text[..whole].split_inclusive(|byte| *byte == b'\n')) {
            let Line { key, finish, answer } = serde_json::from_slice(line).map_err(|_| wrong(path, number))?;
            answers.insert(key, if finish == Finish::Stop { Answer::Whole(answer) } else { Answer::Cut });
        }
        Ok(Self { file, answers })
    }

    pub fn get(&self, key: &str) -> Option<&Answer> {
        self.answers.get(key)
    }

    /// It outlives the process at once, and the machine after [`Kept::finish`].
    ///
    /// # Errors
    /// What the disk says.
    pub fn add(&mut self, key: &str, answer: Answer) -> io::Result<()> {
        let (finish, text) = match &answer {
            Answer::Whole(text) => (Finish::Stop, text.as_str()),
            Answer::Cut => (Finish::Length, ""),
            Answer::Refused(_) => return Ok(()),
        };
        let mut line = serde_json::to_vec(&Line { key: key.to_owned(), finish, answer: text.to_owned() }).map_err(io::Error::other)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.answers.insert(key.to_owned(), answer);
        Ok(())
    }

    /// # Errors
    /// What the disk says.
    pub fn finish(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn wrong(path: &Path, number: u32) -> io::Error {
    let why = format!("line {number} of {} is no answer as it was kept: remove the line, or the file", path.display());
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_there_again_and_a_line_that_was_cut_is_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("answers.jsonl");
        let (one, two) = (Answer::Whole("a\n\"b\" ☃".to_owned()), Answer::Whole("two".to_owned()));
        let mut kept = Kept::open(&path).expect("made");
        kept.add("1", one.clone()).expect("kept");
        kept.add("2", Answer::Cut).expect("kept");
        kept.add("3", Answer::Refused("no".to_owned())).expect("passed over");
        kept.finish().expect("on the disk");
        let text = std::fs::read(&path).expect("there");
        for end in 0..text.len() {
            std::fs::write(&path, &text[..end]).expect("written");
            let mut kept = Kept::open(&path).expect("read");
            assert!(kept.get("2").is_none());
            kept.add("4", two.clone()).expect("kept");
            let again = Kept::open(&path).expect("read");
            assert_eq!(again.get("4"), Some(&two), "cut at {end}");
            assert_eq!(again.get("1"), kept.get("1"));
        }
        std::fs::write(&path, &text).expect("written");
        let again = Kept::open(&path).expect("read");
        assert_eq!((again.get("1"), again.get("2"), again.get("3")), (Some(&one), Some(&Answer::Cut), None));
        std::fs::write(&path, "{}\n").expect("written");
        assert!(Kept::open(&path).expect_err("no answer").to_string().contains("line 1 of"));
    }
}
