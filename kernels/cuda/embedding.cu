// Rows summed by index, in a fixed order: the gradients of embedding, take, take_along_axis and of indexing.
//
// The places that rows go to are sorted (sort.cu, stable, so rows of one place keep their order), then each run of equal
// keys is summed along the sorted order: in chunks of `chunk` positions, and runs that cross chunks from their pieces.
// Which thread does what depends on the shapes and keys alone: the same bits every time.
#include "strided.cuh"

namespace spiral {
// index_keys: key[i] = (offset of operand 0 + index * stride), the index being that at the offset of operand 1, or `none`
// where it is not in [0, n) after negative ones were counted from wrap; such an index is written to `fault`.
// Overwrites key (count). Moves sizeof(I) + sizeof(K) bytes per element.
template <class I, class K>
__global__ void index_keys(
    const I* index, K* key, i64 count, i64 n, i64 stride, i64 wrap, u64 none, i64* fault, Layout<2> layout) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  i64 offset[2];
  locate(layout, i, offset);
  const i64 given = at(index, offset[1]), j = given < 0 ? given + wrap : given;
  const bool good = (u64)j < (u64)n;
  if (!good) *fault = given;
  key[i] = good ? (K)(offset[0] + j * stride) : (K)none;
}

template <class T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Lane {
  T at[N];
};

// The chunk and the element of a row that a thread works on: 2^log_lanes neighbours share a chunk.
struct Work {
  i64 chunk, lane;
  __device__ Work(int log_lanes) {
    chunk = (i64)blockIdx.x * (blockDim.x >> log_lanes) + (threadIdx.x >> log_lanes);
    lane = ((i64)blockIdx.y << log_lanes) + (threadIdx.x & ((1 << log_lanes) - 1));
  }
};

// segment_sum: for every run of equal keys that lies in one chunk: out[key] = the sum of g[order[p]] over the run's p.
// Pieces of runs that cross chunks go to partial[chunk][0] (those that began earlier) and [1] (that begin here).
// key (m) sorted, those that are `none` last and without effect; order (m): position in g of each. A row has `rest` lanes
// of N elements, whose offsets in g and out are the layout's operands 0 and 1; g advances by g_stride bytes a position,
// out by key_stride a key. Sums are in the wide type, rounded once. Overwrites the rows of out that keys name, partial
// (chunks, 2, rest, N) in part. Reads g once: m rows; writes at most m rows.
template <class T, class K, int N>
__global__ void segment_sum(
    const T* g, const K* key, const u32* order, T* out, wide<T>* partial, i64 m, i64 rest, i64 g_stride,
    i64 key_stride, u64 none, int chunk, int log_lanes, Layout<2> layout) {
  constexpr int AHEAD = 4;  // rows in flight
  const Work work(log_lanes);
  const i64 first = work.chunk * chunk;
  if (first >= m || work.lane >= rest) return;
  const i64 last = first + chunk < m ? first + chunk : m;
  i64 offset[2];
  locate(layout, work.lane, offset);
  wide<T> sum[N] = {};
  bool open = first > 0 && key[first - 1] == key[first];  // the run began in an earlier chunk
  K now = key[first];
  for (i64 p = first; p < last;) {
    Lane<T, N> row[AHEAD];
    K next[AHEAD];  // the key after each row's
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
      if (p + a >= last) continue;
      row[a] = *(const Lane<T, N>*)&at(g, offset[0] + order[p + a] * g_stride);
      next[a] = p + a + 1 < m ? key[p + a + 1] : (K)none;
    }
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
      if (p + a >= last || now == (K)none) continue;
      for (int j = 0; j < N; j++) sum[j] += up(row[a].at[j]);
      const bool ends = next[a] != now;
      if (ends && !open) {
        Lane<T, N> y;
        for (int j = 0; j < N; j++) y.at[j] = down<T>(sum[j]);
        *(Lane<T, N>*)&at(out, offset[1] + (i64)now * key_stride) = y;
      } else if (ends || p + a + 1 == last) {
        wide<T>* to = partial + ((work.chunk * 2 + !open) * rest + work.lane) * N;
        for (int j = 0; j < N; j++) to[j] = sum[j];
      }
      if (ends) {
        open = false, now = next[a];
        for (int j = 0; j < N; j++) sum[j] = 0;
      }
    }
    p += AHEAD;
  }
}

// segment_join: out[key] = the sum of the pieces of a run that crosses chunks, by the chunk that it begins in.
// Parameters as for segment_sum, after it.
template <class T, class K, int N>
__global__ void segment_join(
    const K* key, T* out, const wide<T>* partial, i64 m, i64 rest, i64 key_stride, u64 none, int chunk, int log_lanes,
    Layout<2> layout) {
  const Work work(log_lanes);
  const i64 first = work.chunk * chunk, last = first + chunk;
  if (last >= m || work.lane >= rest) return;
  const K k = key[last - 1];
  if (k == (K)none || key[last] != k) return;                          // no run crosses the end of this chunk
  if (first > 0 && key[first] == k && key[first - 1] == k) return;  // it began in an earlier one
  const wide<T>* from = partial + (work.chunk * 2 * rest + work.lane) * N;
  const i64 step = rest * N;
  wide<T> sum[N];
  for (int j = 0; j < N; j++) sum[j] = from[step + j];
  for (i64 c = work.chunk + 1;; c++) {
    from += 2 * step;
    for (int j = 0; j < N; j++) sum[j] += from[j];
    const i64 end = (c + 1) * chunk;
    if (end >= m || key[end - 1] != k || key[end] != k) break;
  }
  i64 offset[2];
  locate(layout, work.lane, offset);
  Lane<T, N> y;
  for (int j = 0; j < N; j++) y.at[j] = down<T>(sum[j]);
  *(Lane<T, N>*)&at(out, offset[1] + (i64)k * key_stride) = y;
}
}  // namespace spiral
