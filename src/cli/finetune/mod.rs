//! `arriero finetune`: from rows to a model that is served. By itself, without a gateway; or, with `--job`, as a job of a running one.

mod wish;

use std::fs::{File, TryLockError};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::args::Finetune;
use crate::cli::client::Client;
use crate::cli::collection::Brought;
use crate::cli::exit::{Exit, Failure};
use crate::cli::watching::Watching;
use crate::cli::{answering, convert, inspect, jobs, terminal, values};
use crate::config::{self, Variables};
use crate::domain::clock::Clock;
use crate::gguf::file_type::FileType;
use crate::jobs::dataset::teacher;
use crate::jobs::evaluate::Score;
use crate::jobs::finetune::job::{self, Asked, Data, Error, Ingredients, Model, Run, Tested, Tuning, Wish};
use crate::jobs::make::steps::{self, Shipment};
use crate::jobs::make::{Places, Server};
use crate::jobs::publish::{library, versions};
use crate::lm::Device;

/// # Errors
/// What keeps the model from being trained or published.
pub fn run(args: &Finetune, variables: &Variables) -> Result<Exit, Failure> {
    let mut wish = wish::wish(args)?;
    if args.job {
        let client = Client::of(&args.operating, variables)?;
        return crate::cli::wait(async {
            if args.upload {
                jobs::upload_sources(&client, &mut wish.data.sources).await?;
            }
            jobs::submit_input(&client, "finetune", &json!(wish), args.operating.json).await
        });
    }
    let settings = inspect::load(args.settings.config.as_deref(), variables, &args.settings.overrides())?.config;
    let asked = answering::gateway(&settings.jobs.teacher, args.teacher_url.as_deref(), &args.operating, variables);
    let command = Command::new(args, wish, &settings, asked)?;
    if args.plan { command.plan() } else { command.make() }
}

fn usage(what: String) -> Failure {
    Failure::new(Exit::Usage, what, "`arriero finetune --help` shows what it takes")
}

/// Everything that is known before the work begins.
struct Command<'a> {
    wish: Wish,
    places: Places,
    teacher: Option<Places>,
    /// Who writes answers, if it is a file, and who is asked otherwise.
    answering: Option<PathBuf>,
    gateway: teacher::Config,
    folder: PathBuf,
    device: Device,
    threads: NonZeroUsize,
    servers: Vec<Server>,
    settings: &'a config::Config,
    brought: Brought,
    as_json: bool,
}

impl<'a> Command<'a> {
    fn new(args: &Finetune, wish: Wish, settings: &'a config::Config, gateway: teacher::Config) -> Result<Self, Failure> {
        let base = convert::located(&wish.base, settings)?;
        let teacher = wish.teacher.as_deref().map(|teacher| convert::located(teacher, settings)).transpose()?.map(Places::of);
        let answering = answering::file(wish.data.teacher.as_ref(), settings)?;
        let servers: Vec<Server> = settings.ollama.iter().cloned().map(Server).collect();
        let chosen = wish.publish.as_ref().map(|publishing| publishing.choose(&servers).map(drop));
        chosen.transpose().map_err(|wrong| usage(wrong.to_string()))?;
        let threads = args.threads.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
        // The pool that products are computed on; it is there already only where this is called twice.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global();
        let device = Device::choose(wish.device, Some(threads.get())).map_err(|error| failure(&Error::Device(error)))?;
        let brought = Brought::of(&wish.data.sources, || Ok(settings.clone()))?;
        let folder = args.folder.clone().unwrap_or_else(|| settings.data_dir.join("finetune").join(job::file_name(&args.out)));
        Ok(Self {
            wish,
            places: Places::of(base),
            teacher,
            answering,
            gateway,
            folder,
            device,
            threads,
            servers,
            settings,
            brought,
            as_json: args.operating.json,
        })
    }

