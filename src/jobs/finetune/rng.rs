//! Random numbers by counting: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//!
//! A number is a function of its key and its place, so that it is the same whenever, wherever and in whatever order it is asked for:
//! after a restart, when a layer is computed again, on any number of threads.

/// The generator: ten rounds over a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

/// What numbers are for. Streams of different purposes have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// First values of adapters.
    Init = 1,
    /// What is dropped out.
    Dropout = 2,
    /// The order in which rows are read.
    Order = 3,
    /// To which side numbers are rounded.
    Rounding = 4,
}

/// One of many streams of numbers under one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    philox: Philox,
    /// The two upper words of the counter.
    upper: [u32; 2],
}

impl Philox {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { key: halves(seed) }
    }

    /// The four numbers at `counter`.
    #[must_use]
    pub fn block(self, counter: [u32; 4]) -> [u32; 4] {
        let ([mut a, mut b, mut c, mut d], mut key) = (counter, self.key);
        for _ in 0..10 {
            let [low_0, high_0] = halves(u64::from(Self::MULTIPLIERS[0]) * u64::from(a));
            let [low_1, high_1] = halves(u64::from(Self::MULTIPLIERS[1]) * u64::from(c));
            [a, b, c, d] = [high_1 ^ b ^ key[0], low_1, high_0 ^ d ^ key[1], low_0];
            key = [key[0].wrapping_add(Self::WEYL[0]), key[1].wrapping_add(Self::WEYL[1])];
        }
        [a, b, c, d]
    }

    /// The stream that is told apart from others by `words`. They are mixed into a key of its own.
    #[must_use]
    pub fn stream(self, purpose: Purpose, words: [u64; 4]) -> Stream {
        let mut key = self.block([purpose as u32, 0, 0, 0]);
        for word in words {
            let [low, high] = halves(word);
            key = Self { key: [key[0], key[1]] }.block([low, high, key[2], key[3]]);
        }
        Stream { philox: Self { key: [key[0], key[1]] }, upper: [key[2], key[3]] }
    }
}

impl Stream {
    /// Its key and the two upper words of its counter: for whoever counts elsewhere.
    #[cfg(feature = "cuda")]
    #[must_use]
    pub fn words(self) -> [u32; 4] {
        let [key_0, key_1] = self.philox.key;
        [key_0, key_1, self.upper[0], self.upper[1]]
    }

    /// Four numbers; `index` counts in fours.
    #[must_use]
    pub fn four(self, index: u64) -> [u32; 4] {
        let [low, high] = halves(index);
        self.philox.block([low, high, self.upper[0], self.upper[1]])
    }

    /// The number at `index`.
    #[must_use]
    pub fn at(self, index: u64) -> u32 {
        self.four(index / 4)[usize::from((index % 4) as u8)]
    }

    /// Fills a slice with numbers of [0, 1), from the stream's first on.
    pub fn fill_uniform(self, out: &mut [f32]) {
        for (index, out) in (0..).zip(out.chunks_mut(4)) {
            for (out, bits) in out.iter_mut().zip(self.four(index)) {
                *out = uniform(bits);
            }
        }
    }
}

/// A number of [0, 1), of which single precision has 2^24.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "24 bits are exact")]
pub fn uniform(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn halves(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `kat_vectors` of the authors' Random123.
    #[test]
    fn blocks_are_those_that_the_authors_published() {
        let of = |key: [u32; 2], counter| Philox { key }.block(counter);
        assert_eq!(of([0, 0], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(of([u32::MAX; 2], [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(of([0xa409_3822, 0x299f_31d0], pi), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn streams_differ_in_every_word_and_are_the_same_each_time() {
        let of = |purpose, words| Philox::new(7).stream(purpose, words).at(5);
        assert_eq!(of(Purpose::Init, [1, 2, 3, 4]), of(Purpose::Init, [1, 2, 3, 4]));
        let all = [[1, 2, 3, 4], [0, 2, 3, 4], [1, 0, 3, 4], [1, 2, 0, 4], [1, 2, 3, 0], [2, 1, 3, 4]];
        let mut found: Vec<u32> = all.iter().map(|words| of(Purpose::Init, *words)).collect();
        found.push(of(Purpose::Dropout, all[0]));
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), all.len() + 1);
    }

    #[test]
    fn uniform_numbers_fill_the_range_evenly() {
        let mut numbers = vec![0.0; 100_001];
        Philox::new(1).stream(Purpose::Order, [0; 4]).fill_uniform(&mut numbers);
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        for tenth in 0_u8..10 {
            let range = f32::from(tenth) / 10.0..f32::from(tenth + 1) / 10.0;
            let count = numbers.iter().filter(|number| range.contains(number)).count();
            assert!((9_600..10_400).contains(&count), "{count} of 100,000 in tenth {tenth}");
        }
        let one = uniform(Philox::new(1).stream(Purpose::Order, [0; 4]).at(4_001));
        assert_eq!(numbers[4_001].to_bits(), one.to_bits());
    }
}
