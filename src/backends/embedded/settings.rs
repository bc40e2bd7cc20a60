//! What a request asks of its generation, and what of it the engine cannot apply. Pure.

use super::sampling::Sampling;
use crate::backends::Error;
use crate::domain::generation::{NotApplied, Request};

/// How one answer is generated.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) sampling: Sampling,
    pub(super) stops: Vec<String>,
    /// Most tokens to generate. `None`: until the context is full.
    pub(super) most_tokens: Option<usize>,
    /// Tokens of prompt and answer together.
    pub(super) context: usize,
    /// Whether blanks at the start of the answer are left out.
    pub(super) trim_start: bool,
    /// The client counts on the same answer to the same request: it fixed the seed, or left nothing to chance.
    pub(super) reproducible: bool,
    /// Fields and options that were accepted but have no effect.
    pub(super) not_applied: Vec<NotApplied>,
}

impl Settings {
    /// `configured`: the context the engine was started with. `plain`: the plain template wrote the prompt. `random`: a seed.
    pub(super) fn new(request: &Request, configured: usize, plain: Option<&[&str]>, random: u64) -> Result<Self, Error> {
        let options = &request.ask.options;
        let context = options.num_ctx.map_or(configured, |tokens| tokens as usize);
        if context > configured {
            let why = format!("the engine was started with a context of {configured} tokens, {context} were asked for");
            return Err(Error::Unsupported { field: "options.num_ctx", why });
        }
        // A small model answers plain questions best without chance.
        let temperature = plain.map(|_| 0.0);
        let own = plain.unwrap_or_default().iter().map(ToString::to_string);
        Ok(Self {
            sampling: Sampling::new(options, temperature, random),
            stops: options.stop.iter().flatten().cloned().chain(own).collect(),
            most_tokens: options.num_predict.and_then(|most| usize::try_from(most).ok()).filter(|most| *most > 0),
            context,
            trim_start: plain.is_some(),
            reproducible: options.seed.is_some_and(|seed| seed != -1) || options.temperature == Some(0.0),
            not_applied: not_applied(request),
        })
    }
}

/// Why a field has no effect.
const NOT_HERE: &str = "it has no meaning for the embedded engine";
const UNKNOWN: &str = "the embedded engine does not know it";

fn not_applied(request: &Request) -> Vec<NotApplied> {
    let options = &request.ask.options;
    let given = [
        ("keep_alive", request.ask.keep_alive.is_some()),
        ("options.penalize_newline", options.penalize_newline.is_some()),
        ("options.num_batch", options.num_batch.is_some()),
        ("options.num_gpu", options.num_gpu.is_some()),
        ("options.main_gpu", options.main_gpu.is_some()),
        ("options.use_mmap", options.use_mmap.is_some()),
        ("options.num_thread", options.num_thread.is_some()),
        ("options.draft_num_predict", options.draft_num_predict.is_some()),
    ];
    let known = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| NotApplied { field: name.to_owned(), why: NOT_HERE });
    let unknown = options.extra.keys().map(|name| format!("options.{name}"));
    let unknown = unknown.chain(request.ask.extra.keys().cloned()).map(|field| NotApplied { field, why: UNKNOWN });
    known.chain(unknown).collect()
}
