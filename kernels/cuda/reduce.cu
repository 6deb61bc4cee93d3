// Reductions over any axes: sum, mean, product, extremes and their positions, any, all, variance.
//
// The caller brings an array into the shape (outer, n, inner), n reduced and the last axis dense, and takes further axes
// in further steps. Each kernel reads an element once (bytes moved: those of the elements; a few operations for each) and
// overwrites its outputs: results where `states` is null, else states for reduce_states, laid out as
// (segments, outer, inner). Sums run in a fixed order that depends on the shape alone: the same bits every time.
#include "reducers.cuh"

namespace spiral {
template <class R>
__device__ inline void give(typename R::Out* y, typename R::State* states, i64 i, typename R::State s, const Options& o) {
  if (states)
    states[i] = s;
  else
    y[i] = R::finish(s, o);
}

// The state of all elements of a group, for its lane 0; `scratch` holds 32 states.
template <class R>
__device__ inline typename R::State join_group(typename R::State s, int group, typename R::State* scratch) {
  const int width = group < 32 ? group : 32;
  for (int d = width >> 1; d > 0; d >>= 1) s = R::join(s, from_lane(s, d));
  if (group <= 32) return s;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  if (lane == 0) scratch[warp] = s;
  __syncthreads();
  s = lane < warps ? scratch[lane] : R::none();
  for (int d = 16; d > 0; d >>= 1) s = R::join(s, from_lane(s, d));
  return s;
}

// Rows of n dense elements, `pitch` elements from one to the next: blockIdx.x counts groups of rows, blockIdx.y segments.
template <class R>
__global__ void __launch_bounds__(THREADS, 2)
reduce_rows(const typename R::In* x, typename R::Out* y, typename R::State* states, i64 rows, i64 n, i64 pitch, i64 segment,
            int group, Options o) {
  typedef typename R::In T;
  constexpr int N = Pack<T>::N;
  __shared__ typename R::State scratch[32];
  const RowLane r = row_lane(rows, group);
  const i64 first = (i64)blockIdx.y * segment;
  x += r.row * pitch + first;
  n = n - first < segment ? n - first : segment;
  const i64 step = (i64)group * N;
  typename R::State s = R::none();
  i64 i = (i64)r.lane * N - past16(x);
  if (i >= 0)
    for (; i + 3 * step + N <= n; i += 4 * step) {  // four loads in flight
      Pack<T> v[4];
#pragma unroll
      for (int k = 0; k < 4; k++) v[k] = load16(x + i + k * step);
#pragma unroll
      for (int k = 0; k < 4; k++) R::many(s, v[k].at, first + i + k * step, 1, o);
    }
  for (; i < n; i += step) {
    if (i >= 0 && i + N <= n) {
      const Pack<T> v = load16(x + i);
      R::many(s, v.at, first + i, 1, o);
      continue;
    }
    for (int j = 0; j < N; j++)
      if (i + j >= 0 && i + j < n) {
        const T v[1] = {x[i + j]};
        R::many(s, v, first + i + j, 1, o);
      }
  }
  s = join_group<R>(s, group, scratch);
  if (r.live && r.lane == 0) give<R>(y, states, blockIdx.y * rows + r.row, s, o);
}

// Joins the states of threads that are `across` apart: threads 0 to across - 1 get the result.
template <class R, int N>
__device__ inline void join_block(typename R::State (&s)[N], int across, typename R::State* tile) {
  const int t = threadIdx.x;
  for (int half = THREADS / 2; half >= across; half >>= 1) {
    if (t >= half && t < 2 * half)
      for (int j = 0; j < N; j++) tile[j * (THREADS / 2) + t - half] = s[j];
    __syncthreads();
    if (t < half)
      for (int j = 0; j < N; j++) s[j] = R::join(s[j], tile[j * (THREADS / 2) + t]);
    __syncthreads();
  }
}

// Columns: (outer, n, inner) with `outer_pitch` and `pitch` elements from one to the next along the first two axes. Of a
// block, `across` threads (a power of two) lie side by side along the columns, each on 16 bytes of them; the others
// take other elements of the same columns. blockIdx.y counts segments of n. `aligned`: all 16 bytes of columns are.
template <class R>
__global__ void __launch_bounds__(THREADS, 2)
reduce_columns(const typename R::In* x, typename R::Out* y, typename R::State* states, i64 outer, i64 n, i64 inner,
               i64 outer_pitch, i64 pitch, i64 segment, int across, int aligned, Options o) {
  typedef typename R::In T;
  constexpr int N = Pack<T>::N;
  constexpr int K = N * sizeof(typename R::State) > 64 ? 2 : 4;  // loads in flight, as registers allow
  __shared__ typename R::State tile[N * (THREADS / 2)];
  const i64 packs = (inner + N - 1) / N, column = (i64)blockIdx.x * across + (threadIdx.x & (across - 1));
  const bool live = column < outer * packs;
  const i64 k = live ? column / packs : 0, i = live ? (column - k * packs) * N : 0;
  const i64 first = (i64)blockIdx.y * segment, end = n - first < segment ? n : first + segment;
  const int by = THREADS / across;
  x += k * outer_pitch + i;
  typename R::State s[N];
#pragma unroll
  for (int j = 0; j < N; j++) s[j] = R::none();
  i64 r = first + threadIdx.x / across;
  if (live) {
    for (; r + (K - 1) * by < end; r += K * by) {
      Pack<T> v[K];
#pragma unroll
      for (int q = 0; q < K; q++) v[q] = load_part(x + (r + q * by) * pitch, 0, inner - i, aligned);
#pragma unroll
      for (int j = 0; j < N; j++) {
        T of[K];
#pragma unroll
        for (int q = 0; q < K; q++) of[q] = v[q].at[j];
        R::many(s[j], of, r, by, o);
      }
    }
    for (; r < end; r += by) {
      const Pack<T> v = load_part(x + r * pitch, 0, inner - i, aligned);
#pragma unroll
      for (int j = 0; j < N; j++) {
        const T of[1] = {v.at[j]};
        R::many(s[j], of, r, by, o);
      }
    }
  }
  join_block<R, N>(s, across, tile);
  if (live && threadIdx.x < across)
#pragma unroll
    for (int j = 0; j < N; j++)
      if (i + j < inner) give<R>(y, states, blockIdx.y * outer * inner + k * inner + i + j, s[j], o);
}

// States (outer, n, inner), dense: what segments and inner axes have left. Threads as in reduce_columns, one state each;
// n may be 0.
template <class R>
__global__ void __launch_bounds__(THREADS, 2)
reduce_states(const typename R::State* x, typename R::Out* y, typename R::State* states, i64 outer, i64 n, i64 inner,
              i64 segment, int across, Options o) {
  __shared__ typename R::State tile[THREADS / 2];
  const i64 column = (i64)blockIdx.x * across + (threadIdx.x & (across - 1));
  const bool live = column < outer * inner;
  const i64 k = live ? column / inner : 0, i = live ? column - k * inner : 0;
  const i64 first = (i64)blockIdx.y * segment, end = n - first < segment ? n : first + segment;
  typename R::State s[1] = {R::none()};
  if (live)
    for (i64 r = first + threadIdx.x / across; r < end; r += THREADS / across)
      s[0] = R::join(s[0], x[(k * n + r) * inner + i]);
  join_block<R, 1>(s, across, tile);
  if (live && threadIdx.x < across) give<R>(y, states, blockIdx.y * outer * inner + column, s[0], o);
}
}  // namespace spiral
