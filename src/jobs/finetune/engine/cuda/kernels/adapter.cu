// Between adapters in single precision, as the trainer has them, and blocks of the widened bf16 weights; one thread for one number.

// A block of `to`, whose rows are `stride` apart: scale · from.
extern "C" __global__ void place_block(const float *from, bf16 *to, int rows, int columns, int stride, float scale) {
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (long long)rows * columns) return;
    to[item / columns * stride + item % columns] = narrow(scale * from[item]);
}

extern "C" __global__ void clear_block(bf16 *to, int rows, int columns, int stride) {
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (long long)rows * columns) return;
    to[item / columns * stride + item % columns] = 0;
}

// to += scale · a block whose rows are `stride` apart.
extern "C" __global__ void add_block(const float *from, float *to, int rows, int columns, int stride, float scale) {
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (long long)rows * columns) return;
    to[item] += scale * from[item / columns * stride + item % columns];
}

// A block of whole weights.
extern "C" __global__ void copy_block(const bf16 *from, bf16 *to, int rows, int columns, int stride) {
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (long long)rows * columns) return;
    to[item / columns * stride + item % columns] = from[item];
}

// AdamW (Loshchilov and Hutter, 2019) as PyTorch writes it. `first`, `second`: 1 / (1 − βᵗ).
extern "C" __global__ void adamw(float *x, const float *grad, float *mean, float *square, int count, float rate, float beta1, float beta2,
                                 float eps, float decay, float first, float second) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float g = grad[i], m = beta1 * mean[i] + (1.f - beta1) * g, v = beta2 * square[i] + (1.f - beta2) * g * g;
    mean[i] = m;
    square[i] = v;
    x[i] = x[i] * (1.f - rate * decay) - rate * (m * first) / (sqrtf(v * second) + eps);
}
