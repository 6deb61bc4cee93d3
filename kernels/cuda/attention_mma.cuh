// Attention's tiles for 16-bit operands on tensor cores: 64 rows that stay, and steps of STEP rows of the other side, of
// which two are in shared memory. Scores, probabilities and sums are float; what is multiplied is rounded to T.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

namespace spiral {
// A warp has 16 of the 64 rows. Its accumulator takes 128 columns at most: where D_MAX is 256 two warps share rows, each
// with the same scores and half of the columns.
template <class T_, int D_MAX_, int STEP_>
struct AttendMma {
  typedef T_ T;
  static constexpr int D_MAX = D_MAX_, STEP = STEP_, ROWS = 64, HALVES = D_MAX > 128 ? 2 : 1, THREADS = 128 * HALVES;
  static constexpr int COLUMNS = D_MAX / HALVES, LINE = D_MAX / 8;  // pieces of 16 bytes in a row
  static constexpr int RESIDENT = ROWS * D_MAX, STAGE = STEP * D_MAX;  // elements
  typedef float Scores[STEP / 8][4];  // fragments C: rows lane / 4 and + 8, columns 8 j + 2 (lane % 4) and + 1
  typedef float Sums[COLUMNS / 8][4];

  static __device__ int row() { return (int)(threadIdx.x >> 5) % 4 * 16; }            // first of the warp
  static __device__ int column() { return (int)(threadIdx.x >> 5) / 4 * COLUMNS; }
  // pieces of 8 consecutive rows at one place lie in 8 different banks of 16 bytes
  static __device__ int place(int row, int piece) { return (row * LINE + (piece ^ (row & 7))) * 8; }

  // Begins to bring in rows first.. + COUNT of a head, zeros outside.
  template <int COUNT>
  static __device__ void fill(T* to, const Heads<T>& x, const T* head, int first, int rows, int d) {
    const int width = (d + 15) / 16 * 16;  // what the products read
    for (int i = threadIdx.x; i < COUNT * LINE; i += THREADS) {
      const int line = i / LINE, c = i % LINE * 8;
      if (c >= width) continue;
      T* const at = to + place(line, c / 8);
      const T* const from = head + (first + line) * x.t + c;
      if (x.pieces) {
        const bool inside = first + line < rows && c < d;
        cp_async16(at, inside ? from : head, inside);
      } else {
        Pack<T> v;
#pragma unroll
        for (int j = 0; j < 8; j++) v.at[j] = first + line < rows && c + j < d ? from[j] : T{};
        store16(at, v);
      }
    }
  }

  // s = a b^T for the warp's rows of a (64 rows) and the STEP rows of b
  static __device__ void scores(Scores& s, const T* a, const T* b, int d) {
    const int lane = threadIdx.x & 31, matrix = lane >> 3;
#pragma unroll
    for (int j = 0; j < STEP / 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) s[j][e] = 0;
#pragma unroll 2
    for (int c = 0; c < d; c += 16) {
      u32 fa[4];
      ldmatrix_x4(fa, a + place(row() + (lane & 15), c / 8 + (lane >> 4)));
#pragma unroll
      for (int j = 0; j < STEP / 16; j++) {
        u32 fb[4];
        ldmatrix_x4(fb, b + place(16 * j + (lane & 7) + 8 * (matrix >> 1), c / 8 + (matrix & 1)));
        const u32 low[2] = {fb[0], fb[1]}, high[2] = {fb[2], fb[3]};
        mma_m16n8k16<T>(s[2 * j], fa, low);
        mma_m16n8k16<T>(s[2 * j + 1], fa, high);
      }
    }
  }

  // acc += p x for the warp's rows of p and its columns of x (STEP rows): p's fragments C are fragments A
  static __device__ void accumulate(Sums& acc, const Scores& p, const T* x, int d) {
    const int lane = threadIdx.x & 31, matrix = lane >> 3;
#pragma unroll
    for (int k = 0; k < STEP / 16; k++) {
      u32 fa[4];
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const float* const pair = &p[2 * k + e / 2][2 * (e % 2)];
        fa[e] = pack2(down<T>(pair[0]), down<T>(pair[1]));
      }
#pragma unroll
      for (int j = 0; j < COLUMNS / 16; j++) {
        if (column() + 16 * j >= d) continue;
        u32 fb[4];
        ldmatrix_x4<true>(fb, x + place(16 * k + (lane & 7) + 8 * (matrix & 1), column() / 8 + 2 * j + (matrix >> 1)));
        const u32 low[2] = {fb[0], fb[1]}, high[2] = {fb[2], fb[3]};
        mma_m16n8k16<T>(acc[2 * j], fa, low);
        mma_m16n8k16<T>(acc[2 * j + 1], fa, high);
      }
    }
  }

  // rows first.. of an array whose rows are `stride` apart; factor of rows lane / 4 and + 8
  static __device__ void store(T* to, i64 stride, const Sums& acc, float factor0, float factor1, int first, int rows, int d) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int r = first + row() + (lane >> 2) + 8 * half, c = column() + 8 * j + 2 * (lane & 3);
        const float factor = half ? factor1 : factor0;
        const T x = down<T>(acc[j][2 * half] * factor), y = down<T>(acc[j][2 * half + 1] * factor);
        if (r >= rows || c >= d) continue;
        T* const at = to + r * stride + c;
        if (d & 1) {
          at[0] = x;
          if (c + 1 < d) at[1] = y;
        } else {
          *(u32*)at = pack2(x, y);
        }
      }
  }
};

// over the 4 lanes that have a row of fragments C
template <class Op>
__device__ inline float reduce4(float x) {
  x = Op::of(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return Op::of(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;
}  // namespace spiral
