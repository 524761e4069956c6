// How a call on host memory is cut into pieces that the device has room for, and what of each tensor a piece takes.
// Pure: knows no driver.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "../cpu/problem.h"

namespace flash_attention {

/** A call whose tensors lie in the host's memory: either its outputs are set, or its gradients and what they need. */
struct HostCall {
  Problem problem;
  Tensors tensors;
  bool is_backward = false;
  ForwardOutputs outputs;
  BackwardInputs inputs;
  Gradients gradients;
};

/** Some batches and key heads, with the query heads that read these. */
struct Piece {
  int64_t first_batch = 0, batches = 0, first_key_head = 0, key_heads = 0;
};

/**
 * Elements of the host's memory in three axes of runs, which lie one after the other on the device:
 * [axes[0]][axes[1]][axes[2]][run].
 */
struct Runs {
  int64_t axes[3] = {1, 1, 1};
  int64_t strides[3] = {0, 0, 0};
  int64_t run = 0;

  int64_t elements() const { return axes[0] * axes[1] * axes[2] * run; }
  /** The same elements in the same order, in the longest runs that lie together on the host. */
  Runs merged() const;
};

/** One tensor of a piece. */
struct Transfer {
  Runs block;
  int element_bytes = 4;
  /** The host's first element: exactly one is set. */
  const char* from = nullptr;
  char* to = nullptr;
  /** Added to what is there: a bias's gradient of which other pieces had a share. Float32. */
  bool is_added = false;
  /** Where it begins in the device's memory of the piece. */
  int64_t device_offset = 0;

  int64_t bytes() const { return block.elements() * element_bytes; }
};

/** A piece as a call of its own, on one block of the device's memory. */
struct PieceCall {
  /** Its pointers are offsets into that block, counted from 1 so that null stays null: see {@link on_device}. */
  HostCall call;
  std::vector<Transfer> transfers;
  int64_t device_bytes = 0;
  /** Memory of the host that `transfers` reads, and the call does not have: sequences as the piece counts batches. */
  std::vector<int32_t> sequences;
};

PieceCall piece_call(const HostCall& call, const Piece& piece);

/** The piece's call with pointers into the device's memory. */
HostCall on_device(const PieceCall& piece, void* memory);

/** Copies elements `first` … `end` − 1 of a block from the host's memory to one run, or from that to the host's. */
void gather(const Transfer& transfer, int64_t first, int64_t end, char* run);
void scatter(const Transfer& transfer, int64_t first, int64_t end, const char* run);

/** Bytes that the kernels of a piece want beside its tensors. */
using WorkspaceBytes = std::function<int64_t(const HostCall&)>;

struct PiecePlan {
  /** None: not even the smallest piece fits. */
  std::vector<Piece> pieces;
  /** Of the largest piece: of its tensors, and beside them. */
  int64_t device_bytes = 0, workspace_bytes = 0;
  /** What the device would hold with it: two pieces' tensors where there are several. */
  int64_t needed_bytes = 0;
};

/**
 * As few pieces as fit, but several where there is much to copy, so that the copies of one overlap with the kernels of
 * another. @param limit bytes of device memory that the call may hold
 */
PiecePlan plan_pieces(const HostCall& call, int64_t limit, const WorkspaceBytes& workspace);

}  // namespace flash_attention
