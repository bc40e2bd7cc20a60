//! Making rows fit to be learnt from: one way of writing, no secrets, no rubbish, nothing twice.
//!
//! Every rule can be switched off. It promises that the report names every row that was left out or changed by reason and count, and never
//! repeats what was masked; and that the same rows give the same answer, whatever machine it is asked on.

mod duplicates;
mod language;
mod mask;
mod normal;
mod quality;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::example::{Body, Example, Turn};
use super::report::Cleaned;

pub use mask::{Masker, Masks};
pub use quality::Quality;

use duplicates::Seen;

/// How often it is told how far it has come.
const TICK_ROWS: usize = 256;

/// What is done to rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clean {
    /// Unicode in its composed form (NFC), line breaks as `\n`, no control characters, no white space at the ends.
    pub normalise: bool,
    pub mask: Masks,
    pub quality: Quality,
    /// Leave out rows that say the same as an earlier one, but for case, white space and punctuation.
    pub duplicates: bool,
    /// Leave out rows whose words are those of an earlier one to this share or more (Jaccard similarity of runs of three words); `null` keeps
    /// them.
    pub near_duplicates: Option<f64>,
    /// Keep only rows that seem to be in one of these languages (ISO 639-3, such as `eng` or `deu`); with none, all. Short texts are kept.
    pub languages: Vec<String>,
}

impl Default for Clean {
    fn default() -> Self {
        Self {
            normalise: true,
            mask: Masks::default(),
            quality: Quality::default(),
            duplicates: true,
            near_duplicates: Some(0.9),
            languages: Vec::new(),
        }
    }
}

impl Clean {
    /// Nothing at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            normalise: false,
            mask: Masks::none(),
            quality: Quality::none(),
            duplicates: false,
            near_duplicates: None,
            languages: Vec::new(),
        }
    }

    /// # Errors
    /// What makes no sense.
    pub fn validate(&self) -> Result<(), Error> {
        self.quality.validate()?;
        if let Some(name) = self.languages.iter().find(|name| !language::is_known(name)) {
            return Err(Error::Options(format!("`{name}` is no language that can be told: write it as ISO 639-3 does, such as `eng`")));
        }
        match self.near_duplicates {
            Some(share) if !(0.5..=1.0).contains(&share) => {
                Err(Error::Options("`near_duplicates` takes a share from 0.5 to 1, or null".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Cleans rows. `place`: what a row is called in the report; `told`: hears how many rows are done, and may stop it.
    ///
    /// # Errors
    /// Those of `told`.
    pub fn apply(
        &self,
        examples: Vec<Example>,
        place: impl Fn(&Example) -> String,
        told: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<(Vec<Example>, Cleaned), Error> {
        let mut report = Cleaned::default();
        let masker = Masker::new(&self.mask);
        let mut seen = Seen::new(self.duplicates, self.near_duplicates);
        let mut kept = Vec::with_capacity(examples.len());
        for (index, mut example) in examples.into_iter().enumerate() {
            if index % TICK_ROWS == 0 {
                told(index as u64)?;
            }
            if self.normalise && normal::apply(&mut example.body) {
                report.normalised += 1;
            }
            let fault = self.quality.fault(&example.body).or_else(|| self.foreign(&example, &mut report));
            if fault.is_none() {
                for what in masker.apply(&mut example.body) {
                    report.masked.add(what, &place(&example));
                }
            }
            let empty = example.body.answers().any(|text| text.trim().is_empty()).then_some("empty");
            let fault = empty.or(fault);
            match fault.or_else(|| seen.fault(&example.body)) {
                Some(fault) => report.dropped.add(fault, &place(&example)),
                None => kept.push(example),
            }
        }
        Ok((kept, report))
    }

    /// Turns as others may see them: written in the one way, and masked.
    #[must_use]
    pub(super) fn shown(&self, turns: &[Turn], masker: &Masker) -> Vec<Turn> {
        let mut body = Body::Chat(turns.to_vec());
        if self.normalise {
            normal::apply(&mut body);
        }
        masker.apply(&mut body);
        if let Body::Chat(turns) = body { turns } else { Vec::new() }
    }

    fn foreign(&self, example: &Example, report: &mut Cleaned) -> Option<&'static str> {
        let name = language::of(&example.body)?;
        *report.languages.entry(name.to_owned()).or_default() += 1;
        let wanted = self.languages.is_empty() || self.languages.iter().any(|wanted| wanted == name);
        (!wanted).then_some("another language")
    }
}

#[cfg(test)]
mod tests;
