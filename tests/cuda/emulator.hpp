// Runs CUDA kernels on the CPU, thread by thread, so that they can be tested where there is no GPU.
//
//   c++ -std=c++17 -O1 -g0 -w -fPIC -shared -DXLT_EMULATED -include emulator.hpp -x c++ kernels.cu -o libkernels.so
//
// The library exports xlt_launch (at the end). Each thread of a block is a fiber that runs until it must wait for
// others; the blocks run one after the other. Warps are 32 consecutive linear thread ids.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <math.h>
#include <mutex>
#include <sys/mman.h>
#include <type_traits>
#include <utility>
#if !defined(__x86_64__) || !defined(__ELF__)
#define XLT_EMULATOR_UCONTEXT
#endif
#ifdef XLT_EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static  // one block runs at a time

// Never popped: it is for the kernels too. Two libraries may be loaded at once, and the loader would share this state
// and the templates' __shared__ arrays between them; nor may a kernel bind to a function of the program that loads it.
// So the kernels' file includes no other header.
#pragma GCC visibility push(hidden)

struct uint3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

inline uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

namespace xlt_emulator {

constexpr unsigned max_threads = 1024;
constexpr unsigned max_shared = 232448;
constexpr unsigned shared_tail = 1024;  // watched for writes past the end
constexpr size_t page = 4096;
constexpr size_t stack_bytes = 64 * 1024;
constexpr size_t stack_stride = page + stack_bytes + page;  // a guard page, the stack, room to stagger the tops

enum Operation : unsigned {
    none,
    block_barrier,
    warp_barrier,
    shuffle,
    shuffle_xor,
    shuffle_down,
    load,
    load_transposed,
    multiply,
    async_copy,
};
constexpr const char* operation_names[] = {
    "", "__syncthreads", "__syncwarp", "__shfl_sync", "__shfl_xor_sync", "__shfl_down_sync", "load_matrix",
    "load_matrix_transposed", "multiply_bf16", "copy_async_16",
};

struct Context {
#ifdef XLT_EMULATOR_UCONTEXT
    ucontext_t registers;
#else
    void* stack_pointer;
#endif
};

struct Fiber {
    Context context;
    uint3 index;
    unsigned thread;
    Operation waits_at;
};

struct Warp {
    unsigned size, arrived, exited;
    unsigned operation;
    Fiber* waiting[32];
    void* posted[32];  // by lane
};

struct Kernel {
    const char* name;
    void (*function)();
    void (*call)(void (*)(), void**);
    unsigned bound;
    Kernel* next;
};

// Constant-initialised, since kernels register from static constructors.
inline Kernel* kernels = nullptr;
inline std::mutex launching;

inline const Kernel* kernel;
inline void** arguments;
inline unsigned threads, started, exited;
inline uint3 next_index;

inline Context host;
inline Fiber* current;
inline Fiber fibers[max_threads];
inline unsigned created;
inline Fiber* idle[max_threads];
inline unsigned idle_count;
inline Fiber* ready[max_threads];  // a ring: the counters run on
inline unsigned ready_head, ready_tail;
inline Fiber* waiting[max_threads];  // at __syncthreads
inline unsigned waiting_count;
inline Warp warps[max_threads / 32];

inline const char* failure;
inline unsigned failed_operation;
inline uint3 failed_index;

alignas(1024) inline unsigned char shared_memory[max_shared + shared_tail];

// ---- Context switches ----

#ifdef XLT_EMULATOR_UCONTEXT
inline void switch_context(Context& from, Context& to) { swapcontext(&from.registers, &to.registers); }
#else
extern "C" void xlt_emulator_switch(void** save, void* load);
// Only what a call preserves; the kernels leave the floating-point control words alone.
asm(R"(
    .pushsection .text
    .weak xlt_emulator_switch
    .hidden xlt_emulator_switch
    .type xlt_emulator_switch, @function
    .p2align 4
xlt_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size xlt_emulator_switch, . - xlt_emulator_switch
    .popsection
)");
inline void switch_context(Context& from, Context& to) { xlt_emulator_switch(&from.stack_pointer, to.stack_pointer); }
#endif

void work();

inline Fiber* create_fiber() {
    static unsigned char* stacks = nullptr;
    if (!stacks) {
        void* memory = mmap(nullptr, max_threads * stack_stride, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            perror("emulator: stacks");
            abort();
        }
        stacks = static_cast<unsigned char*>(memory);
        // An overflow faults instead of running into the next stack.
        for (unsigned i = 0; i < max_threads; ++i) mprotect(stacks + i * stack_stride, page, PROT_NONE);
    }
    unsigned number = created++;
    Fiber* fiber = &fibers[number];
    // Tops at the same offset within a page would fight for the same sets of the cache.
    unsigned char* bottom = stacks + number * stack_stride + page;
    unsigned char* top = bottom + stack_bytes + number * 320 % page;
#ifdef XLT_EMULATOR_UCONTEXT
    getcontext(&fiber->context.registers);
    fiber->context.registers.uc_stack.ss_sp = bottom;
    fiber->context.registers.uc_stack.ss_size = top - bottom;
    fiber->context.registers.uc_link = nullptr;
    makecontext(&fiber->context.registers, work, 0);
#else
    void** slots = reinterpret_cast<void**>(top) - 8;
    for (int i = 0; i < 8; ++i) slots[i] = nullptr;
    slots[6] = reinterpret_cast<void*>(&work);
    fiber->context.stack_pointer = slots;
#endif
    return fiber;
}

// ---- Scheduling ----

inline void make_ready(Fiber* fiber) {
    fiber->waits_at = none;
    ready[ready_tail++ % max_threads] = fiber;
}

// The ready ones come before new threads, so that few stacks are in use and a warp stays in the cache.
inline Context& next_context() {
    if (ready_head != ready_tail) current = ready[ready_head++ % max_threads];
    else if (started < threads) current = idle_count ? idle[--idle_count] : create_fiber();
    else return host;  // all have exited, or nothing can ever run again
    return current->context;
}

__attribute__((noinline)) inline void suspend(Fiber* self) {
    Context& next = next_context();
    switch_context(self->context, next);
    threadIdx = self->index;
}

[[noreturn]] __attribute__((noinline)) inline void fail(const char* reason, unsigned operation) {
    failure = reason;
    failed_operation = operation;
    failed_index = current->index;
    switch_context(current->context, host);
    abort();
}

inline void release_block() {
    for (unsigned i = 0; i < waiting_count; ++i) make_ready(waiting[i]);
    waiting_count = 0;
}

// A fiber's body: runs one thread after the other, so that threads that never wait cost no switch.
inline void work() {
    Fiber* self = current;
    for (;;) {
        while (ready_head == ready_tail && started < threads) {
            self->thread = started++;
            self->index = threadIdx = next_index;
            if (++next_index.x == blockDim.x) {
                next_index.x = 0;
                if (++next_index.y == blockDim.y) next_index.y = 0, ++next_index.z;
            }
            kernel->call(kernel->function, arguments);
            Warp& warp = warps[self->thread / 32];
            if (warp.arrived) fail("exits while lanes of its warp wait at", warp.operation);
            ++warp.exited;
            ++exited;
            if (waiting_count && waiting_count + exited == threads) release_block();
        }
        idle[idle_count++] = self;
        Context& next = next_context();
        if (&next != &self->context) switch_context(self->context, next);
    }
}

// `all` runs once, when every lane has arrived, on what the lanes posted: no lane can run ahead and change its input.
template <class All>
inline void collective(Operation operation, unsigned size, unsigned mask, bool full, void* post, const All& all) {
    Fiber* self = current;
    Warp& warp = warps[self->thread / 32];
    unsigned present = warp.size == 32 ? ~0u : (1u << warp.size) - 1;
    unsigned code = operation | size << 8;
    if (warp.exited) fail("has exited lanes in its warp at", operation);
    if ((mask & present) != present) fail("passes a mask that lacks lanes to", operation);
    if (full && warp.size != 32) fail("is in a short warp at", operation);
    if (warp.arrived && warp.operation != code) fail("is elsewhere, or with another type, while its warp waits at",
                                                     warp.operation);
    warp.operation = code;
    warp.posted[self->thread % 32] = post;
    if (warp.arrived + 1 < warp.size) {
        warp.waiting[warp.arrived++] = self;
        self->waits_at = operation;
        suspend(self);
        return;
    }
    all(warp.posted, warp.size);
    for (unsigned i = 0; i < warp.arrived; ++i) make_ready(warp.waiting[i]);
    warp.arrived = 0;
}

template <class T> struct Shuffle {
    T value, result;
    int source;  // a lane, or none
};

template <class T> inline T exchange(Operation operation, unsigned mask, T value, int source) {
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8), "not a type that lanes exchange");
    Shuffle<T> post{value, value, source};
    collective(operation, sizeof(T), mask, false, &post, [](void** posted, unsigned size) {
        for (unsigned lane = 0; lane < size; ++lane) {
            Shuffle<T>& to = *static_cast<Shuffle<T>*>(posted[lane]);
            if (to.source >= 0 && unsigned(to.source) < size)
                to.result = static_cast<Shuffle<T>*>(posted[to.source])->value;
        }
    });
    return post.result;
}

