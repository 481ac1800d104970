// Matrix products on tensor cores, from compute capability 8.0 on, and tiles for them.
//
// The lanes of a warp hold a matrix together, lane 4g + t two numbers in a word (PTX ISA, "Matrix
// fragments for mma.m16n8k16"):
//   a left factor 16 × 16: rows g and g + 8, columns 2t, 2t + 1 and, in words 2 and 3, those + 8
//   a right factor 16 × 8: rows 2t, 2t + 1 and, in word 1, those + 8; column g
//   a sum 16 × 8: rows g and g + 8 (numbers 2 and 3), columns 2t and 2t + 1
#pragma once

template <typename Pair>
__device__ inline u32 word_of(Pair pair) {
    u32 word;
    memcpy(&word, &pair, sizeof word);
    return word;
}

// Two numbers in a word, the first in the lower half.
template <typename T>
__device__ inline u32 pack(float low, float high);
template <>
__device__ inline u32 pack<half_t>(float low, float high) { return word_of(__floats2half2_rn(low, high)); }
template <>
__device__ inline u32 pack<bf16_t>(float low, float high) { return word_of(__floats2bfloat162_rn(low, high)); }

#ifndef ON_HOST
// sum += left · right, with products and sums in f32.
template <typename T>
__device__ inline void multiply_add(float (&sum)[4], const u32 (&left)[4], u32 right_0, u32 right_1);
template <>
__device__ inline void multiply_add<half_t>(float (&sum)[4], const u32 (&left)[4], u32 right_0, u32 right_1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_0), "r"(right_1));
}
template <>
__device__ inline void multiply_add<bf16_t>(float (&sum)[4], const u32 (&left)[4], u32 right_0, u32 right_1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_0), "r"(right_1));
}

// Four matrices of 8 × 8 numbers, transposed: lane 8m + r gives the address of row r of matrix m in
// shared memory, a multiple of 16; word m of lane 4g + t receives the numbers of rows 2t and 2t + 1 in column g.
__device__ inline void load_transposed(u32 (&words)[4], const u32 *row) {
    u32 address = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
}
#endif

// Rows of a head that a block holds at once.
constexpr u32 TENSOR_ROWS = 64;
constexpr u32 TENSOR_THREADS = 128;
// Channels that one product takes, and the products of the widest head.
constexpr u32 STEP = 16, STEPS = HEAD / STEP;

// Rows of a head as words of two channels, zeros beyond its width. A row is 4 words longer than it
// must be: so rows that are read together lie in different banks.
struct alignas(16) Tile {
    u32 words[TENSOR_ROWS][HEAD / 2 + 4];
};

// What rows of a head are read from: `count` rows of `width` channels, `stride` numbers apart; the bias may be null.
template <typename In>
struct Rows {
    const In *from;
    const float *bias;
    u64 stride;
    u32 count, width;

    // Channels `channel` to `channel + 3` of a row, zeros beyond, `channel` a multiple of 4.
    __device__ Vector<4> four(u32 row, u32 channel) const {
        if (row >= count || channel >= width) return {};
        const In *at = from + row * stride + channel;
        if (width % 4 == 0 && stride % 4 == 0 && are_aligned(from)) {
            Vector<4> numbers = load(Lanes<4>(), at);
            if (bias)
                for (u32 i = 0; i < 4; ++i) numbers.at[i] += bias[channel + i];
            return numbers;
        }
        Vector<4> numbers = {};
        for (u32 i = 0; i < min(4u, width - channel); ++i)
            numbers.at[i] = as_float(at[i]) + (bias ? bias[channel + i] : 0.0f);
        return numbers;
    }
};

