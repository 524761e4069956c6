// A multiprocessor for the Hopper kernels on a CPU, so that their own source runs against float64 without a GPU.
// Threads of a block are fibers in random order. What is asynchronous is as late or as early as the rules allow, where
// it hurts most: products run when they are waited for and read registers and shared memory only then; memory that TMA
// is to write is NaN from the moment it is asked for, and written at a random time; what it is to add it reads at a
// random time. Products and TMA see what a thread has stored only once it has published it. One block at a time.
//
// Included by kernels/cuda/hopper/barriers.cuh in place of PTX (-DFLASH_EMULATOR).
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "../../../kernels/cuda/hopper/layouts.h"
#include "../../../kernels/cuda/hopper/tensor_map.h"

#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __grid_constant__

struct float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
struct float4 {
  float x, y, z, w;
};

namespace flash_attention {
namespace hopper {

/** A product in flight, as one thread sees it. */
struct EmulatedProduct {
  float* d;
  /** Registers of A, or null: a descriptor. */
  const uint32_t* registers;
  uint64_t left, right;
  int columns;
  bool accumulates, is_left_transposed, is_transposed, is_bfloat16;
};

class Machine {
 public:
  static constexpr uint32_t SHARED_START = 512, SHARED_END = SHARED_START + 232448;
  struct Barrier {
    int64_t arrivals = 0, pending = 0, bytes = 0;
    uint32_t parity = 0;
  };
  struct Warp {
    uint64_t slots[32], results[32];
    int arrived = 0, operation = 0;
    uint64_t generation = 0;
  };
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    std::function<bool()> may_run;
    bool is_over = false, has_paused = false;
    std::vector<EmulatedProduct> open;
    std::deque<std::vector<EmulatedProduct>> committed;
    /** What it has stored and not published: starts and lengths. */
    std::vector<std::pair<uint32_t, uint32_t>> unpublished;
    /** Of what it has had added: how many are still to be read, which also adds them. */
    int adding = 0;
  };

  std::mt19937 random;
  /** As threads see it, and as products and TMA do. */
  std::vector<uint8_t> shared, published;
  std::map<uint32_t, Barrier> barriers;
  std::vector<Warp> warps;
  std::vector<Fiber> fibers;
  std::vector<std::function<void()>> loads;
  int named_arrived[16], block_arrived;
  uint64_t named_generation[16], block_generation;
  int current = 0;
  unsigned block = 0, blocks = 0;
  std::function<void()> kernel;
  ucontext_t scheduler;

  static Machine*& instance() {
    static Machine* machine = nullptr;
    return machine;
  }

  [[noreturn]] static void fail(const char* why) {
    std::fprintf(stderr, "emulated block %u thread %d: %s\n", instance()->block, instance()->current, why);
    std::exit(1);
  }

  Fiber& fiber() { return fibers[current]; }
  void until(const std::function<bool()>& holds) {
    if (!holds()) {
      fiber().may_run = holds;
      swapcontext(&fiber().context, &scheduler);
    }
  }

  /** Lets others run. */
  void pause() {
    bool* const passed = &fiber().has_paused;
    *passed = false;
    until([passed] {
      const bool was = *passed;
      *passed = true;
      return was;
    });
  }

  static void enter() {
    Machine& machine = *instance();
    machine.kernel();
    machine.fiber().is_over = true;
    swapcontext(&machine.fiber().context, &machine.scheduler);
  }

  void finish_load() {
    const size_t which = random() % loads.size();
    const std::function<void()> load = loads[which];
    loads.erase(loads.begin() + which);
    load();
  }

  /** Lets the current fiber go on until it waits; 1 when that was its end. */
  int step() {
    fiber().may_run = nullptr;
    swapcontext(&scheduler, &fiber().context);
    return fiber().is_over;
  }

