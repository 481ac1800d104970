// Four neighbouring numbers at once: one access of memory, and no division to find row and channel.
#pragma once

// How many numbers a thread takes together, as a type.
template <u32 N>
struct Lanes {};

// Numbers that a thread takes together, in f32.
template <u32 N>
struct Vector {
    static constexpr u32 COUNT = N;
    float at[N];
};

// What an instruction moves, by its bytes.
template <u32 BYTES>
struct Word;
template <>
struct Word<16> { typedef uint4 Type; };
template <>
struct Word<8> { typedef uint2 Type; };
template <>
struct Word<4> { typedef u32 Type; };
template <>
struct Word<2> { typedef unsigned short Type; };

// The vector whose number `i` is `of(i)`.
template <u32 N, typename Of>
__device__ inline Vector<N> vector_of(Lanes<N>, Of of) {
    Vector<N> out;
    for (u32 i = 0; i < N; ++i) out.at[i] = of(i);
    return out;
}

template <u32 N, typename T>
__device__ inline Vector<N> load(Lanes<N> lanes, const T *from) {
    typedef typename Word<N * sizeof(T)>::Type Moved;
    Moved word = *reinterpret_cast<const Moved *>(from);
    T numbers[N];
    memcpy(numbers, &word, sizeof word);
    return vector_of(lanes, [&](u32 i) { return as_float(numbers[i]); });
}

// `__stcg`, since nvcc 13.0 splits a plain store of four numbers that were not loaded from there. The
// first level of the cache, which it passes by, keeps no stores anyway.
template <u32 N, typename T>
__device__ inline void store(T *to, Vector<N> values) {
    typedef typename Word<N * sizeof(T)>::Type Moved;
    T numbers[N];
    for (u32 i = 0; i < N; ++i) numbers[i] = as<T>(values.at[i]);
    Moved word;
    memcpy(&word, numbers, sizeof word);
    __stcg(reinterpret_cast<Moved *>(to), word);
}

template <u32 N>
__device__ inline Vector<N> operator+(Vector<N> a, Vector<N> b) {
    return vector_of(Lanes<N>(), [&](u32 i) { return a.at[i] + b.at[i]; });
}
template <u32 N>
__device__ inline Vector<N> operator*(Vector<N> a, Vector<N> b) {
    return vector_of(Lanes<N>(), [&](u32 i) { return a.at[i] * b.at[i]; });
}

// What elements from `element` on of a prompt are multiplied by.
template <u32 N>
__device__ inline Vector<N> factors(Lanes<N> lanes, const Dropout &dropout, u32 prompt, u64 element) {
    return vector_of(lanes, [&](u32 i) { return factor(dropout, prompt, element + i); });
}

// Whether four numbers at a time can be moved from or to each of these addresses.
template <typename... T>
__device__ inline bool are_aligned(const T *...places) {
    return ((reinterpret_cast<u64>(places) % (4 * sizeof(T)) == 0) && ...);
}

// Calls `work(lanes, row, channel)` for the first of each few channels of every row: channels of a row
// are along x of the grid, rows along y. `aligned` is of all matrices and vectors that `work` uses.
template <typename Work>
__device__ inline void each_of_rows(bool aligned, u32 rows, u32 width, Work work) {
    u32 thread = (u32)first_index(), threads = (u32)index_step();
    for (u64 row = blockIdx.y; row < rows; row += gridDim.y)
        if (aligned && width % 4 == 0)
            for (u32 channel = 4 * thread; channel < width; channel += 4 * threads) work(Lanes<4>(), row, channel);
        else
            for (u32 channel = thread; channel < width; channel += threads) work(Lanes<1>(), row, channel);
}

// Calls `work(lanes, i)` for the first of each few of `count` numbers.
template <typename Work>
__device__ inline void each_of(bool aligned, u64 count, Work work) {
    u64 fours = aligned ? count / 4 : 0;
    for (u64 i = first_index(); i < fours; i += index_step()) work(Lanes<4>(), 4 * i);
    for (u64 i = 4 * fours + first_index(); i < count; i += index_step()) work(Lanes<1>(), i);
}
