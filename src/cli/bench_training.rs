//! `arriero bench-training`: figures of the fine-tuning engine as JSON, and its check against the CPU.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IntoDeserializer;

use super::args::BenchTraining;
use super::exit::{Exit, Failure};
use super::terminal;
use crate::jobs::finetune::engine::Precision;
use crate::jobs::finetune::measure::{self, Check, Shape, Wanted};
use crate::lm::Choice;

/// Prints one JSON object (see [`measure::Measurement`]), or one for each check.
///
/// # Errors
/// When there is no such device or model, a pass fails, or a check does.
pub fn run(args: &BenchTraining) -> Result<Exit, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failure, error.to_string(), "");
    let device = Choice::deserialize(args.device.as_str().into_deserializer())
        .map_err(|error: serde::de::value::Error| usage(&error.to_string(), ""))?;
    let folder = Folder::new(&args.folder).map_err(|error| failed(&error))?;
    if args.check {
        return check(device, &folder.0);
    }
    let measured = measure::measure(&wanted(args)?, device, &folder.0).map_err(|error| failed(&error))?;
    terminal::print(&serde_json::to_string(&measured).map_err(|error| failed(&error))?)?;
    Ok(Exit::Ok)
}

/// A folder of this run's own, away when it is over.
struct Folder(PathBuf);

impl Folder {
    fn new(within: &Path) -> io::Result<Self> {
        let path = within.join(format!("arriero-bench-training-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn usage(what: &str, hint: &str) -> Failure {
    Failure::new(Exit::Usage, what.to_owned(), hint)
}

fn check(device: Choice, folder: &Path) -> Result<Exit, Failure> {
    let (mut failed, mut all, mut written) = (0, 0, Ok::<_, Failure>(()));
    let tell = |check: &Check| {
        all += 1;
        failed += usize::from(!check.passed);
        if written.is_ok() {
            let line = serde_json::to_string(check).map_err(|error| Failure::new(Exit::Failure, error.to_string(), ""));
            written = line.and_then(|line| Ok(terminal::print(&line)?));
        }
    };
    measure::check(device, folder, tell).map_err(|error| Failure::new(Exit::Failure, error.to_string(), ""))?;
    written?;
    if failed == 0 {
        return Ok(Exit::Ok);
    }
    Err(Failure::new(Exit::Failure, format!("{failed} of {all} checks failed"), "do not train on this device"))
}

fn wanted(args: &BenchTraining) -> Result<Wanted, Failure> {
    let known = || usage(&format!("there is no shape `{}`", args.shape), &format!("give one of {}", Shape::names()));
    let kind = measure::KINDS.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(&args.weights));
    Ok(Wanted {
        shape: Shape::named(&args.shape).ok_or_else(known)?,
        kind: kind.ok_or_else(|| usage(&format!("there are no weights `{}`", args.weights), "give bf16, q4_k or another ggml type"))?,
        rows: args.rows,
        tokens: args.tokens,
        micro_batches: args.micro_batches,
        rank: args.rank,
        dora: args.dora,
        dropout: args.dropout,
        checkpointing: args.checkpointing.parse().map_err(|error| usage(&format!("{error}"), ""))?,
        precision: if args.single { Precision::Single } else { Precision::Brain },
        logits_bytes: args.logits_mib.map(|mib| usize::from(mib) << 20),
        steps: args.steps,
        trace: args.trace,
    })
}
