// Matrix products on tensor cores, sums in float: of 16-bit operands, and of float ones that are rounded to tf32.
#pragma once
#include "mma.cuh"
#include "operands.cuh"

namespace spiral {
// Shape of a block's tile: BM x BN results by WARPS_M x WARPS_N warps; 32 of k at a time, STAGES of them in shared memory.
template <class T_, int BM_, int BN_, int WARPS_M_, int WARPS_N_, int STAGES_>
struct MmaTile {
  typedef T_ T;
  typedef float W;
  static constexpr int BM = BM_, BN = BN_, BK = 32, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, STAGES = STAGES_;
  static constexpr int THREADS = 32 * WARPS_M * WARPS_N;
  static constexpr int MT = BM / WARPS_M / 16, NT = BN / WARPS_N / 8;  // of mma's tiles, per warp
  static_assert(NT % 2 == 0, "");
};

// ROWS x 32 elements of an operand in shared memory, in pieces of 8 neighbours (16 bytes): along k as [row][k], else as
// [k][row]. The pieces of a line are permuted so that 8 lines' pieces at one place lie in 8 different banks of 16 bytes.
template <class T, int ROWS, bool ALONG_K>
struct Staged {
  static constexpr int ELEMENTS = ROWS * 32, PIECES = ELEMENTS / 8;
  static constexpr int PER_LINE = ALONG_K ? 4 : ROWS / 8;

  static __device__ int place(int line, int piece) {  // in elements
    const int swapped = ALONG_K ? piece ^ (line >> 1 & 3) : piece ^ (line & 7);
    return (line * PER_LINE + swapped) * 8;
  }

  // Begins to bring in rows first.. and elements k0..; an operand that is not `vector` is gathered at once.
  template <int THREADS, class Operand>
  static __device__ void fill(T* to, const Operand& x, int first, int k0) {
#pragma unroll
    for (int i = threadIdx.x; i < PIECES; i += THREADS) {
      const int line = i / PER_LINE, piece = i % PER_LINE;
      const int row = first + (ALONG_K ? line : piece * 8), k = k0 + (ALONG_K ? piece * 8 : line);
      T* const at = to + place(line, piece);
      if (x.vector()) {
        // lengths along the vector are multiples of 8: a piece is inside or outside as a whole
        const bool inside = row < x.rows && k < x.ks;
        cp_async16(at, inside ? x.address(row, k) : x.address(0, 0), inside);
      } else {
        Pack<T> v;
#pragma unroll
        for (int j = 0; j < 8; j++) v.at[j] = ALONG_K ? x.at(row, k + j) : x.at(row + j, k);
        store16(at, v);
      }
    }
  }

  // A fragment: rows row.. + 16, elements k.. + 16
  static __device__ void load_a(u32 (&a)[4], const T* from, int row, int k) {
    const int lane = threadIdx.x & 31, matrix = lane >> 3;
    if (ALONG_K)
      ldmatrix_x4(a, from + place(row + (lane & 15), k / 8 + (lane >> 4)));
    else
      ldmatrix_x4<true>(a, from + place(k + (lane & 7) + 8 * (matrix >> 1), row / 8 + (matrix & 1)));
  }
  // B fragments of rows row.. + 8 (b[0], b[1]) and row + 8.. + 8 (b[2], b[3]), elements k.. + 16
  static __device__ void load_b(u32 (&b)[4], const T* from, int row, int k) {
    const int lane = threadIdx.x & 31, matrix = lane >> 3;
    if (ALONG_K)
      ldmatrix_x4(b, from + place(row + (lane & 7) + 8 * (matrix >> 1), k / 8 + (matrix & 1)));
    else
      ldmatrix_x4<true>(b, from + place(k + (lane & 7) + 8 * (matrix & 1), row / 8 + (matrix >> 1)));
  }
};

// The same for float, in pieces of 4, whose fragments are rounded to tf32.
template <int ROWS, bool ALONG_K>
struct Staged<float, ROWS, ALONG_K> {
  static constexpr int PIECES = ROWS * 8, PER_LINE = ALONG_K ? 8 : ROWS / 4;
  static constexpr int LINE = ALONG_K ? 32 : ROWS + 8, ELEMENTS = LINE * (ALONG_K ? ROWS : 32);

  // along k as above; else lines are 8 longer: 8 rows of 4 lines lie in 32 different banks
  static __device__ int place(int line, int piece) { return line * LINE + (ALONG_K ? piece ^ (line & 7) : piece) * 4; }

  template <int THREADS, class Operand>
  static __device__ void fill(float* to, const Operand& x, int first, int k0) {
#pragma unroll 1  // else addresses are kept in registers, which spill
    for (int i = threadIdx.x; i < PIECES; i += THREADS) {
      const int line = i / PER_LINE, piece = i % PER_LINE;
      const int row = first + (ALONG_K ? line : piece * 4), k = k0 + (ALONG_K ? piece * 4 : line);
      float* const at = to + place(line, piece);
      if (x.vector()) {
        const bool inside = row < x.rows && k < x.ks;
        cp_async16(at, inside ? x.address(row, k) : x.address(0, 0), inside);
      } else {
        Pack<float> v;
#pragma unroll
        for (int j = 0; j < 4; j++) v.at[j] = ALONG_K ? x.at(row, k + j) : x.at(row + j, k);
        store16(at, v);
      }
    }
  }

