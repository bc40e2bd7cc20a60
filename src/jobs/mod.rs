//! Background jobs: durable rows in the database, worked on by child processes.
//!
//! [`Jobs`] is what clients and operators use; a [`Pool`] works on what waits, within `serve` or as a process of its own on the same
//! database. They promise: a job that was acknowledged is not lost; a job is one worker's at a time, and the writes of a worker that has
//! lost it fail; a crash, a hang or a hunger for memory costs one attempt; an artifact that has a row is whole and on the disk; paths
//! of clients stay inside the configured folders. What is to happen is decided in pure code (`machine`, `admission`, `calendar`,
//! `watch`). They do not know what the jobs are about: that is the [`Kind`]s' own.

mod admission;
mod attempt;
mod calendar;
#[cfg(feature = "embedded")]
pub mod check;
mod checksum;
mod config;
pub mod convert;
pub mod dataset;
pub mod download;
mod error;
#[cfg(feature = "embedded")]
pub mod evaluate;
mod files;
#[cfg(feature = "embedded")]
pub mod finetune;
mod hash;
mod kind;
mod machine;
pub mod make;
mod memory;
mod outcome;
#[cfg(feature = "embedded")]
mod page;
mod pool;
mod positioned;
mod progress;
pub mod publish;
mod roots;
mod scheduling;
mod service;
#[cfg(test)]
mod simulation;
#[cfg(feature = "embedded")]
mod subject;
mod submission;
mod sweep;
mod trial;
pub mod upload;
mod watch;
mod worker;

pub use admission::{Capacity, Load, TooLarge};
pub use config::Config;
pub use error::Error;
pub use kind::{Fault, Ground, Kind, Plan, REFERENCE, Referred, Registry, reference, references};
pub use machine::Wrong;
pub use pool::{Pool, Traffic};
pub use roots::{Error as PathError, Found, Roots};
pub use service::{Jobs, Machine, Scope};
pub use submission::{Calendar, Made, Submission};
pub use worker::{Context, run as work_as_child};

// What is stored of jobs, for those who show it.
pub use crate::storage::jobs::{Artifact, AttemptMade, Event, Job, Page, Pool as PoolState, PoolOrder, Schedule, State};
