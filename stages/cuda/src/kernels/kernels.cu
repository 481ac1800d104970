// The kernels of GPT-2, one translation unit.
//
// nvcc compiles this file; the tests compile the same file with the C++ compiler of the
// machine, against `tests/host/cuda_on_host.h`, and hold every kernel to the Rust one.
//
// Prompts lie one after the other without padding: a matrix `[rows, width]` has one row a position,
// and `offsets[i] .. offsets[i + 1]` are the rows of prompt `i`. Sums run in a fixed order, so a
// result is the same in every run. A product's factor is written as `float`, `half` or `bf16`.

#include "number.cuh"

#include "vector.cuh"

#include "rows.cuh"

#include "norm.cuh"

#include "gelu.cuh"

#include "attention.cuh"

#include "tensor_core.cuh"

#include "attention_tensor.cuh"

#include "attention_gradient.cuh"

#include "attention_tensor_gradient.cuh"

#include "attention_last.cuh"

#include "head.cuh"

#include "optimizer.cuh"
