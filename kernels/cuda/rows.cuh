// Rows of consecutive elements, shared out among the threads of a group in pieces of 16 bytes.
//
// A group is G consecutive lanes of a warp (G a power of two, at most 32) or, for G > 32, a whole block of G threads that
// has one row. Piece p of lane l begins at element (p * G + l) * N - shift of the row, where shift is how many elements
// the row starts past a 16-byte boundary: whatever the length and the address of rows, all pieces but a row's first and
// last are one access each. A row's edges are read element by element; nothing outside of it is.
#pragma once
#include "spiral.cuh"

namespace spiral {
constexpr int THREADS = 256;  // of a block whose groups are parts of a warp

// elements between the last 16-byte boundary and p
template <class T>
__device__ inline int past16(const T* p) { return (int)(((u64)p & 15) / sizeof(T)); }

// Elements i to i + N - 1 of a row of n; `fill` outside of it. `aligned`: row + i is a multiple of 16.
template <class T>
__device__ inline Pack<T> load_part(const T* row, i64 i, i64 n, bool aligned, T fill = T{}) {
  constexpr int N = Pack<T>::N;
  if (aligned && i >= 0 && i + N <= n) return load16(row + i);
  Pack<T> v;
  if (i >= n) {
#pragma unroll
    for (int j = 0; j < N; j++) v.at[j] = fill;
    return v;
  }
#pragma unroll
  for (int j = 0; j < N; j++) v.at[j] = i + j >= 0 && i + j < n ? row[i + j] : fill;
  return v;
}

template <class T>
__device__ inline void store_part(T* row, i64 i, i64 n, bool aligned, const Pack<T>& v) {
  constexpr int N = Pack<T>::N;
  if (aligned && i >= 0 && i + N <= n) {
    store16(row + i, v);
    return;
  }
#pragma unroll
  for (int j = 0; j < N; j++)
    if (i + j >= 0 && i + j < n) row[i + j] = v.at[j];
}

// Which row this thread works on, and as which lane. The threads of groups beyond the last row work on it too, so that
// whole warps reach every shuffle, but must write nothing: `live` is false.
struct RowLane {
  i64 row;
  int lane;
  bool live;
};
__device__ inline RowLane row_lane(i64 rows, int group) {
  RowLane r;
  r.lane = (int)threadIdx.x & (group - 1);
  r.row = (i64)blockIdx.x * (blockDim.x / group) + threadIdx.x / group;
  r.live = r.row < rows;
  if (!r.live) r.row = rows - 1;
  return r;
}

// All threads of a group get the result, in the same order every time; `scratch` holds 32 values.
template <class Op, class A>
__device__ inline A group_reduce(A x, A neutral, int group, A* scratch) {
  if (group > 32) return block_reduce<Op>(x, neutral, scratch);
  for (int d = group >> 1; d > 0; d >>= 1) x = Op::of(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}

// Sums of two values at once.
template <class A>
__device__ inline void group_sum2(A& a, A& b, int group, A* scratch) {  // `scratch` holds 64 values
  const int width = group < 32 ? group : 32;
  for (int d = width >> 1; d > 0; d >>= 1)
    a += __shfl_xor_sync(0xffffffffu, a, d), b += __shfl_xor_sync(0xffffffffu, b, d);
  if (group <= 32) return;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  if (lane == 0) scratch[warp] = a, scratch[32 + warp] = b;
  __syncthreads();
  a = lane < warps ? scratch[lane] : (A)0, b = lane < warps ? scratch[32 + lane] : (A)0;
  for (int d = 16; d > 0; d >>= 1)
    a += __shfl_xor_sync(0xffffffffu, a, d), b += __shfl_xor_sync(0xffffffffu, b, d);
  __syncthreads();
}

// The larger; NaN loses. For maxima that are subtracted before exp, which brings NaN back.
struct Larger {
  static __device__ float of(float a, float b) { return fmaxf(a, b); }
  static __device__ double of(double a, double b) { return fmax(a, b); }
};

// A maximum so far, and the sum of exp(x - top) of the elements so far.
template <class A>
struct Online {
  A top, sum;
};
// What to subtract: exp(-inf - base) must be 0 also where there is nothing else.
template <class A>
__device__ inline A base_of(A top) { return top == (A)float_of(0xff800000u) ? (A)0 : top; }
template <class A>
__device__ inline Online<A> join(const Online<A>& s, const Online<A>& t) {
  const A top = Larger::of(s.top, t.top), base = base_of(top);
  return {top, s.sum * exp(s.top - base) + t.sum * exp(t.top - base)};
}
template <class A>
__device__ inline Online<A> group_join(Online<A> s, int group, A* scratch) {
  const A top = group_reduce<Larger>(s.top, (A)float_of(0xff800000u), group, scratch);
  return {top, group_reduce<Add>(s.sum * exp(s.top - base_of(top)), (A)0, group, scratch)};
}

template <class A>
__device__ inline A minus_infinity() { return (A)float_of(0xff800000u); }
template <class A>
__device__ inline A not_a_number() { return (A)float_of(0x7fc00000u); }

// A number that is stored as T, or as wide<T> where `full`: what a forward saves for its backward, weights.
template <class T>
__device__ inline wide<T> load_as(const void* p, i64 i, bool full) {
  return full ? ((const wide<T>*)p)[i] : (wide<T>)up(((const T*)p)[i]);
}
template <class T>
__device__ inline void store_as(void* p, i64 i, bool full, wide<T> x) {
  if (full)
    ((wide<T>*)p)[i] = x;
  else
    ((T*)p)[i] = down<T>(x);
}
}  // namespace spiral