    /// Says what would be taken.
    fn plan(&self) -> Result<Exit, Failure> {
        let mut bytes = 0;
        for source in &self.wish.data.sources {
            let name = source.name();
            bytes +=
                self.open(&name).and_then(|file| file.metadata().map_err(|error| unread(&name, &error))).map_err(|e| failure(&e))?.len();
        }
        let threads = u32::try_from(self.threads.get()).unwrap_or(u32::MAX);
        let models = job::Models { base: Some(&self.places), teacher: self.teacher.as_ref() };
        let needs = job::needs(&self.wish, models, bytes, (threads, 0)).map_err(|error| failure(&error))?;
        let of_device = job::device_memory_bytes(&self.wish, &self.places, &self.device).map_err(|error| failure(&error))?;
        let plan = json!({
            "device": self.device.describe(), "threads": threads, "memory_bytes": needs.memory_bytes, "disk_bytes": needs.disk_bytes,
            "device_memory_bytes": of_device, "folder": self.folder,
        });
        if self.as_json {
            terminal::print(&format!("{plan:#}"))?;
            return Ok(Exit::Ok);
        }
        let row = [
            values::text(&plan["device"]),
            values::text(&plan["threads"]),
            values::bytes(&plan["memory_bytes"]),
            values::bytes(&plan["disk_bytes"]),
            values::bytes(&plan["device_memory_bytes"]),
        ];
        let rows = values::rows(["DEVICE", "THREADS", "MEMORY", "DISK", "DEVICE MEMORY"], std::iter::once(row));
        terminal::print(&terminal::harmless(&terminal::table(&rows)))?;
        Ok(Exit::Ok)
    }

    fn open(&self, name: &str) -> Result<File, Error> {
        self.brought.open(name).unwrap_or_else(|| File::open(name)).map_err(|error| unread(name, &error))
    }

    fn make(&self) -> Result<Exit, Failure> {
        std::fs::create_dir_all(&self.folder)?;
        let _alone = alone(&self.folder)?;
        let (watching, clock) = (Watching::with_notes(), Clock::system());
        watching.stop_on_interrupt();
        let tuning = Tuning {
            wish: &self.wish,
            folder: &self.folder,
            device: &self.device,
            threads: self.threads,
            watcher: &watching,
            school: Asked { gateway: &self.gateway, file: self.answering.as_deref() },
            clock: &clock,
        };
        let made = self.train(&tuning, &watching).map_err(|error| failure(&error))?;
        let published = self.publish(&made, &watching)?;
        watching.clear();
        if self.as_json {
            terminal::print(&format!("{:#}", json!({"model": made.model, "report": made.report, "published": published})))?;
        }
        Ok(Exit::Ok)
    }

    fn train(&self, tuning: &Tuning<'_>, watching: &Watching) -> Result<Made, Error> {
        let base = tuning.base(&self.places)?;
        watching.say(&format!("{}, on {}", base.name, self.device.describe()));
        let teacher = self.teacher.as_ref().map(|places| tuning.teacher(places, &base)).transpose()?;
        if let Some(teacher) = &teacher {
            watching.say(&format!("{} teaches it", teacher.name));
        }
        let data = tuning.data(&base, &|name| self.open(name))?;
        watching.say(&rows(&data));
        let before = tuning.score("ask the base", &base.path, &base, &data)?;
        tuning.make_room(&base, teacher.as_ref(), &self.servers, self.settings.jobs.resources.unload_ollama)?;
        let run = tuning.train(&base, teacher.as_ref(), &data)?;
        watching.say(&trained(&run));
        let made_of = Ingredients { base: &base, teacher: teacher.as_ref(), data: &data, run: &run };
        let model = tuning.export(&self.places, made_of)?;
        model.warnings.iter().for_each(|warning| watching.say(warning));
        let path = self.folder.join(&model.file);
        let after = tuning.score("ask the model", &path, &base, &data)?;
        let tested = before.zip(after).map(|(before, after)| Tested { before, after });
        if let Some(tested) = &tested {
            watching.say(&compared(tested));
        }
        let report = job::report(tuning, made_of, &model, tested.as_ref());
        for (name, text) in job::texts(&report) {
            let path = self.folder.join(name);
            std::fs::write(&path, text).map_err(|source| Error::Io { doing: "write", path, source })?;
        }
        watching.say(&format!(
            "{}: {}, {}; {} says what was trained on what",
            path.display(),
            values::bytes(&json!(model.size_bytes)),
            model.file_type,
            self.folder.join("report.md").display()
        ));
        let report = serde_json::from_str(&report.to_json()).unwrap_or_default();
        let lineage = tuning.lineage(made_of, tested.as_ref());
        Ok(Made { model, report, lineage })
    }

