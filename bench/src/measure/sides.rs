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
    scenario::world::{Gateway, Setup, Without},
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
pub struct Side {
    pub name: &'static str,
    pub address: SocketAddr,
    pub path: &'static str,
    pub dialect: Dialect,
    /// Sent with every request.
    pub bearer: Option<String>,
    process: Option<Process>,
    /// The governed one, which brings its folder and keys.
    governed: Option<Gateway>,
}

impl Side {
    fn new(name: &'static str, address: SocketAddr, dialect: Dialect, process: Option<Process>) -> Self {
        let path = if dialect == Dialect::Native { "/generate" } else { "/api/generate" };
        Self { name, address, path, dialect, bearer: None, process, governed: None }
    }

    /// CPU time so far; zero for the upstream, which is not under measurement.
    pub fn cpu(&self) -> Cpu {
        let plain = || self.process.as_ref().map_or_else(Cpu::default, Process::cpu);
        self.governed.as_ref().map_or_else(plain, Gateway::cpu)
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
        let mut sides = vec![Side::new("direct", self.upstream, Dialect::Ollama, None)];
        if let Some(program) = nginx::find() {
            let (process, address) = nginx::start(&program, self.folder, self.upstream, self.cores, self.view).await?;
            sides.push(Side::new("nginx", address, Dialect::Ollama, Some(process)));
        }
        if let Some(program) = self.arriero {
            let (process, address, _) = gateway(program, self).await?;
            sides.push(Side::new("arriero", address, Dialect::Native, Some(process)));
            match self.governed(program).await {
                Ok(side) => sides.push(side),
                Err(error) => eprintln!("the governed profile is not measured: {error:#}"),
            }
        }
        Ok(sides)
    }
}

/// Bounds that are counted and never reached.
const GOVERNED: &str = "[limits.keys]\nrequests_per_second = 1000000\nconcurrent_requests = 100000\nprompt_tokens_per_minute = 1000000000\n\
    generated_tokens_per_minute = 1000000000\ntokens_per_day = 1000000000000\n";

impl Setting<'_> {
    /// The gateway with a key, limits on requests and tokens, its queue and its request log.
    async fn governed(&self, program: &Path) -> Result<Side> {
        let cores = self.cores.map(|cores| (cores, self.view));
        let setup = Setup { slots: Some(10_000), cores, ..Setup::default() }.tenants(&["bench-tenant"]).section(GOVERNED);
        let gateway = Gateway::start(program, &[self.upstream], &setup, Without::default()).await?;
        let bearer = gateway.key("bench-tenant").map(|key| format!("Bearer {key}"));
        let side = Side::new("governed", gateway.address, Dialect::Native, None);
        Ok(Side { bearer, governed: Some(gateway), ..side })
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
