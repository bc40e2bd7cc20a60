// Rotary embeddings and gated activations: one thread for eight numbers, every number read and written once.

// Rotates the first `heads` heads of every token in place. `cosines`, `sines`: positions × pairs. `turn`: 1 forward, −1 backward.
// Pairs are (i, i + pairs) or, where ADJACENT, (2i, 2i + 1); pairs are a multiple of 8.
template <bool ADJACENT>
__device__ __forceinline__ void rotate(bf16 *x, const int *positions, const float *cosines, const float *sines, int tokens, int stride,
                                       int heads, int head_size, int pairs, float turn) {
    int pieces = pairs / 8;
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (long long)tokens * heads * pieces) return;
    int pair = (int)(item % pieces) * 8, head = (int)(item / pieces % heads), token = (int)(item / pieces / heads);
    bf16 *at = x + (long long)token * stride + head * head_size;
    bf16 *first = ADJACENT ? at + pair * 2 : at + pair, *second = ADJACENT ? first + 8 : first + pairs;
    float a[8], b[8], c[8], s[8];
    load8(first, a);
    load8(second, b);
    long long angle = (long long)positions[token] * pairs + pair;
    load8(cosines + angle, c);
    load8(sines + angle, s);
    if (ADJACENT) {
        float all[16];
#pragma unroll
        for (int e = 0; e < 8; e++) {
            all[e] = a[e];
            all[8 + e] = b[e];
        }
#pragma unroll
        for (int e = 0; e < 8; e++) {
            float even = all[2 * e], odd = all[2 * e + 1];
            all[2 * e] = even * c[e] - odd * s[e] * turn;
            all[2 * e + 1] = odd * c[e] + even * s[e] * turn;
        }
        store8(first, all);
        store8(second, all + 8);
    } else {
#pragma unroll
        for (int e = 0; e < 8; e++) {
            float left = a[e], right = b[e];
            a[e] = left * c[e] - right * s[e] * turn;
            b[e] = right * c[e] + left * s[e] * turn;
        }
        store8(first, a);
        store8(second, b);
    }
}

extern "C" __global__ void rotate_halves(bf16 *x, const int *positions, const float *cosines, const float *sines, int tokens, int stride,
                                         int heads, int head_size, int pairs, float turn) {
    rotate<false>(x, positions, cosines, sines, tokens, stride, heads, head_size, pairs, turn);
}
extern "C" __global__ void rotate_adjacent(bf16 *x, const int *positions, const float *cosines, const float *sines, int tokens, int stride,
                                           int heads, int head_size, int pairs, float turn) {
    rotate<true>(x, positions, cosines, sines, tokens, stride, heads, head_size, pairs, turn);
}

// The activation of a gate and its derivative.
struct Silu {
    static __device__ __forceinline__ float value(float x, float *slope) {
        float gate = __fdividef(1.f, 1.f + exp_fast(-x));
        *slope = gate * (1.f + x * (1.f - gate));
        return x * gate;
    }
};
struct GeluTanh {
    static __device__ __forceinline__ float value(float x, float *slope) {
        const float a = 0.7978845608028654f, b = 0.044715f;
        float t = tanh_fast(a * (x + b * x * x * x));
        *slope = 0.5f * (1.f + t) + 0.5f * x * (1.f - t * t) * a * (1.f + 3.f * b * x * x);
        return 0.5f * x * (1.f + t);
    }
};

// out = activation(gate) · up. All may be parts of wider rows.
template <typename Activation>
__device__ __forceinline__ void gated(const bf16 *gate, const bf16 *up, bf16 *out, int rows, int columns, int stride,
                                      int out_stride) {
    int pieces = columns / 8;
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (long long)rows * pieces) return;
    long long row = item / pieces, column = item % pieces * 8;
    float g[8], u[8], slope;
    load8(gate + row * stride + column, g);
    load8(up + row * stride + column, u);
#pragma unroll
    for (int e = 0; e < 8; e++) g[e] = Activation::value(g[e], &slope) * u[e];
    store8(out + row * out_stride + column, g);
}

// Gradients of gate and up, which may be written over them.
template <typename Activation>
__device__ __forceinline__ void gated_backward(const bf16 *gate, const bf16 *up, const bf16 *grad, bf16 *gate_grad, bf16 *up_grad, int rows,
                                               int columns, int stride, int grad_stride) {
    int pieces = columns / 8;
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (long long)rows * pieces) return;
    long long row = item / pieces, column = item % pieces * 8;
    float g[8], u[8], d[8];
    load8(gate + row * stride + column, g);
    load8(up + row * stride + column, u);
    load8(grad + row * columns + column, d);
#pragma unroll
    for (int e = 0; e < 8; e++) {
        float slope, value = Activation::value(g[e], &slope);
        g[e] = d[e] * u[e] * slope;
        u[e] = d[e] * value;
    }
    store8(gate_grad + row * grad_stride + column, g);
    store8(up_grad + row * grad_stride + column, u);
}

#define GATED(NAME, ACTIVATION)                                                                                                     \
    extern "C" __global__ void NAME(const bf16 *gate, const bf16 *up, bf16 *out, int rows, int columns, int stride,                 \
                                    int out_stride) {                                                                               \
        gated<ACTIVATION>(gate, up, out, rows, columns, stride, out_stride);                                                        \
    }                                                                                                                               \
    extern "C" __global__ void NAME##_backward(const bf16 *gate, const bf16 *up, const bf16 *grad, bf16 *gate_grad, bf16 *up_grad,  \
                                               int rows, int columns, int stride, int grad_stride) {                                \
        gated_backward<ACTIVATION>(gate, up, grad, gate_grad, up_grad, rows, columns, stride, grad_stride);                         \
    }
GATED(swiglu, Silu)
GATED(geglu, GeluTanh)

// Adds one number to each column.
extern "C" __global__ void add_bias(bf16 *x, const float *bias, int rows, int columns, int stride) {
    int pieces = columns / 8;
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (long long)rows * pieces) return;
    long long row = item / pieces, column = item % pieces * 8;
    float values[8], b[8];
    load8(x + row * stride + column, values);
    load8(bias + column, b);
#pragma unroll
    for (int e = 0; e < 8; e++) values[e] += b[e];
    store8(x + row * stride + column, values);
}
