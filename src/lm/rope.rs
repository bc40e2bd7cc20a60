//! The angles of rotary position embeddings.

use crate::gguf::Header;

use super::config::{Config, Rope as Settings, Scaling, Yarn};
use super::decoder::numbers;
use super::error::{Error, Result};
use super::weights::{Source, find};

/// Angles for each pair of a head, at any position.
#[derive(Debug, Clone)]
pub(crate) struct Rope {
    everywhere: Vec<f32>,
    sliding: Vec<f32>,
    /// Cosines and sines are multiplied with this.
    attention_factor: f32,
}

/// Cosine and sine of each pair, position by position.
#[derive(Debug, Clone)]
pub(crate) struct Angles {
    /// Pairs of one position.
    pub pairs: usize,
    pub values: Vec<[f32; 2]>,
}

/// What a model turns by: some have other angles for long sequences (`LongRoPE`).
#[derive(Debug)]
pub(crate) struct Ropes {
    usual: Rope,
    long: Option<Rope>,
    original_context: usize,
}

impl Ropes {
    /// With the factors that the file has as tensors: one for every pair (`rope_freqs.weight`, Llama 3's scaling), or one for
    /// sequences up to the original context and one for longer ones (Phi 3).
    ///
    /// # Errors
    /// When one of two such tensors is missing, has another length than there are pairs, or a factor that is not above 0.
    pub(crate) fn load(config: &Config, header: &Header, source: &Source) -> Result<Self> {
        let factors = |name| factors(config, header, source, name);
        let original_context = config.rope.original_context;
        let always = factors("rope_freqs.weight")?;
        let [short, long] = [SHORT, LONG].map(factors);
        let (short, long) = (short?, long?);
        let is_needed = config.rope.scaling == Scaling::LongRope || short.is_some() || long.is_some();
        if always.is_some() || !is_needed {
            return Ok(Self { usual: Rope::new(config, always.as_deref()), long: None, original_context });
        }
        let missing = |name: &str| Error::MissingTensor { name: name.to_owned() };
        let short = short.ok_or_else(|| missing(SHORT))?;
        let long = long.ok_or_else(|| missing(LONG))?;
        Ok(Self { usual: Rope::new(config, Some(&short)), long: Some(Rope::new(config, Some(&long))), original_context })
    }

    /// The angles for a sequence of `length` tokens. All its tokens have to be turned alike, so a sequence that grows takes those for
    /// the length that it may reach: serving gives the capacity of the cache, as llama.cpp does. Where a sequence is known as a
    /// whole, as in training, its own length is what `transformers` chooses by.
    pub(crate) fn for_length(&self, length: usize) -> &Rope {
        self.long.as_ref().filter(|_| length > self.original_context).unwrap_or(&self.usual)
    }

    /// Whether a sequence of `length` tokens has other angles than a short one.
    #[cfg(feature = "cuda")]
    pub(crate) fn is_long(&self, length: usize) -> bool {
        self.long.is_some() && length > self.original_context
    }
}

const SHORT: &str = "rope_factors_short.weight";
const LONG: &str = "rope_factors_long.weight";

fn factors(config: &Config, header: &Header, source: &Source, name: &str) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = find(header, name, &[config.rope.dimensions / 2])? else { return Ok(None) };
    let factors = numbers(source, &tensor, 0..tensor.columns);
    if let Some(factor) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
        return Err(Error::Header { key: name.to_owned(), why: format!("has the factor {factor}, which is not a number above 0") });
    }
    Ok(Some(factors))
}

impl Rope {
    /// `factors` divide the frequencies of the layers that are stretched.
    pub(crate) fn new(config: &Config, factors: Option<&[f32]>) -> Self {
        let rope = &config.rope;
        let stretched = |base| divided(frequencies(rope, base), factors.unwrap_or_default());
        let plain = |base| powers(rope.dimensions, base).map(narrowed).collect();
        let sliding = if rope.stretches_sliding { stretched(rope.sliding_base) } else { plain(rope.sliding_base) };
        Self { everywhere: stretched(rope.base), sliding, attention_factor: rope.attention_factor }
    }

    /// The angles of `count` positions from `start` on.
    #[expect(clippy::cast_precision_loss, reason = "models are trained with positions in single precision")]
    pub(crate) fn angles(&self, sliding: bool, start: usize, count: usize) -> Angles {
        let frequencies = if sliding { &self.sliding } else { &self.everywhere };
        let angle = |position: usize, frequency: &f32| {
            let (sin, cos) = (position as f32 * frequency).sin_cos();
            [cos * self.attention_factor, sin * self.attention_factor]
        };
        let values = (start..start + count).flat_map(|position| frequencies.iter().map(move |f| angle(position, f))).collect();
        Angles { pairs: frequencies.len(), values }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "computed in double, used in single precision")]
fn narrowed(frequency: f64) -> f32 {
    frequency as f32
}

