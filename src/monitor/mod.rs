//! Looks at the machine: processors, memory, disks, accelerators, and this process.
//!
//! It reads when asked, and says so when something cannot be read. It decides nothing: what too little memory means is up to
//! those who ask.

pub mod sensors;

pub use sensors::{Sensors, Snapshot};
