// fuzz_description FILE [runs] [seed] [first]: changes the descriptions of valid calls (of dump_cases.ts), the numbers of
// elements of their tensors and what sequences and block tables say, and runs whatever is not refused, on memory of
// exactly those sizes. Built with AddressSanitizer and UndefinedBehaviorSanitizer, which end it where something got past
// the checks. The same seed makes the same changes; with `first` it begins with that run, so that one run can be had
// alone. Writes its counts as one line of JSON.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "addon/heap_workspace.h"
#include "addon/run_call.h"
#include "call_file.h"

namespace flash_attention {
namespace {

constexpr int64_t LARGEST_SEED_BYTES = 1 << 17;
/** Calls that are valid and would take too long, or too much memory, are counted and left alone. */
constexpr double MOST_WORK = 3e6;
constexpr int64_t MOST_RESULT_ELEMENTS = 1 << 18;

/** What to say when a sanitizer ends the process. */
char current_run[512];

void say_which(int) {
  const ssize_t written = write(2, current_run, std::strlen(current_run));
  (void)written;
  _exit(1);
}

/** What the checks accepted. */
void note(int run, const Call& seed, const Description& d) {
  const Problem& p = d.problem;
  std::snprintf(
      current_run, sizeof(current_run),
      "\nrun %d, changed from: %s\nB %ld, Nq %ld of %ld rows, Nk %ld of %ld rows, Hq %ld, Hkv %ld, D %ld, Dv %ld, "
      "batches of k %ld, pages of %ld, packed %d, sequences %d, window %ld %ld, bottom right %d, softcap %g, p %g\n",
      run, seed.name.c_str(), p.batch, p.query_length, p.query_rows, p.key_length, p.key_rows, p.query_heads,
      p.key_heads, p.head_size, p.value_size, p.key_batches, p.page_size, p.packed_sequences, p.has_sequences,
      p.window_left, p.window_right, p.bottom_right, p.softcap, p.dropout_p);
}

struct Counts {
  int runs = 0, refused = 0, too_few = 0, too_large = 0, ran = 0;
  std::map<CallKind, int> kinds;
};

class Fuzzer {
 public:
  explicit Fuzzer(uint64_t seed) : random_(seed) {}

  void run(int number, const Call& seed, Counts* counts) {
    counts->runs++;
    std::vector<double> numbers = seed.description;
    for (int changes = 1 + below(4); changes > 0; changes--) {
      change(&numbers);
    }
    if (chance(0.02)) {
      numbers.resize(below(static_cast<int>(numbers.size()) + 8));
    }
    // Of that size exactly: reading past the end is an error too.
    Block block(numbers.size() * sizeof(double));
    std::memcpy(block.data, numbers.data(), block.bytes);
    Description description;
    if (!read_description(static_cast<double*>(block.data), numbers.size(), &description).empty()) {
      counts->refused++;
      return;
    }
    note(number, seed, description);
    run_accepted(seed, description, counts);
  }

 private:
  int below(int bound) { return static_cast<int>(random_() % static_cast<uint64_t>(bound)); }
  bool chance(double share) { return static_cast<double>(random_() >> 11) * 0x1p-53 < share; }

  double strange_number(double now) {
    static const double numbers[] = {0, 1, 2, 3, 4, 5, 8, 16, 17, 33, 63, 64, 65, 256, 257, 1000, 65536,
                                     -1, -2, 0.5, 1e-300, 1e300, 2147483646, 2147483647, 2147483648, 4294967295,
                                     4294967296, 9007199254740991, 9007199254740992, 0x1p54,
                                     0x1p62, 0x1p63, std::nan(""),
                                     std::numeric_limits<double>::infinity(),
                                     -std::numeric_limits<double>::infinity()};
    switch (below(4)) {
      case 0: return numbers[below(sizeof(numbers) / sizeof(*numbers))];
      case 1: return now + below(5) - 2;
      case 2: return chance(0.5) ? now * 2 : std::floor(now / 2);
      default: return below(300);
    }
  }

