// As much of the CUDA driver and of cuBLAS as `pipe-cuda-worker` uses, for a machine without a GPU: the
// worker that is shipped runs on it as it does on a GPU, with the kernels of the tests.
//
// It is as late as a GPU may be: what is put on a stream is done when somebody waits for the stream, so
// that memory of the host which is used again too early is found. New and freed memory is filled with NaN.
//
// STAND_IN_MEMORY is the memory of the GPU in MiB, STAND_IN_TAKEN how much of it others take without the
// driver saying so. What the worker should not do ends it with a message.

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels.cpp"

namespace {

enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500 };
enum BlasResult { BLAS_SUCCESS = 0, BLAS_INVALID_VALUE = 7 };

[[noreturn]] void refuse(const char *what) {
    fprintf(stderr, "the stand-in for the CUDA driver: %s\n", what);
    abort();
}

size_t mebibytes(const char *variable, size_t usual) {
    const char *text = getenv(variable);
    return (text ? strtoull(text, nullptr, 10) : usual) << 20;
}

struct Gpu {
    std::recursive_mutex mutex;
    std::deque<std::function<void()>> queue;
    std::map<uintptr_t, size_t> buffers;
    size_t used = 0;
    const size_t memory = mebibytes("STAND_IN_MEMORY", 64 << 10), taken = mebibytes("STAND_IN_TAKEN", 0);

    void later(std::function<void()> task) {
        std::lock_guard lock(mutex);
        queue.push_back(std::move(task));
    }

    // Does all that was put on streams.
    void wait() {
        std::lock_guard lock(mutex);
        for (; !queue.empty(); queue.pop_front()) queue.front()();
    }

    Result allocate(uintptr_t *address, size_t bytes) {
        std::lock_guard lock(mutex);
        if (bytes == 0) return INVALID_VALUE;
        if (used + taken + bytes > memory) return OUT_OF_MEMORY;
        void *memory_of_host = aligned_alloc(256, (bytes + 255) / 256 * 256);
        memset(memory_of_host, 0xff, bytes);
        *address = (uintptr_t)memory_of_host;
        buffers[*address] = bytes;
        used += bytes;
        return SUCCESS;
    }

    Result release(uintptr_t address) {
        std::lock_guard lock(mutex);
        auto found = buffers.find(address);
        if (found == buffers.end()) refuse("memory is freed that was not allocated");
        size_t bytes = found->second;
        used -= bytes;
        buffers.erase(found);
        queue.push_back([=] {
            memset((void *)address, 0xff, bytes);
            free((void *)address);
        });
        return SUCCESS;
    }

    // Whether the bytes lie within one buffer.
    void check(uintptr_t address, size_t bytes) {
        std::lock_guard lock(mutex);
        auto after = buffers.upper_bound(address);
        if (after == buffers.begin()) refuse("a copy is outside of memory");
        auto [begin, size] = *std::prev(after);
        if (address + bytes > begin + size) refuse("a copy is longer than its buffer");
    }
};

Gpu &gpu() {
    static Gpu *gpu = new Gpu;  // also used by what ends after `main`
    return *gpu;
}

// The arguments of a kernel, which the caller keeps only until the launch returns.
using Copies = std::vector<std::vector<char>>;
template <class... A>
Copies copies(void (*)(A...), void **arguments) {
    Copies all;
    size_t sizes[] = {sizeof(A)...};
    for (size_t i = 0; i < sizeof...(A); ++i) all.emplace_back((char *)arguments[i], (char *)arguments[i] + sizes[i]);
    return all;
}

// A matrix whose columns lie one after the other, by rows or columns of the product in f32.
std::vector<float> in_f32(const void *from, int type, int stride, bool by_columns, int lines, int length) {
    std::vector<float> out((size_t)lines * length);
    for (int line = 0; line < lines; ++line)
        for (int i = 0; i < length; ++i) {
            size_t at = by_columns ? (size_t)line * stride + i : (size_t)i * stride + line;
            float &number_of = out[(size_t)line * length + i];
            if (type == 0) number_of = ((const float *)from)[at];
            if (type == 2) number_of = number(((const __half *)from)[at]);
            if (type == 14) number_of = number(((const __nv_bfloat16 *)from)[at]);
        }
    return out;
}

