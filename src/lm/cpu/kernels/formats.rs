//! How each quantised format packs its weights (ggml's `block_*` structs in `ggml-common.h`).
//!
//! All are read as one thing: `weight = scale · q − min`, with `q` a signed byte, a scale for every 32 weights (every 16 in
//! Q6_K) and, in some formats, a minimum for every 32. The kernels know nothing else of a format.

#![expect(unsafe_code, reason = "reads packed blocks through pointers whose bounds the kernels' entrances check")]

use super::simd::Simd;

/// The scales of one block; those of a format with fewer than 16 stand first.
#[derive(Clone, Copy)]
pub struct Scales {
    pub scale: [f32; 16],
    pub min: [f32; 8],
}

const NONE: Scales = Scales { scale: [0.0; 16], min: [0.0; 8] };

/// A format. `block` always points to `BYTES` readable bytes, and `group` counts the 32s of the block.
pub trait Format {
    /// Groups of 32 weights in a block.
    const GROUPS: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Whether each 16 weights have a scale of their own, two to a group.
    const HALVES: bool = false;
    /// Whether groups have a minimum.
    const MINS: bool = false;

    unsafe fn scales<S: Simd>(block: *const u8) -> Scales;
    unsafe fn quants<S: Simd>(block: *const u8, group: usize) -> S::Bytes;
}

#[inline(always)]
unsafe fn u16_at(at: *const u8) -> u16 {
    u16::from_le_bytes(unsafe { at.cast::<[u8; 2]>().read_unaligned() })
}

#[inline(always)]
unsafe fn u32_at(at: *const u8) -> u32 {
    u32::from_le_bytes(unsafe { at.cast::<[u8; 4]>().read_unaligned() })
}

#[inline(always)]
unsafe fn one_scale<S: Simd>(block: *const u8) -> Scales {
    let mut scales = NONE;
    scales.scale[0] = unsafe { S::half(u16_at(block)) };
    scales
}

#[inline(always)]
unsafe fn scale_and_min<S: Simd>(block: *const u8) -> Scales {
    let mut scales = unsafe { one_scale::<S>(block) };
    // The file has what is added; a minimum is what is taken away.
    scales.min[0] = unsafe { -S::half(u16_at(block.add(2))) };
    scales
}

pub struct Q4_0;
pub struct Q4_1;
pub struct Q5_0;
pub struct Q5_1;
pub struct Q8_0;
pub struct Q4K;
pub struct Q5K;
pub struct Q6K;

impl Format for Q4_0 {
    const GROUPS: usize = 1;
    const BYTES: usize = 18;

    #[inline(always)]
    unsafe fn scales<S: Simd>(block: *const u8) -> Scales {
        unsafe { one_scale::<S>(block) }
    }

    #[inline(always)]
    unsafe fn quants<S: Simd>(block: *const u8, _group: usize) -> S::Bytes {
        unsafe { S::sub(S::nibbles(block.add(2)), 8) }
    }
}

impl Format for Q4_1 {
    const GROUPS: usize = 1;
    const BYTES: usize = 20;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn scales<S: Simd>(block: *const u8) -> Scales {
        unsafe { scale_and_min::<S>(block) }
    }

    #[inline(always)]
    unsafe fn quants<S: Simd>(block: *const u8, _group: usize) -> S::Bytes {
        unsafe { S::nibbles(block.add(4)) }
    }
}

impl Format for Q5_0 {
    const GROUPS: usize = 1;
    const BYTES: usize = 22;

    #[inline(always)]
    unsafe fn scales<S: Simd>(block: *const u8) -> Scales {
        unsafe { one_scale::<S>(block) }
    }

    #[inline(always)]
    unsafe fn quants<S: Simd>(block: *const u8, _group: usize) -> S::Bytes {
        unsafe { S::sub(S::or(S::nibbles(block.add(6)), S::sixteens(u32_at(block.add(2)))), 16) }
    }
}

impl Format for Q5_1 {
    const GROUPS: usize = 1;
    const BYTES: usize = 24;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn scales<S: Simd>(block: *const u8) -> Scales {
        unsafe { scale_and_min::<S>(block) }
    }

