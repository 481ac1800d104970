// The norm of all gradients, and AdamW scaled by it.
#pragma once

constexpr u32 NORM_THREADS = 256;

__device__ inline double block_sum_of_doubles(double value) {
    __shared__ double sums[NORM_THREADS];
    sums[threadIdx.x] = value;
    for (u32 half = NORM_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    return sums[0];
}

// parts[b] = the sum of the squares that block b takes.
extern "C" __global__ void squares(double *parts, const float *x, u64 count) {
    double sum = 0.0;
    each_of(are_aligned(x), count, [&](auto lanes, u64 first) {
        auto values = load(lanes, x + first);
        for (float value : values.at) sum += (double)value * value;
    });
    sum = block_sum_of_doubles(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// total[0] = the sum of `parts`; one block.
extern "C" __global__ void total_of(double *total, const double *parts, u64 count) {
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < count; i += NORM_THREADS) sum += parts[i];
    sum = block_sum_of_doubles(sum);
    if (threadIdx.x == 0) total[0] = sum;
}

// An update as `training::AdamW` does it; nothing changes where loss or norm is not finite.
//
// `keep` is 1 less the decay, `root` one over the root of the second correction.
extern "C" __global__ void adamw(float *values, float *first, float *second, const float *gradients, u64 count,
                                 const double *total, const double *loss, double clip, float keep, float beta1,
                                 float rest1, float beta2, float rest2, float step_size, float root, float epsilon) {
    if (!isfinite(total[0]) || !isfinite(loss[0])) return;
    double norm = sqrt(total[0]);
    float scale = clip > 0.0 && norm > clip ? (float)(clip / norm) : 1.0f;
    each_of(are_aligned(values, first, second, gradients), count, [=](auto lanes, u64 at) {
        auto value = load(lanes, values + at), m = load(lanes, first + at), v = load(lanes, second + at);
        auto gradient = load(lanes, gradients + at);
        for (u32 i = 0; i < m.COUNT; ++i) {
            float g = gradient.at[i] * scale;
            m.at[i] = beta1 * m.at[i] + rest1 * g;
            v.at[i] = beta2 * v.at[i] + rest2 * g * g;
            value.at[i] = value.at[i] * keep - step_size * m.at[i] / (sqrtf(v.at[i]) * root + epsilon);
        }
        store(first + at, m);
        store(second + at, v);
        store(values + at, value);
    });
}
