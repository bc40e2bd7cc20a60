//! `arriero convert`: GGUF files of a model, checked and published. By itself, without a gateway; or, with `--job`, as a job of a running one.

mod reference;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use reference::Reference;

use crate::cli::args::Convert;
use crate::cli::client::Client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::watching::Watching;
use crate::cli::{inspect, jobs, terminal, values};
use crate::config::{self, Variables};
use crate::domain::id::ModelName;
use crate::gguf::file_type::FileType;
use crate::jobs::convert::{self, Options, Outcome, Target};
use crate::jobs::make::steps::{self, Delivered, Shipment, Watcher};
use crate::jobs::make::{Checking, Named, Others, Places, Publishing, Server, Wish, installed};
use crate::jobs::publish::{library, versions};

/// # Errors
/// What keeps the model from being made, checked or published.
pub fn run(args: &Convert, variables: &Variables) -> Result<Exit, Failure> {
    let wish = wish(args)?;
    if args.job {
        let client = Client::of(&args.operating, variables)?;
        return crate::cli::wait(jobs::submit_input(&client, "convert", &json!(wish), args.operating.json));
    }
    let settings = inspect::load(args.settings.config.as_deref(), variables, &args.settings.overrides())?.config;
    let command = Command::new(args, wish, &settings)?;
    if args.plan { command.plan(args.operating.json) } else { command.make() }
}

/// What the flags say, in the words of a job.
fn wish(args: &Convert) -> Result<Wish, Failure> {
    let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let bounds = (args.max_divergence, args.max_perplexity_ratio, args.min_top_agreement);
    let check = (args.check || args.text.is_some() || bounds != (None, None, None)).then(|| Checking {
        text: text(&args.text),
        max_tokens: None,
        max_divergence: args.max_divergence,
        max_perplexity_ratio: args.max_perplexity_ratio,
        min_top_agreement: args.min_top_agreement,
    });
    let publish = args.publish.as_deref().map(|name| publishing(args, name)).transpose()?;
    Ok(Wish {
        source: args.source.clone(),
        types: args.quant.clone(),
        adapter: text(&args.adapter),
        base: text(&args.base),
        imatrix: text(&args.imatrix),
        name: args.name.clone(),
        pre_tokenizer: args.pre_tokenizer.clone(),
        allow_requantize: args.allow_requantize,
        check,
        publish,
    })
}

fn publishing(args: &Convert, name: &str) -> Result<Publishing, Failure> {
    let name = ModelName::parse(name).map_err(|error| usage(error.to_string()))?;
    let preset = args.preset.as_deref().map(|preset| serde_json::from_value(json!(preset))).transpose();
    let read = |path: &Option<PathBuf>| path.as_deref().map(read_text).transpose();
    Ok(Publishing {
        name,
        to: args.to.clone(),
        library: args.library,
        preset: preset.map_err(|error| usage(error.to_string()))?,
        parameters: args.parameters.iter().cloned().collect(),
        system: args.system.clone(),
        template: read(&args.template)?,
        license: read(&args.license)?.into_iter().collect(),
        messages: Vec::new(),
    })
}

/// Where a model is; one on the Hub is fetched.
///
/// # Errors
/// A tag that the Ollama of this machine does not have, and what keeps a model from being fetched.
pub fn located(model: &str, settings: &config::Config) -> Result<PathBuf, Failure> {
    match Named::of(model) {
        Named::Ollama(tag) => installed::weights(&settings.jobs.ollama_models, tag).map_err(|error| model_file(error.to_string())),
        Named::Hub(name) => fetch(name, settings),
        Named::Path(path) => Ok(PathBuf::from(path)),
    }
}

/// Fetches a model from the Hub into the data folder, where it stays for the next time.
fn fetch(name: &str, settings: &config::Config) -> Result<PathBuf, Failure> {
    let watching = Watching::new();
    watching.stop_on_interrupt();
    let folder = settings.data_dir.join("hub");
    let path = steps::fetch(name, &folder, &settings.jobs.hub, &watching);
    let exit = if watching.cancel().is_cancelled() { Exit::Interrupted } else { Exit::Failure };
    let path =
        path.map_err(|error| Failure::new(exit, error.to_string(), "what came so far stays; the same command goes on from there"))?;
    watching.say(&format!("{name} lies in {}", path.display()));
    Ok(path)
}

fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| usage(format!("{} cannot be read: {error}", path.display())))
}

fn usage(what: String) -> Failure {
    Failure::new(Exit::Usage, what, "`arriero convert --help` shows what it takes")
}

/// Everything that is known before the work begins.
struct Command<'a> {
    args: &'a Convert,
    wish: Wish,
    types: Vec<FileType>,
    places: Places,
    target: Target,
    threads: NonZeroUsize,
    servers: Vec<Server>,
    settings: &'a config::Config,
}

