// The kernels as a library: what `kernels.cpp` and `host.cpp` give.
#pragma once

#include <cstddef>

namespace host {

// A kernel, once it is given where its arguments lie.
typedef void (*Kernel)(void **arguments);

// Null where there is none.
Kernel kernel_named(const char *name);

}  // namespace host

// Returns 0, or 1 where there is no such kernel.
extern "C" int run_kernel(const char *name, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned threads,
                          unsigned shared_bytes, void **arguments);

// Kernels that this thread runs may use this memory, where their accesses are checked.
extern "C" void know_buffer(const void *address, size_t bytes);
