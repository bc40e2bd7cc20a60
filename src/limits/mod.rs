//! How much each key, tenant and address may use.
//!
//! Before it is known who asks, [`Limits::address`] holds back floods. Then [`Limits::admit`] asks the key, its tenant and the
//! gateway as a whole whether the request fits every bound of theirs (sizes, rates, concurrency, tokens a minute, budgets), and takes
//! from all or from none. The [`Reservation`] it gives is held as long as the generation lasts; what was used replaces what was
//! estimated when it is dropped. Who is refused is told when the same request fits, and that is kept.
//!
//! Every bound is pure code that is given the time. One lock is held for the few microseconds of a decision, never across waiting.
//! Nothing here waits, queues or orders requests: that is the scheduler's. Budgets survive a restart, rates do not.

mod account;
mod addresses;
mod book;
mod budget;
mod caps;
mod concurrency;
mod config;
mod handle;
mod meter;
mod network;
mod refusal;
mod requests;
mod reservation;
mod standing;
mod tokens;
mod view;
mod writer;

pub use caps::{AboveMaximum, Caps};
pub use config::{Address, Config};
pub use handle::{Admission, Estimate, Limits};
pub use network::Network;
pub use refusal::{Kind, Measure, Quota, Refusal, Scope};
pub use reservation::Reservation;
pub use standing::Standing;
pub use view::{AccountView, View};
pub use writer::BudgetWriter;

#[cfg(test)]
mod tests;
