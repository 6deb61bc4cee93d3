// exp, log, tanh, erf, sigmoid and the normal distribution for float, without branches, calls or tables.
//
// Each is a template of two types: float, for loops that the compiler vectorises by itself, and Lanes, one
// vector register, for loops written with for_lanes() (no scalar rest, a cheaper exp on AVX-512).
//
// Errors in ulp of the float64 value, worst over the floats (with fma / without): exp 1.0 / 1.1, log 0.8 /
// 1.9, tanh 2.2 / 2.9, erf 1.0 / 2.4, sigmoid 2.3 / 2.3, normal cdf 1.2, and 6 in its lower tail (where
// 0.5 * (1 + erf) has no digit left). Denormal results are rounded once; inf and NaN give what the
// mathematics says. Polynomials are minimax fits of our own (Lawson's iteration on the relative error
// of the result, coefficients rounded to float one by one, lowest first, the rest fitted again).
//
// The kernels are compiled with -fassociative-math: it may turn (x - n * hi) - n * lo into
// x - n * (hi + lo), and (x + magic) - magic into x. Steps that would not survive go through an
// explicit fma, through integer bits, through opaque(), or, where there is no fma, through double.
#pragma once
#include <cstdint>
#include <cstring>
#include <limits>

#include "lanes.h"

namespace spiral {

// x = n * ln 2 + r, |r| <= ln 2 / 2 (Cody & Waite 1980, ch. 6), for x <= 90; `low` is added to x
template <class T>
struct Reduced {
  T r, n;
};
constexpr float ROUND_MAGIC = 12582912.f;  // 1.5 * 2^23: last bits of ROUND_MAGIC + n are the integer n
template <class T>
static inline Reduced<T> reduce_ln2(T x, T low) {
  constexpr float log2e = 1.44269504f;
#if SPIRAL_HAS_FMA
  T n = fmadd(x, all<T>(log2e), all<T>(ROUND_MAGIC)) - ROUND_MAGIC;
  T r = fmadd(n, all<T>(1.90465421e-9f), fmadd(n, all<T>(-0.693147182f), x));  // ln 2 in two parts
  return {r + low, n};
#else
  Reduced<T> a;
  for (int k = 0; k < (int)(sizeof(T) / 4); k++) {
    float xk = lane(x, k), nk = (float)(to_bits(xk * log2e + ROUND_MAGIC) - 0x4b400000);
    set_lane(a.n, k, nk);
    set_lane(a.r, k, (float)((double)xk - (double)nk * 0.6931471805599453 + (double)lane(low, k)));
  }
  return a;
#endif
}

// p * 2^n for 0.5 < p < 2 and -150 <= n <= 128, rounded once. Half of n goes into the exponent bits, so that
// only the product with the other half rounds or overflows.
template <class T>
static inline T scale_by_power(T p, T n) {
  auto i = to_bits(n + ROUND_MAGIC) - 0x4b400000;
  auto half = i >> 1;
  T y = from_bits(to_bits(p) + (half << 23)) * from_bits((i - half + 127) << 23);
  return p != p ? p : y;
}
template <class T>
constexpr bool scales_any_power = false;  // n may have any value
#if defined(__AVX512F__)
template <>
constexpr bool scales_any_power<Lanes> = true;
static inline Lanes scale_by_power(Lanes p, Lanes n) { return (Lanes)_mm512_scalef_ps((__m512)p, (__m512)n); }
#endif

// exp(x + low) for x <= 89 and |low| < 1e-3 |x|. Below -104 the result is 0, and must not come out of an
// arithmetic underflow, which costs 200 cycles: masks and padding are full of -inf.
template <class T>
static inline T exp_sum(T x, T low) {
  auto gone = x < -104.f;
  Reduced<T> a = reduce_ln2(gone ? all<T>(scales_any_power<T> ? -1000.f : 0.f) : x, low);
  T q = fmadd(all<T>(0.00138207444f), a.r, all<T>(0.00836924836f));  // (e^r - 1 - r) / r^2, 3.4e-9
  q = fmadd(q, a.r, all<T>(0.041668281f));
  q = fmadd(q, a.r, all<T>(0.166665167f));
  q = fmadd(q, a.r, all<T>(0.49999994f));
  T y = scale_by_power(fmadd(q * a.r, a.r, a.r) + 1.f, a.n);
  return scales_any_power<T> ? y : (gone ? all<T>(0.f) : y);
}
// exp(x) for x <= 0, an instruction less
template <class T>
static inline T exp_negative(T x) {
  return exp_sum(x, all<T>(0.f));
}
template <class T>
static inline T vexp(T x) {
  return exp_negative(at_most(x, 89.f));
}

static inline float vlog(float x) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  bool tiny = x < 1.17549435e-38f;  // denormal
  int32_t i = to_bits(tiny ? x * 33554432.f : x) - 0x3f3504f3;  // sqrt(1/2) .. sqrt(2)
  float e = (float)((i >> 23) - (tiny ? 25 : 0));
  float f = from_bits((i & 0x7fffff) + 0x3f3504f3) - 1.f;
  float q = fmadd(-0.0762491301f, f, 0.129145741f);  // (log(1 + f) - f) / f^2, 4.2e-9
  q = fmadd(q, f, -0.132470503f);
  q = fmadd(q, f, 0.141806036f);
  q = fmadd(q, f, -0.166084543f);
  q = fmadd(q, f, 0.200020134f);
  q = fmadd(q, f, -0.250016093f);
  q = fmadd(q, f, 0.333333254f);
  q = fmadd(q, f, -0.499999881f);
  float y = fmadd(e, 0.693359375f, f + fmadd(f * f, q, e * -2.12194440e-4f));
  y = x > 0.f ? y : (x == 0.f ? -inf : std::numeric_limits<float>::quiet_NaN());
  return x < inf ? y : x;  // inf and NaN as they are
}

