//! The one place of this package that spawns tasks.
//!
//! A test server has no supervisor: its tasks end with the token or the socket they watch.

use std::future::Future;
use tokio::task::JoinHandle;

/// Runs a future beside the caller. The caller sees to it that the future ends.
#[expect(clippy::disallowed_methods, reason = "tasks here end with the server or the load run that started them")]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}
