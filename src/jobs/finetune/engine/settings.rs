//! What is trained, and how the engine works.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// What the engine is loaded with.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub method: Method,
    pub precision: Precision,
    pub checkpointing: Checkpointing,
    /// Logits are computed for as many tokens at a time as fit into this.
    pub logits_bytes: usize,
}

/// What is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    Lora(Lora),
    /// Weights themselves: those whose names match one of these patterns; all of them if there are none.
    Full(Vec<String>),
}

/// Low-rank adapters (Hu et al. 2021): W x + scale · B (A x).
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    pub rank: usize,
    /// The scale is alpha / rank, or alpha / √rank with `rslora`.
    pub alpha: f32,
    /// Other ranks and alphas for matrices that match a pattern; the first that matches counts.
    pub rank_pattern: Vec<(String, usize)>,
    pub alpha_pattern: Vec<(String, f32)>,
    /// Share of an adapter's inputs that is dropped while training.
    pub dropout: f32,
    /// Rank-stabilised (Kalajdzievski 2023).
    pub rslora: bool,
    /// Weight-decomposed (Liu et al. 2024): each output also gets a magnitude of its own.
    pub dora: bool,
    /// Patterns of matrices that get an adapter; all of the blocks' if there are none.
    pub targets: Vec<String>,
    /// Patterns of weights that are trained themselves besides (`token_embd.weight`, `output.weight`).
    pub also: Vec<String>,
}

/// What frozen plain weights and activations are kept as on an accelerator. The CPU computes with 32 bits; there it says what weights of
/// more bits are rounded to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    Single,
    Brain,
}

/// What is kept of the forward pass for the way back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Checkpointing {
    /// The inputs of layers; the rest is computed again.
    #[default]
    Full,
    /// Everything that is needed, in the first so many layers; inputs in the others.
    Selective(usize),
    /// Everything that is needed in the first so many layers; in the others what attention gave, which is the dearest to make again for
    /// the memory it takes. Where candle's operations do the work and on the CPU, as `Selective`.
    Attention(usize),
    /// Everything that is needed.
    Off,
    /// On a GPU, as much as there is memory for when the first batch is read; elsewhere as `Full`.
    Auto,
}

impl Settings {
    /// What logits take where nothing else is said. On a GPU products are fastest when many labels go through the head together; on the
    /// CPU a few are enough.
    #[must_use]
    pub fn logits_bytes_on(device: &Device) -> usize {
        if device.is_cuda() { 512 << 20 } else { 64 << 20 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: Method::Lora(Lora::default()),
            precision: Precision::default(),
            checkpointing: Checkpointing::default(),
            logits_bytes: Self::logits_bytes_on(&Device::Cpu),
        }
    }
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            dropout: 0.0,
            rslora: false,
            dora: false,
            targets: Vec::new(),
            also: Vec::new(),
        }
    }
}

impl Lora {
    /// # Errors
    /// When a number is outside of what makes sense.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &'static str, why: String| Err(Error::Setting { what, why });
        if self.rank == 0 || self.rank_pattern.iter().any(|(_, rank)| *rank == 0) {
            return wrong("rank", "a rank is at least 1".to_owned());
        }
        if let Some(alpha) = self.alphas().find(|alpha| !alpha.is_finite() || *alpha <= 0.0) {
            return wrong("alpha", format!("{alpha} is not a number above 0"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong("dropout", format!("{} is not from 0 up to, and without, 1", self.dropout));
        }
        Ok(())
    }

    fn alphas(&self) -> impl Iterator<Item = f32> + '_ {
        std::iter::once(self.alpha).chain(self.alpha_pattern.iter().map(|(_, alpha)| *alpha))
    }

    /// Whether a matrix of a block gets an adapter.
    #[must_use]
    pub fn adapts(&self, matrix: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|pattern| matches(pattern, matrix))
    }

    /// The rank of a matrix's adapter.
    #[must_use]
    pub fn rank_of(&self, matrix: &str) -> usize {
        self.rank_pattern.iter().find(|(pattern, _)| matches(pattern, matrix)).map_or(self.rank, |(_, rank)| *rank)
    }

    /// What a matrix's adapter is multiplied with.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rank")]
    pub fn scale_of(&self, matrix: &str) -> f32 {
        let alpha = self.alpha_pattern.iter().find(|(pattern, _)| matches(pattern, matrix)).map_or(self.alpha, |(_, alpha)| *alpha);
        let rank = self.rank_of(matrix) as f32;
        if self.rslora { alpha / rank.sqrt() } else { alpha / rank }
    }
}

impl Checkpointing {
    /// Whether all that is needed of a layer is kept.
    #[must_use]
    pub fn keeps(self, layer: usize) -> bool {
        match self {
            Self::Full | Self::Auto => false,
            Self::Selective(layers) | Self::Attention(layers) => layer < layers,
            Self::Off => true,
        }
    }
}

