// The thread pool.
//
// A job is a function and a number of tiles. Threads take tiles from one atomic ticket whose high
// half is the job's number: a thread that wakes late finds another number there and takes nothing.
// A job is done when its tiles are done, not when its threads have checked in, so a worker that the
// system did not schedule delays nobody (a static split waited for one: 2 us became 110).
// Workers spin a few thousand pauses after a job, then sleep; without spinning, GEMMs of 1 ms gain
// nothing from a second thread.
#include "threads.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <thread>

#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#else
#include <condition_variable>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#define SPIRAL_PAUSE() _mm_pause()
#elif defined(__aarch64__)
#define SPIRAL_PAUSE() asm volatile("yield")
#else
#define SPIRAL_PAUSE() ((void)0)
#endif

namespace spiral {
namespace {
constexpr int SPIN_IDLE = 4000;    // pauses a worker spends looking for the next job
constexpr int SPIN_JOIN = 20000;   // pauses the caller spends waiting for the last tiles

struct Pool {
  std::atomic<tile_fn> fn{nullptr};
  std::atomic<void*> ctx{nullptr};
  std::atomic<int64_t> tiles{0};
  std::atomic<uint64_t> ticket{0};  // job number << 32 | next tile
  std::atomic<int64_t> done{0};
  std::atomic<int> job{0};
  std::atomic<int> sleepers{0};
  int started = 1;  // threads including the caller
#if !defined(__linux__)
  std::mutex sleep_lock;
  std::condition_variable sleep_cv;
#endif
};
// never destroyed: workers may outlive static destructors
Pool* pool = new Pool;
std::mutex* owner = new std::mutex;
std::atomic<int> wanted{1};
thread_local bool inside_tile = false;

void sleep_until_changed(Pool* p, int seen) {
  p->sleepers.fetch_add(1);
#if defined(__linux__)
  syscall(SYS_futex, (int*)&p->job, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, seen, nullptr, nullptr, 0);
#else
  std::unique_lock<std::mutex> lock(p->sleep_lock);
  p->sleep_cv.wait(lock, [&] { return p->job.load() != seen; });
#endif
  p->sleepers.fetch_sub(1);
}

void wake_all(Pool* p) {
#if defined(__linux__)
  syscall(SYS_futex, (int*)&p->job, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1 << 20, nullptr, nullptr, 0);
#else
  { std::lock_guard<std::mutex> lock(p->sleep_lock); }
  p->sleep_cv.notify_all();
#endif
}

void drain(Pool* p, uint32_t job) {
  uint64_t t = p->ticket.load(std::memory_order_acquire);
  for (;;) {
    if ((uint32_t)(t >> 32) != job) return;
    uint32_t tile = (uint32_t)t;
    if ((int64_t)tile >= p->tiles.load(std::memory_order_relaxed)) return;
    // fn and ctx are read before the tile is ours: if the job changed meanwhile, the exchange fails
    tile_fn fn = p->fn.load(std::memory_order_relaxed);
    void* ctx = p->ctx.load(std::memory_order_relaxed);
    if (!p->ticket.compare_exchange_weak(t, t + 1, std::memory_order_acq_rel)) continue;
    fn(ctx, tile);
    p->done.fetch_add(1, std::memory_order_release);
    t = p->ticket.load(std::memory_order_acquire);
  }
}

void worker(Pool* p, int seen) {
  inside_tile = true;
  for (;;) {
    int spins = 0, job;
    while ((job = p->job.load(std::memory_order_acquire)) == seen) {
      if (spins++ < SPIN_IDLE)
        SPIRAL_PAUSE();
      else
        sleep_until_changed(p, seen);
    }
    seen = job;
    drain(p, (uint32_t)job);
  }
}

void start_workers(Pool* p) {
  int n = wanted.load();
  while (p->started < n) {
    int seen = p->job.load();
    std::thread(worker, p, seen).detach();
    p->started++;
  }
}

// threads do not survive fork(): the child begins with a new, empty pool
void after_fork_in_child() {
  pool = new Pool;
  owner = new std::mutex;
  inside_tile = false;
}
const int at_fork = pthread_atfork(nullptr, nullptr, after_fork_in_child);
}  // namespace

void set_num_threads(int n) {
  (void)at_fork;
  n = n < 1 ? 1 : n;
  std::lock_guard<std::mutex> lock(*owner);
  if (n < pool->started) {
    // Retire the old pool: its workers sleep for good. Shrinking is rare (tests, doctor).
    pool = new Pool;
  }
  wanted.store(n);
}

int num_threads() { return wanted.load(); }

void run_tiles(tile_fn fn, void* ctx, int64_t tiles) {
  if (tiles <= 0) return;
  if (tiles == 1 || wanted.load(std::memory_order_relaxed) == 1 || inside_tile || !owner->try_lock()) {
    for (int64_t t = 0; t < tiles; t++) fn(ctx, t);
    return;
  }
  std::lock_guard<std::mutex> lock(*owner, std::adopt_lock);
  Pool* p = pool;
  if (p->started < wanted.load()) start_workers(p);
  inside_tile = true;
  uint32_t job = (uint32_t)p->job.load() + 1;
  // close the old job's ticket first, so that no straggler can pair the new fields with it
  p->ticket.store(((uint64_t)job << 32) | 0xffffffffu, std::memory_order_seq_cst);
  p->fn.store(fn, std::memory_order_relaxed);
  p->ctx.store(ctx, std::memory_order_relaxed);
  p->tiles.store(tiles, std::memory_order_relaxed);
  p->done.store(0, std::memory_order_relaxed);
  p->ticket.store((uint64_t)job << 32, std::memory_order_release);
  p->job.store((int)job, std::memory_order_seq_cst);
  if (p->sleepers.load(std::memory_order_seq_cst) > 0) wake_all(p);
  drain(p, job);
  int spins = 0;
  while (p->done.load(std::memory_order_acquire) < tiles) {
    if (spins++ < SPIN_JOIN)
      SPIRAL_PAUSE();
    else
#if defined(__linux__)
      sched_yield();
#else
      std::this_thread::yield();
#endif
  }
  inside_tile = false;
}

}  // namespace spiral
