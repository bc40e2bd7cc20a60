//! The sides of a comparison: the upstream alone, nginx, the gateway. All speak to one fake in a thread of its own.

use super::{
    cores::{Cores, View},
    nginx,
    process::{Cpu, Process, free_address},
    reader::Dialect,
};
use crate::{
    FakeOllama,
    fake::{Model, Script},
};
use anyhow::{Context, Result, anyhow};
use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// The model all sides are asked for.
pub const MODEL: &str = "bench:latest";

/// How long a gateway may take to start, on a machine that builds something else meanwhile.
const START: Duration = Duration::from_secs(20);

/// One of those compared.
#[derive(Debug)]
pub struct Side {
    pub name: &'static str,
    pub address: SocketAddr,
    pub path: &'static str,
    pub dialect: Dialect,
    process: Option<Process>,
}

impl Side {
    /// CPU time so far; zero for the upstream, which is not under measurement.
    pub fn cpu(&self) -> Cpu {
        self.process.as_ref().map_or_else(Cpu::default, Process::cpu)
    }
}

/// A fake on a thread and a runtime of its own, so that load and upstream do not wait in one queue of tasks.
pub struct Upstream {
    pub address: SocketAddr,
    fake: std::sync::Arc<FakeOllama>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Upstream {
    pub fn start(script: Script) -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), script)
    }

    /// On an address, e.g. that of one that was dropped.
    pub fn start_at(address: SocketAddr, script: Script) -> Result<Self> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("fake".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async move {
                if let Ok(fake) = FakeOllama::spawn_at(address, script).await {
                    drop(tell.send(std::sync::Arc::new(fake)));
                    drop(ended.await);
                }
            });
        })?;
        let fake = told.recv().map_err(|_| anyhow!("the fake upstream did not start"))?;
        Ok(Self { address: fake.address(), fake, end: Some(end), thread: Some(thread) })
    }

    pub fn adjust(&self, change: impl FnOnce(&mut Script)) {
        self.fake.adjust(change);
    }

    pub fn fake(&self) -> &FakeOllama {
        &self.fake
    }

    /// A look at what it saw so far.
    pub fn seen<T>(&self, look: impl FnOnce(&crate::fake::Seen) -> T) -> T {
        self.fake.seen(look)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Knobs of an upstream that is never the bottleneck: one small model, many slots, nothing remembered.
pub fn script() -> Script {
    Script { models: vec![Model::new(MODEL)], slots: 10_000, remember: 64, ..Script::default() }
}

/// Where things run and from what.
pub struct Setting<'a> {
    pub upstream: SocketAddr,
    pub folder: &'a Path,
    pub arriero: Option<&'a Path>,
    pub cores: Option<Cores>,
    pub view: View,
}

impl Setting<'_> {
    /// Starts all sides there are.
    pub async fn start(&self) -> Result<Vec<Side>> {
        if let Some(cores) = self.cores {
            cores.move_self(self.view)?;
        }
        let path = "/api/generate";
        let mut sides = vec![Side { name: "direct", address: self.upstream, path, dialect: Dialect::Ollama, process: None }];
        if let Some(program) = nginx::find() {
            let (process, address) = nginx::start(&program, self.folder, self.upstream, self.cores, self.view).await?;
            sides.push(Side { name: "nginx", address, path, dialect: Dialect::Ollama, process: Some(process) });
        }
        if let Some(program) = self.arriero {
            let (process, address, _) = gateway(program, self).await?;
            sides.push(Side { name: "arriero", address, path: "/generate", dialect: Dialect::Native, process: Some(process) });
        }
        Ok(sides)
    }
}

/// Starts the gateway on a folder of its own; gives the time to its first 200.
pub async fn gateway(program: &Path, setting: &Setting<'_>) -> Result<(Process, SocketAddr, Duration)> {
    let address = free_address()?;
    let data = tempfile::Builder::new().prefix("data-").tempdir_in(setting.folder)?.keep();
    let mut command = setting.cores.map_or_else(|| Command::new(program), |cores| cores.command(setting.view, program));
    command.arg("serve").arg("--listen").arg(address.to_string()).arg("--data-dir").arg(&data);
    command.arg("--ollama").arg(format!("http://{}", setting.upstream));
    let log = data.with_extension("log");
    let since = Instant::now();
    let mut process = Process::start("arriero", command, &log)?;
    let took = process.answers(address, "/livez", since, START).await;
    let took = took.with_context(|| format!("it said: {}", std::fs::read_to_string(&log).unwrap_or_default()))?;
    Ok((process, address, took))
}
