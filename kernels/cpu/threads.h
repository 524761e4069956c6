// Threads that wait for work between calls.
#pragma once

#include <cstdint>

namespace flash_attention {

/** What a thread does: one task, with the number of the worker that does it, from 0 to one less than `threads`. */
using Work = void (*)(void* context, int64_t task, int worker);

/**
 * Runs tasks 0 … tasks − 1, each once, on at most `threads` threads, this one among them, and returns when all are
 * done. Safe to call from several threads at a time. Where a thread cannot be started, fewer do the work.
 */
void run_tasks(int64_t tasks, int threads, Work work, void* context);

}  // namespace flash_attention
