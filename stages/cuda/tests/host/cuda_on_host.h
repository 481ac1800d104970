// Enough of CUDA to compile the kernels as C++ for the processor and run them as a GPU might.
//
// A thread of a block is a fiber. A fiber runs until a barrier; a barrier opens when all of its warp
// or block have reached it. What would hang or be undefined on a GPU ends the program with a message:
// a barrier that some threads of a warp or block never reach, a shuffle without all lanes.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#define ON_HOST
#define __global__
#define __device__
#define __shared__ static thread_local
#define __launch_bounds__(THREADS)

struct dim3 {
    unsigned x, y, z;
};
struct float2 {
    float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
// Words of memory, whatever numbers lie in them.
struct __attribute__((may_alias, aligned(8))) uint2 {
    uint32_t x, y;
};
struct __attribute__((may_alias, aligned(16))) uint4 {
    uint32_t x, y, z, w;
};
template <class Word>
void __stcg(Word *to, Word value) {
    memcpy(to, &value, sizeof value);
}
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
using std::isfinite;
inline float __fdividef(float a, float b) { return a / b; }

struct __half {
    uint16_t bits;
};
struct __nv_bfloat16 {
    uint16_t bits;
};

inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    uint32_t bits = bits_of(value);
    if (std::isnan(value)) return {uint16_t(bits >> 16 | 0x40)};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline __half __float2half_rn(float value) {
    uint16_t sign = bits_of(value) >> 16 & 0x8000;
    if (std::isnan(value)) return {uint16_t(sign | 0x7e00)};
    double magnitude = std::fabs((double)value);
    if (magnitude >= 65520.0) return {uint16_t(sign | 0x7c00)};
    if (magnitude < 0x1p-14) return {uint16_t(sign | (uint16_t)std::nearbyint(magnitude * 0x1p24))};
    int exponent;
    std::frexp(magnitude, &exponent);
    // 11 significant bits; a carry runs into the exponent, as it should.
    auto significand = (uint32_t)std::nearbyint(std::ldexp(magnitude, 11 - exponent));
    return {uint16_t(sign | (((exponent + 13) << 10) + significand))};
}
inline float __bfloat162float(__nv_bfloat16 value) {
    uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    memcpy(&result, &bits, 4);
    return result;
}
inline float __half2float(__half value) {
    int exponent = value.bits >> 10 & 0x1f, significand = value.bits & 0x3ff;
    float magnitude = exponent == 31  ? (significand ? NAN : INFINITY)
                      : exponent == 0 ? std::ldexp((float)significand, -24)
                                      : std::ldexp((float)(significand | 0x400), exponent - 25);
    return value.bits & 0x8000 ? -magnitude : magnitude;
}

struct __half2 {
    __half x, y;
};
struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)}; }
inline float number(__half value) { return __half2float(value); }
inline float number(__nv_bfloat16 value) { return __bfloat162float(value); }

namespace host {

constexpr unsigned WARP_SIZE = 32;
constexpr size_t STACK = 256 * 1024;

enum class At { Ready, WarpBarrier, BlockBarrier, Done };

// A fiber starts by `setcontext`, once; later it is left and entered by jumps, which cost no system call.
struct Fiber {
    ucontext_t context;
    jmp_buf place;
    std::vector<char> stack;
    bool is_started = false;
    At at;
};

struct State {
    std::deque<Fiber> fibers;  // its elements stay where they are
    jmp_buf scheduler;
    unsigned current = 0, threads = 0;
    dim3 block{}, grid{}, block_size{};
    std::vector<float> exchanged;
    // What the lanes of a warp give to an instruction of the whole warp.
    std::vector<std::array<uint32_t, 6>> given;
    std::vector<const uint32_t *> rows;
    std::vector<float> shared;
    void (*kernel)(void **) = nullptr;
    void **arguments = nullptr;
};

inline State &state() {
    static thread_local State state;
    return state;
}

[[noreturn]] inline void fail(const char *what) {
    fprintf(stderr, "a GPU would hang or give anything: %s\n", what);
    abort();
}

inline void wait(At at) {
    State &s = state();
    Fiber &fiber = s.fibers[s.current];
    fiber.at = at;
    if (!_setjmp(fiber.place)) _longjmp(s.scheduler, 1);
}

// One thread of block after block.
inline void run_fiber() {
    for (;;) {
        State &s = state();
        s.kernel(s.arguments);
        wait(At::Done);
    }
}

__attribute__((noinline)) inline void resume(unsigned thread) {
    State &s = state();
    Fiber &fiber = s.fibers[thread];
    s.current = thread;
    if (_setjmp(s.scheduler)) return;
    if (fiber.is_started) _longjmp(fiber.place, 1);
    fiber.is_started = true;
    fiber.stack.resize(STACK);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
    setcontext(&fiber.context);
}

// Runs the threads of one block to their end; backwards where `reversed`, to find missing barriers.
inline void run_block(bool reversed) {
    State &s = state();
    while (s.fibers.size() < s.threads) s.fibers.emplace_back();
    for (unsigned i = 0; i < s.threads; ++i) s.fibers[i].at = At::Ready;
    for (;;) {
        unsigned waiting = 0, done = 0;
        for (unsigned w = 0; w < s.threads; w += WARP_SIZE) {
            unsigned warp = reversed ? (s.threads - 1) / WARP_SIZE * WARP_SIZE - w : w;
            unsigned end = min(warp + WARP_SIZE, s.threads);
            for (;;) {
                unsigned at_warp = 0, at_block = 0, ended = 0;
                for (unsigned i = warp; i < end; ++i) {
                    unsigned thread = reversed ? warp + end - 1 - i : i;
                    Fiber &fiber = s.fibers[thread];
                    if (fiber.at == At::Ready) resume(thread);
                    at_warp += fiber.at == At::WarpBarrier;
                    at_block += fiber.at == At::BlockBarrier;
                    ended += fiber.at == At::Done;
                }
                if (at_warp == 0) {
                    waiting += at_block;
                    done += ended;
                    break;
                }
                if (at_block + ended > 0) fail("not all lanes of a warp take part");
                for (unsigned i = warp; i < end; ++i) s.fibers[i].at = At::Ready;
            }
        }
        if (waiting == 0) return;
        if (done > 0) fail("a thread ended before a barrier of its block");
        for (unsigned i = 0; i < s.threads; ++i) s.fibers[i].at = At::Ready;
    }
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A *>(arguments[I])...);
}
template <class... A>
void call(void (*kernel)(A...), void **arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>{});
}

}  // namespace host

