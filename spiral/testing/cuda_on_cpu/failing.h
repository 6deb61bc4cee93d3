// How a launch gives up: what it tells the host, and the traps of the processor.
#pragma once
#include <signal.h>

#include "state.h"

extern "C" __attribute__((weak)) void __asan_unpoison_memory_region(const volatile void*, size_t);

namespace spiral_cpu {
static const char* const BARRIER_NAMES[] = {"__syncthreads", "__syncthreads_count", "__syncthreads_and",
                                            "__syncthreads_or"};
static const char* const WARP_NAMES[] = {"__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                                         "__shfl_xor_sync", "__ballot_sync", "__any_sync", "__all_sync",
                                         "__match_any_sync", "a matrix operation"};

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
  const bool same_place = x.line == y.line && x.file == y.file;
  return block_a == block_b && same_place && x.kind == y.kind && (block_a || x.mask == y.mask);
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
  if (number == SIGFPE)
    m.add("division of an integer by zero");
  else if (number == SIGILL || number == SIGTRAP)
    m.add("misaligned access, index out of an array's bounds, or other undefined behaviour");
  else if (at >= l.stacks && offset < MAX_THREADS * l.stack_bytes && offset % l.stack_bytes < l.guard_bytes)
    m.add("its variables need more than the %llu bytes of its stack", l.stack_bytes - l.guard_bytes);
  else
    m.add("access to address %p, where there is no memory", (void*)at);
  siglongjmp(s.escape, 1);
}

static void catch_traps(bool on) {
  const int first = __asan_unpoison_memory_region ? 2 : 0;  // AddressSanitizer tells more of accesses
  static char stack[1 << 16];  // of the handler's own: a fiber's may be what has run out
  static stack_t stack_before;
  if (on) {
    stack_t mine = {};
    mine.ss_sp = stack, mine.ss_size = sizeof stack;
    sigaltstack(&mine, &stack_before);
    struct sigaction action = {};
    action.sa_sigaction = trapped;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = first; i < 5; i++) sigaction(SIGNALS[i], &action, &before[i]);
  } else {
    for (int i = first; i < 5; i++) sigaction(SIGNALS[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
  }
  running_here = on;
}
}  // namespace spiral_cpu
