//! The language models themselves: from the tokens of a sequence to the logits of the next one.
//!
//! One decoder with settings ([`Config`]) serves all families; it is written over a small set of operations ([`ops`]) that the
//! CPU path implements with kernels of this crate and the accelerator path with candle.
//! Promises: memory is known before anything is loaded ([`memory`]); a file that does not fit its own header is an error, not
//! a crash; the same tokens give the same logits on the same device, however they were split into calls, but for rounding.
//! It does not choose tokens, keep sequences apart or queue: that is `backends::embedded`'s.

mod accelerated;
pub mod bert;
mod cache;
mod config;
pub(crate) mod cpu;
mod decoder;
pub mod device;
mod error;
pub mod measure;
pub mod memory;
mod ops;
pub(crate) mod rope;
pub mod template;
pub mod tokenizer;
pub(crate) mod weights;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::gguf::Header;

use accelerated::Accelerated;
use cache::{Extent, Stores, ring_slots};
use cpu::Cpu;
use decoder::Decoder;
use device::Kind;
use weights::Source;

pub use cache::{CHUNK, Cache};
pub use config::{Activation, Config, Pairing, Rope, Scaling, Window, Yarn, supported};
pub use device::{Choice, Device};
pub use error::{Error, Result};
pub use measure::{Measurement, measure};

/// A loaded model. Shared by reference: every sequence has a [`Cache`] of its own.
#[derive(Debug)]
pub struct Model {
    id: u64,
    config: Config,
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    Cpu(Decoder<Cpu>),
    Accelerated(Decoder<Accelerated>),
}

/// Tells caches of different models apart.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Model {
    /// Takes the model at `path` into use, whose header has been read.
    ///
    /// # Errors
    /// When the family, a setting or a tensor is not supported, or a tensor is missing or has other dimensions than the settings
    /// say, or the file has changed since.
    pub fn load(path: &Path, header: &Header, device: &Device) -> Result<Self> {
        let config = Config::from_header(header)?;
        let source = Source::open(path, header)?;
        let engine = match &device.0 {
            Kind::Cpu { threads, isa, precision } => {
                Engine::Cpu(Decoder::load(Cpu::new(*threads, *isa, *precision)?, &config, header, &source)?)
            }
            Kind::Accelerator { device, .. } => {
                Engine::Accelerated(Decoder::load(Accelerated::new(device.clone()), &config, header, &source)?)
            }
        };
        Ok(Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), config, engine })
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A cache with room for so many tokens. It may be more than the model was trained for.
    pub fn new_cache(&self, capacity_tokens: usize) -> Result<Cache> {
        let capacity = capacity_tokens.max(1);
        let slots = ring_slots(&self.config, capacity);
        let (stores, rings) = match &self.engine {
            Engine::Cpu(decoder) => (Stores::Cpu(decoder.stores(&self.config, capacity, slots)?), true),
            Engine::Accelerated(decoder) => (Stores::Accelerated(decoder.stores(&self.config, capacity, slots)?), false),
        };
        let ring = self.config.window.filter(|_| rings).map(|window| (window.size, slots));
        Ok(Cache { model: self.id, capacity, stores, extent: Extent::new(ring) })
    }

    /// Reads tokens behind those in the cache, [`CHUNK`] at a time, and gives the logits of the token after the last.
    ///
    /// # Errors
    /// When there are none, one is outside the vocabulary, or the cache has no room; the cache is then as before.
    pub fn forward(&self, tokens: &[u32], cache: &mut Cache) -> Result<Vec<f32>> {
        self.check(tokens, cache)?;
        let last = tokens.len() - (tokens.len() - 1) % CHUNK - 1;
        self.read(&tokens[..last], cache)?;
        self.step(&tokens[last..], cache, Wanted::Last)
    }

    /// As [`Model::forward`], without computing logits: for all chunks of a prompt but the last.
    pub fn read(&self, tokens: &[u32], cache: &mut Cache) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        self.check(tokens, cache)?;
        for chunk in tokens.chunks(CHUNK) {
            self.step(chunk, cache, Wanted::Nothing)?;
        }
        Ok(())
    }

    /// As [`Model::forward`], with the logits behind every token, one row after the other. They are wide: give few tokens at a time,
    /// and no more than [`CHUNK`].
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_all(&self, tokens: &[u32], cache: &mut Cache) -> Result<Vec<f32>> {
        self.check(tokens, cache)?;
        self.step(tokens, cache, Wanted::Every)
    }

    /// The logits behind every token of a text, given to `each` with the token's position (for perplexity).
    pub fn logits(&self, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        /// Logits are wide: of so many tokens they are kept at a time.
        const TOKENS: usize = 32;
        let mut cache = self.new_cache(tokens.len())?;
        self.check(tokens, &cache)?;
        for chunk in tokens.chunks(TOKENS) {
            let start = cache.len();
            let logits = self.step(chunk, &mut cache, Wanted::Every)?;
            for (index, logits) in logits.chunks_exact(self.config.vocab_size).enumerate() {
                each(start + index, logits);
            }
        }
        Ok(())
    }

    fn check(&self, tokens: &[u32], cache: &Cache) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        if cache.model != self.id {
            return Err(Error::ForeignCache);
        }
        let vocab_size = self.config.vocab_size;
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(Error::Token { token, vocab_size });
        }
        let wanted = cache.len() + tokens.len();
        if wanted > cache.capacity {
            return Err(Error::CacheFull { capacity: cache.capacity, wanted });
        }
        Ok(())
    }

    /// One chunk.
    fn step(&self, tokens: &[u32], cache: &mut Cache, wanted: Wanted) -> Result<Vec<f32>> {
        let (start, capacity) = (cache.len(), cache.capacity);
        let logits = match (&self.engine, &mut cache.stores) {
            (Engine::Cpu(decoder), Stores::Cpu(stores)) => run(decoder, &self.config, tokens, [start, capacity], stores, wanted)?,
            (Engine::Accelerated(decoder), Stores::Accelerated(stores)) => {
                run(decoder, &self.config, tokens, [start, capacity], stores, wanted)?
            }
            _ => return Err(Error::ForeignCache),
        };
        cache.extent.grow(tokens.len());
        Ok(logits)
    }
}

/// Which logits of a chunk are wanted.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Nothing,
    Last,
    Every,
}

fn run<O: ops::Ops>(
    decoder: &Decoder<O>,
    config: &Config,
    tokens: &[u32],
    [start, capacity]: [usize; 2],
    stores: &mut [O::Store],
    wanted: Wanted,
) -> Result<Vec<f32>> {
    let x = decoder.hidden(config, tokens, start, capacity, stores)?;
    match wanted {
        Wanted::Nothing => Ok(Vec::new()),
        Wanted::Last => decoder.last_logits(config, &x),
        Wanted::Every => decoder.logits(config, &x),
    }
}
