// Causal attention of packed rows, backward (Dao, FlashAttention-2, 2023, algorithm 2), in two passes, one over tiles of keys and one over
// tiles of queries: every sum is made by one thread in one order, so that the same input gives the same bits. Layouts, tiles and scores are
// those of the forward pass.

// Σ gradient · output of every query and head.
template <int D>
__device__ __forceinline__ void attention_delta(const bf16 *out, const bf16 *grad, float *delta, int tokens, int heads, int stride) {
    int item = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (item >= tokens * heads) return;
    int token = item / heads, head = item % heads;
    long long at = (long long)token * stride + head * D;
    float sum = 0.f;
    for (int i = lane * 2; i < D; i += 64) {
        u32 a = *(const u32 *)(out + at + i), b = *(const u32 *)(grad + at + i);
        sum += low(a) * low(b) + high(a) * high(b);
    }
    sum = warp_sum(sum);
    if (lane == 0) delta[(long long)head * tokens + token] = sum;
}

// Probabilities from scores, in place; with a cap, `slope` becomes the derivative of the capped score.
__device__ __forceinline__ float probability(float s, float lse2, float unit, float inner, float outer, float *slope) {
    if (outer > 0.f) {
        float t = tanh_fast(s * inner);
        *slope = 1.f - t * t;
        return exp2_fast(outer * t - lse2);
    }
    *slope = 1.f;
    return exp2_fast(s * unit - lse2);
}

// Gradients of keys (KEYS) and values (VALUES) of 64 keys: rows of the products are keys, columns are queries.
template <int D, int QUERIES, bool KEYS, bool VALUES>
__device__ __forceinline__ void attention_backward_keys(
    const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *grad, const float *lse, const float *delta, bf16 *dk, bf16 *dv,
    const int4 *tiles, int tokens, int q_stride, int k_stride, int v_stride, int out_stride, int dk_stride, int dv_stride, int group,
    float scale, float cap, int window) {
    constexpr int BYTES = Pitch<D>::value * 2, NT = QUERIES / 8, TILE = QUERIES * BYTES;
    extern __shared__ __align__(128) unsigned char memory[];
    u32 ks = shared_address(memory), vs = ks + 64 * BYTES, qs = vs + 64 * BYTES, gs = qs + 2 * TILE, ls = gs + TILE;
    const float *stats = (const float *)(memory + (ls - ks));
    int4 tile = tiles[blockIdx.y];
    int first = tile.x, end = tile.z, kv_head = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int begin = tile.y + (first - tile.y) / QUERIES * QUERIES;
    int stop = window ? min(end, first + 63 + window) : end;
    int steps = (stop - begin + QUERIES - 1) / QUERIES, total = steps * group;

    load_tile<D, 64, 128>(ks, k + (long long)first * k_stride + kv_head * D, k_stride, end - first);
    load_tile<D, 64, 128>(vs, v + (long long)first * v_stride + kv_head * D, v_stride, end - first);
    auto load_queries = [&](int step) {
        int query = begin + step % steps * QUERIES, head = kv_head * group + step / steps, slot = step & 1;
        load_tile<D, QUERIES, 128>(qs + slot * TILE, q + (long long)query * q_stride + head * D, q_stride, end - query);
        if (threadIdx.x < 2 * QUERIES) {
            int row = threadIdx.x % QUERIES;
            const float *from = (threadIdx.x < QUERIES ? lse : delta) + (long long)head * tokens;
            bool is = query + row < end;
            copy_async_word(ls + (slot * 2 * QUERIES + threadIdx.x) * 4, from + (is ? query + row : 0), is);
        }
    };
    auto load_grad = [&](int step) {
        int query = begin + step % steps * QUERIES, head = kv_head * group + step / steps;
        load_tile<D, QUERIES, 128>(gs, grad + (long long)query * out_stride + head * D, out_stride, end - query);
    };
    load_queries(0);
    commit();
    load_grad(0);
    commit();

    float gk[1][D / 8][4], gv[1][D / 8][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            if (KEYS) gk[0][n][e] = 0.f;
            if (VALUES) gv[0][n][e] = 0.f;
        }
    float unit = scale * LOG2E, inner = cap > 0.f ? scale / cap : 0.f, outer = cap * LOG2E;
    int key = first + warp * 16 + (lane >> 2);
    u32 left_k = ks + warp * 16 * BYTES + lane_offset<D>(), left_v = vs + warp * 16 * BYTES + lane_offset<D>();

    for (int step = 0; step < total; step++) {
        int query = begin + step % steps * QUERIES;
        u32 queries = qs + (step & 1) * TILE;
        const float *lse_here = stats + (step & 1) * 2 * QUERIES, *delta_here = lse_here + QUERIES;
        wait<1>();
        __syncthreads();
        if (step + 1 < total) load_queries(step + 1);
        commit();
        float p[1][NT][4] = {}, dp[1][NT][4] = {};
        multiply_rows<D, 1, NT>(p, left_k, queries + lane_offset_columns<D>());
        wait<1>();
        __syncthreads();
        if (KEYS) multiply_rows<D, 1, NT>(dp, left_v, gs + lane_offset_columns<D>());
        bool edge = query < first + 63 || (window && query + QUERIES - 1 - first >= window);
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int column = n * 8 + (lane & 3) * 2 + (e & 1), i = query + column, j = key + (e >> 1) * 8;
                float slope, x = probability(p[0][n][e], lse_here[column] * LOG2E, unit, inner, outer, &slope);
                if (edge && (j > i || (window && i - j >= window))) x = 0.f;
                p[0][n][e] = x;
                if (KEYS) dp[0][n][e] = x * (dp[0][n][e] - delta_here[column]) * slope;
            }
        u32 rounded[1][NT / 2][4];
        if (VALUES) {
            round_left<NT>(rounded[0], p[0]);
            multiply_columns<D, 1, NT / 2>(gv, rounded, gs + lane_offset<D>());
        }
        __syncthreads();
        if (step + 1 < total) load_grad(step + 1);
        commit();
        if (KEYS) {
            round_left<NT>(rounded[0], dp[0]);
            multiply_columns<D, 1, NT / 2>(gk, rounded, queries + lane_offset<D>());
        }
    }
    int at = first + warp * 16;
    if (KEYS) store_rows<D>(dk + (long long)at * dk_stride + kv_head * D, dk_stride, gk[0], scale, scale, end - at);
    if (VALUES) store_rows<D>(dv + (long long)at * dv_stride + kv_head * D, dv_stride, gv[0], 1.f, 1.f, end - at);
}

