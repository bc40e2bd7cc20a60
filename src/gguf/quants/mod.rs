//! Packing numbers into ggml's storage formats and back.
//!
//! [`encode`] promises the bytes that llama.cpp's `ggml_quantize_chunk` (x86-64) writes for the same numbers, on every machine:
//! each format's search for scales is done in ggml's order of operations, one lane of a vector per group, never with fused
//! multiply-adds. [`decode`] promises ggml's numbers to the bit. Both run on the calling thread and allocate nothing; callers
//! spread rows over threads. Nothing panics on any bytes or numbers; infinities and NaN are packed as something. Formats that
//! ggml has and this module cannot pack are told by [`can_encode`].

#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls into functions compiled for features that have just been seen"))]
#![expect(clippy::needless_range_loop, reason = "loops over lanes index several arrays alike, and become vectors")]
#![expect(clippy::inline_always, reason = "a body must become part of the caller that is compiled for an instruction set")]
#![expect(clippy::float_cmp, reason = "the same bytes as ggml come only from the same comparisons")]

mod affine;
mod block_weighted;
mod check;
mod curve;
mod floats;
mod isa;
mod k_affine;
mod k_affine_2;
mod k_symmetric;
mod k_symmetric_3;
mod lanes;
mod lines;
mod scales;
mod simple;
mod symmetric;
#[cfg(test)]
mod tests;
mod unpack;
mod vector;
mod weights;

use super::TensorKind;
use isa::Isa;
use weights::Importance;

/// Why numbers could not be packed or unpacked: always a mistake of the caller or a format that is not supported.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("{kind} cannot be written here; the formats that can are {}", encodable())]
    CannotEncode { kind: TensorKind },
    #[error("{kind} cannot be read here; convert the model again from its source")]
    CannotDecode { kind: TensorKind },
    #[error("rows of {row_len} numbers are no whole number of {kind} blocks of {}", kind.block_size())]
    RowLength { kind: TensorKind, row_len: usize },
    #[error("{count} numbers are no whole number of rows of {row_len}")]
    NotWholeRows { count: usize, row_len: usize },
    #[error("{numbers} numbers as {kind} need another number of bytes than {bytes}")]
    Size { kind: TensorKind, numbers: usize, bytes: usize },
    #[error("the importance matrix has {found} values for rows of {row_len} numbers")]
    ImportanceLength { found: usize, row_len: usize },
}

/// Names of what [`can_encode`] can, for messages.
fn encodable() -> String {
    let names: Vec<_> = TensorKind::ALL.iter().filter(|kind| can_encode(**kind)).map(|kind| kind.name()).collect();
    names.join(", ")
}

/// Whether [`encode`] can write this format. All of them can be read by [`decode`].
#[must_use]
pub fn can_encode(kind: TensorKind) -> bool {
    use TensorKind as K;
    let is_block = matches!(kind, K::Q4_0 | K::Q4_1 | K::Q5_0 | K::Q5_1 | K::Q8_0 | K::IQ4_NL);
    let is_super_block = matches!(kind, K::Q2_K | K::Q3_K | K::Q4_K | K::Q5_K | K::Q6_K | K::IQ4_XS);
    matches!(kind, K::F32 | K::F16 | K::BF16) || is_block || is_super_block
}

/// Packs whole rows of `row_len` numbers into `out`, which must have exactly the room they take. `importance` weighs the columns of a row
/// (`row_len` values, one row of an importance matrix); formats that have no use for it ignore it, as ggml does.
///
/// # Errors
/// When the format cannot be written, or when lengths do not agree.
pub fn encode(kind: TensorKind, numbers: &[f32], row_len: usize, importance: Option<&[f32]>, out: &mut [u8]) -> Result<(), Error> {
    check::encode(kind, numbers.len(), row_len, importance.map(<[f32]>::len), out.len())?;
    if numbers.is_empty() {
        return Ok(());
    }
    encode_on(Isa::best_for(kind), kind, numbers, importance, out)
}

