//! What is done when a model cannot serve, or should not: a name may stand for an ordered chain of models.
//!
//! [`Aliases`] is the configuration, checked and with aliases inside aliases written out; [`Chain`] is what one request may be
//! served by. [`Chain::first`] says where it begins, [`Chain::next`] where it goes on after [`Trouble`]. A step is entered when its
//! [`When`] holds, and the conditions are the rows of [`TABLE`], from which the documentation is made too. [`simplify`] makes a
//! request smaller for a step. Pure: it asks nobody and counts nothing.

mod aliases;
mod chain;
mod conditions;
mod simplify;
mod table;

pub use aliases::{Alias, AliasStep, Aliases, MAX_STEPS};
pub use chain::{Chain, Patience, Step};
pub use conditions::{ErrorKind, Facts, Pressure, Trouble, When, Why};
pub use simplify::{Simplify, estimate_tokens, simplify};
pub use table::{ANY_TROUBLE, ASKED, Condition, Part, TABLE};

#[cfg(test)]
mod tests;