inline int lane() { return current->thread % 32; }

struct Load {
    const unsigned char* row;
    unsigned* fragment;
};

template <bool transposed> inline void load_fragments(unsigned* fragment, const void* row) {
    constexpr Operation operation = transposed ? load_transposed : load;
    if (reinterpret_cast<uintptr_t>(row) % 16) fail("passes an address that is not a multiple of 16 to", operation);
    Load post{static_cast<const unsigned char*>(row), fragment};
    collective(operation, 0, ~0u, true, &post, [](void** posted, unsigned) {
        for (unsigned matrix = 0; matrix < 4; ++matrix) {
            unsigned short elements[8][8];
            for (unsigned r = 0; r < 8; ++r) memcpy(elements[r], static_cast<Load*>(posted[8 * matrix + r])->row, 16);
            for (unsigned lane = 0; lane < 32; ++lane) {
                unsigned r = lane / 4, c = 2 * (lane % 4);
                unsigned low = transposed ? elements[c][r] : elements[r][c];
                unsigned high = transposed ? elements[c + 1][r] : elements[r][c + 1];
                static_cast<Load*>(posted[lane])->fragment[matrix] = low | high << 16;
            }
        }
    });
}

struct Multiply {
    float* sum;
    const unsigned* a;
    unsigned b[2];
};

