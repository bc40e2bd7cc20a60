//! One side of a scenario: servers, perhaps a gateway in front of them, and where clients go.

use super::{
    Plan,
    ask::{self, Ask},
    count,
};
use crate::{
    fake::{Model, Script, Text},
    http1::raw,
    measure::{
        cores::{Cores, View},
        figures::Report,
        process::{Cpu, Process, free_address},
        reader::Dialect,
        sides::Upstream,
    },
};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// How long a gateway may take to start, on a machine that builds something else meanwhile.
const START: Duration = Duration::from_secs(20);
/// How long a command of it, or an administrative answer, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where requests of one side go.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub path: &'static str,
    pub dialect: Dialect,
}

/// What a gateway is not given, for one that does not know it yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Without {
    /// Nobody is asked for a key.
    pub keys: bool,
    /// No sections of a scenario's own, no `slots` and the like.
    pub settings: bool,
}

/// How the gateway is set up, beyond what every scenario has.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Tenants, each with one key. None: nobody is asked for a key.
    pub tenants: Vec<&'static str>,
    /// Sections of the configuration file.
    pub sections: String,
    /// `slots` of every server; none: the gateway finds out.
    pub slots: Option<usize>,
    pub max_loaded: Option<usize>,
    /// More keys of every `[[ollama]]`.
    pub server: String,
    /// Where the gateway runs; none: anywhere.
    pub cores: Option<(Cores, View)>,
}

impl Setup {
    /// For servers with these knobs.
    pub fn of(script: &Script) -> Self {
        Self { slots: Some(script.slots), max_loaded: Some(script.max_loaded), ..Self::default() }
    }

    #[must_use]
    pub fn tenants(mut self, tenants: &[&'static str]) -> Self {
        self.tenants = tenants.to_vec();
        self
    }

    #[must_use]
    pub fn section(mut self, text: &str) -> Self {
        self.sections.push_str(text);
        self.sections.push('\n');
        self
    }

    /// The whole configuration file.
    fn file(&self, servers: &[SocketAddr], without: Without) -> String {
        let mut text = String::new();
        if !without.settings {
            text.push_str(&self.sections);
        }
        for (number, server) in servers.iter().enumerate() {
            let _ = write!(text, "\n[[ollama]]\nname = \"box{number}\"\nurl = \"http://{server}\"\n");
            if without.settings {
                continue;
            }
            if let Some(slots) = self.slots {
                let _ = writeln!(text, "slots = {slots}");
            }
            if let Some(most) = self.max_loaded {
                let _ = writeln!(text, "max_loaded = {most}");
            }
            text.push_str(&self.server);
        }
        text
    }
}

/// A running gateway. Dropping it ends it and removes its folder.
pub struct Gateway {
    process: Option<Process>,
    pub address: SocketAddr,
    program: PathBuf,
    folder: tempfile::TempDir,
    /// Tenant and key.
    keys: Vec<(&'static str, String)>,
    /// An administrator's key, where there are keys.
    admin: Option<String>,
    /// Where it runs.
    cores: Option<(Cores, View)>,
}

impl Gateway {
    /// Writes its configuration, makes its keys, starts it, and waits until it answers.
    pub async fn start(program: &Path, servers: &[SocketAddr], setup: &Setup, without: Without) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("arriero-bench-").tempdir()?;
        std::fs::write(folder.path().join("arriero.toml"), setup.file(servers, without))?;
        let mut gateway = Self {
            process: None,
            address: free_address()?,
            program: program.to_owned(),
            folder,
            keys: Vec::new(),
            admin: None,
            cores: setup.cores,
        };
        if !without.keys && !setup.tenants.is_empty() {
            gateway.admin = Some(gateway.make_key("bench-admin", "bench", &["--role", "admin"]).await?);
            for tenant in &setup.tenants {
                let key = gateway.make_key(tenant, tenant, &[]).await?;
                gateway.keys.push((tenant, key));
            }
        }
        gateway.restart().await?;
        Ok(gateway)
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("arriero.toml")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `arriero keys create`; gives the key.
    pub async fn make_key(&self, name: &str, tenant: &str, more: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(["keys", "create", name, "--tenant", tenant, "--json", "--data-dir"]).arg(self.data()).args(more);
        command.env_remove("ARRIERO_KEY").env_remove("ARRIERO_URL").kill_on_drop(true);
        let made = tokio::time::timeout(PATIENCE, command.output()).await.context("making a key took too long")??;
        let told = String::from_utf8_lossy(&made.stderr).into_owned();
        let answer: Value = serde_json::from_slice(&made.stdout).with_context(|| format!("`arriero keys create` said: {told}"))?;
        secret(&answer).context("`arriero keys create` gave no key")
    }

