// What threads of a block or a warp do together, and the copies that a thread waits for.
#pragma once
#include "failing.h"

namespace spiral_cpu {
// scheduler.cpp: lets threads of a warp run again; goes on with others until the running thread is released
static void release(int warp, u32 lanes);
static void wait_for_release();

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
// The bytes arrive when they are waited for; until then the destination is NaN, so that who reads too early sees it.
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
}  // namespace spiral_cpu
