// Embeddings, and kernels that move, add or sum rows.
#pragma once

// out[r] = of_token[tokens[r]] + of_position[places[r]]
extern "C" __global__ void embed(float *out, const float *of_token, const float *of_position,
                                 const u32 *tokens, const u32 *places, u32 rows, u32 width) {
    each_of_rows(are_aligned(out, of_token, of_position), rows, width, [=](auto lanes, u64 row, u32 channel) {
        const float *token = of_token + (u64)tokens[row] * width, *place = of_position + (u64)places[row] * width;
        store(out + row * width + channel, load(lanes, token + channel) + load(lanes, place + channel));
    });
}

// Adds `bias` to every row.
extern "C" __global__ void add_bias(float *x, const float *bias, u32 rows, u32 width) {
    each_of_rows(are_aligned(x, bias), rows, width, [=](auto lanes, u64 row, u32 channel) {
        float *at = x + row * width + channel;
        store(at, load(lanes, at) + load(lanes, bias + channel));
    });
}

// out = residual + dropout(branch + bias); `out` may be `residual` or `branch`, `bias` may be null.
//
// `owners` and `places` say of each row whose it is and at which position.
extern "C" __global__ void add_branch(float *out, const float *residual, const float *branch, const float *bias,
                                      const u32 *owners, const u32 *places, const u64 *keys, u64 threshold,
                                      float kept, u32 rows, u32 width) {
    Dropout dropout = {keys, threshold, kept};
    bool aligned = are_aligned(out, residual, branch, bias);
    each_of_rows(aligned, rows, width, [=](auto lanes, u64 row, u32 channel) {
        u64 at = row * width + channel;
        auto keep = factors(lanes, dropout, owners[row], (u64)places[row] * width + channel);
        auto sum = load(lanes, branch + at);
        if (bias) sum = sum + load(lanes, bias + channel);
        store(out + at, load(lanes, residual + at) + sum * keep);
    });
}

// out = dropout(in)
template <typename Out>
__device__ void drop(Out *out, const float *in, const u32 *owners, const u32 *places, Dropout dropout, u32 rows,
                     u32 width) {
    each_of_rows(are_aligned(out, in), rows, width, [=](auto lanes, u64 row, u32 channel) {
        u64 at = row * width + channel;
        auto keep = factors(lanes, dropout, owners[row], (u64)places[row] * width + channel);
        store(out + at, load(lanes, in + at) * keep);
    });
}
#define PARAMETERS(OUT)                                                                             \
    (OUT *out, const float *in, const u32 *owners, const u32 *places, const u64 *keys, u64 threshold, \
     float kept, u32 rows, u32 width)
IN_EVERY_FORMAT(drop, PARAMETERS, (out, in, owners, places, {keys, threshold, kept}, rows, width))
#undef PARAMETERS

// The last row of each prompt.
extern "C" __global__ void gather_last(float *out, const float *in, const u32 *offsets, u32 prompts, u32 width) {
    each_of_rows(are_aligned(out, in), prompts, width, [=](auto lanes, u64 prompt, u32 channel) {
        u64 last = offsets[prompt + 1] - 1;
        store(out + prompt * width + channel, load(lanes, in + last * width + channel));
    });
}

// Adds one row a prompt to its last row.
extern "C" __global__ void scatter_last(float *to, const float *rows, const u32 *offsets, u32 prompts, u32 width) {
    each_of_rows(are_aligned(to, rows), prompts, width, [=](auto lanes, u64 prompt, u32 channel) {
        u64 last = offsets[prompt + 1] - 1;
        float *at = to + last * width + channel;
        store(at, load(lanes, at) + load(lanes, rows + prompt * width + channel));
    });
}

