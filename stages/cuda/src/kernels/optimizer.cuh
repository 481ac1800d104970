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

// A tensor that an update changes, as the Rust side writes it.
struct Tensor {
    float *values, *first, *second;
    const float *gradients;
    u64 count;
    // Chunks of all tensors up to this one.
    u64 chunks;
    // 1 less the decay.
    double keep;
};

// Numbers of a tensor that a block takes together.
constexpr u64 CHUNK = 4096;

// Calls `work(tensor, lanes, i)` for the first of each few numbers of all tensors: one kernel for all of them,
// since most are so small that starting it takes longer than its work.
template <typename Work>
__device__ void each_of_tensors(const Tensor *tensors, u32 count, Work work) {
    for (u64 chunk = blockIdx.x; chunk < tensors[count - 1].chunks; chunk += gridDim.x) {
        u32 which = 0;
        for (u32 end = count - 1; which < end;) {
            u32 middle = (which + end) / 2;
            if (tensors[middle].chunks <= chunk)
                which = middle + 1;
            else
                end = middle;
        }
        const Tensor tensor = tensors[which];
        u64 first = (chunk - (which > 0 ? tensors[which - 1].chunks : 0)) * CHUNK;
        u64 end = first + CHUNK < tensor.count ? first + CHUNK : tensor.count, fours = first;
        if (are_aligned(tensor.values, tensor.first, tensor.second, tensor.gradients)) fours = end / 4 * 4;
        for (u64 i = first + 4 * threadIdx.x; i < fours; i += 4 * blockDim.x) work(tensor, Lanes<4>(), i);
        for (u64 i = fours + threadIdx.x; i < end; i += blockDim.x) work(tensor, Lanes<1>(), i);
    }
}

// parts[b] = the sum of the squares of the gradients that block b takes.
extern "C" __global__ void squares(double *parts, const Tensor *tensors, u32 count) {
    double sum = 0.0;
    each_of_tensors(tensors, count, [&](const Tensor &tensor, auto lanes, u64 at) {
        auto values = load(lanes, tensor.gradients + at);
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
// `root` is one over the root of the second correction.
extern "C" __global__ void adamw(const Tensor *tensors, u32 count, const double *total, const double *loss,
                                 double clip, float beta1, float rest1, float beta2, float rest2, float step_size,
                                 float root, float epsilon) {
    if (!isfinite(total[0]) || !isfinite(loss[0])) return;
    double norm = sqrt(total[0]);
    float scale = clip > 0.0 && norm > clip ? (float)(clip / norm) : 1.0f;
    each_of_tensors(tensors, count, [=](const Tensor &tensor, auto lanes, u64 at) {
        auto value = load(lanes, tensor.values + at), gradient = load(lanes, tensor.gradients + at);
        auto m = load(lanes, tensor.first + at), v = load(lanes, tensor.second + at);
        float keep = (float)tensor.keep;
        for (u32 i = 0; i < m.COUNT; ++i) {
            float g = gradient.at[i] * scale;
            m.at[i] = beta1 * m.at[i] + rest1 * g;
            v.at[i] = beta2 * v.at[i] + rest2 * g * g;
            value.at[i] = value.at[i] * keep - step_size * m.at[i] / (sqrtf(v.at[i]) * root + epsilon);
        }
        store(tensor.first + at, m);
        store(tensor.second + at, v);
        store(tensor.values + at, value);
    });
}
