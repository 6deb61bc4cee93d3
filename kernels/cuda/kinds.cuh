// Elements of arrays whose types are known when a kernel runs: one launch takes tensors of several.
#pragma once
#include "spiral.cuh"

namespace spiral {
enum Kind { F16, BF16, F32, F64 };

__device__ inline int size_of(int kind) { return kind <= BF16 ? 2 : kind == F32 ? 4 : 8; }

template <class A>
__device__ inline A load_one(const void* p, int kind, i64 i) {
  return kind == F32    ? (A)((const float*)p)[i]
         : kind == BF16 ? (A)up(((const bf16*)p)[i])
         : kind == F16  ? (A)up(((const f16*)p)[i])
                        : (A)((const double*)p)[i];
}

template <class A>
__device__ inline void store_one(void* p, int kind, i64 i, A x) {
  if (kind == F32)
    ((float*)p)[i] = (float)x;
  else if (kind == BF16)
    ((bf16*)p)[i] = down<bf16>((float)x);
  else if (kind == F16)
    ((f16*)p)[i] = down<f16>((float)x);
  else
    ((double*)p)[i] = (double)x;
}
}  // namespace spiral
