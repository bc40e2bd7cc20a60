//! The kind of job `finetune`: what it takes, and its steps.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::error::Error;
use super::outcome::{ADAPTER, Ingredients, Model, Tested};
use super::stages::{Asked, Base, Data, Run, Tuning};
use super::wish::Wish;
use super::{follow, plan, report};
use crate::domain::clock::Clock;
use crate::domain::principal::Role;
use crate::gguf::file_type::FileType;
use crate::jobs::dataset::{self, Collected, Side};
use crate::jobs::evaluate::Score;
use crate::jobs::finetune::report::Report;
use crate::jobs::kind::{Fault, Ground, Kind, Plan, file, reference};
use crate::jobs::make::{self, Named, Places, errand, threads};
use crate::jobs::worker::{Context, Reporter};
use crate::lm::Device;

pub struct Finetune;

impl Kind for Finetune {
    fn name(&self) -> &'static str {
        "finetune"
    }

    fn about(&self) -> &'static str {
        "Trains a model on rows of a data set: LoRA, DoRA or all weights, on a GGUF file (quantised ones, too), a Hugging Face folder or a model \
         that Ollama has. Merges what was learnt into a GGUF file, asks the test rows before and after, and publishes it where `publish` is \
         given. The model, the adapter, the metrics and the report are its artifacts."
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Value {
        let mut schema: Value = serde_json::from_str(include_str!("schema.json")).unwrap_or_default();
        schema["properties"]["data"] = dataset::Dataset.schema();
        schema["properties"]["publish"] = make::Convert.schema()["properties"]["publish"].take();
        schema
    }

    /// As for conversions and for data sets.
    fn role(&self, input: &Value) -> Role {
        let fetches = input["base"].as_str().is_some_and(|base| matches!(Named::of(base), Named::Hub(_)));
        if fetches || !input["publish"].is_null() { Role::Operator } else { dataset::Dataset.role(&input["data"]) }
    }

    fn collected(&self, input: &Value) -> Vec<Collected> {
        dataset::Dataset.collected(&input["data"])
    }

    fn plan(&self, input: &Value, ground: &Ground) -> Result<Plan, Fault> {
        let wish = read(input)?;
        if let Some(publishing) = &wish.publish {
            publishing.choose(&ground.servers).map_err(|error| errand::wrong(&error))?;
        }
        let mut data_bytes = 0_u64;
        for source in &wish.data.sources {
            data_bytes = data_bytes.saturating_add(source.size_bytes(ground)?);
        }
        if let Some(answering) = wish.data.teacher.as_ref().filter(|answering| answering.is_file()) {
            planned(&answering.model, ground)?;
        }
        let base = planned(&wish.base, ground)?;
        let teacher = wish.teacher.as_deref().map(|teacher| planned(teacher, ground)).transpose()?.flatten();
        let models = plan::Models { base: base.as_ref(), teacher: teacher.as_ref() };
        let needs = plan::needs(&wish, models, data_bytes, (ground.cpu_threads, ground.gpus))?;
        Ok(Plan { steps: Stage::all(&wish).into_iter().map(|stage| stage.name().to_owned()).collect(), needs })
    }

    fn run(&self, context: &mut Context, input: &Value) -> Result<Value, Fault> {
        let wish = read(input)?;
        let (reporter, clock) = (context.reporter(), Clock::system());
        let fetched = errand::fetched(context, &wish.base, &reporter)?;
        let located = errand::located(&wish.base, context.ground(), fetched, |path| context.resolve(path))?;
        let teacher = wish.teacher.as_deref();
        let teacher = teacher.map(|teacher| errand::located(teacher, context.ground(), None, |path| context.resolve(path))).transpose()?;
        let (folder, places) = (context.work_dir().join("tuning"), Places::of(located));
        let teacher = teacher.map(Places::of);
        std::fs::create_dir_all(&folder)?;
        let threads = threads(context.threads());
        let chosen = plan::device(wish.device, context.ground().gpus);
        let device = Device::choose(chosen, Some(threads.get())).map_err(|error| Fault::Final(Error::Device(error).to_string()))?;
        let answering = wish.data.teacher.as_ref().filter(|answering| answering.is_file());
        let answering = answering.map(|file| errand::located(&file.model, context.ground(), None, |path| context.resolve(path)));
        let (answering, gateway) = (answering.transpose()?, context.ground().teacher.clone());
        let school = Asked { gateway: &gateway, file: answering.as_deref() };
        let tuning = Tuning { wish: &wish, folder: &folder, device: &device, threads, watcher: &reporter, school, clock: &clock };
        Working { tuning: &tuning, places: &places, teacher: teacher.as_ref(), reporter: &reporter }.all(context)
    }
}

