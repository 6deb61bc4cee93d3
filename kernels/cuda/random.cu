// Dropout from a Philox stream: ../common/philox.h says which bits belong to which element, on every backend the same.
#include "../common/philox.h"
#include "elementwise.cuh"

namespace spiral {
// y = x * scale where the element's word of the stream is at least `edge`, else 0; x and y dense, n elements. Overwrites
// y. Moves 2 * n elements; a block of Philox, some 70 operations, serves four. A thread makes two runs of four elements
// (16-bit types: of eight).
template <class T>
__global__ void dropout(const T* x, T* y, u32 n, u32 edge, double scale, u64 seed, u64 stream, u64 first) {
  typedef Arithmetic<T> A;
  constexpr int N = sizeof(T) < 4 ? 8 : 4;
  const A s = (A)scale;
  Run<T, N> a[ROUNDS];
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const u32 i = run_start<N>(k);
    if (i >= n) break;
    if (i + N <= n)
      a[k] = load_run<N>(x + i, (i64)sizeof(T));
    else
      for (int j = 0; j < N; j++)
        if (i + j < n) a[k].at[j] = x[i + j];
  }
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const u32 i = run_start<N>(k);
    if (i >= n) return;
    Run<T, N> r;
#pragma unroll
    for (int j = 0; j < N; j += 4) {
      u32 words[4];
      philox_block(seed, stream, (first + i + j) / 4, words);
#pragma unroll
      for (int m = 0; m < 4; m++) r.at[j + m] = words[m] >= edge ? down<T>(up(a[k].at[j + m]) * s) : down<T>((A)0);
    }
    store_run<N>(y + i, r, n - i);
  }
}
}  // namespace spiral
