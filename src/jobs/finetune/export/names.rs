//! What Hugging Face and PEFT call the tensors of a GGUF file, and in which order they have the rows of Llama's queries and keys.
//!
//! The way there is `convert`'s; here is the way back. llama.cpp interleaves the two halves of each head of Llama's and Mistral's
//! queries and keys (for how it turns them by their positions), of which everything that has a row for each output must be told:
//! the matrix itself, its bias, lora_b, and magnitudes.

use super::base::Base;
use super::error::{Error, Result};
use crate::jobs::convert::config::Family;
use crate::jobs::convert::names::{own_name, part_of_layer};

/// Parts of a layer, as Hugging Face names them; which of them a family has, and what for, `convert` knows.
const PARTS: [&str; 15] = [
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "self_attn.qkv_proj",
    "self_attn.q_norm",
    "self_attn.k_norm",
    "mlp.gate_proj",
    // Phi-3's comes before that which others have: both become `ffn_up`.
    "mlp.gate_up_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
];

/// Names and orders of rows of one base.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) family: Family,
    pub(super) layers: u64,
    heads: u64,
    kv_heads: u64,
}

impl Names {
    pub(super) fn of(base: &Base) -> Result<Self> {
        let heads = base.count("attention.head_count").ok_or_else(|| Error::impossible("the base does not say how many heads it has"))?;
        let kv_heads = base.count("attention.head_count_kv").unwrap_or(heads);
        Ok(Self { family: base.family()?, layers: base.layers()?, heads, kv_heads })
    }

    /// The module behind `blk.3.attn_q`: `model.layers.3.self_attn.q_proj`. `None`: Hugging Face's model has none, for example for rope
    /// factors.
    pub(super) fn module(&self, own: &str) -> Option<String> {
        match own {
            "token_embd" => return Some("model.embed_tokens".to_owned()),
            "output_norm" => return Some("model.norm".to_owned()),
            "output" => return Some("lm_head".to_owned()),
            _ => {}
        }
        let (layer, part) = own.strip_prefix("blk.")?.split_once('.')?;
        let layer: u64 = layer.parse().ok().filter(|layer| *layer < self.layers)?;
        let fused = self.family == Family::Phi3 && matches!(part, "attn_q" | "attn_k" | "attn_v" | "ffn_gate");
        let theirs = PARTS.iter().find(|theirs| part_of_layer(theirs, self.family) == Some(part) && !fused)?;
        Some(format!("model.layers.{layer}.{theirs}"))
    }

    /// What [`Names::module`] says of a tensor or parameter whose name ends with what it is (`blk.3.attn_q.weight`).
    pub(super) fn tensor(&self, own: &str) -> Option<String> {
        let (module, ending) = own.rsplit_once('.').filter(|(_, ending)| matches!(*ending, "weight" | "bias"))?;
        Some(format!("{}.{ending}", self.module(module)?))
    }

    /// The way back: `blk.3.attn_q` for `model.layers.3.self_attn.q_proj`.
    pub(super) fn own(&self, module: &str) -> Option<String> {
        let own = own_name(&format!("{module}.weight"), self.family, self.layers)?;
        own.strip_suffix(".weight").map(str::to_owned)
    }

    /// Rows of one head, where this tensor of so many rows has its heads interleaved in the GGUF file. `own`: without its ending.
    pub(super) fn interleaved(&self, own: &str, rows: u64) -> Result<Option<u64>> {
        let heads = match own.rsplit('.').next() {
            Some("attn_q") => self.heads,
            Some("attn_k") => self.kv_heads,
            _ => return Ok(None),
        };
        if !self.family.permutes() {
            return Ok(None);
        }
        if rows == 0 || !rows.is_multiple_of(2 * heads) {
            return Err(Error::impossible(format!("{own} has {rows} rows, which cannot be {heads} heads of two halves")));
        }
        Ok(Some(rows / heads))
    }

    /// Gemma's norms are kept less one by Hugging Face.
    pub(super) fn less_one(&self, own: &str) -> bool {
        self.family.is_gemma() && own.ends_with("norm.weight")
    }
}

/// The row of the GGUF file that is this row of Hugging Face's: the inverse of `convert`'s `source_row`.
pub(super) fn interleaved_row(head: Option<u64>, row: u64) -> u64 {
    let Some(head) = head else { return row };
    let (start, within) = (row - row % head, row % head);
    start + if within < head / 2 { 2 * within } else { 2 * (within - head / 2) + 1 }
}

