//! `arriero doctor`: looks at this machine and says what is wrong and how to mend it. Changes nothing.

use super::args::Doctor;
use super::exit::{Exit, Failure};
use crate::config::Variables;

/// # Errors
/// When the findings cannot be written.
pub async fn run(_args: &Doctor, _variables: &Variables) -> Result<Exit, Failure> {
    Ok(Exit::Ok)
}
