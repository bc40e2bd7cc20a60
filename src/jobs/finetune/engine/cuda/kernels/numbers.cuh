// What every kernel builds on: bf16 as bits, two to a word, so that nothing is included and NVRTC needs no toolkit beside it.

typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f

__device__ __forceinline__ float low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ __forceinline__ float widen(bf16 value) { return __uint_as_float((u32)value << 16); }

// Rounds to nearest even.
__device__ __forceinline__ u32 pack(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
__device__ __forceinline__ bf16 narrow(float value) { return (bf16)(pack(value, 0.f) & 0xffffu); }

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float exp_fast(float x) { return exp2_fast(x * LOG2E); }

// Unlike tanh.approx, right to a few units in the last place for the sizes that soft caps see.
__device__ __forceinline__ float tanh_fast(float x) { return 1.f - __fdividef(2.f, 1.f + exp_fast(2.f * x)); }

// Eight numbers as one 16-byte access.
struct __align__(16) Eight { u32 pairs[4]; };

__device__ __forceinline__ void unpack(const Eight &from, float *to) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = low(from.pairs[i]);
        to[2 * i + 1] = high(from.pairs[i]);
    }
}
__device__ __forceinline__ Eight pack8(const float *from) {
    Eight to;
#pragma unroll
    for (int i = 0; i < 4; i++) to.pairs[i] = pack(from[2 * i], from[2 * i + 1]);
    return to;
}
__device__ __forceinline__ void load8(const bf16 *from, float *to) { unpack(*(const Eight *)from, to); }
__device__ __forceinline__ void store8(bf16 *to, const float *from) { *(Eight *)to = pack8(from); }
__device__ __forceinline__ void load8(const float *from, float *to) {
    *(float4 *)to = ((const float4 *)from)[0];
    *(float4 *)(to + 4) = ((const float4 *)from)[1];
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step; step >>= 1) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

// The sum over a block of at most 1,024 threads, in every thread. `scratch`: 33 numbers of shared memory.
__device__ __forceinline__ float block_sum(float x, float *scratch) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    if (warp == 0) {
        x = warp_sum(lane < warps ? scratch[lane] : 0.f);
        if (lane == 0) scratch[32] = x;
    }
    __syncthreads();
    return scratch[32];
}
