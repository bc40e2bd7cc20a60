//! Shapes of models.

use std::fmt;

/// What a model is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub name: &'static str,
    /// As files call it.
    pub architecture: &'static str,
    pub layers: usize,
    pub width: usize,
    pub inner: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_length: usize,
    pub vocabulary: usize,
    /// Tokens that some layers see.
    pub window: Option<u32>,
    /// Whether the head is the table of embeddings.
    pub tied: bool,
}

pub const LLAMA_8B: Shape = Shape {
    name: "llama-8b",
    architecture: "llama",
    layers: 32,
    width: 4096,
    inner: 14_336,
    heads: 32,
    kv_heads: 8,
    head_length: 128,
    vocabulary: 128_256,
    window: None,
    tied: false,
};

pub const QWEN_HALF_B: Shape = Shape {
    name: "qwen2.5-0.5b",
    architecture: "qwen2",
    layers: 24,
    width: 896,
    inner: 4864,
    heads: 14,
    kv_heads: 2,
    head_length: 64,
    vocabulary: 151_936,
    window: None,
    tied: true,
};

pub const TINY: Shape = Shape {
    name: "tiny",
    architecture: "llama",
    layers: 3,
    width: 256,
    inner: 512,
    heads: 4,
    kv_heads: 2,
    head_length: 64,
    vocabulary: 512,
    window: None,
    tied: false,
};

/// Tiny models of the other families.
pub const FAMILIES: [Shape; 6] = [
    Shape { name: "tiny qwen2", architecture: "qwen2", tied: true, ..TINY },
    Shape { name: "tiny qwen3", architecture: "qwen3", head_length: 128, ..TINY },
    Shape { name: "tiny gemma", architecture: "gemma", head_length: 256, tied: true, ..TINY },
    Shape { name: "tiny gemma2", architecture: "gemma2", head_length: 256, tied: true, window: Some(40), ..TINY },
    Shape {
        name: "tiny gemma3",
        architecture: "gemma3",
        head_length: 256,
        heads: 2,
        kv_heads: 1,
        tied: true,
        window: Some(40),
        layers: 7,
        ..TINY
    },
    Shape { name: "tiny phi3", architecture: "phi3", head_length: 96, window: Some(60), ..TINY },
];

impl Shape {
    /// The shape of this name, of those that are measured.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [LLAMA_8B, QWEN_HALF_B, TINY].into_iter().find(|shape| shape.name == name)
    }

    /// Names of the shapes that are measured.
    #[must_use]
    pub fn names() -> impl fmt::Display {
        [LLAMA_8B, QWEN_HALF_B, TINY].map(|shape| shape.name).join(", ")
    }

    /// Names and dimensions (fastest-varying first) of all tensors, as files have them.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let mut all = vec![("token_embd.weight".to_owned(), dimensions(&[self.width, self.vocabulary]))];
        for layer in 0..self.layers {
            all.extend(self.block().into_iter().map(|(name, shape)| (format!("blk.{layer}.{name}"), dimensions(&shape))));
        }
        all.push(("output_norm.weight".to_owned(), dimensions(&[self.width])));
        if !self.tied {
            all.push(("output.weight".to_owned(), dimensions(&[self.width, self.vocabulary])));
        }
        all
    }

    fn block(&self) -> Vec<(&'static str, Vec<usize>)> {
        let Self { width, inner, head_length, .. } = *self;
        let (query, kv) = (self.heads * head_length, self.kv_heads * head_length);
        let is = |names: &[&str]| names.contains(&self.architecture);
        let mut all = vec![("attn_norm.weight", vec![width]), ("ffn_norm.weight", vec![width])];
        if is(&["phi3"]) {
            all.extend([("attn_qkv.weight", vec![width, query + 2 * kv]), ("ffn_up.weight", vec![width, 2 * inner])]);
        } else {
            all.extend([("attn_q.weight", vec![width, query]), ("attn_k.weight", vec![width, kv]), ("attn_v.weight", vec![width, kv])]);
            all.extend([("ffn_gate.weight", vec![width, inner]), ("ffn_up.weight", vec![width, inner])]);
        }
        if is(&["qwen2"]) {
            all.extend([("attn_q.bias", vec![query]), ("attn_k.bias", vec![kv]), ("attn_v.bias", vec![kv])]);
        }
        if is(&["qwen3", "gemma3"]) {
            all.extend([("attn_q_norm.weight", vec![head_length]), ("attn_k_norm.weight", vec![head_length])]);
        }
        if is(&["gemma2", "gemma3"]) {
            all.extend([("post_attention_norm.weight", vec![width]), ("post_ffw_norm.weight", vec![width])]);
        }
        all.extend([("attn_output.weight", vec![query, width]), ("ffn_down.weight", vec![inner, width])]);
        all
    }
}

fn dimensions(of: &[usize]) -> Vec<u64> {
    of.iter().map(|length| *length as u64).collect()
}
