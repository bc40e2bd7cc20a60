//! From files to a data set, step by step: importing, cleaning, dividing.

use std::fs::File;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::clean::Clean;
use super::error::Error;
use super::example::Example;
use super::import::{Import, Limits, Source};
use super::mix::{self, Variants};
use super::report::{Cleaned, Divided, Report, Taught};
use super::split::{Side, Split};
use super::teacher::{self, School, Teacher};
use super::version::version;

/// What is wanted: the input of the job, and what a command line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    pub sources: Vec<Source>,
    #[serde(default)]
    pub limits: Limits,
    /// Who answers what rows only ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<Teacher>,
    #[serde(default)]
    pub clean: Clean,
    #[serde(default)]
    pub split: Split,
    #[serde(default)]
    pub variants: Variants,
    #[serde(default)]
    pub seed: u64,
}

/// A step, as those see it who watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Import,
    /// Asking the teacher.
    Teach,
    Clean,
    Split,
}

/// Hears how far a step is: done, of how many, of what. May stop it.
pub type Told<'a> = &'a mut dyn FnMut(Step, u64, u64, &'static str) -> Result<(), Error>;

/// A data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    pub train: Vec<Example>,
    pub validation: Vec<Example>,
    pub test: Vec<Example>,
    pub report: Report,
}

impl Prepared {
    #[must_use]
    pub fn side(&self, side: Side) -> &[Example] {
        match side {
            Side::Train => &self.train,
            Side::Validation => &self.validation,
            Side::Test => &self.test,
        }
    }
}

impl Wish {
    /// One with nothing but sources.
    #[must_use]
    pub fn of(sources: Vec<Source>) -> Self {
        Self {
            sources,
            limits: Limits::default(),
            teacher: None,
            clean: Clean::default(),
            split: Split::default(),
            variants: Variants::default(),
            seed: 0,
        }
    }

    /// # Errors
    /// What makes no sense.
    pub fn validate(&self) -> Result<(), Error> {
        if self.sources.is_empty() {
            return Err(Error::Options("no source is named".to_owned()));
        }
        if self.limits.max_row_bytes == 0 || !(0.0..=1.0).contains(&self.limits.max_bad_share) {
            return Err(Error::Options("`max_row_bytes` is above 0, and `max_bad_share` from 0 to 1".to_owned()));
        }
        self.teacher.as_ref().map_or(Ok(()), Teacher::validate)?;
        self.clean.validate()?;
        self.split.validate()?;
        self.variants.validate()?;
        mix::validate(&self.sources)
    }

    /// Bytes of memory that sources of so many bytes take at most: their texts, what is kept to find rows that are alike, and a row at work.
    #[must_use]
    pub fn memory_bytes(&self, source_bytes: u64) -> u64 {
        let kept = source_bytes.min(self.limits.max_bytes);
        // A row of 256 bytes, which is short, takes its text, as much again while it is cleaned, a signature, and places in tables.
        let rows = (source_bytes / 256).min(self.limits.max_rows);
        let row = self.limits.max_row_bytes as u64 * 20;
        // A row that only asks may have 32 bytes, and a token of an answer 4 bytes; they are kept in two places.
        let answers = self.teacher.as_ref().map_or(0, |teacher| (source_bytes / 32).saturating_mul(8 * u64::from(teacher.max_tokens)));
        let answers = answers.min(2 * self.limits.max_bytes);
        (2 * kept).saturating_add(2_048 * rows).saturating_add(row.min(20 * source_bytes)).saturating_add(answers)
    }

