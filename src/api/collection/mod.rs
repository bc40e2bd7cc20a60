//! `/feedback` and `/collection`: what people say of answers, and what was collected to learn from.

pub mod feedback;
pub mod look;

use crate::collection::Owner;
use crate::domain::principal::ANONYMOUS;

/// Whose exchanges are meant: the public id of a key, or `anonymous` for those who needed none.
fn owner(word: String) -> Owner {
    if word == ANONYMOUS { Owner::Nobody } else { Owner::Key(word) }
}
