// Arrays joined along an axis.
#include "spiral.cuh"

namespace spiral {
constexpr int PARTS = 8;

struct Parts {  // struct format "8P9q": a row of y is a row of each part after the other
  const void* at[PARTS];
  i64 start[PARTS + 1];  // units from the first part's begin to each part's, and to the end
};

// concat: y[row, base + start[p] + c] = part p[row, c], in units V of 1 to 16 bytes; `total` units from row to row of y.
// Overwrites these columns of y (rows, total). Moves 2 * rows * start[PARTS] units, one division per unit.
template <class V>
__global__ void concat(V* y, i64 rows, i64 total, i64 base, Parts parts) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x, columns = parts.start[PARTS];
  if (i >= rows * columns) return;
  i64 row, column;
  if ((u64)(rows * columns) >> 32 == 0)
    row = (u32)i / (u32)columns, column = (u32)i % (u32)columns;
  else
    row = i / columns, column = i % columns;
  const void* from = parts.at[0];
  i64 first = 0, length = parts.start[1];
#pragma unroll
  for (int p = 1; p < PARTS; p++)
    if (column >= parts.start[p]) from = parts.at[p], first = parts.start[p], length = parts.start[p + 1] - first;
  y[row * total + base + column] = ((const V*)from)[row * length + column - first];
}
}  // namespace spiral
