// Buffer pool; contract in pool.h. Guarded by a spin lock because kernels allocate scratch memory
// without the GIL; the lock is held for a handful of instructions.
#include "pool.h"

#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace spiral {
namespace {
constexpr int CLASSES = 4 * 58;  // four classes per power of two: at most 25 % is wasted

struct SpinLock {
  std::atomic_flag& f;
  explicit SpinLock(std::atomic_flag& flag) : f(flag) {
    while (f.test_and_set(std::memory_order_acquire)) {
    }
  }
  ~SpinLock() { f.clear(std::memory_order_release); }
};

std::atomic_flag lock_flag = ATOMIC_FLAG_INIT;
// A fork waits for the lock: a child would find it taken for ever by a thread that it does not have.
void take_lock() {
  while (lock_flag.test_and_set(std::memory_order_acquire)) {
  }
}
void give_lock() { lock_flag.clear(std::memory_order_release); }
const int at_fork = pthread_atfork(take_lock, give_lock, give_lock);

std::vector<void*>* free_lists = new std::vector<void*>[CLASSES];
PoolStats stats{0, 0, 0, 4ull << 30, 0, 0};

// class of a size, and the size that its blocks have
inline int class_of(size_t bytes, size_t* rounded) {
  size_t b = bytes < 64 ? 64 : bytes;
  int top = 63 - __builtin_clzll(b - 1 ? b - 1 : 1);  // 2^top < b <= 2^(top+1)
  size_t step = (size_t)1 << (top >= 2 ? top - 2 : 0);
  size_t r = (b + step - 1) / step * step;
  r = (r + 63) / 64 * 64;
  int top_r = 63 - __builtin_clzll(r);
  int quarter = (int)((r >> (top_r >= 2 ? top_r - 2 : 0)) & 3);
  *rounded = r;
  return (top_r - 6) * 4 + quarter;
}

void* system_alloc(size_t bytes) {
  void* p = nullptr;
  size_t align = bytes >= (2u << 20) ? (2u << 20) : 64;
  if (posix_memalign(&p, align, bytes)) return nullptr;
#if defined(__linux__)
  if (bytes >= (2u << 20)) madvise(p, bytes, MADV_HUGEPAGE);
#endif
  return p;
}
}  // namespace

void* pool_alloc(size_t bytes) {
  size_t r;
  int c = class_of(bytes, &r);
  {
    SpinLock hold(lock_flag);
    stats.allocations++;
    stats.live += r;
    if (stats.live > stats.peak) stats.peak = stats.live;
    auto& list = free_lists[c];
    if (!list.empty()) {
      void* p = list.back();
      list.pop_back();
      stats.cached -= r;
      stats.reuses++;
      return p;
    }
  }
  void* p = system_alloc(r);
  if (!p) {  // give the cache back and try once more
    pool_trim();
    p = system_alloc(r);
  }
  if (!p) {
    SpinLock hold(lock_flag);
    stats.live -= r;
  }
  return p;
}

void pool_free(void* p, size_t bytes) {
  if (!p) return;
  size_t r;
  int c = class_of(bytes, &r);
  {
    SpinLock hold(lock_flag);
    stats.live -= r;
    if (stats.cached + r <= stats.cap) {
      free_lists[c].push_back(p);
      stats.cached += r;
      return;
    }
  }
  free(p);
}

PoolStats pool_stats() {
  SpinLock hold(lock_flag);
  return stats;
}

void pool_reset_peak() {
  (void)at_fork;
  SpinLock hold(lock_flag);
  stats.peak = stats.live;
}

void pool_set_cap(uint64_t bytes) {
  {
    SpinLock hold(lock_flag);
    stats.cap = bytes;
  }
  pool_trim();
}

void pool_trim() {
  SpinLock hold(lock_flag);
  for (int c = 0; c < CLASSES; c++) {
    for (void* p : free_lists[c]) free(p);
    free_lists[c].clear();
  }
  stats.cached = 0;
}

}  // namespace spiral
