// The protocols of the Hopper kernels as lists of steps, one list to a warp, run in random orders on barriers that know
// when they are misused: none hangs, no buffer is written while products read it, and every product reads the tile that
// it means to. The lists follow forward.cuh, key_gradient.cuh and query_gradient.cuh line by line; what walks the
// buffers is their own Ring.
#include "../../../kernels/cuda/hopper/pipeline.h"

#include <map>
#include <random>
#include <string>
#include <vector>

#include "check.h"

using namespace flash_attention::hopper;

namespace {

enum class Kind { wait, arrive, expect, load, begin_read, end_read, named_wait, named_arrive };

/** What a step means: `barrier` or named barrier, parity, buffer, and the tile that is loaded or expected. */
struct Step {
  Kind kind;
  int barrier, parity, buffer, tile;
};
using Program = std::vector<Step>;

/** An mbarrier: pending arrivals and loads of its phase, and the parity of the phase that is in progress. */
struct Barrier {
  int arrivals, pending, loads = 0, parity = 0;
  explicit Barrier(int count) : arrivals(count), pending(count) {}
  void settle() {
    if (pending == 0 && loads == 0) {
      pending = arrivals;
      parity ^= 1;
    }
  }
  bool is_complete(int of) const { return parity != of; }
};

struct Buffer {
  int tile = -1, readers = 0;
  bool is_loading = false;
};

struct Load {
  int barrier, buffer, tile;
};

struct Machine {
  std::vector<Barrier> barriers;
  std::map<int, Buffer> buffers;
  std::vector<Program> programs;
  /** Of named barriers: warps that make it up, those that have arrived, and its generation. */
  int named_warps = 8;
  std::map<int, int> arrived, generation;
};

/** What went wrong, or "". */
std::string run(Machine machine, std::mt19937& random) {
  std::vector<size_t> at(machine.programs.size(), 0);
  std::vector<int> waits_for(machine.programs.size(), -1);
  std::vector<Load> loads;
  const auto arrive_named = [&](int barrier) {
    if (++machine.arrived[barrier] == machine.named_warps) {
      machine.arrived[barrier] = 0;
      machine.generation[barrier]++;
    }
  };
  for (;;) {
    std::vector<int> ready;
    bool finished = loads.empty();
    for (size_t p = 0; p < at.size(); p++) {
      if (at[p] == machine.programs[p].size()) {
        continue;
      }
      finished = false;
      const Step& step = machine.programs[p][at[p]];
      const bool is_blocked = (step.kind == Kind::wait && !machine.barriers[step.barrier].is_complete(step.parity)) ||
          (step.kind == Kind::named_wait && waits_for[p] >= 0 && machine.generation[step.barrier] == waits_for[p]);
      if (!is_blocked) {
        ready.push_back(static_cast<int>(p));
      }
    }
    if (finished) {
      return "";
    }
    const int choices = static_cast<int>(ready.size() + loads.size());
    if (choices == 0) {
      return "hangs";
    }
    const int choice = static_cast<int>(random() % choices);
    if (choice >= static_cast<int>(ready.size())) {
      const size_t which = choice - ready.size();
      const Load load = loads[which];
      loads.erase(loads.begin() + which);
      Buffer& buffer = machine.buffers[load.buffer];
      if (buffer.readers > 0) {
        return "written while read";
      }
      buffer.tile = load.tile;
      buffer.is_loading = false;
      machine.barriers[load.barrier].loads--;
      machine.barriers[load.barrier].settle();
      continue;
    }
    const int p = ready[choice];
    const Step step = machine.programs[p][at[p]];
    Buffer& buffer = machine.buffers[step.buffer];
    switch (step.kind) {
      case Kind::wait:
        break;
      case Kind::arrive:
        machine.barriers[step.barrier].pending--;
        if (machine.barriers[step.barrier].pending < 0) {
          return "too many arrivals";
        }
        machine.barriers[step.barrier].settle();
        break;
      case Kind::expect:
        machine.barriers[step.barrier].loads += step.tile;
        machine.barriers[step.barrier].pending--;
        machine.barriers[step.barrier].settle();
        break;
      case Kind::load:
        if (buffer.readers > 0 || buffer.is_loading) {
          return "loaded while in use";
        }
        buffer.is_loading = true;
        loads.push_back({step.barrier, step.buffer, step.tile});
        break;
      case Kind::begin_read:
        if (buffer.is_loading || buffer.tile != step.tile) {
          return "reads another tile";
        }
        buffer.readers++;
        break;
      case Kind::end_read:
        if (buffer.is_loading || buffer.tile != step.tile) {
          return "tile was replaced";
        }
        buffer.readers--;
        break;
      case Kind::named_wait:
        if (waits_for[p] < 0) {
          waits_for[p] = machine.generation[step.barrier];
          arrive_named(step.barrier);
          continue;
        }
        waits_for[p] = -1;
        break;
      case Kind::named_arrive:
        arrive_named(step.barrier);
        break;
    }
    at[p]++;
  }
}

// Mistakes that the simulation must find, one at a time.
enum class Fault { none, released_early, wrong_parity, no_first_turn, few_arrivals };

class Writer {
 public:
  Program steps;
  void wait(int barrier, uint32_t parity) { steps.push_back({Kind::wait, barrier, static_cast<int>(parity), 0, 0}); }
  void arrive(int barrier) { steps.push_back({Kind::arrive, barrier, 0, 0, 0}); }
  void expect(int barrier, int loads) { steps.push_back({Kind::expect, barrier, 0, 0, loads}); }
  void load(int barrier, int buffer, int tile) { steps.push_back({Kind::load, barrier, 0, buffer, tile}); }
  void begin(int buffer, int tile) { steps.push_back({Kind::begin_read, 0, 0, buffer, tile}); }
  void end(int buffer, int tile) { steps.push_back({Kind::end_read, 0, 0, buffer, tile}); }
  void named_wait(int barrier) { steps.push_back({Kind::named_wait, barrier, 0, 0, 0}); }
  void named_arrive(int barrier) { steps.push_back({Kind::named_arrive, barrier, 0, 0, 0}); }
};

constexpr int STAGES = 2;
// Barriers of the forward pass and dQ; buffers have the numbers of their full barriers.
constexpr int Q_FULL = 0, Q_EMPTY = 1;
int k_full(int stage) { return 2 + stage * 4; }
int k_empty(int stage) { return 3 + stage * 4; }
int v_full(int stage) { return 4 + stage * 4; }
int v_empty(int stage) { return 5 + stage * 4; }

/** Work tiles by how many tiles of keys each has; tiles are named 1000·work + tile. */
Machine forward(const std::vector<int>& counts, int groups, Fault fault) {
  Machine machine;
  const int warps = groups * 4 - (fault == Fault::few_arrivals ? 1 : 0);
  machine.barriers = {Barrier(1), Barrier(warps)};
  for (int stage = 0; stage < STAGES; stage++) {
    for (int i = 0; i < 2; i++) {
      machine.barriers.push_back(Barrier(1));
      machine.barriers.push_back(Barrier(warps));
    }
  }
  Writer feed;
  Ring<STAGES> keys, values;
  uint32_t queries_phase = 0;
  const uint32_t flip = fault == Fault::wrong_parity ? 0 : 1;
  for (size_t work = 0; work < counts.size(); work++) {
    const int base = static_cast<int>(work) * 1000;
    if (counts[work] == 0) {
      continue;
    }
    const auto load_values = [&](int tile) {
      feed.wait(v_empty(values.stage()), values.phase() ^ flip);
      feed.expect(v_full(values.stage()), 1);
      feed.load(v_full(values.stage()), v_full(values.stage()), base + tile);
      values.advance();
    };
    feed.wait(Q_EMPTY, queries_phase ^ 1);
    feed.expect(Q_FULL, 1);
    feed.load(Q_FULL, Q_FULL, base);
    queries_phase ^= 1;
    for (int tile = counts[work] - 1; tile >= 0; tile--) {
      feed.wait(k_empty(keys.stage()), keys.phase() ^ 1);
      feed.expect(k_full(keys.stage()), 1);
      feed.load(k_full(keys.stage()), k_full(keys.stage()), base + tile);
      keys.advance();
      if (tile < counts[work] - 1) {
        load_values(tile + 1);
      }
    }
    load_values(0);
  }
  machine.programs.push_back(feed.steps);
  for (int warp = 0; warp < groups * 4; warp++) {
    const int group = warp / 4, mine = 1 + group, next = 1 + (group + 1) % groups;
    Writer attend;
    Ring<STAGES> at, of;
    uint32_t phase = 0;
    if (group == groups - 1 && fault != Fault::no_first_turn) {
      attend.named_arrive(1);
    }
    for (size_t work = 0; work < counts.size(); work++) {
      const int base = static_cast<int>(work) * 1000;
      if (counts[work] == 0) {
        continue;
      }
      attend.wait(Q_FULL, phase);
      phase ^= 1;
      attend.wait(k_full(at.stage()), at.phase());
      attend.begin(Q_FULL, base);
      attend.begin(k_full(at.stage()), base + counts[work] - 1);
      attend.end(k_full(at.stage()), base + counts[work] - 1);
      attend.arrive(k_empty(at.stage()));
      at.advance();
      for (int tile = counts[work] - 2; tile >= 0; tile--) {
        attend.wait(k_full(at.stage()), at.phase());
        attend.named_wait(mine);
        attend.begin(k_full(at.stage()), base + tile);
        attend.wait(v_full(of.stage()), of.phase());
        attend.begin(v_full(of.stage()), base + tile + 1);
        attend.named_arrive(next);
        if (fault == Fault::released_early) {
          attend.arrive(k_empty(at.stage()));
        }
        attend.end(k_full(at.stage()), base + tile);
        if (fault != Fault::released_early) {
          attend.arrive(k_empty(at.stage()));
        }
        at.advance();
        attend.end(v_full(of.stage()), base + tile + 1);
        attend.arrive(v_empty(of.stage()));
        of.advance();
      }
      attend.end(Q_FULL, base);
      attend.arrive(Q_EMPTY);
      attend.wait(v_full(of.stage()), of.phase());
      attend.begin(v_full(of.stage()), base);
      attend.end(v_full(of.stage()), base);
      attend.arrive(v_empty(of.stage()));
      of.advance();
    }
    machine.programs.push_back(attend.steps);
  }
  return machine;
}

Machine query_gradient(const std::vector<int>& counts, int groups) {
  Machine machine;
  machine.barriers = {Barrier(1), Barrier(groups * 4)};
  for (int i = 0; i < 2 * STAGES; i++) {
    machine.barriers.push_back(Barrier(1));
    machine.barriers.push_back(Barrier(groups * 4));
  }
  constexpr int D_OUTPUTS = 100;
  Writer feed;
  Ring<STAGES> ring;
  uint32_t phase = 0;
  for (size_t work = 0; work < counts.size(); work++) {
    const int base = static_cast<int>(work) * 1000;
    if (counts[work] == 0) {
      continue;
    }
    feed.wait(Q_EMPTY, phase ^ 1);
    feed.expect(Q_FULL, 2);
    feed.load(Q_FULL, Q_FULL, base);
    feed.load(Q_FULL, D_OUTPUTS, base);
    phase ^= 1;
    for (int tile = counts[work] - 1; tile >= 0; tile--) {
      feed.wait(k_empty(ring.stage()), ring.phase() ^ 1);
      feed.expect(k_full(ring.stage()), 1);
      feed.load(k_full(ring.stage()), k_full(ring.stage()), base + tile);
      feed.wait(v_empty(ring.stage()), ring.phase() ^ 1);
      feed.expect(v_full(ring.stage()), 1);
      feed.load(v_full(ring.stage()), v_full(ring.stage()), base + tile);
      ring.advance();
    }
  }
  machine.programs.push_back(feed.steps);
  for (int warp = 0; warp < groups * 4; warp++) {
    Writer gather;
    Ring<STAGES> at;
    uint32_t queries_phase = 0;
    for (size_t work = 0; work < counts.size(); work++) {
      const int base = static_cast<int>(work) * 1000;
      if (counts[work] == 0) {
        continue;
      }
      int in_use = -1;
      gather.wait(Q_FULL, queries_phase);
      queries_phase ^= 1;
      gather.begin(Q_FULL, base);
      gather.begin(D_OUTPUTS, base);
      for (int tile = counts[work] - 1; tile >= 0; tile--) {
        gather.wait(k_full(at.stage()), at.phase());
        gather.begin(k_full(at.stage()), base + tile);
        gather.wait(v_full(at.stage()), at.phase());
        gather.begin(v_full(at.stage()), base + tile);
        if (in_use >= 0) {
          gather.end(k_full(in_use), base + tile + 1);
          gather.arrive(k_empty(in_use));
        }
        in_use = at.stage();
        gather.end(v_full(at.stage()), base + tile);
        gather.arrive(v_empty(at.stage()));
        at.advance();
      }
      gather.end(k_full(in_use), base);
      gather.arrive(k_empty(in_use));
      gather.end(Q_FULL, base);
      gather.end(D_OUTPUTS, base);
      gather.arrive(Q_EMPTY);
    }
    machine.programs.push_back(gather.steps);
  }
  return machine;
}

/** Buffers of a stage: q and dO, with their rows, as one. */
template <int BUFFERS>
Machine key_gradient(const std::vector<int>& counts, int groups) {
  Machine machine;
  constexpr int KEYS_FULL = 0, KEYS_EMPTY = 1;
  const auto full = [](int stage) { return 2 + stage * 2; };
  const auto empty = [](int stage) { return 3 + stage * 2; };
  for (int i = 0; i <= BUFFERS; i++) {
    machine.barriers.push_back(Barrier(1));
    machine.barriers.push_back(Barrier(groups * 4));
  }
  Writer feed;
  Ring<BUFFERS> ring;
  uint32_t phase = 0;
  for (size_t work = 0; work < counts.size(); work++) {
    const int base = static_cast<int>(work) * 1000;
    if (counts[work] == 0) {
      continue;
    }
    feed.wait(KEYS_EMPTY, phase ^ 1);
    feed.expect(KEYS_FULL, 1);
    feed.load(KEYS_FULL, KEYS_FULL, base);
    phase ^= 1;
    for (int tile = 0; tile < counts[work]; tile++) {
      feed.wait(empty(ring.stage()), ring.phase() ^ 1);
      feed.expect(full(ring.stage()), 1);
      feed.load(full(ring.stage()), full(ring.stage()), base + tile);
      ring.advance();
    }
  }
  machine.programs.push_back(feed.steps);
  for (int warp = 0; warp < groups * 4; warp++) {
    Writer gather;
    Ring<BUFFERS> at;
    uint32_t keys_phase = 0;
    for (size_t work = 0; work < counts.size(); work++) {
      const int base = static_cast<int>(work) * 1000;
      if (counts[work] == 0) {
        continue;
      }
      int in_use = -1;
      gather.wait(KEYS_FULL, keys_phase);
      keys_phase ^= 1;
      gather.begin(KEYS_FULL, base);
      gather.wait(full(at.stage()), at.phase());
      gather.begin(full(at.stage()), base);
      for (int tile = 0; tile < counts[work]; tile++) {
        if (in_use >= 0) {
          gather.end(full(in_use), base + tile - 1);
          gather.arrive(empty(in_use));
        }
        in_use = at.stage();
        at.advance();
        if (tile + 1 < counts[work]) {
          gather.wait(full(at.stage()), at.phase());
          gather.begin(full(at.stage()), base + tile + 1);
        }
      }
      gather.end(full(in_use), base + counts[work] - 1);
      gather.arrive(empty(in_use));
      gather.end(KEYS_FULL, base);
      gather.arrive(KEYS_EMPTY);
    }
    machine.programs.push_back(gather.steps);
  }
  return machine;
}

std::string run_often(const Machine& machine, int times, std::mt19937& random) {
  for (int i = 0; i < times; i++) {
    const std::string fault = run(machine, random);
    if (!fault.empty()) {
      return fault;
    }
  }
  return "";
}

}  // namespace