fn read(input: &Value) -> Result<Wish, Fault> {
    let wish: Wish = serde_json::from_value(input.clone()).map_err(|error| Fault::Input(error.to_string()))?;
    wish.validate().map_err(|error| Fault::Input(error.to_string()))?;
    if let Some(teacher) = wish.teacher.as_deref().filter(|teacher| matches!(Named::of(teacher), Named::Hub(_))) {
        return Err(Fault::Input(format!(
            "`teacher` is {teacher}: only the base is fetched by the job; name a file, a folder or `ollama:TAG`"
        )));
    }
    Ok(wish)
}

/// Where a model is, unless that can be told only later.
fn planned(model: &str, ground: &Ground) -> Result<Option<Places>, Fault> {
    if reference(model).is_some() || matches!(Named::of(model), Named::Hub(_)) {
        return Ok(None);
    }
    Ok(Some(Places::of(errand::located(model, ground, None, |path| Ok(ground.roots.resolve(path)?))?)))
}

/// One step of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// From the Hub.
    Fetch,
    Base,
    /// That is learnt from, logit by logit.
    Teacher,
    Data,
    Before,
    Train,
    Export,
    After,
    Keep,
    Publish,
}

impl Stage {
    fn all(wish: &Wish) -> Vec<Self> {
        let fetches = matches!(Named::of(&wish.base), Named::Hub(_));
        let first = fetches.then_some(Self::Fetch).into_iter().chain([Self::Base]).chain(wish.teacher.is_some().then_some(Self::Teacher));
        // What was made is kept also where nobody can be given it.
        let usual = [Self::Data, Self::Before, Self::Train, Self::Export, Self::After, Self::Keep];
        first.chain(usual).chain(wish.publish.is_some().then_some(Self::Publish)).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Base => "base",
            Self::Teacher => "teacher",
            Self::Data => "data",
            Self::Before => "test before",
            Self::Train => "train",
            Self::Export => "export",
            Self::After => "test after",
            Self::Keep => "keep",
            Self::Publish => "publish",
        }
    }

    fn number(self, wish: &Wish) -> u32 {
        let place = Self::all(wish).iter().position(|stage| *stage == self).unwrap_or_default();
        u32::try_from(place).unwrap_or(u32::MAX)
    }
}

/// What the job answers.
#[derive(Debug, Serialize)]
struct Results {
    model: Model,
    base_sha256: String,
    data_version: String,
    steps: u64,
    loss: Option<f64>,
    validation_loss: Option<f64>,
    tokens_per_s: f64,
    accuracy_before: Option<f64>,
    accuracy_after: Option<f64>,
    published: Vec<Value>,
}

/// One job of the kind at work.
struct Working<'a> {
    tuning: &'a Tuning<'a>,
    places: &'a Places,
    teacher: Option<&'a Places>,
    reporter: &'a Reporter,
}

