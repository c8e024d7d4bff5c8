// Scaled dot-product attention over packed sequences (Vaswani et al. 2017), forward and backward, without a matrix of
// probabilities in memory (Dao et al. 2022, FlashAttention). As kernels/attention.rs.
//
// Sequence s has the queries query_offsets[s] .. query_offsets[s + 1] and the keys key_offsets[s] .. key_offsets[s + 1]. A block
// takes one tile of at most 64 rows of a sequence (`tiles`: sequence, first row) and one head (blockIdx.y). The logarithm of
// each query's denominator is kept in units of log 2: [heads][tokens].

struct Attention {
    int width, heads, causal, tokens;
    // Distance of two rows of queries, and of keys and values.
    int query_stride, key_stride;
    // 1 / sqrt(width)
    float scale;
    Dropout dropout;
    u64 first_row;
    const unsigned *query_offsets, *key_offsets;
    const uint2* tiles;
};

#define LOG2_E 1.44269504f
#define TILE 64

struct Place {
    int sequence, start, first_query, queries, first_key, keys;
};

__device__ __forceinline__ Place place_of(const Attention& a) {
    uint2 tile = a.tiles[blockIdx.x];
    int first_query = a.query_offsets[tile.x], first_key = a.key_offsets[tile.x];
    return Place{(int)tile.x,
                 (int)tile.y,
                 first_query,
                 (int)a.query_offsets[tile.x + 1] - first_query,
                 first_key,
                 (int)a.key_offsets[tile.x + 1] - first_key};
}

// Dropout's name for a query of a head.
__device__ __forceinline__ RowKey query_key(const Attention& a, int row, int head) {
    return row_key(a.dropout, (a.first_row + row) * a.heads + head);
}

// delta[head][token] = context . its gradient: a warp for each; what the softmax's backward subtracts.
template <class T>
__device__ void attention_delta(const T* context, const T* gradient, float* delta, int tokens, int heads, int width) {
    int number = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x & 31;
    if (number >= tokens * heads) return;
    int token = number / heads, head = number % heads;
    u64 start = (u64)token * heads * width + head * width;
    float sum = 0.0f;
    for (int d = lane; d < width; d += 32) sum = fmaf(widen(context[start + d]), widen(gradient[start + d]), sum);
    sum = warp_sum(sum);
    if (lane == 0) delta[(u64)head * tokens + token] = sum;
}

EXPORT(attention_delta_float,
       (const float* context, const float* gradient, float* delta, int tokens, int heads, int width),
       attention_delta(context, gradient, delta, tokens, heads, width))
EXPORT(attention_delta_bf16, (const bf16* context, const bf16* gradient, float* delta, int tokens, int heads, int width),
       attention_delta(context, gradient, delta, tokens, heads, width))

// --- Any width up to 128, on ordinary cores: 4 warps with 16 rows of the tile each. U: how often a lane takes a column. ---

// `rows` rows of a tile to shared memory as f32, zeros below them. Rows lie `width + 1` apart: lanes that read one column of
// different rows use different banks.
template <class T>
__device__ __forceinline__ void widen_tile(float* tile, const T* from, int stride, int rows, int width) {
    for (int place = threadIdx.x; place < TILE * width; place += 128) {
        int row = place / width, column = place % width;
        tile[row * (width + 1) + column] = row < rows ? widen(from[(u64)row * stride + column]) : 0.0f;
    }
}

#define OWN_ROWS 16

// product[r][h] = rows[r] . tile[lane + 32 h], of a warp's rows.
__device__ __forceinline__ void row_products(float (&product)[OWN_ROWS][2], const float* rows, const float* tile, int width,
                                             int lane) {
    const float *first = tile + lane * (width + 1), *second = first + 32 * (width + 1);
#pragma unroll
    for (int r = 0; r < OWN_ROWS; r++) product[r][0] = product[r][1] = 0.0f;
#pragma unroll 2
    for (int d = 0; d < width; d++) {
        float left = first[d], right = second[d];
#pragma unroll
        for (int r = 0; r < OWN_ROWS; r++) {
            float own = rows[r * (width + 1) + d];
            product[r][0] = fmaf(own, left, product[r][0]);
            product[r][1] = fmaf(own, right, product[r][1]);
        }
    }
}

