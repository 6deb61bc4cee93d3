// A linear layer with what follows it: bias, activation and residual are applied to the sums before they are rounded.
#include "activation.cuh"
#include "product_tiles.cuh"

namespace spiral {
// Called, not inlined: 64 copies of erfc in a kernel take a minute to compile.
template <class W>
__device__ __noinline__ W activated(W v, int activation) {
  switch (activation) {
    case RELU: return v < 0 ? (W)0 : v;  // NaN stays NaN
    case GELU: return Gelu::of(v);
    case GELU_TANH: return GeluTanh::of(v);
    case SILU: return Silu::of(v);
    default: return v;
  }
}

// z = value + bias[n], y = activation(z) + residual, all dense (M, N); z, bias and residual may be null, y and z are
// overwritten. `pairs`: two neighbours of y and z are aligned together. struct format "PPPPqii".
template <class T>
struct Finished {
  T *y, *z;
  const T *bias, *residual;
  i64 columns;
  int activation, pairs;
  struct alignas(2 * sizeof(T)) Two { T at[2]; };

  __device__ void select(i64) {}
  template <class W>
  __device__ void put(i64, int m, int n, W v) const {
    const i64 i = m * columns + n;
    if (bias) v += up(bias[n]);
    if (z) z[i] = down<T>(v);
    if (activation) v = activated(v, activation);
    if (residual) v += up(residual[i]);
    y[i] = down<T>(v);
  }
  template <class W>
  __device__ void put2(i64, int m, int n, W v, W w) const {
    const i64 i = m * columns + n;
    if (bias) v += up(bias[n]), w += up(bias[n + 1]);
    if (z) pair(z + i, v, w);
    if (activation) v = activated(v, activation), w = activated(w, activation);
    if (residual) v += up(residual[i]), w += up(residual[i + 1]);
    pair(y + i, v, w);
  }
  template <class W>
  __device__ void pair(T* at, W v, W w) const {
    const Two both = {{down<T>(v), down<T>(w)}};
    if (pairs)
      *(Two*)at = both;
    else
      at[0] = both.at[0], at[1] = both.at[1];
  }
};

// y = activation(z) + residual of n elements, where a library has computed z; residual may be null, y may be z. One piece
// of 16 bytes per thread, element by element where `pieces` is not set. Moves 2 or 3 n elements.
template <class T>
__global__ void finish_linear(const T* z, const T* residual, T* y, i64 n, int activation, int pieces) {
  constexpr int N = Pack<T>::N;
  const i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (pieces && i + N <= n) {
    Pack<T> v = load16(z + i), r;
    if (residual) r = load16(residual + i);
#pragma unroll
    for (int j = 0; j < N; j++) {
      const wide<T> x = activated(up(v.at[j]), activation);
      v.at[j] = down<T>(residual ? x + up(r.at[j]) : x);
    }
    store16(y + i, v);
    return;
  }
  for (i64 j = i; j < i + N && j < n; j++) {
    const wide<T> x = activated(up(z[j]), activation);
    y[j] = down<T>(residual ? x + up(residual[j]) : x);
  }
}
}  // namespace spiral
