//! Which backend answers a request.
//!
//! [`policy`] is pure: it orders candidates from what is known of them. It does not ask, try or count anything.

pub mod policy;
