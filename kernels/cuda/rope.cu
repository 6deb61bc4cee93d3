// Rotary position embedding.
#include "spiral.cuh"

namespace spiral {
struct Rope {  // struct format "8q3i4x"
  i64 rows;             // B * H * T
  i64 heads, positions; // H, T
  i64 stride[3];        // elements from one batch, head, position of x to the next; along D it is 1
  i64 width, half;      // D, and columns of the tables
  int offset, interleaved, inverse;
};

// rope: y = x (B, H, T, D) with pairs of columns turned by the angles of row offset + t of cos and sin (positions, half),
// back where inverse. Pairs are (i, i + half), or (2i, 2i + 1) where interleaved; columns from 2 * half on are copied.
// y: dense, overwritten. Each thread makes N pairs, or copies N elements: with N > 1 half, the strides and all addresses
// allow accesses of N elements. Moves 2 elements per element and the tables' T rows; 3 operations per element.
template <class T, class C, int N>
__global__ void rope(const T* x, const C* cos, const C* sin, T* y, Rope r) {
  typedef wide<T> A;
  struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Some { T at[N]; };
  struct alignas(N * sizeof(C) < 16 ? N * sizeof(C) : 16) Angles { C at[N]; };
  const i64 turned = r.half / N, rest = r.width - 2 * r.half, units = turned + (rest + N - 1) / N;
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= r.rows * units) return;
  i64 row, unit, t, h, b;
  if ((u64)(r.rows * units) >> 32 == 0) {  // 64-bit divisions cost several times as much
    row = (u32)i / (u32)units, unit = (u32)i % (u32)units;
    const u32 lead = (u32)row / (u32)r.positions;
    t = (u32)row % (u32)r.positions, h = lead % (u32)r.heads, b = lead / (u32)r.heads;
  } else {
    row = i / units, unit = i % units;
    t = row % r.positions, h = row / r.positions % r.heads, b = row / r.positions / r.heads;
  }
  x += b * r.stride[0] + h * r.stride[1] + t * r.stride[2];
  y += row * r.width;
  if (unit >= turned) {
    const i64 first = 2 * r.half + (unit - turned) * N;
    if (N == 1 || first + N <= r.width)
      *(Some*)(y + first) = *(const Some*)(x + first);
    else
      for (i64 j = first; j < r.width; j++) y[j] = x[j];
    return;
  }
  const i64 pair = unit * N, angle = (r.offset + t) * r.half + pair;
  const Angles c = *(const Angles*)(cos + angle), s = *(const Angles*)(sin + angle);
  const i64 first = r.interleaved ? 2 * pair : pair, second = r.interleaved ? first + N : pair + r.half;
  const Some u = *(const Some*)(x + first), v = *(const Some*)(x + second);
  Some p, q;
#pragma unroll
  for (int j = 0; j < N; j++) {
    // where interleaved, u and v hold 2 * N neighbours: pair j is elements 2j and 2j + 1
    const int e = 2 * j, f = 2 * j + 1;
    const A a = up(r.interleaved ? (e < N ? u.at[e % N] : v.at[e % N]) : u.at[j]);
    const A d = up(r.interleaved ? (f < N ? u.at[f % N] : v.at[f % N]) : v.at[j]);
    const A cj = (A)up(c.at[j]), sj = r.inverse ? -(A)up(s.at[j]) : (A)up(s.at[j]);
    const T left = down<T>(a * cj - d * sj), right = down<T>(d * cj + a * sj);
    if (r.interleaved) {
      (e < N ? p.at[e % N] : q.at[e % N]) = left;
      (f < N ? p.at[f % N] : q.at[f % N]) = right;
    } else {
      p.at[j] = left, q.at[j] = right;
    }
  }
  *(Some*)(y + first) = p;
  *(Some*)(y + second) = q;
}
}  // namespace spiral
