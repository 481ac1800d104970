// The kernels as C++, and a list of them by their names.
//
// The tests compile this file with `-fsanitize=thread`: each access of memory then asks `host.cpp`.

#include "cuda_on_host.h"

#include "../../src/kernels/kernels.cu"

#include "host.h"

#include <utility>

#define FORMATS(NAME, X) X(NAME##_f32) X(NAME##_f16) X(NAME##_bf16)
#define WIDE(NAME, X) FORMATS(NAME, X) X(NAME##_wide_f16) X(NAME##_wide_bf16)
#define KERNELS(X)                                                                                                   \
    X(embed) X(add_bias) X(add_branch) X(gather_last) X(scatter_last) X(gather_states_f32) X(gather_states_f16)      \
    X(largest_magnitudes) X(convert_f16) X(convert_bf16) X(widen_f16) X(f16_to_bf16) X(add_parts)                    \
    X(layer_norm_gradient) X(layer_norm_column_sums) X(attention_dots) X(head_logits) X(cross_entropy)               \
    X(head_gradient) X(squares) X(total_of) X(adamw) FORMATS(drop, X) FORMATS(column_sums, X)                        \
    FORMATS(layer_norm, X) FORMATS(gelu, X) FORMATS(gelu_gradient, X) WIDE(attention, X) WIDE(attention_last, X)     \
    FORMATS(attention_gradient_q, X) FORMATS(attention_gradient_kv, X) FORMATS(attention_last_gradient, X)

template <class... A, size_t... I>
__attribute__((no_sanitize("thread"))) void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A *>(arguments[I])...);
}
template <class... A>
void call(void (*kernel)(A...), void **arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>{});
}

host::Kernel host::kernel_named(const char *name) {
#define CASE(NAME) \
    if (!strcmp(name, #NAME)) return [](void **arguments) { call(NAME, arguments); };
    KERNELS(CASE)
#undef CASE
    return nullptr;
}