    /// `POST /admin/keys` of the running gateway; gives the key.
    pub async fn make_key_by_api(&self, name: &str, tenant: &str) -> Result<String> {
        let bearer = format!("Bearer {}", self.admin.as_deref().unwrap_or_default());
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let body = serde_json::json!({"name": name, "tenant": tenant}).to_string();
        let reply = raw::exchange(self.address, &raw::request("POST", "/admin/keys", &headers, body.as_bytes()), PATIENCE).await?;
        let answer: Value = serde_json::from_slice(&reply.body()).unwrap_or_default();
        secret(&answer).with_context(|| format!("POST /admin/keys answered {}: {}", reply.status, reply.text()))
    }

    /// Of the administrator, where there are keys.
    pub fn admin_key(&self) -> Option<String> {
        self.admin.clone()
    }

    /// Puts a file into its data folder.
    pub fn put(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let path = self.data().join(path);
        std::fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        Ok(std::fs::write(path, bytes)?)
    }

    /// Starts the process, on the same folder and address as before; gives the time until it is ready.
    pub async fn restart(&mut self) -> Result<Duration> {
        let plain = || Command::new(&self.program);
        let mut command = self.cores.map_or_else(plain, |(cores, view)| cores.command(view, &self.program));
        command.arg("serve").arg("--listen").arg(self.address.to_string()).arg("--data-dir").arg(self.data());
        command.arg("--config").arg(self.config_file());
        let log = self.folder.path().join("log");
        let since = Instant::now();
        let mut process = Process::start("arriero", command, &log)?;
        let took = process.answers(self.address, "/readyz", since, START).await;
        let took = took.with_context(|| format!("it said: {}", std::fs::read_to_string(&log).unwrap_or_default()))?;
        self.process = Some(process);
        Ok(took)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Asks the process to read its configuration again (SIGHUP). Whether it takes the signal.
    pub fn hang_up(&self) -> bool {
        self.process.as_ref().is_some_and(Process::hang_up)
    }

    pub fn lives(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::lives)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn key(&self, tenant: &str) -> Option<String> {
        self.keys.iter().find(|(name, _)| *name == tenant).map(|(_, key)| key.clone())
    }

    /// An administrative answer, as JSON; none where the route does not answer 200.
    pub async fn admin(&self, path: &str) -> Option<Value> {
        let bearer = self.admin.as_ref().map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|value| ("Authorization", value.as_str())).collect();
        let reply = raw::exchange(self.address, &raw::request("GET", path, &headers, b""), PATIENCE).await.ok()?;
        (reply.status == 200).then(|| serde_json::from_slice(&reply.body()).ok()).flatten()
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Cpu {
        self.process.as_ref().map_or_else(Cpu::default, Process::cpu)
    }

    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }
}

/// What a new key's holder sends.
fn secret(answer: &Value) -> Option<String> {
    [&answer["secret"], &answer["key"]].into_iter().find_map(|it| it.as_str().map(str::to_owned))
}

/// One side.
pub struct World {
    pub side: &'static str,
    pub target: Target,
    /// Empty where the upstream is a real server.
    pub fakes: Vec<Upstream>,
    pub gateway: Option<Gateway>,
}

impl World {
    /// The upstream alone.
    pub fn alone(plan: &Plan, script: &Script) -> Result<Self> {
        let (fakes, servers) = servers(plan, script, 1)?;
        let target = Target { address: servers[0], path: "/api/generate", dialect: Dialect::Ollama };
        Ok(Self { side: "alone", target, fakes, gateway: None })
    }

    /// So many servers behind the gateway; none without its binary.
    pub async fn behind(plan: &Plan, script: &Script, setup: &Setup, count: usize) -> Result<Option<Self>> {
        let Some(program) = &plan.arriero else { return Ok(None) };
        let (fakes, servers) = servers(plan, script, count)?;
        let gateway = Gateway::start(program, &servers, setup, plan.without).await?;
        let target = Target { address: gateway.address, path: "/generate", dialect: Dialect::Native };
        Ok(Some(Self { side: "behind", target, fakes, gateway: Some(gateway) }))
    }

    /// Has the first model loaded, as it was before the load began when the real server was measured.
    async fn warm(&self, script: &Script, setup: &Setup) {
        let Some(model) = script.models.first() else { return };
        let key = setup.tenants.first().and_then(|tenant| self.key(tenant));
        ask::once(&self.target, &Ask::new(&model.name, "Good morning", 1).key(key)).await;
    }

    pub fn key(&self, tenant: &str) -> Option<String> {
        self.gateway.as_ref().and_then(|gateway| gateway.key(tenant))
    }

