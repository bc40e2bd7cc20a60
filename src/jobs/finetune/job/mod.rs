//! Fine-tuning as a whole: from a base and rows to a model that is served, in one go.
//!
//! A [`Wish`] says what is wanted, in the same words for the kind of job `finetune` and for `arriero finetune`; [`Tuning`] has the stages,
//! which both go through one after the other. Promises: what was interrupted goes on where it was, with the same outcome to the bit on the
//! CPU; nothing is published before everything else is done; the report says what was trained on what, and what it is worth.

mod error;
mod follow;
mod kind;
mod outcome;
mod plan;
mod report;
mod room;
mod stages;
mod teacher;
mod wish;

pub use error::Error;
pub use follow::{EVENTS, METRICS};
pub use kind::Finetune;
pub use outcome::{ADAPTER, Ingredients, Model, SAFETENSORS, Survived, Tested, file_name};
pub use plan::{Models, device, device_memory_bytes, memory_bytes, needs};
pub use report::{report, texts};
pub use stages::{Asked, Base, Data, Run, Tuning};
pub use wish::{Adapter, Export, Trained, Wish, Wrong};
