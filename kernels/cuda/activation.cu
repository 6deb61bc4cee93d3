// Activation functions with their gradients, and gated ones: a structure per function; the loops are in elementwise.cuh.
//
// Element by element. Bytes moved per element of s bytes: 2 s for f(x), 3 s for its gradient and for f(a) * b, 5 s for the
// two gradients of that. Precise exp, erfc and tanh (at most 4 ulp in float), so some 20 (SiLU) to 60 (GELU by erfc)
// operations. GELU (Hendrycks & Gimpel 2016) is x Phi(x), Phi(x) = erfc(-x / sqrt 2) / 2, which keeps its digits for
// negative x; or x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3), the same as x / 2 (1 + tanh u).
#include "elementwise.cuh"

namespace spiral {
template <class A>
__device__ inline A logistic(A x) { return 1 / (1 + exp(-x)); }
template <class A>
__device__ inline A normal_below(A x) { return (A)0.5 * erfc(x * (A)-0.70710678118654752440); }
template <class A>
__device__ inline A two_u(A x) { return x * ((A)0.07135481627159 * x * x + (A)1.59576912160573); }

SPIRAL_UNARY(Sigmoid, logistic(x))
SPIRAL_UNARY(Relu, x < 0 ? (A)0 : x)  // this way round keeps NaN

// with their derivatives
struct Silu {
  template <class A> static __device__ A of(A x) { return x * logistic(x); }
  template <class A>
  static __device__ A slope(A x) {
    const A s = logistic(x);
    return s * (1 + x * (1 - s));
  }
};
struct Gelu {
  template <class A> static __device__ A of(A x) { return x * normal_below(x); }
  template <class A>
  static __device__ A slope(A x) {
    return normal_below(x) + x * (A)0.39894228040143267794 * exp((A)-0.5 * x * x);
  }
};
struct GeluTanh {
  template <class A> static __device__ A of(A x) { return x * logistic(two_u(x)); }
  template <class A>
  static __device__ A slope(A x) {
    const A s = logistic(two_u(x)), z = x * x;
    return s + s * (1 - s) * x * ((A)0.21406444881477 * z + (A)1.59576912160573);
  }
};

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
