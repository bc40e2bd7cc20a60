//! `/jobs`: background jobs over HTTP. Users see and cancel those of their own tenant, operators all.

pub mod artifacts;
pub mod events;
pub mod files;
pub mod look;
pub mod schedules;
pub mod steer;
pub mod submit;
pub mod types;
pub mod versions;

use crate::domain::principal::{Principal, Role};
use crate::jobs::Scope;

/// Whose jobs someone sees.
fn scope(who: &Principal) -> Scope<'_> {
    if who.role >= Role::Operator { Scope::All } else { Scope::Tenant(&who.tenant) }
}
