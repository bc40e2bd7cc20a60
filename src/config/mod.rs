//! The whole configuration: the `Config` of every part, put together from defaults, a file, the environment and flags.
//!
//! [`load`] is pure and reports everything that is wrong at once, each problem with its key and its place; [`read`] finds the file
//! and the environment first and is the only code of the program that reads the environment. Nothing here acts on a value.

mod decode;
#[cfg(not(feature = "embedded"))]
#[path = "no_engine.rs"]
mod embedded;
mod file;
mod load;
mod machine;
mod problem;
mod secret;
mod show;
mod tree;
mod variables;

use std::path::{Path as FilePath, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::listener;
#[cfg(feature = "embedded")]
use crate::backends::embedded;
use crate::backends::ollama;
use crate::telemetry::{log, metrics};
use crate::{api, auth, cache, collection, gateway, jobs, limits, models, routing, scheduler, storage, usage};

pub use file::File;
pub use load::{Check, Override, Shape};
pub use problem::{Problem, nearest};
pub use secret::without_credentials;
pub use show::{json, toml};
pub use tree::{Origin, Path, Step};
pub use variables::{Form, Short, Variables};

/// The defaults, commented. `arriero config default` prints it; a test keeps it equal to [`Config::default`].
pub const DEFAULTS: &str = include_str!("default.toml");

/// Where the demo model lies in the data folder; `make run` puts it there.
const DEMO_MODEL_FOLDER: &str = "models";
pub const DEMO_MODEL_FILE: &str = "gemma-3-270m-q4_k_m.gguf";

/// Variables with short names.
pub const SHORTS: &[Short] = &[
    Short { variable: "ARRIERO_LISTEN", key: "server.listen", form: Form::Plain },
    Short { variable: "ARRIERO_OLLAMA", key: "ollama", form: Form::Tables("url") },
    Short { variable: "ARRIERO_MODEL", key: "embedded.models", form: Form::List },
    Short { variable: "ARRIERO_LOG", key: "log.level", form: Form::Plain },
];

/// The variable that names the configuration file.
pub const FILE_VARIABLE: &str = "ARRIERO_CONFIG";

/// The variable that tells client commands where the gateway is.
pub const URL_VARIABLE: &str = "ARRIERO_URL";

/// The variable that gives client commands their API key.
pub const KEY_VARIABLE: &str = "ARRIERO_KEY";

/// What is fixed about our configuration.
pub const SHAPE: Shape = Shape { defaults: DEFAULTS, shorts: SHORTS, other_variables: &[FILE_VARIABLE, URL_VARIABLE, KEY_VARIABLE] };

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where all state lives. Empty in the defaults; never empty in what [`load`] returns.
    pub data_dir: PathBuf,
    /// Model file of last resort. Empty in the defaults; never empty in what [`load`] returns.
    pub demo_model: PathBuf,
    pub server: listener::Config,
    pub api: api::Config,
    pub auth: auth::Config,
    pub limits: limits::Config,
    pub generation: gateway::Config,
    pub queue: scheduler::Config,
    pub routing: routing::Config,
    pub cache: cache::Config,
    /// How single models may be used; the first that names a model holds.
    pub model: Vec<models::Config>,
    /// The servers, in order of preference.
    pub ollama: Vec<ollama::Config>,
    pub embedded: embedded::Config,
    pub log: log::Config,
    pub metrics: metrics::Config,
    pub storage: storage::Config,
    pub usage: usage::Config,
    pub collection: collection::Config,
    pub jobs: jobs::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::new(),
            demo_model: PathBuf::new(),
            server: listener::Config::default(),
            api: api::Config::default(),
            auth: auth::Config::default(),
            limits: limits::Config::default(),
            generation: gateway::Config::default(),
            queue: scheduler::Config::default(),
            routing: routing::Config::default(),
            cache: cache::Config::default(),
            model: Vec::new(),
            ollama: vec![ollama::Config::default()],
            embedded: embedded::Config::default(),
            log: log::Config::default(),
            metrics: metrics::Config::default(),
            storage: storage::Config::default(),
            usage: usage::Config::default(),
            collection: collection::Config::default(),
            jobs: jobs::Config::default(),
        }
    }
}

