//! What a decoder is made of, as far as the GPU needs to know.

use super::attention::Attention;
use super::error::{Error, Result};

/// What the gate of a feed-forward layer goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Silu,
    GeluTanh,
}

/// Which numbers of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// (i, i + pairs)
    Halves,
    /// (2i, 2i + 1)
    Adjacent,
}

/// The settings of one decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    pub hidden: usize,
    pub feed_forward: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_size: usize,
    pub vocabulary: usize,
    pub epsilon: f32,
    pub gate: Gate,
    pub attention_scale: f32,
    /// 0: none.
    pub attention_cap: f32,
    /// 0: none.
    pub logit_cap: f32,
    pub embedding_scale: f32,
}

impl Shape {
    /// Whether the kernels know such a decoder.
    ///
    /// # Errors
    /// What they do not know.
    pub fn check(&self) -> Result<()> {
        let no = |what: String| Err(Error::Unsupported { what });
        if ![64, 96, 128, 256].contains(&self.head_size) {
            return no(format!("heads of {} numbers", self.head_size));
        }
        for (what, width) in [("layers", self.hidden), ("feed-forward layers", self.feed_forward), ("vocabularies", self.vocabulary)] {
            if !width.is_multiple_of(8) {
                return no(format!("{what} of {width} numbers"));
            }
        }
        if self.hidden > 8 * 2048 {
            return no(format!("layers of {} numbers", self.hidden));
        }
        Ok(())
    }

    /// Numbers in all query heads.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.heads * self.head_size
    }

    /// Numbers in all key heads, or in all value heads.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.kv_heads * self.head_size
    }

    /// Numbers in queries, keys and values.
    #[must_use]
    pub fn projected(&self) -> usize {
        self.queries() + 2 * self.keys()
    }

    #[must_use]
    pub(super) fn attention(&self, window: usize) -> Attention {
        Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_size: self.head_size,
            scale: self.attention_scale,
            cap: self.attention_cap,
            window,
        }
    }
}
