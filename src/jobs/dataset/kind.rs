//! The kind of job `dataset`: from files to the sides of a data set, as artifacts.

use std::fs::File;
use std::path::Path;

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::collected::Collected;
use super::error::Error;
use super::example::Example;
use super::import::Source;
use super::prepare::{Prepared, Step, Wish};
use super::report::{Cleaned, Report, Taught};
use super::split::Side;
use super::teacher::{self, School, Teacher};
use super::{stash, version};
use crate::domain::principal::Role;
use crate::jobs::kind::{Fault, Ground, Kind, Plan, file, reference};
use crate::jobs::make::errand;
use crate::jobs::worker::{Context, Reporter};
use crate::storage::jobs::Needs;

/// What the process takes beside the rows.
const BASE_BYTES: u64 = 96 << 20;
/// What an artifact is taken to have that an earlier job is going to make, and what was collected.
const LATER_BYTES: u64 = 256 << 20;

impl Source {
    /// How large it is, or is taken to be.
    pub(in crate::jobs) fn size_bytes(&self, ground: &Ground) -> Result<u64, Fault> {
        let known = if self.collected.is_some() { None } else { ground.size_bytes(&self.path)? };
        Ok(known.unwrap_or(LATER_BYTES))
    }
}

/// Files between steps, in the job's folder.
const IMPORTED: &str = "imported";
const TAUGHT: &str = "taught";
const CLEANED: &str = "cleaned";

pub struct Dataset;

impl Kind for Dataset {
    fn name(&self) -> &'static str {
        "dataset"
    }

    fn about(&self) -> &'static str {
        "Makes a data set for fine-tuning of JSONL, JSON, CSV, Parquet or text files, or of what the gateway collected: cleans the rows, leaves out duplicates, masks secrets and \
         personal data, and divides them without leaks. Artifacts: `train.jsonl`, `validation.jsonl`, `test.jsonl`, `report.json`, `report.md`."
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Value {
        serde_json::from_str(include_str!("schema.json")).unwrap_or_default()
    }

    /// What was collected is other people's. A teacher that a gateway serves is asked with the key of the configuration, not with that of whoever
    /// submits the job.
    fn role(&self, input: &Value) -> Role {
        let teacher = input["teacher"]["model"].as_str().map(Teacher::new);
        let asks = teacher.is_some_and(|teacher| !teacher.is_file());
        if asks || !self.collected(input).is_empty() { Role::Operator } else { Role::User }
    }

    fn collected(&self, input: &Value) -> Vec<Collected> {
        collected(&input["sources"])
    }

    fn plan(&self, input: &Value, ground: &Ground) -> Result<Plan, Fault> {
        let wish = read(input)?;
        let mut bytes = 0_u64;
        for source in &wish.sources {
            bytes = bytes.saturating_add(source.size_bytes(ground)?);
        }
        if let Some(teacher) = wish.teacher.as_ref().filter(|teacher| teacher.is_file() && reference(&teacher.model).is_none()) {
            errand::located(&teacher.model, ground, None, |path| Ok(ground.roots.resolve(path)?))?;
        }
        let memory_bytes = BASE_BYTES.saturating_add(wish.memory_bytes(bytes));
        // A teacher that is a file is run by all threads.
        let cpu_threads = if wish.teacher.as_ref().is_some_and(Teacher::is_file) { ground.cpu_threads.max(1) } else { 1 };
        let needs = Needs { cpu_threads, gpus: 0, memory_bytes, disk_bytes: bytes.saturating_mul(4) };
        let asks = wish.teacher.is_some().then_some("teacher");
        let steps = ["import"].into_iter().chain(asks).chain(["clean", "split", "write"]);
        Ok(Plan { steps: steps.map(str::to_owned).collect(), needs })
    }

    fn run(&self, context: &mut Context, input: &Value) -> Result<Value, Fault> {
        let wish = read(input)?;
        let watching = Watching(context.reporter());
        let mut held = None;
        let report = context.step(0, &json!(wish), |context| import(context, &wish, &watching, &mut held))?;
        let asks = u32::from(wish.teacher.is_some());
        let taught = if wish.teacher.is_some() {
            context.step(1, &json!(report), |context| teach(context, &wish, &watching, &mut held))?
        } else {
            None
        };
        let report = Report { taught, ..report };
        let cleaned: Cleaned = context.step(1 + asks, &json!(report), |context| clean(context, &wish, &watching, &mut held))?;
        let report = Report { cleaned, ..report };
        let report: Report = context.step(2 + asks, &json!(report), |context| divide(context, &wish, &watching, report, &mut held))?;
        context.step(3 + asks, &json!(report.version), |context| keep(context, &report))
    }
}

