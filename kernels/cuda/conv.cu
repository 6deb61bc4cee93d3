// Convolution and its gradients: the products of product_tiles.cuh with the operands of conv.cuh, and the gradient of the
// bias.
#include "conv.cuh"
#include "product_tiles.cuh"

namespace spiral {
// y[c] = sum over n and the plane of x (N, C, plane). Block of 256 threads; grid x = C, y = splits of `p.chunk` of the
// N * plane elements, whose parts `finish` adds (p.m = 1, p.n = C, p.k = N * plane). Reads N * C * plane elements.
template <class T>
__global__ void channel_sums(const T* x, Divider plane, Matrix<T> y, Product<wide<T>> p) {
  typedef wide<T> W;
  __shared__ W scratch[32];
  const int c = blockIdx.x, from = blockIdx.y * p.chunk, to = p.k - from < p.chunk ? p.k : from + p.chunk;
  W sum = 0;
  for (int i = from + threadIdx.x; i < to; i += blockDim.x) {
    const int n = plane.by(i);
    sum += up(x[((i64)n * p.n + c) * plane.d + (i - n * (int)plane.d)]);
  }
  sum = block_reduce<Add>(sum, (W)0, scratch);
  if (threadIdx.x == 0) give(p, y, 0, 0, c, sum);
}
}  // namespace spiral
