// Gradients of the attention of every position in f32.
//
// Probabilities are computed again from the logarithms of the denominators. Two kernels, each a sum
// in a fixed order without atomics: a block of the first owns 32 queries, of the second 32 keys.
#pragma once

constexpr u32 TILE = 32;

// out[t][h] = upstream[t] · result[t] over the channels of head h: what softmax subtracts. A warp takes
// a head of a row.
extern "C" __global__ void attention_dots(float *out, const float *upstream, const float *result, u32 rows, u32 n_head,
                                          u32 d) {
    u64 i = (u64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (i >= (u64)rows * n_head) return; // a whole warp
    float sum = 0.0f;
    for (u32 c = threadIdx.x % WARP; c < d; c += WARP) sum += upstream[i * d + c] * result[i * d + c];
    sum = sum_over<WARP>(sum);
    if (threadIdx.x % WARP == 0) out[i] = sum;
}

// What both kernels read. q and upstream are `[rows, n_head · d]`; k and v are columns of `[rows, kv_stride]`.
struct Attended {
    const float *q, *k, *v, *upstream, *denominators, *dots;
    u32 kv_stride, d;
};

struct Tiles {
    float q[TILE][HEAD + 1], k[TILE][HEAD + 1], v[TILE][HEAD + 1], upstream[TILE][HEAD + 1];
    // Probabilities after dropout, and the gradient of the scores; a row a query.
    float weights[TILE][TILE + 1], of_scores[TILE][TILE + 1];
};

__device__ inline void load_queries(Tiles &tiles, const Attended &in, u32 start, u32 at, u32 count, u32 head, u32 n_head) {
    u64 width = (u64)n_head * in.d, from = (start + at) * width + head * in.d;
    load_tile<TILE>(tiles.q, in.q + from, nullptr, count, width, in.d);
    load_tile<TILE>(tiles.upstream, in.upstream + from, nullptr, count, width, in.d);
}

__device__ inline void load_keys(Tiles &tiles, const Attended &in, u32 start, u32 at, u32 count, u32 head) {
    u64 from = (u64)(start + at) * in.kv_stride + head * in.d;
    load_tile<TILE>(tiles.k, in.k + from, nullptr, count, in.kv_stride, in.d);
    load_tile<TILE>(tiles.v, in.v + from, nullptr, count, in.kv_stride, in.d);
}

// Fills `weights` and `of_scores` for the queries from `first` and the keys from `at`; a thread
// computes 2 by 2. What a query does not see, and what lies beyond the prompt, is 0.
__device__ inline void score_tile(Tiles &tiles, const Attended &in, const Dropout &dropout, u32 start, u32 length,
                                  u32 first, u32 at, u32 prompt, u32 head, u32 n_head) {
    u32 row = threadIdx.x / 16 * 2, key = threadIdx.x % 16 * 2;
    float scale = 1.0f / sqrtf((float)in.d), scores[2][2] = {}, of_weights[2][2] = {};
    for (u32 c = 0; c < in.d; ++c)
        for (u32 i = 0; i < 2; ++i)
            for (u32 j = 0; j < 2; ++j) {
                scores[i][j] += tiles.q[row + i][c] * tiles.k[key + j][c];
                of_weights[i][j] += tiles.upstream[row + i][c] * tiles.v[key + j][c];
            }
    for (u32 i = 0; i < 2; ++i)
        for (u32 j = 0; j < 2; ++j) {
            u32 query = first + row + i, to = at + key + j;
            float weight = 0.0f, of_score = 0.0f;
            if (query < length && to <= query) {
                u64 place = (u64)(start + query) * n_head + head;
                float keep = factor(dropout, prompt, ((u64)head * length + query) * length + to);
                float probability = expf(scores[i][j] * scale - in.denominators[place]);
                weight = probability * keep;
                of_score = probability * (of_weights[i][j] * keep - in.dots[place]) * scale;
            }
            tiles.weights[row + i][key + j] = weight;
            tiles.of_scores[row + i][key + j] = of_score;
        }
}

// of_q `[rows, n_head · d]`. The grid is (tiles of the longest prompt, heads, prompts).
extern "C" __global__ void attention_gradient_q_f32(float *of_q, const float *q, const float *k, const float *v, u32 kv_stride,
                                                const float *upstream, const float *denominators, const float *dots,
                                                const u32 *offsets, const u64 *keys, u64 threshold, float kept, u32 d) {
    __shared__ Tiles tiles;
    Attended in = {q, k, v, upstream, denominators, dots, kv_stride, d};
    Dropout dropout = {keys, threshold, kept};
    u32 prompt = blockIdx.z, head = blockIdx.y, n_head = gridDim.y, first = blockIdx.x * TILE;
    u32 start = offsets[prompt], length = offsets[prompt + 1] - start;
    if (first >= length) return;
    u32 row = threadIdx.x / 16 * 2, channel = threadIdx.x % 16 * 4;
    float sums[2][4] = {};
    load_queries(tiles, in, start, first, min(TILE, length - first), head, n_head);
    for (u32 at = 0; at <= first; at += TILE) {
        __syncthreads();
        load_keys(tiles, in, start, at, min(TILE, length - at), head);
        __syncthreads();
        score_tile(tiles, in, dropout, start, length, first, at, prompt, head, n_head);
        __syncthreads();
        for (u32 key = 0; key < TILE; ++key)
            for (u32 i = 0; i < 2; ++i)
                for (u32 c = 0; c < 4; ++c) sums[i][c] += tiles.of_scores[row + i][key] * tiles.k[key][channel + c];
    }
    for (u32 i = 0; i < 2 && first + row + i < length; ++i)
        for (u32 c = 0; c < 4 && channel + c < d; ++c)
            of_q[((u64)(start + first + row + i) * n_head + head) * d + channel + c] = sums[i][c];
}

// of_k and of_v, columns of rows `kv_stride` wide. The grid as above, a tile of keys a block.
extern "C" __global__ void attention_gradient_kv_f32(float *of_k, float *of_v, const float *q, const float *k, const float *v,
                                                 u32 kv_stride, const float *upstream, const float *denominators,
                                                 const float *dots, const u32 *offsets, const u64 *keys, u64 threshold,
                                                 float kept, u32 d) {
    __shared__ Tiles tiles;
    Attended in = {q, k, v, upstream, denominators, dots, kv_stride, d};
    Dropout dropout = {keys, threshold, kept};
    u32 prompt = blockIdx.z, head = blockIdx.y, n_head = gridDim.y, at = blockIdx.x * TILE;
    u32 start = offsets[prompt], length = offsets[prompt + 1] - start;
    if (at >= length) return;
    u32 key = threadIdx.x / 16 * 2, channel = threadIdx.x % 16 * 4;
    float sums_k[2][4] = {}, sums_v[2][4] = {};
    load_keys(tiles, in, start, at, min(TILE, length - at), head);
    for (u32 first = at; first < length; first += TILE) {
        __syncthreads();
        load_queries(tiles, in, start, first, min(TILE, length - first), head, n_head);
        __syncthreads();
        score_tile(tiles, in, dropout, start, length, first, at, prompt, head, n_head);
        __syncthreads();
        for (u32 query = 0; query < TILE; ++query)
            for (u32 j = 0; j < 2; ++j)
                for (u32 c = 0; c < 4; ++c) {
                    sums_k[j][c] += tiles.of_scores[query][key + j] * tiles.q[query][channel + c];
                    sums_v[j][c] += tiles.weights[query][key + j] * tiles.upstream[query][channel + c];
                }
    }
    for (u32 j = 0; j < 2 && at + key + j < length; ++j)
        for (u32 c = 0; c < 4 && channel + c < d; ++c) {
            u64 place = (u64)(start + at + key + j) * kv_stride + head * d + channel + c;
            of_k[place] = sums_k[j][c];
            of_v[place] = sums_v[j][c];
        }
}
