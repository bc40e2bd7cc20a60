//! Who goes next: the queue before every backend.
//!
//! A request asks for a slot with [`Scheduler::acquire`] and gets a [`Permit`], or a [`Refusal`] that says why not and when to come
//! back. Never more requests are in flight on a backend than it has slots, so whoever waits does so here, where the order can be
//! decided, a place can be told, and a client that leaves frees it at once.
//!
//! The order: priority classes, with a share and a longest wait for the lower ones (`class`); within a class the tenants by what
//! they were served (`tenants`); within a tenant by deadline, expected length and age (`order`), and a warm prefix before a cold
//! one. When a backend changes its model is decided here too (`swap`). All of this is pure and gets the time from outside; the
//! handle around it is thin. What is learnt (slots, speeds, lengths) is lost at the end of the process.
//!
//! This is not where backends are compared: which of them may serve a request, and how dear each is, comes with the request.

mod account;
mod backend;
mod bounds;
mod class;
mod config;
mod dispatch;
mod entry;
mod estimate;
mod forecast;
mod handle;
mod lane;
mod measure;
mod order;
mod permit;
mod queue;
mod refusal;
mod room;
#[cfg(test)]
mod simulation;
mod slots;
mod standing;
mod swap;
mod tenants;
mod view;

use std::time::Duration;

pub use config::{Config, MaxWait, Shares};
pub use entry::{Candidates, Entry, Runner};
pub use handle::Scheduler;
#[doc(hidden)]
pub use measure::{Measurement, measure};
pub use permit::Permit;
pub use refusal::Refusal;
pub use view::{BackendQueue, BackendView, ClassView, QueueView, RequestView, RunnerQueue, TenantView};

/// A moment: the time since the queue was made.
type At = Duration;
/// A request, from its coming to its end. Later ones are greater.
type Id = u64;
type LaneId = u64;
