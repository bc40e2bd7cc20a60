//! Records of a run as TensorBoard reads them: a file of events in TFRecord framing, each a protobuf message (`event.proto`).
//!
//! A run that goes on begins a file of its own, whose first event tells TensorBoard to forget what earlier files say of later steps.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use super::crc32c;
use crate::jobs::finetune::checkpoint::Evaluation;
use crate::jobs::finetune::objective::Preferences;
use crate::jobs::finetune::trainer::{Record, Step};

/// What the first event of a file must say.
const VERSION: &str = "brain.Event:2";
/// Files that begin in one second.
const MOST_FILES: u32 = 1000;

// Kinds of fields of protobuf.
const VARINT: u8 = 0;
const EIGHT_BYTES: u8 = 1;
const BYTES: u8 = 2;
const FOUR_BYTES: u8 = 5;

#[derive(Debug)]
pub struct Events {
    file: File,
}

impl Events {
    /// Begins a file in the folder; `unix_ms`: the time. What comes is behind so many steps.
    ///
    /// # Errors
    /// Of the file system.
    pub fn create(folder: &Path, unix_ms: i64, steps: u64) -> io::Result<Self> {
        let mut events = Self { file: create(folder, unix_ms)? };
        events.event(unix_ms, None, (3, BYTES), VERSION.as_bytes())?;
        // SessionLog.START.
        let session = [key(1, VARINT), 1];
        events.event(unix_ms, Some(steps + 1), (7, BYTES), &session)?;
        Ok(events)
    }

    /// # Errors
    /// Of the file system.
    pub fn write(&mut self, unix_ms: i64, record: &Record) -> io::Result<()> {
        let summary: Vec<u8> = scalars(record).into_iter().flat_map(|(tag, value)| scalar(tag, value)).collect();
        self.event(unix_ms, Some(record.step()), (5, BYTES), &summary)
    }

    #[expect(clippy::cast_precision_loss, reason = "the format has seconds as a number of double precision")]
    fn event(&mut self, unix_ms: i64, step: Option<u64>, (field, kind): (u8, u8), what: &[u8]) -> io::Result<()> {
        let mut event = vec![key(1, EIGHT_BYTES)];
        event.extend((unix_ms as f64 / 1000.0).to_le_bytes());
        if let Some(step) = step {
            event.push(key(2, VARINT));
            varint(step, &mut event);
        }
        event.push(key(field, kind));
        varint(what.len() as u64, &mut event);
        event.extend(what);
        // In one piece, so that who reads meanwhile sees the whole of it or nothing.
        self.file.write_all(&framed(&event))
    }
}

fn create(folder: &Path, unix_ms: i64) -> io::Result<File> {
    std::fs::create_dir_all(folder)?;
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 0..MOST_FILES {
        let path = folder.join(format!("events.out.tfevents.{:010}.arriero.{number:03}", unix_ms / 1000));
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            created => return created,
        }
    }
    Err(last)
}

/// Names and values of what a record says.
#[expect(clippy::cast_precision_loss, reason = "the format has numbers of single precision")]
fn scalars(record: &Record) -> Vec<(&'static str, f64)> {
    let (mut scalars, preferences) = match record {
        Record::Step(Step { loss, gradient_norm, learning_rate, tokens_per_s, memory_bytes, device_use, preferences, .. }) => {
            let mut scalars = vec![
                ("train/loss", *loss),
                ("train/gradient_norm", *gradient_norm),
                ("train/learning_rate", *learning_rate),
                ("train/tokens_per_s", *tokens_per_s),
            ];
            scalars.extend(memory_bytes.map(|bytes| ("train/memory_bytes", bytes as f64)));
            scalars.extend(device_use.map(|share| ("train/device_use", share)));
            (scalars, preferences.map(|found| (["train/preference_accuracy", "train/margin"], found)))
        }
        Record::Evaluation(Evaluation { loss, perplexity, preferences, .. }) => {
            let scalars = vec![("validation/loss", *loss), ("validation/perplexity", *perplexity)];
            (scalars, preferences.map(|found| (["validation/preference_accuracy", "validation/margin"], found)))
        }
    };
    if let Some(([accuracy, of_margin], Preferences { accuracy: found, margin, .. })) = preferences {
        scalars.extend([(accuracy, found), (of_margin, margin)]);
    }
    scalars
}

/// A `Summary.Value`, as a field of a `Summary`.
#[expect(clippy::cast_possible_truncation, reason = "the format has numbers of single precision")]
fn scalar(tag: &str, value: f64) -> Vec<u8> {
    let mut inner = vec![key(1, BYTES)];
    varint(tag.len() as u64, &mut inner);
    inner.extend(tag.as_bytes());
    inner.push(key(2, FOUR_BYTES));
    inner.extend((value as f32).to_le_bytes());
    let mut outer = vec![key(1, BYTES)];
    varint(inner.len() as u64, &mut outer);
    outer.extend(inner);
    outer
}

/// What stands before the value of a field.
const fn key(field: u8, kind: u8) -> u8 {
    field << 3 | kind
}

/// Seven bits a byte, the lowest first.
fn varint(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    into.push(number.to_le_bytes()[0]);
}

/// Length, its sum, the bytes, their sum.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [length.as_slice(), &crc32c::masked(&length).to_le_bytes(), bytes, &crc32c::masked(bytes).to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::tests::records;
    use super::*;

    /// The file that the `tensorboard` package was shown (`tests/golden/events.py`), byte for byte.
    #[test]
    fn the_file_is_the_one_that_tensorboard_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut events = Events::create(folder.path(), 1_700_000_000_250, 0).expect("made");
        for record in records() {
            events.write(1_700_000_001_500, &record).expect("written");
        }
        let path = folder.path().join("events.out.tfevents.1700000000.arriero.000");
        let found = std::fs::read(path).expect("read");
        assert_eq!(found, include_bytes!("../../../../tests/golden/finetune/tensorboard.events"));
    }

    #[test]
    fn attempts_do_not_write_into_each_others_files() {
        let folder = tempfile::tempdir().expect("a folder");
        for steps in [0, 5] {
            Events::create(folder.path(), 1000, steps).expect("made");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 2);
    }
}
