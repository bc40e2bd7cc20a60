//! Taking model files into use: what can go wrong at start, and whether they fit the memory.

use std::path::{Path, PathBuf};

use super::config::Config;
use crate::domain::id::ModelName;
use crate::domain::model::ModelInfo;
use crate::gguf::{self, Header};
use crate::lm::template::{self, Template};
use crate::lm::tokenizer::{self, Tokenizer};
use crate::lm::{self, Device};

/// Why the engine cannot start. Says which file, and what to do where that is not plain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no model file was given")]
    NoModels,
    #[error("there is no model file at {}", path.display())]
    NotFound { path: PathBuf },
    #[error("{}: {source}{}", path.display(), if source.is_incomplete() { "; download it again" } else { "" })]
    File { path: PathBuf, source: gguf::Error },
    #[error("{}: {source}", path.display())]
    Model { path: PathBuf, source: lm::Error },
    #[error("{}: {source}", path.display())]
    Tokenizer { path: PathBuf, source: tokenizer::Error },
    #[error("{}: {source}", path.display())]
    Template { path: PathBuf, source: template::Error },
    #[error("{}: its tokenizer has {tokens} tokens, more than the {logits} the model knows", path.display())]
    Vocabulary { path: PathBuf, tokens: usize, logits: usize },
    #[error("{} cannot be a model's name: rename the file", path.display())]
    Name { path: PathBuf },
    #[error("two files would both be the model `{name}`: rename one")]
    SameName { name: ModelName },
    #[error(
        "the models need {needed_bytes} bytes of memory ({weights_bytes} for weights, {cache_bytes} for {slots} requests of \
         {context_length} tokens each), {available_bytes} are available: serve fewer or smaller models, or lower `slots` or `context_length`"
    )]
    Memory { needed_bytes: u64, weights_bytes: u64, cache_bytes: u64, slots: usize, context_length: u32, available_bytes: u64 },
    #[error("cannot use the device: {0}")]
    Device(lm::Error),
    #[error("cannot start the engine's thread: {0}")]
    Thread(std::io::Error),
}

/// A file that has been looked at, not loaded.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) name: ModelName,
    pub(super) header: Header,
    pub(super) settings: lm::Config,
    /// Tokens of a request's context: what is configured, at most what the model was trained for.
    pub(super) context: u32,
}

/// A model in memory.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) model: lm::Model,
    pub(super) tokenizer: Tokenizer,
    pub(super) template: Template,
    pub(super) info: ModelInfo,
}

impl Candidate {
    pub(super) fn open(path: &Path, config: &Config) -> Result<Self, Error> {
        if !path.is_file() {
            return Err(Error::NotFound { path: path.to_owned() });
        }
        let header = Header::read_file(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        let settings = lm::Config::from_header(&header).map_err(|source| Error::Model { path: path.to_owned(), source })?;
        let trained = trained_context(&header);
        let context = config.context_length.max(1).min(trained.unwrap_or(u32::MAX));
        Ok(Self { name: name_of(path)?, path: path.to_owned(), header, settings, context })
    }

    pub(super) fn load(self, device: &Device, chat_template: Option<&str>) -> Result<Loaded, Error> {
        let Self { path, header, .. } = &self;
        let tokenizer = Tokenizer::from_header(header).map_err(|source| Error::Tokenizer { path: path.clone(), source })?;
        let template = match chat_template {
            Some("plain") => Ok(Template::plain()),
            Some(source) => Template::jinja(source),
            None => Template::from_header(header),
        };
        let template = template.map_err(|source| Error::Template { path: path.clone(), source })?;
        let logits = self.settings.vocab_size;
        if tokenizer.vocab_size() > logits {
            return Err(Error::Vocabulary { path: path.clone(), tokens: tokenizer.vocab_size(), logits });
        }
        let model = lm::Model::load(path, header, device).map_err(|source| Error::Model { path: path.clone(), source })?;
        Ok(Loaded { model, tokenizer, template, info: self.info() })
    }

    fn info(&self) -> ModelInfo {
        ModelInfo {
            // The digest of a file takes seconds: it is left to those who need it.
            digest: None,
            family: self.header.metadata.str("general.architecture").map(str::to_owned),
            parameters: Some(self.header.parameters()),
            quantization: self.header.file_type().map(str::to_owned),
            context_length: trained_context(&self.header),
            size_bytes: Some(self.header.file_size_bytes),
            loaded: true,
            ..ModelInfo::named(self.name.clone())
        }
    }
}

fn trained_context(header: &Header) -> Option<u32> {
    let family = header.metadata.str("general.architecture")?;
    header.metadata.u32(&format!("{family}.context_length"))
}

/// The file's name without its ending, with nothing in it that a model's name cannot have.
pub(super) fn name_of(path: &Path) -> Result<ModelName, Error> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    let safe: String = stem.chars().map(|c| if c.is_whitespace() || c.is_control() { '-' } else { c }).collect();
    ModelName::parse(&safe).map_err(|_| Error::Name { path: path.to_owned() })
}

/// Two files of one name could not be told apart.
pub(super) fn check_names(candidates: &[Candidate]) -> Result<(), Error> {
    for (index, candidate) in candidates.iter().enumerate() {
        if candidates[..index].iter().any(|earlier| earlier.name == candidate.name) {
            return Err(Error::SameName { name: candidate.name.clone() });
        }
    }
    Ok(())
}

/// Whether weights and caches of all models together fit. `available_bytes`: `None` when it is not known.
/// `embedder_bytes`: of the model that gives vectors.
pub(super) fn check_memory(candidates: &[Candidate], slots: usize, embedder_bytes: u64, available_bytes: Option<u64>) -> Result<(), Error> {
    let Some(available_bytes) = available_bytes else { return Ok(()) };
    let sum = |each: &dyn Fn(&Candidate) -> u64| candidates.iter().map(each).fold(0, u64::saturating_add);
    let weights_bytes = sum(&|candidate| lm::memory::weights_bytes(&candidate.header));
    let cache_bytes = sum(&|candidate| lm::memory::kv_bytes(&candidate.settings, candidate.context as usize).saturating_mul(slots as u64));
    let scratch_bytes = sum(&|candidate| lm::memory::scratch_bytes(&candidate.settings));
    let needed_bytes = weights_bytes.saturating_add(embedder_bytes).saturating_add(cache_bytes).saturating_add(scratch_bytes);
    if needed_bytes <= available_bytes {
        return Ok(());
    }
    let context_length = candidates.iter().map(|candidate| candidate.context).max().unwrap_or(0);
    Err(Error::Memory { needed_bytes, weights_bytes, cache_bytes, slots, context_length, available_bytes })
}

/// Memory that programs can still take, where the system says so (Linux).
pub(super) fn available_memory() -> Option<u64> {
    parse_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_the_systems_text() {
        assert_eq!(parse_meminfo("MemTotal:       24 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(parse_meminfo("MemTotal: 24 kB\n"), None);
        assert_eq!(parse_meminfo("MemAvailable: lots kB\n"), None);
    }

    #[test]
    fn a_models_name_is_its_files() {
        let name = |path: &str| name_of(Path::new(path)).map(|name| name.as_str().to_owned()).ok();
        assert_eq!(name("/models/gemma-3-270m-q4_k_m.gguf").as_deref(), Some("gemma-3-270m-q4_k_m"));
        assert_eq!(name("my model.v2.gguf").as_deref(), Some("my-model.v2"));
        assert_eq!(name("/"), None);
    }
}
