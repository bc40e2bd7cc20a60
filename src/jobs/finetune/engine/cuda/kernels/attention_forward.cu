// Causal attention of packed rows, forward (Dao, FlashAttention-2, 2023, algorithm 1): keeps the output and ln Σ exp of every query.
//
// Queries, keys and values lie as tokens × heads × D with any distance between tokens, so that they may be parts of one projection.
// A block reads one tile of queries of one head: (first query, first token of its row, end of the row, unused).
// Compiled for one HEAD_SIZE: 64, 96, 128 or 256. Scores: scale · q·k, then cap · tanh(score / cap) where cap > 0; of keys after the query or `window` or more before it, none.

#define NEVER (-1e30f)

// Scores in units of log2, and what is masked.
template <int NT>
__device__ __forceinline__ void shape_scores(float (*s)[4], float scale, float cap) {
    if (cap <= 0.f) return;
    float inner = scale / cap, outer = cap * LOG2E;
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[n][e] = outer * tanh_fast(s[n][e] * inner);
}

template <int NT>
__device__ __forceinline__ void mask_scores(float (*s)[4], int query, int key, int window) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int i = query + (lane >> 2) + (e >> 1) * 8, j = key + n * 8 + (lane & 3) * 2 + (e & 1);
            if (j > i || (window && i - j >= window)) s[n][e] = NEVER;
        }
}

// One step of the online softmax: s becomes exp2(unit · (s - max)), and what was summed up before is scaled to the new maximum.
template <int D, int NT>
__device__ __forceinline__ void online_softmax(float (*s)[4], float (*o)[4], float *max, float *sum, float unit) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = max[half];
#pragma unroll
        for (int n = 0; n < NT; n++) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        float shrink = exp2_fast((max[half] - top) * unit), shift = top * unit, total = 0.f;
        max[half] = top;
#pragma unroll
        for (int n = 0; n < NT; n++) {
            s[n][2 * half] = exp2_fast(s[n][2 * half] * unit - shift);
            s[n][2 * half + 1] = exp2_fast(s[n][2 * half + 1] * unit - shift);
            total += s[n][2 * half] + s[n][2 * half + 1];
        }
        sum[half] = sum[half] * shrink + total;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            o[n][2 * half] *= shrink;
            o[n][2 * half + 1] *= shrink;
        }
    }
}

// Divides by the sums and writes what 16 queries have found.
template <int D>
__device__ __forceinline__ void finish_queries(bf16 *out, float *lse, long long stride, float (*o)[4], float *max, float *sum, float unit, int there) {
    int lane = threadIdx.x & 31;
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = sum[half];
        total += __shfl_xor_sync(~0u, total, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        factor[half] = 1.f / total;
        int row = (lane >> 2) + half * 8;
        if ((lane & 3) == 0 && row < there) lse[row] = max[half] * unit * LN2 + logf(total);
    }
    store_rows<D>(out, stride, o, factor[0], factor[1], there);
}

template <int D, int MT, int KEYS>
__device__ __forceinline__ void attention_forward(
    const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *lse, const int4 *tiles, int tokens, int q_stride, int k_stride,
    int v_stride, int out_stride, int group, float scale, float cap, int window) {
    constexpr int QUERIES = 64 * MT, NT = KEYS / 8, BYTES = Pitch<D>::value * 2;
    extern __shared__ __align__(128) unsigned char memory[];
    u32 qs = shared_address(memory), ks = qs + QUERIES * BYTES, vs = ks + KEYS * BYTES;
    int4 tile = tiles[blockIdx.y];
    int head = blockIdx.x, warp = threadIdx.x >> 5, first = tile.x, begin = tile.y, end = tile.z;
    int mine = first + warp * 16 * MT;
    k += (long long)(head / group) * D;
    v += (long long)(head / group) * D;
    int oldest = window && first - window + 1 > begin ? begin + (first - window + 1 - begin) / KEYS * KEYS : begin;
    int last = min(first + QUERIES, end) - 1;
    int key = begin + (last - begin) / KEYS * KEYS;

    load_tile<D, QUERIES, 128>(qs, q + (long long)first * q_stride + head * D, q_stride, end - first);
    load_tile<D, KEYS, 128>(ks, k + (long long)key * k_stride, k_stride, end - key);
    commit();
    float o[MT][D / 8][4] = {}, max[MT][2], sum[MT][2] = {};
#pragma unroll
    for (int m = 0; m < MT; m++) max[m][0] = max[m][1] = NEVER;
    float unit = cap > 0.f ? 1.f : scale * LOG2E;
    u32 left = qs + warp * 16 * MT * BYTES + lane_offset<D>(), right = ks + lane_offset_columns<D>(), values = vs + lane_offset<D>();

    for (; key >= oldest; key -= KEYS) {
        wait<0>();
        __syncthreads();
        load_tile<D, KEYS, 128>(vs, v + (long long)key * v_stride, v_stride, end - key);
        commit();
        // A warp whose queries all come before these keys has nothing to do, unless it has found nothing yet.
        bool idle = key > mine + 16 * MT - 1;
        float s[MT][NT][4] = {};
        if (!idle) multiply_rows<D, MT, NT>(s, left, right);
        wait<0>();
        __syncthreads();
        if (key - KEYS >= oldest) load_tile<D, KEYS, 128>(ks, k + (long long)(key - KEYS) * k_stride, k_stride, KEYS);
        commit();
        if (idle) continue;
        u32 p[MT][NT / 2][4];
        bool edge = key + KEYS - 1 > mine || (window && key <= mine + 16 * MT - 1 - window);
#pragma unroll
        for (int m = 0; m < MT; m++) {
            shape_scores<NT>(s[m], scale, cap);
            if (edge) mask_scores<NT>(s[m], mine + m * 16, key, window);
            online_softmax<D, NT>(s[m], o[m], max[m], sum[m], unit);
            round_left<NT>(p[m], s[m]);
        }
        multiply_columns<D, MT, NT / 2>(o, p, values);
    }
#pragma unroll
    for (int m = 0; m < MT; m++) {
        int at = mine + m * 16;
        bf16 *to = out + (long long)at * out_stride + head * D;
        finish_queries<D>(to, lse + (long long)head * tokens + at, out_stride, o[m], max[m], sum[m], unit, end - at);
    }
}

// What fits into the registers of a warp.
#ifndef FORWARD_ROWS
#define FORWARD_ROWS (HEAD_SIZE > 128 ? 1 : 2)
#endif

extern "C" __global__ void __launch_bounds__(128, 2) attention_forward(
    const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *lse, const int4 *tiles, int tokens, int q_stride, int k_stride,
    int v_stride, int out_stride, int group, float scale, float cap, int window) {
    attention_forward<HEAD_SIZE, FORWARD_ROWS, 64>(q, k, v, out, lse, tiles, tokens, q_stride, k_stride, v_stride, out_stride, group, scale,
                                                   cap, window);
}