    #[inline(always)]
    unsafe fn quants<S: Simd>(block: *const u8, _group: usize) -> S::Bytes {
        unsafe { S::or(S::nibbles(block.add(8)), S::sixteens(u32_at(block.add(4)))) }
    }
}

impl Format for Q8_0 {
    const GROUPS: usize = 1;
    const BYTES: usize = 34;

    #[inline(always)]
    unsafe fn scales<S: Simd>(block: *const u8) -> Scales {
        unsafe { one_scale::<S>(block) }
    }

    #[inline(always)]
    unsafe fn quants<S: Simd>(block: *const u8, _group: usize) -> S::Bytes {
        unsafe { S::load(block.add(2)) }
    }
}

/// The eight 6-bit scales and minima that Q4_K and Q5_K pack into 12 bytes (ggml's `get_scale_min_k4`).
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "six bits")]
unsafe fn packed_scales<S: Simd>(block: *const u8) -> Scales {
    const LOW_SIX: u32 = 0x3f3f_3f3f;
    const LOW_FOUR: u32 = 0x0f0f_0f0f;
    unsafe {
        let (scale, min) = (S::half(u16_at(block)), S::half(u16_at(block.add(2))));
        let [a, b, c] = [u32_at(block.add(4)), u32_at(block.add(8)), u32_at(block.add(12))];
        let scales = [a & LOW_SIX, (c & LOW_FOUR) | (((a >> 6) & 0x0303_0303) << 4)];
        let mins = [b & LOW_SIX, ((c >> 4) & LOW_FOUR) | (((b >> 6) & 0x0303_0303) << 4)];
        let mut all = NONE;
        for i in 0..8 {
            all.scale[i] = scale * ((scales[i / 4] >> (8 * (i % 4))) & 0xff) as f32;
            all.min[i] = min * ((mins[i / 4] >> (8 * (i % 4))) & 0xff) as f32;
        }
        all
    }
}

impl Format for Q4K {
    const GROUPS: usize = 8;
    const BYTES: usize = 144;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn scales<S: Simd>(block: *const u8) -> Scales {
        unsafe { packed_scales::<S>(block) }
    }

    #[inline(always)]
    unsafe fn quants<S: Simd>(block: *const u8, group: usize) -> S::Bytes {
        unsafe { S::field(block.add(16 + 32 * (group / 2)), 4 * (group % 2), 15) }
    }
}

impl Format for Q5K {
    const GROUPS: usize = 8;
    const BYTES: usize = 176;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn scales<S: Simd>(block: *const u8) -> Scales {
        unsafe { packed_scales::<S>(block) }
    }

    #[inline(always)]
    unsafe fn quants<S: Simd>(block: *const u8, group: usize) -> S::Bytes {
        unsafe {
            let low = S::field(block.add(48 + 32 * (group / 2)), 4 * (group % 2), 15);
            S::or(low, S::shl4(S::field(block.add(16), group, 1)))
        }
    }
}

impl Format for Q6K {
    const GROUPS: usize = 8;
    const BYTES: usize = 210;
    const HALVES: bool = true;

    #[inline(always)]
    unsafe fn scales<S: Simd>(block: *const u8) -> Scales {
        unsafe {
            let scale = S::half(u16_at(block.add(208)));
            let each = block.add(192).cast::<[i8; 16]>().read_unaligned();
            let mut all = NONE;
            for (to, each) in all.scale.iter_mut().zip(each) {
                *to = scale * f32::from(each);
            }
            all
        }
    }

    #[inline(always)]
    unsafe fn quants<S: Simd>(block: *const u8, group: usize) -> S::Bytes {
        let (half, part) = (group / 4, group % 4);
        unsafe {
            let low = S::field(block.add(64 * half + 32 * (part % 2)), 4 * (part / 2), 15);
            let high = S::field(block.add(128 + 32 * half), 2 * part, 3);
            S::sub(S::or(low, S::shl4(high)), 32)
        }
    }
}
