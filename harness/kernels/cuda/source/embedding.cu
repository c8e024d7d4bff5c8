// Gradients of tables of embeddings in a fixed order: rows that take the same entry are summed in segments of at most so many
// rows, then the segments of an entry. As kernels/embedding.rs (Scatter), which sums all rows of an entry one after the other.

// A block for each segment: partials[segment] = sum of gradient[order[start .. end]].
template <class T>
__device__ void sum_segments(const T* gradient, const unsigned* order, const uint2* segments, float* partials, int width) {
    uint2 segment = segments[blockIdx.x];
    for (int column = 4 * threadIdx.x; column < width; column += 4 * blockDim.x) {
        Four sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
        for (unsigned place = segment.x; place < segment.y; place++) {
            Four row = load_four(gradient + (u64)order[place] * width + column);
            for (int i = 0; i < 4; i++) sum.v[i] += row.v[i];
        }
        store_four(partials + (u64)blockIdx.x * width + column, sum);
    }
}

EXPORT(sum_segments_float, (const float* gradient, const unsigned* order, const uint2* segments, float* partials, int width),
       sum_segments(gradient, order, segments, partials, width))
EXPORT(sum_segments_bf16, (const bf16* gradient, const unsigned* order, const uint2* segments, float* partials, int width),
       sum_segments(gradient, order, segments, partials, width))

// A block for each entry: table[entry.x] += the sum of partials[entry.y .. the next entry's].
__device__ void add_segments(const float* partials, const uint2* entries, float* table, int width) {
    uint2 entry = entries[blockIdx.x];
    unsigned end = entries[blockIdx.x + 1].y;
    for (int column = 4 * threadIdx.x; column < width; column += 4 * blockDim.x) {
        float* target = table + (u64)entry.x * width + column;
        Four sum = load_four(target);
        for (unsigned segment = entry.y; segment < end; segment++) {
            Four part = load_four(partials + (u64)segment * width + column);
            for (int i = 0; i < 4; i++) sum.v[i] += part.v[i];
        }
        store_four(target, sum);
    }
}

EXPORT(add_segments_f32, (const float* partials, const uint2* entries, float* table, int width),
       add_segments(partials, entries, table, width))
