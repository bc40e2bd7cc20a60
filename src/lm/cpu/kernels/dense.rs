//! Weights and cached keys that are plain numbers: 32, 16 or brain-float 16 bits.

/// A number as it lies in memory, little-endian and not aligned.
pub trait Number: Copy {
    const BYTES: usize;
    fn read(bytes: &[u8]) -> f32;
}

#[derive(Clone, Copy)]
pub struct F32;
#[derive(Clone, Copy)]
pub struct F16;
#[derive(Clone, Copy)]
pub struct Bf16;

impl Number for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    fn read(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

impl Number for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn read(bytes: &[u8]) -> f32 {
        widen(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
}

impl Number for Bf16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn read(bytes: &[u8]) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16)
    }
}

/// Half precision to single, without a branch, so that loops over it become vectors.
#[inline(always)]
pub fn widen(bits: u16) -> f32 {
    // The exponent's bias differs by 112: multiply with 2^112. That is right for subnormals too; infinities become 65,536 and more.
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(magnitude.to_bits() | (u32::from(bits & 0x8000) << 16))
}

/// Single precision to half, rounding to even; beyond the range it stops at the largest number.
#[inline(always)]
pub fn narrow(x: f32) -> u16 {
    let x = x.clamp(-65504.0, 65504.0);
    half::f16::from_f32_const(x).to_bits()
}

/// Widens packed numbers.
#[inline(always)]
pub fn unpack<N: Number>(packed: &[u8], out: &mut [f32]) {
    for (bytes, out) in packed.chunks_exact(N::BYTES).zip(out) {
        *out = N::read(bytes);
    }
}

/// The product of packed numbers and as many plain ones.
#[inline(always)]
pub fn dot<N: Number>(packed: &[u8], x: &[f32]) -> f32 {
    let mut lanes = [0_f32; 32];
    let (chunks, rest) = x.as_chunks::<32>();
    let mut packed = packed.chunks_exact(32 * N::BYTES);
    for (chunk, packed) in chunks.iter().zip(&mut packed) {
        for i in 0..32 {
            lanes[i] += N::read(&packed[i * N::BYTES..(i + 1) * N::BYTES]) * chunk[i];
        }
    }
    for (x, bytes) in rest.iter().zip(packed.remainder().chunks_exact(N::BYTES)) {
        lanes[0] += N::read(bytes) * x;
    }
    let mut width = 16;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}
