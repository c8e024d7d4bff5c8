// The Gaussian error linear unit (Hendrycks and Gimpel 2016), exact; as kernels/gelu.rs.

__device__ __forceinline__ float cumulative(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }

// out = gelu(values + bias); the product without its bias is kept for the backward.
template <class T>
__device__ void gelu(const T* values, const float* bias, T* out, u64 count, int width) {
    u64 place = 4 * ((u64)blockIdx.x * blockDim.x + threadIdx.x);
    if (place >= count) return;
    Four value = load_four(values + place), added = load_four(bias + place % width);
    for (int i = 0; i < 4; i++) {
        float x = value.v[i] + added.v[i];
        value.v[i] = x * cumulative(x);
    }
    store_four(out + place, value);
}

// GELU: gradient *= gelu'(values + bias), in place. partials [gridDim.y][width]: sums of columns of the result. Blocks of
// 32 times four columns x 8 rows.
template <class T, bool GELU>
__device__ void columns(T* gradient, const T* values, const float* bias, float* partials, int rows, int width) {
    __shared__ float sums[8][128];
    int column = 128 * blockIdx.x + 4 * threadIdx.x;
    Four sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (column < width) {
        Four added = GELU ? load_four(bias + column) : sum;
        for (int row = blockIdx.y * 8 + threadIdx.y; row < rows; row += gridDim.y * 8) {
            u64 place = (u64)row * width + column;
            Four g = load_four(gradient + place);
            if (GELU) {
                Four value = load_four(values + place);
                for (int i = 0; i < 4; i++) {
                    float x = value.v[i] + added.v[i];
                    // Phi(x) + x phi(x)
                    g.v[i] *= fmaf(x, 0.39894228f * __expf(-0.5f * x * x), cumulative(x));
                }
                store_four(gradient + place, g);
            }
            for (int i = 0; i < 4; i++) sum.v[i] += g.v[i];
        }
    }
    store_four(&sums[threadIdx.y][4 * threadIdx.x], sum);
    __syncthreads();
    int own = threadIdx.y * 32 + threadIdx.x;
    if (own < 128 && 128 * blockIdx.x + own < width) {
        float total = 0.0f;
        for (int group = 0; group < 8; group++) total += sums[group][own];
        partials[(u64)blockIdx.y * width + 128 * blockIdx.x + own] = total;
    }
}

#define GELU_KERNELS(T)                                                                                                \
    EXPORT(gelu_##T, (const T* values, const float* bias, T* out, u64 count, int width),                               \
           gelu(values, bias, out, count, width))                                                                      \
    EXPORT(gelu_backward_##T,                                                                                          \
           (T* gradient, const T* values, const float* bias, float* partials, int rows, int width),                    \
           columns<T, true>(gradient, values, bias, partials, rows, width))                                            \
    EXPORT(column_sums_##T, (T* gradient, float* partials, int rows, int width),                                       \
           columns<T, false>(gradient, (const T*)nullptr, (const float*)nullptr, partials, rows, width))

GELU_KERNELS(float)
GELU_KERNELS(bf16)
