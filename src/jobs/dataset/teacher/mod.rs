//! Answers that another model writes, to be learnt from: sequence-level knowledge distillation (Kim and Rush 2016, arXiv:1606.07947).
//!
//! The teacher is a model that a gateway serves, asked over HTTP at the lowest priority, or a GGUF file, which is run in this process.
//! Promises: no question is asked twice that has an answer, however often the work is interrupted, since answers are kept on the disk as they
//! come; what masks hide is hidden from the teacher, too; answers that were cut off are left out and counted, never learnt from.
//! It does not judge answers otherwise: cleaning comes after it.

mod config;
mod gateway;
mod kept;
#[cfg(feature = "embedded")]
mod local;
mod wish;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::clean::{Clean, Masker};
use super::error::Error;
use super::example::{Body, Example, Role, Turn};
use super::report::{Tally, Taught};
use crate::domain::digest::Digest;
use kept::Kept;

pub use config::Config;
pub use wish::{Answers, Teacher};

/// Where answers come from, and where they stay.
#[derive(Debug, Clone, Copy)]
pub struct School<'a> {
    /// One answer a line, in the order in which they came; made if need be.
    pub kept: &'a Path,
    /// The teacher, where it is a file.
    pub file: Option<&'a Path>,
    /// Whether that may be run on an accelerator.
    pub accelerated: bool,
    /// Who serves it otherwise.
    pub gateway: &'a Config,
}

/// Hears how many answers are there, and of how many; may stop it.
pub(super) type Told<'a> = &'a mut dyn FnMut(u64, u64) -> Result<(), Error>;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// A hash of the teacher, of how it is asked and of the turns.
    key: String,
    turns: Vec<Turn>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Whole(String),
    /// The limit of tokens came before its end.
    Cut,
    /// It was asked for something it does not take, for this reason.
    Refused(String),
}

/// Has answers written for rows; those that get none are left out. `place`: what a row is called in the report.
///
/// # Errors
/// A teacher that cannot be had or asked, a disk that is full, those of `told`, and when no row is left.
pub(super) fn teach(
    (teacher, clean, school): (&Teacher, &Clean, &School<'_>),
    examples: Vec<Example>,
    place: impl Fn(&Example) -> String,
    told: Told<'_>,
) -> Result<(Vec<Example>, Taught), Error> {
    let by = By::open(teacher, school, told)?;
    let (kept, masker) = (Kept::open(school.kept)?, Masker::new(&clean.mask));
    let mut lesson = Lesson { teacher, by: &by, clean, masker, kept, refused: BTreeMap::new() };
    let wants: Vec<Wants> = examples.iter().map(|example| lesson.wants(example)).collect();
    let asked = lesson.ask(&wants, told)?;
    let (mut left, mut taught) = (Vec::with_capacity(examples.len()), Taught::new(teacher, by.sha256(), asked));
    for (mut example, wants) in examples.into_iter().zip(wants) {
        match lesson.outcome(&example, wants) {
            Outcome::Own => left.push(example),
            Outcome::Answered(turns) => {
                taught.answered += 1;
                example.body = Body::Chat(turns);
                left.push(example);
            }
            Outcome::LeftOut(why) => taught.left_out.add(why, &place(&example)),
        }
    }
    if left.is_empty() {
        return Err(Error::Nothing(format!(" that the teacher answered: {}", reasons(&taught.left_out, &lesson.refused))));
    }
    Ok((left, taught))
}

fn reasons(left_out: &Tally, refused: &BTreeMap<String, String>) -> String {
    let counts: Vec<String> = left_out.iter().map(|(why, count)| format!("{} {why}", count.count)).collect();
    refused.values().next().map_or_else(|| counts.join(", "), |first| format!("{}; it says: {first}", counts.join(", ")))
}

/// Who answers.
enum By {
    Gateway(Box<gateway::Gateway>),
    #[cfg(feature = "embedded")]
    File(Box<local::Local>),
}

impl By {
    fn open(teacher: &Teacher, school: &School<'_>, told: Told<'_>) -> Result<Self, Error> {
        if !teacher.is_file() {
            return Ok(Self::Gateway(Box::new(gateway::Gateway::new(teacher, school.gateway)?)));
        }
        let Some(path) = school.file else { return Err(Error::teacher(&teacher.model, &"it is no file that can be found here")) };
        Self::of_file(teacher, (path, school.accelerated), told)
    }

    #[cfg(feature = "embedded")]
    fn of_file(teacher: &Teacher, file: (&Path, bool), told: Told<'_>) -> Result<Self, Error> {
        Ok(Self::File(Box::new(local::Local::open(teacher, file, told)?)))
    }

    #[cfg(not(feature = "embedded"))]
    fn of_file(teacher: &Teacher, _: (&Path, bool), _: Told<'_>) -> Result<Self, Error> {
        Err(Error::teacher(&teacher.model, &"this build has no engine to run a file with: name a model of a gateway"))
    }

    fn sha256(&self) -> Option<&str> {
        match self {
            Self::Gateway(_) => None,
            #[cfg(feature = "embedded")]
            Self::File(local) => Some(&local.sha256),
        }
    }

    /// Whether it can be asked something with such turns.
    fn takes(&self, turns: &[Turn]) -> bool {
        match self {
            Self::Gateway(gateway) => gateway.takes(turns),
            #[cfg(feature = "embedded")]
            Self::File(_) => true,
        }
    }
}

struct Lesson<'a> {
    teacher: &'a Teacher,
    by: &'a By,
    clean: &'a Clean,
    masker: Masker,
    kept: Kept,
    /// Why, by question.
    refused: BTreeMap<String, String>,
}

