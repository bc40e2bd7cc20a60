//! The kind of job `convert`: what it takes, and what an input will need.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde_json::Value;

use super::errand::{fault, fetched, located, wrong};
use super::making::{Making, Results, Stage};
use super::places::Places;
use super::wish::{Named, Others, Wish};
use crate::domain::principal::Role;
use crate::gguf::file_type::FileType;
use crate::jobs::convert::{self, Options, Target};
use crate::jobs::download;
use crate::jobs::kind::{Fault, Ground, Kind, Plan, reference};
use crate::jobs::worker::Context;
use crate::storage::jobs::Needs;

/// What the process takes beside the work itself.
const BASE_BYTES: u64 = 128 << 20;
/// What a comparison holds: rows of logits and caches of two models; their weights are mapped from their files.
const CHECK_BYTES: u64 = 1 << 30;

pub struct Convert;

impl Kind for Convert {
    fn name(&self) -> &'static str {
        "convert"
    }

    fn about(&self) -> &'static str {
        "Makes GGUF files of a Hugging Face folder, a GGUF file or a model that Ollama has, in the types that are named; compares them with their \
         source where `check` is given, and publishes them where `publish` is. The files, reports and Modelfiles are its artifacts."
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Value {
        serde_json::from_str(include_str!("schema.json")).unwrap_or_default()
    }

    /// Publishing changes what others are served, and fetching what the machine asks of the network.
    fn role(&self, input: &Value) -> Role {
        let fetches = input["source"].as_str().is_some_and(|source| matches!(Named::of(source), Named::Hub(_)));
        if fetches || !input["publish"].is_null() { Role::Operator } else { Role::User }
    }

    fn plan(&self, input: &Value, ground: &Ground) -> Result<Plan, Fault> {
        let wish = read(input)?;
        let types = wish.validate().map_err(|error| wrong(&error))?;
        if let Some(publishing) = &wish.publish {
            publishing.choose(&ground.servers).map_err(|error| wrong(&error))?;
        }
        if wish.check.is_some() && !cfg!(feature = "embedded") {
            return Err(Fault::Input("`check` needs the embedded engine, which this build does not have".to_owned()));
        }
        // What an earlier job is going to make cannot be looked at yet.
        let later = [Some(&wish.source), wish.adapter.as_ref(), wish.base.as_ref(), wish.imatrix.as_ref()];
        let later = later.into_iter().flatten().any(|path| reference(path).is_some());
        let hub = if let Named::Hub(name) = Named::of(&wish.source) { Some(name) } else { None };
        hub.map(str::parse::<download::Name>).transpose().map_err(|error| Fault::Input(error.to_string()))?;
        let resolve = |path: &str| Ok(ground.roots.resolve(path)?);
        let places = if later || hub.is_some() { None } else { Some(find(&wish, ground, None, resolve)?) };
        let mut needs = Needs { cpu_threads: ground.cpu_threads.max(1), gpus: 0, memory_bytes: 2 * BASE_BYTES, disk_bytes: 0 };
        if let Some(places) = &places {
            add_up(&mut needs, &wish, &types, places)?;
        }
        if wish.check.is_some() {
            needs.memory_bytes = needs.memory_bytes.max(CHECK_BYTES);
        }
        Ok(Plan { steps: Stage::all(&wish, &types).into_iter().map(Stage::name).collect(), needs })
    }

    fn run(&self, context: &mut Context, input: &Value) -> Result<Value, Fault> {
        let wish = read(input)?;
        let types = wish.validate().map_err(|error| wrong(&error))?;
        let reporter = context.reporter();
        let fetched = fetched(context, &wish.source, &reporter)?;
        let places = find(&wish, context.ground(), fetched, |path| context.resolve(path))?;
        let making = Making::new(context, wish, places, reporter)?;
        let mut result = Results::default();
        for (number, stage) in (0..).zip(Stage::all(&making.wish, &types)) {
            making.stage(context, number, stage, types.len() > 1, &mut result)?;
        }
        Ok(serde_json::to_value(result).unwrap_or_default())
    }
}

fn read(input: &Value) -> Result<Wish, Fault> {
    serde_json::from_value(input.clone()).map_err(|error| Fault::Input(error.to_string()))
}

/// Finds the files of a wish; `resolve` finds a path that a client names.
fn find(wish: &Wish, ground: &Ground, fetched: Option<PathBuf>, resolve: impl Fn(&str) -> Result<PathBuf, Fault>) -> Result<Places, Fault> {
    let source = located(&wish.source, ground, fetched, &resolve)?;
    let optional = |path: &Option<String>| path.as_deref().map(&resolve).transpose();
    let others = Others { adapter: optional(&wish.adapter)?, base: optional(&wish.base)?, imatrix: optional(&wish.imatrix)? };
    wish.places(source, others).map_err(|error| wrong(&error))
}

/// Adds what the conversions take.
fn add_up(needs: &mut Needs, wish: &Wish, types: &[FileType], places: &Places) -> Result<(), Fault> {
    let reference = (wish.check.is_some() && places.reference().is_none()).then(|| vec![places.reference_type()]);
    for types in std::iter::once(types.to_vec()).chain(reference) {
        // Nothing is written to it.
        let options = wish.options(places, types, Target::Folder(PathBuf::from(".")), threads(needs.cpu_threads));
        let plan = convert::plan(&Options { overwrite: true, ..options }).map_err(fault)?;
        needs.disk_bytes = needs.disk_bytes.saturating_add(plan.size_bytes());
        needs.memory_bytes = needs.memory_bytes.max(plan.peak_memory_bytes.saturating_add(BASE_BYTES));
    }
    Ok(())
}

/// As many as the job may keep busy.
pub fn threads(count: u32) -> NonZeroUsize {
    usize::try_from(count).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}
