// Layer norm and its gradients; a warp takes a row.
#pragma once

constexpr float NORM_EPSILON = 1e-5f;

// The widest row that a warp holds in registers: GPT-2 medium's.
constexpr u32 WIDEST_HELD = 1024;

// A row `x + added` that the lanes of a warp share: read from memory each time.
struct ReadRow {
    const float *x, *added;
    u32 width;

    __device__ ReadRow(const float *x, const float *added, u32 width) : x(x), added(added), width(width) {}

    // Calls `work(lanes, channel, values)` for the first of each few channels of this lane.
    template <typename Work>
    __device__ void each(Work work) const {
        Lanes<1> lanes;
        for (u32 i = threadIdx.x % WARP; i < width; i += WARP) {
            auto values = load(lanes, x + i);
            work(lanes, i, added ? values + load(lanes, added + i) : values);
        }
    }
};

// The same, read once, for rows that can be moved in fours and are at most `WIDEST_HELD` wide.
struct HeldRow {
    static constexpr u32 PARTS = WIDEST_HELD / (4 * WARP);
    Vector<4> parts[PARTS];
    u32 width;

    __device__ HeldRow(const float *x, const float *added, u32 width) : width(width) {
        Lanes<4> lanes;
        for (u32 part = 0; part < PARTS; ++part) {
            u32 i = channel_of(part);
            if (i >= width) continue;
            parts[part] = load(lanes, x + i);
            if (added) parts[part] = parts[part] + load(lanes, added + i);
        }
    }

    static __device__ u32 channel_of(u32 part) { return 4 * (part * WARP + threadIdx.x % WARP); }

    template <typename Work>
    __device__ void each(Work work) const {
        for (u32 part = 0; part < PARTS; ++part)
            if (channel_of(part) < width) work(Lanes<4>(), channel_of(part), parts[part]);
    }
};

// Mean of a row and one over its deviation, in every lane.
template <typename Row>
__device__ inline float2 mean_and_scale(const Row &row) {
    float sum = 0.0f, squares = 0.0f;
    row.each([&](auto, u32, auto values) {
        for (float value : values.at) sum += value;
    });
    float mean = sum_over<WARP>(sum) / row.width;
    row.each([&](auto, u32, auto values) {
        for (float value : values.at) squares += (value - mean) * (value - mean);
    });
    return make_float2(mean, 1.0f / sqrtf(sum_over<WARP>(squares) / row.width + NORM_EPSILON));
}

template <typename Row, typename Out>
__device__ void normalize(Out *out, float *wide, const Row &row, const float *weight, const float *bias) {
    float2 stats = mean_and_scale(row);
    row.each([&](auto lanes, u32 channel, auto values) {
        auto normal = vector_of(lanes, [&](u32 i) { return (values.at[i] - stats.x) * stats.y; });
        normal = normal * load(lanes, weight + channel) + load(lanes, bias + channel);
        store(out + channel, normal);
        if (wide) store(wide + channel, normal);
    });
}

// out = norm(x + added), where `added` is one row for all, or null; also to `wide`, where that is not null.
template <typename Out>
__device__ void layer_norm(Out *out, float *wide, const float *x, const float *added, const float *weight,
                           const float *bias, u32 rows, u32 width) {
    u32 row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row >= rows) return; // a whole warp
    x += (u64)row * width;
    out += (u64)row * width;
    if (wide) wide += (u64)row * width;
    if (width <= WIDEST_HELD && width % 4 == 0 && are_aligned(out, wide, x, added, weight, bias))
        normalize(out, wide, HeldRow(x, added, width), weight, bias);
    else
        normalize(out, wide, ReadRow(x, added, width), weight, bias);
}
#define PARAMETERS(OUT)                                                                                       \
    (OUT *out, float *wide, const float *x, const float *added, const float *weight, const float *bias, u32 rows, \
     u32 width)
IN_EVERY_FORMAT(layer_norm, PARAMETERS, (out, wide, x, added, weight, bias, rows, width))
#undef PARAMETERS

// Writes mean and scale of the row `x` to `stats`; input += its gradient, where `input` is not null.
template <typename Row>
__device__ void add_norm_gradient(float *input, float *stats, const Row &x, const float *upstream,
                                  const float *weight) {
    float2 of_row = mean_and_scale(x);
    if (threadIdx.x % WARP == 0) {
        stats[0] = of_row.x;
        stats[1] = of_row.y;
    }
    if (!input) return;
    float plain = 0.0f, along = 0.0f;
    x.each([&](auto lanes, u32 channel, auto values) {
        auto pulled = load(lanes, upstream + channel) * load(lanes, weight + channel);
        for (u32 i = 0; i < pulled.COUNT; ++i) {
            plain += pulled.at[i];
            along += pulled.at[i] * (values.at[i] - of_row.x) * of_row.y;
        }
    });
    plain = sum_over<WARP>(plain) / x.width;
    along = sum_over<WARP>(along) / x.width;
    x.each([&](auto lanes, u32 channel, auto values) {
        auto pulled = load(lanes, upstream + channel) * load(lanes, weight + channel);
        auto gradient = vector_of(lanes, [&](u32 i) {
            float normal = (values.at[i] - of_row.x) * of_row.y;
            return of_row.y * (pulled.at[i] - plain - normal * along);
        });
        store(input + channel, load(lanes, input + channel) + gradient);
    });
}

// input += the gradient of the rows `x`; writes mean and scale of each row to `stats` `[rows, 2]`.
// `input` may be null, where only the parameters' gradients are wanted.
extern "C" __global__ void layer_norm_gradient(float *input, float *stats, const float *x, const float *weight,
                                               const float *upstream, u32 rows, u32 width) {
    u32 row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;
    u64 first = (u64)row * width;
    x += first;
    upstream += first;
    stats += 2 * (u64)row;
    if (input) input += first;
    if (width <= WIDEST_HELD && width % 4 == 0 && are_aligned(input, x, upstream, weight))
        add_norm_gradient(input, stats, HeldRow(x, nullptr, width), upstream, weight);
    else
        add_norm_gradient(input, stats, ReadRow(x, nullptr, width), upstream, weight);
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
