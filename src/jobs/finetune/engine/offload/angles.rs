//! The angles of all positions, in the GPU's memory.

use crate::jobs::finetune::batch::Batch;
use crate::jobs::finetune::engine::cuda::{self, Decoder, Gpu, Result};
use crate::lm::rope::Ropes;
use crate::lm::{Config, Pairing};

/// How many positions there are angles for: of rows that are turned as usual, and behind them of rows that are turned as long ones
/// (Phi 3). Tables grow with the longest row.
#[derive(Debug, Default)]
pub struct Angles {
    usual: usize,
    long: usize,
}

impl Angles {
    /// The place in the tables of every token. Every row is turned as its own length asks for.
    pub fn positions(&mut self, decoder: &mut Decoder, config: &Config, ropes: &Ropes, batch: &Batch) -> Result<Vec<u32>> {
        let longest = |long| batch.rows().map(|row| row.len()).filter(|length| ropes.is_long(*length) == long).max().unwrap_or(0);
        let (usual, long) = (longest(false), longest(true));
        if usual > self.usual || long > self.long || decoder.angles.is_empty() {
            let grown = |now: usize, needed: usize| if needed > now { needed.next_power_of_two() } else { now };
            *self = Self { usual: grown(self.usual, usual.max(1)), long: grown(self.long, long) };
            decoder.angles.clear();
            for sliding in [false, true] {
                decoder.angles.push(self.table(&decoder.gpu, config, ropes, sliding)?);
            }
        }
        let start = |length: usize| u32::try_from(if ropes.is_long(length) { self.usual } else { 0 }).unwrap_or(u32::MAX);
        Ok(batch.rows().flat_map(|row| (start(row.len())..).take(row.len())).collect())
    }

    fn table(&self, gpu: &Gpu, config: &Config, ropes: &Ropes, sliding: bool) -> Result<cuda::Angles> {
        let mut values = ropes.for_length(0).angles(sliding, 0, self.usual).values;
        values.extend(ropes.for_length(usize::MAX).angles(sliding, 0, self.long).values);
        let part = |which: usize| gpu.upload(&values.iter().map(|pair| pair[which]).collect::<Vec<_>>());
        let pairing = match config.rope.pairing {
            Pairing::Halves => cuda::Pairing::Halves,
            Pairing::Neighbours => cuda::Pairing::Adjacent,
        };
        Ok(cuda::Angles { cosines: part(0)?, sines: part(1)?, pairs: config.rope.dimensions / 2, pairing })
    }
}
