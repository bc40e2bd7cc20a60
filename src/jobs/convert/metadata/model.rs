//! A model's own settings, key by key as each family has them, and the tensors that hold its rope factors.

use super::super::config::{CONFIG, Config, Family};
use super::super::error::{Error, Result};
use super::Pairs;

/// Comes before all other settings: the converter writes it when it makes the factors' tensors.
pub(in crate::jobs::convert) const ROPE_ATTENTION_FACTOR: &str = "rope.scaling.attn_factor";

/// Everything under the architecture's name, with `general.file_type` where it stands.
pub(in crate::jobs::convert) fn parameters(pairs: &mut Pairs, config: &Config, file_type: u32) {
    let mut writer = Writer { pairs, config, file_type };
    match config.family {
        Family::Phi3 => writer.phi3(),
        Family::Gemma | Family::Gemma2 => writer.gemma(),
        Family::Gemma3 => writer.gemma3(),
        Family::Llama | Family::Mistral => writer.llama(),
        Family::Qwen2 | Family::Qwen3 => writer.common(),
    }
}

struct Writer<'a> {
    pairs: &'a mut Pairs,
    config: &'a Config,
    file_type: u32,
}

impl Writer<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.config.family.architecture())
    }

    fn u32(&mut self, name: &str, number: u64) {
        self.pairs.u32(self.key(name), number);
    }

    fn f32(&mut self, name: &str, number: f64) {
        self.pairs.f32(self.key(name), number);
    }

    fn file_type(&mut self) {
        self.pairs.u32("general.file_type", self.file_type.into());
    }

    fn head_length(&mut self, length: u64) {
        self.u32("attention.key_length", length);
        self.u32("attention.value_length", length);
    }

    /// What most families have.
    fn common(&mut self) {
        let config = self.config;
        self.u32("block_count", config.layers);
        self.u32("context_length", config.context);
        self.u32("embedding_length", config.embedding);
        self.u32("feed_forward_length", config.feed_forward);
        self.u32("attention.head_count", config.heads);
        self.u32("attention.head_count_kv", config.kv_heads);
        self.rope();
        self.f32("attention.layer_norm_rms_epsilon", config.rms_epsilon);
        if let Some(length) = config.head_dim {
            self.head_length(length);
        }
        self.file_type();
    }

    fn rope(&mut self) {
        let rope = &self.config.rope;
        let kind = rope.kind();
        match (kind.as_str(), rope.number("factor")) {
            (kind @ ("linear" | "yarn"), Some(factor)) => {
                self.pairs.string(self.key("rope.scaling.type"), kind);
                self.f32("rope.scaling.factor", factor);
            }
            ("su" | "longrope", _) => self.pairs.string(self.key("rope.scaling.type"), "longrope"),
            _ => {}
        }
        if kind == "yarn" && rope.number("factor").is_some() {
            self.yarn();
        }
        if let Some(theta) = rope.theta() {
            self.f32("rope.freq_base", theta);
        }
        if let Some(theta) = rope.sliding_theta {
            self.f32("rope.freq_base_swa", theta);
        }
    }

    fn yarn(&mut self) {
        let rope = &self.config.rope;
        let original = rope.number("original_max_position_embeddings").filter(|n| *n >= 1.0 && *n <= f64::from(u32::MAX));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, as checked in the line above")]
        self.u32("rope.scaling.original_context_length", original.map_or(self.config.context, |n| n as u64));
        for (name, number) in [
            ("rope.scaling.yarn_ext_factor", rope.number("extrapolation_factor")),
            ("rope.scaling.yarn_attn_factor", rope.number("attention_factor").or_else(|| rope.number("attn_factor"))),
            ("rope.scaling.yarn_beta_fast", rope.number("beta_fast")),
            ("rope.scaling.yarn_beta_slow", rope.number("beta_slow")),
        ] {
            if let Some(number) = number {
                self.f32(name, number);
            }
        }
    }

    fn llama(&mut self) {
        self.common();
        self.u32("vocab_size", self.config.vocab_size);
        self.u32("rope.dimension_count", self.config.head_size());
    }

    fn gemma3(&mut self) {
        self.common();
        if let Some(cap) = self.config.final_softcap.filter(|cap| *cap != 0.0) {
            self.f32("final_logit_softcapping", cap);
        }
        if let Some(window) = self.config.sliding_window {
            self.u32("attention.sliding_window", window);
        }
    }

    /// Gemma 1 and 2: the same settings in another order, and no base.
    fn gemma(&mut self) {
        let config = self.config;
        self.u32("context_length", config.context);
        self.u32("embedding_length", config.embedding);
        self.u32("block_count", config.layers);
        self.u32("feed_forward_length", config.feed_forward);
        self.u32("attention.head_count", config.heads);
        self.u32("attention.head_count_kv", config.kv_heads);
        self.f32("attention.layer_norm_rms_epsilon", config.rms_epsilon);
        self.head_length(config.head_size());
        self.file_type();
        if config.family == Family::Gemma2 {
            self.f32("attn_logit_softcapping", config.attention_softcap.unwrap_or_default());
            self.f32("final_logit_softcapping", config.final_softcap.unwrap_or_default());
            self.u32("attention.sliding_window", config.sliding_window.unwrap_or_default());
        }
    }

    fn phi3(&mut self) {
        let config = self.config;
        self.u32("context_length", config.context);
        self.u32("rope.scaling.original_context_length", config.original_context);
        self.u32("embedding_length", config.embedding);
        self.u32("feed_forward_length", config.feed_forward);
        self.u32("block_count", config.layers);
        self.u32("attention.head_count", config.heads);
        self.u32("attention.head_count_kv", config.kv_heads);
        self.f32("attention.layer_norm_rms_epsilon", config.rms_epsilon);
        self.u32("rope.dimension_count", phi3_rotated(config));
        if let Some(theta) = config.rope.theta() {
            self.f32("rope.freq_base", theta);
        }
        self.file_type();
        // 0 tells Phi-4 from the others.
        self.u32("attention.sliding_window", config.sliding_window.unwrap_or(0));
    }
}

