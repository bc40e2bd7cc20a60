//! Load: closed-loop for throughput, open-loop for latency, steady streams for delays. Each run is bounded by a time or a
//! count, checks every chunk it reads, and gives the first few things that went wrong.

use super::{
    reader::{self, Reader},
    sides::{MODEL, Side},
};
use crate::{clock, fake::mix, http1::client::Client};
use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{sync::mpsc, task::JoinSet};

/// A request that takes longer failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than this many complaints help nobody.
const COMPLAINTS: usize = 5;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    pub prompt: String,
    pub stream: bool,
    /// Tokens the answer must have.
    pub tokens: usize,
}

impl Ask {
    fn body(&self) -> Bytes {
        json!({"model": MODEL, "prompt": self.prompt, "stream": self.stream}).to_string().into()
    }
}

/// What a run gave.
#[derive(Debug, Default)]
pub struct Run {
    pub requests: usize,
    pub chunks: usize,
    pub seconds: f64,
    /// Time to the first token, in seconds.
    pub first: Vec<f64>,
    /// From the making of a token to its arrival, in seconds.
    pub delays: Vec<f64>,
    /// CPU of the side meanwhile, in seconds.
    pub cpu: f64,
    pub errors: Vec<String>,
}

impl Run {
    fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.chunks += other.chunks;
        self.first.extend(other.first);
        self.delays.extend(other.delays);
        self.errors.extend(other.errors);
        self.errors.truncate(COMPLAINTS);
    }

    fn complain(&mut self, error: &anyhow::Error) {
        if self.errors.len() < COMPLAINTS {
            self.errors.push(format!("{error:#}"));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds.max(1e-9)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn cpu_per_request(&self) -> f64 {
        self.cpu / (self.requests.max(1)) as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn cpu_per_chunk(&self) -> f64 {
        self.cpu / (self.chunks.max(1)) as f64
    }
}

/// Measures time and CPU around some load.
async fn measured(side: &Side, load: impl Future<Output = Run>) -> Run {
    let (cpu, began) = (side.cpu(), Instant::now());
    let mut run = load.await;
    run.seconds = began.elapsed().as_secs_f64();
    run.cpu = side.cpu().since(cpu).as_secs_f64();
    run
}

/// One request, read to its end. The first token's time counts from `since`.
async fn request(client: &mut Client, to: &To, ask: &Ask, since: Instant) -> Result<Run> {
    let headers: Vec<(&str, &str)> = to.bearer.iter().map(|value| ("authorization", value.as_str())).collect();
    let response = client.send_with(Method::POST, to.path, &headers, ask.body()).await?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    if status != 200 || !ask.stream {
        let bytes = body.collect().await?.to_bytes();
        if status != 200 {
            bail!("status {status}: {}", String::from_utf8_lossy(&bytes).chars().take(200).collect::<String>());
        }
        reader::whole(&bytes, ask.tokens)?;
        return Ok(Run { requests: 1, chunks: ask.tokens, first: vec![since.elapsed().as_secs_f64()], ..Run::default() });
    }
    let mut reader = Reader::new(to.dialect);
    let mut run = Run { requests: 1, ..Run::default() };
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        let now = clock::nanos();
        reader.feed(data)?;
        if run.first.is_empty() && reader.tokens() > 0 {
            run.first.push(since.elapsed().as_secs_f64());
        }
        run.delays.extend(reader.stamps.iter().map(|stamp| Duration::from_nanos(now.saturating_sub(*stamp)).as_secs_f64()));
    }
    reader.finish(ask.tokens)?;
    run.chunks = reader.tokens();
    Ok(run)
}

/// What of a side a request needs.
#[derive(Clone)]
struct To {
    path: &'static str,
    dialect: reader::Dialect,
    bearer: Option<String>,
}

impl To {
    fn of(side: &Side) -> Self {
        Self { path: side.path, dialect: side.dialect, bearer: side.bearer.clone() }
    }
}

async fn timed(client: &mut Client, to: &To, ask: &Ask, since: Instant) -> Result<Run> {
    tokio::time::timeout(PATIENCE, request(client, to, ask, since)).await.map_err(|_| anyhow!("no end within {PATIENCE:?}"))?
}

/// So many connections, each asking again as soon as it was answered.
pub async fn closed(side: &Side, ask: &Ask, connections: usize, span: Duration) -> Run {
    let until = Instant::now() + span;
    let all = async {
        let mut set = JoinSet::new();
        for _ in 0..connections {
            set.spawn(connection(side.address, To::of(side), ask.clone(), until));
        }
        gather(set).await
    };
    measured(side, all).await
}

async fn connection(address: std::net::SocketAddr, to: To, ask: Ask, until: Instant) -> Run {
    let mut client = Client::new(address);
    let mut total = Run::default();
    while Instant::now() < until && total.errors.is_empty() {
        match timed(&mut client, &to, &ask, Instant::now()).await {
            Ok(run) => {
                total.requests += run.requests;
                total.chunks += run.chunks;
            }
            Err(error) => total.complain(&error),
        }
    }
    total
}

async fn gather(mut set: JoinSet<Run>) -> Run {
    let mut total = Run::default();
    while let Some(joined) = set.join_next().await {
        match joined {
            Ok(run) => total.merge(run),
            Err(error) => total.complain(&anyhow!(error)),
        }
    }
    total
}

/// Requests at random moments (Poisson, seeded), whether earlier ones were answered or not. Times to the first token count
/// from the moment at which a request was meant to be sent.
pub async fn open(side: &Side, ask: &Ask, per_second: f64, span: Duration, seed: u64) -> Run {
    measured(side, async {
        match arrivals(side, ask, per_second, span, seed).await {
            Ok(run) => run,
            Err(error) => {
                let mut run = Run::default();
                run.complain(&error);
                run
            }
        }
    })
    .await
}

async fn arrivals(side: &Side, ask: &Ask, per_second: f64, span: Duration, seed: u64) -> Result<Run> {
    const IDLE: usize = 64;
    let (give_back, mut idle) = mpsc::channel::<Client>(IDLE);
    for _ in 0..8 {
        let mut client = Client::new(side.address);
        client.connect().await.context("opening a connection")?;
        drop(give_back.try_send(client));
    }
    let mut moments = pace(per_second, span, seed)?;
    let mut set = JoinSet::new();
    while let Some(moment) = moments.recv().await {
        let mut client = idle.try_recv().unwrap_or_else(|_| Client::new(side.address));
        let (ask, give_back, target) = (ask.clone(), give_back.clone(), To::of(side));
        set.spawn(async move {
            match timed(&mut client, &target, &ask, moment).await {
                Ok(run) => {
                    // Beyond the bound a connection is simply closed.
                    drop(give_back.try_send(client));
                    run
                }
                Err(error) => {
                    let mut run = Run::default();
                    run.complain(&error);
                    run
                }
            }
        });
    }
    Ok(gather(set).await)
}

/// Moments from a thread that sleeps: the timers of the runtime have a grain of a millisecond.
pub fn pace(per_second: f64, span: Duration, seed: u64) -> Result<mpsc::Receiver<Instant>> {
    let (tell, told) = mpsc::channel(1024);
    std::thread::Builder::new().name("pace".into()).spawn(move || {
        let began = Instant::now();
        let mut at = Duration::ZERO;
        for number in 0_u64.. {
            at += gap(per_second, seed, number);
            if at > span {
                return;
            }
            let moment = began + at;
            std::thread::sleep(moment.saturating_duration_since(Instant::now()));
            if tell.blocking_send(moment).is_err() {
                return;
            }
        }
    })?;
    Ok(told)
}

/// An exponentially distributed gap.
fn gap(per_second: f64, seed: u64, number: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "53 random bits fit")]
    let uniform = ((mix(seed ^ mix(number)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    Duration::from_secs_f64(-uniform.ln() / per_second)
}

/// So many streams at once, begun one after the other within `spread`, each read to its end.
pub async fn streams(side: &Side, ask: &Ask, count: usize, spread: Duration) -> Run {
    let all = async {
        let mut set = JoinSet::new();
        for number in 0..count {
            let (ask, address, target) = (ask.clone(), side.address, To::of(side));
            let wait = spread.mul_f64(f64::from(u32::try_from(number).unwrap_or(0)) / f64::from(u32::try_from(count).unwrap_or(1)));
            set.spawn(async move {
                tokio::time::sleep(wait).await;
                let mut client = Client::new(address);
                timed(&mut client, &target, &ask, Instant::now()).await.unwrap_or_else(|error| {
                    let mut run = Run::default();
                    run.complain(&error);
                    run
                })
            });
        }
        gather(set).await
    };
    measured(side, all).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_the_mean_of_their_rate_and_depend_on_the_seed() {
        let sum: Duration = (0..20_000).map(|number| gap(100.0, 7, number)).sum();
        assert!((sum.as_secs_f64() - 200.0).abs() < 6.0, "{sum:?}");
        assert_ne!(gap(100.0, 7, 0), gap(100.0, 8, 0));
    }
}
