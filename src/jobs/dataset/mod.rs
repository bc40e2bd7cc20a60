//! Data sets for fine-tuning: from files as people have them to rows of tokens.
//!
//! A [`Wish`] says which files and what to do with them; [`Wish::prepare`] imports, has answers written where that is wanted, cleans and divides. The outcome is rows in one form (chat
//! messages, preferences or plain text), written as JSONL that is read again as it was, with a report of what was left out and why, and a
//! version that is a hash of the rows. `tokenise` makes tokens of rows, with the model's own template.
//! It promises: the same files and options give the same rows in the same order; no row is lost without a reason in the report; what was
//! masked is never repeated; memory is bounded. It does not fetch anything, and it does not train.

mod clean;
mod collected;
mod error;
mod example;
mod import;
mod kind;
mod mix;
mod prepare;
mod report;
mod similarity;
mod split;
mod stash;
pub mod teacher;
#[cfg(feature = "embedded")]
pub mod tokenise;
mod version;

pub use clean::{Clean, Masks, Quality};
pub use collected::Collected;
pub use error::Error;
pub use example::{Body, Example, Role, Turn};
pub use import::{Format, Import, Intake, Limits, Reason, Source};
pub use kind::Dataset;
pub use mix::Variants;
pub use prepare::{Prepared, Step, Told, Wish};
pub use report::{Cleaned, Count, Divided, Report, Tally, Taught};
pub use split::{Side, Split};
pub use teacher::{School, Teacher};
pub use version::{version, write};