  /** Runs a block to its end. */
  void run(const std::function<void()>& function, int threads, unsigned index, unsigned count, uint32_t seed) {
    constexpr size_t STACK = 96 << 10;
    instance() = this;
    random.seed(seed);
    shared.assign(SHARED_END, 0xff);
    published.assign(SHARED_END, 0xff);
    barriers.clear();
    loads.clear();
    warps.assign(threads / 32, Warp());
    std::memset(named_arrived, 0, sizeof named_arrived);
    std::memset(named_generation, 0, sizeof named_generation);
    block_arrived = 0;
    block_generation = 0;
    kernel = function;
    block = index;
    blocks = count;
    fibers.clear();
    fibers.resize(threads);
    for (Fiber& of : fibers) {
      of.stack.reset(new char[STACK]);
      getcontext(&of.context);
      of.context.uc_stack.ss_sp = of.stack.get();
      of.context.uc_stack.ss_size = STACK;
      of.context.uc_link = nullptr;
      makecontext(&of.context, enter, 0);
    }
    // In most blocks one warpgroup lags: it goes on only when nothing else can.
    const int slow = static_cast<int>(random() % (threads / GROUP_THREADS + 1));
    bool is_stuck = false;
    for (int left = threads; left > 0;) {
      bool ran = false;
      const int start = static_cast<int>(random() % threads);
      for (int i = 0; i < threads; i++) {
        current = (start + i) % threads;
        if ((current / GROUP_THREADS == slow && !is_stuck) || fiber().is_over ||
            (fiber().may_run && !fiber().may_run())) {
          continue;
        }
        ran = true;
        left -= step();
        // The one that feeds is quick to use whatever is released.
        current = 0;
        if (random() % 2 && !fiber().is_over && (!fiber().may_run || fiber().may_run())) {
          left -= step();
        }
        if (!loads.empty() && random() % 64 == 0) {
          finish_load();
        }
      }
      if (!ran && !is_stuck) {
        is_stuck = true;
        continue;
      }
      is_stuck = false;
      if (!ran) {
        if (loads.empty() && left > 0) {
          fail("hangs");
        }
        if (!loads.empty()) {
          finish_load();
        }
      }
    }
    if (!loads.empty()) {
      fail("what TMA does outlives its block");
    }
  }

  /** Every lane of the warp gives a value and gets all of them; `last` runs once, when all have come. */
  const uint64_t* gather(int operation, uint64_t value, const std::function<void()>& last = nullptr) {
    Warp& warp = warps[current / 32];
    if (warp.arrived > 0 && warp.operation != operation) {
      fail("lanes of a warp diverge");
    }
    warp.operation = operation;
    warp.slots[current % 32] = value;
    if (++warp.arrived == 32) {
      if (last) {
        last();
      }
      warp.arrived = 0;
      std::memcpy(warp.results, warp.slots, sizeof warp.slots);
      warp.generation++;
    } else {
      const uint64_t generation = warp.generation;
      until([&warp, generation] { return warp.generation != generation; });
    }
    return warp.results;
  }

  Barrier& barrier(uint32_t address) {
    if (!barriers.count(address)) {
      fail("no barrier is there");
    }
    return barriers[address];
  }
  void settle(Barrier& of) {
    if (of.pending < 0) {
      fail("too many arrivals");
    }
    if (of.pending == 0 && of.bytes == 0) {
      of.pending = of.arrivals;
      of.parity ^= 1;
    }
  }
  void check_range(uint32_t address, uint32_t bytes) {
    if (address < SHARED_START || address + bytes > SHARED_END) {
      fail("outside of shared memory");
    }
  }

  float element(uint32_t address, bool is_bfloat16) {
    address = swizzle_address(address);
    check_range(address, 2);
    uint16_t bits;
    std::memcpy(&bits, &published[address], 2);
    return value_of(bits, is_bfloat16);
  }
  static float value_of(uint16_t bits, bool is_bfloat16) {
    if (is_bfloat16) {
      const uint32_t wide = static_cast<uint32_t>(bits) << 16;
      float x;
      std::memcpy(&x, &wide, 4);
      return x;
    }
    _Float16 half;
    std::memcpy(&half, &bits, 2);
    return static_cast<float>(half);
  }

