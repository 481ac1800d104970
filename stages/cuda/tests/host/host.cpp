// Runs kernels on the processor as a GPU might.
//
// A thread of a block is a fiber. A fiber runs until a barrier; a barrier opens when all of its warp or block
// have reached it. Threads and blocks run backwards. What would hang or be undefined on a GPU ends the program
// with a message:
//
//   a barrier, shuffle or product that some threads of a warp or block do not reach, or while others are elsewhere;
//   memory outside of all buffers; an address that is not a multiple of what is moved at once;
//   shared memory that is read before its block has written to it;
//   memory that one thread writes and another one uses, with no barrier between that orders the two.
//
// All but the first need `kernels.cpp` to be compiled with `-fsanitize=thread`, which calls a function before
// each access of memory. Those functions are here; the library that they usually come from is not linked.

#include "host.h"

#include <link.h>
#include <setjmp.h>
#include <ucontext.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <vector>

#include "cuda_on_host.h"

namespace host {

constexpr size_t STACK = 256 * 1024;
// Whether accesses of memory are.
static bool are_checked = false;

enum class At { Ready, WarpBarrier, BlockBarrier, Done };

// A fiber starts by `setcontext`, once; later it is left and entered by jumps, which cost no system call.
struct Fiber {
    ucontext_t context;
    jmp_buf place;
    std::vector<char> stack;
    bool is_started = false;
    At at;
    int line;
    // Barriers that its warp has passed and that order memory.
    unsigned warp_barriers;
};

// By whom memory was used.
enum class By { Thread, Warp, Block, Launch };

// The last use of a place in memory, or several that no barrier has parted.
struct Use {
    // Blocks are numbered over all launches, from 1.
    size_t block = 0;
    unsigned thread, barriers, warp_barriers;
    By by;
};

// Two bytes next to each other: no kernel uses less at once.
struct Cell {
    Use write, read;
};

struct Region {
    uintptr_t begin, end;
    bool is_shared;
    std::vector<Cell> cells;
};

struct State {
    std::deque<Fiber> fibers;  // its elements stay where they are
    jmp_buf scheduler;
    unsigned current = 0, threads = 0, barriers = 0;
    dim3 block{}, grid{}, block_size{};
    // The block that runs, and the first one of its launch.
    size_t block_number = 0, first_block = 0;
    std::vector<float> exchanged;
    // What the lanes of a warp give to an instruction of the whole warp.
    std::vector<std::array<uint32_t, 6>> given;
    std::vector<const uint32_t *> rows;
    std::vector<float> shared;
    std::map<uintptr_t, Region> buffers;  // by their ends
    Region of_kernel, of_launch;
    std::array<Region *, 64> recent{};  // by pages
    const char *name = nullptr;
    Kernel kernel = nullptr;
    void **arguments = nullptr;
};

static State &state() {
    static thread_local State state;
    return state;
}

[[noreturn]] static void fail(const char *what) {
    State &s = state();
    fprintf(stderr, "a GPU would hang or give anything: %s, in `%s`, thread %u of block (%u, %u, %u)\n", what, s.name,
            s.current, s.block.x, s.block.y, s.block.z);
    abort();
}

unsigned thread() { return state().current; }
dim3 block() { return state().block; }
dim3 block_size() { return state().block_size; }
dim3 grid() { return state().grid; }
// Aligned as a number, not better.
float *dynamic_shared() { return state().shared.data() + 1; }

static void wait(At at, int line) {
    State &s = state();
    Fiber &fiber = s.fibers[s.current];
    fiber.at = at;
    fiber.line = line;
    if (!_setjmp(fiber.place)) _longjmp(s.scheduler, 1);
}

void wait_for_block(int line) { wait(At::BlockBarrier, line); }
void wait_for_warp(int line, bool orders_memory) {
    wait(At::WarpBarrier, line);
    State &s = state();
    s.fibers[s.current].warp_barriers += orders_memory;
}

// One thread of block after block.
static void run_fiber() {
    for (;;) {
        State &s = state();
        s.kernel(s.arguments);
        wait(At::Done, 0);
    }
}

__attribute__((noinline)) static void resume(unsigned thread) {
    State &s = state();
    Fiber &fiber = s.fibers[thread];
    s.current = thread;
    if (_setjmp(s.scheduler)) return;
    if (fiber.is_started) _longjmp(fiber.place, 1);
    fiber.is_started = true;
    fiber.stack.resize(STACK);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
    setcontext(&fiber.context);
}

// Lets threads go on that have all come to one barrier.
static void open(unsigned first, unsigned end) {
    State &s = state();
    for (unsigned i = first; i < end; ++i) {
        s.current = i;
        if (s.fibers[i].line != s.fibers[first].line) fail("threads wait at different places");
        s.fibers[i].at = At::Ready;
    }
}

// Runs the threads of one block to their end.
static void run_block() {
    State &s = state();
    while (s.fibers.size() < s.threads) s.fibers.emplace_back();
    s.barriers = 0;
    for (unsigned i = 0; i < s.threads; ++i) {
        s.fibers[i].at = At::Ready;
        s.fibers[i].warp_barriers = 0;
    }
    for (;;) {
        unsigned waiting = 0, done = 0;
        for (unsigned end = s.threads, warp; end > 0; end = warp) {
            warp = (end - 1) / WARP_SIZE * WARP_SIZE;
            for (;;) {
                unsigned at_warp = 0, at_block = 0, ended = 0;
                for (unsigned thread = end; thread-- > warp;) {
                    Fiber &fiber = s.fibers[thread];
                    if (fiber.at == At::Ready) resume(thread);
                    at_warp += fiber.at == At::WarpBarrier;
                    at_block += fiber.at == At::BlockBarrier;
                    ended += fiber.at == At::Done;
                }
                if (at_warp == 0) {
                    waiting += at_block;
                    done += ended;
                    break;
                }
                if (at_block + ended > 0) fail("not all lanes of a warp take part");
                open(warp, end);
            }
        }
        if (waiting == 0) return;
        if (done > 0) fail("a thread ended before a barrier of its block");
        open(0, s.threads);
        s.barriers += 1;
    }
}

// Whether a barrier lies between two uses of memory that blocks from `first` on have in common.
static bool are_ordered(const Use &before, const Use &now, size_t first) {
    if (before.block < first) return true;
    if (before.by == By::Launch || before.block != now.block) return false;
    if (before.barriers != now.barriers) return true;
    if (before.by == By::Thread && before.thread == now.thread) return true;
    bool in_warp = before.by <= By::Warp && before.thread / WARP_SIZE == now.thread / WARP_SIZE;
    return in_warp && before.warp_barriers != now.warp_barriers;
}

// Who has read when `now` does, too.
static By readers(const Use &before, const Use &now, size_t first) {
    if (are_ordered(before, now, first)) return By::Thread;
    if (before.by == By::Launch || before.block != now.block) return By::Launch;
    bool in_warp = before.by <= By::Warp && before.thread / WARP_SIZE == now.thread / WARP_SIZE;
    return in_warp ? By::Warp : By::Block;
}

// The memory where so many bytes lie; null where they are a thread's own.
static Region *region_of(uintptr_t address, size_t bytes) {
    State &s = state();
    auto holds = [&](const Region &region) { return address >= region.begin && address + bytes <= region.end; };
    Region *&recent = s.recent[address / 4096 % s.recent.size()];
    if (recent && holds(*recent)) return recent;
    auto stack = (uintptr_t)s.fibers[s.current].stack.data();
    if (address >= stack && address < stack + STACK) return nullptr;
    auto buffer = s.buffers.upper_bound(address);
    Region *region = holds(s.of_kernel)                                  ? &s.of_kernel
                     : holds(s.of_launch)                                ? &s.of_launch
                     : buffer != s.buffers.end() && holds(buffer->second) ? &buffer->second
                                                                          : nullptr;
    if (!region) fail("memory outside of all buffers is used");
    return recent = region;
}

static void use(const void *place, size_t bytes, size_t aligned, bool writes) {
    State &s = state();
    auto address = (uintptr_t)place;
    if (address % aligned != 0) fail("an address is not a multiple of what is moved at once");
    Region *region = region_of(address, bytes);
    if (!region) return;
    if (region->cells.empty()) region->cells.resize((region->end - region->begin + 1) / 2);
    Use now = {s.block_number, s.current, s.barriers, s.fibers[s.current].warp_barriers, By::Thread};
    size_t first = region->is_shared ? now.block : s.first_block;
    for (size_t i = (address - region->begin) / 2; i < (address + bytes - region->begin + 1) / 2; ++i) {
        auto &[write, read] = region->cells[i];
        if (region->is_shared && !writes && write.block != now.block) fail("shared memory is read before it is written");
        if (!are_ordered(write, now, first) || (writes && !are_ordered(read, now, first)))
            fail("two threads use the same memory without a barrier between");
        now.by = writes ? By::Thread : readers(read, now, first);
        (writes ? write : read) = now;
    }
}

float exchange(float value, unsigned with, int line) {
    State &s = state();
    s.exchanged[s.current] = value;
    wait_for_warp(line, false);
    float other = s.exchanged[with];
    wait_for_warp(line, false);
    return other;
}

void multiply_add(float *sum, const uint32_t *left, uint32_t right_0, uint32_t right_1, float (*number_of)(uint16_t),
                  int line) {
    State &s = state();
    s.given[s.current] = {left[0], left[1], left[2], left[3], right_0, right_1};
    wait_for_warp(line, false);
    unsigned warp = s.current / WARP_SIZE * WARP_SIZE, g = s.current % WARP_SIZE / 4, t = s.current % 4;
    // Words hold two numbers: the word `of` of a lane, the lower or the upper half.
    auto part = [&](unsigned lane, unsigned of, unsigned half) {
        return number_of(uint16_t(s.given[warp + lane][of] >> 16 * half));
    };
    for (unsigned i = 0; i < 4; ++i)
        for (unsigned k = 0; k < 16; ++k) {
            unsigned holder = k % 8 / 2;
            float a = part(g * 4 + holder, i / 2 + k / 8 * 2, k % 2);
            float b = part((t * 2 + i % 2) * 4 + holder, 4 + k / 8, k % 2);
            sum[i] += a * b;
        }
    wait_for_warp(line, false);
}

void load_transposed(uint32_t *words, const uint32_t *row, int line) {
    State &s = state();
    if (are_checked) use(row, 16, 16, false);
    s.rows[s.current] = row;
    wait_for_warp(line, false);
    unsigned warp = s.current / WARP_SIZE * WARP_SIZE, g = s.current % WARP_SIZE / 4, t = s.current % 4;
    for (unsigned m = 0; m < 4; ++m) {
        auto at = [&](unsigned row) { return uint16_t(s.rows[warp + m * 8 + row][g / 2] >> 16 * (g % 2)); };
        words[m] = at(2 * t) | uint32_t(at(2 * t + 1)) << 16;
    }
    wait_for_warp(line, false);
}

// Memory that `__shared__` makes: all that the library keeps for each thread of the processor, but no kernel sees
// what of it is not so declared.
static int find_shared(dl_phdr_info *library, size_t, void *region) {
    uintptr_t here = (uintptr_t)&find_shared;
    bool is_this = false;
    for (int i = 0; i < library->dlpi_phnum; ++i) {
        auto &part = library->dlpi_phdr[i];
        uintptr_t begin = library->dlpi_addr + part.p_vaddr;
        is_this |= part.p_type == PT_LOAD && here >= begin && here < begin + part.p_memsz;
    }
    if (!is_this) return 0;
    for (int i = 0; i < library->dlpi_phnum; ++i)
        if (library->dlpi_phdr[i].p_type == PT_TLS) {
            auto begin = (uintptr_t)library->dlpi_tls_data;
            *(Region *)region = {begin, begin + library->dlpi_phdr[i].p_memsz, true, {}};
        }
    return 1;
}

}  // namespace host

