//! How a fake server behaves: its models, its speed, its limits. A plain struct, replaced as a whole while it runs.
//!
//! Times are those of the model's work; the cost of HTTP comes on top. A change holds for requests that arrive after it,
//! except for slots, which a runner takes when it is loaded.

use super::{answer::Text, fault::Plan};
use std::time::Duration;

/// A model of the library. [`Model::new`] gives one with the figures of Gemma 3 270M.
#[derive(Debug, Clone)]
pub struct Model {
    /// With its tag, e.g. `gemma3:270m`.
    pub name: String,
    /// The weights. Models of the same weights share one runner.
    pub blob: String,
    /// 64 hexadecimal digits, without a prefix.
    pub digest: String,
    pub size_bytes: u64,
    pub family: String,
    pub parameter_size: String,
    pub quantization: String,
    pub parent: String,
    /// The context the model was trained for, in tokens.
    pub context_length: u32,
    pub embedding_length: u32,
    /// `PARAMETER num_ctx` of its Modelfile.
    pub num_ctx: Option<u32>,
    pub template: String,
    pub system: Option<String>,
    pub license: Option<String>,
    /// As `/api/show` prints them.
    pub parameters: Option<String>,
    /// `MESSAGE` lines of its Modelfile: role and text.
    pub messages: Vec<(String, String)>,
    pub tools: bool,
    pub thinking: bool,
    pub insert: bool,
    pub vision: bool,
    /// It can do nothing but embed.
    pub embedding: bool,
    /// Digests of its LoRA adapters, 64 digits each.
    pub adapters: Vec<String>,
    /// When it was made or copied, since 1970. None: long ago.
    pub modified: Option<Duration>,
}

impl Model {
    pub fn new(name: &str) -> Self {
        let name = if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
        Self {
            blob: super::answer::digest(&format!("blob of {name}")),
            digest: super::answer::digest(&name),
            name,
            size_bytes: 253_113_180,
            family: "gemma3".into(),
            parameter_size: "268.10M".into(),
            quantization: "Q4_K_M".into(),
            parent: String::new(),
            context_length: 32_768,
            embedding_length: 640,
            num_ctx: None,
            template: "{{ .Prompt }}".into(),
            system: None,
            license: None,
            parameters: None,
            messages: Vec::new(),
            tools: false,
            thinking: false,
            insert: false,
            vision: false,
            embedding: false,
            adapters: Vec::new(),
            modified: None,
        }
    }

    /// A model that only embeds, with the figures of all-MiniLM-L6-v2.
    pub fn embedding(name: &str) -> Self {
        Self {
            family: "bert".into(),
            parameter_size: "22.57M".into(),
            quantization: "F16".into(),
            size_bytes: 45_949_364,
            context_length: 512,
            embedding_length: 384,
            embedding: true,
            ..Self::new(name)
        }
    }

    /// A model made `FROM` this one: the same weights under another name.
    #[must_use]
    pub fn derive(&self, name: &str) -> Self {
        let made = Self::new(name);
        Self { name: made.name, digest: made.digest, parent: self.name.clone(), ..self.clone() }
    }

    /// What `/api/show` lists.
    pub fn capabilities(&self) -> Vec<&'static str> {
        if self.embedding {
            return vec!["embedding"];
        }
        let optional = [(self.vision, "vision"), (self.tools, "tools"), (self.insert, "insert"), (self.thinking, "thinking")];
        std::iter::once("completion").chain(optional.into_iter().filter_map(|(has, word)| has.then_some(word))).collect()
    }

    /// The models of the recorded transcripts.
    pub fn recorded() -> Vec<Self> {
        let weights = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818";
        let base = Self { blob: weights.to_owned(), ..Self::new("gemma3:270m") };
        let q8 = Self { quantization: "Q8_0".into(), size_bytes: 291_543_898, ..Self::new("q8") };
        let stop = Some("stop                           \"User:\"\ntemperature                    0".to_owned());
        let chat = Self {
            template: "{{- range .Messages }}{{ .Role }}: {{ .Content }}\n{{ end }}Assistant:".into(),
            system: Some("You are a helpful assistant who answers in one short sentence.".into()),
            license: Some("Gemma licence text here".into()),
            parameters: stop.clone(),
            messages: vec![
                ("user".into(), "What is the capital of Italy?".into()),
                ("assistant".into(), "The capital of Italy is Rome.".into()),
            ],
            ..base.derive("chat")
        };
        let tool = Self { tools: true, parameters: stop.clone(), ..base.derive("tool") };
        let think = Self { thinking: true, parameters: stop, ..base.derive("think") };
        let fim = Self { insert: true, ..base.derive("fim") };
        vec![Self::embedding("minilm"), q8, chat, tool, think, fim, base]
    }
}

/// Which streams whose clients leave cost their runner a slot for ever (Ollama's #17131), counted over all such streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leak {
    #[default]
    Never,
    /// The one of this number, from 0.
    Nth(u64),
    /// One in so many, the last of each.
    Every(u64),
}