/// As it is read by [`FromStr`].
impl fmt::Display for Checkpointing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Selective(layers) => write!(f, "selective:{layers}"),
            Self::Attention(layers) => write!(f, "attention:{layers}"),
            Self::Off => f.write_str("off"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl From<Checkpointing> for String {
    fn from(checkpointing: Checkpointing) -> Self {
        checkpointing.to_string()
    }
}

impl TryFrom<String> for Checkpointing {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// `full`, `auto`, `off`, `selective:N`, `attention:N`, `attention`.
impl FromStr for Checkpointing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, layers) = text.split_once(':').map_or((text, None), |(name, layers)| (name, Some(layers.parse().ok())));
        match (name, layers) {
            ("full", None) => Ok(Self::Full),
            ("auto", None) => Ok(Self::Auto),
            ("off", None) => Ok(Self::Off),
            ("attention", None) => Ok(Self::Attention(0)),
            ("attention", Some(Some(layers))) => Ok(Self::Attention(layers)),
            ("selective", Some(Some(layers))) => Ok(Self::Selective(layers)),
            _ => {
                let why = format!("`{text}` is none of full, auto, off, attention, attention:LAYERS and selective:LAYERS");
                Err(Error::Setting { what: "checkpointing", why })
            }
        }
    }
}

/// Names of matrices as Hugging Face's models have them, and as GGUF files do.
const ALSO_KNOWN_AS: &[(&str, &str)] = &[
    ("q_proj", "attn_q"),
    ("k_proj", "attn_k"),
    ("v_proj", "attn_v"),
    ("o_proj", "attn_output"),
    ("qkv_proj", "attn_qkv"),
    ("gate_proj", "ffn_gate"),
    ("up_proj", "ffn_up"),
    ("gate_up_proj", "ffn_up"),
    ("down_proj", "ffn_down"),
    ("embed_tokens", "token_embd"),
    ("lm_head", "output"),
];

/// Whether a name is meant: by itself (`blk.0.attn_q`), by its end (`attn_q`, `q_proj`, `attn_q.weight`), by a pattern with `*` for any
/// number of characters and `?` for one, or by `all-linear`.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern = ALSO_KNOWN_AS.iter().find(|(theirs, _)| *theirs == pattern).map_or(pattern, |(_, ours)| ours);
    let short = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or(name, |(_, short)| short);
    let stem = |name: &str| name.strip_suffix(".weight").map(str::to_owned);
    let names = [Some(name.to_owned()), Some(short.to_owned()), stem(name), stem(short)];
    pattern == "all-linear" || names.iter().flatten().any(|name| glob(pattern.as_bytes(), name.as_bytes()))
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => glob(rest, name) || (!name.is_empty() && glob(pattern, &name[1..])),
        (Some((b'?', pattern)), Some((_, name))) => glob(pattern, name),
        (Some((a, pattern)), Some((b, name))) => a == b && glob(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_in_full_by_their_end_by_pattern_and_as_hugging_face_has_them() {
        for pattern in ["blk.12.attn_q", "attn_q", "q_proj", "blk.*.attn_?", "attn_*", "all-linear", "*"] {
            assert!(matches(pattern, "blk.12.attn_q"), "{pattern}");
        }
        for pattern in ["blk.1.attn_q", "attn", "k_proj", "blk.?.attn_q", ""] {
            assert!(!matches(pattern, "blk.12.attn_q"), "{pattern}");
        }
        assert!(matches("attn_norm", "blk.0.attn_norm.weight") && matches("attn_norm.weight", "blk.0.attn_norm.weight"));
        assert!(matches("lm_head", "output.weight") && matches("embed_tokens", "token_embd.weight"));
    }

    #[test]
    fn scales_follow_alpha_rank_and_their_patterns() {
        let lora = Lora { rank: 4, alpha: 8.0, rank_pattern: vec![("v_proj".to_owned(), 16)], ..Lora::default() };
        let lora = Lora { alpha_pattern: vec![("blk.0.*".to_owned(), 2.0)], ..lora };
        let scales = ["blk.1.attn_q", "blk.1.attn_v", "blk.0.attn_q"].map(|name| lora.scale_of(name).to_bits());
        assert_eq!(scales, [2.0, 0.5, 0.5].map(f32::to_bits));
        assert_eq!(Lora { rslora: true, ..lora }.scale_of("blk.1.attn_q").to_bits(), 4_f32.to_bits());
    }

    #[test]
    fn checkpointing_is_read_as_it_is_written() {
        use Checkpointing::{Attention, Auto, Full, Off, Selective};
        for checkpointing in [Full, Selective(3), Attention(0), Attention(22), Off, Auto] {
            assert_eq!(checkpointing.to_string().parse::<Checkpointing>().unwrap(), checkpointing);
        }
        assert_eq!("attention".parse::<Checkpointing>().unwrap(), Attention(0));
        for wrong in ["", "selective", "selective:", "selective:-1", "attention:x", "full:1", "Full"] {
            let said = wrong.parse::<Checkpointing>().unwrap_err().to_string();
            assert!(said.contains(&format!("`{wrong}`")), "{said}");
        }
    }

    #[test]
    fn settings_without_sense_are_refused() {
        for lora in [
            Lora { rank: 0, ..Lora::default() },
            Lora { alpha: f32::NAN, ..Lora::default() },
            Lora { dropout: 1.0, ..Lora::default() },
            Lora { rank_pattern: vec![("*".to_owned(), 0)], ..Lora::default() },
        ] {
            assert!(lora.check().is_err(), "{lora:?}");
        }
    }
}
