// Enough of CUDA to compile the kernels as C++ for the processor; `host.cpp` runs them as a GPU might.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

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
    *to = value;
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

// Of the thread that runs.
unsigned thread();
dim3 block();
dim3 block_size();
dim3 grid();
float *dynamic_shared();

// Barriers, by the lines of the source where they are: all threads must be at the same one.
void wait_for_block(int line);
void wait_for_warp(int line, bool orders_memory);
float exchange(float value, unsigned with, int line);

// Tensor cores, by the fragments that `tensor_core.cuh` describes.
void multiply_add(float *sum, const uint32_t *left, uint32_t right_0, uint32_t right_1, float (*number_of)(uint16_t),
                  int line);
void load_transposed(uint32_t *words, const uint32_t *row, int line);

}  // namespace host

struct ThreadIndex {
    struct {
        operator unsigned() const { return host::thread(); }
    } x;
};
static const ThreadIndex threadIdx{};
#define blockIdx (host::block())
#define blockDim (host::block_size())
#define gridDim (host::grid())

#define SHARED_NUMBERS(NAME) float *NAME = host::dynamic_shared()

inline void __syncthreads(int line = __builtin_LINE()) { host::wait_for_block(line); }
inline void __syncwarp(int line = __builtin_LINE()) { host::wait_for_warp(line, true); }
inline float __shfl_xor_sync(unsigned, float value, unsigned distance, int line = __builtin_LINE()) {
    return host::exchange(value, host::thread() ^ distance, line);
}

template <typename T>
float number_of(uint16_t bits) {
    return number(T{bits});
}
template <typename T>
void multiply_add(float (&sum)[4], const uint32_t (&left)[4], uint32_t right_0, uint32_t right_1,
                  int line = __builtin_LINE()) {
    host::multiply_add(sum, left, right_0, right_1, number_of<T>, line);
}
inline void load_transposed(uint32_t (&words)[4], const uint32_t *row, int line = __builtin_LINE()) {
    host::load_transposed(words, row, line);
}