/// Packs what has been checked, with the instructions of `isa`.
fn encode_on(isa: Isa, kind: TensorKind, numbers: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> Result<(), Error> {
    match importance {
        Some(importance) => weighted(isa, kind, numbers, Importance(importance), out),
        None => plain(isa, kind, numbers, out),
    }
}

fn weighted(isa: Isa, kind: TensorKind, numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) -> Result<(), Error> {
    match kind {
        TensorKind::Q4_0 => block_weighted::encode_q4_0_weighted(isa, numbers, importance, out),
        TensorKind::Q4_1 => block_weighted::encode_q4_1_weighted(isa, numbers, importance, out),
        TensorKind::Q5_0 => block_weighted::encode_q5_0_weighted(isa, numbers, importance, out),
        TensorKind::Q5_1 => block_weighted::encode_q5_1_weighted(isa, numbers, importance, out),
        TensorKind::Q2_K => k_affine_2::encode_q2_k_weighted(isa, numbers, importance, out),
        TensorKind::Q3_K => k_symmetric_3::encode_q3_k_weighted(isa, numbers, importance, out),
        TensorKind::IQ4_NL => curve::encode_iq4_nl_weighted(isa, numbers, importance, out),
        TensorKind::IQ4_XS => curve::encode_iq4_xs_weighted(isa, numbers, importance, out),
        TensorKind::Q4_K => k_affine::encode_q4_k_weighted(isa, numbers, importance, out),
        TensorKind::Q5_K => k_affine::encode_q5_k_weighted(isa, numbers, importance, out),
        TensorKind::Q6_K => k_symmetric::encode_q6_k_weighted(isa, numbers, importance, out),
        _ => return plain(isa, kind, numbers, out),
    }
    Ok(())
}

fn plain(isa: Isa, kind: TensorKind, numbers: &[f32], out: &mut [u8]) -> Result<(), Error> {
    match kind {
        TensorKind::F32 => floats::encode_f32(isa, numbers, out),
        TensorKind::F16 => floats::encode_f16(isa, numbers, out),
        TensorKind::BF16 => floats::encode_bf16(isa, numbers, out),
        TensorKind::Q4_0 => simple::encode_q4_0(isa, numbers, out),
        TensorKind::Q4_1 => simple::encode_q4_1(isa, numbers, out),
        TensorKind::Q5_0 => simple::encode_q5_0(isa, numbers, out),
        TensorKind::Q5_1 => simple::encode_q5_1(isa, numbers, out),
        TensorKind::Q8_0 => simple::encode_q8_0(isa, numbers, out),
        TensorKind::Q2_K => k_affine_2::encode_q2_k(isa, numbers, out),
        TensorKind::Q3_K => k_symmetric_3::encode_q3_k(isa, numbers, out),
        TensorKind::IQ4_NL => curve::encode_iq4_nl(isa, numbers, out),
        TensorKind::IQ4_XS => curve::encode_iq4_xs(isa, numbers, out),
        TensorKind::Q4_K => k_affine::encode_q4_k(isa, numbers, out),
        TensorKind::Q5_K => k_affine::encode_q5_k(isa, numbers, out),
        TensorKind::Q6_K => k_symmetric::encode_q6_k(isa, numbers, out),
        _ => return Err(Error::CannotEncode { kind }),
    }
    Ok(())
}

/// Unpacks blocks. `out` must have exactly as many places as there are numbers in `bytes`.
///
/// # Errors
/// When the format cannot be read, or when lengths do not agree.
pub fn decode(kind: TensorKind, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
    check::decode(kind, bytes.len(), out.len())?;
    let isa = Isa::best_for(kind);
    match kind {
        TensorKind::F32 => floats::decode_f32(isa, bytes, out),
        TensorKind::F16 => floats::decode_f16(isa, bytes, out),
        TensorKind::BF16 => floats::decode_bf16(isa, bytes, out),
        _ => unpack::decode(kind, bytes, out)?,
    }
    Ok(())
}
