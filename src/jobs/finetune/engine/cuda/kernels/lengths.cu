// DoRA: outputs are scaled so that the rows of W + s·B·A get the lengths that are trained.

// The lengths of these rows, from a widened matrix (W with s·B behind it), W·Aᵀ (outputs × room) and A·Aᵀ (room × room), without that
// B·A is ever whole: |w + b·A|² = |w|² + 2 b·(A·w) + b·(A·Aᵀ)·b. One block for each row.
extern "C" __global__ void row_lengths(const bf16 *weights, const float *wa, const float *aa, float *lengths, int inputs, int room,
                                       int stride) {
    __shared__ float scratch[33];
    const bf16 *row = weights + (long long)blockIdx.x * stride, *b = row + inputs;
    float sum = 0.f;
    for (int i = threadIdx.x * 8; i < inputs; i += blockDim.x * 8) {
        float values[8];
        load8(row + i, values);
#pragma unroll
        for (int e = 0; e < 8; e++) sum += values[e] * values[e];
    }
    for (int k = threadIdx.x; k < room; k += blockDim.x) {
        float weight = widen(b[k]);
        // Those of other matrices are zeros.
        if (weight == 0.f) continue;
        float inner = 2.f * wa[(long long)blockIdx.x * room + k];
        for (int j = 0; j < room; j++) inner += aa[k * room + j] * widen(b[j]);
        sum += weight * inner;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) lengths[blockIdx.x] = sqrtf(fmaxf(sum, 0.f));
}

// What outputs are scaled with: the lengths they are to have over those they have; 1 without such.
extern "C" __global__ void column_scales(const float *magnitudes, const float *lengths, float *scales, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) scales[i] = magnitudes ? magnitudes[i] / lengths[i] : 1.f;
}

// x · (scales − less), column by column, for eight numbers. Columns are a multiple of 8.
__device__ __forceinline__ bool scaled_eight(const bf16 *x, const float *scales, int rows, int columns, int stride, float less,
                                             long long *row, int *column, float *values) {
    int pieces = columns / 8;
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (long long)rows * pieces) return false;
    *row = item / pieces;
    *column = (int)(item % pieces) * 8;
    float factors[8];
    load8(x + *row * stride + *column, values);
    load8(scales + *column, factors);
#pragma unroll
    for (int e = 0; e < 8; e++) values[e] *= factors[e] - less;
    return true;
}

// out = that; out may be x.
extern "C" __global__ void scale_columns(const bf16 *x, const float *scales, bf16 *out, int rows, int columns, int stride, int out_stride,
                                         float less) {
    long long row;
    int column;
    float values[8];
    if (!scaled_eight(x, scales, rows, columns, stride, less, &row, &column, values)) return;
    store8(out + row * out_stride + column, values);
}

// sum += that.
extern "C" __global__ void add_scaled_columns(const bf16 *x, const float *scales, bf16 *sum, int rows, int columns, int stride,
                                              int sum_stride, float less) {
    long long row;
    int column;
    float values[8], sums[8];
    if (!scaled_eight(x, scales, rows, columns, stride, less, &row, &column, values)) return;
    load8(sum + row * sum_stride + column, sums);
#pragma unroll
    for (int e = 0; e < 8; e++) sums[e] += values[e];
    store8(sum + row * sum_stride + column, sums);
}

// What gradients of scaled outputs and outputs before say of lengths: Σ grad · x for each column, over the stretch of rows that is this
// block's. Each block has 64 columns, of which 32 rows at a time are read. out: stretches × columns.
extern "C" __global__ void length_sums(const bf16 *grad, const bf16 *x, float *out, int rows, int columns, int grad_stride, int stride,
                                       int stretch) {
    __shared__ float sums[32][65];
    int piece = threadIdx.x & 7, lane = threadIdx.x >> 3, first = blockIdx.x * 64 + piece * 8;
    float sum[8] = {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};
    if (first < columns) {
        int end = min(rows, (int)(blockIdx.y + 1) * stretch);
        for (int row = blockIdx.y * stretch + lane; row < end; row += 32) {
            float g[8], values[8];
            load8(grad + (long long)row * grad_stride + first, g);
            load8(x + (long long)row * stride + first, values);
#pragma unroll
            for (int e = 0; e < 8; e++) sum[e] += g[e] * values[e];
        }
    }
#pragma unroll
    for (int e = 0; e < 8; e++) sums[lane][piece * 8 + e] = sum[e];
    __syncthreads();
    int column = blockIdx.x * 64 + threadIdx.x;
    if (threadIdx.x >= 64 || column >= columns) return;
    float all = 0.f;
    for (int other = 0; other < 32; other++) all += sums[other][threadIdx.x];
    out[(long long)blockIdx.y * columns + column] = all;
}

// out += the sum of all stretches / length: the gradient of each length.
extern "C" __global__ void add_length_gradients(const float *sums, const float *lengths, float *out, int columns, int stretches) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    float all = 0.f;
    for (int i = 0; i < stretches; i++) all += sums[(long long)i * columns + column];
    out[column] += all / lengths[column];
}
