//! The end of the process, in phases: not ready, no new connections, drain within the grace, end what is left, flush.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::Error;
use super::start::App;

/// Time for answers that are cut off to say so.
const FAREWELL: Duration = Duration::from_secs(2);

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every answer was finished or told of its end, every row was written.
    InOrder,
    /// A second signal came first.
    AtOnce,
}

/// The system's requests to end.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// # Errors
    /// When the system does not allow to listen for them.
    pub fn listen() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl App {
    /// Serves until a signal comes or a background task fails.
    ///
    /// # Errors
    /// The failed task.
    pub async fn run(mut self, mut signals: Signals) -> Result<End, Error> {
        let failed = tokio::select! {
            () = signals.next() => None,
            failed = self.supervisor.failure() => Some(failed),
        };
        let end = tokio::select! {
            () = self.end() => End::InOrder,
            () = signals.next() => End::AtOnce,
        };
        failed.map_or(Ok(end), |failed| Err(failed.into()))
    }

    /// Ends in phases. Returns when everything is written.
    pub async fn end(mut self) {
        let grace = self.config.server.shutdown_grace;
        tracing::info!(?grace, "shutting down: no new connections, running answers may finish");
        self.readiness.leaving();
        self.stop_accepting.cancel();
        if timeout(grace, joined(&mut self.server)).await.is_err() {
            tracing::warn!("the grace is over: ending the answers that are left");
            self.end_answers.cancel();
            if timeout(FAREWELL, joined(&mut self.server)).await.is_err() {
                self.server.shutdown().await;
            }
        }
        self.tasks.close();
        if timeout(FAREWELL, self.tasks.wait()).await.is_err() {
            tracing::warn!("generations that went on without their clients are cut off");
        }
        if let Some(engine) = self.engine {
            engine.close().await;
        }
        self.flush.cancel();
        self.supervisor.stop().await;
        self.storage.close().await;
        tracing::info!("ended");
    }
}

async fn joined(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}