  void change(std::vector<double>* numbers) {
    const int size = static_cast<int>(numbers->size());
    double& number = (*numbers)[below(size)];
    if (chance(0.1)) {
      std::swap(number, (*numbers)[below(size)]);
    } else if (chance(0.1)) {
      number = (*numbers)[below(size)];
    } else {
      number = strange_number(number);
    }
  }

  int32_t strange_integer() {
    static const int32_t numbers[] = {0, 1, 2, 7, 64, -1, -7, 1 << 20, INT32_MAX, INT32_MIN, INT32_MAX - 1};
    return chance(0.5) ? numbers[below(sizeof(numbers) / sizeof(*numbers))] : below(200);
  }

  /** As the seed's, longer or shorter, its contents repeated. */
  std::shared_ptr<Block> tensor_like(const CallTensor& seed, int64_t elements) {
    const size_t size = seed.elements > 0 ? seed.block->bytes / static_cast<size_t>(seed.elements) : 4;
    auto block = std::make_shared<Block>(static_cast<size_t>(elements) * size);
    for (size_t at = 0; at < block->bytes; at += size) {
      if (seed.elements > 0) {
        std::memcpy(static_cast<char*>(block->data) + at, static_cast<char*>(seed.block->data) + at % seed.block->bytes,
                    size);
      } else {
        std::memset(static_cast<char*>(block->data) + at, 0, size);
      }
    }
    const bool is_integers = element_type(static_cast<int>(seed.name)) == ElementType::int32;
    for (int64_t i = 0; is_integers && i < elements; i++) {
      if (chance(0.3)) {
        static_cast<int32_t*>(block->data)[i] = strange_integer();
      }
    }
    return block;
  }

  /** A tensor for a name that the seed does not have. */
  CallTensor missing(int name) {
    const size_t size = element_type(name) == ElementType::boolean ? 1 : 4;
    const int64_t elements = below(64);
    auto block = std::make_shared<Block>(static_cast<size_t>(elements) * size);
    std::memset(block->data, 0, block->bytes);
    return {name, elements, block};
  }

  static int64_t result_elements(const Description& d, int name, const int64_t elements[]) {
    if (d.kind == CallKind::forward) {
      return name == OUTPUT ? d.output_elements() : d.lse_elements();
    }
    return elements[name];
  }

  void run_accepted(const Call& seed, const Description& d, Counts* counts) {
    Memory memory, results;
    int64_t elements[TENSOR_NAMES] = {};
    std::vector<std::shared_ptr<Block>> blocks;
    for (int name = 0; name < TENSOR_NAMES; name++) {
      if (!d.has(name)) {
        continue;
      }
      CallTensor tensor = missing(name);
      for (const CallTensor& of_seed : seed.tensors) {
        tensor = of_seed.name == name ? of_seed : tensor;
      }
      const int64_t count = chance(0.5) ? tensor.elements :
                            chance(0.5) ? tensor.elements * (2 + below(4)) :
                                          std::max<int64_t>(0, tensor.elements + below(9) - 4);
      blocks.push_back(tensor_like(tensor, wanted_elements(d, name, count)));
      memory.data[name] = blocks.back()->data;
      elements[name] = static_cast<int64_t>(blocks.back()->bytes) / (element_type(name) == ElementType::boolean ? 1 : 4);
    }
    if (!check_elements(d, elements).empty()) {
      counts->too_few++;
      return;
    }
    const Problem& p = d.problem;
    const double scores = static_cast<double>(p.batch) * static_cast<double>(p.query_heads) *
                          (1 + static_cast<double>(p.query_length)) * (1 + static_cast<double>(p.key_length));
    if (scores * static_cast<double>(p.head_size + p.value_size) > 64 * MOST_WORK || scores > MOST_WORK ||
        static_cast<double>(p.batch) * static_cast<double>(p.query_heads) > 1e5) {
      counts->too_large++;
      return;
    }
    for (int name = 0; name < TENSOR_NAMES && d.kind != CallKind::append; name++) {
      const bool is_result = d.kind == CallKind::forward ? name == OUTPUT || name == LSE || name == LSE_TAIL :
                                                           d.wants(name);
      if (is_result) {
        const int64_t count = result_elements(d, name, elements);
        if (count > MOST_RESULT_ELEMENTS) {
          counts->too_large++;
          return;
        }
        blocks.push_back(std::make_shared<Block>(static_cast<size_t>(count) * sizeof(float)));
        results.data[name] = blocks.back()->data;
      }
    }
    static const char* const sets[] = {"avx512", "avx2", "portable"};
    force_instruction_set(sets[below(3)]);
    set_threads(1 + below(3));
    if (d.kind == CallKind::append) {
      run_append(d, memory);
    } else {
      HeapWorkspace workspace;
      run_attention(d, memory, results, workspace);
    }
    counts->ran++;
    counts->kinds[d.kind]++;
  }

