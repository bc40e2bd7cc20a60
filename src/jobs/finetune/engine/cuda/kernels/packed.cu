// Quantised matrices to bf16: a thread unpacks eight numbers that lie behind each other, which in every format share their scale. Formats
// are ggml's (ggml-quants.c, `dequantize_row_*`); their blocks begin at even addresses.

typedef unsigned char u8;

__device__ __forceinline__ u32 two(const u8 *at) { return *(const unsigned short *)at; }
__device__ __forceinline__ u32 four(const u8 *at) { return two(at) | two(at + 2) << 16; }
__device__ __forceinline__ float f16(const u8 *at) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(*(const unsigned short *)at));
    return x;
}

struct Brain {
    static constexpr int numbers = 8, bytes = 16;
    static __device__ __forceinline__ void eight(const u8 *block, int, float *out) { load8((const bf16 *)block, out); }
};

struct Q8_0 {
    static constexpr int numbers = 32, bytes = 34;
    static __device__ __forceinline__ void eight(const u8 *block, int at, float *out) {
        float scale = f16(block);
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = scale * (float)(signed char)block[2 + at + i];
    }
};

// Of 4 or 5 bits with or without an offset: a byte holds a number of the first half of the block and one of the second.
template <int BITS, bool OFFSET> struct Nibbles {
    static constexpr int head = OFFSET ? 4 : 2, high = BITS == 5 ? 4 : 0;
    static constexpr int numbers = 32, bytes = head + high + 16;
    static __device__ __forceinline__ void eight(const u8 *block, int at, float *out) {
        float scale = f16(block), least = OFFSET ? f16(block + 2) : 0.f;
        u32 fifth = BITS == 5 ? four(block + head) : 0;
        const u8 *low = block + head + high;
        int shift = at < 16 ? 0 : 4;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int q = low[(at & 15) + i] >> shift & 15 | (fifth >> (at + i) & 1) << 4;
            out[i] = OFFSET ? scale * (float)q + least : scale * (float)(q - (BITS == 5 ? 16 : 8));
        }
    }
};
typedef Nibbles<4, false> Q4_0;
typedef Nibbles<4, true> Q4_1;
typedef Nibbles<5, false> Q5_0;
typedef Nibbles<5, true> Q5_1;

// Scale and offset of 32 numbers, six bits each, of the `j`th of eight.
__device__ __forceinline__ void scale_and_least(const u8 *q, int j, int *scale, int *least) {
    *scale = j < 4 ? q[j] & 63 : q[j + 4] & 15 | q[j - 4] >> 6 << 4;
    *least = j < 4 ? q[j + 4] & 63 : q[j + 4] >> 4 | q[j] >> 6 << 4;
}

template <int BITS> struct K {
    static constexpr int numbers = 256, bytes = 4 + 12 + (BITS == 5 ? 32 : 0) + 128;
    static __device__ __forceinline__ void eight(const u8 *block, int at, float *out) {
        int part = at / 32, within = at % 32, scale, least;
        scale_and_least(block + 4, part, &scale, &least);
        float d = f16(block) * (float)scale, m = f16(block + 2) * (float)least;
        const u8 *fifth = block + 16, *low = block + (BITS == 5 ? 48 : 16) + part / 2 * 32;
        int shift = part & 1 ? 4 : 0;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int q = low[within + i] >> shift & 15;
            if (BITS == 5) q |= (fifth[within + i] >> part & 1) << 4;
            out[i] = d * (float)q - m;
        }
    }
};
typedef K<4> Q4_K;
typedef K<5> Q5_K;

struct Q6_K {
    static constexpr int numbers = 256, bytes = 210;
    static __device__ __forceinline__ void eight(const u8 *block, int at, float *out) {
        int half = at / 128, quarter = at % 128 / 32, within = at % 32;
        const u8 *low = block + half * 64 + (quarter & 1) * 32, *high = block + 128 + half * 32;
        float d = f16(block + 208) * (float)(signed char)block[192 + at / 16];
        int shift = quarter < 2 ? 0 : 4;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int q = low[within + i] >> shift & 15 | (high[within + i] >> (2 * quarter) & 3) << 4;
            out[i] = d * (float)(q - 32);
        }
    }
};

// to[i] = scale · row ids[i] of `from`, or row i where there are no ids. An id outside of the table gives NaN.
template <class Format>
__device__ __forceinline__ void unpack_rows(const u8 *from, const u32 *ids, bf16 *to, int rows, int columns, int stride, int table, float scale) {
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    int pieces = columns / 8;
    if (item >= (long long)rows * pieces) return;
    int row = (int)(item / pieces), column = (int)(item % pieces) * 8;
    u32 id = ids ? ids[row] : row;
    bool is = id < (u32)table;
    long long block = (long long)(is ? id : 0) * (columns / Format::numbers) + column / Format::numbers;
    float x[8];
    Format::eight(from + block * Format::bytes, column % Format::numbers, x);
#pragma unroll
    for (int e = 0; e < 8; e++) x[e] = is ? x[e] * scale : __int_as_float(0x7fffffff);
    store8(to + (long long)row * stride + column, x);
}

#define UNPACK(NAME, FORMAT)                                                                                                               \
    extern "C" __global__ void __launch_bounds__(256)                                                                                      \
        NAME(const u8 *from, const u32 *ids, bf16 *to, int rows, int columns, int stride, int table, float scale) {                        \
        unpack_rows<FORMAT>(from, ids, to, rows, columns, stride, table, scale);                                                           \
    }
UNPACK(unpack_brain, Brain)
UNPACK(unpack_q4_0, Q4_0)
UNPACK(unpack_q4_1, Q4_1)
UNPACK(unpack_q5_0, Q5_0)
UNPACK(unpack_q5_1, Q5_1)
UNPACK(unpack_q8_0, Q8_0)
UNPACK(unpack_q4_k, Q4_K)
UNPACK(unpack_q5_k, Q5_K)
UNPACK(unpack_q6_k, Q6_K)