inline float low_half(unsigned pair) {
    pair <<= 16;
    float value;
    memcpy(&value, &pair, 4);
    return value;
}

inline float high_half(unsigned pair) {
    pair &= 0xffff0000u;
    float value;
    memcpy(&value, &pair, 4);
    return value;
}

inline void multiply_fragments(void** posted, unsigned) {
    typedef float Four __attribute__((vector_size(16), may_alias));  // -O1 does not vectorise
    alignas(16) float a[16][16], b[16][8], c[16][8];
    for (unsigned lane = 0; lane < 32; ++lane) {
        const Multiply& from = *static_cast<Multiply*>(posted[lane]);
        unsigned group = lane / 4, pair = 2 * (lane % 4);
        for (unsigned i = 0; i < 4; ++i) {
            float* to = &a[group + i % 2 * 8][pair + i / 2 * 8];
            to[0] = low_half(from.a[i]);
            to[1] = high_half(from.a[i]);
            c[group + i / 2 * 8][pair + i % 2] = from.sum[i];
        }
        for (unsigned i = 0; i < 2; ++i) {
            b[pair + i * 8][group] = low_half(from.b[i]);
            b[pair + i * 8 + 1][group] = high_half(from.b[i]);
        }
    }
    for (unsigned m = 0; m < 16; ++m) {
        Four left = *reinterpret_cast<Four*>(&c[m][0]), right = *reinterpret_cast<Four*>(&c[m][4]);
        for (unsigned k = 0; k < 16; ++k) {
            left += a[m][k] * *reinterpret_cast<Four*>(&b[k][0]);
            right += a[m][k] * *reinterpret_cast<Four*>(&b[k][4]);
        }
        *reinterpret_cast<Four*>(&c[m][0]) = left;
        *reinterpret_cast<Four*>(&c[m][4]) = right;
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        float* sum = static_cast<Multiply*>(posted[lane])->sum;
        for (unsigned i = 0; i < 4; ++i) sum[i] = c[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
    }
}

// ---- Launches ----

template <class... Parameters, size_t... I>
inline void call_unpacked(void (*function)(Parameters...), void** values, std::index_sequence<I...>) {
    function(*static_cast<std::remove_cv_t<Parameters>*>(values[I])...);
}

struct Registration {
    Kernel entry;

    template <class... Parameters> Registration(const char* name, unsigned bound, void (*function)(Parameters...)) {
        entry.name = name;
        entry.bound = bound;
        entry.function = reinterpret_cast<void (*)()>(function);
        entry.call = [](void (*erased)(), void** values) {
            call_unpacked(reinterpret_cast<void (*)(Parameters...)>(erased), values,
                          std::index_sequence_for<Parameters...>());
        };
        entry.next = kernels;
        kernels = &entry;
    }
};

inline void report(const uint3& index, const char* reason, const char* operation) {
    fprintf(stderr, "emulator: kernel %s, block (%u, %u, %u), thread (%u, %u, %u): %s %s\n", kernel->name, blockIdx.x,
            blockIdx.y, blockIdx.z, index.x, index.y, index.z, reason, operation);
}

inline void report_deadlock() {
    const Fiber* first = nullptr;
    unsigned at_block = 0, in_warps = 0;
    for (unsigned i = 0; i < created; ++i) {
        const Fiber& fiber = fibers[i];
        if (fiber.waits_at == none) continue;
        ++(fiber.waits_at == block_barrier ? at_block : in_warps);
        // The ones in a warp collective are nearer to the cause.
        bool better = !first || (fiber.waits_at != block_barrier) > (first->waits_at != block_barrier);
        bool same = first && (fiber.waits_at != block_barrier) == (first->waits_at != block_barrier);
        if (better || (same && fiber.thread < first->thread)) first = &fiber;
    }
    if (!first) return;
    report(first->index, "waits for ever at", operation_names[first->waits_at]);
    fprintf(stderr, "emulator: of %u threads %u wait at __syncthreads, %u in warp collectives, %u have exited\n",
            threads, at_block, in_warps, exited);
}

// Their threads will not go on: the next launch starts afresh on the same stacks.
inline void drop_fibers() {
    for (unsigned i = 0; i < created; ++i) fibers[i].waits_at = none;
    created = idle_count = waiting_count = 0;
    ready_head = ready_tail = 0;
}

inline bool run_block(unsigned shared_bytes) {
    memset(shared_memory, 0xff, shared_bytes);
    started = exited = 0;
    next_index = {0, 0, 0};
    for (unsigned i = 0; i * 32 < threads; ++i) {
        warps[i].size = threads - i * 32 < 32 ? threads - i * 32 : 32;
        warps[i].arrived = warps[i].exited = 0;
    }
    failure = nullptr;
    Context& first = next_context();
    switch_context(host, first);
    if (failure) report(failed_index, failure, operation_names[failed_operation & 0xff]);
    else if (exited < threads) report_deadlock();
    else return true;
    drop_fibers();
    return false;
}

inline bool shared_tail_intact(unsigned shared_bytes) {
    for (unsigned i = 0; i < shared_tail; ++i)
        if (shared_memory[shared_bytes + i] != 0xff) return false;
    return true;
}

inline int launch(const char* name, const unsigned* grid, const unsigned* block, unsigned shared_bytes, void** values) {
    std::lock_guard<std::mutex> lock(launching);
    kernel = kernels;
    while (kernel && strcmp(kernel->name, name)) kernel = kernel->next;
    if (!kernel) {
        fprintf(stderr, "emulator: no kernel %s\n", name);
        return 1;
    }
    uint64_t count = uint64_t(block[0]) * block[1] * block[2];
    if (block[0] > max_threads || block[1] > max_threads || block[2] > 64 || !count || count > kernel->bound ||
        !grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7fffffff || grid[1] > 65535 || grid[2] > 65535 ||
        shared_bytes > max_shared) {
        fprintf(stderr, "emulator: kernel %s: grid (%u, %u, %u), block (%u, %u, %u) with %u bytes is past the limits\n",
                name, grid[0], grid[1], grid[2], block[0], block[1], block[2], shared_bytes);
        return 3;
    }
    threads = unsigned(count);
    arguments = values;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    memset(shared_memory + shared_bytes, 0xff, shared_tail);
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                blockIdx = {x, y, z};
                if (!run_block(shared_bytes)) return 2;
            }
    if (!shared_tail_intact(shared_bytes)) {
        fprintf(stderr, "emulator: kernel %s writes past its %u bytes of dynamic shared memory\n", name, shared_bytes);
        return 2;
    }
    return 0;
}

}  // namespace xlt_emulator

