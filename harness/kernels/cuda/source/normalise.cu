// out = LayerNorm(residual + dropout(update + bias)), and of the embeddings dropout(LayerNorm(sum of lookups)); a warp for each
// row. V: how often a lane takes four columns. As kernels/normalise.rs and kernels/embedding.rs.

#define EPSILON 1e-12f

// Normalises what a warp's lanes hold, in place; the inverse deviation comes back.
template <int V>
__device__ __forceinline__ float normalise_row(float (&value)[V][4], int width, int lane) {
    float sum = 0.0f;
    for (int v = 0; v < V; v++)
        if (4 * (lane + 32 * v) < width)
            for (int i = 0; i < 4; i++) sum += value[v][i];
    float mean = warp_sum(sum) / width;
    float squares = 0.0f;
    for (int v = 0; v < V; v++)
        if (4 * (lane + 32 * v) < width)
            for (int i = 0; i < 4; i++) {
                value[v][i] -= mean;
                squares = fmaf(value[v][i], value[v][i], squares);
            }
    float inverse = 1.0f / sqrtf(warp_sum(squares) / width + EPSILON);
    for (int v = 0; v < V; v++)
        for (int i = 0; i < 4; i++) value[v][i] *= inverse;
    return inverse;
}

template <class T, int V>
__device__ void normalise_residual(const T* residual, const T* update, const float* bias, Dropout dropout, u64 first_row,
                                   const float* scale, const float* shift, T* normalised, float* inverse, T* out, int rows,
                                   int width) {
    int lane = threadIdx.x & 31;
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    u64 start = (u64)row * width;
    RowKey key = row_key(dropout, first_row + row);
    float value[V][4];
#pragma unroll
    for (int v = 0; v < V; v++) {
        int column = 4 * (lane + 32 * v);
        if (column >= width) continue;
        Four before = load_four(residual + start + column);
        Four change = load_four(update + start + column);
        Four added = load_four(bias + column);
        for (int i = 0; i < 4; i++) {
            float factor = dropout.threshold ? dropout_factor(dropout, key, column + i) : 1.0f;
            value[v][i] = fmaf(change.v[i] + added.v[i], factor, before.v[i]);
        }
    }
    float inverse_deviation = normalise_row<V>(value, width, lane);
    if (lane == 0) inverse[row] = inverse_deviation;
#pragma unroll
    for (int v = 0; v < V; v++) {
        int column = 4 * (lane + 32 * v);
        if (column >= width) continue;
        Four factor = load_four(scale + column), offset = load_four(shift + column), result;
        for (int i = 0; i < 4; i++) result.v[i] = fmaf(value[v][i], factor.v[i], offset.v[i]);
        store_four(normalised + start + column, Four{{value[v][0], value[v][1], value[v][2], value[v][3]}});
        store_four(out + start + column, result);
    }
}

// Sums over a block's warps, in their order, into partials[blockIdx.x][array][width].
template <int V>
__device__ __forceinline__ void reduce_columns(float (&sum)[V][4], float* shared, float* partial, int width, int lane, int warp,
                                               int warps) {
#pragma unroll
    for (int v = 0; v < V; v++) {
        int column = 4 * (lane + 32 * v);
        if (column < width) store_four(shared + warp * width + column, Four{{sum[v][0], sum[v][1], sum[v][2], sum[v][3]}});
    }
    __syncthreads();
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float total = 0.0f;
        for (int w = 0; w < warps; w++) total += shared[w * width + column];
        partial[column] = total;
    }
    __syncthreads();
}

// `gradient` holds the output's gradient and receives the residual's; `update_gradient` receives the update's and may be
// `gradient` where nothing is dropped. Of the embeddings (EMBEDDINGS) dropout comes first, and there is no update.
// partials [gridDim.x][3][width]: scale, shift, bias.
template <class T, int V, bool EMBEDDINGS>
__device__ void normalise_backward(T* gradient, const T* normalised, const float* inverse, Dropout dropout, u64 first_row,
                                   const float* scale, T* update_gradient, float* partials, int rows, int width) {
    float* shared = (float*)dynamic_shared();
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    float of_scale[V][4] = {}, of_shift[V][4] = {}, of_bias[V][4] = {};
    // A row is on its way while the one before is worked on.
    typename Raw<T>::type gradient_row[V], normalised_row[V];
    auto fetch = [&](int row) {
#pragma unroll
        for (int v = 0; v < V; v++) {
            int column = 4 * (lane + 32 * v);
            if (column >= width || row >= rows) continue;
            gradient_row[v] = load_raw(gradient + (u64)row * width + column);
            normalised_row[v] = load_raw(normalised + (u64)row * width + column);
        }
    };
    int step = gridDim.x * warps;
    fetch(blockIdx.x * warps + warp);
    for (int row = blockIdx.x * warps + warp; row < rows; row += step) {
        u64 start = (u64)row * width;
        RowKey key = row_key(dropout, first_row + row);
        typename Raw<T>::type g_row[V], x_row[V];
#pragma unroll
        for (int v = 0; v < V; v++) {
            g_row[v] = gradient_row[v];
            x_row[v] = normalised_row[v];
        }
        fetch(row + step);
        float factor = inverse[row];
        float sum = 0.0f, slope = 0.0f;
#pragma unroll
        for (int v = 0; v < V; v++) {
            int column = 4 * (lane + 32 * v);
            if (column >= width) continue;
            Four g = widen_four(g_row[v]), x = widen_four(x_row[v]), s = load_four(scale + column);
            for (int i = 0; i < 4; i++) {
                if (EMBEDDINGS && dropout.threshold) g.v[i] *= dropout_factor(dropout, key, column + i);
                of_scale[v][i] = fmaf(g.v[i], x.v[i], of_scale[v][i]);
                of_shift[v][i] += g.v[i];
                float value = g.v[i] * s.v[i];
                sum += value;
                slope = fmaf(value, x.v[i], slope);
            }
        }
        float mean = warp_sum(sum) / width;
        slope = warp_sum(slope) / width;
#pragma unroll
        for (int v = 0; v < V; v++) {
            int column = 4 * (lane + 32 * v);
            if (column >= width) continue;
            Four g = widen_four(g_row[v]), x = widen_four(x_row[v]), s = load_four(scale + column);
            Four result, update;
            for (int i = 0; i < 4; i++) {
                float kept = dropout.threshold ? dropout_factor(dropout, key, column + i) : 1.0f;
                float value = (EMBEDDINGS ? g.v[i] * kept : g.v[i]) * s.v[i];
                result.v[i] = factor * fmaf(x.v[i], -slope, value - mean);
                if (!EMBEDDINGS) {
                    update.v[i] = result.v[i] * kept;
                    of_bias[v][i] += update.v[i];
                }
            }
            store_four(gradient + start + column, result);
            if (!EMBEDDINGS && update_gradient != gradient) store_four(update_gradient + start + column, update);
        }
    }
    float* partial = partials + (u64)blockIdx.x * 3 * width;
    reduce_columns<V>(of_scale, shared, partial, width, lane, warp, warps);
    reduce_columns<V>(of_shift, shared, partial + width, width, lane, warp, warps);
    reduce_columns<V>(of_bias, shared, partial + 2 * width, width, lane, warp, warps);
}

