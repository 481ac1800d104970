// Attention of the last position of each prompt, and its gradients; a block takes a head of a prompt.
//
// The scores of a prompt lie in shared memory, whose size the launch gives: one number a position,
// for the gradients two.
#pragma once

constexpr u32 LAST_THREADS = 128;

// The sum or the maximum over a block, in every thread; `scratch` has one number a warp.
__device__ inline float block_sum(float value, float *scratch) {
    value = sum_over<WARP>(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = value;
    __syncthreads();
    float sum = 0.0f;
    for (u32 warp = 0; warp < LAST_THREADS / WARP; ++warp) sum += scratch[warp];
    return sum;
}

__device__ inline float block_largest(float value, float *scratch) {
    value = largest_over<WARP>(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = value;
    __syncthreads();
    float largest = scratch[0];
    for (u32 warp = 1; warp < LAST_THREADS / WARP; ++warp) largest = fmaxf(largest, scratch[warp]);
    return largest;
}

// Fills `scores` with the probabilities of the keys, before dropout.
__device__ inline void last_probabilities(float *scores, const float *q, const float *k, const float *q_bias,
                                          const float *k_bias, u32 length, u64 kv_stride, u32 d, float *scratch) {
    float scale = 1.0f / sqrtf((float)d), largest = -INFINITY, sum = 0.0f;
    for (u32 key = threadIdx.x; key < length; key += LAST_THREADS) {
        float score = 0.0f;
        for (u32 c = 0; c < d; ++c)
            score += (q[c] + (q_bias ? q_bias[c] : 0.0f)) * (k[key * kv_stride + c] + (k_bias ? k_bias[c] : 0.0f));
        scores[key] = score * scale;
        largest = fmaxf(largest, scores[key]);
    }
    largest = block_largest(largest, scratch);
    for (u32 key = threadIdx.x; key < length; key += LAST_THREADS) {
        scores[key] = expf(scores[key] - largest);
        sum += scores[key];
    }
    sum = block_sum(sum, scratch);
    for (u32 key = threadIdx.x; key < length; key += LAST_THREADS) scores[key] /= sum;
    __syncthreads();
}

// out `[prompts, n_head · d]` for q `[prompts, n_head · d]`; k, v and biases as in `attention`. The
// grid is (heads, prompts).
template <typename Out>
__device__ void attention_last(Out *out, const float *q, const float *k, const float *v, u32 kv_stride,
                               const float *q_bias, const float *k_bias, const float *v_bias, const u32 *offsets,
                               const u64 *keys, u64 threshold, float kept, u32 d) {
    SHARED_NUMBERS(scores);
    __shared__ float scratch[LAST_THREADS / WARP];
    Dropout dropout = {keys, threshold, kept};
    u32 head = blockIdx.x, n_head = gridDim.x, prompt = blockIdx.y, column = head * d;
    u32 start = offsets[prompt], length = offsets[prompt + 1] - start;
    u64 width = (u64)n_head * d;
    k += (u64)start * kv_stride + column;
    v += (u64)start * kv_stride + column;
    last_probabilities(scores, q + prompt * width + column, k, q_bias ? q_bias + column : nullptr,
                       k_bias ? k_bias + column : nullptr, length, kv_stride, d, scratch);
    u64 element = ((u64)head * length + length - 1) * length;
    for (u32 c = threadIdx.x; c < d; c += LAST_THREADS) {
        float sum = 0.0f;
        for (u32 key = 0; key < length; ++key) {
            float of_v = v[(u64)key * kv_stride + c] + (v_bias ? v_bias[column + c] : 0.0f);
            sum += scores[key] * factor(dropout, prompt, element + key) * of_v;
        }
        out[prompt * width + column + c] = as<Out>(sum);
    }
}
#define PARAMETERS(OUT)                                                                                           \
    (OUT * out, const float *q, const float *k, const float *v, u32 kv_stride, const float *q_bias,                \
     const float *k_bias, const float *v_bias, const u32 *offsets, const u64 *keys, u64 threshold, float kept, u32 d)
IN_EVERY_FORMAT(attention_last, PARAMETERS,
                (out, q, k, v, kv_stride, q_bias, k_bias, v_bias, offsets, keys, threshold, kept, d))
#undef PARAMETERS

// of_q `[prompts, n_head · d]`; of_k and of_v, columns of rows `kv_stride` wide, at every position.
extern "C" __global__ void attention_last_gradient(float *of_q, float *of_k, float *of_v, const float *q, const float *k,
                                                   const float *v, u32 kv_stride, const float *upstream,
                                                   const u32 *offsets, const u64 *keys, u64 threshold, float kept, u32 d) {
    SHARED_NUMBERS(scores);
    __shared__ float scratch[LAST_THREADS / WARP];
    Dropout dropout = {keys, threshold, kept};
    u32 head = blockIdx.x, n_head = gridDim.x, prompt = blockIdx.y, column = head * d;
    u32 start = offsets[prompt], length = offsets[prompt + 1] - start;
    u64 width = (u64)n_head * d, from = (u64)start * kv_stride + column;
    k += from;
    v += from;
    of_k += from;
    of_v += from;
    q += prompt * width + column;
    upstream += prompt * width + column;
    last_probabilities(scores, q, k, nullptr, nullptr, length, kv_stride, d, scratch);
    float *of_scores = scores + length, scale = 1.0f / sqrtf((float)d), sum = 0.0f;
    u64 element = ((u64)head * length + length - 1) * length;
    for (u32 key = threadIdx.x; key < length; key += LAST_THREADS) {
        float of_weight = 0.0f, keep = factor(dropout, prompt, element + key);
        for (u32 c = 0; c < d; ++c) {
            of_weight += upstream[c] * v[(u64)key * kv_stride + c];
            of_v[(u64)key * kv_stride + c] = scores[key] * keep * upstream[c];
        }
        of_scores[key] = of_weight * keep;
        sum += scores[key] * of_scores[key];
    }
    sum = block_sum(sum, scratch);
    for (u32 key = threadIdx.x; key < length; key += LAST_THREADS) {
        of_scores[key] = scores[key] * (of_scores[key] - sum) * scale;
        for (u32 c = 0; c < d; ++c) of_k[(u64)key * kv_stride + c] = of_scores[key] * q[c];
    }
    __syncthreads();
    for (u32 c = threadIdx.x; c < d; c += LAST_THREADS) {
        float of_channel = 0.0f;
        for (u32 key = 0; key < length; ++key) of_channel += of_scores[key] * k[(u64)key * kv_stride + c];
        of_q[prompt * width + column + c] = of_channel;
    }
}