// sum[r] += weights[r] . tile, of a warp's rows; lane l has the columns l + 32 u.
template <int U>
__device__ __forceinline__ void add_weighted(float (&sum)[OWN_ROWS][U], const float* weights, const float* tile, int width,
                                             int lane) {
#pragma unroll 2
    for (int j = 0; j < TILE; j++) {
        float row[U];
#pragma unroll
        for (int u = 0; u < U; u++) row[u] = lane + 32 * u < width ? tile[j * (width + 1) + lane + 32 * u] : 0.0f;
#pragma unroll
        for (int r = 0; r < OWN_ROWS; r++) {
            float weight = weights[r * TILE + j];
#pragma unroll
            for (int u = 0; u < U; u++) sum[r][u] = fmaf(weight, row[u], sum[r][u]);
        }
    }
}

template <class T, int U>
__device__ __forceinline__ void store_row(T* to, const float (&sum)[U], float factor, int width, int lane) {
#pragma unroll
    for (int u = 0; u < U; u++)
        if (lane + 32 * u < width) narrow(to + lane + 32 * u, sum[u] * factor);
}

// Shared memory: tiles of queries, keys and values, and weights.
template <class T, int U>
__device__ void attention_forward(Attention a, const T* query, const T* key, const T* value, T* context,
                                  float* logarithms) {
    int width = a.width, apart = TILE * (width + 1);
    float* own = (float*)dynamic_shared();
    float *keys = own + apart, *values = keys + apart, *weights = values + apart;
    Place p = place_of(a);
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, head = blockIdx.y;
    u64 first_token = p.first_query + p.start;
    int seen = a.causal ? min(p.keys, p.start + TILE) : p.keys;
    widen_tile(own, query + first_token * a.query_stride + head * width, a.query_stride, p.queries - p.start, width);
    float sum[OWN_ROWS][U] = {}, greatest[OWN_ROWS], total[OWN_ROWS];
    for (int r = 0; r < OWN_ROWS; r++) {
        greatest[r] = -INFINITY;
        total[r] = 0.0f;
    }
    float unit = a.scale * LOG2_E;
    for (int start = 0; start < seen; start += TILE) {
        u64 at = (u64)(p.first_key + start) * a.key_stride + head * width;
        __syncthreads();
        widen_tile(keys, key + at, a.key_stride, p.keys - start, width);
        widen_tile(values, value + at, a.key_stride, p.keys - start, width);
        __syncthreads();
        float score[OWN_ROWS][2];
        row_products(score, own + OWN_ROWS * warp * (width + 1), keys, width, lane);
#pragma unroll
        for (int r = 0; r < OWN_ROWS; r++) {
            int row = p.start + OWN_ROWS * warp + r;
            for (int half = 0; half < 2; half++) {
                int column = start + lane + 32 * half;
                if (column >= p.keys || (a.causal && column > row)) score[r][half] = -INFINITY;
            }
            float before = greatest[r];
            greatest[r] = fmaxf(before, warp_max(fmaxf(score[r][0], score[r][1])));
            float shrink = exp2f((before - greatest[r]) * unit);
            total[r] *= shrink;
            RowKey name = query_key(a, p.first_query + row, head);
            for (int half = 0; half < 2; half++) {
                float power = exp2f((score[r][half] - greatest[r]) * unit);
                total[r] += power;
                if (a.dropout.threshold) power *= dropout_factor(a.dropout, name, start + lane + 32 * half);
                weights[(OWN_ROWS * warp + r) * TILE + lane + 32 * half] = power;
            }
#pragma unroll
            for (int u = 0; u < U; u++) sum[r][u] *= shrink;
        }
        __syncwarp();
        add_weighted<U>(sum, weights + OWN_ROWS * warp * TILE, values, width, lane);
    }
#pragma unroll
    for (int r = 0; r < OWN_ROWS; r++) {
        int row = p.start + OWN_ROWS * warp + r;
        float all = warp_sum(total[r]);
        if (row >= p.queries) continue;
        u64 token = p.first_query + row;
        store_row<T, U>(context + token * a.heads * width + head * width, sum[r], 1.0f / all, width, lane);
        if (lane == 0) logarithms[(u64)head * a.tokens + token] = greatest[r] * unit + log2f(all);
    }
}

