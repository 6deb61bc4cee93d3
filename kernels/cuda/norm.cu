// Normalisation over the last axis.
#include "spiral.cuh"

namespace spiral {
// rms_norm: y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + eps); one block per row.
// x, y: (rows, n); weight: (n) or null; rstd: (rows). Overwrites y and rstd. Moves 2 * rows * n elements (the second
// reading of a row comes from the cache), 4 operations per element.
template <class T>
__global__ void rms_norm(const T* x, const T* weight, T* y, T* rstd, int n, double eps) {
  typedef wide<T> A;
  __shared__ A scratch[32];
  x += (i64)blockIdx.x * n, y += (i64)blockIdx.x * n;
  A sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    A v = up(x[i]);
    sum += v * v;
  }
  sum = block_reduce<Add>(sum, (A)0, scratch);
  const A r = (A)1 / (A)sqrt((double)(sum / n + (A)eps));
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = down<T>(up(x[i]) * r * (weight ? up(weight[i]) : (A)1));
  if (threadIdx.x == 0) rstd[blockIdx.x] = down<T>(r);
}
}  // namespace spiral
