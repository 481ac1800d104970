// Layer norm and its gradients; a warp takes a row.
#pragma once

constexpr float NORM_EPSILON = 1e-5f;

// Mean of a row `x + added` and one over its deviation, in every lane.
__device__ inline float2 mean_and_scale(const float *x, const float *added, u32 width) {
    u32 lane = threadIdx.x % WARP;
    auto value = [=](u32 i) { return added ? x[i] + added[i] : x[i]; };
    float sum = 0.0f;
    for (u32 i = lane; i < width; i += WARP) sum += value(i);
    float mean = sum_over<WARP>(sum) / width, squares = 0.0f;
    for (u32 i = lane; i < width; i += WARP) squares += (value(i) - mean) * (value(i) - mean);
    return make_float2(mean, 1.0f / sqrtf(sum_over<WARP>(squares) / width + NORM_EPSILON));
}

// out = norm(x + added), where `added` is one row for all, or null.
template <typename Out>
__device__ void layer_norm(Out *out, const float *x, const float *added, const float *weight, const float *bias,
                           u32 rows, u32 width) {
    u32 row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= rows) return; // a whole warp
    x += (u64)row * width;
    out += (u64)row * width;
    float2 stats = mean_and_scale(x, added, width);
    for (u32 i = lane; i < width; i += WARP) {
        float value = added ? x[i] + added[i] : x[i];
        out[i] = as<Out>((value - stats.x) * stats.y * weight[i] + bias[i]);
    }
}
#define PARAMETERS(OUT) \
    (OUT *out, const float *x, const float *added, const float *weight, const float *bias, u32 rows, u32 width)
IN_EVERY_FORMAT(layer_norm, PARAMETERS, (out, x, added, weight, bias, rows, width))
#undef PARAMETERS

// input += the gradient of the rows `x`; writes mean and scale of each row to `stats` `[rows, 2]`.
// `input` may be null, where only the parameters' gradients are wanted.
extern "C" __global__ void layer_norm_gradient(float *input, float *stats, const float *x, const float *weight,
                                               const float *upstream, u32 rows, u32 width) {
    u32 row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= rows) return;
    x += (u64)row * width;
    upstream += (u64)row * width;
    float2 of_row = mean_and_scale(x, nullptr, width);
    if (lane == 0) {
        stats[2 * row] = of_row.x;
        stats[2 * row + 1] = of_row.y;
    }
    if (!input) return;
    input += (u64)row * width;
    float plain = 0.0f, along = 0.0f;
    for (u32 i = lane; i < width; i += WARP) {
        float g = upstream[i] * weight[i];
        plain += g;
        along += g * (x[i] - of_row.x) * of_row.y;
    }
    plain = sum_over<WARP>(plain) / width;
    along = sum_over<WARP>(along) / width;
    for (u32 i = lane; i < width; i += WARP) {
        float normal = (x[i] - of_row.x) * of_row.y;
        input[i] += of_row.y * (upstream[i] * weight[i] - plain - normal * along);
    }
}

// parts[b] = sums over the rows of block b of the gradients of weight, then bias: `[2 · width]`.
extern "C" __global__ void layer_norm_column_sums(float *parts, const float *stats, const float *x,
                                                  const float *upstream, u32 rows, u32 width) {
    __shared__ float sums[2][8][33];
    u32 lane = threadIdx.x / WARP, in_tile = threadIdx.x % WARP, column = blockIdx.x * WARP + in_tile;
    u32 end = min(rows, (blockIdx.y + 1) * SUM_ROWS);
    float of_weight = 0.0f, of_bias = 0.0f;
    if (column < width)
        for (u32 row = blockIdx.y * SUM_ROWS + lane; row < end; row += 8) {
            float u = upstream[(u64)row * width + column];
            of_weight += u * (x[(u64)row * width + column] - stats[2 * row]) * stats[2 * row + 1];
            of_bias += u;
        }
    sums[0][lane][in_tile] = of_weight;
    sums[1][lane][in_tile] = of_bias;
    __syncthreads();
    if (lane > 0 || column >= width) return;
    for (u32 other = 1; other < 8; ++other) {
        of_weight += sums[0][other][in_tile];
        of_bias += sums[1][other][in_tile];
    }
    parts[(u64)blockIdx.y * 2 * width + column] = of_weight;
    parts[(u64)blockIdx.y * 2 * width + width + column] = of_bias;
}
