//! `arriero-bench`: a fake Ollama on the command line, and the measurements. Every scenario is one line of JSON.

use anyhow::{Context, Result};
use arriero_bench::{
    FakeOllama,
    fake::{Model, Script, Text},
    measure::{self, Plan, figures::Report},
    scenario,
};
use clap::{Args, Parser, Subcommand};
use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a fake Ollama until interrupted.
    Fake(Fake),
    /// What a gateway adds to small requests, first tokens and chunks, against nginx and the bare upstream.
    Overhead(Measure),
    /// Memory at rest and time to the first answer.
    Idle(Measure),
    /// What people feel: loads against Ollama alone and behind the gateway, with pass or fail.
    Scenario(Scenario),
}

#[derive(Args)]
struct Fake {
    #[arg(long, default_value = "127.0.0.1:11434")]
    listen: SocketAddr,
    /// Names of models; the recorded ones if none is given.
    #[arg(long = "model")]
    models: Vec<String>,
    /// Tokens of an answer.
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Tokens say their number instead of words.
    #[arg(long)]
    numbered: bool,
    /// Milliseconds to the first token.
    #[arg(long, default_value_t = 0)]
    prefill_ms: u64,
    /// Microseconds for each token of a prompt.
    #[arg(long, default_value_t = 0)]
    prefill_per_token_us: u64,
    /// Milliseconds between tokens.
    #[arg(long, default_value_t = 0)]
    token_gap_ms: u64,
    /// OLLAMA_NUM_PARALLEL
    #[arg(long, default_value_t = 4)]
    slots: usize,
    /// OLLAMA_MAX_QUEUE
    #[arg(long, default_value_t = 512)]
    max_queue: usize,
    /// OLLAMA_MAX_LOADED_MODELS
    #[arg(long, default_value_t = 3)]
    max_loaded: usize,
    /// Tokens a second that all slots of a model make together, instead of --token-gap-ms for each.
    #[arg(long, default_value_t = 0.0)]
    tokens_per_second: f64,
    /// What /api/version says; from 0.34.1 on, answers tell how much of a prompt was cached.
    #[arg(long, default_value = "0.33.0")]
    ollama_version: String,
    /// Milliseconds to load a model.
    #[arg(long, default_value_t = 0)]
    load_ms: u64,
}