// ---- What kernels call ----

inline unsigned char* dynamic_shared() { return xlt_emulator::shared_memory; }

__attribute__((noinline)) inline void __syncthreads() {
    using namespace xlt_emulator;
    // Exited threads do not block the others.
    if (waiting_count + 1 + exited == threads) return release_block();
    Fiber* self = current;
    waiting[waiting_count++] = self;
    self->waits_at = block_barrier;
    suspend(self);
}

inline void __syncwarp(unsigned mask = 0xffffffff) {
    xlt_emulator::collective(xlt_emulator::warp_barrier, 0, mask, false, nullptr, [](void**, unsigned) {});
}

// A lane outside the segment of `width` lanes, or one that is absent, gives back the own value.
template <class T> inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    int base = xlt_emulator::lane() & -width;
    return xlt_emulator::exchange(xlt_emulator::shuffle, mask, value, base | (lane & (width - 1)));
}

template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
    int own = xlt_emulator::lane(), source = own ^ lane_mask;
    return xlt_emulator::exchange(xlt_emulator::shuffle_xor, mask, value, source > (own | (width - 1)) ? -1 : source);
}

template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int own = xlt_emulator::lane(), source = own + int(delta & 31);
    return xlt_emulator::exchange(xlt_emulator::shuffle_down, mask, value, source > (own | (width - 1)) ? -1 : source);
}

