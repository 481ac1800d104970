// Attention of the last position of each prompt, and its gradients; a block takes a head of a prompt.
//
// Eight lanes share a key, each an eighth of the channels, so that a warp reads whole sectors of four
// rows at once. Queries, keys, values and weights are rounded to the format of the products, as on
// tensor cores; all else is f32. The scores of a prompt lie in shared memory, whose size the launch
// gives: one number a position, for the gradients two.
#pragma once

constexpr u32 LAST_THREADS = 128, SHARERS = 8, SHARE = HEAD / SHARERS;

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

// What this lane holds of a row of a head: channels `threadIdx.x % SHARERS` and every eighth from there,
// the bias added, rounded to T; zeros beyond the width. The bias may be null.
template <typename T, typename In>
__device__ inline void load_share(float (&share)[SHARE], const In *row, const float *bias, u32 d) {
    for (u32 i = 0; i < SHARE; ++i) {
        u32 c = i * SHARERS + threadIdx.x % SHARERS;
        share[i] = c < d ? as_float(as<T>(as_float(row[c]) + (bias ? bias[c] : 0.0f))) : 0.0f;
    }
}

// The product of two rows, in each of the lanes that share them.
__device__ inline float dot(const float (&a)[SHARE], const float (&b)[SHARE]) {
    float sum = 0.0f;
    for (u32 i = 0; i < SHARE; ++i) sum += a[i] * b[i];
    return sum_over<SHARERS>(sum);
}

// Sums what all sharers of a block hold, and writes it divided by `divisor`; `scratch` `[LAST_THREADS / WARP][HEAD]`.
template <typename Out>
__device__ inline void store_shares(Out *out, float (&share)[SHARE], float divisor, float *scratch, u32 d) {
    __syncthreads(); // `scratch` was read
    for (u32 i = 0; i < SHARE; ++i) {
        for (u32 distance = SHARERS; distance < WARP; distance *= 2)
            share[i] += __shfl_xor_sync(0xffffffffu, share[i], distance);
        if (threadIdx.x % WARP < SHARERS)
            scratch[threadIdx.x / WARP * HEAD + i * SHARERS + threadIdx.x % SHARERS] = share[i];
    }
    __syncthreads();
    if (threadIdx.x >= d) return;
    float sum = 0.0f;
    for (u32 warp = 0; warp < LAST_THREADS / WARP; ++warp) sum += scratch[warp * HEAD + threadIdx.x];
    out[threadIdx.x] = as<Out>(sum / divisor);
}

// Fills `scores` with the exponentials of the scores less their maximum, and returns their sum.
//
// The loop is over keys of the same number in every lane of a warp: all lanes take part in its sums.
template <typename T, typename In>
__device__ inline float last_exponentials(float *scores, const float (&q)[SHARE], const In *k, const float *bias,
                                          u32 length, u64 stride, u32 d, float *scratch) {
    float scale = 1.0f / sqrtf((float)d), largest = -INFINITY, sum = 0.0f;
    for (u32 at = 0; at < length; at += LAST_THREADS / SHARERS) {
        u32 key = at + threadIdx.x / SHARERS;
        float share[SHARE];
        load_share<T>(share, k + min(key, length - 1) * stride, bias, d);
        float score = dot(q, share) * scale;
        if (key < length && threadIdx.x % SHARERS == 0) scores[key] = score;
        largest = fmaxf(largest, score);
    }
    largest = block_largest(largest, scratch);
    for (u32 key = threadIdx.x; key < length; key += LAST_THREADS) {
        scores[key] = expf(scores[key] - largest);
        sum += scores[key];
    }
    return block_sum(sum, scratch);
}

// out `[prompts, n_head · d]` for q `[prompts, n_head · d]`; k, v and biases as in `attention_f32`. The
// grid is (heads, prompts).
template <typename T, typename Io>
__device__ void attention_last(Io *out, const Io *q, const Io *k, const Io *v, u32 kv_stride, const float *q_bias,
                               const float *k_bias, const float *v_bias, const u32 *offsets, const u64 *draws,
                               u64 threshold, float kept, u32 d) {
    SHARED_NUMBERS(scores);
    __shared__ float scratch[LAST_THREADS / WARP * HEAD];
    Dropout dropout = {draws, threshold, kept};
    u32 head = blockIdx.x, n_head = gridDim.x, prompt = blockIdx.y, column = head * d;
    u32 start = offsets[prompt], length = offsets[prompt + 1] - start;
    u64 width = (u64)n_head * d, from = (u64)start * kv_stride + column;
    float of_q[SHARE], result[SHARE] = {};
    load_share<T>(of_q, q + prompt * width + column, q_bias ? q_bias + column : nullptr, d);
    float sum = last_exponentials<T>(scores, of_q, k + from, k_bias ? k_bias + column : nullptr, length, kv_stride, d,
                                     scratch);
    u64 element = ((u64)head * length + length - 1) * length;
    for (u32 key = threadIdx.x / SHARERS; key < length; key += LAST_THREADS / SHARERS) {
        float share[SHARE], weight = as_float(as<T>(scores[key] * factor(dropout, prompt, element + key)));
        load_share<T>(share, v + from + key * (u64)kv_stride, v_bias ? v_bias + column : nullptr, d);
        for (u32 i = 0; i < SHARE; ++i) result[i] += weight * share[i];
    }
    store_shares(out + prompt * width + column, result, sum, scratch, d);
}
// The formats of the products; `_wide` reads and writes f32.
#define LAST(NAME, T, IO)                                                                                             \
    extern "C" __global__ void attention_last_##NAME(                                                                 \
        IO *out, const IO *q, const IO *k, const IO *v, u32 kv_stride, const float *q_bias, const float *k_bias,      \
        const float *v_bias, const u32 *offsets, const u64 *draws, u64 threshold, float kept, u32 d) {                \
        attention_last<T>(out, q, k, v, kv_stride, q_bias, k_bias, v_bias, offsets, draws, threshold, kept, d);       \
    }