impl Check for Config {
    fn check(&self) -> Vec<(Path, String)> {
        let mut wrong = Vec::new();
        for (n, server) in self.ollama.iter().enumerate() {
            let path = Path::dotted("ollama").join(Step::Index(n)).join(Step::Key("url".to_owned()));
            if let Err(error) = server.check() {
                wrong.push((path.clone(), format!("is not accepted: {error}")));
            }
            if self.ollama[..n].iter().any(|earlier| earlier.url == server.url) {
                wrong.push((path, format!("names {} a second time", without_credentials(&server.url))));
            }
        }
        for (n, identity) in self.server.identity.iter().enumerate() {
            let earlier = self.server.identity[..n].iter().map(|earlier| earlier.listen);
            let path = Path::dotted("server.identity").join(Step::Index(n)).join(Step::Key("listen".to_owned()));
            if identity.listen.port() != 0 && earlier.chain([self.server.listen]).any(|other| other == identity.listen) {
                wrong.push((path, format!("names {} a second time", identity.listen)));
            }
        }
        for (n, policy) in self.model.iter().enumerate() {
            let path = Path::dotted("model").join(Step::Index(n));
            wrong.extend(policy.check().into_iter().map(|(key, what)| (path.clone().join(Step::Key(key.to_owned())), what.to_owned())));
        }
        let semantic = self.cache.semantic.check();
        wrong.extend(semantic.into_iter().map(|(key, what)| (Path::dotted("cache.semantic").join(Step::Key(key.to_owned())), what)));
        let shares = self.queue.shares.wrong();
        wrong.extend(shares.into_iter().map(|(class, what)| (Path::dotted("queue.shares").join(Step::Key(class.to_owned())), what)));
        if let Err(error) = log::check(&self.log) {
            wrong.push((Path::dotted("log.level"), error.to_string()));
        }
        let servers: Vec<String> = self.ollama.iter().filter_map(ollama::Config::backend_name).collect();
        wrong.extend(self.jobs.check().into_iter().map(|(key, what)| (Path::dotted(&format!("jobs.{key}")), what.to_owned())));
        let routing = self.routing.check().into_iter().chain(self.routing.unknown_backends(&servers));
        wrong.extend(routing.map(|found| (Path::below("routing", &found.place), found.what)));
        wrong
    }
}

/// A configuration that holds.
pub type Loaded = load::Loaded<Config>;

/// Puts the layers together. Pure.
///
/// # Errors
/// Everything that is wrong.
pub fn load(file: Option<File<'_>>, variables: &Variables, flags: &[Override]) -> Result<Loaded, Vec<Problem>> {
    let mut loaded = load::load::<Config>(&SHAPE, file, variables, flags)?;
    let (folder, origin) = machine::data_dir(&loaded.config.data_dir, variables)
        .map_err(|what| vec![Problem::new("data_dir", loaded.origin(&Path::dotted("data_dir")), what)])?;
    if let Some(origin) = origin {
        loaded.note("data_dir", &folder.to_string_lossy(), origin);
    }
    if loaded.config.demo_model.as_os_str().is_empty() {
        loaded.config.demo_model = folder.join(DEMO_MODEL_FOLDER).join(DEMO_MODEL_FILE);
        let shown = loaded.config.demo_model.to_string_lossy().into_owned();
        loaded.note("demo_model", &shown, Origin::Machine("the data folder"));
    }
    if loaded.config.jobs.ollama_models.as_os_str().is_empty() {
        loaded.config.jobs.ollama_models = machine::ollama_models(variables);
        let shown = loaded.config.jobs.ollama_models.to_string_lossy().into_owned();
        loaded.note("jobs.ollama_models", &shown, Origin::Machine("$OLLAMA_MODELS or the home folder"));
    }
    if let (true, Some(token)) = (loaded.config.jobs.hub.token.is_empty(), variables.get("HF_TOKEN")) {
        token.clone_into(&mut loaded.config.jobs.hub.token);
        loaded.note("jobs.hub.token", token, Origin::Machine("$HF_TOKEN"));
    }
    loaded.config.data_dir = folder;
    Ok(loaded)
}

/// The program that runs: what is started as a child process for background jobs.
///
/// # Errors
/// When the system does not say.
pub fn program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// Finds the file (the one named, else the one in the user's configuration folder when it is there) and loads.
///
/// # Errors
/// Everything that is wrong; a file that was named but cannot be read is a problem too.
pub fn read(named: Option<&FilePath>, variables: &Variables, flags: &[Override]) -> Result<Loaded, Vec<Problem>> {
    let (path, origin) = match (named, variables.get(FILE_VARIABLE)) {
        (Some(path), _) => (Some(path.to_owned()), Origin::Flag("--config")),
        (None, Some(path)) => (Some(PathBuf::from(path)), Origin::Variable(FILE_VARIABLE.to_owned())),
        (None, None) => (machine::config_file(variables).filter(|path| path.exists()), Origin::Default),
    };
    let Some(path) = path else { return load(None, variables, flags) };
    match std::fs::read_to_string(&path) {
        Ok(text) => load(Some(File { path: &path, text: &text }), variables, flags),
        Err(error) => Err(vec![Problem::new(path.display().to_string(), origin, format!("cannot be read: {error}"))]),
    }
}

#[cfg(test)]
mod tests;