    /// Reads the sources; `open` opens one by its path.
    ///
    /// # Errors
    /// Those of `open`, and of [`Import::read`].
    pub fn import<E: From<Error>>(&self, open: impl Fn(&str) -> Result<File, E>, told: Told<'_>) -> Result<(Vec<Example>, Report), E> {
        self.validate()?;
        let files = self.sources.iter().map(|source| open(&source.name())).collect::<Result<Vec<File>, E>>()?;
        let size = |file: &File| file.metadata().map_or(0, |metadata| metadata.len());
        let whole: u64 = files.iter().map(size).sum();
        let mut import = Import::new(&self.limits, self.split.group.as_deref()).with_prompts(self.teacher.is_some());
        let (mut report, mut before) = (Report::default(), 0);
        for (number, (file, source)) in (0..).zip(files.into_iter().zip(&self.sources)) {
            let bytes = size(&file);
            let intake = import.read(file, source, number, &mut |read| told(Step::Import, before + read.min(bytes), whole, "bytes"))?;
            report.sources.push(intake);
            before += bytes;
        }
        if import.examples.is_empty() {
            let bad = report.sources.iter().flat_map(|source| source.bad.iter());
            let why: Vec<String> = bad.map(|(what, count)| format!("{} {what}", count.count)).collect();
            let empty = if self.sources.iter().all(|source| source.collected.is_some()) {
                ": nothing was collected that is meant"
            } else {
                ": the sources are empty"
            };
            let why = if why.is_empty() { empty.to_owned() } else { format!(" of the sources: {}", why.join(", ")) };
            return Err(Error::Nothing(why).into());
        }
        Ok((import.examples, report))
    }

    /// Has the teacher answer, where there is one. `school`: where its answers come from.
    ///
    /// # Errors
    /// A teacher that cannot be asked, answers that take too much memory, when no row is left, or it was stopped.
    pub fn teach(
        &self,
        examples: Vec<Example>,
        school: Option<&School<'_>>,
        told: Told<'_>,
    ) -> Result<(Vec<Example>, Option<Taught>), Error> {
        let Some(teacher) = &self.teacher else { return Ok((examples, None)) };
        let Some(school) = school else { return Err(Error::Options("`teacher`: there is nobody to ask here".to_owned())) };
        let mut told = |done, whole| told(Step::Teach, done, whole, "answers");
        let (examples, taught) = teacher::teach((teacher, &self.clean, school), examples, |example| self.place(example), &mut told)?;
        if examples.iter().map(|example| example.body.bytes() as u64).sum::<u64>() > self.limits.max_bytes {
            return Err(Error::Bytes { bytes: self.limits.max_bytes });
        }
        Ok((examples, Some(taught)))
    }

    /// What a row is called in reports.
    fn place(&self, example: &Example) -> String {
        let name = self.sources.get(example.source as usize).map(Source::name).unwrap_or_default();
        format!("{name}:{}", example.row)
    }

    /// Cleans rows.
    ///
    /// # Errors
    /// When no row is left, or it was stopped.
    pub fn clean(&self, examples: Vec<Example>, told: Told<'_>) -> Result<(Vec<Example>, Cleaned), Error> {
        let whole = examples.len() as u64;
        let (kept, cleaned) =
            self.clean.apply(examples, |example| self.place(example), &mut |done| told(Step::Clean, done, whole, "rows"))?;
        if kept.is_empty() {
            let why: Vec<String> = cleaned.dropped.iter().map(|(what, count)| format!("{} {what}", count.count)).collect();
            return Err(Error::Nothing(format!(" after cleaning: {}", why.join(", "))));
        }
        Ok((kept, cleaned))
    }