/// Numbers of a head that are rotated.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a part of a small number")]
fn phi3_rotated(config: &Config) -> u64 {
    let part = config.rope.number("partial_rotary_factor").unwrap_or(1.0).clamp(0.0, 1.0);
    (part * config.embedding as f64) as u64 / config.heads
}

/// Tensors of rope factors by name, with the attention factor that belongs to them.
pub(in crate::jobs) type RopeTensors = (Vec<(&'static str, Vec<f32>)>, Option<f64>);

/// The tensors that the files do not have and llama.cpp wants.
pub(in crate::jobs) fn rope_tensors(config: &Config) -> Result<RopeTensors> {
    match config.family {
        Family::Llama | Family::Mistral if config.rope.kind() == "llama3" => {
            Ok((vec![("rope_freqs.weight", llama3_factors(config))], None))
        }
        Family::Phi3 => phi3_factors(config),
        _ => Ok((Vec::new(), None)),
    }
}

/// By how much each frequency is slowed: long waves by the factor, short ones not at all, and between them smoothly
/// (`_compute_llama3_parameters` of transformers).
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "torch computes frequencies in f32")]
fn llama3_factors(config: &Config) -> Vec<f32> {
    let number = |key, unsaid| config.rope.number(key).unwrap_or(unsaid);
    let (theta, factor) = (config.rope.theta().unwrap_or(10_000.0), number("factor", 8.0));
    let (low, high) = (number("low_freq_factor", 1.0), number("high_freq_factor", 4.0));
    let context = number("original_max_position_embeddings", 8192.0);
    let size = config.head_size();
    (0..size.div_ceil(2))
        .map(|index| {
            let exponent = (2 * index) as f32 / size as f32;
            let frequency = 1.0 / (theta.powf(f64::from(exponent)) as f32);
            let wavelength = (2.0 * std::f64::consts::PI) as f32 / frequency;
            stretch(wavelength, context as f32, [factor as f32, low as f32, high as f32])
        })
        .collect()
}

fn stretch(wavelength: f32, context: f32, [factor, low, high]: [f32; 3]) -> f32 {
    if wavelength < context / high {
        1.0
    } else if wavelength > context / low {
        factor
    } else {
        let smooth = (context / wavelength - low) / (high - low);
        1.0 / ((1.0 - smooth) / factor + smooth)
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "the factors are kept as f32")]
fn phi3_factors(config: &Config) -> Result<RopeTensors> {
    let Some(long) = config.rope.numbers("long_factor").filter(|long| !long.is_empty()) else { return Ok((Vec::new(), None)) };
    let short = config.rope.numbers("short_factor").unwrap_or_default();
    let wanted = phi3_rotated(config) as usize / 2;
    if long.len() != wanted || short.len() != wanted {
        let found = format!("`long_factor` and `short_factor` have {} and {} numbers instead of {wanted}", long.len(), short.len());
        return Err(Error::malformed(CONFIG, found));
    }
    let (original, context) = (config.original_context as f64, config.context as f64);
    let scale = context / original;
    let attention = match config.rope.kind().as_str() {
        _ if scale <= 1.0 => 1.0,
        "su" | "longrope" => (1.0 + scale.ln() / original.ln()).sqrt(),
        "yarn" => 0.1 * scale.ln() + 1.0,
        kind => {
            return Err(Error::Unsupported {
                what: format!("rope scaling of the kind {kind:.40?}"),
                supported: "longrope, yarn".to_owned(),
            });
        }
    };
    let narrow = |numbers: Vec<f64>| numbers.into_iter().map(|number| number as f32).collect();
    Ok((vec![("rope_factors_long.weight", narrow(long)), ("rope_factors_short.weight", narrow(short))], Some(attention)))
}
