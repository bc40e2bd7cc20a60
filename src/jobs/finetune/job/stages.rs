//! The stages of a fine-tuning, one after the other. Each leaves what it made in the folder and says what it is, so that a later attempt can
//! pass over it.

use std::fs::File;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::follow::Following;
use super::room;
use super::teacher;
use super::wish::{Trained as What, Wish};
use crate::domain::clock::Clock;
use crate::domain::digest::Digest;
use crate::gguf::Header;
use crate::jobs::config::Unload;
use crate::jobs::convert::{self, Source, Target};
use crate::jobs::dataset::tokenise::{self, Cache, Encoder, Key, Statistics, Writer};
use crate::jobs::dataset::{self, Side};
use crate::jobs::evaluate::{self, Score};
use crate::jobs::finetune::batch::Rows;
use crate::jobs::finetune::checkpoint::Sample;
use crate::jobs::finetune::engine::{self, Engine};
use crate::jobs::finetune::learner::Tensors;
use crate::jobs::finetune::trainer::{self, Summary, Training};
use crate::jobs::make::{Places, Server, Watcher, steps};
use crate::jobs::subject::Subject;
use crate::jobs::{hash, memory};
use crate::lm::Device;

/// A fine-tuning at work.
pub struct Tuning<'a> {
    pub wish: &'a Wish,
    /// Where everything lies that it makes.
    pub folder: &'a Path,
    pub device: &'a Device,
    pub threads: NonZeroUsize,
    pub watcher: &'a dyn Watcher,
    pub school: Asked<'a>,
    pub clock: &'a Clock,
}

/// Who writes answers for rows, where that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub gateway: &'a dataset::teacher::Config,
    /// Where the model lies that does, if it is a file.
    pub file: Option<&'a Path>,
}

/// The model that is trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    pub path: PathBuf,
    /// In hexadecimal.
    pub sha256: String,
    pub name: String,
}

/// The rows, as tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// SHA-256 of the rows and of what was done with them.
    pub version: String,
    pub report: dataset::Report,
    pub train: Statistics,
    /// `None`: there are no such rows.
    pub validation: Option<Statistics>,
    pub test: Option<Statistics>,
}

/// What training came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub summary: Summary,
    pub trained_parameters: u64,
    pub predicted_peak_bytes: u64,
}

/// Opens a file of the data by its path.
pub type Open<'a> = dyn Fn(&str) -> Result<File, Error> + 'a;

