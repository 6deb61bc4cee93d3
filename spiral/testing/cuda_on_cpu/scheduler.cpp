// Runs the threads of a block, one fiber each, in an order that can be chosen; see runtime.h for the kernels' side.
//
// A thread runs until it must wait, and its warp as long as any of its threads can run: that drives warps apart as far
// as barriers allow, which is what shows a missing one. A fiber takes the next thread that has not begun as soon as its
// last one is done, so a kernel that never waits runs on one stack without any switch.
#include "collectives.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
extern "C" __attribute__((visibility("hidden"))) char spiral_shared_start[], spiral_shared_stop[];
extern "C" __attribute__((visibility("hidden"))) const spiral_cpu::Kernel spiral_kernels[];

namespace spiral_cpu {
// ---------------------------------------------------------------- choosing who runs
static u32 next_random() {  // xorshift32 (Marsaglia 2003)
  u32 x = s.random;
  x ^= x << 13, x ^= x >> 17, x ^= x << 5;
  return s.random = x;
}

static int pick_bit(u32 bits) {
  switch (s.launch->order) {
    case FORWARD: return __builtin_ctz(bits);
    case REVERSE: return 31 - __builtin_clz(bits);
    default: {
      const int turn = (int)(next_random() & 31);
      const u32 turned = turn ? (bits >> turn) | (bits << (32 - turn)) : bits;
      return (__builtin_ctz(turned) + turn) & 31;
    }
  }
}

// the next thread that can run, no longer counted as runnable; -1: there is none
static int pick() {
  if (!s.ready) return -1;
  int w = s.current_warp;
  // a shuffled run also leaves a warp that could go on, now and then
  if (!(s.ready >> w & 1) || (s.launch->order == SHUFFLE_ORDER && !(next_random() & 63))) w = pick_bit(s.ready);
  s.current_warp = w;
  Warp& warp = s.warp[w];
  const int lane = pick_bit(warp.runnable);
  warp.runnable &= ~(1u << lane);
  if (!warp.runnable) s.ready &= ~(1u << w);
  return w * 32 + lane;
}

static void release(int w, u32 lanes) {
  if (!lanes) return;
  s.warp[w].runnable |= lanes;
  s.ready |= 1u << w;
}

static void enter(int t) {
  s.current = t;
  threadIdx = s.thread[t].index;
}

static void worker();

// goes on with thread t, leaving the present stack for good or, with `save`, until someone comes back to it
static void go_to(int t, Fiber& save) {
  Warp& w = s.warp[t >> 5];
  const u32 bit = 1u << (t & 31);
  Thread& thread = s.thread[t];
  if (w.unstarted & bit) {
    const int stack = s.free_stacks[--s.free_count];
    char* low = s.launch->stacks + (u64)stack * s.launch->stack_bytes;
    // stacks that begin at the same offset of their page would all use the same sets of the cache
    char* high = low + s.launch->stack_bytes - (u64)(stack % 16) * 192;
    thread.fiber.prepare(low + s.launch->guard_bytes, high, worker);
    s.pending = t;
    s.current_stack = stack;
  } else {
    s.current_stack = thread.stack;
    enter(t);
  }
  Fiber::change(save, thread.fiber);
}

static void finish_block() { Fiber::change(s.discarded, s.main); }

static void wait_for_release() {
  const int self = s.current;
  Thread& thread = s.thread[self];
  const int next = pick();
  if (next < 0) fail_waiting("no thread can go on: they wait for each other");
  thread.stack = s.current_stack;
  go_to(next, thread.fiber);
}

void* dynamic_shared_memory() { return s.launch->shared_memory; }

// ---------------------------------------------------------------- blocks and grids
static void exited(int t) {
  Warp& warp = s.warp[t >> 5];
  warp.alive &= ~(1u << (t & 31));
  s.live--;
  // those who were waiting for this thread wait no more
  for (u32 left = warp.at_warp; left;) {
    const u32 mask = s.thread[(t & ~31) + __builtin_ctz(left)].mask;
    try_release_warp(t >> 5, mask);
    left &= ~(mask | (left & -left));
  }
  if (s.arrived && s.arrived == s.live) release_block();
}

static void worker() {
  int t = s.pending;
  for (;;) {
    enter(t);
    s.warp[t >> 5].unstarted &= ~(1u << (t & 31));
    s.thread[t].copies = s.thread[t].copy_group = 0;
    s.call(s.params);
    t = s.current;
    exited(t);
    t = pick();
    if (t >= 0 && (s.warp[t >> 5].unstarted >> (t & 31) & 1)) continue;
    s.free_stacks[s.free_count++] = s.current_stack;
    if (t >= 0) go_to(t, s.discarded);
    if (s.live) fail_waiting("no thread can go on: they wait for each other");
    finish_block();
  }
}

static bool fence_is_whole() {
  const Launch& l = *s.launch;
  for (u64 i = 0; i < l.shared_fence; i++)
    if ((unsigned char)l.shared_memory[l.shared + i] != FENCE) {
      Message m;
      add_place(m);
      m.add(": writes past the end of its %llu bytes of dynamic shared memory (at byte %llu)", l.shared, l.shared + i);
      return false;
    }
  return true;
}

static void run_block() {
  fill(spiral_shared_start, spiral_shared_stop, POISON);
  fill(s.launch->shared_memory, s.launch->shared_memory + s.launch->shared, POISON);
  for (int w = 0; w < s.warps; w++) {
    const int lanes = s.threads - w * 32 < 32 ? s.threads - w * 32 : 32;
    const u32 all = lanes == 32 ? ~0u : (1u << lanes) - 1;
    s.warp[w] = Warp{all, all, all, 0, 0};
  }
  s.ready = s.warps == 32 ? ~0u : (1u << s.warps) - 1;
  s.live = s.threads;
  s.arrived = 0;
  s.current_warp = pick_bit(s.ready);
  go_to(pick(), s.main);
  if (s.status == FINE && s.launch->shared && !fence_is_whole()) s.status = FAILED;
}

static u64 gcd(u64 a, u64 b) { return b ? gcd(b, a % b) : a; }

static void run_grid() {
  const Launch& l = *s.launch;
  const u64 blocks = (u64)l.grid[0] * l.grid[1] * l.grid[2];
  // block numbers at, at + step, ... modulo blocks: each once, if step and blocks have no factor in common
  u64 step = 1, at = 0;
  if (l.order == REVERSE) step = blocks - 1, at = blocks - 1;
  if (l.order == SHUFFLE_ORDER) {
    at = next_random() % blocks, step = blocks > 2 ? 1 + next_random() % (blocks - 1) : 1;
    while (gcd(step, blocks) != 1) step++;
  }
  for (u64 i = 0; i < blocks && s.status == FINE; i++, at = (at + step) % blocks) {
    blockIdx.x = (u32)(at % l.grid[0]);
    blockIdx.y = (u32)(at / l.grid[0] % l.grid[1]);
    blockIdx.z = (u32)(at / ((u64)l.grid[0] * l.grid[1]));
    run_block();
  }
  if (s.status == FINE && !l.shared && !fence_is_whole()) s.status = FAILED;
}
}  // namespace spiral_cpu