/// What sources want of what was collected. One that cannot be read is refused by the plan.
pub(in crate::jobs) fn collected(sources: &Value) -> Vec<Collected> {
    let all = sources.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(|source| source.get("collected")).map(|wish| Collected::deserialize(wish).unwrap_or_default()).collect()
}

fn read(input: &Value) -> Result<Wish, Fault> {
    let wish: Wish = serde_json::from_value(input.clone()).map_err(|error| Fault::Input(error.to_string()))?;
    wish.validate()?;
    Ok(wish)
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Stopped => Self::Stopped,
            Error::Options(why) => Self::Input(why),
            Error::Teacher { passing: true, .. } => Self::Passing(error.to_string()),
            Error::Write(error) => Self::Passing(error.to_string()),
            Error::Read { ref source, .. } if source.kind() != std::io::ErrorKind::InvalidData => Self::Passing(error.to_string()),
            other => Self::Final(other.to_string()),
        }
    }
}

/// Tells how far it has come.
struct Watching(Reporter);

impl Watching {
    fn told(&self, done: u64, total: u64, unit: &str) -> Result<(), Error> {
        self.0.hold();
        self.0.progress(done, total, unit);
        if self.0.stop().is_cancelled() { Err(Error::Stopped) } else { Ok(()) }
    }
}

/// Rows that the step before has left, in memory or, after another attempt, on the disk.
fn taken(held: &mut Option<Vec<Example>>, path: &Path) -> Result<Vec<Example>, Fault> {
    match held.take() {
        Some(rows) => Ok(rows),
        None => Ok(stash::read(path)?),
    }
}

fn import(context: &Context, wish: &Wish, watching: &Watching, held: &mut Option<Vec<Example>>) -> Result<Report, Fault> {
    let open = |path: &str| file(context.open(path)?, path);
    let (rows, report) = wish.import(open, &mut |_: Step, done, total, unit| watching.told(done, total, unit))?;
    stash::write(&context.work_dir().join(IMPORTED), &rows)?;
    *held = Some(rows);
    Ok(report)
}

/// What has been answered stays for the next attempt.
fn teach(context: &Context, wish: &Wish, watching: &Watching, held: &mut Option<Vec<Example>>) -> Result<Option<Taught>, Fault> {
    let (folder, ground) = (context.work_dir(), context.ground());
    let rows = taken(held, &folder.join(IMPORTED))?;
    let file = wish.teacher.as_ref().filter(|teacher| teacher.is_file());
    let file = file.map(|teacher| errand::located(&teacher.model, ground, None, |path| context.resolve(path))).transpose()?;
    let kept = teacher::kept_in(folder)?;
    let school = School { kept: &kept, file: file.as_deref(), accelerated: false, gateway: &ground.teacher };
    let (rows, taught) = wish.teach(rows, Some(&school), &mut |_, done, total, unit| watching.told(done, total, unit))?;
    stash::write(&folder.join(TAUGHT), &rows)?;
    *held = Some(rows);
    Ok(taught)
}

fn clean(context: &Context, wish: &Wish, watching: &Watching, held: &mut Option<Vec<Example>>) -> Result<Cleaned, Fault> {
    let rows = taken(held, &context.work_dir().join(if wish.teacher.is_some() { TAUGHT } else { IMPORTED }))?;
    let (rows, cleaned) = wish.clean(rows, &mut |_, done, total, unit| watching.told(done, total, unit))?;
    stash::write(&context.work_dir().join(CLEANED), &rows)?;
    *held = Some(rows);
    Ok(cleaned)
}

fn divide(context: &Context, wish: &Wish, watching: &Watching, report: Report, held: &mut Option<Vec<Example>>) -> Result<Report, Fault> {
    let rows = taken(held, &context.work_dir().join(CLEANED))?;
    let prepared: Prepared = wish.divide(rows, report, &mut |_, done, total, unit| watching.told(done, total, unit))?;
    for side in Side::ALL {
        let mut out = std::io::BufWriter::new(File::create(context.work_dir().join(side.name()))?);
        version::write(prepared.side(side), &mut out)?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    }
    Ok(prepared.report)
}

