//! The kind `trial`: does what a worker must be able to survive, on demand. Only there where `jobs.trial` is set.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::kind::{Fault, Ground, Kind, Plan};
use super::worker::Context;
use crate::storage::jobs::Needs;

pub struct Trial;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Input {
    /// How many steps it has.
    steps: u32,
    /// How long each takes.
    step_ms: u64,
    /// In which step it misbehaves.
    at: u32,
    how: How,
    /// Only in the first attempt.
    once: bool,
    memory_bytes: u64,
    disk_bytes: u64,
    /// How much it eats.
    eats_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Well,
    Fail,
    Refuse,
    Hang,
    Eat,
    Gorge,
    Crash,
}

impl Default for Input {
    fn default() -> Self {
        Self { steps: 1, step_ms: 0, at: 0, how: How::Well, once: false, memory_bytes: 64 << 20, disk_bytes: 4_096, eats_bytes: 2 << 30 }
    }
}

impl Kind for Trial {
    fn name(&self) -> &'static str {
        "trial"
    }

    fn about(&self) -> &'static str {
        "Sleeps, fails, hangs, eats memory or crashes, to try the workers with."
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Value {
        let number = json!({"type": "integer", "minimum": 0});
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "steps": number, "step_ms": number, "at": number, "memory_bytes": number, "disk_bytes": number, "eats_bytes": number,
                "once": {"type": "boolean"},
                "how": {"type": "string", "enum": ["well", "fail", "refuse", "hang", "eat", "gorge", "crash"]}
            }
        })
    }

    fn plan(&self, input: &Value, _: &Ground) -> Result<Plan, Fault> {
        let input = read(input)?;
        let steps = (0..input.steps).map(|n| format!("step {n}")).collect();
        let needs = Needs { cpu_threads: 1, gpus: 0, memory_bytes: input.memory_bytes, disk_bytes: input.disk_bytes };
        Ok(Plan { steps, needs })
    }

    fn run(&self, context: &mut Context, input: &Value) -> Result<Value, Fault> {
        let input = read(input)?;
        let mut made = Vec::new();
        for number in 0..input.steps {
            made.push(context.step(number, &json!(number), |context| step(context, &input, number))?);
        }
        let text = made.join("\n");
        let sha256 = context.artifact("trial.txt", &json!({"steps": input.steps}), |out| {
            out.write_all(text.as_bytes())?;
            Ok(())
        })?;
        Ok(json!({"steps": made.len(), "sha256": sha256}))
    }
}

fn read(input: &Value) -> Result<Input, Fault> {
    let input: Input = serde_json::from_value(input.clone()).map_err(|error| Fault::Input(error.to_string()))?;
    if input.steps > 1_000 { Err(Fault::Input("`steps` is at most 1000".to_owned())) } else { Ok(input) }
}

fn step(context: &mut Context, input: &Input, number: u32) -> Result<String, Fault> {
    let pieces = input.step_ms.div_ceil(20);
    for piece in 0..pieces {
        context.progress(piece, pieces, "pieces")?;
        std::thread::sleep(Duration::from_millis(20));
    }
    context.log(&format!("step {number} in attempt {}", context.attempt()));
    if number == input.at && !(input.once && context.attempt() > 1) {
        misbehave(input)?;
    }
    Ok(format!("step {number}"))
}

fn misbehave(input: &Input) -> Result<(), Fault> {
    match input.how {
        How::Well => Ok(()),
        How::Fail => Err(Fault::Passing("it was told to fail".to_owned())),
        How::Refuse => Err(Fault::Final("it was told to fail for good".to_owned())),
        How::Hang => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        How::Crash => std::process::abort(),
        // Slowly, so that the worker sees it grow.
        How::Eat => {
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            while eaten.len() << 20 < input.eats_bytes {
                eaten.push(vec![1; 1 << 20]);
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(Fault::Final(format!("{} MiB were eaten and nobody minded", std::hint::black_box(eaten).len())))
        }
        // More than is allowed at once, so that the system refuses it.
        How::Gorge => {
            let eaten = vec![1_u8; input.eats_bytes];
            Err(Fault::Final(format!("{} bytes were eaten and nobody minded", std::hint::black_box(eaten).len())))
        }
    }
}
