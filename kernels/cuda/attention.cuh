// What attention's kernels share: where heads lie, which keys a query sees, and the tiles of the exact kernels.
#pragma once
#include "spiral.cuh"

namespace spiral {
// (B, H, T, D) with D in one stretch; strides in elements. struct format "P3qi4x".
template <class T>
struct Heads {
  const T* p;
  i64 b, h, t;
  int pieces;  // rows start at multiples of 16 bytes, and so long they are
};

// What is added to the scores, broadcasting by strides of 0, in elements; p may be null. struct format "P4q".
template <class T>
struct Mask {
  const T* p;
  i64 b, h, t, s;
};

// What a block works on: rows first.. of a sequence's head. `token`: where the sequence begins among packed ones, else 0.
struct AttentionBlock {
  int batch, head, first;
  i64 token;
  i64 row, rows;     // row + head * rows: where a query head's log-sum-exps begin
  i64 out, stride;   // where the head's results begin, and elements from one row to the next
};

// struct format "8idP": heads of q, q's heads per key head, lengths of q and k, head size, window, whether causal,
// how many starts; scale; starts. Log-sum-exps have the wide type.
//
// Without `starts` a batch of sequences: q (B, H, T, D), k and v (B, Hk, S, D), results dense like them, log-sum-exps
// (B, H, T). With them sequences packed one behind the other: T = S tokens in all, q (T, H, D), k and v (T, Hk, D),
// results dense like them, log-sum-exps (H, T); the tokens before the first start and after the last see nothing.
struct AttentionShape {
  int heads, groups, t, s, d, window, causal, count;
  double scale;
  const int* starts;

  // The block's rows, of queries or of keys, of which it has `size`; t and s become those of the sequence. False: there
  // are none, the grid has room for any starts. Grid: x = tiles * heads, or (T / size + count + 1) * heads where packed.
  __device__ bool find(AttentionBlock& b, int size, bool of_keys) {
    const int n = of_keys ? heads / groups : heads;
    if (!starts) {
      const int length = of_keys ? s : t, tiles = (length + size - 1) / size, bh = blockIdx.x / tiles;
      const int tile = (int)(blockIdx.x % tiles);
      b.batch = bh / n, b.head = bh % n, b.token = 0;
      b.first = (of_keys ? tile : tiles - 1 - tile) * size;  // the queries that see most first
      b.row = (i64)b.batch * heads * t, b.rows = t;
      b.out = (i64)bh * length * d, b.stride = d;
      return true;
    }
    int tile = (int)(blockIdx.x / n), begin = 0;
    b.batch = 0, b.head = (int)(blockIdx.x % n);
    for (int i = 0; i <= count; i++) {
      int end = i < count ? starts[i] : t;
      end = end > t ? t : end < begin ? begin : end;
      const int length = end - begin, tiles = (length + size - 1) / size;
      if (tile < tiles) {
        const bool outside = i == 0 || i == count;
        b.first = (of_keys ? tile : tiles - 1 - tile) * size, b.token = begin;
        b.row = begin, b.rows = t;
        b.out = ((i64)begin * n + b.head) * d, b.stride = (i64)n * d;
        t = outside && of_keys ? 0 : length, s = outside && !of_keys ? 0 : length;
        return true;
      }
      tile -= tiles, begin = end;
    }
    return false;
  }