LAST(f32, float, float)
LAST(f16, half_t, half_t)
LAST(bf16, bf16_t, bf16_t)
LAST(wide_f16, half_t, float)
LAST(wide_bf16, bf16_t, float)
#undef LAST

// of_q `[prompts, n_head · d]`; of_k and of_v, columns of rows `kv_stride` wide, at every position.
//
// Scores are computed again in the format T of the forward pass; all other products have factors in U.
template <typename T, typename U>
__device__ void attention_last_gradient(float *of_q, float *of_k, float *of_v, const float *q, const float *k,
                                        const float *v, u32 kv_stride, const float *upstream, const u32 *offsets,
                                        const u64 *draws, u64 threshold, float kept, u32 d) {
    SHARED_NUMBERS(scores);
    __shared__ float scratch[LAST_THREADS / WARP * HEAD];
    Dropout dropout = {draws, threshold, kept};
    u32 head = blockIdx.x, n_head = gridDim.x, prompt = blockIdx.y, column = head * d;
    u32 start = offsets[prompt], length = offsets[prompt + 1] - start;
    u64 width = (u64)n_head * d, from = (u64)start * kv_stride + column;
    float query[SHARE], above[SHARE], sums[SHARE] = {};
    load_share<T>(query, q + prompt * width + column, nullptr, d);
    load_share<U>(above, upstream + prompt * width + column, nullptr, d);
    float divisor = last_exponentials<T>(scores, query, k + from, nullptr, length, kv_stride, d, scratch);
    load_share<U>(query, q + prompt * width + column, nullptr, d);
    float *of_scores = scores + length, scale = 1.0f / sqrtf((float)d), sum = 0.0f;
    u64 element = ((u64)head * length + length - 1) * length;
    for (u32 at = 0; at < length; at += LAST_THREADS / SHARERS) {
        u32 key = min(at + threadIdx.x / SHARERS, length - 1);
        u64 row = from + key * (u64)kv_stride;
        float share[SHARE];
        load_share<U>(share, v + row, nullptr, d);
        float of_weight = dot(above, share);
        if (at + threadIdx.x / SHARERS >= length) continue;
        float keep = factor(dropout, prompt, element + key), probability = scores[key] / divisor;
        float weight = as_float(as<U>(probability * keep));
        for (u32 i = 0; i < SHARE; ++i) {
            u32 c = i * SHARERS + threadIdx.x % SHARERS;
            if (c < d) of_v[row + c] = weight * above[i];
        }
        if (threadIdx.x % SHARERS > 0) continue;
        of_scores[key] = of_weight * keep;
        sum += probability * of_scores[key];
    }
    sum = block_sum(sum, scratch);
    for (u32 key = threadIdx.x / SHARERS; key < length; key += LAST_THREADS / SHARERS) {
        u64 row = from + key * (u64)kv_stride;
        float share[SHARE], of_score = as_float(as<U>(scores[key] / divisor * (of_scores[key] - sum) * scale));
        load_share<U>(share, k + row, nullptr, d);
        for (u32 i = 0; i < SHARE; ++i) {
            u32 c = i * SHARERS + threadIdx.x % SHARERS;
            if (c < d) of_k[row + c] = of_score * query[i];
            sums[i] += of_score * share[i];
        }
    }
    store_shares(of_q + prompt * width + column, sums, 1.0f, scratch, d);
}
#define LAST_GRADIENT(NAME, T, U)                                                                                     \
    extern "C" __global__ void attention_last_gradient_##NAME(                                                        \
        float *of_q, float *of_k, float *of_v, const float *q, const float *k, const float *v, u32 kv_stride,         \
        const float *upstream, const u32 *offsets, const u64 *draws, u64 threshold, float kept, u32 d) {              \
        attention_last_gradient<T, U>(of_q, of_k, of_v, q, k, v, kv_stride, upstream, offsets, draws, threshold,      \
                                      kept, d);                                                                       \
    }
LAST_GRADIENT(f32, float, float)
LAST_GRADIENT(f16, half_t, bf16_t)
LAST_GRADIENT(bf16, bf16_t, bf16_t)
#undef LAST_GRADIENT