// The largest magnitude in the rows of each prompt, a block a prompt. Bit patterns of magnitudes order like
// the magnitudes, and NaN comes last.
extern "C" __global__ void largest_magnitudes(float *out, const float *x, const u32 *offsets, u32 width) {
    __shared__ u32 largest[256];
    const u32 *bits = reinterpret_cast<const u32 *>(x);
    u64 end = (u64)offsets[blockIdx.x + 1] * width;
    u32 own = 0;
    for (u64 i = (u64)offsets[blockIdx.x] * width + threadIdx.x; i < end; i += blockDim.x)
        own = max(own, bits[i] & 0x7fffffffu);
    largest[threadIdx.x] = own;
    for (u32 distance = blockDim.x / 2; distance > 0; distance /= 2) {
        __syncthreads();
        if (threadIdx.x < distance)
            largest[threadIdx.x] = max(largest[threadIdx.x], largest[threadIdx.x + distance]);
    }
    if (threadIdx.x == 0) reinterpret_cast<u32 *>(out)[blockIdx.x] = largest[0];
}

// The states of prompts, each of which lies at an address of its own in `from`.
template <typename In>
__device__ void gather_states(float *out, const u64 *from, const u32 *owners, const u32 *places, u32 rows, u32 width) {
    // Prompts begin at whole rows of aligned buffers, so that where `width` divides by four, they are aligned too.
    each_of_rows(are_aligned(out), rows, width, [=](auto lanes, u64 row, u32 channel) {
        const In *prompt = reinterpret_cast<const In *>(from[owners[row]]);
        store(out + row * width + channel, load(lanes, prompt + (u64)places[row] * width + channel));
    });
}
#define PARAMETERS (float *out, const u64 *from, const u32 *owners, const u32 *places, u32 rows, u32 width)
extern "C" __global__ void gather_states_f32 PARAMETERS { gather_states<float>(out, from, owners, places, rows, width); }
extern "C" __global__ void gather_states_f16 PARAMETERS { gather_states<half_t>(out, from, owners, places, rows, width); }
#undef PARAMETERS

template <typename Out, typename In>
__device__ void convert(Out *out, const In *in, u64 count) {
    each_of(are_aligned(out, in), count, [=](auto lanes, u64 i) { store(out + i, load(lanes, in + i)); });
}
extern "C" __global__ void convert_f16(half_t *out, const float *in, u64 count) { convert(out, in, count); }
extern "C" __global__ void convert_bf16(bf16_t *out, const float *in, u64 count) { convert(out, in, count); }
extern "C" __global__ void widen_f16(float *out, const half_t *in, u64 count) { convert(out, in, count); }
extern "C" __global__ void f16_to_bf16(bf16_t *out, const half_t *in, u64 count) { convert(out, in, count); }

// Rows that one block of a column sum takes.
constexpr u32 SUM_ROWS = 256;

// parts[b][c] = the sum of column c over the rows of block b; a block has 32 columns and 8 lanes of rows.
template <typename T>
__device__ void column_sums(float *parts, const T *x, u32 rows, u32 width, u32 stride) {
    __shared__ float sums[8][33];
    u32 lane = threadIdx.x / WARP, column = blockIdx.x * WARP + threadIdx.x % WARP;
    u32 end = min(rows, (blockIdx.y + 1) * SUM_ROWS);
    float sum = 0.0f;
    if (column < width)
        for (u32 row = blockIdx.y * SUM_ROWS + lane; row < end; row += 8) sum += as_float(x[(u64)row * stride + column]);
    sums[lane][threadIdx.x % WARP] = sum;
    __syncthreads();
    if (lane > 0 || column >= width) return;
    for (u32 other = 1; other < 8; ++other) sum += sums[other][threadIdx.x];
    parts[(u64)blockIdx.y * width + column] = sum;
}
#define PARAMETERS(T) (float *parts, const T *x, u32 rows, u32 width, u32 stride)
IN_EVERY_FORMAT(column_sums, PARAMETERS, (parts, x, rows, width, stride))
#undef PARAMETERS

// gradient[c] += the sum of column c of `parts` `[count, width]`, part of rows `stride` wide.
extern "C" __global__ void add_parts(float *gradient, const float *parts, u32 count, u32 width, u32 stride) {
    for (u64 column = first_index(); column < width; column += index_step()) {
        float sum = 0.0f;
        for (u32 part = 0; part < count; ++part) sum += parts[(u64)part * stride + column];
        gradient[column] += sum;
    }
}
