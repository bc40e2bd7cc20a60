//! `arriero dataset`: rows for fine-tuning, cleaned and divided. By itself, without a gateway; or, with `--job`, as a job of a running one.

#[cfg(feature = "embedded")]
mod tokens;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};

use super::args::Dataset;
use super::client::Client;
use super::collection::Brought;
use super::exit::{Exit, Failure};
use super::terminal::{self, Status};
use super::{answering, inspect, jobs, values};
use crate::config::{self, Variables};
use crate::jobs::dataset::{self, Collected, Error, Prepared, School, Side, Source, Step, Teacher, Wish, teacher};

const FOLDER: &str = "dataset";

/// # Errors
/// What keeps the data set from being made.
pub fn run(args: &Dataset, variables: &Variables) -> Result<Exit, Failure> {
    let mut wish = wish(args)?;
    wish.validate().map_err(|error| failure(&error))?;
    if args.job {
        let client = Client::of(&args.operating, variables)?;
        return super::wait(async {
            if args.upload {
                jobs::upload_sources(&client, &mut wish.sources).await?;
            }
            jobs::submit_input(&client, "dataset", &json!(wish), args.operating.json).await
        });
    }
    let folder = args.out.clone().unwrap_or_else(|| PathBuf::from(FOLDER));
    if args.report && wish.teacher.is_some() {
        return Err(usage("--report asks no teacher: without it the answers are kept, and asked for once".to_owned()));
    }
    if !args.report {
        free(&folder, args.overwrite)?;
    }
    let settings = || Ok(inspect::load(args.settings.config.as_deref(), variables, &args.settings.overrides())?.config);
    let brought = Brought::of(&wish.sources, settings)?;
    let school = wish.teacher.as_ref().map(|teacher| school(args, teacher, &folder, &settings()?, variables)).transpose()?;
    let prepared = prepare(&wish, &brought, school.as_ref())?;
    if !args.report {
        write(&folder, &prepared)?;
    }
    show(args, &folder, &prepared)
}

/// What the flags say, in the words of a job.
fn wish(args: &Dataset) -> Result<Wish, Failure> {
    let mut input = args.options.as_deref().map_or_else(|| Ok(Map::new()), options)?;
    let format = args.format.as_deref().map(|name| serde_json::from_value(json!(name))).transpose();
    let format = format.map_err(|error| usage(error.to_string()))?;
    let fields: std::collections::BTreeMap<String, String> = args.fields.iter().cloned().collect();
    let rating = args.rating.as_deref().map(|word| serde_json::from_value(json!(word))).transpose();
    let rating = rating.map_err(|error| usage(error.to_string()))?;
    let source = |path: &String| match Collected::parse(path) {
        Some(collected) => Source::collected(Collected { rating, preferences: args.preferences, ..collected }),
        None => Source { format, fields: fields.clone(), ..Source::new(path) },
    };
    let sources: Vec<Source> = args.files.iter().map(source).collect();
    if (rating.is_some() || args.preferences) && sources.iter().all(|source| source.collected.is_none()) {
        return Err(usage("--rating and --preferences are of what was collected, and only files are named".to_owned()));
    }
    input.insert("sources".to_owned(), json!(sources));
    let mut wish: Wish = serde_json::from_value(Value::Object(input)).map_err(|error| usage(format!("the options: {error}")))?;
    if let Some(parts) = &args.split {
        let whole = parts.train + parts.validation + parts.test;
        (wish.split.validation, wish.split.test) = (parts.validation / whole, parts.test / whole);
    }
    if args.keep_duplicates {
        (wish.clean.duplicates, wish.clean.near_duplicates) = (false, None);
    }
    if args.no_mask {
        wish.clean.mask = dataset::Masks::none();
    }
    if !args.languages.is_empty() {
        wish.clean.languages.clone_from(&args.languages);
    }
    if let Some(model) = &args.teacher {
        let given = wish.teacher.take().unwrap_or_else(|| Teacher::new(model));
        wish.teacher = Some(Teacher { model: model.clone(), ..given });
    }
    if let (Some(teacher), Some(answers)) = (&mut wish.teacher, &args.teacher_answers) {
        teacher.answers = serde_json::from_value(json!(answers)).map_err(|error| usage(error.to_string()))?;
    }
    wish.split.group = args.group.clone().or(wish.split.group);
    wish.seed = args.seed.unwrap_or(wish.seed);
    wish.limits.max_bad_share = args.max_bad_share.unwrap_or(wish.limits.max_bad_share);
    Ok(wish)
}