// Tiles of queries. Shared memory: tiles of queries, of gradients, of keys and of values, and weights.
template <class T, int U>
__device__ void attention_query_gradient(Attention a, const T* query, const T* key, const T* value, const T* gradient,
                                         const float* logarithms, const float* delta, T* query_gradient) {
    int width = a.width, apart = TILE * (width + 1);
    float* own = (float*)dynamic_shared();
    float *outer = own + apart, *keys = outer + apart, *values = keys + apart, *weights = values + apart;
    Place p = place_of(a);
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, head = blockIdx.y;
    u64 first_token = p.first_query + p.start;
    int seen = a.causal ? min(p.keys, p.start + TILE) : p.keys;
    widen_tile(own, query + first_token * a.query_stride + head * width, a.query_stride, p.queries - p.start, width);
    widen_tile(outer, gradient + first_token * a.heads * width + head * width, a.heads * width, p.queries - p.start, width);
    float sum[OWN_ROWS][U] = {};
    float unit = a.scale * LOG2_E;
    for (int start = 0; start < seen; start += TILE) {
        u64 at = (u64)(p.first_key + start) * a.key_stride + head * width;
        __syncthreads();
        widen_tile(keys, key + at, a.key_stride, p.keys - start, width);
        widen_tile(values, value + at, a.key_stride, p.keys - start, width);
        __syncthreads();
        float score[OWN_ROWS][2], into[OWN_ROWS][2];
        row_products(score, own + OWN_ROWS * warp * (width + 1), keys, width, lane);
        row_products(into, outer + OWN_ROWS * warp * (width + 1), values, width, lane);
#pragma unroll
        for (int r = 0; r < OWN_ROWS; r++) {
            int row = p.start + OWN_ROWS * warp + r;
            u64 place = (u64)head * a.tokens + p.first_query + row;
            bool there = row < p.queries;
            float logarithm = there ? logarithms[place] : INFINITY, mean = there ? delta[place] : 0.0f;
            RowKey name = query_key(a, p.first_query + row, head);
            for (int half = 0; half < 2; half++) {
                int column = start + lane + 32 * half;
                bool hidden = column >= p.keys || (a.causal && column > row);
                float power = hidden ? 0.0f : exp2f(fmaf(score[r][half], unit, -logarithm));
                float kept = a.dropout.threshold ? dropout_factor(a.dropout, name, column) : 1.0f;
                weights[(OWN_ROWS * warp + r) * TILE + lane + 32 * half] = power * (into[r][half] * kept - mean) * a.scale;
            }
        }
        __syncwarp();
        add_weighted<U>(sum, weights + OWN_ROWS * warp * TILE, keys, width, lane);
    }
#pragma unroll
    for (int r = 0; r < OWN_ROWS; r++) {
        int row = p.start + OWN_ROWS * warp + r;
        if (row >= p.queries) continue;
        store_row<T, U>(query_gradient + (u64)(p.first_query + row) * a.query_stride + head * width, sum[r], 1.0f, width,
                        lane);
    }
}

