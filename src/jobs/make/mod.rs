//! From a model's source to a model that is served: converting, checking and publishing in one go.
//!
//! A [`Wish`] says what is wanted, in the same words for the kind of job `convert` and for `arriero convert`; the [`steps`] are what both
//! do. Where the source lies is looked up by whoever asks: a job within the folders that jobs may read, a command wherever its user may.
//! It promises nothing of its own beyond what [`convert`](super::convert), `check` and [`publish`](super::publish) promise.

pub(super) mod errand;
pub mod installed;
mod kind;
mod making;
mod places;
mod promote;
mod server;
pub mod steps;
mod wish;

pub use kind::{Convert, threads};
pub use places::Places;
pub use promote::{Impossible, Promote, Promoted, Promotion};
pub use server::Server;
pub use steps::Watcher;
pub use wish::{Checking, Named, Others, Publishing, Wish, Wrong};
