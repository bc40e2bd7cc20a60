// Tiles of bf16 in shared memory and what the tensor cores of sm_80 and later do with them.
//
// A tile has rows of D numbers and 8 more, which lay the 16-byte pieces that one ldmatrix reads into different banks.
// Fragments are those of mma.m16n8k16: of an accumulator, a lane holds the columns 2(lane % 4) and the next of the rows lane / 4
// (0 and 1) and lane / 4 + 8 (2 and 3). Two of them, side by side and rounded, are a left operand.

template <int D> struct Pitch { static constexpr int value = D + 8; };

__device__ __forceinline__ u32 shared_address(const void *pointer) { return (u32)__cvta_generic_to_shared(pointer); }

__device__ __forceinline__ void copy_async(u32 to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy_async_word(u32 to, const void *from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(there ? 4 : 0) : "memory");
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> __device__ __forceinline__ void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

// Rows from `there` on are filled with zeros.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(u32 to, const bf16 *from, long long stride, int there) {
    constexpr int PIECES = D / 8;
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * PIECES; i += THREADS) {
        int row = i / PIECES, piece = i % PIECES;
        bool is = row < there;
        copy_async(to + (row * Pitch<D>::value + piece * 8) * 2, from + (is ? row : 0) * stride + piece * 8, is);
    }
}

__device__ __forceinline__ void ldmatrix(u32 *r, u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address) : "memory");
}
__device__ __forceinline__ void ldmatrix_transposed(u32 *r, u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address) : "memory");
}
__device__ __forceinline__ void mma(float *c, const u32 *a, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Where this lane points ldmatrix to, from the beginning of a tile: for a left operand, or a right one whose rows run along the sum.
template <int D> __device__ __forceinline__ u32 lane_offset() {
    int lane = threadIdx.x & 31;
    return ((lane & 15) * Pitch<D>::value + (lane >> 4) * 8) * 2;
}
// For a right operand whose rows are columns of the product.
template <int D> __device__ __forceinline__ u32 lane_offset_columns() {
    int lane = threadIdx.x & 31;
    return (((lane & 7) + ((lane >> 4) << 3)) * Pitch<D>::value + ((lane >> 3) & 1) * 8) * 2;
}

// c (16·MT × 8·NT) += rows of `left` × rows of `right`, over their D columns. Both addresses are this lane's.
template <int D, int MT, int NT>
__device__ __forceinline__ void multiply_rows(float (*c)[NT][4], u32 left, u32 right) {
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        u32 a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) ldmatrix(a[m], left + (m * 16 * Pitch<D>::value + k * 16) * 2);
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            u32 b[4];
            ldmatrix(b, right + (n * 8 * Pitch<D>::value + k * 16) * 2);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma(c[m][n], a[m], b[0], b[1]);
                mma(c[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// The same with the left operand in registers.
template <int D, int NT>
__device__ __forceinline__ void multiply_held(float (*c)[4], const u32 (*a)[4], u32 right) {
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            u32 b[4];
            ldmatrix(b, right + (n * 8 * Pitch<D>::value + k * 16) * 2);
            mma(c[n], a[k], b[0], b[1]);
            mma(c[n + 1], a[k], b[2], b[3]);
        }
    }
}

// out (16·MT × D) += a (16·MT × 16·KT, in registers) × `right` (16·KT rows of D columns).
template <int D, int MT, int KT>
__device__ __forceinline__ void multiply_columns(float (*out)[D / 8][4], const u32 (*a)[KT][4], u32 right) {
#pragma unroll
    for (int k = 0; k < KT; k++) {
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            u32 b[4];
            ldmatrix_transposed(b, right + (k * 16 * Pitch<D>::value + n * 8) * 2);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma(out[m][n], a[m][k], b[0], b[1]);
                mma(out[m][n + 1], a[m][k], b[2], b[3]);
            }
        }
    }
}

// Rounds an accumulator to a left operand.
template <int NT>
__device__ __forceinline__ void round_left(u32 (*a)[4], const float (*c)[4]) {
#pragma unroll
    for (int k = 0; k < NT / 2; k++) {
        a[k][0] = pack(c[2 * k][0], c[2 * k][1]);
        a[k][1] = pack(c[2 * k][2], c[2 * k][3]);
        a[k][2] = pack(c[2 * k + 1][0], c[2 * k + 1][1]);
        a[k][3] = pack(c[2 * k + 1][2], c[2 * k + 1][3]);
    }
}

// Writes 16 rows, times `factor`, of which the first `there` exist.
template <int D>
__device__ __forceinline__ void store_rows(bf16 *to, long long stride, const float (*c)[4], float factor0, float factor1, int there) {
    int lane = threadIdx.x & 31, row = lane >> 2;
    bf16 *at = to + row * stride + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        if (row < there) *(u32 *)(at + n * 8) = pack(c[n][0] * factor0, c[n][1] * factor0);
        if (row + 8 < there) *(u32 *)(at + 8 * stride + n * 8) = pack(c[n][2] * factor1, c[n][3] * factor1);
    }
}