impl Working<'_> {
    fn all(&self, context: &mut Context) -> Result<Value, Fault> {
        let (tuning, wish) = (self.tuning, self.tuning.wish);
        let number = |stage: Stage| stage.number(wish);
        let base: Base = context.step(number(Stage::Base), &json!(null), |_| Ok(tuning.base(self.places)?))?;
        let learn_from = |places| context.step(number(Stage::Teacher), &json!(base.sha256), |_| Ok(tuning.teacher(places, &base)?));
        let teacher: Option<Base> = self.teacher.map(learn_from).transpose()?;
        let data: Data =
            context.step(number(Stage::Data), &json!(base.sha256), |context| Ok(tuning.data(&base, &|path| opened(context, path))?))?;
        let of = json!([base.sha256, data.version]);
        let before: Option<Score> =
            context.step(number(Stage::Before), &of, |_| Ok(tuning.score("ask the base", &base.path, &base, &data)?))?;
        let taught = teacher.as_ref();
        let of = json!([base.sha256, data.version, taught.map(|teacher| &teacher.sha256)]);
        let run: Run = context.step(number(Stage::Train), &of, |context| {
            tuning.make_room(&base, taught, &context.ground().servers, context.ground().unload)?;
            Ok(tuning.train(&base, taught, &data)?)
        })?;
        let made_of = Ingredients { base: &base, teacher: taught, data: &data, run: &run };
        let model: Model = context.step(number(Stage::Export), &of, |_| Ok(tuning.export(self.places, made_of)?))?;
        let path = tuning.folder.join(&model.file);
        let after: Option<Score> =
            context.step(number(Stage::After), &json!(model.sha256), |_| Ok(tuning.score("ask the model", &path, &base, &data)?))?;
        let tested = before.zip(after).map(|(before, after)| Tested { before, after });
        let written = report::report(tuning, made_of, &model, tested.as_ref());
        context.step(number(Stage::Keep), &json!(model.sha256), |context| self.keep(context, &model, &data, &written))?;
        let published = self.publish(context, &model, &path, &tuning.lineage(made_of, tested.as_ref()))?;
        let results = Results {
            base_sha256: base.sha256,
            data_version: data.version,
            steps: run.summary.step,
            loss: run.summary.losses.last().copied(),
            validation_loss: run.summary.evaluations.last().map(|look| look.loss),
            tokens_per_s: run.summary.tokens_per_s,
            accuracy_before: tested.as_ref().map(|tested| tested.before.accuracy),
            accuracy_after: tested.as_ref().map(|tested| tested.after.accuracy),
            model,
            published,
        };
        Ok(serde_json::to_value(results).unwrap_or_default())
    }

    /// Makes artifacts of what there is to look at and to use.
    fn keep(&self, context: &mut Context, model: &Model, data: &Data, report: &Report) -> Result<(), Fault> {
        let (folder, of) = (self.tuning.folder, json!({"model": model.sha256, "data": data.version}));
        context.share(&model.file, &folder.join(&model.file), Some(model.sha256.clone()), &of)?;
        if let Some(file) = &model.adapter_file {
            context.share(file, &folder.join(file), None, &of)?;
        }
        for name in ["adapter_model.safetensors", "adapter_config.json"] {
            let path = folder.join(ADAPTER).join(name);
            if path.is_file() {
                context.share(name, &path, None, &of)?;
            }
        }
        context.share(follow::METRICS, &folder.join(follow::METRICS), None, &of)?;
        for path in listed(&folder.join(follow::EVENTS))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            context.share(&name, &path, None, &of)?;
        }
        if data.report.taught.is_some() {
            context.share(dataset::teacher::KEPT, &folder.join("data").join(dataset::teacher::KEPT), None, &of)?;
        }
        for side in Side::ALL {
            let name = format!("{}.jsonl", side.name());
            context.share(&name, &folder.join("data").join(&name), None, &of)?;
        }
        let texts = report::texts(report).into_iter().chain([("data.md", data.report.markdown())]);
        for (name, text) in texts {
            context.artifact(name, &of, |out| Ok(out.write_all(text.as_bytes())?))?;
        }
        Ok(())
    }

    fn publish(&self, context: &mut Context, model: &Model, path: &Path, lineage: &Value) -> Result<Vec<Value>, Fault> {
        let Some(publishing) = &self.tuning.wish.publish else { return Ok(Vec::new()) };
        let kind = model.file_type.parse::<FileType>().map_err(|error| Fault::Final(error.to_string()))?;
        let number = Stage::Publish.number(self.tuning.wish);
        context.step(number, &json!(model.sha256), |context| {
            errand::publish(context, publishing, (path, &model.sha256), (kind, false), lineage, self.reporter)
        })
    }
}

