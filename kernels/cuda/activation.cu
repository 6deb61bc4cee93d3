// Activation functions with their gradients, and gated ones: a structure per function; the loops are in elementwise.cuh.
//
// Element by element. Bytes moved per element of s bytes: 2 s for f(x), 3 s for its gradient and for f(a) * b, 5 s for the
// two gradients of that. Precise exp, erfc and tanh (at most 4 ulp in float), so some 20 (SiLU) to 60 (GELU by erfc)
// operations.
#include "activation.cuh"
#include "elementwise.cuh"

namespace spiral {
SPIRAL_UNARY(Sigmoid, logistic(x))
SPIRAL_UNARY(Relu, x < 0 ? (A)0 : x)  // this way round keeps NaN

// of a gradient and relu's result
SPIRAL_BINARY(ReluGrad, y > 0 ? x : (A)0)
// of a gradient and the function's argument
template <class F>
SPIRAL_BINARY(Gradient, x * F::slope(y))
template <class F>
SPIRAL_BINARY(Gated, F::of(x) * y)

// da = g * b * F'(a), db = g * F(a), n elements; operands g, a, b of the layout. Overwrites da and db.
template <class F, class T>
__global__ void gated_grad(
    const T* g, const T* a, const T* b, T* da, T* db, u32 n, const __grid_constant__ Layout<3> l) {
  constexpr int N = run_length<T, T>();
  typedef Arithmetic<T> A;
  const T* const p[3] = {g, a, b};
  Run<T, N> v[ROUNDS][3];
#pragma unroll
  for (int k = 0; k < ROUNDS; k++)
    if (run_start<N>(k) < n) load_runs<N, 3>(p, run_start<N>(k), n, l, v[k]);
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const u32 i = run_start<N>(k);
    if (i >= n) return;
    Run<T, N> r, q;
#pragma unroll
    for (int j = 0; j < N; j++) {
      const A gj = up(v[k][0].at[j]), aj = up(v[k][1].at[j]), bj = up(v[k][2].at[j]);
      r.at[j] = down<T>(gj * bj * F::slope(aj));
      q.at[j] = down<T>(gj * F::of(aj));
    }
    store_run<N>(da + i, r, n - i);
    store_run<N>(db + i, q, n - i);
  }
}
}  // namespace spiral