impl<'a> Command<'a> {
    fn new(args: &'a Convert, wish: Wish, settings: &'a config::Config) -> Result<Self, Failure> {
        let types = wish.validate().map_err(|wrong| usage(wrong.to_string()))?;
        let source = located(&wish.source, settings)?;
        let others = Others { adapter: args.adapter.clone(), base: args.base.clone(), imatrix: args.imatrix.clone() };
        let places = wish.places(source, others).map_err(|wrong| usage(wrong.to_string()))?;
        let servers: Vec<Server> = settings.ollama.iter().cloned().map(Server).collect();
        let chosen = wish.publish.as_ref().map(|publishing| publishing.choose(&servers).map(drop));
        chosen.transpose().map_err(|wrong| usage(wrong.to_string()))?;
        let target = target(args.out.as_deref(), types.len())?;
        let threads = args.threads.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
        Ok(Self { args, wish, types, places, target, threads, servers, settings })
    }

    fn options(&self, types: Vec<FileType>) -> Options {
        let options = self.wish.options(&self.places, types, self.target.clone(), self.threads);
        Options { overwrite: self.args.overwrite, ..options }
    }

    /// Says what would be made.
    fn plan(&self, as_json: bool) -> Result<Exit, Failure> {
        let plan = convert::plan(&self.options(self.types.clone())).map_err(|error| failure(&error))?;
        let file = |file: &convert::PlannedFile| {
            json!({"path": file.path, "type": file.file_type.name(), "size_bytes": file.size_bytes, "tensors": file.tensors,
                "parameters": plan.parameters, "peak_memory_bytes": plan.peak_memory_bytes})
        };
        let files: Vec<Value> = plan.files.iter().map(file).collect();
        if as_json {
            terminal::print(&format!("{:#}", json!({"files": files})))?;
            return Ok(Exit::Ok);
        }
        let row = |file: &Value| {
            [
                values::text(&file["path"]),
                values::text(&file["type"]),
                values::bytes(&file["size_bytes"]),
                values::bytes(&file["peak_memory_bytes"]),
            ]
        };
        terminal::print(&terminal::harmless(&terminal::table(&values::rows(["FILE", "TYPE", "SIZE", "MEMORY"], files.iter().map(row)))))?;
        Ok(Exit::Ok)
    }

    fn make(&self) -> Result<Exit, Failure> {
        let watching = Watching::new();
        watching.stop_on_interrupt();
        if let Some(folder) = self.folder() {
            std::fs::create_dir_all(folder)?;
        }
        let mut made = Vec::new();
        for kind in &self.types {
            let outcome = steps::convert(&self.options(vec![*kind]), &watching).map_err(|error| failure(&error))?;
            watching.say(&format!(
                "{}: {}, {} tensors, SHA-256 {}, {:.1} s",
                outcome.path.display(),
                values::bytes(&json!(outcome.size_bytes)),
                outcome.tensors,
                outcome.sha256,
                outcome.seconds
            ));
            made.push(outcome);
        }
        let checks = self.check(&made, &watching)?;
        let published = self.publish(&made, &watching)?;
        watching.clear();
        if self.args.operating.json {
            terminal::print(&format!(
                "{:#}",
                json!({"files": made.iter().map(file).collect::<Vec<_>>(), "checks": checks, "published": published})
            ))?;
        }
        Ok(Exit::Ok)
    }

    fn folder(&self) -> Option<&Path> {
        if let Target::Folder(folder) = &self.target { Some(folder) } else { None }
    }

    fn check(&self, made: &[Outcome], watching: &Watching) -> Result<Vec<Value>, Failure> {
        let Some(checking) = &self.wish.check else { return Ok(Vec::new()) };
        let reference = Reference::of(self, made, watching)?;
        let mut checks = Vec::new();
        for outcome in made {
            let compared = steps::compare(&outcome.path, &reference.path, checking, self.args.text.clone(), watching);
            let compared = compared.map_err(|error| Failure::new(Exit::Failure, error.to_string(), ""))?;
            for (ending, text) in [("json", &compared.json), ("md", &compared.markdown), ("html", &compared.html)] {
                std::fs::write(beside(&outcome.path, &format!("check.{ending}")), text)?;
            }
            let report = beside(&outcome.path, "check.md");
            if !compared.passed {
                let why = format!("{} does not pass its check: {}", outcome.path.display(), compared.failures.join("; "));
                return Err(Failure::new(Exit::Failure, why, format!("{} has the figures", report.display())));
            }
            watching.say(&format!("{}: passed, see {}", outcome.path.display(), report.display()));
            checks.push(json!({"type": outcome.file_type.name(), "passed": true, "figures": compared.figures}));
        }
        Ok(checks)
    }