fn opened(context: &Context, path: &str) -> Result<File, Error> {
    let found = context.open(path).and_then(|found| file(found, path));
    found.map_err(|fault| Error::Source { path: path.to_owned(), why: fault.to_string() })
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let mut paths = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::roots::Roots;

    /// A folder that jobs may read, with a tiny model and a file of rows.
    fn ground() -> (tempfile::TempDir, Ground) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("files");
        std::fs::create_dir_all(&root).expect("made");
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm_qwen2-biases.gguf");
        std::fs::copy(tiny, root.join("m.gguf")).expect("copied");
        std::fs::write(root.join("rows.jsonl"), "{\"text\": \"x\"}\n").expect("written");
        let ground = Ground::beneath(Roots::new(vec![root]));
        (folder, ground)
    }

    fn input(change: &Value) -> Value {
        let mut all = json!({"base": "files/m.gguf", "data": {"sources": [{"path": "files/rows.jsonl"}]}});
        for (key, value) in change.as_object().expect("an object") {
            all[key] = value.clone();
        }
        all
    }

    #[test]
    fn a_plan_says_the_steps_and_what_longer_passes_take_more() {
        let (_folder, ground) = ground();
        let plan = |change: Value| Finetune.plan(&input(&change), &ground).expect("a plan");
        let usual = plan(json!({}));
        assert_eq!(usual.steps, ["base", "data", "test before", "train", "export", "test after", "keep"]);
        let longer = plan(json!({"training": {"batch_tokens": 65_536}}));
        assert!(longer.needs.memory_bytes > usual.needs.memory_bytes, "{longer:?}");
        let published = plan(json!({"publish": {"name": "m", "library": true}}));
        assert_eq!(published.steps.last().map(String::as_str), Some("publish"));
        let later = plan(json!({"base": "artifact:j/m.gguf"}));
        assert!(later.needs.memory_bytes > 1 << 30);
        assert_eq!(plan(json!({"base": "hf:o/n"})).steps[0], "fetch");
    }

    #[test]
    fn what_cannot_be_trained_is_refused_before_it_is_a_job() {
        let (_folder, ground) = ground();
        let refused = |change: Value| Finetune.plan(&input(&change), &ground).expect_err("refused").to_string();
        for (change, word) in [
            (json!({"base": "files/rows.jsonl"}), "no model file"),
            (json!({"adapter": {"targets": ["attn_x"]}}), "attn_x"),
            (json!({"training": {"epochs": 0}}), "epochs"),
            (json!({"publish": {"name": "m", "to": ["nobody"]}}), "nobody"),
            (json!({"base": "../m.gguf"}), "../m.gguf"),
            (json!({"teacher": "files/none.gguf", "training": {"method": {"distill": {}}}}), "files/none.gguf"),
            (json!({"teacher": "hf:o/n", "training": {"method": {"distill": {}}}}), "only the base is fetched"),
            (json!({"teacher": "files/m.gguf", "training": {"method": {"distill": {}}}}), "no vocabulary"),
            (json!({"data": {"sources": [{"path": "files/rows.jsonl"}], "teacher": {"model": "../t.gguf"}}}), "../t.gguf"),
            (json!({"training": {"method": {"distill": {}}}}), "no `teacher`"),
            (json!({"data": {"sources": [{"path": "files"}]}}), "folder"),
        ] {
            let why = refused(change.clone());
            assert!(why.contains(word), "{change}: {why}");
        }
    }

    #[test]
    fn only_operators_publish_fetch_and_read_what_was_collected() {
        assert_eq!(Finetune.role(&input(&json!({"data": {"sources": [{"collected": {}}]}}))), Role::Operator);
        assert_eq!(Finetune.role(&input(&json!({}))), Role::User);
        assert_eq!(Finetune.role(&input(&json!({"publish": {"name": "m"}}))), Role::Operator);
        assert_eq!(Finetune.role(&input(&json!({"base": "hf:o/n"}))), Role::Operator);
        let taught = |model: &str| input(&json!({"data": {"sources": [{"path": "files/rows.jsonl"}], "teacher": {"model": model}}}));
        assert_eq!(Finetune.role(&taught("gemma3:27b")), Role::Operator);
        assert_eq!(Finetune.role(&taught("ollama:gemma3:27b")), Role::User);
    }
}
