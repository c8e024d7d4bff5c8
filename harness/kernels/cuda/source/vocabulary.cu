// Cross-entropy over the vocabulary from a chunk of logits: loss and gradient together. As kernels/vocabulary.rs.

struct Best {
    float value;
    unsigned place;
};

// The greater; of equals the first.
__device__ __forceinline__ Best better(Best a, Best b) {
    return a.value > b.value || (a.value == b.value && a.place < b.place) ? a : b;
}

// A block of 256 threads for each target. logits [rows][stride] without bias; gradient [rows][stride] = weight * (p - label), and
// may be the logits. Of `evaluating` the gradient is not written.
template <class T>
__device__ void cross_entropy(const float* logits, const float* bias, const unsigned* labels, float weight, T* gradient,
                              float* nats, float* correct, int vocabulary, int stride, bool evaluating) {
    __shared__ Best bests[8];
    __shared__ float sums[8];
    const float* row = logits + (u64)blockIdx.x * stride;
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    Best best = {-INFINITY, 0xffffffffu};
    float sum = 0.0f;
    for (int v = threadIdx.x; v < vocabulary; v += 256) {
        float logit = row[v] + bias[v];
        if (logit > best.value) {
            sum = sum * __expf(best.value - logit) + 1.0f;
            best = Best{logit, (unsigned)v};
        } else {
            sum += __expf(logit - best.value);
        }
    }
    Best greatest = best;
    for (int distance = 16; distance > 0; distance >>= 1) {
        Best other = {__shfl_xor_sync(0xffffffffu, greatest.value, distance),
                      __shfl_xor_sync(0xffffffffu, greatest.place, distance)};
        greatest = better(greatest, other);
    }
    if (lane == 0) bests[warp] = greatest;
    __syncthreads();
    greatest = bests[0];
    for (int w = 1; w < 8; w++) greatest = better(greatest, bests[w]);
    // A thread without entries has nothing to rescale; one whose entries are no numbers passes that on.
    sum = threadIdx.x >= (unsigned)vocabulary ? 0.0f : sum * __expf(best.value - greatest.value);
    sum = warp_sum(sum);
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    sum = 0.0f;
    for (int w = 0; w < 8; w++) sum += sums[w];
    unsigned label = labels[blockIdx.x];
    if (threadIdx.x == 0) {
        nats[blockIdx.x] = greatest.value + logf(sum) - (row[label] + bias[label]);
        correct[blockIdx.x] = greatest.place == label ? 1.0f : 0.0f;
    }
    if (evaluating) return;
    // The label's logit has been read before it may be overwritten.
    __syncthreads();
    float factor = weight / sum;
    T* out = gradient + (u64)blockIdx.x * stride;
    for (int v = threadIdx.x; v < vocabulary; v += 256) {
        float power = __expf(row[v] + bias[v] - greatest.value) * factor;
        narrow(out + v, v == (int)label ? power - weight : power);
    }
}

EXPORT_BOUNDED(cross_entropy_float, 256,
               (const float* logits, const float* bias, const unsigned* labels, float weight, float* gradient, float* nats,
                float* correct, int vocabulary, int stride, int evaluating),
               cross_entropy(logits, bias, labels, weight, gradient, nats, correct, vocabulary, stride, evaluating != 0))
EXPORT_BOUNDED(cross_entropy_bf16, 256,
               (const float* logits, const float* bias, const unsigned* labels, float weight, bf16* gradient, float* nats,
                float* correct, int vocabulary, int stride, int evaluating),
               cross_entropy(logits, bias, labels, weight, gradient, nats, correct, vocabulary, stride, evaluating != 0))

// Sums over a vector by one block of 256, in a fixed order: total += sum of values.
template <class T>
__device__ void add_total(const T* values, u64 count, double* total) {
    __shared__ double sums[256];
    double sum = 0.0;
    for (u64 place = threadIdx.x; place < count; place += 256) sum += (double)values[place];
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = 128; half > 0; half >>= 1) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) *total += sums[0];
}

EXPORT(add_total_float, (const float* values, u64 count, double* total), add_total(values, count, total))
EXPORT(add_total_double, (const double* values, u64 count, double* total), add_total(values, count, total))