  /** A warp's quarter of the oldest product of each of its lanes' group. */
  void multiply(int warp, const std::vector<const EmulatedProduct*>& lanes) {
    const EmulatedProduct& of = *lanes[0];
    const auto start = [](uint64_t d) { return static_cast<uint32_t>(d & 0x3fff) * 16; };
    const auto leading = [](uint64_t d) { return static_cast<uint32_t>(d >> 16 & 0x3fff) * 16; };
    const auto stride = [](uint64_t d) { return static_cast<uint32_t>(d >> 32 & 0x3fff) * 16; };
    std::vector<float> a(16 * STEP), b(STEP * of.columns);
    for (int lane = 0; lane < 32; lane++) {
      const EmulatedProduct& mine = *lanes[lane];
      if (mine.left != of.left || mine.right != of.right || mine.columns != of.columns ||
          mine.accumulates != of.accumulates) {
        fail("lanes ask for different products");
      }
      if (mine.registers) {
        const int thread = warp % 4 * 32 + lane;
        for (int i = 0; i < 8; i++) {
          const uint16_t bits = static_cast<uint16_t>(mine.registers[i / 2] >> (i % 2 * 16));
          a[(operand_row(thread, i / 2) - warp % 4 * 16) * STEP + operand_column(thread, i / 2, i % 2)] =
              value_of(bits, of.is_bfloat16);
        }
      }
    }
    for (int k = 0; k < STEP; k++) {
      for (int row = 0; row < 16 && !of.registers; row++) {
        const int m = warp % 4 * 16 + row;
        a[row * STEP + k] = element(
            of.is_left_transposed ? start(of.left) + m * 2 + k % 8 * 128 + k / 8 * stride(of.left)
                                  : start(of.left) + m % 8 * 128 + m / 8 * stride(of.left) + k / 8 * 16 + k % 8 * 2,
            of.is_bfloat16);
      }
      for (int n = 0; n < of.columns; n++) {
        b[k * of.columns + n] = element(
            of.is_transposed ? start(of.right) + n % 64 * 2 + n / 64 * leading(of.right) + k % 8 * 128 +
                    k / 8 * stride(of.right)
                             : start(of.right) + n % 8 * 128 + n / 8 * stride(of.right) + k / 8 * 16 + k % 8 * 2,
            of.is_bfloat16);
      }
    }
    std::vector<float> sums(16 * of.columns, 0);
    for (int row = 0; row < 16; row++) {
      for (int k = 0; k < STEP; k++) {
        for (int n = 0; n < of.columns; n++) {
          sums[row * of.columns + n] += a[row * STEP + k] * b[k * of.columns + n];
        }
      }
    }
    for (int lane = 0; lane < 32; lane++) {
      const int thread = warp % 4 * 32 + lane;
      for (int i = 0; i < of.columns / 2; i++) {
        const int row = accumulator_row(thread, i) - warp % 4 * 16, column = accumulator_column(thread, i);
        float& to = lanes[lane]->d[i];
        to = (of.accumulates ? to : 0) + sums[row * of.columns + column];
      }
    }
  }

  void await(size_t pending) {
    const int warp = current / 32;
    gather(1, pending, [this, warp, pending] {
      while (fibers[warp * 32].committed.size() > pending) {
        const size_t count = fibers[warp * 32].committed.front().size();
        for (size_t i = 0; i < count; i++) {
          std::vector<const EmulatedProduct*> lanes;
          for (int lane = 0; lane < 32; lane++) {
            lanes.push_back(&fibers[warp * 32 + lane].committed.front().at(i));
          }
          multiply(warp, lanes);
        }
        for (int lane = 0; lane < 32; lane++) {
          fibers[warp * 32 + lane].committed.pop_front();
        }
      }
    });
  }
};

inline Machine& machine() { return *Machine::instance(); }

struct EmulatedIndex {
  unsigned x;
};
inline EmulatedIndex thread_index() { return {static_cast<unsigned>(machine().current)}; }
#define threadIdx (::flash_attention::hopper::thread_index())
#define blockIdx (::flash_attention::hopper::EmulatedIndex{::flash_attention::hopper::machine().block})
#define gridDim (::flash_attention::hopper::EmulatedIndex{::flash_attention::hopper::machine().blocks})

inline void __syncthreads() {
  Machine& m = machine();
  if (++m.block_arrived == static_cast<int>(m.fibers.size())) {
    m.block_arrived = 0;
    m.block_generation++;
    return;
  }
  const uint64_t generation = m.block_generation;
  m.until([&m, generation] { return m.block_generation != generation; });
}

inline float __shfl_xor_sync(uint32_t, float x, int mask) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = static_cast<uint32_t>(machine().gather(2, bits)[(machine().current % 32) ^ mask]);
  std::memcpy(&x, &bits, 4);
  return x;
}