// Tiles of keys. Shared memory: tiles of keys, of values, of queries and of gradients, and weights.
template <class T, int U>
__device__ void attention_key_gradient(Attention a, const T* query, const T* key, const T* value, const T* gradient,
                                       const float* logarithms, const float* delta, T* key_gradient, T* value_gradient) {
    int width = a.width, apart = TILE * (width + 1);
    float* own_keys = (float*)dynamic_shared();
    float *own_values = own_keys + apart, *queries = own_values + apart, *outer = queries + apart;
    float* weights = outer + apart;
    Place p = place_of(a);
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, head = blockIdx.y;
    u64 at = (u64)(p.first_key + p.start) * a.key_stride + head * width;
    widen_tile(own_keys, key + at, a.key_stride, p.keys - p.start, width);
    widen_tile(own_values, value + at, a.key_stride, p.keys - p.start, width);
    float of_key[OWN_ROWS][U] = {}, of_value[OWN_ROWS][U] = {};
    float unit = a.scale * LOG2_E;
    for (int start = a.causal ? p.start : 0; start < p.queries; start += TILE) {
        u64 token = p.first_query + start;
        __syncthreads();
        widen_tile(queries, query + token * a.query_stride + head * width, a.query_stride, p.queries - start, width);
        widen_tile(outer, gradient + token * a.heads * width + head * width, a.heads * width, p.queries - start, width);
        __syncthreads();
        float logarithm[2], mean[2];
        RowKey names[2];
        for (int half = 0; half < 2; half++) {
            int column = start + lane + 32 * half;
            u64 place = (u64)head * a.tokens + p.first_query + column;
            bool there = column < p.queries;
            logarithm[half] = there ? logarithms[place] : INFINITY;
            mean[half] = there ? delta[place] : 0.0f;
            names[half] = query_key(a, p.first_query + column, head);
        }
        float score[OWN_ROWS][2], into[OWN_ROWS][2];
        row_products(score, own_keys + OWN_ROWS * warp * (width + 1), queries, width, lane);
        row_products(into, own_values + OWN_ROWS * warp * (width + 1), outer, width, lane);
        float* own_weights = weights + OWN_ROWS * warp * TILE;
#pragma unroll
        for (int r = 0; r < OWN_ROWS; r++) {
            int row = p.start + OWN_ROWS * warp + r;
            for (int half = 0; half < 2; half++) {
                bool hidden = a.causal && row > start + lane + 32 * half;
                float power = hidden ? 0.0f : exp2f(fmaf(score[r][half], unit, -logarithm[half]));
                float kept = a.dropout.threshold ? dropout_factor(a.dropout, names[half], row) : 1.0f;
                score[r][half] = power * (into[r][half] * kept - mean[half]) * a.scale;
                own_weights[r * TILE + lane + 32 * half] = power * kept;
            }
        }
        __syncwarp();
        add_weighted<U>(of_value, own_weights, outer, width, lane);
        __syncwarp();
#pragma unroll
        for (int r = 0; r < OWN_ROWS; r++)
            for (int half = 0; half < 2; half++) own_weights[r * TILE + lane + 32 * half] = score[r][half];
        __syncwarp();
        add_weighted<U>(of_key, own_weights, queries, width, lane);
    }
#pragma unroll
    for (int r = 0; r < OWN_ROWS; r++) {
        int row = p.start + OWN_ROWS * warp + r;
        if (row >= p.keys) continue;
        u64 to = (u64)(p.first_key + row) * a.key_stride + head * width;
        store_row<T, U>(key_gradient + to, of_key[r], 1.0f, width, lane);
        store_row<T, U>(value_gradient + to, of_value[r], 1.0f, width, lane);
    }
}

#define ATTENTION(T, U)                                                                                                \
    EXPORT_BOUNDED(attention_forward_##T##_##U, 128,                                                                   \
                   (Attention a, const T* query, const T* key, const T* value, T* context, float* logarithms),         \
                   attention_forward<T, U>(a, query, key, value, context, logarithms))                                 \
    EXPORT_BOUNDED(attention_query_gradient_##T##_##U, 128,                                                            \
                   (Attention a, const T* query, const T* key, const T* value, const T* gradient,                      \
                    const float* logarithms, const float* delta, T* query_gradient),                                   \
                   attention_query_gradient<T, U>(a, query, key, value, gradient, logarithms, delta, query_gradient))  \
    EXPORT_BOUNDED(attention_key_gradient_##T##_##U, 128,                                                              \
                   (Attention a, const T* query, const T* key, const T* value, const T* gradient,                      \
                    const float* logarithms, const float* delta, T* key_gradient, T* value_gradient),                  \
                   attention_key_gradient<T, U>(a, query, key, value, gradient, logarithms, delta, key_gradient,       \
                                                value_gradient))

ATTENTION(float, 1)
ATTENTION(float, 2)
ATTENTION(float, 4)
ATTENTION(bf16, 1)
ATTENTION(bf16, 2)
ATTENTION(bf16, 4)

// --- Widths of 32, 64 and 128 in bf16, on tensor cores: 4 warps with 16 rows of the tile each. ---

// Rows of tiles in shared memory lie 16 bytes further apart than they are long, so that a fragment's rows are in different banks.
#define APART(D) (D + 8)

// `rows` rows of D values to shared memory, zeros below them down to N rows.
template <int D, int N>
__device__ __forceinline__ void load_tile(bf16* tile, const bf16* from, int stride, int rows) {
    for (int piece = threadIdx.x; piece < N * D / 8; piece += 128) {
        int row = piece / (D / 8), column = 8 * (piece % (D / 8));
        bool valid = row < rows;
        copy_async_16(tile + row * APART(D) + column, from + (u64)(valid ? row : 0) * stride + column, valid);
    }
}

// sum[16 x N] = rows[16 x D] . tile[N x D]^T
template <int D, int N>
__device__ __forceinline__ void multiply_rows(float (&sum)[N / 8][4], const bf16* rows, const bf16* tile) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < N / 8; n++)
        for (int i = 0; i < 4; i++) sum[n][i] = 0.0f;