    /// A figure of the fake servers, added up; none where the server is not ours.
    pub fn seen(&self, figure: impl Fn(&crate::fake::Seen) -> u64) -> Option<f64> {
        let all: u64 = self.fakes.iter().map(|fake| fake.seen(&figure)).sum();
        (!self.fakes.is_empty()).then(|| count(usize::try_from(all).unwrap_or(usize::MAX)))
    }
}

fn servers(plan: &Plan, script: &Script, count: usize) -> Result<(Vec<Upstream>, Vec<SocketAddr>)> {
    if let Some(real) = plan.upstream {
        return Ok((Vec::new(), vec![real]));
    }
    let fakes = (0..count).map(|_| Upstream::start(script.clone())).collect::<Result<Vec<_>>>()?;
    let addresses = fakes.iter().map(|fake| fake.address).collect();
    Ok((fakes, addresses))
}

/// A server with the figures of the measured machine: a small model on two cores that makes 75 tokens a second, works on
/// 625 prompt tokens a second, loads in 1.5 s, has one slot and room for one model. A request costs 70 ms beside that.
pub fn measured(plan: &Plan) -> Script {
    Script {
        models: plan.models.iter().map(|name| Model::new(name)).collect(),
        text: Text::Words(100_000),
        tokens_per_second: 75.0,
        prefill: Duration::from_millis(70),
        prefill_per_token: Duration::from_micros(1_600),
        load_time: Duration::from_millis(1_500),
        slots: 1,
        max_loaded: 1,
        remember: 4_096,
        ..Script::default()
    }
}

/// What both sides gave under one load.
pub struct Sides<T> {
    pub alone: T,
    /// None without a gateway.
    pub behind: Option<T>,
    /// Why there is none although there should be.
    trouble: Option<String>,
}

impl<T> Sides<T> {
    /// A report with the figures of both.
    pub fn report(&self, name: &str, figures: impl Fn(&T) -> Value) -> Report {
        let mut report = Report::new(name, "loopback", 1);
        report.figure("alone", figures(&self.alone));
        report.figure("behind", self.behind.as_ref().map_or(Value::Null, figures));
        report.errors(self.trouble.clone());
        report
    }

    pub fn of_behind(&self, figure: impl Fn(&T) -> Option<f64>) -> Option<f64> {
        self.behind.as_ref().and_then(figure)
    }
}

/// Both sides under one load: at once where the servers are fakes, in turn where they are not.
pub async fn compare<T>(plan: &Plan, script: &Script, setup: &Setup, load: impl AsyncFn(&World) -> Result<T>) -> Result<Sides<T>> {
    if let Some(real) = plan.upstream {
        reachable(real).await?;
    }
    let alone = async {
        let world = World::alone(plan, script)?;
        world.warm(script, setup).await;
        load(&world).await
    };
    let behind = async {
        match World::behind(plan, script, setup, 1).await? {
            Some(world) => {
                world.warm(script, setup).await;
                load(&world).await.map(Some)
            }
            None => Ok(None),
        }
    };
    let (alone, behind) = if plan.upstream.is_some() { (alone.await, behind.await) } else { tokio::join!(alone, behind) };
    let (behind, trouble) = match behind {
        Ok(behind) => (behind, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    Ok(Sides { alone: alone?, behind, trouble })
}

/// Whether there is an Ollama at all.
async fn reachable(address: SocketAddr) -> Result<()> {
    let reply = raw::exchange(address, &raw::request("GET", "/api/version", &[], b""), PATIENCE).await;
    let reply = reply.with_context(|| format!("no Ollama at {address}"))?;
    if reply.status == 200 { Ok(()) } else { bail!("{address} answers {} to /api/version: is it an Ollama?", reply.status) }
}

/// The gateway alone under a load, where the upstream by itself has nothing to compare. None without its binary.
pub async fn gateway_only(plan: &Plan, script: &Script, setup: &Setup, count: usize, report: &mut Report) -> Option<World> {
    match World::behind(plan, script, setup, count).await {
        Ok(world) => world,
        Err(error) => {
            report.errors([format!("{error:#}")]);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_every_server() {
        let servers = [SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2))];
        let setup = Setup { slots: Some(2), ..Setup::default() }.section("[queue]");
        let text = setup.file(&servers, Without::default());
        assert!(text.starts_with("[queue]\n") && text.contains("name = \"box1\"\nurl = \"http://127.0.0.1:2\"\nslots = 2\n"), "{text}");
        assert!(!setup.file(&servers, Without { settings: true, keys: true }).contains("slots"));
    }
}