struct ThreadIndex {
    struct {
        operator unsigned() const { return host::state().current; }
    } x;
};
static const ThreadIndex threadIdx{};
#define blockIdx (host::state().block)
#define blockDim (host::state().block_size)
#define gridDim (host::state().grid)

#define SHARED_NUMBERS(NAME) float *NAME = host::state().shared.data()

inline void __syncthreads() { host::wait(host::At::BlockBarrier); }
inline void __syncwarp() { host::wait(host::At::WarpBarrier); }
inline float __shfl_xor_sync(unsigned, float value, unsigned distance) {
    host::State &s = host::state();
    s.exchanged[s.current] = value;
    host::wait(host::At::WarpBarrier);
    float other = s.exchanged[s.current ^ distance];
    host::wait(host::At::WarpBarrier);
    return other;
}

// Tensor cores, by the fragments that `tensor_core.cuh` describes.

template <typename T>
void multiply_add(float (&sum)[4], const uint32_t (&left)[4], uint32_t right_0, uint32_t right_1) {
    host::State &s = host::state();
    s.given[s.current] = {left[0], left[1], left[2], left[3], right_0, right_1};
    host::wait(host::At::WarpBarrier);
    unsigned warp = s.current / host::WARP_SIZE * host::WARP_SIZE, g = s.current % host::WARP_SIZE / 4, t = s.current % 4;
    // Words hold two numbers: the word `of` of a lane, the lower or the upper half.
    auto part = [&](unsigned lane, unsigned of, unsigned half) {
        T value;
        auto bits = uint16_t(s.given[warp + lane][of] >> 16 * half);
        memcpy(&value, &bits, 2);
        return number(value);
    };
    for (unsigned i = 0; i < 4; ++i)
        for (unsigned k = 0; k < 16; ++k) {
            unsigned holder = k % 8 / 2;
            float a = part(g * 4 + holder, i / 2 + k / 8 * 2, k % 2);
            float b = part((t * 2 + i % 2) * 4 + holder, 4 + k / 8, k % 2);
            sum[i] += a * b;
        }
    host::wait(host::At::WarpBarrier);
}

inline void load_transposed(uint32_t (&words)[4], const uint32_t *row) {
    host::State &s = host::state();
    if ((uintptr_t)row % 16 != 0) host::fail("a row of a matrix that is not aligned");
    s.rows[s.current] = row;
    host::wait(host::At::WarpBarrier);
    unsigned warp = s.current / host::WARP_SIZE * host::WARP_SIZE, g = s.current % host::WARP_SIZE / 4, t = s.current % 4;
    for (unsigned m = 0; m < 4; ++m) {
        auto at = [&](unsigned row) { return uint16_t(s.rows[warp + m * 8 + row][g / 2] >> 16 * (g % 2)); };
        words[m] = at(2 * t) | uint32_t(at(2 * t + 1)) << 16;
    }
    host::wait(host::At::WarpBarrier);
}