int bytes_of(int type) { return type == 0 ? 4 : 2; }

}  // namespace

extern "C" {

Result cuInit(unsigned) { return SUCCESS; }
Result cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
Result cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
Result cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal == 0 ? SUCCESS : INVALID_VALUE; }
Result cuDeviceGetName(char *name, int length, int) { return snprintf(name, length, "stand-in"), SUCCESS; }
Result cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = gpu().memory, SUCCESS; }
Result cuDeviceGetAttribute(int *value, int attribute, int) {
    enum { CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76, MEMORY_POOLS = 115 };
    switch (attribute) {
        case CAPABILITY_MAJOR: return *value = 9, SUCCESS;
        case CAPABILITY_MINOR: return *value = 0, SUCCESS;
        case MEMORY_POOLS: return *value = 1, SUCCESS;
        default: refuse("an attribute is asked for that it does not know");
    }
}
Result cuDevicePrimaryCtxRetain(void **context, int) { return *context = &gpu(), SUCCESS; }
Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
Result cuCtxSetCurrent(void *) { return SUCCESS; }
Result cuGetErrorString(Result, const char **text) { return *text = "an error of the stand-in", SUCCESS; }
Result cuGetErrorName(Result, const char **text) { return *text = "STAND_IN", SUCCESS; }

Result cuStreamCreate(void **stream, unsigned) { return *stream = new char, SUCCESS; }
Result cuStreamDestroy_v2(void *stream) { return delete (char *)stream, SUCCESS; }
Result cuStreamSynchronize(void *) { return gpu().wait(), SUCCESS; }
Result cuStreamWaitEvent(void *, void *, unsigned) { return SUCCESS; }
Result cuEventCreate(void **event, unsigned) { return *event = new double(0), SUCCESS; }
Result cuEventDestroy_v2(void *event) {
    gpu().later([=] { delete (double *)event; });
    return SUCCESS;
}
Result cuEventRecord(void *event, void *) {
    gpu().later([=] { *(double *)event = (double)clock() / CLOCKS_PER_SEC; });
    return SUCCESS;
}
Result cuEventSynchronize(void *) { return gpu().wait(), SUCCESS; }
Result cuEventElapsedTime(float *milliseconds, void *start, void *end) {
    return *milliseconds = float(1000 * (*(double *)end - *(double *)start)), SUCCESS;
}

Result cuMemGetInfo_v2(size_t *free, size_t *total) {
    *total = gpu().memory;
    *free = *total - gpu().used;
    return SUCCESS;
}
Result cuMemAlloc_v2(uintptr_t *address, size_t bytes) { return gpu().allocate(address, bytes); }
// Memory of no bytes is given out by the driver where it comes from a pool.
Result cuMemAllocAsync(uintptr_t *address, size_t bytes, void *) {
    return gpu().allocate(address, bytes == 0 ? 1 : bytes);
}
Result cuMemFree_v2(uintptr_t address) { return gpu().wait(), gpu().release(address); }
Result cuMemFreeAsync(uintptr_t address, void *) { return gpu().release(address); }
Result cuMemAllocHost_v2(void **memory, size_t bytes) { return *memory = malloc(bytes), SUCCESS; }
Result cuMemFreeHost(void *memory) { return free(memory), SUCCESS; }
Result cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t bytes, void *) {
    gpu().check(to, bytes);
    gpu().later([=] { memcpy((void *)to, from, bytes); });
    return SUCCESS;
}
Result cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t bytes, void *) {
    gpu().check(from, bytes);
    gpu().later([=] { memcpy(to, (const void *)from, bytes); });
    return SUCCESS;
}
Result cuMemcpyHtoD_v2(uintptr_t to, const void *from, size_t bytes) {
    gpu().check(to, bytes);
    gpu().wait();
    return memcpy((void *)to, from, bytes), SUCCESS;
}
Result cuMemsetD8Async(uintptr_t to, unsigned char value, size_t bytes, void *) {
    gpu().check(to, bytes);
    gpu().later([=] { memset((void *)to, value, bytes); });
    return SUCCESS;
}
Result cuMemsetD8_v2(uintptr_t to, unsigned char value, size_t bytes) {
    gpu().check(to, bytes);
    gpu().wait();
    return memset((void *)to, value, bytes), SUCCESS;
}

