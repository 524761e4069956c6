// Reads the calls that dump_cases.ts writes.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "addon/description.h"

namespace flash_attention {

/** Exactly as large as its contents, so that a byte too far is seen. */
struct Block {
  explicit Block(size_t size) : bytes(size), data(std::malloc(size == 0 ? 1 : size)) {}
  Block(const Block& other) : Block(other.bytes) { std::memcpy(data, other.data, bytes); }
  Block& operator=(const Block&) = delete;
  ~Block() { std::free(data); }

  size_t bytes;
  void* data;
};

struct CallTensor {
  int64_t name, elements;
  std::shared_ptr<Block> block;
};

enum class Specials : int64_t { exact, finite, not_compared };

struct CallResult {
  int64_t name, elements;
  Specials specials;
  double tolerance;
  std::vector<double> expected;
};

struct Call {
  std::string name;
  std::vector<double> description;
  std::vector<CallTensor> tensors;
  std::vector<CallResult> results;
};

class CallFile {
 public:
  explicit CallFile(const char* path) : file_(std::fopen(path, "rb")) {
    char magic[8];
    if (!file_ || std::fread(magic, 1, 8, file_) != 8 || std::memcmp(magic, "FACALLS1", 8) != 0) {
      std::fprintf(stderr, "%s is not a file of dump_cases.ts\n", path);
      std::exit(2);
    }
  }
  ~CallFile() { std::fclose(file_); }

  /** False at the end. */
  bool next(Call* call) {
    int64_t length;
    if (std::fread(&length, 8, 1, file_) != 1) {
      return false;
    }
    call->name.resize(length);
    padded(call->name.data(), length);
    call->description.resize(integer());
    padded(call->description.data(), call->description.size() * 8);
    call->tensors.clear();
    for (int64_t left = integer(); left > 0; left--) {
      const int64_t name = integer(), elements = integer(), size = integer();
      call->tensors.push_back({name, elements, std::make_shared<Block>(elements * size)});
      padded(call->tensors.back().block->data, elements * size);
    }
    call->results.clear();
    for (int64_t left = integer(); left > 0; left--) {
      CallResult result;
      result.name = integer();
      result.elements = integer();
      result.specials = static_cast<Specials>(integer());
      padded(&result.tolerance, 8);
      result.expected.resize(result.specials == Specials::not_compared ? 0 : result.elements);
      padded(result.expected.data(), result.expected.size() * 8);
      call->results.push_back(std::move(result));
    }
    return true;
  }

 private:
  int64_t integer() {
    int64_t value;
    padded(&value, 8);
    return value;
  }

  void padded(void* to, size_t bytes) {
    char rest[8];
    const size_t padding = -bytes & 7;
    if ((bytes > 0 && std::fread(to, 1, bytes, file_) != bytes) || std::fread(rest, 1, padding, file_) != padding) {
      std::fprintf(stderr, "the file of calls ends too early\n");
      std::exit(2);
    }
  }

  std::FILE* file_;
};

}  // namespace flash_attention