/// What a row wants of the teacher.
enum Wants {
    Nothing,
    Answer(Question),
    /// Something that it cannot be asked.
    Unasked,
}

/// What becomes of a row.
enum Outcome {
    /// It says all that it is to say.
    Own,
    Answered(Vec<Turn>),
    LeftOut(&'static str),
}

impl Lesson<'_> {
    fn wants(&self, example: &Example) -> Wants {
        let Some(turns) = asked(&example.body, self.teacher.answers) else { return Wants::Nothing };
        let turns = self.clean.shown(turns, &self.masker);
        let who = self.by.sha256().unwrap_or(&self.teacher.model);
        let all = json!([who, self.teacher.max_tokens, self.teacher.temperature, self.teacher.seed, turns]);
        let key = Digest::new(Sha256::digest(all.to_string()).into()).hex();
        if self.by.takes(&turns) { Wants::Answer(Question { key, turns }) } else { Wants::Unasked }
    }

    /// Asks what has no answer yet, each question once, in the order of the rows. Gives how many different ones there are.
    fn ask(&mut self, wants: &[Wants], told: Told<'_>) -> Result<u64, Error> {
        let mut seen = HashSet::new();
        let questions = wants.iter().filter_map(|wants| if let Wants::Answer(question) = wants { Some(question) } else { None });
        let questions: Vec<&Question> = questions.filter(|question| seen.insert(question.key.as_str())).collect();
        let (whole, kept, refused) = (questions.len() as u64, &mut self.kept, &mut self.refused);
        let new: Vec<&Question> = questions.into_iter().filter(|question| kept.get(&question.key).is_none()).collect();
        let there = whole - new.len() as u64;
        let mut keep = |question: &Question, answer: Answer| -> Result<(), Error> {
            match answer {
                // It may be taken another time.
                Answer::Refused(why) => drop(refused.insert(question.key.clone(), why)),
                answer => kept.add(&question.key, answer)?,
            }
            Ok(())
        };
        let mut tick = |done: u64| told(there + done, whole);
        tick(0)?;
        match self.by {
            By::Gateway(gateway) => gateway.ask_all(&new, &mut keep, &mut tick)?,
            #[cfg(feature = "embedded")]
            By::File(local) => local.ask_all(&new, &mut keep, &mut tick)?,
        }
        self.kept.finish()?;
        Ok(whole)
    }

    fn outcome(&self, example: &Example, wants: Wants) -> Outcome {
        let question = match wants {
            Wants::Nothing => return Outcome::Own,
            Wants::Unasked => return Outcome::LeftOut("several turns, which the teacher's API does not take"),
            Wants::Answer(question) => question,
        };
        match self.kept.get(&question.key) {
            Some(Answer::Whole(text)) if text.trim().is_empty() => Outcome::LeftOut("empty answer"),
            Some(Answer::Whole(text)) => {
                let turns = asked(&example.body, self.teacher.answers).unwrap_or_default();
                Outcome::Answered(turns.iter().cloned().chain([Turn::new(Role::Assistant, text.clone())]).collect())
            }
            Some(Answer::Cut) => Outcome::LeftOut("answer cut off"),
            Some(Answer::Refused(_)) | None => Outcome::LeftOut("refused by the teacher"),
        }
    }
}

/// What is before the answer that a row wants; `None`: it wants none.
fn asked(body: &Body, which: Answers) -> Option<&[Turn]> {
    let Body::Chat(turns) = body else { return None };
    match turns.split_last()? {
        (last, before) if last.role == Role::Assistant => (which == Answers::All).then_some(before),
        _ => Some(turns),
    }
}

/// The name of the file of answers in a folder of data.
pub const KEPT: &str = "answers.jsonl";

/// Where they are kept in a folder, which is made.
///
/// # Errors
/// What the disk says.
pub fn kept_in(folder: &Path) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    Ok(folder.join(KEPT))
}

#[cfg(test)]
mod tests;
