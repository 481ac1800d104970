// Gradients of attention on tensor cores; what `attention_gradient.cuh` says of its kernels holds here.
//
// Scores are computed again in the format of the forward pass, so that the probabilities are its own;
// all other products have factors in bf16, whose range gradients need.
#pragma once

template <typename T>
constexpr bool IS_BF16 = false;
template <>
constexpr bool IS_BF16<bf16_t> = true;

// What turns scores and gradients of weights into weights and gradients of scores.
struct Weighing {
    float scale;
    Dropout dropout;
    u32 prompt, head, length;

    // The weight after dropout, and the gradient of the score; both 0 where the query does not see the key.
    __device__ float2 operator()(float score, float of_weight, float denominator, float dot, u32 query, u32 key) const {
        if (query >= length || key > query) return make_float2(0.0f, 0.0f);
        float keep = factor(dropout, prompt, ((u64)head * length + query) * length + key);
        float probability = exp2f((score * scale - denominator) * LOG2_E);
        return make_float2(probability * keep, probability * (of_weight * keep - dot) * scale);
    }
};

// A block owns 64 queries of a head of a prompt, a warp 16.
template <typename T>
__device__ void attention_tensor_gradient_q(float *of_q, const Attended &in, const u32 *offsets, const Dropout &dropout) {
    // Keys in T, keys in bf16 where that is another format, values in bf16.
    __shared__ Tile scored, keys, values;
    u32 prompt = blockIdx.z, head = blockIdx.y, n_head = gridDim.y, first = blockIdx.x * TENSOR_ROWS;
    u32 start = offsets[prompt], length = offsets[prompt + 1] - start;
    if (first >= length) return; // a whole block
    u32 lane = threadIdx.x % WARP, of_warp = first + threadIdx.x / WARP * STEP, query = of_warp + lane / 4;
    u32 count = min(TENSOR_ROWS, length - first), d = in.d, column = head * d;
    u64 width = (u64)n_head * d, place = (u64)(start + first) * width + column;
    Weighing weighing = {1.0f / sqrtf((float)d), dropout, prompt, head, length};
    u32 of_queries[STEPS][4], of_upstream[STEPS][4];
    fill<T>(scored, Rows<float>{in.q + place, nullptr, width, count, d});
    fill<bf16_t>(values, Rows<float>{in.upstream + place, nullptr, width, count, d});
    __syncthreads();
    left_factors(of_queries, scored);
    left_factors(of_upstream, values);
    float denominators[2] = {}, dots[2] = {}, sums[HEAD / 8][4] = {};
    for (u32 i = 0; i < 2 && query + 8 * i < length; ++i) {
        denominators[i] = in.denominators[(u64)(start + query + 8 * i) * n_head + head];
        dots[i] = in.dots[(u64)(start + query + 8 * i) * n_head + head];
    }
    for (u32 at = 0; at <= first; at += TENSOR_ROWS) {
        u32 there = min(TENSOR_ROWS, length - at);
        u64 from = (u64)(start + at) * in.kv_stride + column;
        __syncthreads();
        fill<T>(scored, Rows<float>{in.k + from, nullptr, in.kv_stride, there, d}, IS_BF16<T> ? nullptr : &keys);
        fill<bf16_t>(values, Rows<float>{in.v + from, nullptr, in.kv_stride, there, d});
        __syncthreads();
        for (u32 n = 0; n < TENSOR_ROWS && at + n < of_warp + STEP; n += STEP) {
            float of_scores[2][4], of_weights[2][4];
            for (u32 half = 0; half < 2; ++half) {
                multiply_rows<T>(of_scores[half], of_queries, scored, n + 8 * half);
                multiply_rows<bf16_t>(of_weights[half], of_upstream, values, n + 8 * half);
                for (u32 i = 0; i < 4; ++i) {
                    u32 row = i / 2, key = at + n + 8 * half + lane % 4 * 2 + i % 2;
                    float2 both = weighing(of_scores[half][i], of_weights[half][i], denominators[row], dots[row],
                                           query + 8 * row, key);
                    of_scores[half][i] = both.y;
                }
            }
            u32 left[4];
            as_left<bf16_t>(left, of_scores[0], of_scores[1]);
            multiply_columns<bf16_t>(sums, left, IS_BF16<T> ? scored : keys, n);
        }
    }
    store_sums(of_q + place, width, count, d, sums, {1.0f, 1.0f});
}