impl Tuning<'_> {
    /// The base as a GGUF file: what it is already, or what a folder becomes, in the type that keeps what it has.
    ///
    /// # Errors
    /// A source that cannot be read or converted.
    pub fn base(&self, places: &Places) -> Result<Base, Error> {
        self.model(places, (&self.wish.base, "base.gguf"))
    }

    /// The model that the base is to learn from, likewise.
    ///
    /// # Errors
    /// As [`Tuning::base`], and one whose vocabulary is another.
    pub fn teacher(&self, places: &Places, base: &Base) -> Result<Base, Error> {
        let teacher = self.model(places, (self.wish.teacher.as_deref().unwrap_or_default(), "teacher.gguf"))?;
        teacher::expect_same_vocabulary(&header(&base.path)?, &header(&teacher.path)?)?;
        Ok(teacher)
    }

    fn model(&self, places: &Places, (named, file): (&str, &str)) -> Result<Base, Error> {
        let (path, sha256) = match &places.source {
            Source::Gguf(path) => (path.clone(), self.digest(path)?),
            _ => self.converted(places, file)?,
        };
        let header = header(&path)?;
        let name = header.metadata.str("general.name").unwrap_or_default().to_owned();
        let name = if name.is_empty() { named.to_owned() } else { name };
        Ok(Base { path, sha256, name })
    }

    fn converted(&self, places: &Places, file: &str) -> Result<(PathBuf, String), Error> {
        let target = self.folder.join(file);
        let mut options = convert::Options::new(places.source.clone(), places.reference_type(), Target::File(target));
        options.threads = self.threads;
        options.overwrite = true;
        let made = steps::convert(&options, self.watcher)?;
        Ok((made.path, made.sha256))
    }

    fn digest(&self, path: &Path) -> Result<String, Error> {
        let read = || -> Result<Digest, Error> {
            let file = File::open(path).map_err(Error::io("read", path))?;
            let total = file.metadata().map_err(Error::io("read", path))?.len();
            let mut done = 0;
            let (hasher, _) = hash::read(file, |count| -> Result<(), std::io::Error> {
                done += count;
                self.watcher.progress("read the model", done, total, "bytes");
                self.watcher.hold();
                if self.watcher.cancel().is_cancelled() { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) }
            })
            .map_err(Error::io("read", path))?;
            Ok(Digest::new(sha2::Digest::finalize(hasher).into()))
        };
        let digest = read();
        if self.watcher.cancel().is_cancelled() { Err(Error::Stopped) } else { Ok(digest?.hex()) }
    }

    /// Imports, cleans and divides the rows, writes them down, and makes tokens of them.
    ///
    /// # Errors
    /// Files that cannot be read, and when nothing is left of them.
    pub fn data(&self, base: &Base, open: &Open<'_>) -> Result<Data, Error> {
        let folder = self.folder.join("data");
        let kept = dataset::teacher::kept_in(&folder).map_err(Error::io("make", &folder))?;
        let Asked { file, gateway } = self.school;
        let school = dataset::School { kept: &kept, file, accelerated: !self.device.is_cpu(), gateway };
        let told = &mut |step, done, total, unit| self.told(step_name(step), done, total, unit);
        let prepared = self.wish.data.prepare(open, Some(&school), told)?;
        let header = header(&base.path)?;
        let encoder = Encoder::from_header(&header, self.reading())?;
        let mut statistics = Vec::new();
        for side in Side::ALL {
            let rows = prepared.side(side);
            write(&folder.join(format!("{}.jsonl", side.name())), |out| dataset::write(rows, out))?;
            let made = if rows.is_empty() { None } else { Some(self.tokens(&encoder, &header, &prepared.report.version, side, rows)?) };
            statistics.push(made);
        }
        let mut sides = statistics.into_iter();
        let train = sides.next().flatten().ok_or_else(|| dataset::Error::Nothing(" to learn from".to_owned()))?;
        let (validation, test) = (sides.next().flatten(), sides.next().flatten());
        Ok(Data { version: prepared.report.version.clone(), report: prepared.report, train, validation, test })
    }

    fn tokens(
        &self,
        encoder: &Encoder,
        header: &Header,
        version: &str,
        side: Side,
        rows: &[dataset::Example],
    ) -> Result<Statistics, Error> {
        let key = Key::new(version, side.name(), header, &self.reading());
        let place = self.tokens_of(side);
        if let Some(there) = Cache::open(&place, key).map_err(Error::io("read", &place))? {
            return Ok(there.statistics);
        }
        let mut writer = Writer::create(&place).map_err(Error::io("write", &place))?;
        let total = rows.len() as u64;
        let statistics = tokenise::encode_all(encoder, rows, &mut |done| self.told("make tokens", done, total, "rows"), &mut |row| {
            Ok(writer.push(row)?)
        })?;
        Ok(writer.finish(key, statistics).map_err(Error::io("write", &place))?.statistics)
    }

    fn told(&self, what: &str, done: u64, total: u64, unit: &'static str) -> Result<(), dataset::Error> {
        self.watcher.progress(what, done, total, unit);
        self.watcher.hold();
        if self.watcher.cancel().is_cancelled() { Err(dataset::Error::Stopped) } else { Ok(()) }
    }

    fn reading(&self) -> tokenise::Options {
        let Wish { mask, control, long, training, .. } = self.wish;
        tokenise::Options { sequence_tokens: training.sequence_tokens, mask: *mask, control: *control, long: *long }
    }

    fn tokens_of(&self, side: Side) -> PathBuf {
        self.folder.join("data").join(format!("{}.tokens", side.name()))
    }

    /// The rows of a side, which [`Tuning::data`] has left.
    fn rows(&self, base: &Base, data: &Data, side: Side) -> Result<Option<Cache>, Error> {
        let there = match side {
            Side::Train => true,
            Side::Validation => data.validation.is_some(),
            Side::Test => data.test.is_some(),
        };
        if !there {
            return Ok(None);
        }
        let key = Key::new(&data.version, side.name(), &header(&base.path)?, &self.reading());
        let place = self.tokens_of(side);
        let missing = || Error::io("read", &place)(std::io::Error::new(std::io::ErrorKind::NotFound, "it is not there any more"));
        Cache::open(&place, key).map_err(Error::io("read", &place))?.map(Some).ok_or_else(missing)
    }

    /// Asks a model the test rows. `None`: there are none.
    ///
    /// # Errors
    /// A model that cannot be run.
    pub fn score(&self, what: &str, model: &Path, base: &Base, data: &Data) -> Result<Option<Score>, Error> {
        let Some(rows) = self.rows(base, data, Side::Test)? else { return Ok(None) };
        if self.wish.training.method.pairs() {
            return Ok(None);
        }
        let subject = self.subject(model)?;
        let told = |done, total| {
            self.watcher.progress(what, done, total, "rows");
            self.watcher.hold();
            !self.watcher.cancel().is_cancelled()
        };
        Ok(Some(evaluate::evaluate(&subject, &rows, &self.wish.evaluate, &told)?))
    }

    fn subject(&self, model: &Path) -> Result<Subject, Error> {
        Subject::load(model, self.device).map_err(|source| Error::Subject { path: model.to_owned(), source })
    }

    /// Has the models that are in memory make room for the training, as the policy says.
    ///
    /// # Errors
    /// A base that cannot be trained.
    pub fn make_room(&self, base: &Base, teacher: Option<&Base>, servers: &[Server], policy: Unload) -> Result<(), Error> {
        let sizes = [Some(base), teacher].into_iter().flatten().map(|model| Ok(header(&model.path)?.file_size_bytes));
        let files_bytes: u64 = sizes.sum::<Result<_, Error>>()?;
        let passes = super::plan::memory_bytes(self.wish, &base.path, teacher.map(|teacher| teacher.path.as_path()))?;
        let needed = passes.saturating_add(files_bytes);
        // How much of an accelerator's memory others have is not known: there, a model that is loaded is one too many.
        let missing = !self.device.is_cpu() || memory::free_bytes().is_some_and(|free| free < needed);
        room::make(servers, policy, missing, self.watcher);
        Ok(())
    }

    /// Trains, or goes on where it was interrupted; leaves the parameters in a file.
    ///
    /// # Errors
    /// What the engine and the trainer say, and that it was stopped.
    pub fn train(&self, base: &Base, teacher: Option<&Base>, data: &Data) -> Result<Run, Error> {
        let engine = self.engine(base, teacher)?;
        engine::forget_peak(&self.device.candle());
        let training = self.rows(base, data, Side::Train)?;
        let validation = self.rows(base, data, Side::Validation)?;
        let Some(rows) = training else { return Err(dataset::Error::Nothing(" to learn from".to_owned()).into()) };
        let predicted_peak_bytes = super::plan::peak_bytes(self.wish, &engine, extent(self.wish, &data.train))?;
        let parameters = engine.init(self.wish.training.seed)?;
        let trained_parameters = parameters.values().map(|tensor| tensor.elem_count() as u64).sum();
        let checkpoints = self.folder.join("checkpoints");
        let mut hash = format!("{} {}", data.version, serde_json::to_string(&self.wish.adapter).unwrap_or_default());
        hash.extend(teacher.map(|teacher| format!(" taught by {}", teacher.sha256)));
        let training = Training {
            learner: &engine,
            rows: &rows,
            validation: validation.as_ref().map(|rows| rows as &dyn Rows),
            options: &self.wish.training,
            data: &hash,
            base: &base.sha256,
            folder: &checkpoints,
            clock: self.clock,
        };
        let sampler = |parameters: &Tensors| self.samples(base, parameters);
        let mut following = Following::new(self.watcher, self.folder, self.device, self.clock, &sampler);
        let trained = trainer::train(&training, parameters, &mut following)?;
        if trained.summary.ending == crate::jobs::finetune::checkpoint::Ending::Stopped {
            return Err(Error::Stopped);
        }
        super::outcome::save(&self.parameters(), &trained.parameters)?;
        Ok(Run { summary: trained.summary, trained_parameters, predicted_peak_bytes })
    }

    fn engine(&self, base: &Base, teacher: Option<&Base>) -> Result<Engine, Error> {
        let (of_base, device) = (header(&base.path)?, self.device.candle());
        let settings = settings_for(self.wish, &device);
        let Some(teacher) = teacher else { return Ok(Engine::load(&base.path, &of_base, device, &settings)?) };
        let of_teacher = header(&teacher.path)?;
        Ok(Engine::load_taught((&base.path, &of_base), (&teacher.path, &of_teacher), device, &settings)?)
    }

    /// Where [`Tuning::train`] leaves the parameters.
    pub(super) fn parameters(&self) -> PathBuf {
        self.folder.join("trained.safetensors")
    }

    fn samples(&self, base: &Base, parameters: &Tensors) -> std::io::Result<Vec<Sample>> {
        if self.wish.samples.is_empty() {
            return Ok(Vec::new());
        }
        self.sampled(base, parameters).map_err(std::io::Error::other)
    }
}