impl Leak {
    pub(super) fn takes(self, number: u64) -> bool {
        match self {
            Self::Never => false,
            Self::Nth(wanted) => number == wanted,
            Self::Every(share) => share > 0 && number % share == share - 1,
        }
    }
}

/// All knobs. The default is fast, has the recorded models, four slots and no fault.
#[derive(Debug, Clone)]
pub struct Script {
    pub models: Vec<Model>,
    /// What `/api/version` says.
    pub version: String,
    /// Time to the first token once a slot is held: this much…
    pub prefill: Duration,
    /// …and this much for each prompt token that the runner does not know already.
    pub prefill_per_token: Duration,
    /// From one token to the next.
    pub token_gap: Duration,
    /// Tokens a second that all slots of a runner make together, so that four slots are not four times as fast; 0: each
    /// slot has its own speed, given by `token_gap` alone.
    pub tokens_per_second: f64,
    /// Tokens of earlier prompts a runner keeps in host memory (`LLAMA_ARG_CACHE_RAM`), beside those in its slots.
    pub saved_tokens: usize,
    pub leak: Leak,
    /// How long `/api/ps` waits for a runner that does not answer.
    pub ping_timeout: Duration,
    /// What the model says, and the length at which it stops by itself.
    pub text: Text,
    /// `OLLAMA_NUM_PARALLEL`: requests a runner works on at once; the rest wait in order.
    pub slots: usize,
    /// `OLLAMA_MAX_QUEUE`: how many may wait for a **load**. Requests to a loaded model are never refused.
    pub max_queue: usize,
    /// `OLLAMA_MAX_LOADED_MODELS`.
    pub max_loaded: usize,
    pub load_time: Duration,
    /// `OLLAMA_KEEP_ALIVE`.
    pub keep_alive: Duration,
    /// `OLLAMA_CONTEXT_LENGTH`.
    pub num_ctx: u32,
    /// Every file is written anew when a model is made of it, and so gets another digest.
    pub rewrites: bool,
    /// Between two lines of create.
    pub build_gap: Duration,
    pub faults: Plan,
    /// How many requests are remembered in full; older ones are forgotten first.
    pub remember: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            models: Model::recorded(),
            version: "0.33.0".into(),
            prefill: Duration::ZERO,
            prefill_per_token: Duration::ZERO,
            token_gap: Duration::ZERO,
            tokens_per_second: 0.0,
            saved_tokens: 100_000,
            leak: Leak::Never,
            ping_timeout: Duration::from_secs(5),
            text: Text::default(),
            slots: 4,
            max_queue: 512,
            max_loaded: 3,
            load_time: Duration::ZERO,
            keep_alive: Duration::from_mins(5),
            num_ctx: 4096,
            rewrites: false,
            build_gap: Duration::ZERO,
            faults: Plan::default(),
            remember: 10_000,
        }
    }
}

impl Script {
    /// The default with these models instead of the recorded ones.
    pub fn with_models<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { models: names.into_iter().map(Model::new).collect(), ..Self::default() }
    }

    /// Whether this version says how much of a prompt came from the cache (0.34.1 and later).
    pub(super) fn tells_cached(&self) -> bool {
        self.is_at_least_0_34_1()
    }

    /// Whether this version makes no models with LoRA adapters any more (0.34.1 and later).
    pub(super) fn refuses_adapters(&self) -> bool {
        self.is_at_least_0_34_1()
    }

    fn is_at_least_0_34_1(&self) -> bool {
        let mut parts = self.version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        (next(), next(), next()) >= (0, 34, 1)
    }

    /// A new model, in the place of one of its name.
    pub(super) fn put(&mut self, model: Model) {
        self.remove(&model.name);
        self.models.insert(0, model);
    }

    pub(super) fn remove(&mut self, asked: &str) -> Option<Model> {
        let name = self.find(asked)?.name.clone();
        let at = self.models.iter().position(|model| model.name == name)?;
        Some(self.models.remove(at))
    }

    /// The model a client means: without a tag `latest`, letters of any case, the default host and namespace optional.
    pub fn find(&self, asked: &str) -> Option<&Model> {
        let short = asked.strip_prefix("registry.ollama.ai/").unwrap_or(asked);
        let short = short.strip_prefix("library/").unwrap_or(short);
        let wanted = if short.contains(':') { short.to_owned() } else { format!("{short}:latest") };
        self.models.iter().find(|model| model.name.eq_ignore_ascii_case(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_versions_tell_what_was_cached() {
        let tells = |version: &str| Script { version: version.into(), ..Script::default() }.tells_cached();
        assert!(tells("0.34.1") && tells("0.40.0-rc1") && tells("1.0"));
        assert!(!tells("0.34.0") && !tells("0.33.9"));
    }

    #[test]
    fn leaks_are_counted_over_streams_that_were_left() {
        let lost = |leak: Leak| (0..10).filter(|number| leak.takes(*number)).collect::<Vec<_>>();
        assert_eq!(lost(Leak::Every(4)), [3, 7]);
        assert_eq!(lost(Leak::Nth(2)), [2]);
        assert!(lost(Leak::Never).is_empty() && lost(Leak::Every(0)).is_empty());
    }
}