    /// Divides rows and mixes the training side.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn divide(&self, examples: Vec<Example>, mut report: Report, told: Told<'_>) -> Result<Prepared, Error> {
        let whole = examples.len() as u64;
        let (sides, divided) = self.split.sides(&examples, self.seed, &mut |done| told(Step::Split, done, whole, "rows"))?;
        let [mut train, mut validation, mut test] = [const { Vec::new() }; 3];
        for (example, side) in examples.into_iter().zip(sides) {
            match side {
                Side::Train => train.push(example),
                Side::Validation => validation.push(example),
                Side::Test => test.push(example),
            }
        }
        let train = mix::mix(train, &self.sources, &self.variants, self.seed);
        report.divided = Divided { train_after_mixing: train.len() as u64, ..divided };
        let mut options = json!({"clean": self.clean, "split": self.split, "variants": self.variants, "seed": self.seed});
        if let Some(taught) = &report.taught {
            // Where a file lay is no part of it.
            let model = taught.sha256.clone().unwrap_or_else(|| taught.teacher.model.clone());
            options["teacher"] = json!(Teacher { model, ..taught.teacher.clone() });
        }
        let sides = [(Side::Train, train.as_slice()), (Side::Validation, &validation), (Side::Test, &test)];
        report.version = version(&options, &sides).to_string();
        Ok(Prepared { train, validation, test, report })
    }

    /// All of it.
    ///
    /// # Errors
    /// Those of the steps.
    pub fn prepare<E: From<Error>>(
        &self,
        open: impl Fn(&str) -> Result<File, E>,
        school: Option<&School<'_>>,
        told: Told<'_>,
    ) -> Result<Prepared, E> {
        let (examples, mut report) = self.import(open, told)?;
        let (examples, taught) = self.teach(examples, school, told)?;
        report.taught = taught;
        let (examples, cleaned) = self.clean(examples, told)?;
        report.cleaned = cleaned;
        Ok(self.divide(examples, report, told)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::samples::{chat, words};
    use super::super::version::write;
    use super::*;

    /// A folder with two files of rows, and a wish for them.
    fn rows() -> (tempfile::TempDir, Wish) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut sources = Vec::new();
        for file in 0..2 {
            let path = folder.path().join(format!("{file}.jsonl"));
            let row = |n: u32| chat(&format!("question {file}-{n}"), &words(file * 100_000 + n * 100..file * 100_000 + n * 100 + 20));
            let rows: Vec<Example> = (0..50).map(row).collect();
            let mut out = Vec::new();
            write(&rows, &mut out).expect("written");
            std::fs::write(&path, out).expect("written");
            sources.push(Source { weight: Some(f64::from(file + 1)), ..Source::new(path.to_string_lossy()) });
        }
        (folder, Wish { split: Split { validation: 0.1, test: 0.1, ..Split::default() }, ..Wish::of(sources) })
    }

    fn prepare(wish: &Wish) -> Result<Prepared, Error> {
        wish.prepare(|path| File::open(path).map_err(Error::from), None, &mut |_, done, total, _| {
            assert!(done <= total, "{done} of {total}");
            Ok(())
        })
    }

    #[test]
    fn the_same_files_make_the_same_rows_which_are_read_as_they_were_written() {
        let (folder, wish) = rows();
        let prepared = prepare(&wish).expect("prepared");
        assert_eq!(prepare(&wish).expect("prepared"), prepared);
        assert_ne!(prepare(&Wish { seed: 1, ..wish.clone() }).expect("prepared").report.version, prepared.report.version);
        let divided = &prepared.report.divided;
        assert_eq!((divided.train, divided.validation, divided.test, divided.clusters), (80, 10, 10, 100));
        let twice = prepared.train.iter().filter(|row| row.source == 1).count();
        assert_eq!(prepared.train.len(), 80 + twice / 2);

        let path = folder.path().join("again.jsonl");
        let mut out = Vec::new();
        write(&prepared.train, &mut out).expect("written");
        std::fs::write(&path, &out).expect("written");
        let again = Wish { clean: Clean::nothing(), ..Wish::of(vec![Source::new(path.to_string_lossy())]) };
        let (read, _) = again.import(|path| File::open(path).map_err(Error::from), &mut |_, _, _, _| Ok(())).expect("read");
        assert_eq!(read.iter().map(Example::line).collect::<Vec<_>>(), prepared.train.iter().map(Example::line).collect::<Vec<_>>());
    }

    #[test]
    fn every_step_can_be_stopped_and_emptiness_has_a_reason() {
        let (_folder, wish) = rows();
        for step in [Step::Import, Step::Clean, Step::Split] {
            let told = &mut |now, _, _, _: &'static str| if now == step { Err(Error::Stopped) } else { Ok(()) };
            let stopped = wish.prepare(|path| File::open(path).map_err(Error::from), None, told);
            assert!(matches!(stopped, Err(Error::Stopped)), "{step:?}");
        }
        let short = Clean { quality: super::super::clean::Quality { min_chars: 10_000, ..Default::default() }, ..Clean::default() };
        let nothing = prepare(&Wish { clean: short, ..wish.clone() }).expect_err("nothing left");
        assert!(nothing.to_string().contains("100 too short"), "{nothing}");
        assert!(prepare(&Wish { sources: Vec::new(), ..wish }).is_err());
    }
}