  // A fragment: rows row.. + 16, elements k.. + 8
  static __device__ void load_a(u32 (&a)[4], const float* from, int row, int k) {
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    if (ALONG_K) ldmatrix_x4(a, from + place(row + (lane & 15), k / 4 + (lane >> 4)));
#pragma unroll
    for (int i = 0; i < 4; i++)
      a[i] = to_tf32(ALONG_K ? float_of(a[i]) : from[(k + t + 4 * (i >> 1)) * LINE + row + g + 8 * (i & 1)]);
  }
  // B fragments of rows row.. + 8 (b[0], b[1]) and row + 8.. + 8 (b[2], b[3]), elements k.. + 8
  static __device__ void load_b(u32 (&b)[4], const float* from, int row, int k) {
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, matrix = lane >> 3;
    if (ALONG_K) ldmatrix_x4(b, from + place(row + (lane & 7) + 8 * (matrix >> 1), k / 4 + (matrix & 1)));
#pragma unroll
    for (int i = 0; i < 4; i++)
      b[i] = to_tf32(ALONG_K ? float_of(b[i]) : from[(k + t + 4 * (i & 1)) * LINE + row + g + 8 * (i >> 1)]);
  }
};

// C += A B of a fragment's K elements
template <class T>
struct Fragments {
  static constexpr int K = 16;
  static __device__ void multiply(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) { mma_m16n8k16<T>(c, a, b); }
};
template <>
struct Fragments<float> {
  static constexpr int K = 8;
  static __device__ void multiply(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) { mma_m16n8k8(c, a, b); }
};

// y = a b as in operands.cuh; A_K, B_K: operands lie along k in shared memory, as `vector` ones must in memory.
// THREADS threads, STAGES * 32 * (BM + BN) elements in dynamic shared memory, or (BM + BN + 16) of float. Reads each
// element of a ceil(N / BN) times and of b ceil(M / BM) times, 2 M N K operations.
template <class Tile, class A, class B, class Destination, bool A_K, bool B_K>
__global__ void __launch_bounds__(Tile::THREADS, 2)
mma_product(A a, B b, Destination y, Product<float> p) {
  typedef typename Tile::T T;
  typedef Staged<T, Tile::BM, A_K> StagedA;
  typedef Staged<T, Tile::BN, B_K> StagedB;
  constexpr int STAGE = StagedA::ELEMENTS + StagedB::ELEMENTS;
  T* const shared = dynamic_shared<T>();
  i64 batch;
  int tile_m, tile_n;
  find_tile(p, batch, tile_m, tile_n);
  a.select(batch), b.select(batch), y.select(batch);
  const int first_m = tile_m * Tile::BM, first_n = tile_n * Tile::BN;
  int from, to;
  find_span(p, a, from, to);
  const int steps = (to - from + Tile::BK - 1) / Tile::BK;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int row = warp / Tile::WARPS_N * (Tile::MT * 16), column = warp % Tile::WARPS_N * (Tile::NT * 8);

  auto bring = [&](int step) {
    T* const stage = shared + step % Tile::STAGES * STAGE;
    if (step < steps) {
      StagedA::template fill<Tile::THREADS>(stage, a, first_m, from + step * Tile::BK);
      StagedB::template fill<Tile::THREADS>(stage + StagedA::ELEMENTS, b, first_n, from + step * Tile::BK);
    }
    cp_async_commit();  // an empty group keeps the count
  };

  float acc[Tile::MT][Tile::NT][4] = {};
  for (int s = 0; s < Tile::STAGES - 1; s++) bring(s);
  for (int step = 0; step < steps; step++) {
    cp_async_wait<Tile::STAGES - 2>();
    __syncthreads();
    bring(step + Tile::STAGES - 1);  // over the stage that all have left
    const T* const stage = shared + step % Tile::STAGES * STAGE;
#pragma unroll
    for (int k = 0; k < Tile::BK; k += Fragments<T>::K) {
      u32 fa[Tile::MT][4], fb[Tile::NT / 2][4];
#pragma unroll
      for (int i = 0; i < Tile::MT; i++) StagedA::load_a(fa[i], stage, row + 16 * i, k);
#pragma unroll
      for (int j = 0; j < Tile::NT / 2; j++) StagedB::load_b(fb[j], stage + StagedA::ELEMENTS, column + 16 * j, k);
#pragma unroll
      for (int i = 0; i < Tile::MT; i++)
#pragma unroll
        for (int j = 0; j < Tile::NT; j++) {
          const u32 half[2] = {fb[j / 2][2 * (j % 2)], fb[j / 2][2 * (j % 2) + 1]};
          Fragments<T>::multiply(acc[i][j], fa[i], half);
        }
    }
  }
  cp_async_wait<0>();
#pragma unroll
  for (int i = 0; i < Tile::MT; i++)
#pragma unroll
    for (int j = 0; j < Tile::NT; j++) {
      const int m = first_m + row + 16 * i + (lane >> 2), n = first_n + column + 8 * j + 2 * (lane & 3);
      give2(p, y, batch, m, n, acc[i][j][0], acc[i][j][1]);
      give2(p, y, batch, m + 8, n, acc[i][j][2], acc[i][j][3]);
    }
}
}  // namespace spiral
