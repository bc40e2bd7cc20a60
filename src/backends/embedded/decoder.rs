//! The seam between the engine and a model: what scheduling needs of one. Tests put a scripted model behind it.

use crate::lm;

/// Something that gives logits.
pub(super) trait Decoder: Send + 'static {
    type Cache: Send;

    /// Tokens read together at most.
    fn chunk(&self) -> usize;

    /// A cache with room for so many tokens.
    fn new_cache(&self, capacity: usize) -> Result<Self::Cache, String>;

    /// Forgets all tokens from `length` on; false when that is not possible.
    fn truncate(&self, cache: &mut Self::Cache, length: usize) -> bool;

    fn clear(&self, cache: &mut Self::Cache);

    /// Reads tokens without asking what comes next.
    fn read(&self, tokens: &[u32], cache: &mut Self::Cache) -> Result<(), String>;

    /// Reads tokens, and gives the logits of what comes next.
    fn forward(&self, tokens: &[u32], cache: &mut Self::Cache) -> Result<Vec<f32>, String>;
}

impl Decoder for lm::Model {
    type Cache = lm::Cache;

    fn chunk(&self) -> usize {
        lm::CHUNK
    }

    fn new_cache(&self, capacity: usize) -> Result<lm::Cache, String> {
        Self::new_cache(self, capacity).map_err(|error| error.to_string())
    }

    fn truncate(&self, cache: &mut lm::Cache, length: usize) -> bool {
        cache.truncate(length)
    }

    fn clear(&self, cache: &mut lm::Cache) {
        cache.clear();
    }

    fn read(&self, tokens: &[u32], cache: &mut lm::Cache) -> Result<(), String> {
        Self::read(self, tokens, cache).map_err(|error| error.to_string())
    }

    fn forward(&self, tokens: &[u32], cache: &mut lm::Cache) -> Result<Vec<f32>, String> {
        Self::forward(self, tokens, cache).map_err(|error| error.to_string())
    }
}
