// Elements by position: gather, scatter, triangles. Elements are moved as they are, in units V of 1 to 16 bytes.
#include "strided.cuh"

namespace spiral {
// Where an index lies along an axis of n positions, or -1: it is outside, which is written to `fault` (any of the
// indices that are; 8 bytes are written at once). Negative ones count from `wrap`, which is n, or 0 where they are not
// allowed. fault is null where the host has checked: then any offset is taken as it is.
__device__ inline bool find(i64& index, i64 n, i64 wrap, i64* fault) {
  if (!fault) return true;
  const i64 given = index;
  if (index < 0) index += wrap;
  if ((u64)index < (u64)n) return true;
  *fault = given;
  return false;
}

// gather: y[i] = the element of x at the offset of operand 0 plus index * stride bytes, the index being that at the
// offset of operand 1. y: dense in the order of the layout's axes, count units; overwritten, with zeros where the index
// is out of range: nothing outside of x is read. Moves 2 * count units and reads each index about once per 32 bytes of
// the rows that share it (from the cache).
template <class V, class I>
__global__ void gather(
    const V* x, const I* index, V* y, i64 count, i64 n, i64 stride, i64 wrap, i64* fault, Layout<2> layout) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  i64 offset[2];
  locate(layout, i, offset);
  i64 at_axis = at(index, offset[1]);
  V v = {};
  if (find(at_axis, n, wrap, fault)) v = at(x, offset[0] + at_axis * stride);
  y[i] = v;
}

// scatter: the element of y at the offset of operand 2 plus index * stride bytes = the one of x at that of operand 0,
// the index being that at the offset of operand 1. Overwrites these elements of y and no others; none may be named
// twice. Indices out of range are left out. Moves 2 * count units.
template <class V, class I>
__global__ void scatter(
    const V* x, const I* index, V* y, i64 count, i64 n, i64 stride, i64 wrap, i64* fault, Layout<3> layout) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  i64 offset[3];
  locate(layout, i, offset);
  i64 at_axis = at(index, offset[1]);
  if (find(at_axis, n, wrap, fault)) at(y, offset[2] + at_axis * stride) = at(x, offset[0]);
}

// triangle: y = x where column - row <= k (upper: >= k), else 0; x, y: (batch, rows, columns) dense, n elements in all,
// both aligned to 16 bytes. Overwrites y. Moves 2 * n elements, one division per 16 bytes.
template <class V, bool upper>
__global__ void triangle(const V* x, V* y, i64 n, i64 rows, i64 columns, i64 k) {
  const i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * Pack<V>::N;
  if (first >= n) return;
  i64 line = first / columns, column = first - line * columns, row = line % rows;
  const bool whole = first + Pack<V>::N <= n;
  Pack<V> v;
  if (whole)
    v = load16(x + first);
  else
    for (int j = 0; j < Pack<V>::N; j++)
      if (first + j < n) v.at[j] = x[first + j];
  for (int j = 0; j < Pack<V>::N; j++) {
    if (upper ? column - row < k : column - row > k) v.at[j] = 0;
    if (++column == columns) column = 0, row = row + 1 == rows ? 0 : row + 1;
  }
  if (whole)
    store16(y + first, v);
  else
    for (int j = 0; j < Pack<V>::N; j++)
      if (first + j < n) y[first + j] = v.at[j];
}
}  // namespace spiral
