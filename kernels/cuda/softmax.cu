// Softmax, log-softmax and their gradients along any axis.
//
//   y = exp(x - top) / sum        log: y = x - top - log(sum)        sum = sum exp(x - top), top = max x
//   dx = y * (g - sum(g * y))     log: dx = g - exp(y) * sum(g)
//
// Outputs are overwritten and may be the very buffer of an input of their shape. Bytes moved per element: those of the
// inputs once and of the output, while a row fits into registers (*_rows: 512 threads hold 32 KiB, of float32 64 KiB;
// gradients 32 KiB of each), else the rest of the inputs twice; two exponentials per element, one for gradients of
// log-softmax, none for the other. A row of -inf, or one with NaN or +inf, gives NaN.
#include "rows.cuh"

namespace spiral {
// x, y: (rows, n), dense.
template <class T>
__global__ void __launch_bounds__(512) softmax_rows(const T* x, T* y, i64 rows, i64 n, int group, int log_of) {
  typedef wide<T> A;
  constexpr int N = Pack<T>::N, HELD = sizeof(T) == 4 ? 8 : 4;
  __shared__ A scratch[32];
  const RowLane r = row_lane(rows, group);
  x += r.row * n, y += r.row * n;
  const bool same = past16(x) == past16(y);
  const i64 step = (i64)group * N, first = (i64)r.lane * N - past16(x);
  const T least = down<T>(minus_infinity<A>());
  Pack<T> held[HELD];
#pragma unroll
  for (int h = 0; h < HELD; h++) held[h] = load_part(x, first + h * step, n, true, least);
  Online<A> s = {minus_infinity<A>(), 0};
#pragma unroll
  for (int h = 0; h < HELD; h++)
#pragma unroll
    for (int j = 0; j < N; j++) s.top = Larger::of(s.top, up(held[h].at[j]));
  const A own = base_of(s.top);
#pragma unroll
  for (int h = 0; h < HELD; h++)
    if (first + h * step < n)
#pragma unroll
      for (int j = 0; j < N; j++) s.sum += exp(up(held[h].at[j]) - own);
  for (i64 i = first + HELD * step; i < n; i += step) {
    const Pack<T> v = load_part(x, i, n, true, least);
    Online<A> t = {up(v.at[0]), 0};
#pragma unroll
    for (int j = 1; j < N; j++) t.top = Larger::of(t.top, up(v.at[j]));
    const A base = base_of(t.top);
#pragma unroll
    for (int j = 0; j < N; j++) t.sum += exp(up(v.at[j]) - base);
    s = join(s, t);
  }
  s = group_join(s, group, scratch);
  if (!r.live) return;
  const A top = s.top, scale = log_of ? log(s.sum) : (A)1 / s.sum;
  auto result = [&](T v) { return down<T>(log_of ? up(v) - top - scale : exp(up(v) - top) * scale); };
#pragma unroll
  for (int h = 0; h < HELD; h++) {
    if (first + h * step >= n) break;
#pragma unroll
    for (int j = 0; j < N; j++) held[h].at[j] = result(held[h].at[j]);
    store_part(y, first + h * step, n, same, held[h]);
  }
  for (i64 i = first + HELD * step; i < n; i += step) {
    Pack<T> v = load_part(x, i, n, true, least);
#pragma unroll
    for (int j = 0; j < N; j++) v.at[j] = result(v.at[j]);
    store_part(y, i, n, same, v);
  }
}

// g, y, dx: (rows, n), dense.
template <class T>
__global__ void __launch_bounds__(512)
softmax_grad_rows(const T* g, const T* y, T* dx, i64 rows, i64 n, int group, int log_of) {
  typedef wide<T> A;
  constexpr int N = Pack<T>::N, HELD = 4;
  __shared__ A scratch[32];
  const RowLane r = row_lane(rows, group);
  g += r.row * n, y += r.row * n, dx += r.row * n;
  const bool same_y = past16(g) == past16(y), same_dx = past16(g) == past16(dx);
  const i64 step = (i64)group * N, first = (i64)r.lane * N - past16(g);
  Pack<T> held_g[HELD], held_y[HELD];
#pragma unroll
  for (int h = 0; h < HELD; h++) {
    held_g[h] = load_part(g, first + h * step, n, true);
    held_y[h] = load_part(y, first + h * step, n, same_y);
  }
  A sum = 0;
  auto add = [&](const Pack<T>& a, const Pack<T>& b) {
#pragma unroll
    for (int j = 0; j < N; j++) sum += log_of ? up(a.at[j]) : up(a.at[j]) * up(b.at[j]);
  };
#pragma unroll
  for (int h = 0; h < HELD; h++) add(held_g[h], held_y[h]);
  for (i64 i = first + HELD * step; i < n; i += step) add(load_part(g, i, n, true), load_part(y, i, n, same_y));
  sum = group_reduce<Add>(sum, (A)0, group, scratch);
  if (!r.live) return;
  auto write = [&](i64 i, Pack<T> a, const Pack<T>& b) {
#pragma unroll
    for (int j = 0; j < N; j++) {
      const A u = up(a.at[j]), v = up(b.at[j]);
      a.at[j] = down<T>(log_of ? u - exp(v) * sum : v * (u - sum));
    }
    store_part(dx, i, n, same_dx, a);
  };
#pragma unroll
  for (int h = 0; h < HELD; h++)
    if (first + h * step < n) write(first + h * step, held_g[h], held_y[h]);
  for (i64 i = first + HELD * step; i < n; i += step)
    write(i, load_part(g, i, n, true), load_part(y, i, n, same_y));
}

// Which column of (outer, n, inner) a thread works on: `across` threads (a power of two) lie side by side, the others take
// other elements of the same columns, `by` apart. There are less than 2^32 columns unless outer is 1.
struct Column {
  i64 start;  // of the column's first element
  int from, by;
  bool live;
};
__device__ inline Column column_of(i64 outer, i64 n, i64 inner, int across) {
  const i64 c = (i64)blockIdx.x * across + (threadIdx.x & (across - 1));
  const i64 k = outer == 1 ? 0 : (u32)c / (u32)inner;  // 64-bit division is a subroutine
  return {k * n * inner + (c - k * inner), (int)threadIdx.x / across, THREADS / across, c < outer * inner};
}

// x, y: (outer, n, inner), dense; the columns are read twice, the second time from the cache where they fit.
template <class T>
__global__ void __launch_bounds__(THREADS, 2)
softmax_columns(const T* x, T* y, i64 outer, i64 n, i64 inner, int across, int log_of) {
  typedef wide<T> A;
  constexpr int K = 4;  // loads in flight
  __shared__ Online<A> tile[THREADS];
  const Column c = column_of(outer, n, inner, across);
  x += c.start, y += c.start;
  Online<A> s = {minus_infinity<A>(), 0};
  if (c.live)
    for (i64 i = c.from; i < n; i += K * c.by) {
      A v[K];
#pragma unroll
      for (int k = 0; k < K; k++) v[k] = i + k * c.by < n ? up(x[(i + k * c.by) * inner]) : minus_infinity<A>();
      Online<A> t = {v[0], 0};
#pragma unroll
      for (int k = 1; k < K; k++) t.top = Larger::of(t.top, v[k]);
      const A base = base_of(t.top);
#pragma unroll
      for (int k = 0; k < K; k++) t.sum += exp(v[k] - base);
      s = join(s, t);
    }
  tile[threadIdx.x] = s;
  for (int half = THREADS / 2; half >= across; half >>= 1) {
    __syncthreads();
    if ((int)threadIdx.x < half) tile[threadIdx.x] = join(tile[threadIdx.x], tile[threadIdx.x + half]);
  }
  __syncthreads();
  s = tile[threadIdx.x & (across - 1)];
  if (!c.live) return;
  const A top = s.top, scale = log_of ? log(s.sum) : (A)1 / s.sum;
#pragma unroll 4
  for (i64 i = c.from; i < n; i += c.by) {
    const A v = up(x[i * inner]);
    y[i * inner] = down<T>(log_of ? v - top - scale : exp(v - top) * scale);
  }
}

// g, y, dx: (outer, n, inner), dense.
template <class T>
__global__ void __launch_bounds__(THREADS, 2)
softmax_grad_columns(const T* g, const T* y, T* dx, i64 outer, i64 n, i64 inner, int across, int log_of) {
  typedef wide<T> A;
  __shared__ A tile[THREADS];
  const Column c = column_of(outer, n, inner, across);
  g += c.start, y += c.start, dx += c.start;
  A sum = 0;
  if (c.live)
#pragma unroll 4
    for (i64 i = c.from; i < n; i += c.by) sum += log_of ? up(g[i * inner]) : up(g[i * inner]) * up(y[i * inner]);
  tile[threadIdx.x] = sum;
  for (int half = THREADS / 2; half >= across; half >>= 1) {
    __syncthreads();
    if ((int)threadIdx.x < half) tile[threadIdx.x] += tile[threadIdx.x + half];
  }
  __syncthreads();
  sum = tile[threadIdx.x & (across - 1)];
  if (!c.live) return;
#pragma unroll 4
  for (i64 i = c.from; i < n; i += c.by) {
    const A u = up(g[i * inner]), v = up(y[i * inner]);
    dx[i * inner] = down<T>(log_of ? u - exp(v) * sum : v * (u - sum));
  }
}
}  // namespace spiral