    fn publish(&self, made: &[Outcome], watching: &Watching) -> Result<Vec<Value>, Failure> {
        let Some(publishing) = &self.wish.publish else { return Ok(Vec::new()) };
        let servers = publishing.choose(&self.servers).map_err(|wrong| usage(wrong.to_string()))?;
        let library = self.settings.data_dir.join(library::FOLDER);
        let mut published = Published::default();
        for outcome in made {
            let manifest = publishing.manifest(outcome.file_type, made.len() > 1).map_err(|wrong| usage(wrong.to_string()))?;
            let name = outcome.path.file_name().unwrap_or_default().to_string_lossy();
            std::fs::write(beside(&outcome.path, "Modelfile"), steps::modelfile(&manifest, &name))?;
            let shipment = Shipment {
                path: outcome.path.as_path().into(),
                sha256: &outcome.sha256,
                manifest: &manifest,
                servers: &servers,
                library: publishing.library.then_some(library.as_path()),
                config: &self.settings.jobs.publish,
                versions: &self.settings.data_dir.join(versions::FOLDER),
                lineage: &json!({"source": self.wish.source, "adapter": self.wish.adapter, "type": outcome.file_type.name()}),
            };
            let delivered = steps::publish(&shipment, watching).map_err(|error| Failure::new(Exit::Refused, error.to_string(), ""))?;
            published.add(delivered, manifest.name.as_str(), watching);
        }
        published.end(watching, "the files stay; the same command publishes them again (with --overwrite)")
    }
}

/// What became of publications. One that fails does not keep others from being made.
#[derive(Default)]
pub struct Published {
    done: Vec<Value>,
    failed: Vec<String>,
}

impl Published {
    /// Says what became of deliveries.
    pub fn add(&mut self, delivered: Vec<Delivered>, name: &str, watching: &Watching) {
        for one in delivered {
            match told(&one, name) {
                Ok(line) => {
                    watching.say(&line);
                    self.done.push(json!({"name": name, "to": one.to, "outcome": one.outcome.ok()}));
                }
                Err(line) => self.failed.push(line),
            }
        }
    }

    /// # Errors
    /// When one of them failed.
    pub fn end(self, watching: &Watching, todo: &str) -> Result<Vec<Value>, Failure> {
        if self.failed.is_empty() {
            return Ok(self.done);
        }
        let exit = if watching.cancel().is_cancelled() { Exit::Interrupted } else { Exit::Refused };
        Err(Failure::new(exit, self.failed.join("\n"), todo))
    }
}

/// How a delivery ended, in a line.
fn told(one: &Delivered, name: &str) -> Result<String, String> {
    match &one.outcome {
        Ok(outcome) if outcome["version"].is_u64() => Ok(format!("{name}: version {}; `arriero versions` lists them", outcome["version"])),
        Ok(outcome) if outcome["not_kept"].is_string() => Ok(format!(
            "{name}: published, but not kept as a version to come back to: {}",
            outcome["not_kept"].as_str().unwrap_or_default()
        )),
        Ok(outcome) => {
            let word = outcome["action"].as_str().unwrap_or("there, and served from the next start of the gateway on");
            Ok(format!("{name} on {}: {word}", one.to))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// A file for one type when it is named as one, otherwise a folder.
fn target(out: Option<&Path>, types: usize) -> Result<Target, Failure> {
    match out {
        None => Ok(Target::Folder(PathBuf::from("."))),
        Some(path) if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) => {
            let several = || usage(format!("{} is one file, and {types} types are wanted: name a folder", path.display()));
            if types == 1 { Ok(Target::File(path.to_owned())) } else { Err(several()) }
        }
        Some(path) => Ok(Target::Folder(path.to_owned())),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn file(outcome: &Outcome) -> Value {
    json!({"path": outcome.path, "type": outcome.file_type.name(), "size_bytes": outcome.size_bytes, "sha256": outcome.sha256,
        "tensors": outcome.tensors, "parameters": outcome.parameters, "seconds": outcome.seconds})
}

fn failure(error: &convert::Error) -> Failure {
    let exit = match error {
        convert::Error::Cancelled => Exit::Interrupted,
        convert::Error::Malformed { .. } | convert::Error::Unsupported { .. } | convert::Error::Gguf { .. } => Exit::ModelFile,
        _ => Exit::Failure,
    };
    Failure::new(exit, error.to_string(), "")
}

fn model_file(what: String) -> Failure {
    Failure::new(Exit::ModelFile, what, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_file_when_it_is_named_as_one() {
        assert_eq!(target(None, 2).expect("a folder"), Target::Folder(".".into()));
        assert_eq!(target(Some(Path::new("a.gguf")), 1).expect("a file"), Target::File("a.gguf".into()));
        assert_eq!(target(Some(Path::new("a.d")), 2).expect("a folder"), Target::Folder("a.d".into()));
        assert_eq!(target(Some(Path::new("a.GGUF")), 2).expect_err("one file").exit, Exit::Usage);
    }

    #[test]
    fn what_lies_beside_a_file_is_called_after_it() {
        assert_eq!(beside(Path::new("x/m-Q4_K_M.gguf"), "check.md"), Path::new("x/m-Q4_K_M.check.md"));
        assert_eq!(beside(Path::new("m.gguf"), "Modelfile"), Path::new("m.Modelfile"));
    }
}
