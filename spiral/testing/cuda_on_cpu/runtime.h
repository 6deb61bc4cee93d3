// CUDA C++ for the processor: what a kernel of kernels/cuda finds when g++ compiles it in place of NVRTC.
//
// Every CUDA thread is a fiber of one processor thread (scheduler.cpp), so barriers, shuffles and shared memory mean
// what they mean on a device, and a run repeats bit by bit. No header of the system is included: as with NVRTC a kernel
// finds the names that CUDA gives it and no others.
//
// __shared__ variables become static ones; shared.ld gathers them in one stretch of memory, which the scheduler fills
// with 0xff (NaN in every floating type) before each block.
#pragma once
#define SPIRAL_ON_CPU 1

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__

typedef __SIZE_TYPE__ size_t;

// ---------------------------------------------------------------- vector types
#define SPIRAL_VECTOR(T, name)                                                                                \
  struct name##1 { T x; };                                                                                    \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                                          \
  struct name##3 { T x, y, z; };                                                                              \
  struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; };                          \
  inline name##1 make_##name##1(T x) { return {x}; }                                                          \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                  \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                          \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SPIRAL_VECTOR(signed char, char)
SPIRAL_VECTOR(unsigned char, uchar)
SPIRAL_VECTOR(short, short)
SPIRAL_VECTOR(unsigned short, ushort)
SPIRAL_VECTOR(int, int)
SPIRAL_VECTOR(unsigned int, uint)
SPIRAL_VECTOR(long long, longlong)
SPIRAL_VECTOR(unsigned long long, ulonglong)
SPIRAL_VECTOR(float, float)
SPIRAL_VECTOR(double, double)
#undef SPIRAL_VECTOR

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// ---------------------------------------------------------------- the scheduler's side
#pragma GCC visibility push(hidden)
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// where a barrier stands in the source: the default arguments are evaluated at the call
#define SPIRAL_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace spiral_cpu {
enum BarrierKind { SYNC, SYNC_COUNT, SYNC_AND, SYNC_OR };
enum WarpKind { WARP_SYNC, SHUFFLE, SHUFFLE_UP, SHUFFLE_DOWN, SHUFFLE_XOR, BALLOT, ANY, ALL, MATCH_ANY, EXCHANGE };
int block_barrier(BarrierKind kind, int predicate, const char* file, int line);
unsigned long long warp_operation(
    WarpKind kind, unsigned mask, unsigned long long value, int argument, int width, const char* file, int line);
unsigned active_lanes();
int lane();
void start_copy(void* to, const void* from, int bytes);
void end_copy_group();
void wait_for_copies(int groups);
void* dynamic_shared_memory();
[[noreturn]] void trap(const char* file, int line);

template <class T>
inline T shuffle(WarpKind kind, unsigned mask, T value, int argument, int width, const char* file, int line) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles values of 4 or 8 bytes");
  unsigned long long bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  bits = warp_operation(kind, mask, bits, argument, width, file, line);
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
// What all 32 lanes have at the addresses that they give, up to 32 bytes each, one after another; valid until the
// lane's next warp operation. Traps where an address is not aligned as a T.
template <class T>
inline const void* exchange(const T* mine, int bytes, SPIRAL_HERE) {
  if ((unsigned long long)mine % alignof(T)) __builtin_trap();
  return (const void*)warp_operation(EXCHANGE, 0xffffffffu, (unsigned long long)mine, bytes, 32, file, line);
}
// T gives the alignment that a device asks for
template <class T>
inline void copy_later(T* to, const T* from, int bytes) {
  if (((unsigned long long)to | (unsigned long long)from) % alignof(T)) __builtin_trap();
  start_copy(to, from, bytes);
}
}  // namespace spiral_cpu
#pragma GCC visibility pop

constexpr int warpSize = 32;

// ---------------------------------------------------------------- barriers
inline void __syncthreads(SPIRAL_HERE) { spiral_cpu::block_barrier(spiral_cpu::SYNC, 0, file, line); }
inline int __syncthreads_count(int predicate, SPIRAL_HERE) {
  return spiral_cpu::block_barrier(spiral_cpu::SYNC_COUNT, predicate, file, line);
}
inline int __syncthreads_and(int predicate, SPIRAL_HERE) {
  return spiral_cpu::block_barrier(spiral_cpu::SYNC_AND, predicate, file, line);
}
inline int __syncthreads_or(int predicate, SPIRAL_HERE) {
  return spiral_cpu::block_barrier(spiral_cpu::SYNC_OR, predicate, file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SPIRAL_HERE) {
  spiral_cpu::warp_operation(spiral_cpu::WARP_SYNC, mask, 0, 0, 32, file, line);
}
inline void __threadfence() { __asm__ volatile("" ::: "memory"); }
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }

