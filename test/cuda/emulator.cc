#include "emulator.h"

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace flash_attention {
namespace cuda {
alignas(1024) unsigned char shared[emulator::SHARED_BYTES];
}
}  // namespace flash_attention

namespace emulator {

Dim3 thread_index, block_index, grid_size, block_size;

namespace {

constexpr size_t STACK_BYTES = 256 * 1024;

struct Fibre {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(STACK_BYTES);
  bool is_done = false;
};

/** Threads that meet: what they gave, and how often all of them have met. */
struct Meeting {
  Exchange given[2];
  int arrived = 0;
  unsigned int round = 0;
};

std::vector<Fibre> fibres;
std::vector<Meeting> warps;
Meeting block;
bool any_of_block[2];
ucontext_t scheduler;
unsigned int running;
unsigned int threads_of_block;
const std::function<void()>* body;

void yield() {
  const unsigned int self = running;
  swapcontext(&fibres[self].context, &scheduler);
  thread_index.x = self;
}

void fibre_main() {
  (*body)();
  fibres[running].is_done = true;
  swapcontext(&fibres[running].context, &scheduler);
}

}  // namespace

const Exchange& exchange(uint64_t mine) {
  Meeting& warp = warps[thread_index.x / 32];
  const unsigned int round = warp.round;
  Exchange& given = warp.given[round & 1];
  given.of[thread_index.x & 31] = mine;
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    warp.round++;
  }
  while (warp.round == round) {
    yield();
  }
  return given;
}

bool barrier_or(bool mine) {
  const unsigned int round = block.round;
  any_of_block[round & 1] = (block.arrived == 0 ? false : any_of_block[round & 1]) || mine;
  if (++block.arrived == static_cast<int>(threads_of_block)) {
    block.arrived = 0;
    block.round++;
  }
  while (block.round == round) {
    yield();
  }
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
        warps.assign((threads + 31) / 32, Meeting{});
        block = Meeting{};
        // A kernel that reads what no thread wrote reads NaN.
        std::memset(flash_attention::cuda::shared, 0xff, SHARED_BYTES);
        for (unsigned int n = 0; n < threads; n++) {
          Fibre& fibre = fibres[n];
          fibre.is_done = false;
          getcontext(&fibre.context);
          fibre.context.uc_stack.ss_sp = fibre.stack.data();
          fibre.context.uc_stack.ss_size = STACK_BYTES;
          fibre.context.uc_link = &scheduler;
          makecontext(&fibre.context, fibre_main, 0);
        }
        unsigned int done = 0;
        for (int idle = 0; done < threads; idle++) {
          if (idle > 10000000) {
            std::fprintf(stderr, "threads wait for each other for ever\n");
            std::abort();
          }
          done = 0;
          for (unsigned int n = 0; n < threads; n++) {
            if (fibres[n].is_done) {
              done++;
              continue;
            }
            running = n;
            thread_index = {n, 0, 0};
            swapcontext(&scheduler, &fibres[n].context);
          }
        }
      }
    }
  }
}

}  // namespace emulator

