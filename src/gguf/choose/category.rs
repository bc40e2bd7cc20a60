//! What a tensor is for, by its name.

/// The parts of a model that the rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Category {
    Output,
    TokenEmbedding,
    /// Values, alone or together with keys (and queries).
    AttentionValue,
    AttentionKey,
    AttentionOutput,
    FeedForwardDown,
    Other,
}

/// What a part of a name says; the first that a name contains counts, in llama.cpp's order.
const PARTS: [(&str, Category); 9] = [
    ("attn_qkv.weight", Category::AttentionValue),
    ("attn_kv_b.weight", Category::AttentionValue),
    ("attn_v.weight", Category::AttentionValue),
    ("attn_k.weight", Category::AttentionKey),
    ("attn_q.weight", Category::Other),
    ("attn_output.weight", Category::AttentionOutput),
    ("ffn_up", Category::Other),
    ("ffn_gate", Category::Other),
    ("ffn_down", Category::FeedForwardDown),
];

impl Category {
    pub(super) fn of(name: &str) -> Self {
        match name {
            "output.weight" => return Self::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => return Self::TokenEmbedding,
            _ => {}
        }
        PARTS.into_iter().find(|(part, _)| name.contains(part)).map_or(Self::Other, |(_, category)| category)
    }
}

/// Parts of names of tensors that are small or delicate and stay as they are.
const KEPT: [&str; 37] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
    // Whole names in llama.cpp; no other names contain them.
    "position_embd.weight",
    "token_types.weight",
];

/// Whether the tensor may be packed at all.
pub(super) fn is_quantizable(name: &str, dimensions: &[u64]) -> bool {
    // Trailing dimensions of one do not count.
    let is_matrix = dimensions.iter().skip(1).any(|n| *n != 1);
    is_matrix && name.ends_with("weight") && !KEPT.iter().any(|part| name.contains(part))
}