#pragma unroll
    for (int d = 0; d < D; d += 16) {
        unsigned a[4];
        load_matrix(a, rows + (lane % 16) * APART(D) + d + 8 * (lane / 16));
#pragma unroll
        for (int n = 0; n < N; n += 16) {
            unsigned b[4];
            load_matrix(b, tile + (n + lane % 8 + 8 * (lane / 16)) * APART(D) + d + 8 * (lane / 8 % 2));
            multiply_bf16(sum[n / 8], a, b[0], b[1]);
            multiply_bf16(sum[n / 8 + 1], a, b[2], b[3]);
        }
    }
}

// sum[16 x D] += weights[16 x N] . tile[N x D]; the weights are two rows of every eight columns.
template <int D, int N>
__device__ __forceinline__ void add_rows(float (&sum)[D / 8][4], const unsigned (&weights)[N / 8][2], const bf16* tile) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < N; n += 16) {
        unsigned a[4] = {weights[n / 8][0], weights[n / 8][1], weights[n / 8 + 1][0], weights[n / 8 + 1][1]};
#pragma unroll
        for (int d = 0; d < D; d += 16) {
            unsigned b[4];
            load_matrix_transposed(b, tile + (n + lane % 8 + 8 * (lane / 8 % 2)) * APART(D) + d + 8 * (lane / 16));
            multiply_bf16(sum[d / 8], a, b[0], b[1]);
            multiply_bf16(sum[d / 8 + 1], a, b[2], b[3]);
        }
    }
}

// A warp's 16 rows of results to memory, times a factor for each half.
template <int D>
__device__ __forceinline__ void store_rows(bf16* to, int stride, int rows, const float (&sum)[D / 8][4], float upper,
                                           float lower) {
    int lane = threadIdx.x & 31;
    for (int half = 0; half < 2; half++) {
        int row = lane / 4 + 8 * half;
        if (row >= rows) continue;
        float factor = half ? lower : upper;
#pragma unroll
        for (int d = 0; d < D / 8; d++)
            *(unsigned*)(to + (u64)row * stride + 8 * d + 2 * (lane % 4)) =
                pack_bf16(sum[d][2 * half] * factor, sum[d][2 * half + 1] * factor);
    }
}

// Shared memory: a tile of queries, and two of keys and of values: the next is on its way while one is used.
template <int D>
__device__ void attention_forward_tiles(Attention a, const bf16* query, const bf16* key, const bf16* value, bf16* context,
                                        float* logarithms) {
    const int N = 64;
    bf16* own = (bf16*)dynamic_shared();
    bf16* keys = own + TILE * APART(D);
    bf16* values = keys + 2 * N * APART(D);
    Place p = place_of(a);
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, head = blockIdx.y;
    u64 first_token = p.first_query + p.start;
    int seen = a.causal ? min(p.keys, p.start + TILE) : p.keys;
    const bf16* of_key = key + (u64)p.first_key * a.key_stride + head * D;
    const bf16* of_value = value + (u64)p.first_key * a.key_stride + head * D;
    load_tile<D, TILE>(own, query + first_token * a.query_stride + head * D, a.query_stride, p.queries - p.start);
    load_tile<D, N>(keys, of_key, a.key_stride, p.keys);
    load_tile<D, N>(values, of_value, a.key_stride, p.keys);
    copy_async_commit();
    float sum[D / 8][4] = {}, greatest[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};
    int row[2] = {p.start + 16 * warp + lane / 4, p.start + 16 * warp + lane / 4 + 8};
    RowKey names[2] = {query_key(a, p.first_query + row[0], head), query_key(a, p.first_query + row[1], head)};
    float unit = a.scale * LOG2_E;
    for (int start = 0, turn = 0; start < seen; start += N, turn ^= 1) {
        if (start + N < seen) {
            u64 next = (u64)(start + N) * a.key_stride;
            load_tile<D, N>(keys + (turn ^ 1) * N * APART(D), of_key + next, a.key_stride, p.keys - start - N);
            load_tile<D, N>(values + (turn ^ 1) * N * APART(D), of_value + next, a.key_stride, p.keys - start - N);
        }
        copy_async_commit();
        copy_async_wait<1>();
        __syncthreads();
        float score[N / 8][4];
        multiply_rows<D, N>(score, own + 16 * warp * APART(D), keys + turn * N * APART(D));
        float before[2] = {greatest[0], greatest[1]};
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int column = start + 8 * n + 2 * (lane % 4) + i % 2;
                if (column >= p.keys || (a.causal && column > row[i / 2])) score[n][i] = -INFINITY;
                greatest[i / 2] = fmaxf(greatest[i / 2], score[n][i]);
            }
        float shrink[2];
        for (int half = 0; half < 2; half++) {
            greatest[half] = fmaxf(greatest[half], __shfl_xor_sync(0xffffffffu, greatest[half], 1));
            greatest[half] = fmaxf(greatest[half], __shfl_xor_sync(0xffffffffu, greatest[half], 2));
            shrink[half] = power_of_two((before[half] - greatest[half]) * unit);
            total[half] *= shrink[half];
        }
        unsigned weights[N / 8][2];
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
            float power[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                power[i] = power_of_two((score[n][i] - greatest[i / 2]) * unit);
                total[i / 2] += power[i];
                if (a.dropout.threshold)
                    power[i] *= dropout_factor(a.dropout, names[i / 2], start + 8 * n + 2 * (lane % 4) + i % 2);
            }
            weights[n][0] = pack_bf16(power[0], power[1]);
            weights[n][1] = pack_bf16(power[2], power[3]);
        }