int main() {
  std::mt19937 random(20261126);
  const std::vector<std::vector<int>> works = {{1}, {2}, {5}, {0, 3}, {1, 1, 1}, {4, 0, 1, 2}, {3, 2, 1, 7}, {2, 2}};
  for (const std::vector<int>& counts : works) {
    for (int groups : {2, 3}) {
      CHECK(run_often(forward(counts, groups, Fault::none), 60, random) == "");
      CHECK(run_often(query_gradient(counts, groups), 60, random) == "");
      CHECK(run_often(key_gradient<2>(counts, groups), 60, random) == "");
      CHECK(run_often(key_gradient<3>(counts, groups), 60, random) == "");
    }
  }
  // A buffer fewer than the protocol needs, and mistakes: the simulation must see them.
  CHECK(run_often(key_gradient<1>({4}, 2), 5, random) == "hangs");
  CHECK(run_often(forward({6, 3}, 2, Fault::released_early), 200, random) != "");
  CHECK(run_often(forward({6, 3}, 2, Fault::wrong_parity), 200, random) != "");
  CHECK(run_often(forward({6, 3}, 2, Fault::no_first_turn), 20, random) == "hangs");
  CHECK(run_often(forward({6, 3}, 2, Fault::few_arrivals), 200, random) != "");
  std::puts("pipeline: ok");
  return 0;
}
