// RMS norm of rows, one block of 256 threads for each, statistics in single precision. A row is read once and stays in registers:
// compiled for PIECES (1, 2, 4, 8), of 2,048 numbers each. Columns are a multiple of 8. Where no stride is given, rows lie behind each other.

template <int N>
__device__ __forceinline__ float read_row(const bf16 *from, float (*x)[8], int columns) {
    float squares = 0.f;
#pragma unroll
    for (int i = 0; i < N; i++) {
        int column = (i * 256 + threadIdx.x) * 8;
#pragma unroll
        for (int e = 0; e < 8; e++) x[i][e] = 0.f;
        if (column < columns) load8(from + column, x[i]);
#pragma unroll
        for (int e = 0; e < 8; e++) squares += x[i][e] * x[i][e];
    }
    return squares;
}

// out = x / rms(x) · weight; with `added`, x + added is taken for x and written to `sum`.
template <int N, bool ADD>
__device__ __forceinline__ void rms_norm(const bf16 *x, const bf16 *added, const float *weight, bf16 *sum, bf16 *out, int columns,
                                         int out_stride, float eps) {
    __shared__ float scratch[33];
    long long row = (long long)blockIdx.x * columns;
    float values[N][8];
    float squares = read_row<N>(x + row, values, columns);
    if (ADD) {
        squares = 0.f;
#pragma unroll
        for (int i = 0; i < N; i++) {
            int column = (i * 256 + threadIdx.x) * 8;
            if (column >= columns) continue;
            float other[8];
            load8(added + row + column, other);
#pragma unroll
            for (int e = 0; e < 8; e++) values[i][e] += other[e];
            Eight rounded = pack8(values[i]);
            *(Eight *)(sum + row + column) = rounded;
            unpack(rounded, values[i]);
#pragma unroll
            for (int e = 0; e < 8; e++) squares += values[i][e] * values[i][e];
        }
    }
    float factor = rsqrtf(block_sum(squares, scratch) / columns + eps);
#pragma unroll
    for (int i = 0; i < N; i++) {
        int column = (i * 256 + threadIdx.x) * 8;
        if (column >= columns) continue;
        float w[8];
        load8(weight + column, w);
#pragma unroll
        for (int e = 0; e < 8; e++) values[i][e] *= factor * w[e];
        store8(out + (long long)blockIdx.x * out_stride + column, values[i]);
    }
}

// The gradient of x: r · (weight · grad − x · r² · mean(weight · grad · x)), r = 1 / rms(x); with ADD, plus that of the residual, which
// lies as `out` does and may be `out` itself.
template <int N, bool ADD>
__device__ __forceinline__ void rms_norm_backward(const bf16 *x, const float *weight, const bf16 *grad, const bf16 *residual, bf16 *out,
                                                  int columns, int grad_stride, int out_stride, float eps) {
    __shared__ float scratch[33];
    long long row = (long long)blockIdx.x * columns, to = (long long)blockIdx.x * out_stride;
    float values[N][8], grads[N][8], dot = 0.f;
    float squares = read_row<N>(x + row, values, columns);
    read_row<N>(grad + (long long)blockIdx.x * grad_stride, grads, columns);
#pragma unroll
    for (int i = 0; i < N; i++) {
        int column = (i * 256 + threadIdx.x) * 8;
        if (column >= columns) continue;
        float w[8];
        load8(weight + column, w);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            grads[i][e] *= w[e];
            dot += grads[i][e] * values[i][e];
        }
    }
    float factor = rsqrtf(block_sum(squares, scratch) / columns + eps);
    float along = block_sum(dot, scratch) / columns * factor * factor;
#pragma unroll
    for (int i = 0; i < N; i++) {
        int column = (i * 256 + threadIdx.x) * 8;
        if (column >= columns) continue;
        float result[8];
#pragma unroll
        for (int e = 0; e < 8; e++) result[e] = factor * (grads[i][e] - values[i][e] * along);
        if (ADD) {
            float other[8];
            load8(residual + to + column, other);
#pragma unroll
            for (int e = 0; e < 8; e++) result[e] += other[e];
        }
        store8(out + to + column, result);
    }
}