    fn publish(&self, Made { model, lineage, .. }: &Made, watching: &Watching) -> Result<Vec<Value>, Failure> {
        let Some(publishing) = &self.wish.publish else { return Ok(Vec::new()) };
        let kind = model.file_type.parse::<FileType>().map_err(|error| usage(error.to_string()))?;
        let manifest = publishing.manifest(kind, false).map_err(|wrong| usage(wrong.to_string()))?;
        let servers = publishing.choose(&self.servers).map_err(|wrong| usage(wrong.to_string()))?;
        let (path, library) = (self.folder.join(&model.file), self.settings.data_dir.join(library::FOLDER));
        std::fs::write(self.folder.join("Modelfile"), steps::modelfile(&manifest, &model.file))?;
        let shipment = Shipment {
            path: path.into(),
            sha256: &model.sha256,
            manifest: &manifest,
            servers: &servers,
            library: publishing.library.then_some(library.as_path()),
            config: &self.settings.jobs.publish,
            versions: &self.settings.data_dir.join(versions::FOLDER),
            lineage,
        };
        let delivered = steps::publish(&shipment, watching).map_err(|error| Failure::new(Exit::Refused, error.to_string(), ""))?;
        let mut published = convert::Published::default();
        published.add(delivered, manifest.name.as_str(), watching);
        published.end(watching, "the model stays; the same command publishes it again")
    }
}

struct Made {
    model: Model,
    report: Value,
    lineage: Value,
}

/// Two runs must not share a folder.
fn alone(folder: &Path) -> Result<File, Failure> {
    let file = File::create(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what = format!("another run works in {}", folder.display());
            Err(Failure::new(Exit::Refused, what, "wait for it, or name another `--folder`"))
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn unread(path: &str, error: &std::io::Error) -> Error {
    Error::Source { path: path.to_owned(), why: format!("cannot be read: {error}") }
}

fn rows(data: &Data) -> String {
    let count =
        |statistics: &Option<_>| statistics.as_ref().map_or(0, |statistics: &crate::jobs::dataset::tokenise::Statistics| statistics.rows);
    let dropped = data.report.cleaned.dropped.total();
    let taught = data.report.taught.as_ref();
    let taught = taught.map(|taught| {
        format!("; {} answers are {}'s, {} rows went without one", taught.answered, taught.teacher.model, taught.left_out.total())
    });
    let taught = taught.unwrap_or_default();
    format!(
        "{} rows to learn from ({} tokens), {} to choose by, {} to test with; {dropped} left out{taught}",
        data.train.rows,
        data.train.tokens,
        count(&data.validation),
        count(&data.test)
    )
}

fn trained(run: &Run) -> String {
    let summary = &run.summary;
    let loss = |loss: Option<f64>| loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}"));
    format!(
        "{} steps, {:.0} tokens/s: loss {} → {}, validation {} → {}",
        summary.step,
        summary.tokens_per_s,
        loss(summary.losses.first().copied()),
        loss(summary.losses.last().copied()),
        loss(summary.evaluations.first().map(|look| look.loss)),
        loss(summary.evaluations.last().map(|look| look.loss))
    )
}

fn compared(tested: &Tested) -> String {
    let words = |score: &Score| format!("{:.1} % right, F1 {:.3}, perplexity {:.3}", 100.0 * score.accuracy, score.f1, score.perplexity);
    format!("{} test rows: before {}; now {}", tested.after.items, words(&tested.before), words(&tested.after))
}

fn failure(error: &Error) -> Failure {
    let exit = match error {
        error if error.is_stopped() => Exit::Interrupted,
        Error::Header { .. } | Error::Base(_) | Error::Subject { .. } => Exit::ModelFile,
        Error::Source { .. } | Error::Vocabulary { .. } => Exit::Usage,
        _ => Exit::Failure,
    };
    let todo = if error.is_stopped() { "the same command goes on from the last checkpoint" } else { "" };
    Failure::new(exit, error.to_string(), todo)
}
