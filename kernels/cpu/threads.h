// One thread pool for GEMM tiles and every other kernel. See threads.cpp for how it works.
#pragma once
#include <cstdint>

namespace spiral {
typedef void (*tile_fn)(void* ctx, int64_t tile);
// Runs fn(ctx, 0..tiles-1), each once, on the pool and the calling thread; returns when all are
// done. Nested calls and calls while another thread owns the pool run on the caller alone.
void run_tiles(tile_fn fn, void* ctx, int64_t tiles);
void set_num_threads(int n);
int num_threads();

template <class F>
inline void parallel_tiles(int64_t tiles, F f) {
  if (tiles == 1) {
    f(0);
    return;
  }
  run_tiles([](void* ctx, int64_t t) { (*(F*)ctx)(t); }, &f, tiles);
}
}  // namespace spiral
