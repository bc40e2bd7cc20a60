//! Background tasks with names. The first that fails stops the rest.

use std::future::Future;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Owns the background tasks of one process.
pub struct Supervisor {
    stopping: CancellationToken,
    tasks: JoinSet<(&'static str, Result<(), String>)>,
}

/// A task that ended although nobody had asked it to.
#[derive(Debug, thiserror::Error)]
#[error("the background task `{task}` failed: {why}")]
pub struct Failed {
    pub task: &'static str,
    pub why: String,
}

impl Supervisor {
    pub fn new() -> Self {
        Self { stopping: CancellationToken::new(), tasks: JoinSet::new() }
    }

    /// Cancelled when the tasks must end.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Runs `work` until it ends or the tasks are stopped.
    pub fn spawn<E: std::fmt::Display>(&mut self, task: &'static str, work: impl Future<Output = Result<(), E>> + Send + 'static) {
        self.tasks.spawn(async move { (task, work.await.map_err(|error| error.to_string())) });
    }

    /// Runs `work`, which never ends by itself, until the tasks are stopped; it is then dropped where it stands.
    pub fn spawn_forever(&mut self, task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => (task, Err("it ended by itself".to_owned())),
                () = stopping.cancelled() => (task, Ok(())),
            }
        });
    }

    /// Runs `work`, which ends only by failing, until the tasks are stopped.
    pub fn spawn_until_stopped<E: std::fmt::Display + Send + 'static>(
        &mut self,
        task: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let stopping = self.stopping();
        self.tasks.spawn(async move {
            tokio::select! {
                ended = work => (task, ended.map_err(|error| error.to_string())),
                () = stopping.cancelled() => (task, Ok(())),
            }
        });
    }

    /// Waits until a task fails.
    pub async fn failure(&mut self) -> Failed {
        loop {
            match self.tasks.join_next().await {
                Some(Ok((task, Err(why)))) => return Failed { task, why },
                Some(Err(error)) => return panicked(&error),
                Some(Ok((_, Ok(())))) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Asks all tasks to end and waits for them.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((task, Err(why))) => tracing::error!(task, why, "a background task failed while it was stopped"),
                Err(error) => tracing::error!("{}", panicked(&error)),
                Ok((_, Ok(()))) => {}
            }
        }
    }
}

fn panicked(error: &JoinError) -> Failed {
    Failed { task: "unknown", why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_is_reported_by_name() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn_forever("steady", std::future::pending());
        supervisor.spawn("fine", async { Ok::<_, String>(()) });
        supervisor.spawn("broken", async { Err("no disk") });
        let failed = supervisor.failure().await;
        assert_eq!(failed.to_string(), "the background task `broken` failed: no disk");
        supervisor.stop().await;
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("broken", async {
            let done = tokio::task::spawn_blocking(|| panic!("a test panics")).await;
            std::panic::resume_unwind(done.expect_err("it panics").into_panic());
            #[expect(unreachable_code, reason = "gives the task its type")]
            Ok::<_, String>(())
        });
        assert!(supervisor.failure().await.why.contains("panic"));
    }

    #[tokio::test]
    async fn what_never_ends_may_not_end() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn_forever("short", async {});
        assert_eq!(supervisor.failure().await.task, "short");
    }
}
