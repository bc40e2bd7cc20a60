//! In what the families differ where their files do not say it.

use super::super::error::{Error, Result};
use super::{Activation, Pairing};

pub(super) struct Family {
    architecture: &'static str,
    pub(super) pairing: Pairing,
    pub(super) activation: Activation,
    /// Embeddings are scaled by the root of their length.
    pub(super) scaled_embedding: bool,
    /// The window when the file does not name one; `None`: every layer then sees everything.
    pub(super) window: Option<usize>,
    /// Every so many-th layer sees everything, if there is a window; with 1 none does.
    pub(super) pattern: usize,
    /// Base of sliding layers when the file does not say; `None`: they are turned like the others.
    pub(super) sliding_base: Option<f32>,
    pub(super) attention_softcap: Option<f32>,
    pub(super) logit_softcap: Option<f32>,
    /// Blocks of the one model of the family whose scores are scaled by the embedding's share of a head.
    pub(super) largest: Option<usize>,
}

/// What most families have.
const USUAL: Family = Family {
    architecture: "",
    pairing: Pairing::Halves,
    activation: Activation::Silu,
    scaled_embedding: false,
    window: None,
    pattern: 1,
    sliding_base: None,
    attention_softcap: None,
    logit_softcap: None,
    largest: None,
};

const GEMMA: Family = Family { architecture: "gemma", activation: Activation::Gelu, scaled_embedding: true, ..USUAL };

/// What a file leaves unsaid is as llama.cpp takes it. In one thing we differ from it: it runs Phi 3 without the window that its
/// files name, with which it was trained.
const FAMILIES: &[Family] = &[
    GEMMA,
    Family {
        architecture: "gemma2",
        window: Some(4096),
        pattern: 2,
        attention_softcap: Some(50.0),
        logit_softcap: Some(30.0),
        largest: Some(46),
        ..GEMMA
    },
    Family { architecture: "gemma3", pattern: 6, sliding_base: Some(10_000.0), largest: Some(62), ..GEMMA },
    Family { architecture: "llama", pairing: Pairing::Neighbours, ..USUAL },
    Family { architecture: "phi3", ..USUAL },
    Family { architecture: "qwen2", ..USUAL },
    Family { architecture: "qwen3", ..USUAL },
];

impl Family {
    pub(super) fn named(architecture: &str) -> Result<&'static Self> {
        FAMILIES.iter().find(|family| family.architecture == architecture).ok_or_else(|| Error::Architecture {
            architecture: architecture.to_owned(),
            supported: supported().collect::<Vec<_>>().join(", "),
        })
    }
}

/// The architectures a decoder can be built for.
pub fn supported() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.architecture)
}
