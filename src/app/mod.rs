//! The only place that builds things: it knows every part, and no part knows it.
//!
//! [`start`] opens the state, finds the backends, spawns the background work and accepts connections; [`App::run`] keeps all of it
//! going until it is told to stop, and then ends in phases: not ready, no new connections, drain, flush.

mod backends;
mod background;
#[cfg_attr(not(feature = "embedded"), path = "no_engine.rs")]
mod engine;
mod error;
mod fleet;
mod listeners;
mod reload;
mod services;
mod shutdown;
mod start;
mod summary;
mod supervisor;

pub use background::work;
pub use error::Error;
pub use reload::Source;
pub use shutdown::{End, Signals};
pub use start::{App, start, start_from};
pub use summary::{Answering, Summary};