inline bool __any_sync(uint32_t, bool value) {
  const uint64_t* all = machine().gather(3, value);
  bool any = false;
  for (int lane = 0; lane < 32; lane++) {
    any = any || all[lane];
  }
  return any;
}

inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline uint32_t dynamic_memory() { return Machine::SHARED_START; }

inline void start_barrier(uint32_t barrier, uint32_t arrivals) {
  machine().check_range(barrier, 8);
  Machine::Barrier& of = machine().barriers[barrier];
  of.arrivals = of.pending = arrivals;
}
inline void publish_barriers() {}
inline void arrive(uint32_t barrier) {
  machine().barrier(barrier).pending--;
  machine().settle(machine().barrier(barrier));
  machine().pause();
}
inline void arrive_expecting(uint32_t barrier, uint32_t bytes) {
  machine().barrier(barrier).bytes += bytes;
  arrive(barrier);
}
inline void wait(uint32_t barrier, uint32_t parity) {
  Machine::Barrier& of = machine().barrier(barrier);
  machine().until([&of, parity] { return of.parity != parity; });
}

inline void named_arrive(uint32_t barrier, uint32_t threads) {
  Machine& m = machine();
  if (++m.named_arrived[barrier] == static_cast<int>(threads)) {
    m.named_arrived[barrier] = 0;
    m.named_generation[barrier]++;
  }
}
inline void named_wait(uint32_t barrier, uint32_t threads) {
  Machine& m = machine();
  const uint64_t generation = m.named_generation[barrier];
  named_arrive(barrier, threads);
  m.until([&m, barrier, generation] { return m.named_generation[barrier] != generation; });
}

inline void store(uint32_t address, const void* from, uint32_t bytes) {
  Machine& m = machine();
  m.check_range(address, bytes);
  std::memcpy(&m.shared[address], from, bytes);
  m.fiber().unpublished.push_back({address, bytes});
}
inline void store_word(uint32_t address, int value) { store(address, &value, 4); }
inline void store_four(uint32_t address, float a, float b, float c, float d) {
  if (address % 16) {
    Machine::fail("four floats lie at a multiple of 16 bytes");
  }
  const float four[] = {a, b, c, d};
  store(address, four, sizeof four);
}
inline void publish_stores() {
  Machine& m = machine();
  for (const auto& part : m.fiber().unpublished) {
    std::memcpy(&m.published[part.first], &m.shared[part.first], part.second);
  }
  m.fiber().unpublished.clear();
}
inline int load_word(uint32_t address) {
  int value;
  std::memcpy(&value, &machine().shared[address], 4);
  return value;
}
inline void __syncwarp() { machine().gather(4, 0); }
inline uint32_t atomicAdd(uint32_t* to, uint32_t value) {
  *to += value;
  return *to - value;
}

inline float2 load_pair(uint32_t address) {
  machine().check_range(address, 8);
  float2 pair;
  std::memcpy(&pair, &machine().shared[address], 8);
  return pair;
}

inline float exponential(float x) { return std::exp2(x); }

template <int REGISTERS>
inline void take_registers() {}
template <int REGISTERS>
inline void give_registers() {}

// ---- TMA ------------------------------------------------------------------------------------------------------------

/** Stands for cuTensorMapEncodeTiled. */
inline int emulated_encode(TensorMap* map, int type, uint32_t rank, void* address, const uint64_t* sizes,
                           const uint64_t* strides, const uint32_t* box, const uint32_t*, int, int swizzle, int, int) {
  if (rank != 3 || swizzle != 3 || box[0] != 64 || box[2] != 1 || (type != 6 && type != 9)) {
    return 1;
  }
  const uint64_t words[] = {reinterpret_cast<uint64_t>(address), sizes[0], sizes[1], sizes[2], strides[0], strides[1],
                            box[1]};
  std::memcpy(map->words, words, sizeof words);
  return 0;
}

inline void prefetch_map(const TensorMap*) {}