#pragma unroll
        for (int d = 0; d < D / 8; d++)
            for (int i = 0; i < 4; i++) sum[d][i] *= shrink[i / 2];
        add_rows<D, N>(sum, weights, values + turn * N * APART(D));
        __syncthreads();
    }
    for (int half = 0; half < 2; half++) {
        total[half] += __shfl_xor_sync(0xffffffffu, total[half], 1);
        total[half] += __shfl_xor_sync(0xffffffffu, total[half], 2);
        if (lane % 4 == 0 && row[half] < p.queries)
            logarithms[(u64)head * a.tokens + p.first_query + row[half]] = greatest[half] * unit + log2f(total[half]);
    }
    store_rows<D>(context + (first_token + 16 * warp) * a.heads * D + head * D, a.heads * D,
                  p.queries - p.start - 16 * warp, sum, 1.0f / total[0], 1.0f / total[1]);
}

// Tiles of queries. First the product of each query's context with its gradient, which the softmax's backward subtracts
// (`delta`), then the gradient. Shared memory: tiles of queries and of gradients, two of keys and of values, and the deltas.
template <int D, int N>
__device__ void attention_query_gradient_tiles(Attention a, const bf16* query, const bf16* key, const bf16* value,
                                               const bf16* context, const bf16* gradient, const float* logarithms,
                                               float* delta, bf16* query_gradient) {
    bf16* own = (bf16*)dynamic_shared();
    bf16* outer = own + TILE * APART(D);
    bf16* keys = outer + TILE * APART(D);
    bf16* values = keys + 2 * N * APART(D);
    float* means = (float*)(values + 2 * N * APART(D));
    Place p = place_of(a);
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, head = blockIdx.y;
    u64 first_token = p.first_query + p.start;
    int seen = a.causal ? min(p.keys, p.start + TILE) : p.keys;
    load_tile<D, TILE>(own, query + first_token * a.query_stride + head * D, a.query_stride, p.queries - p.start);
    load_tile<D, TILE>(outer, gradient + first_token * a.heads * D + head * D, a.heads * D, p.queries - p.start);
    // Until keys come, the contexts lie in their place.
    load_tile<D, TILE>(keys, context + first_token * a.heads * D + head * D, a.heads * D, p.queries - p.start);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    {
        int own_row = threadIdx.x / 2, half = threadIdx.x % 2;
        const bf16* x = keys + own_row * APART(D) + half * (D / 2);
        const bf16* g = outer + own_row * APART(D) + half * (D / 2);
        float sum = 0.0f;
        for (int d = 0; d < D / 2; d += 4) {
            Four left = load_four(x + d), right = load_four(g + d);
            for (int i = 0; i < 4; i++) sum = fmaf(left.v[i], right.v[i], sum);
        }
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        if (half == 0) {
            means[own_row] = sum;
            if (p.start + own_row < p.queries) delta[(u64)head * a.tokens + first_token + own_row] = sum;
        }
    }
    __syncthreads();
    const bf16* of_key = key + (u64)p.first_key * a.key_stride + head * D;
    const bf16* of_value = value + (u64)p.first_key * a.key_stride + head * D;
    load_tile<D, N>(keys, of_key, a.key_stride, p.keys);
    load_tile<D, N>(values, of_value, a.key_stride, p.keys);
    copy_async_commit();
    float sum[D / 8][4] = {}, logarithm[2], mean[2];
    int row[2] = {p.start + 16 * warp + lane / 4, p.start + 16 * warp + lane / 4 + 8};
    RowKey names[2] = {query_key(a, p.first_query + row[0], head), query_key(a, p.first_query + row[1], head)};
    for (int half = 0; half < 2; half++) {
        // A row that is not there gets probabilities of zero.
        u64 at = (u64)head * a.tokens + p.first_query + row[half];
        logarithm[half] = row[half] < p.queries ? logarithms[at] : INFINITY;
        mean[half] = means[row[half] - p.start];
    }
    float unit = a.scale * LOG2_E;
    for (int start = 0, turn = 0; start < seen; start += N, turn ^= 1) {
        if (start + N < seen) {
            u64 next = (u64)(start + N) * a.key_stride;
            load_tile<D, N>(keys + (turn ^ 1) * N * APART(D), of_key + next, a.key_stride, p.keys - start - N);
            load_tile<D, N>(values + (turn ^ 1) * N * APART(D), of_value + next, a.key_stride, p.keys - start - N);
        }
        copy_async_commit();
        copy_async_wait<1>();
        __syncthreads();
        float score[N / 8][4], into[N / 8][4];
        multiply_rows<D, N>(score, own + 16 * warp * APART(D), keys + turn * N * APART(D));
        multiply_rows<D, N>(into, outer + 16 * warp * APART(D), values + turn * N * APART(D));
        unsigned slopes[N / 8][2];
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
            float slope[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int column = start + 8 * n + 2 * (lane % 4) + i % 2;
                bool hidden = column >= p.keys || (a.causal && column > row[i / 2]);
                float power = hidden ? 0.0f : power_of_two(fmaf(score[n][i], unit, -logarithm[i / 2]));
                float kept = a.dropout.threshold ? dropout_factor(a.dropout, names[i / 2], column) : 1.0f;
                slope[i] = power * (into[n][i] * kept - mean[i / 2]) * a.scale;
            }
            slopes[n][0] = pack_bf16(slope[0], slope[1]);
            slopes[n][1] = pack_bf16(slope[2], slope[3]);
        }
        add_rows<D, N>(sum, slopes, keys + turn * N * APART(D));
        __syncthreads();
    }
    store_rows<D>(query_gradient + (first_token + 16 * warp) * a.query_stride + head * D, a.query_stride,
                  p.queries - p.start - 16 * warp, sum, 1.0f, 1.0f);
}

