// What every CUDA C++ kernel of this folder includes: element types, 16-byte accesses, block reductions.
//
// No header of CUDA or of the C++ library is needed, so that any NVRTC compiles it, and g++ with
// spiral/testing/cuda_on_cpu (there SPIRAL_ON_CPU is defined). Arithmetic is in float (double for double); 16-bit types
// are for storage: load with up(), store with down<T>(), which rounds to the nearest, ties to even, once.
#pragma once

namespace spiral {
typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef signed char i8;
typedef unsigned char u8;

struct f16 { u16 bits; };
struct bf16 { u16 bits; };

__device__ inline u32 bits_of(float x) {
#ifdef SPIRAL_ON_CPU
  u32 u;
  __builtin_memcpy(&u, &x, 4);
  return u;
#else
  return __float_as_uint(x);
#endif
}

__device__ inline float float_of(u32 u) {
#ifdef SPIRAL_ON_CPU
  float x;
  __builtin_memcpy(&x, &u, 4);
  return x;
#else
  return __uint_as_float(u);
#endif
}

// ---------------------------------------------------------------- widening and rounding
__device__ inline float up(float x) { return x; }
__device__ inline double up(double x) { return x; }
__device__ inline float up(bf16 x) { return float_of((u32)x.bits << 16); }
__device__ inline float up(f16 x) {
#ifdef SPIRAL_ON_CPU
  return spiral_cpu::half_to_float(x.bits);
#else
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#endif
}
// integers and bool (u8 with 0 and 1) are what they are
__device__ inline i8 up(i8 x) { return x; }
__device__ inline u8 up(u8 x) { return x; }
__device__ inline short up(short x) { return x; }
__device__ inline u16 up(u16 x) { return x; }
__device__ inline int up(int x) { return x; }
__device__ inline u32 up(u32 x) { return x; }
__device__ inline i64 up(i64 x) { return x; }
__device__ inline u64 up(u64 x) { return x; }
__device__ inline bool up(bool x) { return x; }

template <class T>
struct Down {
  template <class A>
  static __device__ T of(A x) { return (T)x; }
};
template <>
struct Down<bf16> {
  static __device__ bf16 of(float x) {
    u32 u = bits_of(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return bf16{(u16)((u >> 16) | 0x40u)};  // NaN stays NaN
    return bf16{(u16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
  }
};
template <>
struct Down<f16> {
  static __device__ f16 of(float x) {
#ifdef SPIRAL_ON_CPU
    return f16{spiral_cpu::float_to_half(x)};
#else
    f16 r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
    return r;
#endif
  }
};
template <class T, class A>
__device__ inline T down(A x) { return Down<T>::of(x); }

// the type that arithmetic on T runs in
template <class T> struct Wide { typedef float type; };
template <> struct Wide<double> { typedef double type; };
template <class T> using wide = typename Wide<T>::type;

// ---------------------------------------------------------------- 16-byte accesses
template <class T>
struct alignas(16) Pack {
  static constexpr int N = 16 / sizeof(T);
  T at[N];
};
template <class T>
__device__ inline Pack<T> load16(const T* p) { return *(const Pack<T>*)p; }
template <class T>
__device__ inline void store16(T* p, const Pack<T>& v) { *(Pack<T>*)p = v; }
__device__ inline bool aligned16(const void* p) { return ((u64)p & 15) == 0; }

// ---------------------------------------------------------------- shared memory
// What the launch asked for, as an array of T; aligned for any access.
template <class T>
__device__ inline T* dynamic_shared() {
#ifdef SPIRAL_ON_CPU
  return (T*)spiral_cpu::dynamic_shared_memory();
#else
  extern __shared__ __align__(128) unsigned char spiral_dynamic_shared_memory[];
  return (T*)spiral_dynamic_shared_memory;
#endif
}

// ---------------------------------------------------------------- block reductions
struct Add {
  template <class A> static __device__ A of(A a, A b) { return a + b; }
};
struct Max {  // NaN wins
  template <class A> static __device__ A of(A a, A b) { return (a != a || a > b) ? a : b; }
};
struct Min {
  template <class A> static __device__ A of(A a, A b) { return (a != a || a < b) ? a : b; }
};

template <class Op, class A>
__device__ inline A warp_reduce(A x) {  // all 32 lanes get the result; same order every time
  for (int d = 16; d > 0; d >>= 1) x = Op::of(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}

// All threads get the result. blockDim.x is a multiple of 32, at most 1024; `scratch` holds 32 values and may be used
// again right after.
template <class Op, class A>
__device__ inline A block_reduce(A x, A neutral, A* scratch) {
  x = warp_reduce<Op>(x);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  if (warps == 1) return x;
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = warp_reduce<Op>(lane < warps ? scratch[lane] : neutral);
  __syncthreads();
  return x;
}
}  // namespace spiral
