//! `arriero-bench`: a fake Ollama on the command line, and the measurements. Every scenario is one line of JSON.

use anyhow::{Context, Result};
use arriero_bench::{
    FakeOllama,
    fake::{Model, Script, Text},
    measure::{self, Plan, figures::Report},
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
    /// Milliseconds to load a model.
    #[arg(long, default_value_t = 0)]
    load_ms: u64,
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
    fn new(measure: &Measure) -> Result<Self> {
        let open = |path: &PathBuf| std::fs::File::create(path).with_context(|| format!("creating {}", path.display()));
        Ok(Self { file: measure.out.as_ref().map(open).transpose()?, failed: false })
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
                let mut printer = Printer::new(&measure)?;
                measure::overhead::run(&measure.plan(), |report| printer.print(&report)).await?;
                Ok(code(&printer))
            }
            Command::Idle(measure) => {
                let mut printer = Printer::new(&measure)?;
                printer.print(&measure::idle::run(&measure.plan()).await?)?;
                Ok(code(&printer))
            }
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
