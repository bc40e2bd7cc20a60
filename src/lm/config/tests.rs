//! What each family's files leave unsaid, and headers that make no sense.

#![expect(clippy::float_cmp, reason = "numbers as they are read, and roots of powers of two")]

use super::*;
use crate::gguf::TensorKind;
use crate::gguf::writer::Writer;
use crate::lm::memory;

/// A model of 2 blocks, 4 heads of 8 numbers.
fn model(architecture: &str) -> Writer {
    sized(architecture, 2, 32)
}

fn sized(architecture: &str, blocks: u32, embedding: u32) -> Writer {
    let key = |name: &str| format!("{architecture}.{name}");
    Writer::default()
        .str("general.architecture", architecture)
        .u32(&key("block_count"), blocks)
        .u32(&key("context_length"), 128)
        .u32(&key("embedding_length"), embedding)
        .u32(&key("feed_forward_length"), 64)
        .u32(&key("attention.head_count"), 4)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-6)
        .tensor("token_embd.weight", TensorKind::F32, &[embedding.into(), 72])
}

fn read(writer: &Writer) -> Result<Config> {
    Config::from_header(&Header::parse(&writer.finish()).expect("sound"))
}

fn config(writer: &Writer) -> Config {
    read(writer).expect("understood")
}

fn refused(writer: &Writer) -> String {
    read(writer).expect_err("must be refused").to_string()
}

#[test]
fn gemma_2_has_its_defaults_and_slides_first() {
    let gemma = config(&model("gemma2"));
    assert_eq!((gemma.attention_softcap, gemma.logit_softcap), (Some(50.0), Some(30.0)));
    assert_eq!(gemma.window, Some(Window { size: 4096, pattern: 2 }));
    assert_eq!([0, 1, 2, 3].map(|layer| gemma.is_sliding(layer)), [true, false, true, false]);
    // Keys and values of 16 bits: of the window and a chunk in the layer that slides, of everything in the other.
    assert_eq!(memory::kv_bytes(&gemma, 10_000), (4_095 + 256 + 10_000) * 32 * 2 * 2);
    assert_eq!((gemma.rope.sliding_base, gemma.rope.stretches_sliding), (10_000.0, true));
    let said = config(&model("gemma2").f32("gemma2.attn_logit_softcapping", 3.0).u32("gemma2.attention.sliding_window", 8));
    assert_eq!((said.attention_softcap, said.window.map(|window| window.size)), (Some(3.0), Some(8)));
}

#[test]
fn the_largest_gemmas_scale_scores_by_the_embeddings_share_of_a_head() {
    let scale = |architecture, blocks| {
        let writer = sized(architecture, blocks, 64).u32(&format!("{architecture}.attention.key_length"), 4);
        config(&writer).attention_scale
    };
    assert_eq!([scale("gemma2", 26), scale("gemma2", 42), scale("gemma2", 46)], [0.5, 0.5, 0.25]);
    assert_eq!([scale("gemma3", 46), scale("gemma3", 62), scale("gemma", 46)], [0.5, 0.25, 0.5]);
}

#[test]
fn families_differ_in_what_they_are_built_from() {
    for (architecture, activation, embedding_scale, pairing) in [
        ("gemma", Activation::Gelu, 32_f32.sqrt(), Pairing::Halves),
        ("llama", Activation::Silu, 1.0, Pairing::Neighbours),
        ("phi3", Activation::Silu, 1.0, Pairing::Halves),
        ("qwen3", Activation::Silu, 1.0, Pairing::Halves),
    ] {
        let config = config(&model(architecture));
        assert_eq!((config.activation, config.embedding_scale, config.rope.pairing), (activation, embedding_scale, pairing));
        assert_eq!((config.window, config.logit_softcap), (None, None), "{architecture}");
    }
    let all = refused(&model("mamba"));
    assert!(["gemma", "gemma2", "gemma3", "llama", "phi3", "qwen2", "qwen3"].iter().all(|name| all.contains(name)), "{all}");
}

#[test]
fn a_window_of_phi_3_is_for_every_layer_and_0_is_none() {
    let window = |size| config(&model("phi3").u32("phi3.attention.sliding_window", size));
    assert_eq!((window(2047).window, window(2047).is_sliding(1)), (Some(Window { size: 2047, pattern: 1 }), true));
    assert_eq!(window(0).window, None);
}

#[test]
fn contexts_are_stretched_as_the_file_says() {
    let plain = config(&model("qwen3")).rope;
    assert_eq!((plain.scaling, plain.factor, plain.attention_factor, plain.original_context), (Scaling::Linear, 1.0, 1.0, 128));
    let untyped = config(&model("qwen3").f32("qwen3.rope.scaling.factor", 4.0)).rope;
    assert_eq!((untyped.scaling, untyped.factor), (Scaling::Linear, 4.0));
    let none = config(&model("qwen3").str("qwen3.rope.scaling.type", "none").f32("qwen3.rope.scaling.factor", 4.0)).rope;
    assert_eq!(none.factor, 1.0);
    let yarn = model("qwen3").str("qwen3.rope.scaling.type", "yarn").f32("qwen3.rope.scaling.factor", 4.0);
    let stretched = config(&yarn.clone().u32("qwen3.rope.scaling.original_context_length", 32)).rope;
    assert_eq!(stretched.scaling, Scaling::Yarn(Yarn { extrapolation: 1.0, fast: 32.0, slow: 1.0 }));
    assert_eq!((stretched.attention_factor, stretched.original_context), (0.1 * 4_f32.ln() + 1.0, 32));
    assert!(refused(&yarn.f32("qwen3.rope.freq_base", 1.0)).contains("freq_base"));
    assert!(refused(&model("qwen3").str("qwen3.rope.scaling.type", "dynamic")).contains("`dynamic`"));
    let phi = config(&model("phi3").f32("phi3.rope.scaling.attn_factor", 1.19).u32("phi3.rope.dimension_count", 6)).rope;
    assert_eq!((phi.attention_factor, phi.dimensions), (1.19, 6));
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    for key in ["attn_logit_softcapping", "final_logit_softcapping", "rope.scaling.attn_factor", "rope.freq_base", "rope.scaling.factor"] {
        for number in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let error = refused(&model("gemma2").f32(&format!("gemma2.{key}"), number));
            assert!(error.contains(key) && error.contains("above 0"), "{error}");
        }
    }
    for (key, number) in [
        ("attention.sliding_window_pattern", 0),
        ("attention.sliding_window", u32::MAX),
        ("rope.dimension_count", 0),
        ("rope.dimension_count", 7),
        ("rope.dimension_count", 10),
        ("rope.scaling.original_context_length", 0),
        ("attention.head_count_kv", 3),
        ("attention.value_length", 4),
    ] {
        let writer = model("gemma2").u32("gemma2.attention.key_length", 8).u32(&format!("gemma2.{key}"), number);
        let error = refused(&writer);
        assert!(error.contains(key) || key == "attention.value_length", "{error}");
    }
    assert!(refused(&sized("gemma", 2, 3)).contains("attention.head_count"));
}
