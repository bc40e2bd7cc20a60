// Cross-entropy of rows of logits, one block of 512 threads for each: ln p of the label, and the gradient of weight · −ln p.
// The first reading keeps maximum and sum together (Milakov and Gimelshein, 2018), the second writes. Columns are a multiple of 8.

struct Running {
    float top, sum;
    __device__ __forceinline__ void take(float other_top, float other_sum) {
        float highest = fmaxf(top, other_top);
        sum = sum * exp_fast(top - highest) + other_sum * exp_fast(other_top - highest);
        top = highest;
    }
};

__device__ __forceinline__ float capped(float x, float cap) { return cap > 0.f ? cap * tanh_fast(x / cap) : x; }

template <typename Logit>
__device__ __forceinline__ Running sum_of_row(const Logit *row, int columns, float cap) {
    __shared__ Running scratch[17];
    Running all = {-1e30f, 0.f};
    for (int column = threadIdx.x * 8; column < columns; column += blockDim.x * 8) {
        float x[8], top = -1e30f, sum = 0.f;
        load8(row + column, x);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            x[e] = capped(x[e], cap);
            top = fmaxf(top, x[e]);
        }
#pragma unroll
        for (int e = 0; e < 8; e++) sum += exp_fast(x[e] - top);
        all.take(top, sum);
    }
#pragma unroll
    for (int step = 16; step; step >>= 1) {
        float top = __shfl_xor_sync(~0u, all.top, step), sum = __shfl_xor_sync(~0u, all.sum, step);
        all.take(top, sum);
    }
    if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = all;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < blockDim.x / 32; warp++) all.take(scratch[warp].top, scratch[warp].sum);
        scratch[16] = all;
    }
    __syncthreads();
    return scratch[16];
}

// `grads` may be null, and may be the logits themselves where these are bf16. A label outside of the columns gives NaN.
template <typename Logit>
__device__ __forceinline__ void cross_entropy(const Logit *logits, const u32 *labels, const float *weights, float *log_probs, bf16 *grads,
                                              int columns, float cap) {
    const Logit *row = logits + (long long)blockIdx.x * columns;
    u32 label = labels[blockIdx.x];
    float weight = weights[blockIdx.x], chosen = 0.f;
    if (threadIdx.x == 0) {
        float pair[8];
        chosen = __int_as_float(0x7fffffff);
        if (label < columns) {
            load8(row + label / 8 * 8, pair);
            for (int e = 0; e < 8; e++)
                if (e == label % 8) chosen = capped(pair[e], cap);
        }
    }
    Running all = sum_of_row(row, columns, cap);
    if (threadIdx.x == 0) log_probs[blockIdx.x] = chosen - all.top - logf(all.sum);
    if (!grads) return;
    float factor = weight / all.sum;
    bf16 *out = grads + (long long)blockIdx.x * columns;
    for (int column = threadIdx.x * 8; column < columns; column += blockDim.x * 8) {
        float x[8];
        load8(row + column, x);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            float z = capped(x[e], cap), slope = cap > 0.f ? 1.f - z / cap * (z / cap) : 1.f;
            x[e] = (factor * exp_fast(z - all.top) - (column + e == label ? weight : 0.f)) * slope;
        }
        store8(out + column, x);
    }
}

extern "C" __global__ void __launch_bounds__(512) cross_entropy_f32(const float *logits, const u32 *labels, const float *weights,
                                                                     float *log_probs, bf16 *grads, int columns, float cap) {
    cross_entropy<float>(logits, labels, weights, log_probs, grads, columns, cap);
}
extern "C" __global__ void __launch_bounds__(512) cross_entropy_bf16(const bf16 *logits, const u32 *labels, const float *weights,
                                                                      float *log_probs, bf16 *grads, int columns, float cap) {
    cross_entropy<bf16>(logits, labels, weights, log_probs, grads, columns, cap);
}
