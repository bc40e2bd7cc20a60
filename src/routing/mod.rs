//! Which backend answers a request, when to give one up and when to try it again, and what is done instead.
//!
//! [`Router`] is the handle. It asks [`cost`] which candidate is the cheapest, keeps a [`breaker`] for each model on each backend
//! and an [`outlier`] detector for each backend, learns how fast they are ([`ewma`]), and holds the budgets of retries ([`retry`])
//! and hedges ([`hedge`]). [`fallback`] says which model is asked instead, and how the request is made smaller for it;
//! [`timeouts`] how long each stage may take. It promises that there is always somebody to ask: when all are bad, the least bad.
//! All decisions are pure. It asks nobody, waits for nothing and checks no health: that is `gateway`'s and `backends`'.

mod attempt;
pub mod breaker;
mod config;
pub mod cost;
mod dice;
pub mod ewma;
pub mod fallback;
mod gate;
pub mod hedge;
pub mod outlier;
pub mod retry;
mod router;
mod state;
pub mod timeouts;
mod view;

pub use crate::telemetry::metrics::BreakerState;
pub use attempt::Attempt;
pub use config::{Config, Wrong};
pub use cost::Look;
pub use dice::Dice;
pub use router::{Candidate, Router};
pub use timeouts::Timeouts;
pub use view::{BackendView, ModelView};

#[cfg(test)]
mod simulation_tests;
