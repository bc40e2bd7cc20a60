//! Which models are understood, and what their configurations leave unsaid.

use serde_json::Value;

use super::super::error::{Error, Result, shown};

/// A line of models that are converted alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::jobs) enum Family {
    Llama,
    Mistral,
    Phi3,
    Gemma,
    Gemma2,
    Gemma3,
    Qwen2,
    Qwen3,
}

const NAMES: &[(&str, Family)] = &[
    ("LlamaForCausalLM", Family::Llama),
    ("LLaMAForCausalLM", Family::Llama),
    ("MistralForCausalLM", Family::Mistral),
    ("Phi3ForCausalLM", Family::Phi3),
    ("GemmaForCausalLM", Family::Gemma),
    ("Gemma2ForCausalLM", Family::Gemma2),
    ("Gemma3ForCausalLM", Family::Gemma3),
    ("Gemma3ForConditionalGeneration", Family::Gemma3),
    ("Qwen2ForCausalLM", Family::Qwen2),
    ("Qwen3ForCausalLM", Family::Qwen3),
];

/// What the classes of transformers fill in where a configuration is silent.
pub(super) struct Defaults {
    pub(super) vocab_size: u64,
    pub(super) embedding: u64,
    pub(super) feed_forward: u64,
    pub(super) layers: u64,
    pub(super) heads: u64,
    /// `None`: as many as heads.
    pub(super) kv_heads: Option<u64>,
    pub(super) head_dim: HeadDim,
    pub(super) context: u64,
    pub(super) rms_epsilon: f64,
    pub(super) rope_theta: f64,
}

/// How large a head is when nothing says so.
#[derive(Clone, Copy)]
pub(super) enum HeadDim {
    Is(u64),
    /// The heads share the embedding, and the class writes that down.
    Share,
    /// The heads share the embedding, and nothing is written down.
    Unsaid,
}

impl Family {
    /// The family behind `architectures` in a configuration.
    pub(super) fn of(config: &Value) -> Result<Self> {
        let first = |config: &Value| config.get("architectures")?.get(0)?.as_str().map(str::to_owned);
        let name = config.get("text_config").and_then(first).or_else(|| first(config));
        let name = name.ok_or_else(|| Error::malformed("config.json", "`architectures` does not say what model this is"))?;
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, family)| *family).ok_or_else(|| Error::Unsupported {
            what: format!("the architecture {}", shown(&name)),
            supported: NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        })
    }

    /// `general.architecture`, which is also the prefix of the model's keys.
    pub(in crate::jobs) fn architecture(self) -> &'static str {
        match self {
            Self::Llama | Self::Mistral => "llama",
            Self::Phi3 => "phi3",
            Self::Gemma => "gemma",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// Whether llama.cpp wants the rows of queries and keys in the order of the original Llama code.
    pub(in crate::jobs) fn permutes(self) -> bool {
        matches!(self, Self::Llama | Self::Mistral)
    }

    pub(in crate::jobs) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma | Self::Gemma2 | Self::Gemma3)
    }

    #[rustfmt::skip]
    pub(super) fn defaults(self) -> Defaults {
        use HeadDim::{Is, Share, Unsaid};
        let of = |[vocab_size, embedding, feed_forward, layers, heads]: [u64; 5], kv_heads, head_dim, context| Defaults {
            vocab_size, embedding, feed_forward, layers, heads, kv_heads, head_dim, context, rms_epsilon: 1e-6, rope_theta: 10_000.0,
        };
        match self {
            Self::Llama => of([32_000, 4096, 11_008, 32, 32], None, Share, 2048),
            Self::Mistral => of([32_000, 4096, 14_336, 32, 32], Some(8), Share, 131_072),
            Self::Phi3 => Defaults { rms_epsilon: 1e-5, ..of([32_064, 3072, 8192, 32, 32], None, Unsaid, 4096) },
            Self::Gemma => of([256_000, 3072, 24_576, 28, 16], Some(16), Is(256), 8192),
            Self::Gemma2 => of([256_000, 2304, 9216, 26, 8], Some(4), Is(256), 8192),
            Self::Gemma3 => Defaults { rope_theta: 1e6, ..of([262_208, 2304, 9216, 26, 8], Some(4), Is(256), 131_072) },
            Self::Qwen2 => of([151_936, 4096, 22_016, 32, 32], Some(32), Unsaid, 32_768),
            Self::Qwen3 => of([151_936, 4096, 22_016, 32, 32], Some(32), Is(128), 32_768),
        }
    }
}