extern "C" {

void know_buffer(const void *address, size_t bytes) {
    auto begin = (uintptr_t)address, end = begin + bytes;
    auto &buffers = host::state().buffers;
    auto known = buffers.upper_bound(begin);
    if (bytes == 0 || (known != buffers.end() && known->second.begin == begin && known->first == end)) return;
    // What was there has been freed.
    while (known != buffers.end() && known->second.begin < end) known = buffers.erase(known);
    buffers[end] = {begin, end, false, {}};
    host::state().recent = {};
}

int run_kernel(const char *name, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned threads,
               unsigned shared_bytes, void **arguments) {
    host::State &s = host::state();
    s.kernel = host::kernel_named(name);
    if (!s.kernel) return 1;
    s.name = name;
    s.arguments = arguments;
    s.threads = threads;
    s.grid = {grid_x, grid_y, grid_z};
    s.block_size = {threads, 1, 1};
    s.exchanged.assign(threads, NAN);
    s.given.assign(threads, {});
    s.rows.assign(threads, nullptr);
    s.shared.assign(1 + shared_bytes / 4, NAN);
    auto shared = (uintptr_t)host::dynamic_shared();
    s.of_launch = {shared, shared + shared_bytes, true, {}};
    if (s.of_kernel.begin == 0) dl_iterate_phdr(host::find_shared, &s.of_kernel);
    s.recent = {};
    s.first_block = s.block_number + 1;
    for (unsigned block = grid_x * grid_y * grid_z; block-- > 0;) {
        s.block = {block % grid_x, block / grid_x % grid_y, block / grid_x / grid_y};
        s.block_number += 1;
        host::run_block();
    }
    return 0;
}

#define ACCESS(BYTES)                                                               \
    void __tsan_read##BYTES(void *place) { host::use(place, BYTES, BYTES, false); } \
    void __tsan_write##BYTES(void *place) { host::use(place, BYTES, BYTES, true); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
#undef ACCESS
void __tsan_read_range(void *place, size_t bytes) { host::use(place, bytes, 1, false); }
void __tsan_write_range(void *place, size_t bytes) { host::use(place, bytes, 1, true); }
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_init() { host::are_checked = true; }

}  // extern "C"