  /** Where exactly one number of elements will do, most often that one. */
  int64_t wanted_elements(const Description& d, int name, int64_t count) {
    const Problem& p = d.problem;
    if (chance(0.1)) {
      return count;
    }
    int64_t exact = count;
    switch (name) {
      case BIAS: exact = p.bias_shape[0] * p.bias_shape[1] * p.bias_shape[2]; break;
      case ALIBI_SLOPES: exact = (p.alibi_batch > 0 ? p.batch : 1) * p.query_heads; break;
      case SINKS: exact = p.query_heads; break;
      case SEQUENCES: exact = p.batch * 5; break;
      case BLOCK_TABLE: exact = p.batch * p.pages_per_sequence; break;
      case OUTPUT:
      case D_OUTPUT: exact = d.output_elements(); break;
      case LSE:
      case LSE_TAIL:
      case D_LSE: exact = d.lse_elements(); break;
      default: break;
    }
    if (name == BIAS) {
      exact = exact >= 0 && exact <= MOST_RESULT_ELEMENTS && p.bias_shape[3] <= MOST_RESULT_ELEMENTS ?
                  exact * p.bias_shape[3] : count;
    }
    return exact >= 0 && exact <= MOST_RESULT_ELEMENTS ? exact : count;
  }

  std::mt19937_64 random_;
};

int main_of(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(stderr, "fuzz_description FILE [runs] [seed]\n");
    return 2;
  }
  const int runs = count > 2 ? std::atoi(arguments[2]) : 10000;
  const uint64_t seed = count > 3 ? std::strtoull(arguments[3], nullptr, 10) : 1;
  std::vector<Call> seeds;
  CallFile file(arguments[1]);
  for (Call call; file.next(&call);) {
    int64_t bytes = 0;
    for (const CallTensor& tensor : call.tensors) {
      bytes += static_cast<int64_t>(tensor.block->bytes);
    }
    if (bytes <= LARGEST_SEED_BYTES) {
      call.results.clear();
      seeds.push_back(call);
    }
  }
  if (seeds.empty()) {
    std::fprintf(stderr, "no call of the file is small enough\n");
    return 2;
  }
  const int first = count > 4 ? std::atoi(arguments[4]) : 0;
  std::signal(SIGABRT, say_which);
  Counts counts;
  for (int n = first; n < first + runs; n++) {
    Fuzzer(seed * 1000003 + static_cast<uint64_t>(n)).run(n, seeds[static_cast<size_t>(n) % seeds.size()], &counts);
  }
  stop_threads();
  std::printf("{\"seeds\": %d, \"runs\": %d, \"refused\": %d, \"tooFew\": %d, \"tooLarge\": %d, \"ran\": %d, "
              "\"forward\": %d, \"backward\": %d, \"append\": %d}\n",
              static_cast<int>(seeds.size()), counts.runs, counts.refused, counts.too_few, counts.too_large, counts.ran,
              counts.kinds[CallKind::forward], counts.kinds[CallKind::backward], counts.kinds[CallKind::append]);
  return 0;
}

}  // namespace
}  // namespace flash_attention

/** So that `say_which` has its say. */
extern "C" {
#pragma GCC visibility push(default)
const char* __asan_default_options() { return "abort_on_error=1"; }
const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }
#pragma GCC visibility pop
}

int main(int count, char** arguments) { return flash_attention::main_of(count, arguments); }
