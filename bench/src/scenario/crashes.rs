//! The gateway is killed at random moments while keys and jobs are being made: what it has acknowledged must be there afterwards.

use super::{
    Plan, at, count, largest,
    world::{self, Gateway, Setup},
};
use crate::{
    fake::{Script, mix},
    http1::raw,
    measure::figures::{Bound, Report},
};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what was acknowledged may take to be done in the end.
const TO_THE_END: Duration = Duration::from_mins(5);
/// Room for what so many rounds make, and patience with jobs whose workers are killed again and again.
const SETTINGS: &str = "[auth]\nmax_keys = 1000000\n[jobs]\nmax_queued = 1000000\nmax_attempts = 1000\nlook_interval = \"50ms\"\nretry_after = \"50ms\"\n\
     [jobs.resources]\ndisk_reserve_bytes = 0\n[jobs.retention]\nmax_jobs = 1000000\n";

/// What is made, and how often.
struct Making {
    path: &'static str,
    /// Of the answer: what was made.
    field: &'static str,
    pause: Duration,
    body: fn() -> Value,
}

static NAMED: AtomicUsize = AtomicUsize::new(0);

const KEYS: Making = Making {
    path: "/admin/keys",
    field: "secret",
    pause: Duration::from_millis(5),
    // A name that a killed gateway may have written down is not used again.
    body: || json!({"name": format!("fresh-{}", NAMED.fetch_add(1, Ordering::Relaxed)), "tenant": "clients"}),
};
const JOBS: Making = Making {
    path: "/jobs",
    field: "id",
    pause: Duration::from_millis(20),
    body: || json!({"kind": "checksum", "input": {"path": "files/x"}}),
};

/// One who asks the gateway with a key.
#[derive(Debug, Clone)]
struct Client {
    address: SocketAddr,
    key: String,
}

impl Client {
    /// Status and body; none where no whole answer came.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let bearer = format!("Bearer {}", self.key);
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = raw::exchange(self.address, &raw::request(method, path, &headers, body.as_bytes()), PATIENCE).await.ok()?;
        let whole = reply.ended == raw::Ended::Complete && reply.status > 0;
        whole.then(|| (reply.status, serde_json::from_slice(&reply.body()).unwrap_or_default()))
    }

    /// What is acknowledged, one after the other, until the gateway is gone.
    async fn make(self, what: Making, count: Arc<AtomicUsize>) -> Result<Vec<String>> {
        let Making { path, field, pause, body } = what;
        let mut made = Vec::new();
        loop {
            let Some((status, answer)) = self.ask("POST", path, &body()).await else { return Ok(made) };
            let Some(one) = answer[field].as_str().filter(|_| status == 201) else { bail!("POST {path} answered {status}: {answer}") };
            made.push(one.to_owned());
            count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
        }
    }
}

/// What all rounds made, and what of it was gone.
#[derive(Default)]
struct Kept {
    keys: Vec<String>,
    jobs: Vec<String>,
    lost_keys: usize,
    lost_jobs: usize,
    ready_ms: Vec<f64>,
}

impl Kept {
    /// Looks for keys and jobs; says how many of each are not there.
    async fn missing(admin: &Client, keys: &[String], jobs: &[String]) -> Result<[usize; 2]> {
        let mut missing = [0, 0];
        for key in keys {
            let holder = Client { key: key.clone(), ..admin.clone() };
            let (status, _) = holder.ask("GET", "/models", &Value::Null).await.context("no answer to a key's holder")?;
            missing[0] += usize::from(status != 200);
        }
        for job in jobs {
            let (status, _) = admin.ask("GET", &format!("/jobs/{job}"), &Value::Null).await.context("no answer about a job")?;
            missing[1] += usize::from(status != 200);
        }
        Ok(missing)
    }

    /// `until_kill`: counted from when a key and a job have been acknowledged.
    async fn round(&mut self, gateway: &mut Gateway, admin: &Client, until_kill: Duration) -> Result<()> {
        let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let keys = crate::task::spawn(admin.clone().make(KEYS, Arc::clone(&counts[0])));
        let jobs = crate::task::spawn(admin.clone().make(JOBS, Arc::clone(&counts[1])));
        let lacking = || counts.iter().any(|count| count.load(Ordering::Relaxed) == 0);
        while lacking() && !keys.is_finished() && !jobs.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(until_kill).await;
        gateway.kill();
        let (keys, jobs) = (keys.await??, jobs.await??);
        self.ready_ms.push(gateway.restart().await?.as_secs_f64() * 1e3);
        let [lost_keys, lost_jobs] = Self::missing(admin, &keys, &jobs).await?;
        self.lost_keys += lost_keys;
        self.lost_jobs += lost_jobs;
        self.keys.extend(keys);
        self.jobs.extend(jobs);
        Ok(())
    }

    /// Jobs that were not done in the end.
    async fn undone(&self, admin: &Client) -> Result<usize> {
        let until = Instant::now() + TO_THE_END;
        let mut undone = 0;
        for job in &self.jobs {
            loop {
                let (_, answer) = admin.ask("GET", &format!("/jobs/{job}"), &Value::Null).await.context("no answer about a job")?;
                let over = !answer["finished_at_ms"].is_null();
                if over || Instant::now() > until {
                    undone += usize::from(answer["state"] != "succeeded");
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(undone)
    }
}

pub(super) async fn run(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("R11", "loopback", plan.kills);
    let (script, plan) = (Script::default(), Plan { upstream: None, ..plan.clone() });
    let setup = Setup::of(&script).tenants(&["clients"]).section(SETTINGS);
    let Some(mut world) = world::gateway_only(&plan, &script, &setup, 1, &mut report).await else { return Ok(report) };
    let Some(gateway) = &mut world.gateway else { return Ok(report) };
    let Some(key) = gateway.admin_key() else {
        report.errors(["without keys there is nothing to keep".to_owned()]);
        return Ok(report);
    };
    gateway.put("files/x", b"abc")?;
    let admin = Client { address: gateway.address, key };
    let mut kept = Kept::default();
    for number in 0..plan.kills {
        let until_kill = Duration::from_millis(mix(plan.seed ^ mix(number as u64)) % 120);
        kept.round(gateway, &admin, until_kill).await?;
    }
    let [lost_keys, lost_jobs] = Kept::missing(&admin, &kept.keys, &kept.jobs).await?;
    let undone = kept.undone(&admin).await?;
    report.figure("acknowledged", json!({"keys": kept.keys.len(), "jobs": kept.jobs.len()}));
    report.figure(
        "ready_ms",
        json!({"p50": at(&kept.ready_ms, 0.5), "p99": at(&kept.ready_ms, 0.99), "max": largest(kept.ready_ms.clone())}),
    );
    report.verdict("R11", "acknowledged keys lost", Bound::AtMost, 0.0, Some(count(kept.lost_keys.max(lost_keys))));
    report.verdict("R11", "acknowledged jobs lost", Bound::AtMost, 0.0, Some(count(kept.lost_jobs.max(lost_jobs))));
    report.verdict("R11", "acknowledged jobs not done in the end", Bound::AtMost, 0.0, Some(count(undone)));
    report.goal("R11", "ready again within, in milliseconds", Bound::AtMost, 500.0, largest(kept.ready_ms.iter().copied()));
    Ok(report)
}
