//! A scripted Ollama for tests and measurements.
//!
//! [`FakeOllama::spawn`] listens on a port of 127.0.0.1 and speaks the native inference routes and those that describe
//! or change models as Ollama 0.33 does, checked against recorded answers of a live server. [`Script`] holds its knobs, [`Plan`]
//! its faults, [`Seen`] what it received. It deliberately does not speak `/v1`, has no registry to pull from or push to,
//! renders no templates and knows no tokenizer: words and counts differ from the real ones, shapes do not.

mod answer;
mod bind;
mod breakage;
mod chat;
mod dialect;
mod embed;
mod emit;
mod engine;
mod fault;
mod generate;
mod gojson;
mod library;
mod options;
mod prefix;
mod prepare;
mod record;
mod route;
mod scheduler;
mod script;
mod serve;
mod shelf;
mod wire;

pub use answer::{Text, mix, seed_of, tokens_in};
pub use fault::{Fault, Midway, On, Plan, Rule, When};
pub use record::{ModelSeen, NotSeen, Outcome, Phase, Recorded, Seen};
pub use script::{Leak, Model, Script};

use emit::After;
use record::{Ledger, Ticket};
use scheduler::Scheduler;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wire::{Reply, Request, Writer};

/// How long tests wait for something to be seen, if they do not say.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all connections share.
struct Server {
    script: Mutex<Shared>,
    blobs: Mutex<shelf::Blobs>,
    ledger: Arc<Ledger>,
    scheduler: Arc<Scheduler>,
}

struct Shared {
    script: Arc<Script>,
    faults: Plan,
}

impl Server {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blobs(&self) -> MutexGuard<'_, shelf::Blobs> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the script for the requests that arrive from now on.
    fn change<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let mut shared = self.shared();
        let mut script = (*shared.script).clone();
        // Rules go on counting where they are, unless they are replaced.
        script.faults = shared.faults.clone();
        let changed = change(&mut script);
        shared.faults = script.faults.clone();
        shared.script = Arc::new(script);
        changed
    }
}

/// One request on its way through a handler.
struct Call<'a> {
    request: &'a Request,
    ticket: &'a Ticket,
    script: Arc<Script>,
    fault: Option<Fault>,
    received: Instant,
}

impl Call<'_> {
    async fn reply(&self, reply: &Reply, out: &mut Writer<'_>) -> io::Result<After> {
        out.reply(reply).await?;
        self.ticket.answered(reply.status);
        Ok(After::Next)
    }
}

/// A running fake. Dropping it kills it.
pub struct FakeOllama {
    address: SocketAddr,
    server: Arc<Server>,
    /// Stops accepting.
    closing: CancellationToken,
    /// Resets what is open.
    killed: CancellationToken,
    tasks: TaskTracker,
}

impl FakeOllama {
    /// Listens on a free port of 127.0.0.1.
    pub async fn spawn(script: Script) -> io::Result<Self> {
        Self::spawn_at(SocketAddr::from(([127, 0, 0, 1], 0)), script).await
    }

    /// Listens on an address, e.g. that of a fake that was killed before.
    #[expect(clippy::unused_async, reason = "it needs a runtime, which an async signature says")]
    pub async fn spawn_at(address: SocketAddr, script: Script) -> io::Result<Self> {
        let listener = serve::listen(address)?;
        let address = listener.local_addr()?;
        let ledger = Arc::new(Ledger::default());
        let scheduler = Arc::new(Scheduler::new(Arc::clone(&ledger)));
        let shared = Shared { faults: script.faults.clone(), script: Arc::new(script) };
        let server = Arc::new(Server { script: Mutex::new(shared), blobs: Mutex::default(), ledger, scheduler });
        let fake = Self { address, server, closing: CancellationToken::new(), killed: CancellationToken::new(), tasks: TaskTracker::new() };
        let accept = serve::accept(listener, Arc::clone(&fake.server), fake.closing.clone(), fake.killed.clone(), fake.tasks.clone());
        crate::task::spawn(fake.tasks.track_future(accept));
        Ok(fake)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes knobs for the requests that arrive from now on.
    pub fn adjust(&self, change: impl FnOnce(&mut Script)) {
        self.server.change(change);
    }

    /// Replaces the faults.
    pub fn fail(&self, plan: Plan) {
        self.adjust(|script| script.faults = plan);
    }

    /// A look at what was seen so far.
    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.server.ledger.seen())
    }

    /// The remembered requests, oldest first.
    pub fn requests(&self) -> Vec<Recorded> {
        self.seen(|seen| seen.requests.iter().cloned().collect())
    }

    /// Waits until something was seen, at most 20 seconds.
    pub async fn wait_for(&self, wanted: impl Fn(&Seen) -> bool) -> Result<(), NotSeen> {
        self.wait_within(PATIENCE, wanted).await
    }

    pub async fn wait_within(&self, bound: Duration, wanted: impl Fn(&Seen) -> bool) -> Result<(), NotSeen> {
        self.server.ledger.wait_for(bound, wanted).await
    }

    /// Names of the models that are loaded now.
    pub fn loaded(&self) -> Vec<String> {
        self.server.scheduler.loaded().into_iter().map(|loaded| loaded.model.name).collect()
    }

    /// Names of all models, newest first.
    pub fn models(&self) -> Vec<String> {
        self.server.shared().script.models.iter().map(|model| model.name.clone()).collect()
    }

    /// The model of this name.
    pub fn model(&self, name: &str) -> Option<Model> {
        self.server.shared().script.find(name).cloned()
    }

    /// Files that no model uses are gone, as after a restart of the server.
    pub fn prune(&self) {
        let used = shelf::used(&self.server.shared().script);
        self.server.blobs().prune(&used);
    }

    /// A slot of a model's runner (of all runners) is lost for ever, as an aborted stream may leave it (#17131): the
    /// runner is healthy, and nobody ever gets that slot. Unloading the model, once idle, gives a new runner.
    pub fn leak_slot(&self, model: Option<&str>) {
        self.server.scheduler.lose_slot(model);
    }

    /// A model's runner (all runners) stands still like a stopped process: generations wait without end, and `/api/ps`
    /// answers late and without it; the first request after that replaces it.
    pub fn hang_runner(&self, model: Option<&str>) {
        self.server.scheduler.hang(model);
    }

    /// The next load that needs room waits for ever, and all loads behind it (#17408), while loaded models go on
    /// answering. An unload of an idle model ends it.
    pub fn deadlock(&self) {
        self.server.scheduler.deadlock();
    }

    /// All runner processes die, in the middle of whatever they do. The server goes on.
    pub fn kill_runners(&self) {
        self.server.scheduler.kill_all();
    }

    /// Accepts nothing more, lets running answers end for at most five seconds, then closes.
    pub async fn stop(self) {
        self.closing.cancel();
        self.tasks.close();
        drop(tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await);
        self.kill().await;
    }

    /// As if the process had been killed: the port is closed, all connections are reset.
    pub async fn kill(self) {
        self.closing.cancel();
        self.killed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for FakeOllama {
    fn drop(&mut self) {
        self.closing.cancel();
        self.killed.cancel();
    }
}