// Gradients of 64 queries of one head. Where HELD, queries and output gradients stay in registers.
template <int D, int KEYS, bool HELD>
__device__ __forceinline__ void attention_backward_queries(
    const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *grad, const float *lse, const float *delta, bf16 *dq, const int4 *tiles,
    int tokens, int q_stride, int k_stride, int v_stride, int out_stride, int dq_stride, int group, float scale, float cap, int window) {
    constexpr int BYTES = Pitch<D>::value * 2, NT = KEYS / 8, TILE = KEYS * BYTES, BUFFERS = HELD ? 2 : 1;
    extern __shared__ __align__(128) unsigned char memory[];
    u32 qs = shared_address(memory), gs = qs + 64 * BYTES, ks = HELD ? qs : gs + 64 * BYTES, vs = ks + BUFFERS * TILE;
    int4 tile = tiles[blockIdx.y];
    int first = tile.x, begin = tile.y, end = tile.z, head = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    k += (long long)(head / group) * D;
    v += (long long)(head / group) * D;
    int oldest = window && first - window + 1 > begin ? begin + (first - window + 1 - begin) / KEYS * KEYS : begin;
    int last = min(first + 64, end) - 1, steps = (last - oldest) / KEYS + 1;

    load_tile<D, 64, 128>(qs, q + (long long)first * q_stride + head * D, q_stride, end - first);
    load_tile<D, 64, 128>(gs, grad + (long long)first * out_stride + head * D, out_stride, end - first);
    commit();
    int mine = first + warp * 16 + (lane >> 2);
    float lse2[2], delta_here[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        bool is = mine + half * 8 < end;
        lse2[half] = is ? lse[(long long)head * tokens + mine + half * 8] * LOG2E : 0.f;
        delta_here[half] = is ? delta[(long long)head * tokens + mine + half * 8] : 0.f;
    }
    u32 left_q = qs + warp * 16 * BYTES + lane_offset<D>(), left_g = gs + warp * 16 * BYTES + lane_offset<D>();
    u32 held_q[HELD ? D / 16 : 1][4], held_g[HELD ? D / 16 : 1][4];
    if (HELD) {
        wait<0>();
        __syncthreads();
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            ldmatrix(held_q[i], left_q + i * 32);
            ldmatrix(held_g[i], left_g + i * 32);
        }
        __syncthreads();
    }
    auto load_keys = [&](int step) {
        int key = oldest + step * KEYS;
        load_tile<D, KEYS, 128>(ks + (step % BUFFERS) * TILE, k + (long long)key * k_stride, k_stride, end - key);
    };
    auto load_values = [&](int step) {
        int key = oldest + step * KEYS;
        load_tile<D, KEYS, 128>(vs, v + (long long)key * v_stride, v_stride, end - key);
    };
    load_keys(0);
    commit();
    load_values(0);
    commit();
    float out[1][D / 8][4] = {};
    float unit = scale * LOG2E, inner = cap > 0.f ? scale / cap : 0.f, outer = cap * LOG2E;

    for (int step = 0; step < steps; step++) {
        int key = oldest + step * KEYS;
        u32 keys = ks + (step % BUFFERS) * TILE;
        wait<1>();
        __syncthreads();
        if (BUFFERS == 2) {
            if (step + 1 < steps) load_keys(step + 1);
            commit();
        }
        float p[1][NT][4] = {}, dp[1][NT][4] = {};
        if (HELD) multiply_held<D, NT>(p[0], held_q, keys + lane_offset_columns<D>());
        else multiply_rows<D, 1, NT>(p, left_q, keys + lane_offset_columns<D>());
        if (BUFFERS == 2) wait<1>();
        else wait<0>();
        __syncthreads();
        if (HELD) multiply_held<D, NT>(dp[0], held_g, vs + lane_offset_columns<D>());
        else multiply_rows<D, 1, NT>(dp, left_g, vs + lane_offset_columns<D>());
        bool edge = key + KEYS - 1 > first || (window && key <= first + 63 - window);
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int i = mine + (e >> 1) * 8, j = key + n * 8 + (lane & 3) * 2 + (e & 1);
                float slope, x = probability(p[0][n][e], lse2[e >> 1], unit, inner, outer, &slope);
                if (edge && (j > i || (window && i - j >= window))) x = 0.f;
                dp[0][n][e] = x * (dp[0][n][e] - delta_here[e >> 1]) * slope;
            }
        u32 rounded[1][NT / 2][4];
        round_left<NT>(rounded[0], dp[0]);
        if (BUFFERS == 2) {
            __syncthreads();
            if (step + 1 < steps) load_values(step + 1);
            commit();
        }
        multiply_columns<D, 1, NT / 2>(out, rounded, keys + lane_offset<D>());
        if (BUFFERS == 1) {
            __syncthreads();
            if (step + 1 < steps) load_keys(step + 1);
            commit();
            if (step + 1 < steps) load_values(step + 1);
            commit();
        }
    }
    int at = first + warp * 16;
    store_rows<D>(dq + (long long)at * dq_stride + head * D, dq_stride, out[0], scale, scale, end - at);
}

