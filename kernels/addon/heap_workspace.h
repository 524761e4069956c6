// Memory of a call from the heap.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "../cpu/attention.h"

namespace flash_attention {

class HeapWorkspace : public Workspace {
 public:
  void* allocate(size_t bytes) override {
    const size_t padded = (bytes + 63) / 64 * 64;
    if (padded < bytes) {
      return nullptr;
    }
    try {
      // Room in the list first: what is allocated is then always noted.
      blocks_.emplace_back(nullptr, &std::free);
    } catch (...) {
      return nullptr;
    }
    blocks_.back().reset(std::aligned_alloc(64, padded == 0 ? 64 : padded));
    return blocks_.back().get();
  }

 private:
  std::vector<std::unique_ptr<void, decltype(&std::free)>> blocks_;
};

}  // namespace flash_attention
