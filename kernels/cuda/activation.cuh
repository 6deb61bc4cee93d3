// Activation functions as structures, with their derivatives.
//
// GELU (Hendrycks & Gimpel 2016) is x Phi(x), Phi(x) = erfc(-x / sqrt 2) / 2, which keeps its digits for negative x; or
// x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3), the same as x / 2 (1 + tanh u).
#pragma once
#include "spiral.cuh"

namespace spiral {
template <class A>
__device__ inline A logistic(A x) { return 1 / (1 + exp(-x)); }
template <class A>
__device__ inline A normal_below(A x) { return (A)0.5 * erfc(x * (A)-0.70710678118654752440); }
template <class A>
__device__ inline A two_u(A x) { return x * ((A)0.07135481627159 * x * x + (A)1.59576912160573); }

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
}  // namespace spiral
