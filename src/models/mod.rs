//! What can be asked for, who has it, and how each model may be used.
//!
//! [`Registry`] holds the backends and the last list of models each of them gave. It promises that reading is cheap and never waits;
//! [`Registry::refresh`] is idempotent and asks all backends at once. [`Policies`] are the rules of the configuration for single
//! models, and [`Normaliser`] makes a request keep to them, so that no client has a model loaded anew for all by accident.
//! It does not choose among backends: that is `routing`'s; nor order who is served: that is `scheduler`'s.

mod near;
mod normaliser;
mod pinned;
mod policy;
mod registry;
mod runner;

pub use normaliser::{Circumstances, Loaded, Normalised, Normaliser};
pub use pinned::Pinned;
pub use policy::{ClientKeepAlive, Config, Config as Policy, LongPrompt, Policies, RunnerOptions};
pub use registry::{Backends, Entry, InFlight, Registry, View};
