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

// --- Any width, on ordinary cores: a warp for each row, blocks of 128 threads. ---

template <class T>
__device__ __forceinline__ float dot(const float* own, const T* other, int width) {
    float sum = 0.0f;
    for (int d = 0; d < width; d++) sum = fmaf(own[d], widen(other[d]), sum);
    return sum;
}

// Dynamic shared memory of a warp: [width] query, [longest] powers.
template <class T>
__device__ void attention_forward(Attention a, const T* query, const T* key, const T* value, T* context, float* logarithms,
                                  int longest) {
    Place p = place_of(a);
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, head = blockIdx.y;
    float* own = (float*)dynamic_shared() + (u64)warp * (a.width + longest);
    float* powers = own + a.width;
    int end = min(p.start + TILE, p.queries);
    for (int row = p.start + warp; row < end; row += 4) {
        u64 token = p.first_query + row;
        for (int d = lane; d < a.width; d += 32) own[d] = widen(query[token * a.query_stride + head * a.width + d]);
        __syncwarp();
        int seen = a.causal ? row + 1 : p.keys;
        float greatest = -INFINITY;
        for (int j = lane; j < seen; j += 32) {
            float score = dot(own, key + (u64)(p.first_key + j) * a.key_stride + head * a.width, a.width);
            powers[j] = score;
            greatest = fmaxf(greatest, score);
        }
        greatest = warp_max(greatest);
        float sum = 0.0f;
        RowKey name = query_key(a, token, head);
        for (int j = lane; j < seen; j += 32) {
            float power = exp2f((powers[j] - greatest) * (a.scale * LOG2_E));
            sum += power;
            powers[j] = a.dropout.threshold ? power * dropout_factor(a.dropout, name, j) : power;
        }
        sum = warp_sum(sum);
        __syncwarp();
        for (int d = lane; d < a.width; d += 32) {
            const T* column = value + (u64)p.first_key * a.key_stride + head * a.width + d;
            float total = 0.0f;
            for (int j = 0; j < seen; j++) total = fmaf(powers[j], widen(column[(u64)j * a.key_stride]), total);
            narrow(context + token * a.heads * a.width + head * a.width + d, total / sum);
        }
        if (lane == 0) logarithms[(u64)head * a.tokens + token] = greatest * a.scale * LOG2_E + log2f(sum);
        __syncwarp();
    }
}

// Dynamic shared memory of a warp: [width] query, [width] gradient of its context, [longest] gradients of scores.
template <class T>
__device__ void attention_query_gradient(Attention a, const T* query, const T* key, const T* value, const T* gradient,
                                         const float* logarithms, const float* delta, T* query_gradient, int longest) {
    Place p = place_of(a);
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, head = blockIdx.y;
    float* own = (float*)dynamic_shared() + (u64)warp * (2 * a.width + longest);
    float* outer = own + a.width;
    float* slopes = outer + a.width;
    int end = min(p.start + TILE, p.queries);
    for (int row = p.start + warp; row < end; row += 4) {
        u64 token = p.first_query + row;
        for (int d = lane; d < a.width; d += 32) {
            own[d] = widen(query[token * a.query_stride + head * a.width + d]);
            outer[d] = widen(gradient[token * a.heads * a.width + head * a.width + d]);
        }
        __syncwarp();
        int seen = a.causal ? row + 1 : p.keys;
        float logarithm = logarithms[(u64)head * a.tokens + token], mean = delta[(u64)head * a.tokens + token];
        RowKey name = query_key(a, token, head);
        for (int j = lane; j < seen; j += 32) {
            u64 at = (u64)(p.first_key + j) * a.key_stride + head * a.width;
            float power = exp2f(fmaf(dot(own, key + at, a.width), a.scale * LOG2_E, -logarithm));
            float into = dot(outer, value + at, a.width);
            if (a.dropout.threshold) into *= dropout_factor(a.dropout, name, j);
            slopes[j] = power * (into - mean) * a.scale;
        }
        __syncwarp();
        for (int d = lane; d < a.width; d += 32) {
            const T* column = key + (u64)p.first_key * a.key_stride + head * a.width + d;
            float total = 0.0f;
            for (int j = 0; j < seen; j++) total = fmaf(slopes[j], widen(column[(u64)j * a.key_stride]), total);
            narrow(query_gradient + token * a.query_stride + head * a.width + d, total);
        }
        __syncwarp();
    }
}

