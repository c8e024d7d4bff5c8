// What all kernels share. The files of this folder are compiled behind each other as one program, by NVRTC on the machine
// that has the card, so nothing is included; tests compile the same text for the CPU (XLT_EMULATED), where the macros and
// the functions of the first part come from the emulator.

#ifndef XLT_EMULATED

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

#define EXPORT(name, parameters, ...) \
    extern "C" __global__ void name parameters { __VA_ARGS__; }
#define EXPORT_BOUNDED(name, threads, parameters, ...) \
    extern "C" __global__ void __launch_bounds__(threads) name parameters { __VA_ARGS__; }

__device__ __forceinline__ unsigned char* dynamic_shared() {
    extern __shared__ __align__(1024) unsigned char memory[];
    return memory;
}

__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

__device__ __forceinline__ unsigned short round_bf16(float value) {
    return (unsigned short)pack_bf16(value, 0.0f);
}

__device__ __forceinline__ float widen_bf16(unsigned short bits) {
    return __uint_as_float((unsigned)bits << 16);
}

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return (unsigned)__cvta_generic_to_shared(pointer);
}

__device__ __forceinline__ void load_matrix(unsigned (&f)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                 : "r"(shared_address(row)));
}

__device__ __forceinline__ void load_matrix_transposed(unsigned (&f)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                 : "r"(shared_address(row)));
}

__device__ __forceinline__ void multiply_bf16(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0));
}

__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;"); }

// Flushes what is too small for a normal number.
__device__ __forceinline__ float power_of_two(float exponent) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
    return power;
}

template <int N>
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N));
}

#else

#define power_of_two exp2f

#endif

typedef unsigned long long u64;

struct bf16 {
    unsigned short bits;
};

// Four values in registers; rows are read and written four at a time.
struct Four {
    float v[4];
};

// Four values as they lie in memory.
template <class T>
struct Raw;
template <>
struct Raw<float> {
    typedef float4 type;
};
template <>
struct Raw<bf16> {
    typedef uint2 type;
};

template <class T>
__device__ __forceinline__ typename Raw<T>::type load_raw(const T* from) {
    return *(const typename Raw<T>::type*)from;
}

__device__ __forceinline__ Four widen_four(float4 f) { return Four{{f.x, f.y, f.z, f.w}}; }

__device__ __forceinline__ Four widen_four(uint2 f) {
    return Four{{__uint_as_float(f.x << 16), __uint_as_float(f.x & 0xffff0000u), __uint_as_float(f.y << 16),
                 __uint_as_float(f.y & 0xffff0000u)}};
}

template <class T>
__device__ __forceinline__ Four load_four(const T* from) {
    return widen_four(load_raw(from));
}

__device__ __forceinline__ void store_four(float* to, const Four& f) {
    *(float4*)to = make_float4(f.v[0], f.v[1], f.v[2], f.v[3]);
}

__device__ __forceinline__ void store_four(bf16* to, const Four& f) {
    *(uint2*)to = make_uint2(pack_bf16(f.v[0], f.v[1]), pack_bf16(f.v[2], f.v[3]));
}

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(bf16 value) { return widen_bf16(value.bits); }
__device__ __forceinline__ void narrow(float* to, float value) { *to = value; }
__device__ __forceinline__ void narrow(bf16* to, float value) { to->bits = round_bf16(value); }

// As in kernels/dropout.rs. Nothing is dropped with a threshold of zero.
struct Dropout {
    unsigned key0, key1, threshold;
    float scale;
};

struct RowKey {
    unsigned first, second;
};

__device__ __forceinline__ RowKey row_key(const Dropout& dropout, u64 row) {
    u64 mixed = ((u64)dropout.key0 | (u64)dropout.key1 << 32) + row * 0x9E3779B97F4A7C15ull;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9ull;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBull;
    mixed ^= mixed >> 31;
    return RowKey{(unsigned)mixed, (unsigned)(mixed >> 32)};
}

__device__ __forceinline__ float dropout_factor(const Dropout& dropout, RowKey key, unsigned feature) {
    unsigned hash = feature * 0x9E3779B9u + key.first;
    hash = (hash ^ (hash >> 16)) * 0x85EBCA6Bu ^ key.second;
    hash = (hash ^ (hash >> 13)) * 0xC2B2AE35u;
    hash ^= hash >> 16;
    return hash >= dropout.threshold ? dropout.scale : 0.0f;
}

__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance >>= 1) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
    for (int distance = 16; distance > 0; distance >>= 1)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

// Of every column of `partials` [count][stride], the sum in a fixed order; added to up to three targets of `width`.
// Blocks of 32 columns x 8.
__device__ void add_partials(const float* partials, int count, int stride, int width, int arrays, float* first,
                             float* second, float* third) {
    __shared__ float sums[8][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    int total = width * arrays;
    float sum = 0.0f;
    if (column < total)
        for (int part = threadIdx.y; part < count; part += 8) sum += partials[(u64)part * stride + column];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= total) return;
    sum = 0.0f;
    for (int group = 0; group < 8; group++) sum += sums[group][threadIdx.x];
    int array = column / width;
    float* target = array == 0 ? first : array == 1 ? second : third;
    if (target) target[column - array * width] += sum;
}

EXPORT(add_partials_f32,
       (const float* partials, int count, int stride, int width, int arrays, float* first, float* second, float* third),
       add_partials(partials, count, stride, width, arrays, first, second, third))

// Rows between buffers: to[i] = from[indices[i]], and to[indices[i]] = from[i]. A block for each row.
template <class T, bool GATHER>
__device__ void move_rows(const T* from, const unsigned* indices, T* to, int width) {
    u64 row = blockIdx.x, other = indices[blockIdx.x];
    const T* source = from + (GATHER ? other : row) * width;
    T* target = to + (GATHER ? row : other) * width;
    for (int column = 4 * threadIdx.x; column < width; column += 4 * blockDim.x)
        store_four(target + column, load_four(source + column));
}

// to = from, or to += from, with the types of each; counts are multiples of four.
template <class A, class B, bool ADD>
__device__ void convert(const A* from, B* to, u64 count) {
    u64 place = 4 * ((u64)blockIdx.x * blockDim.x + threadIdx.x);
    if (place >= count) return;
    Four values = load_four(from + place);
    if (ADD) {
        Four there = load_four(to + place);
        for (int i = 0; i < 4; i++) values.v[i] += there.v[i];
    }
    store_four(to + place, values);
}

#define ROWS(T)                                                                                                        \
    EXPORT(gather_rows_##T, (const T* from, const unsigned* indices, T* to, int width),                                \
           move_rows<T, true>(from, indices, to, width))                                                               \
    EXPORT(place_rows_##T, (const T* from, const unsigned* indices, T* to, int width),                                 \
           move_rows<T, false>(from, indices, to, width))                                                              \
    EXPORT(to_float_##T, (const T* from, float* to, u64 count), convert<T, float, false>(from, to, count))             \
    EXPORT(from_float_##T, (const float* from, T* to, u64 count), convert<float, T, false>(from, to, count))           \
    EXPORT(add_float_##T, (const float* from, T* to, u64 count), convert<float, T, true>(from, to, count))

ROWS(float)
ROWS(bf16)
