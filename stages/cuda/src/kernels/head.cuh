// A head with one logit, and the binary cross-entropy of it.
#pragma once

// logits[i] = last[i] · weight + bias; a warp takes a prompt.
extern "C" __global__ void head_logits(float *logits, const float *last, const float *weight, const float *bias,
                                       u32 prompts, u32 width) {
    u32 prompt = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (prompt >= prompts) return;
    float sum = 0.0f;
    for (u32 i = lane; i < width; i += WARP) sum += last[(u64)prompt * width + i] * weight[i];
    sum = sum_over<WARP>(sum);
    if (lane == 0) logits[prompt] = sum + bias[0];
}

// of_logits = share · the slope of the loss; adds the loss of all prompts to `loss`. One thread:
// a micro-batch has a few prompts, and the order of the sum is fixed.
extern "C" __global__ void cross_entropy(float *of_logits, double *loss, const float *logits, const float *labels,
                                         float share, u32 prompts) {
    if (first_index() > 0) return;
    double sum = 0.0;
    for (u32 i = 0; i < prompts; ++i) {
        float z = logits[i];
        double against = labels[i] > 0.5f ? -(double)z : (double)z;
        sum += fmax(against, 0.0) + log1p(exp(-fabs(against)));
        of_logits[i] = share * (1.0f / (1.0f + expf(-z)) - labels[i]);
    }
    *loss += sum;
}

// Gradients of the head: of_last = of_logits · weightᵀ, of_weight += lastᵀ · of_logits, of_bias += Σ.
extern "C" __global__ void head_gradient(float *of_last, float *of_weight, float *of_bias, const float *of_logits,
                                         const float *last, const float *weight, u32 prompts, u32 width) {
    for (u64 channel = first_index(); channel < width; channel += index_step()) {
        float sum = 0.0f;
        for (u32 i = 0; i < prompts; ++i) {
            sum += of_logits[i] * last[(u64)i * width + channel];
            of_last[(u64)i * width + channel] = of_logits[i] * weight[channel];
        }
        of_weight[channel] += sum;
        if (channel == 0) {
            float of_all = 0.0f;
            for (u32 i = 0; i < prompts; ++i) of_all += of_logits[i];
            of_bias[0] += of_all;
        }
    }
}