// Whatever is in a module, its functions are those of the tests.
Result cuModuleLoadData(void **module, const void *) { return *module = &gpu(), SUCCESS; }
Result cuModuleUnload(void *) { return SUCCESS; }
Result cuModuleGetFunction(void **function, void *, const char *name) {
#define CASE(NAME) \
    if (!strcmp(name, #NAME)) return *function = (void *)#NAME, SUCCESS;
    KERNELS(CASE)
#undef CASE
    return NOT_FOUND;
}
Result cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared, void *, void **arguments, void **) {
    const char *name = (const char *)function;
    if (block_y != 1 || block_z != 1 || block_x > 1024 || grid_y > 65535 || grid_z > 65535 || shared > 48 << 10)
        refuse("a launch is past what a GPU can do");
    std::shared_ptr<Copies> copied;
#define CASE(NAME) \
    if (!strcmp(name, #NAME)) copied = std::make_shared<Copies>(copies(NAME, arguments));
    KERNELS(CASE)
#undef CASE
    gpu().later([=] {
        std::vector<void *> places;
        for (auto &argument : *copied) places.push_back(argument.data());
        run_kernel(name, grid_x, grid_y, grid_z, block_x, shared, places.data());
    });
    return SUCCESS;
}

BlasResult cublasCreate_v2(void **handle) { return *handle = new char, BLAS_SUCCESS; }
BlasResult cublasDestroy_v2(void *handle) { return delete (char *)handle, BLAS_SUCCESS; }
BlasResult cublasSetStream_v2(void *, void *) { return BLAS_SUCCESS; }
BlasResult cublasSetMathMode(void *, int) { return BLAS_SUCCESS; }
BlasResult cublasGetVersion_v2(void *, int *version) { return *version = 130000, BLAS_SUCCESS; }
BlasResult cublasGemmEx(void *, int of_a, int of_b, int m, int n, int k, const void *alpha, const void *a, int a_type,
                        int a_stride, const void *b, int b_type, int b_stride, const void *beta, void *c, int c_type,
                        int c_stride, int compute, int) {
    enum { COMPUTE_32F = 68 };
    if (compute != COMPUTE_32F || a_type != b_type || (c_type != 0 && c_type != a_type)) return BLAS_INVALID_VALUE;
    if (a_stride < (of_a ? k : m) || b_stride < (of_b ? n : k) || c_stride < m) return BLAS_INVALID_VALUE;
    float by = *(const float *)alpha, keep = *(const float *)beta;
    gpu().check((uintptr_t)c, ((size_t)c_stride * (n - 1) + m) * bytes_of(c_type));
    gpu().later([=] {
        std::vector<float> rows = in_f32(a, a_type, a_stride, of_a, m, k), columns = in_f32(b, b_type, b_stride, !of_b, n, k);
        for (int column = 0; column < n; ++column)
            for (int row = 0; row < m; ++row) {
                const float *x = &rows[(size_t)row * k], *y = &columns[(size_t)column * k];
                float sums[8] = {}, sum = 0.0f;
                int i = 0;
                for (; i + 8 <= k; i += 8)
                    for (int lane = 0; lane < 8; ++lane) sums[lane] += x[i + lane] * y[i + lane];
                for (; i < k; ++i) sum += x[i] * y[i];
                for (float part : sums) sum += part;
                size_t at = (size_t)column * c_stride + row;
                // With 0, whatever was there does not count, even NaN.
                float before = keep == 0.0f ? 0.0f : keep * in_f32((const char *)c + at * bytes_of(c_type), c_type, 1, true, 1, 1)[0];
                float value = by * sum + before;
                if (c_type == 0) ((float *)c)[at] = value;
                if (c_type == 2) ((__half *)c)[at] = __float2half_rn(value);
                if (c_type == 14) ((__nv_bfloat16 *)c)[at] = __float2bfloat16_rn(value);
            }
    });
    return BLAS_SUCCESS;
}

}  // extern "C"
