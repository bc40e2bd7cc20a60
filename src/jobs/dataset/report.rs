//! What was done to a data set, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::import::Intake;
use super::split::Side;
use super::teacher::Teacher;

/// So many rows are named for each reason.
const SHOWN: usize = 5;

/// Counts by name, with the first few places.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tally(BTreeMap<String, Count>);

/// How many, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub count: u64,
    /// Of the rows that are counted, the first few.
    pub first: Vec<String>,
}

impl Tally {
    pub fn add(&mut self, what: &str, place: &str) {
        if !self.0.contains_key(what) {
            self.0.insert(what.to_owned(), Count::default());
        }
        if let Some(count) = self.0.get_mut(what) {
            count.count += 1;
            if count.first.len() < SHOWN {
                count.first.push(place.to_owned());
            }
        }
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().map(|count| count.count).sum()
    }

    #[must_use]
    pub fn get(&self, what: &str) -> u64 {
        self.0.get(what).map_or(0, |count| count.count)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Count)> {
        self.0.iter().map(|(what, count)| (what.as_str(), count))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of the places, where there are any.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        self.0.values().flat_map(|count| &count.first).map(String::as_str).next()
    }
}

/// What cleaning did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cleaned {
    /// Rows whose texts were written in another way: Unicode, white space, control characters.
    pub normalised: u64,
    /// Rows that were left out, by reason.
    pub dropped: Tally,
    /// Rows in which something was masked, by what that was.
    pub masked: Tally,
    /// Rows by the language that they seem to be in.
    pub languages: BTreeMap<String, u64>,
}

/// What a teacher did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taught {
    pub teacher: Teacher,
    /// Of its file, where it is one; in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What it was asked, each question once.
    pub questions: u64,
    /// Rows that have an answer of its.
    pub answered: u64,
    /// Rows that were left out for want of one.
    pub left_out: Tally,
}

impl Taught {
    pub(super) fn new(teacher: &Teacher, sha256: Option<&str>, questions: u64) -> Self {
        Self { teacher: teacher.clone(), sha256: sha256.map(str::to_owned), questions, answered: 0, left_out: Tally::default() }
    }
}

/// Who went where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Divided {
    pub train: u64,
    pub validation: u64,
    pub test: u64,
    /// Sets of rows that stay together, because they are of one group, ask the same or are nearly the same.
    pub clusters: u64,
    /// Rows of the largest of them.
    pub largest_cluster: u64,
    /// Rows of the training side after weights, shares and variants.
    pub train_after_mixing: u64,
}

impl Divided {
    #[must_use]
    pub fn of(&self, side: Side) -> u64 {
        match side {
            Side::Train => self.train_after_mixing,
            Side::Validation => self.validation,
            Side::Test => self.test,
        }
    }
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// SHA-256 of the rows and of what was done to them.
    pub version: String,
    pub sources: Vec<Intake>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taught: Option<Taught>,
    pub cleaned: Cleaned,
    pub divided: Divided,
}

impl Report {
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("# Data set\n\nVersion `{}`.\n\n## Sources\n\n", self.version);
        text.push_str("| source | format | rows | used | not used |\n|---|---|---:|---:|---:|\n");
        for source in &self.sources {
            let bad = source.rows - source.kept;
            let _ = writeln!(text, "| {} | {} | {} | {} | {bad} |", cell(&source.path), source.format, source.rows, source.kept);
        }
        for source in self.sources.iter().filter(|source| !source.bad.is_empty()) {
            tally(&mut text, &format!("Rows of {} that cannot be used", cell(&source.path)), &source.bad);
        }
        if let Some(taught) = &self.taught {
            let Teacher { model, max_tokens, temperature, seed, .. } = &taught.teacher;
            let _ = writeln!(
                text,
                "\n## Teacher\n\n{} answered {} questions for {} rows, with at most {max_tokens} tokens, temperature {temperature} and seed {seed}.",
                cell(model),
                taught.questions,
                taught.answered
            );
            tally(&mut text, "Left out", &taught.left_out);
        }
        let _ = writeln!(text, "\n## Cleaning\n\n{} rows were normalised.", self.cleaned.normalised);
        tally(&mut text, "Left out", &self.cleaned.dropped);
        tally(&mut text, "Masked", &self.cleaned.masked);
        if !self.cleaned.languages.is_empty() {
            let all: Vec<String> = self.cleaned.languages.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let _ = writeln!(text, "\nLanguages: {}.", all.join(", "));
        }
        self.sides(&mut text);
        text
    }

    fn sides(&self, text: &mut String) {
        let divided = &self.divided;
        text.push_str("\n## Sides\n\n| side | rows |\n|---|---:|\n");
        for (name, rows) in [("train", divided.train_after_mixing), ("validation", divided.validation), ("test", divided.test)] {
            let _ = writeln!(text, "| {name} | {rows} |");
        }
        if divided.train_after_mixing != divided.train {
            let _ = writeln!(text, "\nThe training side had {} rows before weights, shares and variants.", divided.train);
        }
        let _ =
            writeln!(text, "\n{} clusters of rows stayed together; the largest has {} rows.", divided.clusters, divided.largest_cluster);
    }
}

fn tally(text: &mut String, title: &str, tally: &Tally) {
    if tally.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:\n\n| what | rows | first |\n|---|---:|---|");
    for (what, count) in tally.iter() {
        let _ = writeln!(text, "| {what} | {} | {} |", count.count, cell(&count.first.join("; ")));
    }
}

/// A text within a table.
fn cell(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_all_and_shows_a_few() {
        let mut tally = Tally::default();
        for row in 1..=9 {
            tally.add("too short", &format!("a.jsonl:{row}"));
        }
        tally.add("duplicate", "a.jsonl:3");
        assert_eq!((tally.total(), tally.get("too short"), tally.get("nothing")), (10, 9, 0));
        assert_eq!(tally.iter().nth(1).map(|(_, count)| count.first.len()), Some(SHOWN));
        let json = serde_json::to_string(&tally).expect("JSON");
        assert_eq!(serde_json::from_str::<Tally>(&json).expect("read"), tally);
        let report = Report { cleaned: Cleaned { dropped: tally, ..Cleaned::default() }, ..Report::default() };
        let text = report.markdown();
        assert!(text.contains("| duplicate | 1 | a.jsonl:3 |") && text.contains("| too short | 9 | a.jsonl:1; a.jsonl:2;"), "{text}");
        assert_eq!(cell("a|b\n<x>"), "a\\|b &lt;x>");
    }
}
