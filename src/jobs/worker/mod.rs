//! The child process that works on one attempt of one job (`arriero worker run`), and the [`{Context, Reporter}`] that its kind works in.
//!
//! It gets a [`Brief`] on standard input and answers on standard output. It touches no database: a crash, a kill or a fault of an
//! accelerator costs the attempt and nothing else. It ends when standard input does, when its worker has not been heard of for too long,
//! and by the system's hand when its parent dies.

mod artifact;
mod child;
mod context;
mod limits;
mod words;

pub(super) use artifact::is_name as is_artifact_name;
pub use child::run;
pub use context::{Context, Reporter};
pub use words::{Ask, Brief, MAX_LINE_BYTES, Say};