extern "C" __global__ void __launch_bounds__(256) attention_delta(const bf16 *out, const bf16 *grad, float *delta, int tokens, int heads,
                                                                   int stride) {
    attention_delta<HEAD_SIZE>(out, grad, delta, tokens, heads, stride);
}

#define BACKWARD_KEYS(NAME, QUERIES, KEYS, VALUES)                                                                                  \
    extern "C" __global__ void __launch_bounds__(128, 2) NAME(                                                                      \
        const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *grad, const float *lse, const float *delta, bf16 *dk, bf16 *dv,    \
        const int4 *tiles, int tokens, int q_stride, int k_stride, int v_stride, int out_stride, int dk_stride, int dv_stride,      \
        int group, float scale, float cap, int window) {                                                                            \
        attention_backward_keys<HEAD_SIZE, QUERIES, KEYS, VALUES>(q, k, v, grad, lse, delta, dk, dv, tiles, tokens, q_stride,       \
                                                                  k_stride, v_stride, out_stride, dk_stride, dv_stride, group,      \
                                                                  scale, cap, window);                                              \
    }
#if HEAD_SIZE > 128
// The sums of both would not fit into registers.
BACKWARD_KEYS(attention_backward_keys, 16, true, false)
BACKWARD_KEYS(attention_backward_values, 16, false, true)
#else
BACKWARD_KEYS(attention_backward_keys_values, 64, true, true)
#endif

extern "C" __global__ void __launch_bounds__(128, 2) attention_backward_queries(
    const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *grad, const float *lse, const float *delta, bf16 *dq, const int4 *tiles,
    int tokens, int q_stride, int k_stride, int v_stride, int out_stride, int dq_stride, int group, float scale, float cap, int window) {
    attention_backward_queries<HEAD_SIZE, (HEAD_SIZE > 128 ? 32 : 64), (HEAD_SIZE <= 128)>(
        q, k, v, grad, lse, delta, dq, tiles, tokens, q_stride, k_stride, v_stride, out_stride, dq_stride, group, scale, cap, window);
}