/// A list with an entry for each row, brought from the order of the GGUF file into Hugging Face's. `width`: numbers of an entry.
pub(super) fn into_theirs<T: Copy>(numbers: &[T], width: usize, head: Option<u64>) -> Vec<T> {
    reordered(numbers, width, |row| interleaved_row(head, row))
}

/// The other way round.
pub(super) fn into_own<T: Copy>(numbers: &[T], width: usize, head: Option<u64>) -> Vec<T> {
    reordered(numbers, width, |row| head.map_or(row, |head| crate::jobs::convert::rows::source_row(head, row)))
}

#[expect(clippy::cast_possible_truncation, reason = "rows that are in memory are counted by usize")]
fn reordered<T: Copy>(numbers: &[T], width: usize, from: impl Fn(u64) -> u64) -> Vec<T> {
    let rows = (numbers.len() / width.max(1)) as u64;
    (0..rows).flat_map(|row| numbers[from(row) as usize * width..][..width].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::convert::rows::source_row;

    fn names(family: Family) -> Names {
        Names { family, layers: 12, heads: 4, kv_heads: 2 }
    }

    #[test]
    fn every_family_finds_its_way_there_and_back() {
        let plain = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_norm", "ffn_norm"];
        let fused = ["attn_qkv", "attn_output", "ffn_up", "ffn_down", "attn_norm", "ffn_norm"];
        let more = |more: &[&'static str]| [&plain[..], more].concat();
        for (family, parts) in [
            (Family::Llama, plain.to_vec()),
            (Family::Phi3, fused.to_vec()),
            (Family::Gemma, plain.to_vec()),
            (Family::Gemma2, more(&["post_attention_norm", "post_ffw_norm"])),
            (Family::Gemma3, more(&["post_attention_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm"])),
            (Family::Qwen2, plain.to_vec()),
            (Family::Qwen3, more(&["attn_q_norm", "attn_k_norm"])),
        ] {
            let names = names(family);
            for own in parts.iter().map(|part| format!("blk.11.{part}")).chain(["token_embd".into(), "output_norm".into(), "output".into()])
            {
                let module = names.module(&own).unwrap_or_else(|| panic!("{family:?} {own}"));
                assert_eq!(names.own(&module).as_deref(), Some(own.as_str()), "{family:?} {module}");
            }
            assert_eq!((names.module("blk.12.attn_norm"), names.module("rope_freqs")), (None, None));
        }
    }

    #[test]
    fn names_are_those_that_peft_has() {
        for (family, own, theirs) in [
            (Family::Llama, "blk.3.attn_q", "model.layers.3.self_attn.q_proj"),
            (Family::Llama, "blk.3.ffn_norm", "model.layers.3.post_attention_layernorm"),
            (Family::Gemma2, "blk.3.ffn_norm", "model.layers.3.pre_feedforward_layernorm"),
            (Family::Gemma3, "blk.3.post_attention_norm", "model.layers.3.post_attention_layernorm"),
            (Family::Phi3, "blk.0.attn_qkv", "model.layers.0.self_attn.qkv_proj"),
            (Family::Phi3, "blk.0.ffn_up", "model.layers.0.mlp.gate_up_proj"),
            (Family::Qwen2, "blk.0.ffn_up", "model.layers.0.mlp.up_proj"),
        ] {
            assert_eq!(names(family).module(own).as_deref(), Some(theirs));
        }
        assert_eq!(names(Family::Qwen2).tensor("blk.0.attn_q.bias").as_deref(), Some("model.layers.0.self_attn.q_proj.bias"));
        assert_eq!(names(Family::Phi3).module("blk.0.attn_q"), None);
    }

    #[test]
    fn orders_of_rows_are_each_others_inverse() {
        for row in 0..24 {
            assert_eq!(source_row(12, interleaved_row(Some(12), row)), row);
        }
        let numbers: Vec<u32> = (0..24).collect();
        assert_eq!(into_theirs(&numbers, 2, Some(6))[..6], [0, 1, 4, 5, 8, 9]);
        assert_eq!(into_own(&into_theirs(&numbers, 2, Some(6)), 2, Some(6)), numbers);
        assert_eq!(into_theirs(&numbers, 2, None), numbers);
        let (llama, gemma) = (names(Family::Llama), names(Family::Gemma3));
        assert_eq!((llama.interleaved("blk.0.attn_q", 64).ok(), llama.interleaved("blk.0.attn_v", 64).ok()), (Some(Some(16)), Some(None)));
        assert_eq!((llama.interleaved("blk.0.attn_k", 64).ok(), gemma.interleaved("blk.0.attn_q", 64).ok()), (Some(Some(32)), Some(None)));
        assert!(llama.interleaved("blk.0.attn_q", 60).is_err());
    }
}
