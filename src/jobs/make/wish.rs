//! What is wanted of a conversion, as people and programs write it.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::places::Places;
use super::server::Server;
use crate::backends::ollama::shelf::Message;
use crate::domain::id::ModelName;
use crate::gguf::file_type::FileType;
use crate::jobs::convert::{Options, Source, Target};
use crate::jobs::publish::presets::Preset;
use crate::jobs::publish::{Manifest, ManifestError};

/// Stands for all servers.
const ALL: &str = "*";

/// Files that are made of one source at a time.
const MAX_TYPES: usize = 8;

/// A model to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// A folder as Hugging Face has it, a GGUF file, `ollama:TAG` or `hf:OWNER/NAME`.
    pub source: String,
    /// One file is made of each, e.g. `Q4_K_M`.
    pub types: Vec<String>,
    /// The folder of a LoRA adapter in PEFT's format, to be merged into the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Of a source that is itself an adapter: the folder of its base model, which says what the adapter's tensors are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// An importance matrix, of either format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imatrix: Option<String>,
    /// What the model is called in its file; else what the source says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// llama.cpp's name of the pre-tokenizer, where its rules are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_tokenizer: Option<String>,
    /// Pack again what is packed already, though that loses more than going from the source.
    #[serde(default)]
    pub allow_requantize: bool,
    /// Compare each file with what it was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Checking>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publishing>,
}

/// How a file is compared with its source. Bounds that are not given do not fail it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checking {
    /// A text in UTF-8; else a built-in one.
    pub text: Option<String>,
    /// Most tokens of the text that are read.
    pub max_tokens: Option<usize>,
    /// Of the mean divergence, in nats.
    pub max_divergence: Option<f64>,
    /// Of the perplexity as a multiple of the source's.
    pub max_perplexity_ratio: Option<f64>,
    /// Of the share of tokens at which both expect the same one above all.
    pub min_top_agreement: Option<f64>,
}

/// Where a model goes and what it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publishing {
    /// Its name; of several types each gets its type as the tag.
    pub name: ModelName,
    /// Names of configured servers; `*`: all of them. Empty: all of them, or none where it goes into the library.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Whether it goes into the embedded engine's library, too.
    #[serde(default)]
    pub library: bool,
    /// Parameters and a system text to begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// A Go template; leave it out unless the model's own is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub license: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
}

