// Rows picked from a table, and rows put back: one block of 256 threads for each. Columns are a multiple of 8.

// out[i] = table[ids[i]] · scale. An id outside of the table gives NaN.
extern "C" __global__ void __launch_bounds__(256) take_rows(const bf16 *table, const u32 *ids, bf16 *out, int columns, int stride, int rows,
                                                            float scale) {
    u32 id = ids[blockIdx.x];
    bool is = id < (u32)rows;
    const bf16 *from = table + (long long)(is ? id : 0) * stride;
    bf16 *to = out + (long long)blockIdx.x * columns;
    for (int column = threadIdx.x * 8; column < columns; column += blockDim.x * 8) {
        float x[8];
        load8(from + column, x);
#pragma unroll
        for (int e = 0; e < 8; e++) x[e] = is ? x[e] * scale : __int_as_float(0x7fffffff);
        store8(to + column, x);
    }
}

// out[ids[i]] += rows[i] for `count` ids in ascending order. Of equal ids the first block takes all, so that nothing is added twice at once.
extern "C" __global__ void __launch_bounds__(256) add_rows(const bf16 *rows, const u32 *ids, bf16 *out, int columns, int count) {
    int first = blockIdx.x;
    u32 id = ids[first];
    if (first > 0 && ids[first - 1] == id) return;
    int end = first + 1;
    while (end < count && ids[end] == id) end++;
    bf16 *to = out + (long long)id * columns;
    for (int column = threadIdx.x * 8; column < columns; column += blockDim.x * 8) {
        float sum[8];
        load8(to + column, sum);
        for (int i = first; i < end; i++) {
            float x[8];
            load8(rows + (long long)i * columns + column, x);
#pragma unroll
            for (int e = 0; e < 8; e++) sum[e] += x[e];
        }
        store8(to + column, sum);
    }
}