/// Reads the header of the base.
pub(super) fn header(path: &Path) -> Result<Header, Error> {
    Header::read_file(path).map_err(|source| Error::Header { path: path.to_owned(), source })
}

/// Writes a file that is whole or not there.
pub(super) fn write(place: &Path, content: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> Result<(), Error> {
    let beside = place.with_extension("part");
    let made = || -> std::io::Result<()> {
        let mut out = std::io::BufWriter::new(File::create(&beside)?);
        content(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        std::fs::rename(&beside, place)
    };
    made().map_err(Error::io("write", place))
}

fn step_name(step: dataset::Step) -> &'static str {
    match step {
        dataset::Step::Import => "read the rows",
        dataset::Step::Teach => "ask the teacher",
        dataset::Step::Clean => "clean the rows",
        dataset::Step::Split => "divide the rows",
    }
}

/// How large passes over such rows become.
fn extent(wish: &Wish, rows: &Statistics) -> engine::Extent {
    let longest_row = rows.max_tokens as usize;
    let tokens = wish.training.batch_tokens.max(longest_row);
    // As many as all rows have among them, and a quarter more: some passes have more than others.
    let labels = (tokens as u64 * rows.labels * 5).div_ceil(4 * rows.tokens.max(1));
    engine::Extent { tokens, longest_row, labels: usize::try_from(labels).map_or(tokens, |labels| labels.min(tokens)) }
}

/// Accelerators compute fastest with 16 bits; the CPU computes with 32.
pub(super) fn settings_for(wish: &Wish, device: &candle_core::Device) -> engine::Settings {
    let precision = if device.is_cpu() { engine::Precision::Single } else { engine::Precision::Brain };
    let logits_bytes = engine::Settings::logits_bytes_on(device);
    engine::Settings { method: method(wish), precision, checkpointing: wish.checkpointing, logits_bytes }
}

#[expect(clippy::cast_possible_truncation, reason = "settings that people type")]
fn method(wish: &Wish) -> engine::Method {
    let adapter = &wish.adapter;
    if adapter.method == What::Full {
        return engine::Method::Full(adapter.targets.clone());
    }
    engine::Method::Lora(engine::Lora {
        rank: adapter.rank,
        alpha: adapter.alpha() as f32,
        dropout: adapter.dropout as f32,
        rslora: adapter.rank_stabilized,
        dora: adapter.method == What::Dora,
        targets: adapter.targets.clone(),
        ..engine::Lora::default()
    })
}
