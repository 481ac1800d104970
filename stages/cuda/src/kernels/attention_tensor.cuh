// Causal attention of every position on tensor cores, and its gradients.
//
// Queries, keys, values and weights are rounded to the format of the products, scores, softmax and
// sums are f32. A block has 4 warps of 16 queries (for the gradients of keys and values: 16 keys) and
// goes through tiles of 64 keys (queries); scores and weights stay in registers, as in
// FlashAttention-2 (Dao, 2023). Sums run in a fixed order, without atomics.
#pragma once

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

// The sum or the maximum over the four lanes that share a row.
__device__ inline float row_sum(float value) { return sum_over<4>(value); }
__device__ inline float row_largest(float value) { return largest_over<4>(value); }

// out[t] = attention of q[t] to the k and v of its prompt up to t; arguments and grid as of `attention_f32`.
template <typename T, typename Io>
__device__ void attention_tensor(Io *out, float *denominators, const Io *q, const Io *k, const Io *v, u32 q_stride,
                                 u32 kv_stride, const float *q_bias, const float *k_bias, const float *v_bias,
                                 const u32 *offsets, const u64 *draws, u64 threshold, float kept, u32 d) {
    __shared__ Tile keys, values;
    Dropout dropout = {draws, threshold, kept};
    u32 prompt = blockIdx.z, head = blockIdx.y, n_head = gridDim.y, first = blockIdx.x * TENSOR_ROWS;
    u32 start = offsets[prompt], length = offsets[prompt + 1] - start;
    if (first >= length) return; // a whole block
    u32 queries = min(TENSOR_ROWS, length - first), column = head * d;
    u32 lane = threadIdx.x % WARP, of_warp = first + threadIdx.x / WARP * STEP, query = of_warp + lane / 4;
    u32 q_factors[STEPS][4];
    fill<T>(keys, Rows<Io>{q + (u64)(start + first) * q_stride + column, q_bias ? q_bias + column : nullptr, q_stride,
                           queries, d});
    __syncthreads();
    left_factors(q_factors, keys);
    // Powers of two: exp(x) = 2^(x · log2 e).
    float scale = LOG2_E / sqrtf((float)d), largest[2] = {-INFINITY, -INFINITY}, sum[2] = {}, result[HEAD / 8][4] = {};
    for (u32 at = 0; at < first + queries; at += TENSOR_ROWS) {
        u32 count = min(TENSOR_ROWS, length - at);
        u64 from = (u64)(start + at) * kv_stride + column;
        __syncthreads();
        fill<T>(keys, Rows<Io>{k + from, k_bias ? k_bias + column : nullptr, kv_stride, count, d});
        fill<T>(values, Rows<Io>{v + from, v_bias ? v_bias + column : nullptr, kv_stride, count, d});
        __syncthreads();
        if (at > of_warp + STEP - 1) continue; // no query of this warp sees a key of the tile
        // Of the tile, as many keys as the warp sees, in eights.
        u32 eights = min(TENSOR_ROWS / 8, (of_warp + STEP - 1 - at) / 8 + 1);
        float scores[TENSOR_ROWS / 8][4], most[2] = {largest[0], largest[1]};
        for (u32 n = 0; n < TENSOR_ROWS / 8; ++n) {
            if (n < eights) multiply_rows<T>(scores[n], q_factors, keys, n * 8);
            for (u32 i = 0; i < 4; ++i) {
                u32 key = at + n * 8 + lane % 4 * 2 + i % 2;
                scores[n][i] = n < eights && key <= query + i / 2 * 8 ? scores[n][i] * scale : -INFINITY;
                most[i / 2] = fmaxf(most[i / 2], scores[n][i]);
            }
        }
        // The first keys are seen by every query, so that the maximum is finite from then on.
        float shrink[2];
        for (u32 i = 0; i < 2; ++i) {
            most[i] = row_largest(most[i]);
            shrink[i] = exp2f(largest[i] - most[i]);
            largest[i] = most[i];
            sum[i] *= shrink[i];
        }
        for (u32 n = 0; n < HEAD / 8; ++n)
            for (u32 i = 0; i < 4; ++i) result[n][i] *= shrink[i / 2];
        for (u32 n = 0; n < TENSOR_ROWS / 8; n += 2) {
            if (n >= eights) break;
            for (u32 i = 0; i < 8; ++i) {
                float &score = scores[n + i / 4][i % 4], weight = exp2f(score - most[i % 4 / 2]);
                u32 row = query + i % 4 / 2 * 8, key = at + (n + i / 4) * 8 + lane % 4 * 2 + i % 2;
                sum[i % 4 / 2] += weight;
                score = weight * factor(dropout, prompt, ((u64)head * length + row) * length + key);
            }
            u32 weights[4];
            as_left<T>(weights, scores[n], scores[n + 1]);
            multiply_columns<T>(result, weights, values, n * 8);
        }
    }
    float factors[2];
    for (u32 i = 0; i < 2; ++i) {
        sum[i] = row_sum(sum[i]);
        factors[i] = 1.0f / sum[i];
        u32 row = query + 8 * i;
        if (denominators && lane % 4 == 0 && row < length)
            denominators[(u64)(start + row) * n_head + head] = largest[i] * LN_2 + logf(sum[i]);
    }
    store_sums(out + (u64)(start + first) * n_head * d + column, (u64)n_head * d, queries, d, result, factors);
}
// The formats of the products; `_wide` reads and writes f32.
#define ATTENTION(NAME, T, IO)                                                                                        \
    extern "C" __global__ void __launch_bounds__(TENSOR_THREADS) attention_##NAME(                                    \
        IO *out, float *denominators, const IO *q, const IO *k, const IO *v, u32 q_stride, u32 kv_stride,             \
        const float *q_bias, const float *k_bias, const float *v_bias, const u32 *offsets, const u64 *draws,          \
        u64 threshold, float kept, u32 d) {                                                                           \
        attention_tensor<T>(out, denominators, q, k, v, q_stride, kv_stride, q_bias, k_bias, v_bias, offsets, draws,  \
                            threshold, kept, d);                                                                      \
    }
ATTENTION(f16, half_t, half_t)
ATTENTION(bf16, bf16_t, bf16_t)
ATTENTION(wide_f16, half_t, float)
ATTENTION(wide_bf16, bf16_t, float)
#undef ATTENTION