fn divided(mut frequencies: Vec<f32>, factors: &[f32]) -> Vec<f32> {
    for (frequency, factor) in frequencies.iter_mut().zip(factors) {
        *frequency /= factor;
    }
    frequencies
}

/// `1 / base^(2i / dimensions)` for every pair `i`.
#[expect(clippy::cast_precision_loss, reason = "a head's dimensions")]
fn powers(dimensions: usize, base: f32) -> impl Iterator<Item = f64> {
    (0..dimensions / 2).map(move |pair| f64::from(base).powf(-2.0 * pair as f64 / dimensions as f64))
}

/// The frequencies with the context stretched.
#[expect(clippy::cast_precision_loss, reason = "a head's dimensions")]
fn frequencies(rope: &Settings, base: f32) -> Vec<f32> {
    let factor = f64::from(rope.factor);
    let powers = powers(rope.dimensions, base);
    let Scaling::Yarn(yarn) = rope.scaling else { return powers.map(|power| narrowed(power / factor)).collect() };
    let [low, high] = bounds(rope, base, yarn);
    let kept = |pair: usize| (1.0 - ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0)) * f64::from(yarn.extrapolation);
    powers.enumerate().map(|(pair, power)| narrowed(power / factor * (1.0 - kept(pair)) + power * kept(pair))).collect()
}

/// From which pair on frequencies are no longer high, and from which on they are low.
#[expect(clippy::cast_precision_loss, reason = "a head's dimensions, and tokens")]
fn bounds(rope: &Settings, base: f32, yarn: Yarn) -> [f64; 2] {
    let (dimensions, context) = (rope.dimensions as f64, rope.original_context as f64);
    let pair = |turns: f32| {
        let wavelength = context / (f64::from(turns) * 2.0 * std::f64::consts::PI);
        dimensions * wavelength.ln() / (2.0 * f64::from(base).ln())
    };
    [pair(yarn.fast).floor().max(0.0), pair(yarn.slow).ceil().min(dimensions - 1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::TensorKind;
    use crate::gguf::writer::Writer;

    /// A file of Phi 3 with 2 pairs in a head, whose factors are in `tensors`.
    fn ropes(tensors: &[(&str, &[f32])], scaling: Option<&str>) -> Result<Ropes> {
        let mut writer = Writer::default()
            .str("general.architecture", "phi3")
            .u32("phi3.block_count", 1)
            .u32("phi3.context_length", 128)
            .u32("phi3.embedding_length", 8)
            .u32("phi3.feed_forward_length", 8)
            .u32("phi3.attention.head_count", 2)
            .f32("phi3.attention.layer_norm_rms_epsilon", 1e-6)
            .u32("phi3.rope.scaling.original_context_length", 16)
            .f32("phi3.rope.scaling.attn_factor", 2.0)
            .tensor("token_embd.weight", TensorKind::F32, &[8, 4]);
        if let Some(scaling) = scaling {
            writer = writer.str("phi3.rope.scaling.type", scaling);
        }
        for (name, factors) in tensors {
            writer = writer.tensor(name, TensorKind::F32, &[factors.len() as u64]);
            let at = writer.data.len() - size_of_val(*factors);
            writer.data[at..].copy_from_slice(&factors.iter().flat_map(|factor| factor.to_le_bytes()).collect::<Vec<_>>());
        }
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("model.gguf");
        std::fs::write(&path, writer.finish()).expect("written");
        let header = Header::read_file(&path).expect("sound");
        Ropes::load(&Config::from_header(&header)?, &header, &Source::open(&path, &header)?)
    }

    fn second_pair(rope: &Rope) -> [f32; 2] {
        rope.angles(true, 1, 1).values[1]
    }

    #[test]
    fn long_factors_are_for_what_is_longer_than_the_original_context() {
        let ropes = ropes(&[(LONG, &[1.0, 4.0]), (SHORT, &[1.0, 2.0])], None).expect("sound");
        let turned = |factor: f32| [2.0 * (0.01 / factor).cos(), 2.0 * (0.01 / factor).sin()];
        assert_eq!([second_pair(ropes.for_length(1)), second_pair(ropes.for_length(16))], [turned(2.0); 2]);
        assert_eq!([second_pair(ropes.for_length(17)), second_pair(ropes.for_length(usize::MAX))], [turned(4.0); 2]);
    }

    #[test]
    fn broken_factors_are_refused_by_name() {
        let refused = |tensors: &[(&str, &[f32])], scaling| ropes(tensors, scaling).expect_err("must be refused").to_string();
        assert!(refused(&[(LONG, &[1.0, 4.0])], None).contains(SHORT));
        assert!(refused(&[(SHORT, &[1.0, 4.0])], None).contains(LONG));
        assert!(refused(&[], Some("longrope")).contains(SHORT));
        assert!(refused(&[(LONG, &[1.0; 3]), (SHORT, &[1.0; 2])], None).contains("[3], expected [2]"));
        for factor in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(refused(&[("rope_freqs.weight", &[1.0, factor])], None).contains("not a number above 0"));
        }
    }
}