template <class T, int V>
__device__ void normalise_embeddings(const float* tokens, const unsigned* token, const float* positions,
                                     const unsigned* position, const float* languages, const unsigned* language,
                                     Dropout dropout, u64 first_row, const float* scale, const float* shift, T* normalised,
                                     float* inverse, T* out, int rows, int width) {
    int lane = threadIdx.x & 31;
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    u64 start = (u64)row * width;
    const float* of_token = tokens + (u64)token[row] * width;
    const float* of_position = positions + (u64)position[row] * width;
    const float* of_language = languages ? languages + (u64)language[row] * width : nullptr;
    RowKey key = row_key(dropout, first_row + row);
    float value[V][4];
#pragma unroll
    for (int v = 0; v < V; v++) {
        int column = 4 * (lane + 32 * v);
        if (column >= width) continue;
        Four a = load_four(of_token + column), b = load_four(of_position + column);
        for (int i = 0; i < 4; i++) value[v][i] = a.v[i] + b.v[i];
        if (!of_language) continue;
        Four c = load_four(of_language + column);
        for (int i = 0; i < 4; i++) value[v][i] += c.v[i];
    }
    float inverse_deviation = normalise_row<V>(value, width, lane);
    if (lane == 0) inverse[row] = inverse_deviation;
#pragma unroll
    for (int v = 0; v < V; v++) {
        int column = 4 * (lane + 32 * v);
        if (column >= width) continue;
        Four factor = load_four(scale + column), offset = load_four(shift + column), result;
        for (int i = 0; i < 4; i++) {
            result.v[i] = fmaf(value[v][i], factor.v[i], offset.v[i]);
            if (dropout.threshold) result.v[i] *= dropout_factor(dropout, key, column + i);
        }
        store_four(normalised + start + column, Four{{value[v][0], value[v][1], value[v][2], value[v][3]}});
        store_four(out + start + column, result);
    }
}

#define NORMALISE(T, V)                                                                                                \
    EXPORT_BOUNDED(normalise_residual_##T##_##V, 256,                                                                  \
                   (const T* residual, const T* update, const float* bias, Dropout dropout, u64 first_row,             \
                    const float* scale, const float* shift, T* normalised, float* inverse, T* out, int rows,           \
                    int width),                                                                                        \
                   normalise_residual<T, V>(residual, update, bias, dropout, first_row, scale, shift, normalised,      \
                                            inverse, out, rows, width))                                                \
    EXPORT_BOUNDED(normalise_backward_##T##_##V, 256,                                                                  \
                   (T* gradient, const T* normalised, const float* inverse, Dropout dropout, u64 first_row,            \
                    const float* scale, T* update_gradient, float* partials, int rows, int width),                     \
                   normalise_backward<T, V, false>(gradient, normalised, inverse, dropout, first_row, scale,           \
                                                   update_gradient, partials, rows, width))                            \
    EXPORT_BOUNDED(embeddings_backward_##T##_##V, 256,                                                                 \
                   (T* gradient, const T* normalised, const float* inverse, Dropout dropout, u64 first_row,            \
                    const float* scale, float* partials, int rows, int width),                                         \
                   normalise_backward<T, V, true>(gradient, normalised, inverse, dropout, first_row, scale, gradient,  \
                                                  partials, rows, width))                                              \
    EXPORT_BOUNDED(normalise_embeddings_##T##_##V, 256,                                                                \
                   (const float* tokens, const unsigned* token, const float* positions, const unsigned* position,      \
                    const float* languages, const unsigned* language, Dropout dropout, u64 first_row,                  \
                    const float* scale, const float* shift, T* normalised, float* inverse, T* out, int rows,           \
                    int width),                                                                                        \
                   normalise_embeddings<T, V>(tokens, token, positions, position, languages, language, dropout,        \
                                              first_row, scale, shift, normalised, inverse, out, rows, width))

NORMALISE(float, 1)
NORMALISE(float, 2)
NORMALISE(float, 4)
NORMALISE(float, 8)
NORMALISE(float, 16)
NORMALISE(bf16, 1)
NORMALISE(bf16, 2)
NORMALISE(bf16, 4)
NORMALISE(bf16, 8)
NORMALISE(bf16, 16)
