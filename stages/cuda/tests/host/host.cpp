// The kernels as a library for the tests: `run_kernel` starts one by its name.

#include "cuda_on_host.h"

#include "../../src/kernels/kernels.cu"

#define FORMATS(NAME, X) X(NAME##_f32) X(NAME##_f16) X(NAME##_bf16)
#define WIDE(NAME, X) FORMATS(NAME, X) X(NAME##_wide_f16) X(NAME##_wide_bf16)
#define KERNELS(X)                                                                                                   \
    X(embed) X(add_bias) X(add_branch) X(gather_last) X(scatter_last) X(largest_magnitudes) X(gather_states_f32) X(gather_states_f16) X(convert_f16) X(convert_bf16) X(widen_f16)     \
    X(f16_to_bf16) X(add_parts) X(layer_norm_gradient) X(layer_norm_column_sums) X(attention_dots) X(head_logits)     \
    X(cross_entropy) X(head_gradient) X(squares) X(total_of) X(adamw) FORMATS(drop, X) FORMATS(column_sums, X)        \
    FORMATS(layer_norm, X) FORMATS(gelu, X) FORMATS(gelu_gradient, X) WIDE(attention, X) WIDE(attention_last, X)      \
    FORMATS(attention_gradient_q, X) FORMATS(attention_gradient_kv, X) FORMATS(attention_last_gradient, X)

// Returns 0, or 1 where there is no such kernel.
extern "C" int run_kernel(const char *name, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned threads,
                          unsigned shared_bytes, void **arguments, int reversed) {
    host::State &s = host::state();
    s.kernel = nullptr;
#define CASE(NAME) \
    if (!strcmp(name, #NAME)) s.kernel = [](void **arguments) { host::call(NAME, arguments); };
    KERNELS(CASE)
#undef CASE
    if (!s.kernel) return 1;
    s.arguments = arguments;
    s.threads = threads;
    s.grid = {grid_x, grid_y, grid_z};
    s.block_size = {threads, 1, 1};
    s.exchanged.assign(threads, NAN);
    s.given.assign(threads, {});
    s.rows.assign(threads, nullptr);
    s.shared.assign(shared_bytes / 4, NAN);
    for (unsigned z = 0; z < grid_z; ++z)
        for (unsigned y = 0; y < grid_y; ++y)
            for (unsigned x = 0; x < grid_x; ++x) {
                s.block = {x, y, z};
                host::run_block(reversed != 0);
            }
    return 0;
}
