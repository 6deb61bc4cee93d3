// Matrix products: matmul, linear and its gradients. The products are the templates of the headers; here is what only
// these ops need.
#include "product_tiles.cuh"

namespace spiral {
// y[n] = sum over rows of x (rows, columns), dense. Block (32, 8): 32 columns; grid x = ceil(columns / 32), y = splits of
// `p.chunk` rows, whose parts `finish` adds (p.m = 1, p.n = columns, p.k = rows). Reads rows * columns elements.
template <class T>
__global__ void column_sums(const T* x, Matrix<T> y, Product<wide<T>> p) {
  typedef wide<T> W;
  __shared__ W part[8][33];
  const int n = blockIdx.x * 32 + threadIdx.x, from = blockIdx.y * p.chunk;
  const int to = p.k - from < p.chunk ? p.k : from + p.chunk;
  W sum = 0;
  if (n < p.n) {
    int r = from + threadIdx.y;
    for (; r + 24 < to; r += 32) {  // four loads in flight
      W v[4];
#pragma unroll
      for (int i = 0; i < 4; i++) v[i] = up(x[(i64)(r + 8 * i) * p.n + n]);
      sum += (v[0] + v[1]) + (v[2] + v[3]);
    }
    for (; r < to; r += 8) sum += up(x[(i64)r * p.n + n]);
  }
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y) return;
  for (int i = 1; i < 8; i++) sum += part[i][threadIdx.x];
  give(p, y, 0, 0, n, sum);
}

// y = max(y, 0), NaN stays NaN; n elements, 4 per thread at the block's distance. Overwrites y. Moves 2 n elements.
template <class T>
__global__ void relu_in_place(T* y, i64 n) {
  const i64 first = (i64)blockIdx.x * blockDim.x * 4 + threadIdx.x;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const i64 i = first + j * (i64)blockDim.x;
    if (i < n && up(y[i]) < 0) y[i] = T{};
  }
}
}  // namespace spiral