  // query t stands at position t + s - t of the keys (Ainslie et al. 2023 for the grouping of heads)
  __device__ int position(int query) const { return query + s - t; }
  __device__ bool sees(int query, int key) const {
    const int at = position(query);
    return query < t && key < s && (!causal || key <= at) && (!window || key > at - window);
  }
  // Range of keys that queries first..first+count-1 may see, and of queries that see keys.
  __device__ void keys(int first, int count, int& from, int& to) const {
    const int last = (first + count < t ? first + count : t) - 1;
    from = window ? position(first) - window + 1 : 0;
    to = causal ? position(last) + 1 : s;
    from = from < 0 ? 0 : from, to = to > s ? s : to;
  }
  __device__ void queries(int first, int count, int& from, int& to) const {
    const int last = (first + count < s ? first + count : s) - 1;
    from = causal ? first - (s - t) : 0;
    to = window ? last - (s - t) + window : t;
    from = from < 0 ? 0 : from, to = to > t ? t : to;
  }
};

// ---------------------------------------------------------------- exact tiles
// B = 16 TM rows of up to D_MAX elements in shared memory. 256 threads: x = thread % 16 across, y = thread / 16 down; a
// thread has rows y + 16 i and columns x + 16 j of scores, and of an accumulator's rows the columns in groups of V.
template <class T_, int TM_, int D_MAX_>
struct Attend {
  typedef T_ T;
  typedef wide<T> W;
  static constexpr int TM = TM_, D_MAX = D_MAX_, B = 16 * TM, V = 16 / sizeof(W), C = D_MAX / 16;
  static constexpr int LINE = D_MAX + V;  // 16 bytes more: 8 rows' pieces lie in different banks
  static constexpr int SCORE_LINE = B + V;
  static constexpr int TILE = B * LINE, SCORES = B * SCORE_LINE;

  // rows first.. of a head, zeros outside
  static __device__ void load(W* to, const T* from, i64 stride, int first, int rows, int d) {
    const int width = (d + V - 1) / V * V;
    for (int r = threadIdx.x / 32; r < B; r += 8)
      for (int c = threadIdx.x % 32; c < width; c += 32)
        to[r * LINE + c] = first + r < rows && c < d ? up(from[(first + r) * stride + c]) : (W)0;
  }
  // s = a b^T
  static __device__ void scores(W (&s)[TM][TM], const W* a, const W* b, int d) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
      for (int j = 0; j < TM; j++) s[i][j] = 0;
    for (int c = 0; c < d; c += V) {
      Pack<W> p[TM], q[TM];
#pragma unroll
      for (int i = 0; i < TM; i++) p[i] = load16(a + (y + 16 * i) * LINE + c), q[i] = load16(b + (x + 16 * i) * LINE + c);
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TM; j++)
#pragma unroll
          for (int v = 0; v < V; v++) s[i][j] += p[i].at[v] * q[j].at[v];
    }
  }
  // A thread's scores where `accumulate` reads them: the 16 threads of a row are in one warp.
  static __device__ void put_scores(W* to, const W (&s)[TM][TM]) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
      for (int j = 0; j < TM; j++) to[(y + 16 * i) * SCORE_LINE + x + 16 * j] = s[i][j];
    __syncwarp();
  }
  // acc += p x
  static __device__ void accumulate(W (&acc)[TM][C], const W* p, const W* x) {
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    for (int k = 0; k < B; k += V) {
      Pack<W> a[TM];
#pragma unroll
      for (int i = 0; i < TM; i++) a[i] = load16(p + (ty + 16 * i) * SCORE_LINE + k);
#pragma unroll
      for (int v = 0; v < V; v++)
#pragma unroll
        for (int g = 0; g < C / V; g++) {
          const Pack<W> b = load16(x + (k + v) * LINE + (g * 16 + tx) * V);
#pragma unroll
          for (int i = 0; i < TM; i++)
#pragma unroll
            for (int u = 0; u < V; u++) acc[i][g * V + u] += a[i].at[v] * b.at[u];
        }
    }
  }
  // rows first.. of an array whose rows are `stride` apart
  static __device__ void store(T* to, i64 stride, const W (&acc)[TM][C], const W (&factor)[TM], int first, int rows, int d) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
      for (int c = 0; c < C; c++) {
        const int row = first + y + 16 * i, column = (c / V * 16 + x) * V + c % V;
        if (row < rows && column < d) to[row * stride + column] = down<T>(acc[i][c] * factor[i]);
      }
  }
};

template <class Op, class W>
__device__ inline W reduce16(W x) {  // over the 16 lanes of a row
  for (int d = 8; d > 0; d >>= 1) x = Op::of(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}

__device__ inline float minus_infinity() { return float_of(0xff800000u); }
}  // namespace spiral