inline void load_matrix(unsigned (&fragment)[4], const void* row) {
    xlt_emulator::load_fragments<false>(fragment, row);
}

inline void load_matrix_transposed(unsigned (&fragment)[4], const void* row) {
    xlt_emulator::load_fragments<true>(fragment, row);
}

inline void multiply_bf16(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    xlt_emulator::Multiply post{sum, a, {b0, b1}};
    xlt_emulator::collective(xlt_emulator::multiply, 0, ~0u, true, &post, xlt_emulator::multiply_fragments);
}

inline void copy_async_16(void* shared, const void* global, bool valid) {
    if ((reinterpret_cast<uintptr_t>(shared) | (valid ? reinterpret_cast<uintptr_t>(global) : 0)) % 16)
        xlt_emulator::fail("passes an address that is not a multiple of 16 to", xlt_emulator::async_copy);
    if (valid) memcpy(shared, global, 16);
    else memset(shared, 0, 16);
}

inline void copy_async_commit() {}
template <int N> inline void copy_async_wait() {}

[[noreturn]] inline void __trap() {
    xlt_emulator::report(xlt_emulator::current->index, "calls", "__trap");
    abort();
}

template <class T> inline T __ldg(const T* address) { return *address; }

template <class To, class From> inline To xlt_bits(From value) {
    To bits;
    static_assert(sizeof(To) == sizeof(From), "");
    memcpy(&bits, &value, sizeof(To));
    return bits;
}

inline unsigned __float_as_uint(float value) { return xlt_bits<unsigned>(value); }
inline int __float_as_int(float value) { return xlt_bits<int>(value); }
inline float __uint_as_float(unsigned value) { return xlt_bits<float>(value); }
inline float __int_as_float(int value) { return xlt_bits<float>(value); }

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)(a) * b >> 64);
}

// Macros, because the C library declares some of these names itself.
inline float xlt_rsqrtf(float value) { return 1.0f / sqrtf(value); }
#define rsqrtf xlt_rsqrtf
#define __expf expf

inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
inline unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
inline unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
inline unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

// Round to nearest even; NaN becomes the one that the GPU's conversion gives.
inline unsigned short round_bf16(float value) {
    unsigned bits = __float_as_uint(value);
    if (value != value) return 0x7fff;
    return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline unsigned pack_bf16(float low, float high) { return round_bf16(low) | unsigned(round_bf16(high)) << 16; }
inline float widen_bf16(unsigned short value) { return __uint_as_float(unsigned(value) << 16); }

// Two steps, so that a name made by a macro is expanded. `call` is variadic for the commas of template arguments.
#define XLT_EXPORT(name, bound, parameters, ...)                                                                       \
    extern "C" __global__ void name parameters { __VA_ARGS__; }                                                        \
    static xlt_emulator::Registration xlt_registration_##name(#name, bound, &name);
#define EXPORT(name, parameters, ...) XLT_EXPORT(name, xlt_emulator::max_threads, parameters, __VA_ARGS__)
#define EXPORT_BOUNDED(name, threads, parameters, ...) XLT_EXPORT(name, threads, parameters, __VA_ARGS__)

// Runs a kernel; `arguments[i]` points at its i-th argument. Returns 0, or 1 for an unknown kernel, 2 for threads that
// wait for ever or misuse a collective, 3 for a launch past the limits of the device or of the kernel's bound.
extern "C" __attribute__((visibility("default"), used)) inline int xlt_launch(
    const char* name, const unsigned grid[3], const unsigned block[3], unsigned shared_bytes, void** arguments) {
    return xlt_emulator::launch(name, grid, block, shared_bytes, arguments);
}
