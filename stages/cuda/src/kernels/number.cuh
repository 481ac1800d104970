// Number formats, sums over a warp, and dropout draws.
#pragma once

#ifndef ON_HOST
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

typedef unsigned int u32;
typedef unsigned long long u64;
typedef __half half_t;
typedef __nv_bfloat16 bf16_t;

constexpr u32 WARP = 32;

// Rounds to nearest, ties to even.
template <typename T>
__device__ inline T as(float value);
template <>
__device__ inline float as<float>(float value) { return value; }
template <>
__device__ inline half_t as<half_t>(float value) { return __float2half_rn(value); }
template <>
__device__ inline bf16_t as<bf16_t>(float value) { return __float2bfloat16_rn(value); }

__device__ inline float as_float(float value) { return value; }
__device__ inline float as_float(half_t value) { return __half2float(value); }
__device__ inline float as_float(bf16_t value) { return __bfloat162float(value); }

// Makes the kernels NAME_f32, NAME_f16 and NAME_bf16 of a template over a format.
#define IN_EVERY_FORMAT(NAME, PARAMETERS, ARGUMENTS)                                      \
    extern "C" __global__ void NAME##_f32 PARAMETERS(float) { NAME<float> ARGUMENTS; }    \
    extern "C" __global__ void NAME##_f16 PARAMETERS(half_t) { NAME<half_t> ARGUMENTS; }  \
    extern "C" __global__ void NAME##_bf16 PARAMETERS(bf16_t) { NAME<bf16_t> ARGUMENTS; }

// The sum over the first `LANES` neighbours of a lane, given to each of them.
template <u32 LANES>
__device__ inline float sum_over(float value) {
    for (u32 distance = LANES / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

template <u32 LANES>
__device__ inline float largest_over(float value) {
    for (u32 distance = LANES / 2; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

// Which elements are dropped: the draws of `gpt2::kernels::dropout` in Rust, bit for bit.
// `keys` has one key a prompt, or is null where nothing is dropped.
struct Dropout {
    const u64 *keys;
    u64 threshold;
    float kept;
};

__device__ inline u64 mix(u64 z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// What `element` of a prompt is multiplied by.
__device__ inline float factor(const Dropout &dropout, u32 prompt, u64 element) {
    if (!dropout.keys) return 1.0f;
    u64 draw = mix(dropout.keys[prompt] + element * 0x9e3779b97f4a7c15ull) >> 32;
    return draw < dropout.threshold ? 0.0f : dropout.kept;
}

// The index of this thread among those of the whole launch, and their number.
__device__ inline u64 first_index() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline u64 index_step() { return (u64)gridDim.x * blockDim.x; }

// Names the shared memory whose size the launch gives.
#ifndef ON_HOST
extern __shared__ float dynamic_shared[];
#define SHARED_NUMBERS(NAME) float *NAME = dynamic_shared
#endif
