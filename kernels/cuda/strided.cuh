// Arrays with strides: where element i of a broadcast, transposed or sliced operand lies.
#pragma once
#include "spiral.cuh"

namespace spiral {
constexpr int AXES = 8;

// Lengths of the axes, and for each of K operands the bytes from one element to the next along each axis. Axes that lie
// in one stretch for all operands have been merged by the caller; the last axis runs fastest. Passed by value:
// struct format f"i4x8q{8*K}q".
template <int K>
struct Layout {
  int ndim;
  i64 shape[AXES];
  i64 stride[K][AXES];
};

// Byte offsets of element i of each operand.
template <int K>
__device__ inline void locate(const Layout<K>& l, i64 i, i64* offset) {
  for (int k = 0; k < K; k++) offset[k] = 0;
  for (int d = AXES - 1; d >= 0; d--) {
    if (d >= l.ndim) continue;
    const i64 n = l.shape[d];
    // 64-bit division costs some 70 instructions; most arrays have fewer than 2^32 elements
    i64 q, r;
    if ((u64)i >> 32 == 0 && (u64)n >> 32 == 0)
      q = (u32)i / (u32)n, r = (u32)i % (u32)n;
    else
      q = i / n, r = i % n;
    for (int k = 0; k < K; k++) offset[k] += r * l.stride[k][d];
    i = q;
  }
}

template <class T>
__device__ inline T& at(const T* p, i64 bytes) { return *(T*)((char*)p + bytes); }
}  // namespace spiral