/// Why a wish is none.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error("the source is an adapter: name the folder of its base model as `base`, or make the base the source and this the `adapter`")]
    NoBase,
    #[error("an adapter by itself cannot be checked: leave out the check, or make its base the source and this the `adapter`")]
    NothingToCheck,
    #[error("`types` is empty: name at least one, e.g. \"Q4_K_M\"")]
    NoType,
    #[error("`types` has {0} entries, at most {MAX_TYPES} are made at a time")]
    TooMany(usize),
    #[error("`types` names {0} twice")]
    Twice(FileType),
    #[error(transparent)]
    Type(#[from] crate::gguf::file_type::Unknown),
    #[error("`publish`: {0}")]
    Publish(#[from] ManifestError),
    #[error("`publish.name` has a tag, `{0}`, but of several types each gets its type as the tag: leave it out")]
    Tag(ModelName),
    #[error("there is no server called `{name}`; there are {}", known.join(", "))]
    Server { name: String, known: Vec<String> },
}

/// Where a text leads that names a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named<'a> {
    /// A tag of an Ollama on this machine.
    Ollama(&'a str),
    /// A model on the Hub, with `hf:` before its name.
    Hub(&'a str),
    /// A file or a folder.
    Path(&'a str),
}

impl<'a> Named<'a> {
    #[must_use]
    pub fn of(source: &'a str) -> Self {
        match source.strip_prefix("ollama:") {
            Some(tag) => Self::Ollama(tag),
            None if source.starts_with("hf:") => Self::Hub(source),
            None => Self::Path(source),
        }
    }
}

impl Wish {
    /// Looks at everything that can be looked at without the source.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<Vec<FileType>, Wrong> {
        let types = self.types.iter().map(|name| name.parse()).collect::<Result<Vec<FileType>, _>>()?;
        match types.len() {
            0 => return Err(Wrong::NoType),
            count if count > MAX_TYPES => return Err(Wrong::TooMany(count)),
            _ => {}
        }
        if let Some(twice) = types.iter().enumerate().find_map(|(n, kind)| types[..n].contains(kind).then_some(*kind)) {
            return Err(Wrong::Twice(twice));
        }
        if let Some(publishing) = &self.publish {
            types.iter().try_for_each(|kind| publishing.manifest(*kind, types.len() > 1).map(drop))?;
        }
        Ok(types)
    }

    /// Where its files lie. A folder with `adapter_config.json` is an adapter, any other one a model; what is no folder is a GGUF file.
    ///
    /// # Errors
    /// An adapter without a base, or one that is to be checked.
    pub fn places(&self, source: PathBuf, other: Others) -> Result<Places, Wrong> {
        let is_adapter = source.join("adapter_config.json").is_file();
        let source = match (source.is_dir(), is_adapter, other.base) {
            (false, ..) => Source::Gguf(source),
            (true, false, _) => Source::Folder(source),
            (true, true, None) => return Err(Wrong::NoBase),
            (true, true, Some(_)) if self.check.is_some() => return Err(Wrong::NothingToCheck),
            (true, true, Some(base)) => Source::Adapter { adapter: source, base },
        };
        Ok(Places { source, adapter: other.adapter, imatrix: other.imatrix })
    }

    /// The conversion to these types, with everything where it was found.
    #[must_use]
    pub fn options(&self, found: &Places, types: Vec<FileType>, target: Target, threads: NonZeroUsize) -> Options {
        Options {
            source: found.source.clone(),
            adapter: found.adapter.clone(),
            types,
            target,
            importance: found.imatrix.clone(),
            threads,
            name: self.name.clone(),
            pre_tokenizer: self.pre_tokenizer.clone(),
            allow_requantize: self.allow_requantize,
            overwrite: false,
        }
    }
}

/// The files of a wish beside its source, where they were found.
#[derive(Debug, Clone, Default)]
pub struct Others {
    pub adapter: Option<PathBuf>,
    pub base: Option<PathBuf>,
    pub imatrix: Option<PathBuf>,
}

impl Publishing {
    /// What a file of this type is published as; `one_of_several`: beside others of the same source.
    ///
    /// # Errors
    /// What no server would take.
    pub fn manifest(&self, kind: FileType, one_of_several: bool) -> Result<Manifest, Wrong> {
        let mut manifest = Manifest {
            name: self.name_of(kind, one_of_several)?,
            parameters: self.parameters.clone(),
            system: self.system.clone(),
            template: self.template.clone(),
            license: self.license.clone(),
            messages: self.messages.clone(),
        };
        if let Some(preset) = self.preset {
            preset.apply(&mut manifest);
        }
        manifest.check()?;
        Ok(manifest)
    }

    fn name_of(&self, kind: FileType, one_of_several: bool) -> Result<ModelName, Wrong> {
        if !one_of_several {
            return Ok(self.name.clone());
        }
        let has_tag = self.name.as_str().rsplit('/').next().is_some_and(|last| last.contains(':'));
        let tagged = format!("{}:{}", self.name, kind.name().to_lowercase());
        ModelName::parse(&tagged).ok().filter(|_| !has_tag).ok_or_else(|| Wrong::Tag(self.name.clone()))
    }

    /// One with nothing but a name.
    #[must_use]
    pub fn under(name: ModelName) -> Self {
        Self {
            name,
            to: Vec::new(),
            library: false,
            preset: None,
            parameters: Map::new(),
            system: None,
            template: None,
            license: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Those of the servers that are meant.
    ///
    /// # Errors
    /// A name that none of them has.
    pub fn choose<'a>(&self, servers: &'a [Server]) -> Result<Vec<&'a Server>, Wrong> {
        let names: Vec<String> = servers.iter().map(Server::name).collect();
        if let Some(unknown) = self.to.iter().find(|wanted| *wanted != ALL && !names.contains(wanted)) {
            return Err(Wrong::Server { name: unknown.clone(), known: names });
        }
        let all = if self.to.is_empty() { !self.library } else { self.to.iter().any(|wanted| wanted == ALL) };
        let meant = |name: &String| all || self.to.contains(name);
        Ok(servers.iter().zip(&names).filter(|(_, name)| meant(name)).map(|(server, _)| server).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backends::ollama;

    fn wish(change: &Value) -> Wish {
        let mut all = json!({"source": "files/m", "types": ["Q4_K_M"]});
        for (key, value) in change.as_object().expect("an object") {
            all[key] = value.clone();
        }
        serde_json::from_value(all).expect("a wish")
    }

    #[test]
    fn types_are_known_some_and_different() {
        assert_eq!(wish(&json!({"types": ["q4_k_m", "Q8_0"]})).validate().expect("right"), [FileType::Q4_K_M, FileType::Q8_0]);
        for (types, word) in [(json!([]), "empty"), (json!(["Q4_K_M", "q4_K_m"]), "twice"), (json!(["Q9"]), "choose one of")] {
            let wrong = wish(&json!({"types": types})).validate().expect_err("wrong").to_string();
            assert!(wrong.contains(word), "{wrong}");
        }
        assert!(matches!(wish(&json!({"types": vec!["Q8_0"; 9]})).validate(), Err(Wrong::TooMany(9))));
        assert!(serde_json::from_value::<Wish>(json!({"source": "x", "types": ["F16"], "quant": 1})).is_err());
    }

    #[test]
    fn each_of_several_types_gets_a_tag() {
        let one = wish(&json!({"publish": {"name": "me/m:x"}}));
        one.validate().expect("right");
        let several = wish(&json!({"types": ["Q4_K_M", "Q8_0"], "publish": {"name": "me/m", "preset": "coder"}}));
        several.validate().expect("right");
        let publishing = several.publish.expect("there");
        let manifest = publishing.manifest(FileType::Q8_0, true).expect("right");
        assert_eq!((manifest.name.as_str(), manifest.parameters["temperature"].as_f64()), ("me/m:q8_0", Some(0.2)));
        assert!(matches!(wish(&json!({"types": ["F16", "F32"], "publish": {"name": "m:x"}})).validate(), Err(Wrong::Tag(_))));
        assert!(matches!(wish(&json!({"publish": {"name": "m", "parameters": {"x": 1}}})).validate(), Err(Wrong::Publish(_))));
    }

    #[test]
    fn servers_are_chosen_by_name() {
        let servers = ["a", "b"].map(|name| Server(ollama::Config { name: Some(name.into()), ..ollama::Config::default() }));
        let publishing = |to: Value| wish(&json!({"publish": {"name": "m", "to": to}})).publish.expect("there");
        assert_eq!(publishing(json!([])).choose(&servers).expect("all").len(), 2);
        assert_eq!(publishing(json!(["b"])).choose(&servers).expect("one"), [&servers[1]]);
        let library = |to: Value| wish(&json!({"publish": {"name": "m", "to": to, "library": true}})).publish.expect("there");
        assert!(library(json!([])).choose(&servers).expect("none").is_empty());
        assert_eq!(library(json!(["*"])).choose(&servers).expect("all").len(), 2);
        let wrong = publishing(json!(["c"])).choose(&servers).expect_err("unknown").to_string();
        assert!(wrong.contains("`c`") && wrong.contains("a, b"), "{wrong}");
    }

    #[test]
    fn a_folder_is_a_model_or_an_adapter_with_its_base() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = || folder.path().to_owned();
        let based = || Others { base: Some("base".into()), ..Others::default() };
        let (plain, checked) = (wish(&json!({})), wish(&json!({"check": {}})));
        assert_eq!(plain.places("m.gguf".into(), Others::default()).expect("right").source, Source::Gguf("m.gguf".into()));
        let model = checked.places(path(), Others::default()).expect("right");
        assert_eq!((model.source.clone(), model.reference(), model.reference_type()), (Source::Folder(path()), None, FileType::BF16));
        std::fs::write(folder.path().join("adapter_config.json"), "{}").expect("written");
        assert!(matches!(plain.places(path(), Others::default()), Err(Wrong::NoBase)));
        assert!(matches!(plain.places(path(), based()).expect("right").source, Source::Adapter { .. }));
        assert!(matches!(checked.places(path(), based()), Err(Wrong::NothingToCheck)));
    }

    #[test]
    fn a_source_is_a_path_unless_it_says_otherwise() {
        assert_eq!(Named::of("ollama:gemma3:270m"), Named::Ollama("gemma3:270m"));
        assert_eq!(Named::of("hf:o/n"), Named::Hub("hf:o/n"));
        assert_eq!(Named::of("C:/x"), Named::Path("C:/x"));
    }
}
