// LoRA's dropout. Which numbers are dropped is counted out by Philox4x32-10 (Salmon et al. 2011), as on the CPU: numbers lie in rows, one
// block of the generator is for four, and the blocks are counted from the first.

// A stream of numbers, as the generator's key and the upper words of its counter; what is dropped, and what the rest is multiplied with.
#define STREAM u32 key_0, u32 key_1, u32 upper_0, u32 upper_1, float probability, float scale
#define OF_STREAM key_0, key_1, upper_0, upper_1, probability, scale

// The factors of the four numbers that begin at 4 · index.
__device__ __forceinline__ void four_factors(u64 index, STREAM, float *to) {
    u32 a = (u32)index, b = (u32)(index >> 32), c = upper_0, d = upper_1;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u32 low_0 = 0xD2511F53u * a, high_0 = __umulhi(0xD2511F53u, a), low_1 = 0xCD9E8D57u * c, high_1 = __umulhi(0xCD9E8D57u, c);
        a = high_1 ^ b ^ key_0;
        b = low_1;
        c = high_0 ^ d ^ key_1;
        d = low_0;
        key_0 += 0x9E3779B9u;
        key_1 += 0xBB67AE85u;
    }
    u32 bits[4] = {a, b, c, d};
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = (float)(bits[i] >> 8) * (1.f / 16777216.f) < probability ? 0.f : scale;
}

// The eight numbers that are the work of this thread: their row, column and factors. Columns are a multiple of 8.
__device__ __forceinline__ bool eight_factors(int rows, int columns, long long *row, int *column, STREAM, float *to) {
    int pieces = columns / 8;
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (long long)rows * pieces) return false;
    *row = item / pieces;
    *column = (int)(item % pieces) * 8;
    u64 index = ((u64)*row * columns + *column) / 4;
    four_factors(index, OF_STREAM, to);
    four_factors(index + 1, OF_STREAM, to + 4);
    return true;
}

// out = x · factors.
extern "C" __global__ void drop(const bf16 *x, bf16 *out, int rows, int columns, int stride, int out_stride, STREAM) {
    long long row;
    int column;
    float factors[8], values[8];
    if (!eight_factors(rows, columns, &row, &column, OF_STREAM, factors)) return;
    load8(x + row * stride + column, values);
#pragma unroll
    for (int e = 0; e < 8; e++) values[e] *= factors[e];
    store8(out + row * out_stride + column, values);
}

// sum += x · factors.
extern "C" __global__ void add_dropped(const bf16 *x, bf16 *sum, int rows, int columns, int stride, int sum_stride, STREAM) {
    long long row;
    int column;
    float factors[8], values[8], sums[8];
    if (!eight_factors(rows, columns, &row, &column, OF_STREAM, factors)) return;
    load8(x + row * stride + column, values);
    load8(sum + row * sum_stride + column, sums);
#pragma unroll
    for (int e = 0; e < 8; e++) sums[e] += values[e] * factors[e];
    store8(sum + row * sum_stride + column, sums);
}

// The factors themselves, for whoever multiplies elsewhere.
extern "C" __global__ void drop_factors(float *out, u64 count, STREAM) {
    u64 index = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    float factors[4];
    four_factors(index, OF_STREAM, factors);
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (4 * index + i < count) out[4 * index + i] = factors[i];
}
