// Matrix products on the ordinary arithmetic units: exact float, double and integers, any strides.
#pragma once
#include "operands.cuh"

namespace spiral {
// Shape of a block's tile: BM x BN results by BM/TM * BN/TN threads, each TM x TN of them; BK of k at a time.
template <class W_, int BM_, int BN_, int BK_, int TM_, int TN_>
struct Tile {
  typedef W_ W;
  static constexpr int BM = BM_, BN = BN_, BK = BK_, TM = TM_, TN = TN_;
  static constexpr int ACROSS = BN / TN, THREADS = BM / TM * ACROSS;
  static constexpr int V = 16 / sizeof(W);  // values in one access to shared memory
  static_assert(TM % V == 0 && TN % V == 0 && BM * BK % THREADS == 0 && BN * BK % THREADS == 0, "");
  // rows of shared memory are 16 bytes longer, so that 8 threads that store along k meet different banks
  struct alignas(16) Shared {
    W a[2][BK][BM + V], b[2][BK][BN + V];
  };
};

// Copies ROWS x BK elements of an operand through registers into shared memory, transposed to [k][row].
template <class Tile, class Operand, int ROWS>
struct Loader {
  typedef typename Tile::W W;
  static constexpr int N = ROWS * Tile::BK / Tile::THREADS, LINE = ROWS + Tile::V;
  const Operand& operand;
  int at, step;  // in shared memory
  typename Operand::Walk walk;
  W held[N];

  __device__ Loader(const Operand& operand, int first, int from) : operand(operand) {
    const int t = threadIdx.x;
    int row, k, row_step = 0, k_step = 0;
    // consecutive threads take what lies consecutively in memory
    if (operand.along_k())
      k = t % Tile::BK, row = t / Tile::BK, row_step = Tile::THREADS / Tile::BK;
    else if (Tile::THREADS >= ROWS)
      k = t / ROWS, row = t % ROWS, k_step = Tile::THREADS / ROWS;
    else
      k = 0, row = t, row_step = Tile::THREADS;
    at = k * LINE + row, step = k_step * LINE + row_step;
    walk = operand.template walk<N>(first + row, from + k, row_step, k_step, Tile::BK);
  }
  __device__ void load() {
#pragma unroll
    for (int i = 0; i < N; i++) held[i] = up(operand.get(walk, i));
    operand.advance(walk, Tile::BK);
  }
  __device__ void store(W* to) const {
#pragma unroll
    for (int i = 0; i < N; i++) to[at + i * step] = held[i];
  }
};

template <class W, int N, int GROUPS, int LENGTH>
__device__ inline void take(const W (&line)[LENGTH], int first, int gap, W (&x)[N]) {
  constexpr int V = N / GROUPS;
#pragma unroll
  for (int g = 0; g < GROUPS; g++) {
    const Pack<W> pack = load16(&line[g * gap + first * V]);
#pragma unroll
    for (int v = 0; v < V; v++) x[g * V + v] = pack.at[v];
  }
}

// acc += A[rows of the tile, k from..to) B[columns of the tile, same]^T. Results of a thread: groups of V neighbours,
// BM / (TM / V) apart, so that a warp reads shared memory without conflicts. Overwrites `shared`.
template <class Tile, class A, class B>
__device__ inline void multiply(
    const A& a, const B& b, int first_m, int first_n, int from, int to, typename Tile::Shared& shared,
    typename Tile::W (&acc)[Tile::TM][Tile::TN]) {
  typedef typename Tile::W W;
  constexpr int GM = Tile::TM / Tile::V, GN = Tile::TN / Tile::V;
  const int x = threadIdx.x % Tile::ACROSS, y = threadIdx.x / Tile::ACROSS;
  Loader<Tile, A, Tile::BM> of_a(a, first_m, from);
  Loader<Tile, B, Tile::BN> of_b(b, first_n, from);
  if (from < to) {
    of_a.load(), of_b.load();
    of_a.store(shared.a[0][0]), of_b.store(shared.b[0][0]);
  }
  __syncthreads();
  int half = 0;
  for (int k0 = from; k0 < to; k0 += Tile::BK) {
    const bool more = k0 + Tile::BK < to;
    if (more) of_a.load(), of_b.load();  // in flight during the arithmetic
#pragma unroll 4  // all 8 would spill
    for (int k = 0; k < Tile::BK; k++) {
      W p[Tile::TM], q[Tile::TN];
      take<W, Tile::TM, GM>(shared.a[half][k], y, Tile::BM / GM, p);
      take<W, Tile::TN, GN>(shared.b[half][k], x, Tile::BN / GN, q);
#pragma unroll
      for (int i = 0; i < Tile::TM; i++)
#pragma unroll
        for (int j = 0; j < Tile::TN; j++) acc[i][j] += p[i] * q[j];
    }
    half ^= 1;
    if (more) of_a.store(shared.a[half][0]), of_b.store(shared.b[half][0]);
    __syncthreads();
  }
}

// y = a b: operands, destination and splits as in operands.cuh; THREADS threads per block. Reads each element of a
// ceil(N / BN) times and of b ceil(M / BM) times, 2 M N K operations.
template <class Tile, class A, class B, class Destination>
__global__ void __launch_bounds__(Tile::THREADS, 2)
product(A a, B b, Destination y, Product<typename Tile::W> p) {
  typedef typename Tile::W W;
  __shared__ typename Tile::Shared shared;
  i64 batch;
  int tile_m, tile_n;
  find_tile(p, batch, tile_m, tile_n);
  a.select(batch), b.select(batch), y.select(batch);
  W acc[Tile::TM][Tile::TN] = {};
  int from, to;
  find_span(p, a, from, to);
  multiply<Tile>(a, b, tile_m * Tile::BM, tile_n * Tile::BN, from, to, shared, acc);
  constexpr int V = Tile::V, GM = Tile::TM / V, GN = Tile::TN / V;
  const int tx = threadIdx.x % Tile::ACROSS, ty = threadIdx.x / Tile::ACROSS;
#pragma unroll
  for (int i = 0; i < Tile::TM; i++)
#pragma unroll
    for (int j = 0; j < Tile::TN; j++)
      give(p, y, batch, tile_m * Tile::BM + i / V * (Tile::BM / GM) + ty * V + i % V,
           tile_n * Tile::BN + j / V * (Tile::BN / GN) + tx * V + j % V, acc[i][j]);
}
}  // namespace spiral