inline void load_later(uint32_t to, uint32_t bytes, uint32_t barrier, const std::function<void()>& write) {
  Machine& m = machine();
  m.check_range(to, bytes);
  std::memset(&m.shared[to], 0xff, bytes);
  std::memset(&m.published[to], 0xff, bytes);
  m.loads.push_back([&m, to, bytes, barrier, write] {
    write();
    std::memcpy(&m.published[to], &m.shared[to], bytes);
    m.barrier(barrier).bytes -= bytes;
    m.settle(m.barrier(barrier));
  });
}

inline void load_box(uint32_t to, const TensorMap* map, uint32_t barrier, int column, int row, int head) {
  const TensorMap of = *map;
  const uint32_t rows = static_cast<uint32_t>(of.words[6]);
  if (to % SWIZZLE_BYTES != 0) {
    Machine::fail("a box must start at a multiple of 1024");
  }
  load_later(to, rows * 128, barrier, [=] {
    for (uint32_t r = 0; r < rows; r++) {
      for (uint32_t c = 0; c < 64; c++) {
        const uint64_t x = column + c, y = row + r;
        uint16_t value = 0;
        if (x < of.words[1] && y < of.words[2] && static_cast<uint64_t>(head) < of.words[3]) {
          std::memcpy(&value, reinterpret_cast<const char*>(of.words[0]) + x * 2 + y * of.words[4] +
                                  head * of.words[5], 2);
        }
        std::memcpy(&machine().shared[swizzle_address(to + r * 128 + c * 2)], &value, 2);
      }
    }
  });
}

inline void load_bytes(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  if (to % 16 || reinterpret_cast<uint64_t>(from) % 16 || bytes % 16) {
    Machine::fail("bulk copies are aligned to 16 bytes");
  }
  load_later(to, bytes, barrier, [=] { std::memcpy(&machine().shared[to], from, bytes); });
}

inline void add_floats(float* to, uint32_t from, uint32_t bytes) {
  if (from % 16 || reinterpret_cast<uint64_t>(to) % 16 || bytes % 16) {
    Machine::fail("bulk copies are aligned to 16 bytes");
  }
  Machine& m = machine();
  m.check_range(from, bytes);
  Machine::Fiber* const fiber = &m.fiber();
  fiber->adding++;
  m.loads.push_back([&m, fiber, to, from, bytes] {
    for (uint32_t i = 0; i < bytes / 4; i++) {
      float x;
      std::memcpy(&x, &m.published[from + i * 4], 4);
      to[i] += x;
    }
    fiber->adding--;
  });
}
inline void await_reading() {
  Machine::Fiber* const fiber = &machine().fiber();
  machine().until([fiber] { return fiber->adding == 0; });
}
inline void await_adding() { await_reading(); }

// ---- wgmma ----------------------------------------------------------------------------------------------------------

inline void begin_products() {}
inline void commit_products() {
  machine().fiber().committed.push_back(machine().fiber().open);
  machine().fiber().open.clear();
}
template <int PENDING>
inline void await_products() {
  machine().await(PENDING);
}

template <typename T, int N>
struct Wgmma {
  static constexpr bool IS_BFLOAT16 = sizeof(T) && std::is_same<T, Bfloat16>::value;
  template <Lies LEFT, Lies RIGHT>
  static void shared(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {
    machine().fiber().open.push_back(
        {d, nullptr, a, b, N, accumulate != 0, LEFT == Lies::columns, RIGHT == Lies::columns, IS_BFLOAT16});
  }
  template <Lies RIGHT>
  static void registers(float (&d)[N / 2], const uint32_t* a, uint64_t b, int accumulate) {
    machine().fiber().open.push_back({d, a, 0, b, N, accumulate != 0, false, RIGHT == Lies::columns, IS_BFLOAT16});
  }
};

template <typename T>
inline uint16_t round_to(float x) {
  if (std::is_same<T, Bfloat16>::value) {
    const uint32_t bits = __float_as_uint(x);
    return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
  const _Float16 half = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}
template <typename T>
inline uint32_t pack(float low, float high) {
  return round_to<T>(low) | static_cast<uint32_t>(round_to<T>(high)) << 16;
}

}  // namespace hopper
}  // namespace flash_attention
