// What the parts of the scheduler share: the launch, its threads and warps, and who runs now.
#pragma once
#include "runtime.h"

#include <setjmp.h>

#include "entry.h"
#include "fiber.h"

typedef unsigned long long u64;
typedef unsigned int u32;

namespace spiral_cpu {
const int MAX_THREADS = 1024, MAX_WARPS = 32;
const unsigned char POISON = 0xff, FENCE = 0xa5;
enum Order { FORWARD, REVERSE, SHUFFLE_ORDER };
enum Status { FINE, FAILED };

// what the host passes in; launching.py has the same structure
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
} s;

static void fill(char* from, char* to, unsigned char byte) {
  // volatile, so that no compiler makes a memset of it, which AddressSanitizer would check
  const u64 word = byte * 0x0101010101010101ull;
  for (; from + 8 <= to; from += 8) *(volatile u64*)from = word;
  for (; from < to; from++) *(volatile char*)from = (char)byte;
}
}  // namespace spiral_cpu