// ---------------------------------------------------------------- warp operations
template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, SPIRAL_HERE) {
  return spiral_cpu::shuffle(spiral_cpu::SHUFFLE, mask, value, lane, width, file, line);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SPIRAL_HERE) {
  return spiral_cpu::shuffle(spiral_cpu::SHUFFLE_UP, mask, value, (int)delta, width, file, line);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SPIRAL_HERE) {
  return spiral_cpu::shuffle(spiral_cpu::SHUFFLE_DOWN, mask, value, (int)delta, width, file, line);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SPIRAL_HERE) {
  return spiral_cpu::shuffle(spiral_cpu::SHUFFLE_XOR, mask, value, lane_mask, width, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SPIRAL_HERE) {
  return (unsigned)spiral_cpu::warp_operation(spiral_cpu::BALLOT, mask, predicate != 0, 0, 32, file, line);
}
inline int __any_sync(unsigned mask, int predicate, SPIRAL_HERE) {
  return (int)spiral_cpu::warp_operation(spiral_cpu::ANY, mask, predicate != 0, 0, 32, file, line);
}
inline int __all_sync(unsigned mask, int predicate, SPIRAL_HERE) {
  return (int)spiral_cpu::warp_operation(spiral_cpu::ALL, mask, predicate != 0, 0, 32, file, line);
}
template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, SPIRAL_HERE) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA matches values of 4 or 8 bytes");
  unsigned long long bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  return (unsigned)spiral_cpu::warp_operation(spiral_cpu::MATCH_ANY, mask, bits, 0, 32, file, line);
}
// the lanes of the warp that have not exited: no more can be said of threads that run one after another
inline unsigned __activemask() { return spiral_cpu::active_lanes(); }

// ---------------------------------------------------------------- atomics
// Fibers change only at barriers and warp operations, so plain reads and writes are atomic.
#define SPIRAL_ATOMIC(name, T, expression)   \
  inline T name(T* address, T value) {       \
    const T old = *address;                  \
    *address = (T)(expression);              \
    return old;                              \
  }
SPIRAL_ATOMIC(atomicAdd, int, (unsigned)old + (unsigned)value)
SPIRAL_ATOMIC(atomicAdd, unsigned, old + value)
SPIRAL_ATOMIC(atomicAdd, unsigned long long, old + value)
SPIRAL_ATOMIC(atomicAdd, float, old + value)
SPIRAL_ATOMIC(atomicAdd, double, old + value)
SPIRAL_ATOMIC(atomicSub, int, (unsigned)old - (unsigned)value)
SPIRAL_ATOMIC(atomicSub, unsigned, old - value)
SPIRAL_ATOMIC(atomicExch, int, value)
SPIRAL_ATOMIC(atomicExch, unsigned, value)
SPIRAL_ATOMIC(atomicExch, unsigned long long, value)
SPIRAL_ATOMIC(atomicExch, float, value)
#define SPIRAL_ATOMIC_INTEGERS(name, expression)          \
  SPIRAL_ATOMIC(name, int, expression)                    \
  SPIRAL_ATOMIC(name, unsigned, expression)               \
  SPIRAL_ATOMIC(name, unsigned long long, expression)
SPIRAL_ATOMIC_INTEGERS(atomicAnd, old & value)
SPIRAL_ATOMIC_INTEGERS(atomicOr, old | value)
SPIRAL_ATOMIC_INTEGERS(atomicXor, old ^ value)
SPIRAL_ATOMIC_INTEGERS(atomicMin, old < value ? old : value)
SPIRAL_ATOMIC_INTEGERS(atomicMax, old > value ? old : value)
SPIRAL_ATOMIC(atomicMin, long long, old < value ? old : value)
SPIRAL_ATOMIC(atomicMax, long long, old > value ? old : value)
SPIRAL_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)
SPIRAL_ATOMIC(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)
#undef SPIRAL_ATOMIC_INTEGERS
#undef SPIRAL_ATOMIC
#define SPIRAL_CAS(T)                                      \
  inline T atomicCAS(T* address, T compare, T value) {     \
    const T old = *address;                                \
    if (old == compare) *address = value;                  \
    return old;                                            \
  }
SPIRAL_CAS(int)
SPIRAL_CAS(unsigned)
SPIRAL_CAS(unsigned long long)
SPIRAL_CAS(unsigned short)
#undef SPIRAL_CAS

// ---------------------------------------------------------------- cached accesses, clocks, trap
#define SPIRAL_LOAD(name) \
  template <class T> inline T name(const T* p) { return *p; }
SPIRAL_LOAD(__ldg) SPIRAL_LOAD(__ldca) SPIRAL_LOAD(__ldcg) SPIRAL_LOAD(__ldcs) SPIRAL_LOAD(__ldlu) SPIRAL_LOAD(__ldcv)
#undef SPIRAL_LOAD
#define SPIRAL_STORE(name) \
  template <class T> inline void name(T* p, T value) { *p = value; }
SPIRAL_STORE(__stwb) SPIRAL_STORE(__stcg) SPIRAL_STORE(__stcs) SPIRAL_STORE(__stwt)
#undef SPIRAL_STORE
inline void __nanosleep(unsigned) {}
inline void __trap(SPIRAL_HERE) { spiral_cpu::trap(file, line); }
extern "C" int printf(const char*, ...);

#include "cuda_math.h"
