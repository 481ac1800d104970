// GELU of a product and its bias, in both forms, and the derivative.
#pragma once

// Forms as the Rust side numbers them.
constexpr u32 TANH_FORM = 0;

// `__fdividef` is within two units in the last place, and 0 where the exponential is beyond 2^126, as
// it should be.

__device__ inline float gelu_of(float x, u32 form) {
    if (form == TANH_FORM) {
        // 2·√(2/π): (1 + tanh u)/2 is the logistic function of 2u.
        float u = 1.5957691216f * (x + 0.044715f * x * x * x);
        return __fdividef(x, 1.0f + expf(-u));
    }
    return 0.5f * x * (1.0f + erff(x * 0.7071067811865475f));
}

__device__ inline float gelu_slope(float x, u32 form) {
    if (form == TANH_FORM) {
        float square = 0.044715f * x * x;
        float logistic = __fdividef(1.0f, 1.0f + expf(-1.5957691216f * (square * x + x)));
        return logistic + x * 1.5957691216f * (3.0f * square + 1.0f) * logistic * (1.0f - logistic);
    }
    return 0.5f * (1.0f + erff(x * 0.7071067811865475f)) + x * 0.3989422804f * expf(-0.5f * x * x);
}

// out = gelu(x + bias); `out` may be `x`.
template <typename T>
__device__ void gelu(T *out, const T *x, const float *bias, u32 rows, u32 width, u32 form) {
    each_of_rows(are_aligned(out, x, bias), rows, width, [=](auto lanes, u64 row, u32 channel) {
        u64 at = row * width + channel;
        auto sum = load(lanes, x + at) + load(lanes, bias + channel);
        store(out + at, vector_of(lanes, [&](u32 i) { return gelu_of(sum.at[i], form); }));
    });
}
#define PARAMETERS(T) (T *out, const T *x, const float *bias, u32 rows, u32 width, u32 form)
IN_EVERY_FORMAT(gelu, PARAMETERS, (out, x, bias, rows, width, form))
#undef PARAMETERS

// gradient *= the slope of GELU at x + bias
template <typename Gradient, typename T>
__device__ void gelu_gradient(Gradient *gradient, const T *x, const float *bias, u32 rows, u32 width, u32 form) {
    each_of_rows(are_aligned(gradient, x, bias), rows, width, [=](auto lanes, u64 row, u32 channel) {
        u64 at = row * width + channel;
        auto sum = load(lanes, x + at) + load(lanes, bias + channel);
        auto slope = vector_of(lanes, [&](u32 i) { return gelu_slope(sum.at[i], form); });
        store(gradient + at, load(lanes, gradient + at) * slope);
    });
}
// Named by the format of the forward pass; the backward pass of f16 is in bf16.
extern "C" __global__ void gelu_gradient_f32(float *gradient, const float *x, const float *bias, u32 rows, u32 width,
                                             u32 form) {
    gelu_gradient(gradient, x, bias, rows, width, form);
}
extern "C" __global__ void gelu_gradient_f16(bf16_t *gradient, const half_t *x, const float *bias, u32 rows,
                                             u32 width, u32 form) {
    gelu_gradient(gradient, x, bias, rows, width, form);
}
extern "C" __global__ void gelu_gradient_bf16(bf16_t *gradient, const bf16_t *x, const float *bias, u32 rows,
                                              u32 width, u32 form) {
    gelu_gradient(gradient, x, bias, rows, width, form);
}
