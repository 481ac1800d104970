// Causal attention of every position in f32, without the matrix of scores in memory.
//
// A block takes 64 queries of one head of one prompt and goes through the keys up to the last of
// them, 32 at a time, keeping the running maximum and sum of each query's softmax. A thread holds
// 4 queries: of the scores 2 keys, of the result 4 channels.
#pragma once

constexpr u32 QUERIES = 64, KEYS = 32, ATTENTION_THREADS = 256;
// Widest head.
constexpr u32 HEAD = 64;

// Copies `count` rows of a head into a tile, `bias` added, zeros beyond.
template <u32 ROWS>
__device__ inline void load_tile(float (*tile)[HEAD + 1], const float *from, const float *bias, u32 count, u64 stride,
                                 u32 d) {
    for (u32 i = threadIdx.x; i < ROWS * HEAD; i += ATTENTION_THREADS) {
        u32 row = i / HEAD, channel = i % HEAD;
        bool inside = row < count && channel < d;
        tile[row][channel] = inside ? from[row * stride + channel] + (bias ? bias[channel] : 0.0f) : 0.0f;
    }
}

// out[t] = attention of q[t] to the k and v of its prompt up to t.
//
// q, k and v are columns of rows `q_stride` or `kv_stride` wide; their biases, as wide as all heads,
// may be null. `out` is `[rows, n_head · d]`. Writes the logarithm of each softmax's denominator to
// `denominators` `[rows, n_head]` unless null. The grid is (tiles of the longest prompt, heads, prompts).
extern "C" __global__ void attention_f32(float *out, float *denominators, const float *q, const float *k, const float *v,
                                         u32 q_stride, u32 kv_stride, const float *q_bias, const float *k_bias,
                                         const float *v_bias, const u32 *offsets, const u64 *draws, u64 threshold,
                                         float kept, u32 d) {
    __shared__ float q_tile[QUERIES][HEAD + 1], k_tile[KEYS][HEAD + 1], v_tile[KEYS][HEAD + 1];
    __shared__ float weights[QUERIES][KEYS + 1];
    Dropout dropout = {draws, threshold, kept};
    u32 prompt = blockIdx.z, head = blockIdx.y, n_head = gridDim.y, first = blockIdx.x * QUERIES;
    u32 start = offsets[prompt], length = offsets[prompt + 1] - start;
    if (first >= length) return; // a whole block
    u32 queries = min(QUERIES, length - first), column = head * d;
    u32 row = threadIdx.x / 16 * 4, lane = threadIdx.x % 16;
    float scale = 1.0f / sqrtf((float)d);
    load_tile<QUERIES>(q_tile, q + (u64)(start + first) * q_stride + column, q_bias ? q_bias + column : nullptr,
                       queries, q_stride, d);
    float largest[4], sum[4], result[4][4] = {};
    for (u32 i = 0; i < 4; ++i) {
        largest[i] = -INFINITY;
        sum[i] = 0.0f;
    }
    for (u32 at = 0; at < first + queries; at += KEYS) {
        u32 count = min(KEYS, length - at);
        u64 from = (u64)(start + at) * kv_stride + column;
        __syncthreads();
        load_tile<KEYS>(k_tile, k + from, k_bias ? k_bias + column : nullptr, count, kv_stride, d);
        load_tile<KEYS>(v_tile, v + from, v_bias ? v_bias + column : nullptr, count, kv_stride, d);
        __syncthreads();
        float scores[4][2] = {};
        for (u32 c = 0; c < d; ++c) {
            float k0 = k_tile[lane * 2][c], k1 = k_tile[lane * 2 + 1][c];
            for (u32 i = 0; i < 4; ++i) {
                float of_q = q_tile[row + i][c];
                scores[i][0] += of_q * k0;
                scores[i][1] += of_q * k1;
            }
        }
        for (u32 i = 0; i < 4; ++i) {
            u32 query = first + row + i;
            float most = largest[i];
            for (u32 j = 0; j < 2; ++j) {
                bool seen = at + lane * 2 + j <= query;
                scores[i][j] = seen ? scores[i][j] * scale : -INFINITY;
                most = fmaxf(most, scores[i][j]);
            }
            // The first keys are seen by every query, so that the maximum is finite from then on.
            most = largest_over<16>(most);
            float shrink = expf(largest[i] - most), part = 0.0f;
            for (u32 j = 0; j < 2; ++j) {
                float weight = expf(scores[i][j] - most);
                part += weight;
                u64 element = ((u64)head * length + query) * length + at + lane * 2 + j;
                weights[row + i][lane * 2 + j] = weight * factor(dropout, prompt, element);
            }
            sum[i] = sum[i] * shrink + sum_over<16>(part);
            largest[i] = most;
            for (u32 c = 0; c < 4; ++c) result[i][c] *= shrink;
        }
        __syncwarp();
        for (u32 j = 0; j < KEYS; ++j) {
            float of_v[4];
            for (u32 c = 0; c < 4; ++c) of_v[c] = v_tile[j][lane * 4 + c];
            for (u32 i = 0; i < 4; ++i) {
                float weight = weights[row + i][j];
                for (u32 c = 0; c < 4; ++c) result[i][c] += weight * of_v[c];
            }
        }
    }
    for (u32 i = 0; i < 4 && row + i < queries; ++i) {
        u64 position = start + first + row + i;
        for (u32 c = 0; c < 4; ++c)
            if (lane * 4 + c < d) out[position * n_head * d + column + lane * 4 + c] = result[i][c] / sum[i];
        if (denominators && lane == 0) denominators[position * n_head + head] = largest[i] + logf(sum[i]);
    }
}
