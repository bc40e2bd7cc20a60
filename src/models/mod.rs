//! What can be asked for, and who has it.
//!
//! [`Registry`] holds the backends and the last list of models each of them gave. It promises that reading is cheap and never waits;
//! [`Registry::refresh`] is idempotent and asks all backends at once. It does not choose among backends: that is `routing`'s.

mod near;
mod registry;

pub use registry::{Backends, Entry, InFlight, Registry, View};
