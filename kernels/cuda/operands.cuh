// What a matrix product reads and writes: operands and where results go, as small structures passed by value.
//
// A product of (M, K) by (K, N) sees A as rows m and B as rows n, both with elements k. An operand has
//   T at(int row, int k)      the element, 0 outside of its rows and ks
//   Walk, walk, get, advance  the same for a thread that takes elements at equal distances, then those k_advance on
//   bool along_k()            whether neighbours in memory are neighbours in k (else in the row)
//   bool vector()             whether 8 neighbours can be copied as 16 bytes, and then `rows`, `ks` and
//   const T* address(row, k)
//   void select(i64 batch)    moves to one product of a batch
// and a destination has
//   void select(i64 batch)    the same
//   void put(i64 batch, int m, int n, W value)
//   void put2(...)            two values, of n and n + 1, n being even
#pragma once
#include "spiral.cuh"

namespace spiral {
constexpr int BATCH_AXES = 4;

// An operand that has `at` and nothing to gain from equal distances gets the rest from this.
template <class Operand, class T>
struct Unwalked {
  struct Walk {
    int row, k, row_step, k_step;
  };
  template <int N>
  __device__ Walk walk(int row, int k, int row_step, int k_step, int) const { return Walk{row, k, row_step, k_step}; }
  __device__ auto get(const Walk& w, int i) const {
    return ((const Operand*)this)->at(w.row + i * w.row_step, w.k + i * w.k_step);
  }
  __device__ void advance(Walk& w, int k_advance) const { w.k += k_advance; }
  __device__ bool vector() const { return false; }
  __device__ const T* address(int, int) const { return nullptr; }
};

// A matrix with any strides, in elements; batch axes that the operand lacks have stride 0. struct format "P5i4i4x4q".
template <class T_>
struct Strided {
  typedef T_ T;
  const T* p;
  int row, k;  // 32 bits: a product with them is one instruction, and 64-bit strides cost the large tile its registers
  int rows, ks;
  int pieces;  // elements come in aligned pieces of 16 bytes along the axis whose stride is 1
  int batch[BATCH_AXES];  // lengths, the last axis runs fastest; 1 where there is none
  i64 step[BATCH_AXES];

  __device__ T at(int r, int i) const { return r < rows && i < ks ? *address(r, i) : T{}; }
  struct Walk {  // everything that does not change is worked out before the loop: registers are what limits the tile
    const T* p;
    i64 step;
    int advance, k_step, left;  // left: elements of the row from here on
    u32 inside;                 // bit i: element i lies in a row that there is
  };
  template <int N>
  __device__ Walk walk(int r, int i, int row_step, int k_step, int k_advance) const {
    u32 inside = 0;
    for (int j = 0; j < N; j++) inside |= (u32)(r + j * row_step < rows) << j;
    const i64 step = (i64)row_step * row + (i64)k_step * k;
    return Walk{address(r, i), step, k_advance * k, k_step, ks - i, inside};
  }
  __device__ T get(const Walk& w, int i) const {
    return (w.inside >> i & 1) && i * w.k_step < w.left ? w.p[i * w.step] : T{};
  }
  __device__ void advance(Walk& w, int k_advance) const { w.p += w.advance, w.left -= k_advance; }
  __device__ bool along_k() const { return k == 1 || row != 1; }
  __device__ bool vector() const { return pieces; }
  __device__ const T* address(int r, int i) const { return p + (i64)r * row + (i64)i * k; }
  __device__ void select(i64 b) {
    for (int d = BATCH_AXES - 1; d >= 0; d--) {
      if (batch[d] == 1) continue;
      p += b % batch[d] * step[d];
      b /= batch[d];
    }
  }
};

enum Activation { NONE, RELU, GELU, GELU_TANH, SILU };

// y[batch][m][n] = activation(value + bias[n]), dense; bias may be null. struct format "PPqqi4x".
template <class T>
struct Matrix {
  T* y;
  const T* bias;
  i64 rows, columns;
  int activation;