// A block owns 64 keys of a head of a prompt, a warp 16: scores lie transposed, a row a key.
template <typename T>
__device__ void attention_tensor_gradient_kv(float *of_k, float *of_v, const Attended &in, const u32 *offsets,
                                             const Dropout &dropout) {
    // Queries in T, queries in bf16 where that is another format, upstream in bf16.
    __shared__ Tile scored, queries, upstream;
    __shared__ float denominators[TENSOR_ROWS], dots[TENSOR_ROWS];
    u32 prompt = blockIdx.z, head = blockIdx.y, n_head = gridDim.y, at = blockIdx.x * TENSOR_ROWS;
    u32 start = offsets[prompt], length = offsets[prompt + 1] - start;
    if (at >= length) return; // a whole block
    u32 lane = threadIdx.x % WARP, of_warp = at + threadIdx.x / WARP * STEP, key = of_warp + lane / 4;
    u32 count = min(TENSOR_ROWS, length - at), d = in.d, column = head * d;
    u64 width = (u64)n_head * d, place = (u64)(start + at) * in.kv_stride + column;
    Weighing weighing = {1.0f / sqrtf((float)d), dropout, prompt, head, length};
    u32 of_keys[STEPS][4], of_values[STEPS][4];
    fill<T>(scored, Rows<float>{in.k + place, nullptr, in.kv_stride, count, d});
    fill<bf16_t>(upstream, Rows<float>{in.v + place, nullptr, in.kv_stride, count, d});
    __syncthreads();
    left_factors(of_keys, scored);
    left_factors(of_values, upstream);
    float sums_k[HEAD / 8][4] = {}, sums_v[HEAD / 8][4] = {};
    for (u32 first = at; first < length; first += TENSOR_ROWS) {
        u32 there = min(TENSOR_ROWS, length - first);
        u64 from = (u64)(start + first) * width + column;
        __syncthreads();
        fill<T>(scored, Rows<float>{in.q + from, nullptr, width, there, d}, IS_BF16<T> ? nullptr : &queries);
        fill<bf16_t>(upstream, Rows<float>{in.upstream + from, nullptr, width, there, d});
        if (threadIdx.x < there) {
            denominators[threadIdx.x] = in.denominators[(u64)(start + first + threadIdx.x) * n_head + head];
            dots[threadIdx.x] = in.dots[(u64)(start + first + threadIdx.x) * n_head + head];
        }
        __syncthreads();
        for (u32 n = 0; n < there; n += STEP) {
            if (first + n + STEP <= of_warp) continue; // none of these queries sees a key of the warp
            float weights[2][4], of_scores[2][4];
            for (u32 half = 0; half < 2; ++half) {
                multiply_rows<T>(of_scores[half], of_keys, scored, n + 8 * half);
                multiply_rows<bf16_t>(weights[half], of_values, upstream, n + 8 * half);
                for (u32 i = 0; i < 4; ++i) {
                    u32 row = n + 8 * half + lane % 4 * 2 + i % 2;
                    float2 both = weighing(of_scores[half][i], weights[half][i], denominators[row], dots[row],
                                           first + row, key + i / 2 * 8);
                    weights[half][i] = both.x;
                    of_scores[half][i] = both.y;
                }
            }
            u32 left[4];
            as_left<bf16_t>(left, weights[0], weights[1]);
            multiply_columns<bf16_t>(sums_v, left, upstream, n);
            as_left<bf16_t>(left, of_scores[0], of_scores[1]);
            multiply_columns<bf16_t>(sums_k, left, IS_BF16<T> ? scored : queries, n);
        }
    }
    store_sums(of_k + place, in.kv_stride, count, d, sums_k, {1.0f, 1.0f});
    store_sums(of_v + place, in.kv_stride, count, d, sums_v, {1.0f, 1.0f});
}

// In the format of the forward pass; arguments and grid as of the kernels in f32.
#define GRADIENTS(NAME, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(TENSOR_THREADS) attention_gradient_q_##NAME(                         \
        float *of_q, const float *q, const float *k, const float *v, u32 kv_stride, const float *upstream,            \
        const float *denominators, const float *dots, const u32 *offsets, const u64 *draws, u64 threshold,            \
        float kept, u32 d) {                                                                                          \
        Attended in = {q, k, v, upstream, denominators, dots, kv_stride, d};                                          \
        attention_tensor_gradient_q<T>(of_q, in, offsets, {draws, threshold, kept});                                  \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(TENSOR_THREADS) attention_gradient_kv_##NAME(                        \
        float *of_k, float *of_v, const float *q, const float *k, const float *v, u32 kv_stride,                      \
        const float *upstream, const float *denominators, const float *dots, const u32 *offsets, const u64 *draws,    \
        u64 threshold, float kept, u32 d) {                                                                           \
        Attended in = {q, k, v, upstream, denominators, dots, kv_stride, d};                                          \
        attention_tensor_gradient_kv<T>(of_k, of_v, in, offsets, {draws, threshold, kept});                           \
    }
GRADIENTS(f16, half_t)
GRADIENTS(bf16, bf16_t)
#undef GRADIENTS