extern "C" __global__ void __launch_bounds__(256) rms_norm(const bf16 *x, const float *weight, bf16 *out, int columns, int out_stride,
                                                           float eps) {
    rms_norm<PIECES, false>(x, 0, weight, 0, out, columns, out_stride, eps);
}
extern "C" __global__ void __launch_bounds__(256) add_rms_norm(const bf16 *x, const bf16 *added, const float *weight, bf16 *sum, bf16 *out,
                                                               int columns, int out_stride, float eps) {
    rms_norm<PIECES, true>(x, added, weight, sum, out, columns, out_stride, eps);
}
extern "C" __global__ void __launch_bounds__(256) rms_norm_backward(const bf16 *x, const float *weight, const bf16 *grad, bf16 *out,
                                                                    int columns, int grad_stride, int out_stride, float eps) {
    rms_norm_backward<PIECES, false>(x, weight, grad, 0, out, columns, grad_stride, out_stride, eps);
}
extern "C" __global__ void __launch_bounds__(256) rms_norm_backward_add(const bf16 *x, const float *weight, const bf16 *grad,
                                                                        const bf16 *residual, bf16 *out, int columns, int grad_stride,
                                                                        int out_stride, float eps) {
    rms_norm_backward<PIECES, true>(x, weight, grad, residual, out, columns, grad_stride, out_stride, eps);
}

// Norms of single heads, one warp for each: `heads` of at most 256 numbers behind each other in every token, `stride` apart from token to
// token. In place, if so wished.
extern "C" __global__ void __launch_bounds__(256) head_norm(const bf16 *x, const float *weight, bf16 *out, int tokens, int heads, int size,
                                                             int stride, int out_stride, float eps) {
    long long item = (long long)blockIdx.x * 8 + (threadIdx.x >> 5);
    if (item >= (long long)tokens * heads) return;
    int column = (threadIdx.x & 31) * 8, head = (int)(item % heads);
    long long token = item / heads;
    float values[8] = {}, w[8], squares = 0.f;
    if (column < size) load8(x + token * stride + head * size + column, values);
#pragma unroll
    for (int e = 0; e < 8; e++) squares += values[e] * values[e];
    float factor = rsqrtf(warp_sum(squares) / size + eps);
    if (column >= size) return;
    load8(weight + column, w);
#pragma unroll
    for (int e = 0; e < 8; e++) values[e] *= factor * w[e];
    store8(out + token * out_stride + head * size + column, values);
}

extern "C" __global__ void __launch_bounds__(256) head_norm_backward(const bf16 *x, const float *weight, const bf16 *grad, bf16 *out,
                                                                      int tokens, int heads, int size, int stride, int grad_stride, float eps) {
    long long item = (long long)blockIdx.x * 8 + (threadIdx.x >> 5);
    if (item >= (long long)tokens * heads) return;
    int column = (threadIdx.x & 31) * 8, head = (int)(item % heads);
    long long token = item / heads, at = token * grad_stride + head * size + column;
    float values[8] = {}, grads[8] = {}, w[8] = {}, squares = 0.f, dot = 0.f;
    if (column < size) {
        load8(x + token * stride + head * size + column, values);
        load8(grad + at, grads);
        load8(weight + column, w);
    }
#pragma unroll
    for (int e = 0; e < 8; e++) {
        grads[e] *= w[e];
        squares += values[e] * values[e];
        dot += grads[e] * values[e];
    }
    float factor = rsqrtf(warp_sum(squares) / size + eps), along = warp_sum(dot) / size * factor * factor;
    if (column >= size) return;
#pragma unroll
    for (int e = 0; e < 8; e++) grads[e] = factor * (grads[e] - values[e] * along);
    store8(out + at, grads);
}
