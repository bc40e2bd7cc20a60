//! What this build is, and the description of its HTTP interface.

use super::exit::{Exit, Failure};
use super::terminal;

/// # Errors
/// When it cannot be written.
pub fn run() -> Result<Exit, Failure> {
    terminal::print(&format!("arriero {}\nfeatures: {}", env!("CARGO_PKG_VERSION"), features()))?;
    Ok(Exit::Ok)
}

fn features() -> String {
    let known = [
        ("embedded", cfg!(feature = "embedded")),
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
        ("accelerate", cfg!(feature = "accelerate")),
    ];
    let present: Vec<&str> = known.iter().filter(|(_, present)| *present).map(|(name, _)| *name).collect();
    if present.is_empty() { "none".to_owned() } else { present.join(", ") }
}

/// # Errors
/// When it cannot be written.
pub fn openapi() -> Result<Exit, Failure> {
    terminal::print(&crate::api::document())?;
    Ok(Exit::Ok)
}