// Tiles of keys. Dynamic shared memory of a warp: [width] key, [width] value, [longest] dropped probabilities, [longest]
// gradients of scores.
template <class T>
__device__ void attention_key_gradient(Attention a, const T* query, const T* key, const T* value, const T* gradient,
                                       const float* logarithms, const float* delta, T* key_gradient, T* value_gradient,
                                       int longest) {
    Place p = place_of(a);
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, head = blockIdx.y;
    float* own_key = (float*)dynamic_shared() + (u64)warp * 2 * (a.width + longest);
    float* own_value = own_key + a.width;
    float* dropped = own_value + a.width;
    float* slopes = dropped + longest;
    int end = min(p.start + TILE, p.keys);
    for (int row = p.start + warp; row < end; row += 4) {
        u64 at = (u64)(p.first_key + row) * a.key_stride + head * a.width;
        for (int d = lane; d < a.width; d += 32) {
            own_key[d] = widen(key[at + d]);
            own_value[d] = widen(value[at + d]);
        }
        __syncwarp();
        int first = a.causal ? row : 0;
        for (int i = first + lane; i < p.queries; i += 32) {
            u64 token = p.first_query + i;
            float power = exp2f(fmaf(dot(own_key, query + token * a.query_stride + head * a.width, a.width),
                                     a.scale * LOG2_E, -logarithms[(u64)head * a.tokens + token]));
            float into = dot(own_value, gradient + token * a.heads * a.width + head * a.width, a.width);
            float factor = a.dropout.threshold ? dropout_factor(a.dropout, query_key(a, token, head), row) : 1.0f;
            dropped[i] = power * factor;
            slopes[i] = power * (into * factor - delta[(u64)head * a.tokens + token]) * a.scale;
        }
        __syncwarp();
        for (int d = lane; d < a.width; d += 32) {
            float of_key = 0.0f, of_value = 0.0f;
            for (int i = first; i < p.queries; i++) {
                u64 token = p.first_query + i;
                of_key = fmaf(slopes[i], widen(query[token * a.query_stride + head * a.width + d]), of_key);
                of_value = fmaf(dropped[i], widen(gradient[token * a.heads * a.width + head * a.width + d]), of_value);
            }
            narrow(key_gradient + at + d, of_key);
            narrow(value_gradient + at + d, of_value);
        }
        __syncwarp();
    }
}

#define ATTENTION(T)                                                                                                   \
    EXPORT_BOUNDED(attention_forward_##T, 128,                                                                         \
                   (Attention a, const T* query, const T* key, const T* value, T* context, float* logarithms,          \
                    int longest),                                                                                      \
                   attention_forward(a, query, key, value, context, logarithms, longest))                              \
    EXPORT_BOUNDED(attention_query_gradient_##T, 128,                                                                  \
                   (Attention a, const T* query, const T* key, const T* value, const T* gradient,                      \
                    const float* logarithms, const float* delta, T* query_gradient, int longest),                      \
                   attention_query_gradient(a, query, key, value, gradient, logarithms, delta, query_gradient,         \
                                            longest))                                                                  \
    EXPORT_BOUNDED(attention_key_gradient_##T, 128,                                                                    \
                   (Attention a, const T* query, const T* key, const T* value, const T* gradient,                      \
                    const float* logarithms, const float* delta, T* key_gradient, T* value_gradient, int longest),     \
                   attention_key_gradient(a, query, key, value, gradient, logarithms, delta, key_gradient,             \
                                          value_gradient, longest))

ATTENTION(float)
ATTENTION(bf16)

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