#[derive(Args)]
struct Scenario {
    /// Which, e.g. `F1 R10`; `all`; `list` to name them.
    #[arg(required = true)]
    names: Vec<String>,
    /// The gateway's binary; without it only the upstream alone is measured.
    #[arg(long)]
    arriero: Option<PathBuf>,
    /// Address of a real Ollama to use instead of fakes where a scenario can (F1 to F7).
    #[arg(long)]
    upstream: Option<SocketAddr>,
    /// The two models to ask for, which must not fit into memory together.
    #[arg(long, num_args = 2, value_names = ["A", "B"], default_values = ["gemma3:270m", "q8:latest"])]
    models: Vec<String>,
    /// What the gateway is not given, for one that does not know it: `keys`, `settings`; repeatable.
    #[arg(long, value_parser = ["keys", "settings"])]
    without: Vec<String>,
    /// How often the gateway is killed (kill, R11).
    #[arg(long, visible_alias = "rounds", default_value_t = 10)]
    kills: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the JSON lines to a file too.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Scenario {
    fn plan(&self) -> scenario::Plan {
        let model = |place: usize| self.models.get(place).cloned().unwrap_or_default();
        scenario::Plan {
            arriero: self.arriero.clone(),
            upstream: self.upstream,
            models: [model(0), model(1)],
            without: scenario::world::Without { keys: self.lacks("keys"), settings: self.lacks("settings") },
            kills: self.kills.clamp(1, 1_000),
            seed: self.seed,
        }
    }

    fn lacks(&self, what: &str) -> bool {
        self.without.iter().any(|word| word == what)
    }

    fn wanted(&self) -> Vec<String> {
        if self.names.iter().any(|name| name == "all") {
            return scenario::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
        }
        self.names.clone()
    }

    /// One after the other; a scenario that cannot be run fails, and the others go on.
    async fn run(&self) -> Result<ExitCode> {
        if self.names.iter().any(|name| name == "list") {
            for (name, about) in scenario::ALL {
                println!("{name:8} {about}");
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut printer = Printer::new(self.out.as_ref())?;
        for name in self.wanted() {
            let report = scenario::run(&name, &self.plan()).await.unwrap_or_else(|error| {
                let mut report = Report::new(&name, "loopback", 1);
                report.errors([format!("{error:#}")]);
                report
            });
            printer.print(&report)?;
        }
        Ok(code(&printer))
    }
}

#[derive(Args)]
struct Measure {
    /// The gateway's binary; without it only the other sides are measured.
    #[arg(long)]
    arriero: Option<PathBuf>,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// How long each side is under load in each round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Tokens of a small answer.
    #[arg(long, default_value_t = 8)]
    tokens: usize,
    /// Scenarios whose name contains this, e.g. `light` or `small-stream-shared`; repeatable.
    #[arg(long)]
    only: Vec<String>,
    /// Write the JSON lines to a file too.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Measure {
    fn plan(&self) -> Plan {
        Plan {
            arriero: self.arriero.clone(),
            rounds: usize::try_from(self.rounds).unwrap_or(5),
            seconds: self.seconds.clamp(0.1, 60.0),
            connections: self.connections.clamp(1, 1_000),
            tokens: self.tokens.clamp(1, 10_000),
            only: self.only.clone(),
        }
    }
}

/// Prints reports and remembers whether one failed.
struct Printer {
    file: Option<std::fs::File>,
    failed: bool,
}

impl Printer {
    fn new(out: Option<&PathBuf>) -> Result<Self> {
        let open = |path: &PathBuf| std::fs::File::create(path).with_context(|| format!("creating {}", path.display()));
        Ok(Self { file: out.map(open).transpose()?, failed: false })
    }

    fn print(&mut self, report: &Report) -> Result<()> {
        let line = report.json().to_string();
        println!("{line}");
        if let Some(file) = &mut self.file {
            writeln!(file, "{line}")?;
        }
        self.failed |= report.passed() == Some(false);
        Ok(())
    }
}

fn main() -> ExitCode {
    run(Cli::parse()).unwrap_or_else(|error| {
        eprintln!("arriero-bench: {error:#}");
        ExitCode::from(2)
    })
}

fn run(cli: Cli) -> Result<ExitCode> {
    // One thread: upstream and load share a core, and a second thread would only move work about.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Fake(fake) => serve(fake).await,
            Command::Overhead(measure) => {
                let mut printer = Printer::new(measure.out.as_ref())?;
                measure::overhead::run(&measure.plan(), |report| printer.print(&report)).await?;
                Ok(code(&printer))
            }
            Command::Idle(measure) => {
                let mut printer = Printer::new(measure.out.as_ref())?;
                printer.print(&measure::idle::run(&measure.plan()).await?)?;
                Ok(code(&printer))
            }
            Command::Scenario(scenario) => scenario.run().await,
        }
    })
}

fn code(printer: &Printer) -> ExitCode {
    if printer.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn serve(fake: Fake) -> Result<ExitCode> {
    let models = if fake.models.is_empty() { Model::recorded() } else { fake.models.iter().map(|name| Model::new(name)).collect() };
    let script = Script {
        models,
        text: if fake.numbered { Text::Numbered(fake.tokens) } else { Text::Words(fake.tokens) },
        prefill: Duration::from_millis(fake.prefill_ms),
        prefill_per_token: Duration::from_micros(fake.prefill_per_token_us),
        token_gap: Duration::from_millis(fake.token_gap_ms),
        tokens_per_second: fake.tokens_per_second.max(0.0),
        version: fake.ollama_version,
        slots: fake.slots,
        max_queue: fake.max_queue,
        max_loaded: fake.max_loaded,
        load_time: Duration::from_millis(fake.load_ms),
        remember: 256,
        ..Script::default()
    };
    let running = FakeOllama::spawn_at(fake.listen, script).await.with_context(|| format!("listening on {}", fake.listen))?;
    println!("{}", running.url());
    tokio::signal::ctrl_c().await?;
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}