// Fills a tile with rows in the format T, and `other` with the same in bf16 unless it is null.
template <typename T, typename In>
__device__ inline void fill(Tile &tile, const Rows<In> &rows, Tile *other = nullptr) {
    constexpr u32 FOURS = HEAD / 4;
    for (u32 i = threadIdx.x; i < TENSOR_ROWS * FOURS; i += TENSOR_THREADS) {
        u32 row = i / FOURS, channel = i % FOURS * 4;
        Vector<4> four = rows.four(row, channel);
        tile.words[row][channel / 2] = pack<T>(four.at[0], four.at[1]);
        tile.words[row][channel / 2 + 1] = pack<T>(four.at[2], four.at[3]);
        if (other) {
            other->words[row][channel / 2] = pack<bf16_t>(four.at[0], four.at[1]);
            other->words[row][channel / 2 + 1] = pack<bf16_t>(four.at[2], four.at[3]);
        }
    }
}

// The 16 rows of this warp as left factors, one a step of channels.
__device__ inline void left_factors(u32 (&left)[STEPS][4], const Tile &tile) {
    u32 lane = threadIdx.x % WARP, row = threadIdx.x / WARP * STEP + lane / 4, t = lane % 4;
    for (u32 step = 0; step < STEPS; ++step)
        for (u32 i = 0; i < 4; ++i) left[step][i] = tile.words[row + i % 2 * 8][step * 8 + i / 2 * 4 + t];
}

// sum = left · the 8 rows of `tile` from `row` on, transposed.
template <typename T>
__device__ inline void multiply_rows(float (&sum)[4], const u32 (&left)[STEPS][4], const Tile &tile, u32 row) {
    u32 lane = threadIdx.x % WARP;
    const u32 *words = tile.words[row + lane / 4] + lane % 4;
    for (u32 i = 0; i < 4; ++i) sum[i] = 0.0f;
    for (u32 step = 0; step < STEPS; ++step) multiply_add<T>(sum, left[step], words[step * 8], words[step * 8 + 4]);
}

// sums += left · the 16 rows of `tile` from `row` on: 8 channels a sum.
template <typename T>
__device__ inline void multiply_columns(float (&sums)[HEAD / 8][4], const u32 (&left)[4], const Tile &tile, u32 row) {
    u32 lane = threadIdx.x % WARP;
    for (u32 column = 0; column < HEAD; column += 16) {
        u32 right[4];
        load_transposed(right, &tile.words[row + lane % 16][column / 2 + lane / 16 * 4]);
        multiply_add<T>(sums[column / 8], left, right[0], right[1]);
        multiply_add<T>(sums[column / 8 + 1], left, right[2], right[3]);
    }
}

// A left factor from two sums beside each other: of 16 columns.
template <typename T>
__device__ inline void as_left(u32 (&left)[4], const float (&first)[4], const float (&second)[4]) {
    left[0] = pack<T>(first[0], first[1]);
    left[1] = pack<T>(first[2], first[3]);
    left[2] = pack<T>(second[0], second[1]);
    left[3] = pack<T>(second[2], second[3]);
}

// Writes sums, times a factor of each of the two rows, to `count` rows of `width` channels that begin
// `stride` numbers apart.
template <typename Out>
__device__ inline void store_sums(Out *out, u64 stride, u32 count, u32 width, const float (&sums)[HEAD / 8][4],
                                  const float (&factors)[2]) {
    u32 lane = threadIdx.x % WARP, first = threadIdx.x / WARP * STEP + lane / 4;
    bool paired = width % 2 == 0 && stride % 2 == 0 && are_aligned(out);
    for (u32 i = 0; i < 2; ++i) {
        u32 row = first + 8 * i;
        if (row >= count) continue;
        for (u32 n = 0; n < HEAD / 8; ++n) {
            u32 channel = n * 8 + lane % 4 * 2;
            Out *to = out + row * stride + channel;
            Vector<2> pair = {sums[n][2 * i] * factors[i], sums[n][2 * i + 1] * factors[i]};
            if (paired && channel < width)
                store(to, pair);
            else
                for (u32 j = 0; j < 2; ++j)
                    if (channel + j < width) to[j] = as<Out>(pair.at[j]);
        }
    }
}
