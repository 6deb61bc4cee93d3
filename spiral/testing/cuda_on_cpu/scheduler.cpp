// Runs the threads of a block, one fiber each, in an order that can be chosen; see runtime.h for the kernels' side.
//
// A thread runs until it must wait, and its warp as long as any of its threads can run: that drives warps apart as far
// as barriers allow, which is what shows a missing one. A fiber takes the next thread that has not begun as soon as its
// last one is done, so a kernel that never waits runs on one stack without any switch.
#include "runtime.h"

#include <setjmp.h>
#include <signal.h>

#include "entry.h"
#include "fiber.h"

typedef unsigned long long u64;
typedef unsigned int u32;

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
extern "C" __attribute__((visibility("hidden"))) char spiral_shared_start[], spiral_shared_stop[];
extern "C" __attribute__((visibility("hidden"))) const spiral_cpu::Kernel spiral_kernels[];
extern "C" __attribute__((weak)) void __asan_unpoison_memory_region(const volatile void*, size_t);

namespace spiral_cpu {
const int MAX_THREADS = 1024, MAX_WARPS = 32;
const unsigned char POISON = 0xff, FENCE = 0xa5;
enum Order { FORWARD, REVERSE, SHUFFLE_ORDER };
enum Status { FINE, FAILED };

// what the host passes in; driver.py has the same structure
struct Launch {
  u32 grid[3], block[3];
  u64 shared;            // bytes of dynamic shared memory
  char* shared_memory;   // where they are, with shared_fence bytes behind them
  u64 shared_fence;
  char* stacks;          // MAX_THREADS stacks, each with a page at its low end that cannot be accessed
  u64 stack_bytes;
  u64 guard_bytes;
  u32 order;             // Order
  u32 seed;
  char* message;         // filled in when the launch fails
  u64 message_bytes;
  void* fault;           // the instruction that trapped, if one did
};

struct Thread {
  Fiber fiber;
  uint3 index;
  int stack;
  const char* file;  // where it waits
  int line;
  u64 value;         // what it brought to a warp operation, then what it takes from it
  int argument, width;
  u32 mask;
  WarpKind kind;
  int copies, copy_group;  // pending asynchronous copies; number of the group that is open
};

struct Copy {
  char* to;
  const char* from;  // null: zeros
  int bytes, group;
};
const int MAX_COPIES = 64;  // that a thread can have under way

struct Warp {
  u32 alive;      // threads that have not exited; bit = lane
  u32 unstarted;
  u32 runnable;   // may run: not begun, or released
  u32 at_warp;    // wait at a warp operation
  u32 at_block;   // wait at a block barrier
};

static struct {
  Launch* launch;
  void (*call)(void**);
  void** params;
  Thread thread[MAX_THREADS];
  Copy copy[MAX_THREADS][MAX_COPIES];
  alignas(16) char exchanged[MAX_WARPS][32 * 32];
  Warp warp[MAX_WARPS];
  int threads, warps;
  u32 ready;               // warps that have runnable threads
  int current, live;       // running thread; threads that have not exited
  int current_warp, current_stack, pending;
  int free_stacks[MAX_THREADS], free_count;
  int arrived;             // at the block barrier
  bool apart;              // they came to it at different places
  BarrierKind barrier;
  const char* file;
  int line;
  int count, all, any, result;
  u32 random;
  Status status;
  Fiber main, discarded;
  sigjmp_buf escape;
  bool inside;
} s;

static const char* const BARRIER_NAMES[] = {"__syncthreads", "__syncthreads_count", "__syncthreads_and",
                                            "__syncthreads_or"};
static const char* const WARP_NAMES[] = {"__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                                         "__shfl_xor_sync", "__ballot_sync", "__any_sync", "__all_sync",
                                         "__match_any_sync", "a matrix operation"};

// ---------------------------------------------------------------- failing
struct Message {  // appends to the host's buffer and never past its end
  u64 used = 0;
  template <class... A>
  void add(const char* format, A... a) {
    Launch& l = *s.launch;
    if (used + 1 >= l.message_bytes) return;
    const int n = __builtin_snprintf(l.message + used, l.message_bytes - used, format, a...);
    if (n > 0) used += (u64)n;
  }
};

static const char* base_name(const char* path) {
  const char* name = path;
  for (; *path; path++)
    if (*path == '/') name = path + 1;
  return name;
}

static void add_place(Message& m) {
  m.add("block (%u, %u, %u)", blockIdx.x, blockIdx.y, blockIdx.z);
}

[[noreturn]] static void give_up() {
  s.status = FAILED;
  Fiber::change(s.discarded, s.main);
  __builtin_unreachable();
}

static bool waits(int t) { return (s.warp[t >> 5].at_block | s.warp[t >> 5].at_warp) >> (t & 31) & 1; }

static bool wait_alike(int a, int b) {
  const Thread &x = s.thread[a], &y = s.thread[b];
  const bool block_a = s.warp[a >> 5].at_block >> (a & 31) & 1, block_b = s.warp[b >> 5].at_block >> (b & 31) & 1;
  return block_a == block_b && x.line == y.line && x.file == y.file && x.kind == y.kind && (block_a || x.mask == y.mask);
}

// every thread of the block that waits, neighbours that wait alike in one line
static void add_waiting(Message& m) {
  int exited = s.threads - s.live;
  for (int first = 0; first < s.threads;) {
    if (!waits(first)) {
      first++;
      continue;
    }
    int last = first;
    while (last + 1 < s.threads && waits(last + 1) && wait_alike(first, last + 1)) last++;
    const Thread& t = s.thread[first];
    if (first == last) m.add("\n  thread %d waits at ", first);
    else m.add("\n  threads %d to %d wait at ", first, last);
    if (s.warp[first >> 5].at_block >> (first & 31) & 1) m.add("%s", BARRIER_NAMES[t.kind]);
    else m.add("%s with mask 0x%08x", WARP_NAMES[t.kind], t.mask);
    m.add(" (%s:%d)", base_name(t.file), t.line);
    first = last + 1;
  }
  if (exited) m.add("\n  %d threads have exited", exited);
}

[[noreturn]] static void fail_waiting(const char* what) {
  Message m;
  add_place(m);
  m.add(": %s", what);
  add_waiting(m);
  give_up();
}

void trap(const char* file, int line) {
  Message m;
  add_place(m);
  m.add(", thread %d: __trap() (%s:%d)", s.current, base_name(file), line);
  give_up();
}

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

// ---------------------------------------------------------------- block barriers
static void release_block() {
  if (s.apart) fail_waiting("threads wait at different barriers of the block");
  s.result = s.barrier == SYNC_COUNT ? s.count : s.barrier == SYNC_AND ? s.all : s.any;
  s.arrived = 0;
  for (int w = 0; w < s.warps; w++) {
    release(w, s.warp[w].at_block);
    s.warp[w].at_block = 0;
  }
}

int block_barrier(BarrierKind kind, int predicate, const char* file, int line) {
  const int self = s.current, w = self >> 5;
  const u32 bit = 1u << (self & 31);
  Thread& thread = s.thread[self];
  thread.file = file, thread.line = line, thread.kind = (WarpKind)kind;
  if (s.arrived == 0) {
    s.barrier = kind, s.file = file, s.line = line, s.apart = false;
    s.count = 0, s.all = 1, s.any = 0;
  } else if (s.line != line || s.file != file || s.barrier != kind) {
    s.apart = true;
  }
  const int yes = predicate != 0;
  s.count += yes, s.all &= yes, s.any |= yes;
  s.warp[w].at_block |= bit;
  if (++s.arrived == s.live) {
    release_block();
    s.warp[w].runnable &= ~bit;  // it simply goes on
    if (!s.warp[w].runnable) s.ready &= ~(1u << w);
    s.current_warp = w;
  } else {
    wait_for_release();
  }
  return s.result;
}

// ---------------------------------------------------------------- warp operations
static int source_lane(const Thread& t, int lane) {
  const int width = t.width, first = lane & ~(width - 1), last = first | (width - 1);
  int from = lane;
  switch (t.kind) {
    case SHUFFLE: return first | (t.argument & (width - 1));
    case SHUFFLE_UP: from = lane - t.argument; return from < first ? lane : from;
    case SHUFFLE_DOWN: from = lane + t.argument; return from > last ? lane : from;
    default: from = lane ^ t.argument; return from > last ? lane : from;
  }
}

static void complete(int w, u32 lanes) {
  Thread* const t = s.thread + w * 32;
  const WarpKind kind = t[__builtin_ctz(lanes)].kind;
  if (kind == EXCHANGE) {
    if (lanes != ~0u) fail_waiting("a matrix operation needs all 32 lanes of its warp");
    for (int lane = 0; lane < 32; lane++) {
      char* const to = s.exchanged[w] + lane * t[lane].argument;
      __builtin_memcpy(to, (const void*)t[lane].value, (u64)t[lane].argument);
    }
    for (int lane = 0; lane < 32; lane++) t[lane].value = (u64)s.exchanged[w];
    return;
  }
  u64 result[32];
  u32 ballot = 0;
  for (u32 l = lanes; l; l &= l - 1)
    if (t[__builtin_ctz(l)].value) ballot |= 1u << __builtin_ctz(l);
  for (u32 l = lanes; l; l &= l - 1) {
    const int lane = __builtin_ctz(l);
    switch (kind) {
      case WARP_SYNC: result[lane] = 0; break;
      case BALLOT: result[lane] = ballot; break;
      case ANY: result[lane] = ballot != 0; break;
      case ALL: result[lane] = ballot == lanes; break;
      case MATCH_ANY: {
        u32 same = 0;
        for (u32 m = lanes; m; m &= m - 1)
          if (t[__builtin_ctz(m)].value == t[lane].value) same |= m & -m;
        result[lane] = same;
        break;
      }
      default: {
        const int from = source_lane(t[lane], lane);
        // a lane that takes no part has no value to give: what comes is undefined, here NaN
        result[lane] = lanes >> (from & 31) & 1 ? t[from].value : ~0ull;
      }
    }
  }
  for (u32 l = lanes; l; l &= l - 1) t[__builtin_ctz(l)].value = result[__builtin_ctz(l)];
}

// lets the lanes of a mask go on when all of them that live have come
static bool try_release_warp(int w, u32 mask) {
  Warp& warp = s.warp[w];
  const u32 lanes = mask & warp.alive;
  if (!lanes || (warp.at_warp & lanes) != lanes) return false;
  const Thread& head = s.thread[w * 32 + __builtin_ctz(lanes)];
  for (u32 l = lanes; l; l &= l - 1) {
    const Thread& t = s.thread[w * 32 + __builtin_ctz(l)];
    if (t.mask != head.mask || t.kind != head.kind || t.line != head.line || t.file != head.file)
      fail_waiting("lanes of a warp meet at different operations");
  }
  complete(w, lanes);
  warp.at_warp &= ~lanes;
  release(w, lanes);
  return true;
}

u64 warp_operation(WarpKind kind, u32 mask, u64 value, int argument, int width, const char* file, int line) {
  const int self = s.current, w = self >> 5;
  const u32 bit = 1u << (self & 31);
  Thread& thread = s.thread[self];
  thread.file = file, thread.line = line, thread.kind = kind;
  thread.mask = mask, thread.value = value, thread.argument = argument, thread.width = width;
  Warp& warp = s.warp[w];
  warp.at_warp |= bit;
  if (!(mask & bit)) fail_waiting("a lane calls a warp operation whose mask leaves it out");
  if (width < 1 || width > 32 || (width & (width - 1))) fail_waiting("a shuffle's width is no power of two up to 32");
  if (try_release_warp(w, mask)) {
    warp.runnable &= ~bit;
    if (!warp.runnable) s.ready &= ~(1u << w);
  } else {
    wait_for_release();
  }
  return thread.value;
}

u32 active_lanes() { return s.warp[s.current >> 5].alive; }

int lane() { return s.current & 31; }

// ---------------------------------------------------------------- asynchronous copies
// The bytes arrive when they are waited for; until then the destination is poisoned, so that who reads too early sees it.
static void fill(char* from, char* to, unsigned char byte);

void start_copy(void* to, const void* from, int bytes) {
  Thread& t = s.thread[s.current];
  if (t.copies == MAX_COPIES) {
    Message m;
    add_place(m);
    m.add(", thread %d: more than %d asynchronous copies under way", s.current, MAX_COPIES);
    give_up();
  }
  fill((char*)to, (char*)to + bytes, POISON);
  s.copy[s.current][t.copies++] = Copy{(char*)to, (const char*)from, bytes, t.copy_group};
}

void end_copy_group() { s.thread[s.current].copy_group++; }

void wait_for_copies(int groups) {
  Thread& t = s.thread[s.current];
  Copy* const copies = s.copy[s.current];
  int left = 0;
  for (int i = 0; i < t.copies; i++) {
    const Copy& c = copies[i];
    if (c.group >= t.copy_group - groups) copies[left++] = c;  // the open group is not waited for either
    else if (c.from) __builtin_memcpy(c.to, c.from, (u64)c.bytes);
    else fill(c.to, c.to + c.bytes, 0);
  }
  t.copies = left;
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

static void fill(char* from, char* to, unsigned char byte) {
  // volatile, so that no compiler makes a memset of it, which AddressSanitizer would check
  const u64 word = byte * 0x0101010101010101ull;
  for (; from + 8 <= to; from += 8) *(volatile u64*)from = word;
  for (; from < to; from++) *(volatile char*)from = (char)byte;
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
  if (s.status == FINE && !fence_is_whole()) s.status = FAILED;
}

static u64 gcd(u64 a, u64 b) { return b ? gcd(b, a % b) : a; }

static void run_grid() {
  const Launch& l = *s.launch;
  const u64 blocks = (u64)l.grid[0] * l.grid[1] * l.grid[2];
  u64 step = 1, at = 0;  // block numbers at, at + step, ... modulo blocks: each once, if step and blocks share no factor
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
}

// ---------------------------------------------------------------- traps
static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
static struct sigaction before[5];
static thread_local bool running_here = false;

static void trapped(int number, siginfo_t* info, void* context) {
  if (!running_here) {  // another thread's: as if this had not been here
    for (int i = 0; i < 5; i++)
      if (SIGNALS[i] == number) sigaction(number, &before[i], nullptr);
    return;
  }
  Launch& l = *s.launch;
#if defined(__x86_64__)
  l.fault = (void*)((unsigned long*)&((ucontext_t*)context)->uc_mcontext)[16];  // REG_RIP
#endif
  (void)context;
  Message m;
  add_place(m);
  m.add(", thread %d (%u, %u, %u): ", s.current, threadIdx.x, threadIdx.y, threadIdx.z);
  char* const at = (char*)info->si_addr;
  const u64 offset = (u64)(at - l.stacks);
  if (number == SIGFPE) m.add("division of an integer by zero");
  else if (number == SIGILL || number == SIGTRAP) m.add("misaligned access, index out of an array's bounds, or other undefined behaviour");
  else if (at >= l.stacks && offset < MAX_THREADS * l.stack_bytes && offset % l.stack_bytes < l.guard_bytes)
    m.add("its variables need more than the %llu bytes of its stack", l.stack_bytes - l.guard_bytes);
  else m.add("access to address %p, where there is no memory", (void*)at);
  siglongjmp(s.escape, 1);
}

static void catch_traps(bool on) {
  if (__asan_unpoison_memory_region) return;  // AddressSanitizer reports them better
  static char stack[1 << 16];                 // of the handler's own: a fiber's may be what has run out
  static stack_t stack_before;
  if (on) {
    stack_t mine = {};
    mine.ss_sp = stack, mine.ss_size = sizeof stack;
    sigaltstack(&mine, &stack_before);
    struct sigaction action = {};
    action.sa_sigaction = trapped;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 5; i++) sigaction(SIGNALS[i], &action, &before[i]);
  } else {
    for (int i = 0; i < 5; i++) sigaction(SIGNALS[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
  }
  running_here = on;
}
}  // namespace spiral_cpu

// Bytes of each parameter of a kernel, then -1.
extern "C" __attribute__((visibility("default"))) const int* spiral_parameters(int kernel) {
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
