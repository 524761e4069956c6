#include "emulator.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace flash_attention {
namespace cuda {
alignas(1024) unsigned char shared[emulator::SHARED_BYTES];
}
}  // namespace flash_attention

// Saves what a function of the x64 ABI has to keep, on the old stack, and goes on with the new one. (ucontext would
// call the kernel each time.)
asm(R"(
.text
.globl emulator_switch
emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");
extern "C" void emulator_switch(void** from, void* to);

namespace emulator {

Dim3 thread_index, block_index, grid_size, block_size;
uint64_t blocks_begun = 0;

namespace {

constexpr size_t STACK_BYTES = 256 * 1024;

struct Fibre {
  void* stack_pointer;
  std::vector<char> stack = std::vector<char>(STACK_BYTES);
  bool is_done = false;
  /** It waits until this is another round than that. */
  const unsigned int* waits_for = nullptr;
  unsigned int round;
};

/** Threads that meet: what they gave, and how often all of them have met. */
struct Meeting {
  Exchange given[2];
  WarpWords words[2], results[2];
  int arrived = 0;
  unsigned int round = 0;
};

std::vector<Fibre> fibres;
std::vector<Meeting> warps;
Meeting block;
bool any_of_block[2];
void* scheduler;
unsigned int running;
unsigned int threads_of_block;
const std::function<void()>* body;

void wait_for_next(const unsigned int& current, unsigned int round) {
  const unsigned int self = running;
  if (current == round) {
    fibres[self].waits_for = &current;
    fibres[self].round = round;
    emulator_switch(&fibres[self].stack_pointer, scheduler);
  }
}

/** True for the last that arrives. */
bool arrive(Meeting& meeting, int count) { return ++meeting.arrived == count; }

void finish(Meeting& meeting) {
  meeting.arrived = 0;
  meeting.round++;
}

void fibre_main() {
  (*body)();
  fibres[running].is_done = true;
  emulator_switch(&fibres[running].stack_pointer, scheduler);
  std::abort();
}

void begin(Fibre& fibre) {
  fibre.is_done = false;
  fibre.waits_for = nullptr;
  // As if it had been called: the stack is 8 off a multiple of 16 at a function's first instruction.
  auto top = reinterpret_cast<uintptr_t>(fibre.stack.data() + STACK_BYTES) / 16 * 16 - 64;
  auto* slots = reinterpret_cast<uintptr_t*>(top - 8 * 8);
  for (int n = 0; n < 6; n++) {
    slots[n] = 0;
  }
  slots[6] = reinterpret_cast<uintptr_t>(fibre_main);
  slots[7] = 0;
  fibre.stack_pointer = slots;
}

}  // namespace

const Exchange& exchange(uint64_t mine) {
  Meeting& warp = warps[thread_index.x / 32];
  const unsigned int round = warp.round;
  Exchange& given = warp.given[round & 1];
  given.of[thread_index.x & 31] = mine;
  if (arrive(warp, 32)) {
    finish(warp);
  }
  wait_for_next(warp.round, round);
  return given;
}

const WarpWords& exchange(const uint32_t* mine, int words, WholeWarp whole) {
  Meeting& warp = warps[thread_index.x / 32];
  const unsigned int round = warp.round;
  std::memcpy(warp.words[round & 1].of[thread_index.x & 31], mine, words * 4);
  if (arrive(warp, 32)) {
    whole(warp.words[round & 1], warp.results[round & 1]);
    finish(warp);
  }
  wait_for_next(warp.round, round);
  return warp.results[round & 1];
}

bool barrier_or(bool mine) {
  const unsigned int round = block.round;
  any_of_block[round & 1] = (block.arrived == 0 ? false : any_of_block[round & 1]) || mine;
  if (arrive(block, static_cast<int>(threads_of_block))) {
    finish(block);
  }
  wait_for_next(block.round, round);
  return any_of_block[round & 1];
}

void barrier() { barrier_or(false); }

void launch(Dim3 grid, unsigned int threads, const std::function<void()>& kernel) {
  grid_size = grid;
  block_size = {threads, 1, 1};
  threads_of_block = threads;
  body = &kernel;
  if (fibres.size() < threads) {
    fibres.resize(threads);
  }
  for (unsigned int z = 0; z < grid.z; z++) {
    for (unsigned int y = 0; y < grid.y; y++) {
      for (unsigned int x = 0; x < grid.x; x++) {
        block_index = {x, y, z};
        blocks_begun++;
        warps.resize((threads + 31) / 32);
        for (Meeting& warp : warps) {
          warp.arrived = 0;
        }
        block.arrived = 0;
        // A kernel that reads what no thread wrote reads NaN.
        std::memset(flash_attention::cuda::shared, 0xff, SHARED_BYTES);
        for (unsigned int n = 0; n < threads; n++) {
          begin(fibres[n]);
        }
        for (unsigned int done = 0; done < threads;) {
          bool is_stuck = true;
          for (unsigned int n = 0; n < threads; n++) {
            Fibre& fibre = fibres[n];
            if (fibre.is_done || (fibre.waits_for && *fibre.waits_for == fibre.round)) {
              continue;
            }
            is_stuck = false;
            fibre.waits_for = nullptr;
            running = n;
            thread_index = {n, 0, 0};
            emulator_switch(&scheduler, fibre.stack_pointer);
            done += fibre.is_done;
          }
          if (is_stuck && done < threads) {
            std::fprintf(stderr, "threads wait for each other for ever\n");
            std::abort();
          }
        }
      }
    }
  }
}

}  // namespace emulator
