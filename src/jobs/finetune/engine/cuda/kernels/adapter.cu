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

// The sum of the squares of each stretch, which is the work of one block: where it begins, and how many numbers it has.
extern "C" __global__ void squares(const unsigned long long *starts, const int *counts, float *sums) {
    __shared__ float scratch[33];
    const float *x = (const float *)starts[blockIdx.x];
    float sum = 0.f;
    for (int i = threadIdx.x; i < counts[blockIdx.x]; i += blockDim.x) sum += x[i] * x[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// AdamW (Loshchilov and Hutter, 2019) as PyTorch writes it, in the order of operations that the optimiser has on slices.
extern "C" __global__ void adamw(float *x, const float *grad, float *mean, float *square, int count, float scale, float kept,
                                 float mean_moves, float square_stays, float square_takes, float size, float root, float eps) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float g = grad[i] * scale, m = mean[i] + mean_moves * (g - mean[i]), v = square[i] * square_stays + square_takes * g * g;
    mean[i] = m;
    square[i] = v;
    x[i] = x[i] * kept + size * m / (sqrtf(v) / root + eps);
}