extern "C" __attribute__((visibility("default"))) const spiral_cpu::Parameter* spiral_parameters(int kernel) {
  return spiral_kernels[kernel].parameters;
}

// Runs a kernel over a grid; 0, or 1 with a message. One call at a time.
extern "C" __attribute__((visibility("default"))) int spiral_launch(
    int kernel, spiral_cpu::Launch* launch, void** params) {
  using namespace spiral_cpu;
  s.launch = launch, s.call = spiral_kernels[kernel].call, s.params = params;
  s.status = FINE;
  s.threads = (int)(launch->block[0] * launch->block[1] * launch->block[2]);
  s.warps = (s.threads + 31) / 32;
  blockDim = dim3(launch->block[0], launch->block[1], launch->block[2]);
  gridDim = dim3(launch->grid[0], launch->grid[1], launch->grid[2]);
  for (int t = 0; t < s.threads; t++) {
    const u32 n = (u32)t, x = blockDim.x, y = blockDim.y;
    s.thread[t].index = uint3{n % x, n / x % y, n / (x * y)};
  }
  s.free_count = 0;
  for (int i = s.threads; i-- > 0;) s.free_stacks[s.free_count++] = i;
  s.random = launch->seed * 2654435761u | 1;
  fill(launch->shared_memory + launch->shared, launch->shared_memory + launch->shared + launch->shared_fence, FENCE);
  catch_traps(true);
  if (sigsetjmp(s.escape, 1) == 0) run_grid();
  else s.status = FAILED;
  catch_traps(false);
  // a launch that gave up left frames behind that AddressSanitizer holds for live ones
  if (s.status == FAILED && __asan_unpoison_memory_region)
    __asan_unpoison_memory_region(launch->stacks, MAX_THREADS * launch->stack_bytes);
  return s.status;
}