// tanh |x| = d / (d + 2) with d = exp(2 |x|) - 1: no case is special
template <class T>
static inline T vtanh(T x) {
  Reduced<T> a = reduce_ln2(at_most(2.f * absolute(x), 30.f), all<T>(0.f));
  T q = fmadd(all<T>(0.000197669942f), a.r, all<T>(0.00139332283f));  // (e^r - 1 - r) / r^2, 4.6e-10
  q = fmadd(q, a.r, all<T>(0.00833354145f));
  q = fmadd(q, a.r, all<T>(0.0416664854f));
  q = fmadd(q, a.r, all<T>(0.166666657f));
  q = fmadd(q, a.r, all<T>(0.5f));
  T s = from_bits((to_bits(a.n + ROUND_MAGIC) - 0x4b400000 + 127) << 23);
  T d = fmadd(s, fmadd(q * a.r, a.r, a.r), s - 1.f);
  T y = with_sign(divide(d, d + 2.f), x);
  return x != x ? x : y;
}

// x + x P(x^2) below 0.9, 1 - exp(P(|x|)) above (log erfc is almost a parabola)
template <class T>
static inline T verf(T x) {
  T t = absolute(x), z = x * x;
  T p = fmadd(all<T>(-0.000605246169f), z, all<T>(0.00500416011f));
  p = fmadd(p, z, all<T>(-0.0267732851f));
  p = fmadd(p, z, all<T>(0.112819761f));
  p = fmadd(p, z, all<T>(-0.376125067f));
  p = fmadd(p, z, all<T>(0.128379151f));
  p = fmadd(p, x, x);
  T c = at_most(t, 4.f);
  T g = fmadd(all<T>(0.000198223352f), c, all<T>(-0.00306551019f));
  g = fmadd(g, c, all<T>(0.0223152544f));
  g = fmadd(g, c, all<T>(-0.10411372f));
  g = fmadd(g, c, all<T>(-0.636976063f));
  g = fmadd(g, c, all<T>(-1.12779725f));
  g = fmadd(g, c, all<T>(-0.000166447775f));
  T y = with_sign(1.f - exp_negative(g), x);
  return t > 0.9f ? y : p;  // NaN takes p
}

// 1 / (1 + exp(-x)) and 1 / (1 + exp(x)), which add up to 1, each with all its digits
template <class T>
struct Logistic {
  T p, rest;
};
template <class T>
static inline Logistic<T> vlogistic(T x) {
  T e = exp_negative(-absolute(x)), d = 1.f + e;
  T r = divide(all<T>(1.f), d), er = divide(e, d);
  return {x < 0.f ? er : r, x < 0.f ? r : er};
}
template <class T>
static inline T vsigmoid(T x) {
  T e = exp_negative(-absolute(x));
  return divide(x < 0.f ? e : all<T>(1.f), 1.f + e);
}

// exp(-x^2 / 2) and the normal distribution's integral from -inf to x. The lower tail is
// exp(-x^2 / 2) * u P(u) with u = 1 / (1 + |x| / 4); the exponent carries the square's rounding error,
// which at |x| = 13 is worth 60 ulp.
template <class T>
struct Normal {
  T bell, cdf;
};
template <class T>
static inline Normal<T> vnormal(T x) {
  T t = at_most(absolute(x), 14.5f);  // exp(-x^2 / 2) is 0 from 14.4 on
#if SPIRAL_HAS_FMA
  T h = -0.5f * t, s = h * t;
  T bell = exp_sum(s, fmadd(h, t, -s));
#else
  T s = -0.5f * (t * t), low;
  for (int k = 0; k < (int)(sizeof(T) / 4); k++)
    set_lane(low, k, (float)(-0.5 * (double)lane(t, k) * (double)lane(t, k) - (double)lane(s, k)));
  T bell = exp_sum(s, low);
#endif
  T u = divide(all<T>(1.f), fmadd(all<T>(0.25f), t, all<T>(1.f)));
  T p = fmadd(all<T>(0.0168918241f), u, all<T>(-0.0645341575f));
  p = fmadd(p, u, all<T>(0.055872675f));
  p = fmadd(p, u, all<T>(0.0226196963f));
  p = fmadd(p, u, all<T>(0.0177275203f));
  p = fmadd(p, u, all<T>(0.0838550851f));
  p = fmadd(p, u, all<T>(0.0730114505f));
  p = fmadd(p, u, all<T>(0.0952881575f));
  p = fmadd(p, u, all<T>(0.0995214209f));
  p = fmadd(p, u, all<T>(0.0997463316f));
  T tail = bell * (p * u);
  tail = x > 0.f ? 1.f - tail : tail;
  T z = x * x;  // near 0, where u's rounding would cost three digits of the last place: 1/2 + x P(x^2)
  T c = fmadd(all<T>(-6.4498613e-06f), z, all<T>(0.000109473149f));
  c = fmadd(c, z, all<T>(-0.00118133437f));
  c = fmadd(c, z, all<T>(0.00997051597f));
  c = fmadd(c, z, all<T>(-0.0664896891f));
  c = fmadd(c, z, all<T>(0.398942232f));
  return {bell, t < 1.25f ? fmadd(c, x, all<T>(0.5f)) : tail};
}

}  // namespace spiral