// Tiles of keys; shared memory: tiles of keys and of values, two of queries and of gradients, then what is known of the queries,
// twice.
template <int D, int N>
__device__ void attention_key_gradient_tiles(Attention a, const bf16* query, const bf16* key, const bf16* value,
                                             const bf16* gradient, const float* logarithms, const float* delta,
                                             bf16* key_gradient, bf16* value_gradient) {
    bf16* own_keys = (bf16*)dynamic_shared();
    bf16* own_values = own_keys + TILE * APART(D);
    bf16* queries = own_values + TILE * APART(D);
    bf16* outer = queries + 2 * N * APART(D);
    float* logarithms_of = (float*)(outer + 2 * N * APART(D));
    float* means_of = logarithms_of + 2 * N;
    RowKey* names_of = (RowKey*)(means_of + 2 * N);
    Place p = place_of(a);
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, head = blockIdx.y;
    u64 at = (u64)(p.first_key + p.start) * a.key_stride + head * D;
    load_tile<D, TILE>(own_keys, key + at, a.key_stride, p.keys - p.start);
    load_tile<D, TILE>(own_values, value + at, a.key_stride, p.keys - p.start);
    float of_key[D / 8][4] = {}, of_value[D / 8][4] = {};
    int row[2] = {p.start + 16 * warp + lane / 4, p.start + 16 * warp + lane / 4 + 8};
    float unit = a.scale * LOG2_E;
    // Copies and names for the queries from `start` on.
    auto fetch = [&](int start, int turn) {
        u64 token = p.first_query + start;
        load_tile<D, N>(queries + turn * N * APART(D), query + token * a.query_stride + head * D, a.query_stride,
                        p.queries - start);
        load_tile<D, N>(outer + turn * N * APART(D), gradient + token * a.heads * D + head * D, a.heads * D,
                        p.queries - start);
        if (threadIdx.x < N) {
            bool there = start + (int)threadIdx.x < p.queries;
            u64 place = (u64)head * a.tokens + token + threadIdx.x;
            logarithms_of[turn * N + threadIdx.x] = there ? logarithms[place] : INFINITY;
            means_of[turn * N + threadIdx.x] = there ? delta[place] : 0.0f;
            names_of[turn * N + threadIdx.x] = query_key(a, token + threadIdx.x, head);
        }
    };
    int first = a.causal ? p.start / N * N : 0;
    if (first < p.queries) fetch(first, 0);
    copy_async_commit();
    for (int start = first, turn = 0; start < p.queries; start += N, turn ^= 1) {
        if (start + N < p.queries) fetch(start + N, turn ^ 1);
        copy_async_commit();
        copy_async_wait<1>();
        __syncthreads();
        const float* of_logarithm = logarithms_of + turn * N;
        const float* of_mean = means_of + turn * N;
        const RowKey* names = names_of + turn * N;
        const bf16* of_queries = queries + turn * N * APART(D);
        const bf16* of_outer = outer + turn * N * APART(D);
        float score[N / 8][4], into[N / 8][4];
        multiply_rows<D, N>(score, own_keys + 16 * warp * APART(D), of_queries);
        multiply_rows<D, N>(into, own_values + 16 * warp * APART(D), of_outer);
        unsigned dropped[N / 8][2], slopes[N / 8][2];
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
            float probability[4], slope[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int column = 8 * n + 2 * (lane % 4) + i % 2;
                bool hidden = row[i / 2] >= p.keys || (a.causal && row[i / 2] > start + column);
                float power = hidden ? 0.0f : power_of_two(fmaf(score[n][i], unit, -of_logarithm[column]));
                float kept = a.dropout.threshold ? dropout_factor(a.dropout, names[column], row[i / 2]) : 1.0f;
                probability[i] = power * kept;
                slope[i] = power * (into[n][i] * kept - of_mean[column]) * a.scale;
            }
            dropped[n][0] = pack_bf16(probability[0], probability[1]);
            dropped[n][1] = pack_bf16(probability[2], probability[3]);
            slopes[n][0] = pack_bf16(slope[0], slope[1]);
            slopes[n][1] = pack_bf16(slope[2], slope[3]);
        }
        add_rows<D, N>(of_value, dropped, of_outer);
        add_rows<D, N>(of_key, slopes, of_queries);
        __syncthreads();
    }
    int rows = p.keys - p.start - 16 * warp;
    at += (u64)16 * warp * a.key_stride;
    store_rows<D>(key_gradient + at, a.key_stride, rows, of_key, 1.0f, 1.0f);
    store_rows<D>(value_gradient + at, a.key_stride, rows, of_value, 1.0f, 1.0f);
}

