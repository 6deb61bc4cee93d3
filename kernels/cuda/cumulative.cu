// Running sums and products along an axis.
//
// x, y: (outer, n, inner), dense; y is overwritten and may be the buffer of x. Long axes are cut into segments: the
// totals of all segments first (x read once), then their running values, then each segment from where it starts (x read
// again); else one reading. Moves 2 * sizeof(T) bytes per element, with segments 3. Floating elements are accumulated
// in the wide type and rounded once each; integers are u64, in which signed results are the same bits. The order of all
// additions depends on the shape alone.
#include "rows.cuh"

namespace spiral {
struct Times {
  template <class A> static __device__ A of(A a, A b) { return a * b; }
};
template <class T> struct Running { typedef wide<T> type; };
template <> struct Running<u64> { typedef u64 type; };
template <class Op, class A>
__device__ inline A neutral_of() { return Op::of((A)1, (A)1) == (A)1 ? (A)1 : (A)0; }

// Rows (inner is 1): a block per row and segment (blockIdx.y). With `totals` (gridDim.y, rows) it leaves the segment's
// total there and y alone; else it begins with `starts` of the same shape, where that is given.
template <class T, class Op>
__global__ void __launch_bounds__(THREADS)
cumulative_rows(const T* x, T* y, typename Running<T>::type* totals, const typename Running<T>::type* starts, i64 rows,
                i64 n, i64 segment) {
  typedef typename Running<T>::type A;
  constexpr int N = Pack<T>::N, WARPS = THREADS / 32;
  __shared__ A sums[WARPS];
  const A neutral = neutral_of<Op, A>();
  const i64 row = blockIdx.x, first = blockIdx.y * segment;
  x += row * n + first, y += row * n + first;
  n = n - first < segment ? n - first : segment;
  const bool same = past16(x) == past16(y);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  A carry = starts ? starts[blockIdx.y * rows + row] : neutral;
  for (i64 base = -past16(x); base < n; base += THREADS * N) {
    const i64 i = base + threadIdx.x * N;
    Pack<T> v = load_part(x, i, n, true);
    A own[N];
    A total = neutral;
#pragma unroll
    for (int j = 0; j < N; j++) {
      if (i + j >= 0 && i + j < n) total = Op::of(total, (A)up(v.at[j]));
      own[j] = total;
    }
    A before = total;  // of the threads up to this one
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
      const A other = __shfl_up_sync(0xffffffffu, before, d);
      if (lane >= d) before = Op::of(other, before);
    }
    if (lane == 31) sums[warp] = before;
    before = __shfl_up_sync(0xffffffffu, before, 1);
    if (lane == 0) before = neutral;
    __syncthreads();
    A all = carry;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      if (w == warp) before = Op::of(all, before);
      all = Op::of(all, sums[w]);
    }
    carry = all;
    __syncthreads();
    if (totals) continue;
#pragma unroll
    for (int j = 0; j < N; j++) v.at[j] = down<T>(Op::of(before, own[j]));
    store_part(y, i, n, same, v);
  }
  if (totals && threadIdx.x == 0) totals[blockIdx.y * rows + row] = carry;
}

// Columns: a thread per column and segment; neighbours lie side by side. totals and starts: (gridDim.y, outer * inner).
template <class T, class Op>
__global__ void __launch_bounds__(THREADS)
cumulative_columns(const T* x, T* y, typename Running<T>::type* totals, const typename Running<T>::type* starts, i64 outer,
                   i64 n, i64 inner, i64 segment) {
  typedef typename Running<T>::type A;
  const i64 columns = outer * inner, c = (i64)blockIdx.x * THREADS + threadIdx.x;
  if (c >= columns) return;
  const i64 k = outer == 1 ? 0 : c / inner, from = blockIdx.y * segment, to = from + segment < n ? from + segment : n;
  x += k * n * inner + (c - k * inner), y += k * n * inner + (c - k * inner);
  A sum = starts ? starts[blockIdx.y * columns + c] : neutral_of<Op, A>();
  i64 i = from;
  for (; i + 4 <= to; i += 4) {
    T v[4];  // four loads in flight
#pragma unroll
    for (int q = 0; q < 4; q++) v[q] = x[(i + q) * inner];
#pragma unroll
    for (int q = 0; q < 4; q++) {
      sum = Op::of(sum, (A)up(v[q]));
      if (!totals) y[(i + q) * inner] = down<T>(sum);
    }
  }
  for (; i < to; i++) {
    sum = Op::of(sum, (A)up(x[i * inner]));
    if (!totals) y[i * inner] = down<T>(sum);
  }
  if (totals) totals[blockIdx.y * columns + c] = sum;
}

// totals (segments, columns) become what each segment starts with.
template <class A, class Op>
__global__ void __launch_bounds__(THREADS) cumulative_starts(A* totals, i64 segments, i64 columns) {
  const i64 c = (i64)blockIdx.x * THREADS + threadIdx.x;
  if (c >= columns) return;
  A sum = neutral_of<Op, A>();
  for (i64 s = 0; s < segments; s++) {
    const A next = totals[s * columns + c];
    totals[s * columns + c] = sum;
    sum = Op::of(sum, next);
  }
}
}  // namespace spiral