  __device__ void select(i64) {}
  template <class W>
  __device__ W finished(int n, W v) const {
    if (bias) v += up(bias[n]);
    return activation == RELU && v < 0 ? (W)0 : v;  // NaN stays NaN
  }
  template <class W>
  __device__ void put(i64 batch, int m, int n, W v) const {
    y[(batch * rows + m) * columns + n] = down<T>(finished(n, v));
  }
  template <class W>
  __device__ void put2(i64 batch, int m, int n, W v, W w) const {
    struct alignas(2 * sizeof(T)) Two { T first, second; };
    T* const at = y + (batch * rows + m) * columns + n;
    const T first = down<T>(finished(n, v)), second = down<T>(finished(n + 1, w));
    if (columns & 1)
      at[0] = first, at[1] = second;
    else
      *(Two*)at = Two{first, second};
  }
};

// The shape of a product and how its sum over k is cut into splits, whose parts go to `partial` as [split][batch][m][n]
// and are summed in order by `finish`; with one split `partial` is null and unused. struct format "Piiiiiiq".
template <class W>
struct Product {
  W* partial;
  int m, n, k;
  int chunk;          // of k per split, a multiple of the tile's
  int tiles_m, tiles_n;
  i64 batch;
};

// Which tile a block computes: blocks that run at the same time share rows and columns, for the second-level cache.
// Grid: x = batch * tiles_m * tiles_n, y = splits.
template <class W>
__device__ inline void find_tile(const Product<W>& p, i64& batch, int& tile_m, int& tile_n) {
  constexpr int BAND = 8;  // rows of tiles
  const u32 tiles = (u32)p.tiles_m * p.tiles_n, t = blockIdx.x % tiles;
  batch = blockIdx.x / tiles;
  const u32 band = t / (BAND * p.tiles_n), first = band * BAND;
  const u32 height = p.tiles_m - first < BAND ? p.tiles_m - first : BAND, rest = t - first * p.tiles_n;
  tile_m = first + rest % height, tile_n = rest / height;
}

// What of k a block sums over; an operand may have less than the product, once its batch is selected.
template <class W, class Operand>
__device__ inline void find_span(const Product<W>& p, const Operand& a, int& from, int& to) {
  const int k = a.ks < p.k ? a.ks : p.k;
  from = blockIdx.y * p.chunk, to = k - from < p.chunk ? k : from + p.chunk;
}

// Where a block's results go: to their destination, or to its split's part.
template <class W, class Destination>
__device__ inline void give(const Product<W>& p, const Destination& y, i64 batch, int m, int n, W v) {
  if (m >= p.m || n >= p.n) return;
  if (gridDim.y == 1)
    y.put(batch, m, n, v);
  else
    p.partial[((blockIdx.y * p.batch + batch) * p.m + m) * p.n + n] = v;
}

template <class W, class Destination>
__device__ inline void give2(const Product<W>& p, const Destination& y, i64 batch, int m, int n, W v, W w) {
  if (m < p.m && n + 1 < p.n && gridDim.y == 1)
    y.put2(batch, m, n, v, w);
  else
    give(p, y, batch, m, n, v), give(p, y, batch, m, n + 1, w);
}

// Sums the parts of `splits` splits, in order. One thread per element of the result. Reads splits * M * N of W.
template <class W, class Destination>
__global__ void finish(Product<W> p, Destination y, int splits) {
  const i64 each = (i64)p.m * p.n, all = each * p.batch, i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= all) return;
  W sum = p.partial[i];
  for (int s = 1; s < splits; s++) sum += p.partial[s * all + i];
  const i64 batch = i / each;
  const u32 rest = (u32)(i - batch * each);  // a matrix of 2^32 elements is not split
  y.put(batch, (int)(rest / (u32)p.n), (int)(rest % (u32)p.n), sum);
}
}  // namespace spiral