#define ATTENTION_TILES(D, N)                                                                                          \
    EXPORT_BOUNDED(attention_forward_tiles_##D, 128,                                                                   \
                   (Attention a, const bf16* query, const bf16* key, const bf16* value, bf16* context,                 \
                    float* logarithms),                                                                                \
                   attention_forward_tiles<D>(a, query, key, value, context, logarithms))                              \
    EXPORT_BOUNDED(attention_query_gradient_tiles_##D, 128,                                                            \
                   (Attention a, const bf16* query, const bf16* key, const bf16* value, const bf16* context,           \
                    const bf16* gradient, const float* logarithms, float* delta, bf16* query_gradient),                \
                   attention_query_gradient_tiles<D, N>(a, query, key, value, context, gradient, logarithms, delta,    \
                                                        query_gradient))                                               \
    EXPORT_BOUNDED(attention_key_gradient_tiles_##D, 128,                                                              \
                   (Attention a, const bf16* query, const bf16* key, const bf16* value, const bf16* gradient,          \
                    const float* logarithms, const float* delta, bf16* key_gradient, bf16* value_gradient),            \
                   attention_key_gradient_tiles<D, N>(a, query, key, value, gradient, logarithms, delta, key_gradient, \
                                                      value_gradient))

ATTENTION_TILES(32, 64)
ATTENTION_TILES(64, 64)
ATTENTION_TILES(128, 32)
