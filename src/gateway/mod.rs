//! One request, from start to end: who may ask, which model, which backend, when, how long, what it cost.
//!
//! [`Gateway::generate`] promises: the answer ends with exactly one [`Event::Done`](crate::domain::generation::Event::Done) or one
//! error; a deadline covers waiting and generating; dropping the [`Generation`] (or the future that would give it) stops the
//! backend's work, unless others read the same answer or the client asked to be waited for; however it ends, it is counted and
//! logged exactly once. What may be collected is handed over at its whole end.
//! Nothing here knows HTTP or any dialect.

mod about;
mod answers;
mod attempt;
mod call;
mod choice;
mod collect;
mod continuation;
mod deadline;
mod error;
mod generate;
mod held;
mod kept;
mod learning;
mod meaning;
mod metered;
mod parts;
mod production;
mod record;
mod restart;
mod resumption;
mod settings;
mod shares;
mod steering;
mod steps;
mod upkeep;
mod warming;

pub use crate::backends::Error as BackendError;
pub use about::{About, CacheOutcome};
pub use collect::{Answer, collect};
pub use error::Error;
pub use generate::{Gateway, Generation};
pub use kept::{Kept, Status};
pub use learning::TokenSizes;
pub use parts::Parts;
pub use record::Ledger;
pub use settings::{Config, OnCut, Settings};
pub use shares::Shares;
pub use steering::BackendReport;
