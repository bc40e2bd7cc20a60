//! The angles of rotary position embeddings.

use super::config::Config;

/// Angles for each pair of a head, at any position.
#[derive(Debug, Clone)]
pub struct Rope {
    everywhere: Vec<f32>,
    sliding: Vec<f32>,
}

/// Cosine and sine of each pair, position by position.
#[derive(Debug, Clone)]
pub struct Angles {
    /// Pairs of one position.
    pub pairs: usize,
    pub values: Vec<[f32; 2]>,
}

impl Rope {
    /// `factors` divide the frequencies of the layers that see everything (Llama 3's scaling, which files carry as the tensor
    /// `rope_freqs.weight`).
    pub fn new(config: &Config, factors: Option<&[f32]>) -> Self {
        let rope = &config.rope;
        let mut everywhere = frequencies(rope.dimensions, rope.base, rope.factor);
        for (frequency, factor) in everywhere.iter_mut().zip(factors.unwrap_or_default()) {
            *frequency /= factor;
        }
        Self { everywhere, sliding: frequencies(rope.dimensions, rope.sliding_base, rope.sliding_factor) }
    }

    /// The angles of `count` positions from `start` on.
    #[expect(clippy::cast_precision_loss, reason = "models are trained with positions in single precision")]
    pub fn angles(&self, sliding: bool, start: usize, count: usize) -> Angles {
        let frequencies = if sliding { &self.sliding } else { &self.everywhere };
        let angle = |position: usize, frequency: &f32| {
            let (sin, cos) = (position as f32 * frequency).sin_cos();
            [cos, sin]
        };
        let values = (start..start + count).flat_map(|position| frequencies.iter().map(move |f| angle(position, f))).collect();
        Angles { pairs: frequencies.len(), values }
    }
}

/// `1 / base^(2i / dimensions)` for every pair `i`, divided by `factor`.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "computed in double, used in single precision")]
fn frequencies(dimensions: usize, base: f32, factor: f32) -> Vec<f32> {
    let exponent = |pair: usize| -2.0 * pair as f64 / dimensions as f64;
    (0..dimensions / 2).map(|pair| (f64::from(base).powf(exponent(pair)) / f64::from(factor)) as f32).collect()
}
