// The functions of elementwise.cpp, one struct each: f(a, b) or f(x).
//
// Plain ones take floats, and the loops that use them vectorise; exp and its like take a vector register
// (vmath.h); sin, cos and pow have a fast form and leave the arguments it does not cover to the C library.
// Errors in ulp: sin and cos 1.5 (Taylor series after an exact reduction), pow 0.501.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "lanes.h"
#include "vmath.h"

namespace spiral {
namespace elementwise {
// ---------------------------------------------------------------- by the compiler's vectors
struct Add { static float f(float a, float b) { return a + b; } };
struct Sub { static float f(float a, float b) { return a - b; } };
struct Mul { static float f(float a, float b) { return a * b; } };
struct Div { static float f(float a, float b) { return a / b; } };
// NaN is not above anything: the second comparison keeps one that stands on the left
struct Maximum { static float f(float a, float b) { return (a > b) | (a != a) ? a : b; } };
struct Minimum { static float f(float a, float b) { return (a < b) | (a != a) ? a : b; } };

struct Neg { static float f(float x) { return -x; } };
struct Sqrt { static float f(float x) { return std::sqrt(x); } };
struct Rsqrt { static float f(float x) { return 1.f / std::sqrt(x); } };
// x to the power 1/2, which is 0 at -0 and infinity at -infinity (C17, F.10.4.4), through the bits: signs of
// zeros are nothing to this file's compiler flags
struct PowerHalf {
  static float f(float x) {
    const int32_t i = to_bits(x), infinity = 0x7f800000;
    const bool odd = (i == INT32_MIN) | (i == (INT32_MIN | infinity));
    return from_bits(odd ? i & INT32_MAX : to_bits(std::sqrt(x)));
  }
};
struct PowerMinusHalf { static float f(float x) { return 1.f / PowerHalf::f(x); } };
struct Abs { static float f(float x) { return std::fabs(x); } };
struct Square { static float f(float x) { return x * x; } };
struct Cube { static float f(float x) { return x * x * x; } };
struct Same { static float f(float x) { return x; } };
struct Relu { static float f(float x) { return x < 0.f ? 0.f : x; } };  // this way round keeps NaN
struct Reciprocal { static float f(float x) { return 1.f / x; } };
struct Log { static float f(float x) { return vlog(x); } };

// ---------------------------------------------------------------- one vector register at a time
struct Exp { static Lanes f(Lanes x) { return vexp(x); } };
struct Tanh { static Lanes f(Lanes x) { return vtanh(x); } };
struct Sigmoid { static Lanes f(Lanes x) { return vsigmoid(x); } };
struct Erf { static Lanes f(Lanes x) { return verf(x); } };

// ---------------------------------------------------------------- with a way out
// Functions whose fast form leaves some arguments to the C library: `covers` says which it takes.
// x = n pi/2 + r in double, by two exact products; Taylor series of r in float
template <int QUARTER>
struct Sine {
  static bool covers(float x, float) { return SPIRAL_HAS_FMA && std::fabs(x) < 1e9f; }
  static float slow(float x, float) { return QUARTER ? std::cos(x) : std::sin(x); }
  static float fast(float x, float) {
    const double d = x;
    const int32_t n = (int32_t)__builtin_rint(d * 0.6366197723675814);
    const double high = __builtin_fma((double)n, -1.5707963267948966, d);
    const float r = (float)__builtin_fma((double)n, -6.123233995736766e-17, high), z = r * r;
    float s = fmadd(2.75573192e-6f, z, -1.98412698e-4f);
    s = fmadd(s, z, 8.33333333e-3f);
    s = fmadd(s, z, -1.66666667e-1f);
    s = fmadd(s * z, r, r);
    float c = fmadd(-2.75573192e-7f, z, 2.48015873e-5f);
    c = fmadd(c, z, -1.38888889e-3f);
    c = fmadd(c, z, 4.16666667e-2f);
    c = fmadd(c, z, -0.5f);
    c = fmadd(c, z, 1.f);
    float y = (n + QUARTER) & 1 ? c : s;
    y = (n + QUARTER) & 2 ? -y : y;
    // sin(-0) is -0: through the bits, as signs of zeros are nothing to this file's compiler flags
    constexpr int32_t sign = INT32_MIN;
    return QUARTER ? y : from_bits(to_bits(y) | (to_bits(x) == sign ? sign : 0));
  }
};

// 2^(y log2 x) in double, rounded once. log2 by the series of atanh, |s| < 0.172; 2^f by Taylor's, |f| <=
// 1/2.
struct Pow {
  static bool covers(float x, float y) {
    return (x > 0.f) & (x < std::numeric_limits<float>::infinity()) & (y - y == 0.f);
  }
  static float slow(float x, float y) { return std::pow(x, y); }
  static float fast(float x, float y) {
    const double d = x;
    int64_t bits;
    memcpy(&bits, &d, 8);
    const int32_t e = ((int32_t)(bits >> 32) - 0x3fe6a09e) >> 20;  // sqrt(1/2) .. sqrt(2)
    bits -= (int64_t)e * (1LL << 52);
    double m;
    memcpy(&m, &bits, 8);
    const double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = 1.0 / 15;
    p = p * z + 1.0 / 13;
    p = p * z + 1.0 / 11;
    p = p * z + 1.0 / 9;
    p = p * z + 1.0 / 7;
    p = p * z + 1.0 / 5;
    p = p * z + 1.0 / 3;
    p = p * z + 1.0;
    double t = (double)y * ((double)e + 2.8853900817779268 * s * p);  // 2 / ln 2
    t = t < 200.0 ? t : 200.0;
    t = t > -200.0 ? t : -200.0;
    const int32_t n = (int32_t)(t + (t < 0.0 ? -0.5 : 0.5));
    const double f = (t - (double)n) * 0.6931471805599453;
    double q = 1.0 / 362880;
    q = q * f + 1.0 / 40320;
    q = q * f + 1.0 / 5040;
    q = q * f + 1.0 / 720;
    q = q * f + 1.0 / 120;
    q = q * f + 1.0 / 24;
    q = q * f + 1.0 / 6;
    q = q * f + 0.5;
    q = q * f + 1.0;
    q = q * f + 1.0;
    const int64_t scale = (int64_t)(n + 1023) * (1LL << 52);
    double power;
    memcpy(&power, &scale, 8);
    return (float)(q * power);
  }
};

}  // namespace elementwise
}  // namespace spiral