/// Makes artifacts of what the steps have left, which stays there in case that this is tried again.
fn keep(context: &mut Context, report: &Report) -> Result<Value, Fault> {
    let options = json!({"version": report.version});
    for side in Side::ALL {
        let mut rows = File::open(context.work_dir().join(side.name()))?;
        context.artifact(&format!("{}.jsonl", side.name()), &options, |out| {
            std::io::copy(&mut rows, out)?;
            Ok(())
        })?;
    }
    let kept = context.work_dir().join(teacher::KEPT);
    if report.taught.is_some() && kept.is_file() {
        context.share(teacher::KEPT, &kept, None, &options)?;
    }
    for (name, text) in [("report.json", format!("{:#}\n", json!(report))), ("report.md", report.markdown())] {
        context.artifact(name, &options, |out| Ok(out.write_all(text.as_bytes())?))?;
    }
    let rows = Side::ALL.map(|side| (side.name().to_owned(), json!(report.divided.of(side))));
    Ok(json!({
        "version": report.version,
        "rows": serde_json::Map::from_iter(rows),
        "dropped": report.cleaned.dropped.total(),
        "masked": report.cleaned.masked.total(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::roots::Roots;

    #[test]
    fn what_was_collected_is_for_operators_however_it_is_asked_for() {
        assert_eq!(Dataset.role(&json!({"sources": [{"path": "files/a.jsonl"}]})), Role::User);
        for collected in [json!({}), json!({"model": "m"}), json!(null), json!("x"), json!({"odd": 1})] {
            let input = json!({"sources": [{"path": "files/a.jsonl"}, {"collected": collected}]});
            assert_eq!((Dataset.role(&input), Dataset.collected(&input).len()), (Role::Operator, 1), "{input}");
        }
        let ground = Ground::beneath(Roots::new(Vec::new()));
        let plan = Dataset.plan(&json!({"sources": [{"collected": {"rating": "good", "since": "2030-01-31T00:00:00Z"}}]}), &ground);
        assert!(plan.is_ok(), "{plan:?}");
    }

    #[test]
    fn a_plan_says_what_it_takes_and_refuses_what_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("files");
        std::fs::create_dir_all(&root).expect("made");
        std::fs::write(root.join("a.jsonl"), vec![b' '; 1 << 20]).expect("written");
        let ground = Ground::beneath(Roots::new(vec![root]));
        let plan = |input: Value| Dataset.plan(&input, &ground);
        let small = plan(json!({"sources": [{"path": "files/a.jsonl"}]})).expect("taken");
        assert_eq!(small.steps, ["import", "clean", "split", "write"]);
        assert!(small.needs.memory_bytes > BASE_BYTES && small.needs.disk_bytes == 4 << 20);
        let later = plan(json!({"sources": [{"path": "artifact:j/x.jsonl"}], "seed": 1})).expect("taken");
        assert!(later.needs.memory_bytes > small.needs.memory_bytes);
        let sizes = std::collections::BTreeMap::from([("artifact:j/x.jsonl".to_owned(), 1 << 20)]);
        let there = Ground { sizes, ..ground.clone() };
        let known = Dataset.plan(&json!({"sources": [{"path": "artifact:j/x.jsonl"}]}), &there).expect("taken");
        assert_eq!(known.needs, small.needs, "what is there by now is looked at");
        let taught = plan(json!({"sources": [{"path": "files/a.jsonl"}], "teacher": {"model": "m"}})).expect("taken");
        assert_eq!(taught.steps, ["import", "teacher", "clean", "split", "write"]);
        assert!(taught.needs.memory_bytes > small.needs.memory_bytes);
        let role = |model: &str| Dataset.role(&json!({"teacher": {"model": model}}));
        assert_eq!((role("m"), role("files/t.gguf"), Dataset.role(&json!({}))), (Role::Operator, Role::User, Role::User));
        for wrong in [
            json!({"sources": [{"path": "files/a.jsonl"}], "teacher": {"model": "m", "max_tokens": 0}}),
            json!({"sources": [{"path": "files/a.jsonl"}], "teacher": {"model": "m", "url": "http://169.254.169.254"}}),
            json!({}),
            json!({"sources": []}),
            json!({"sources": [{"path": "files/a.jsonl", "x": 1}]}),
            json!({"sources": [{"path": "files/a.jsonl"}], "split": {"test": 2}}),
            json!({"sources": [{"path": "files/a.jsonl", "share": 0.5}]}),
            json!({"sources": [{"path": "files"}]}),
            json!({"sources": [{"path": "collected"}]}),
            json!({"sources": [{"path": "files/a.jsonl", "collected": {}}]}),
            json!({"sources": [{"collected": {"model": "a b"}}]}),
            json!({"sources": [{"collected": {"rating": "fine"}}]}),
            json!({"sources": [{"collected": {}, "format": "jsonl"}]}),
            json!({"sources": [{}]}),
            json!({"sources": [{"collected": {}}, {"collected": {}}]}),
        ] {
            assert!(matches!(plan(wrong.clone()), Err(Fault::Input(_))), "{wrong}");
        }
        assert!(matches!(plan(json!({"sources": [{"path": "../x"}]})), Err(Fault::Path(_))));
        let outside = json!({"sources": [{"path": "files/a.jsonl"}], "teacher": {"model": "../t.gguf"}});
        assert!(matches!(plan(outside), Err(Fault::Path(_))));
    }
}