fn options(path: &Path) -> Result<Map<String, Value>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| usage(format!("{} cannot be read: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| usage(format!("{} is no JSON object: {error}", path.display())))
}

fn usage(what: String) -> Failure {
    Failure::new(Exit::Usage, what, "`arriero dataset --help` shows what it takes")
}

fn failure(error: &Error) -> Failure {
    let (exit, mend) = match error {
        Error::Options(_) => (Exit::Usage, ""),
        Error::Stopped => (Exit::Interrupted, ""),
        Error::Bad { .. } => (Exit::Failure, "--report with --max-bad-share 1 shows what is wrong with the rows"),
        _ => (Exit::Failure, ""),
    };
    Failure::new(exit, error.to_string(), mend)
}

/// # Errors
/// Files that are there already.
fn free(folder: &Path, overwrite: bool) -> Result<(), Failure> {
    let there = files().map(|name| folder.join(name)).find(|path| path.exists() && !overwrite);
    there.map_or(Ok(()), |path| Err(usage(format!("{} is there already: name another folder, or --overwrite", path.display()))))
}

fn files() -> impl Iterator<Item = String> {
    Side::ALL.into_iter().map(|side| format!("{}.jsonl", side.name())).chain(["report.json", "report.md"].map(str::to_owned))
}

/// Where the answers of a teacher come from and stay.
struct Asked {
    kept: PathBuf,
    file: Option<PathBuf>,
    gateway: teacher::Config,
}

fn school(args: &Dataset, asked: &Teacher, folder: &Path, settings: &config::Config, variables: &Variables) -> Result<Asked, Failure> {
    let gateway = answering::gateway(&settings.jobs.teacher, args.teacher_url.as_deref(), &args.operating, variables);
    Ok(Asked { kept: teacher::kept_in(folder)?, file: answering::file(Some(asked), settings)?, gateway })
}

/// Imports, has the teacher answer, cleans and divides; Ctrl-C ends it.
fn prepare(wish: &Wish, brought: &Brought, asked: Option<&Asked>) -> Result<Prepared, Failure> {
    static STOP: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if runtime.is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok()) {
            STOP.store(true, Ordering::SeqCst);
        }
    });
    let mut status = Status::standard();
    let open =
        |path: &str| brought.open(path).unwrap_or_else(|| File::open(path)).map_err(|source| Error::Read { name: path.to_owned(), source });
    let school = asked.map(|asked| School { kept: &asked.kept, file: asked.file.as_deref(), accelerated: true, gateway: &asked.gateway });
    let prepared = wish.prepare(open, school.as_ref(), &mut |step, done, total, unit| {
        if status.is_shown() {
            status.show(&format!("{} {}", doing(step), jobs::bar(&json!({"done": done, "total": total, "unit": unit}))));
        }
        if STOP.load(Ordering::SeqCst) { Err(Error::Stopped) } else { Ok(()) }
    });
    status.clear();
    prepared.map_err(|error| failure(&error))
}

fn doing(step: Step) -> &'static str {
    match step {
        Step::Import => "reading",
        Step::Teach => "asking the teacher",
        Step::Clean => "cleaning",
        Step::Split => "dividing",
    }
}

/// Each file is written beside its place and moved there when it is whole.
fn write(folder: &Path, prepared: &Prepared) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    for side in Side::ALL {
        place(folder, &format!("{}.jsonl", side.name()), |out| dataset::write(prepared.side(side), out))?;
    }
    place(folder, "report.json", |out| writeln!(out, "{:#}", json!(prepared.report)))?;
    place(folder, "report.md", |out| out.write_all(prepared.report.markdown().as_bytes()))
}

fn place(folder: &Path, name: &str, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<(), Failure> {
    let beside = folder.join(format!("{name}.part"));
    let mut out = BufWriter::with_capacity(1 << 18, File::create(&beside)?);
    write(&mut out)?;
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(std::fs::rename(beside, folder.join(name))?)
}

fn show(args: &Dataset, folder: &Path, prepared: &Prepared) -> Result<Exit, Failure> {
    #[cfg(feature = "embedded")]
    let tokens = tokens::count(args, prepared)?;
    #[cfg(not(feature = "embedded"))]
    let tokens = Value::Null;
    if args.operating.json {
        let mut report = json!(prepared.report);
        report["tokens"] = tokens;
        terminal::print(&format!("{report:#}"))?;
        return Ok(Exit::Ok);
    }
    let report = &prepared.report;
    let cell = |side: Side, name: &str| tokens.get(side.name()).and_then(|all| all.get(name)).map_or_else(|| "–".to_owned(), values::text);
    let row = |side: Side| {
        let rows = report.divided.of(side).to_string();
        let counted = ["tokens", "labels", "p50_tokens", "p95_tokens", "max_tokens", "cut"].map(|name| cell(side, name));
        [vec![side.name().to_owned(), rows], if tokens.is_null() { Vec::new() } else { counted.to_vec() }].concat()
    };
    let head: &[&str] =
        if tokens.is_null() { &["SIDE", "ROWS"] } else { &["SIDE", "ROWS", "TOKENS", "LABELS", "P50", "P95", "MAX", "CUT"] };
    let mut table = vec![head.iter().map(|name| (*name).to_owned()).collect()];
    table.extend(Side::ALL.map(row));
    terminal::print(&terminal::table(&table))?;
    for line in told(prepared) {
        terminal::note(&terminal::harmless(&line));
    }
    if !args.report {
        terminal::note(&format!("{} has the rows and report.md; version {}", folder.display(), report.version));
    }
    Ok(Exit::Ok)
}

/// What was left out and changed, in lines.
fn told(prepared: &Prepared) -> Vec<String> {
    let report = &prepared.report;
    let bad = report.sources.iter().flat_map(|source| {
        source
            .bad
            .iter()
            .map(|(what, count)| format!("{}: {} rows not used: {what} (row {})", source.path, count.count, count.first.join("; ")))
    });
    let dropped =
        report.cleaned.dropped.iter().map(|(what, count)| format!("{} rows left out: {what} ({})", count.count, count.first.join(", ")));
    let masked =
        report.cleaned.masked.iter().map(|(what, count)| format!("masked in {} rows: {what} ({})", count.count, count.first.join(", ")));
    let unanswered = report.taught.iter().flat_map(|taught| taught.left_out.iter());
    let unanswered = unanswered.map(|(what, count)| format!("{} rows left out: {what} ({})", count.count, count.first.join(", ")));
    bad.chain(unanswered).chain(dropped).chain(masked).collect()
}
