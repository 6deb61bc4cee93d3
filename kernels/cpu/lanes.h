// One vector register of floats: the few operations that math functions and row kernels need beyond
// the compiler's vector arithmetic (+ - * comparisons ?:), each for float too, so that one template serves
// both; and loops over rows. 512 bits with AVX-512, 256 with AVX2, else 128.
#pragma once
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__FMA__) || defined(__aarch64__) || defined(__FP_FAST_FMAF)
#define SPIRAL_HAS_FMA 1
#else
#define SPIRAL_HAS_FMA 0
#endif
#if defined(__AVX512F__)
#define SPIRAL_LANES 16
#elif defined(__AVX2__)
#define SPIRAL_LANES 8
#else
#define SPIRAL_LANES 4
#endif

// Before a loop: its iterations are independent (outputs may be the very inputs, never shifted).
#if defined(__clang__)
#define SPIRAL_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define SPIRAL_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace spiral {

typedef float Lanes __attribute__((vector_size(SPIRAL_LANES * 4)));
typedef int32_t IntLanes __attribute__((vector_size(SPIRAL_LANES * 4)));

// ---------------------------------------------------------------- the same for float and Lanes
static inline int32_t to_bits(float f) {
  int32_t i;
  memcpy(&i, &f, 4);
  return i;
}
static inline float from_bits(int32_t i) {
  float f;
  memcpy(&f, &i, 4);
  return f;
}
static inline IntLanes to_bits(Lanes x) { return (IntLanes)x; }
static inline Lanes from_bits(IntLanes x) { return (Lanes)x; }

static inline float lane(float x, int) { return x; }
static inline float lane(Lanes x, int k) { return x[k]; }
static inline void set_lane(float& x, int, float v) { x = v; }
static inline void set_lane(Lanes& x, int k, float v) { x[k] = v; }

template <class T>
static inline T all(float v);
template <>
inline float all<float>(float v) {
  return v;
}
template <>
inline Lanes all<Lanes>(float v) {
  return Lanes{} + v;
}
static inline float absolute(float x) { return __builtin_fabsf(x); }
static inline Lanes absolute(Lanes x) { return (Lanes)((IntLanes)x & 0x7fffffff); }
static inline float with_sign(float x, float s) { return __builtin_copysignf(x, s); }
static inline Lanes with_sign(Lanes x, Lanes s) {
  return (Lanes)(((IntLanes)x & 0x7fffffff) | ((IntLanes)s & (int32_t)0x80000000));
}
// the lesser (greater) of x and a bound; NaN stays NaN
static inline float at_most(float x, float bound) { return bound < x ? bound : x; }
static inline float at_least(float x, float bound) { return bound > x ? bound : x; }
// a * b + c, in one rounding where the processor can
static inline float fmadd(float a, float b, float c) {
#if SPIRAL_HAS_FMA
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
static inline float divide(float a, float b) { return a / b; }

#if defined(__AVX512F__)
static inline Lanes at_most(Lanes x, float bound) {
  return (Lanes)_mm512_min_ps(_mm512_set1_ps(bound), (__m512)x);
}
static inline Lanes at_least(Lanes x, float bound) {
  return (Lanes)_mm512_max_ps(_mm512_set1_ps(bound), (__m512)x);
}
static inline Lanes fmadd(Lanes a, Lanes b, Lanes c) {
  return (Lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
// For 1 <= |b| < 1e18, and a / b within 0.51 ulp: the division instruction takes 16 cycles, a reciprocal of
// 14 bits and one correction 4.
static inline Lanes divide(Lanes a, Lanes b) {
  __m512 d = (__m512)b, r = _mm512_rcp14_ps(d), q = _mm512_mul_ps((__m512)a, r);
  return (Lanes)_mm512_fmadd_ps(_mm512_fnmadd_ps(q, d, (__m512)a), r, q);
}
#else
static inline Lanes at_most(Lanes x, float bound) { return all<Lanes>(bound) < x ? all<Lanes>(bound) : x; }
static inline Lanes at_least(Lanes x, float bound) { return all<Lanes>(bound) > x ? all<Lanes>(bound) : x; }
static inline Lanes divide(Lanes a, Lanes b) { return a / b; }
#if defined(__AVX2__)
static inline Lanes fmadd(Lanes a, Lanes b, Lanes c) {
  return (Lanes)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
#elif SPIRAL_HAS_FMA
static inline Lanes fmadd(Lanes a, Lanes b, Lanes c) {
  for (int k = 0; k < SPIRAL_LANES; k++) c[k] = __builtin_fmaf(a[k], b[k], c[k]);
  return c;
}
#else
static inline Lanes fmadd(Lanes a, Lanes b, Lanes c) { return a * b + c; }
#endif
#endif

// The same number, of which the compiler no longer knows where it comes from
static inline float opaque(float x) {
  asm volatile("" : "+m"(x));
  return x;
}

// ---------------------------------------------------------------- loops
// How a loop reads and writes: whole registers, or the last `n` < SPIRAL_LANES elements of a range.
struct Whole {
  Lanes load(const float* p, float = 0.f) const {
    Lanes v;
    memcpy(&v, p, sizeof v);
    return v;
  }
  void store(float* p, Lanes v) const { memcpy(p, &v, sizeof v); }
};
struct Part {
  int n;
  // elements past the end are `rest`
  Lanes load(const float* p, float rest = 0.f) const {
#if defined(__AVX512F__)
    return (Lanes)_mm512_mask_loadu_ps(_mm512_set1_ps(rest), (__mmask16)((1 << n) - 1), p);
#else
    Lanes v = all<Lanes>(rest);
    for (int k = 0; k < n; k++) v[k] = p[k];
    return v;
#endif
  }
  void store(float* p, Lanes v) const {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1 << n) - 1), (__m512)v);
#else
    for (int k = 0; k < n; k++) p[k] = v[k];
#endif
  }
};

// f(io, i) for i = lo, lo + SPIRAL_LANES, ... with io a Whole, and a Part for what is left
template <class F>
static inline void for_lanes(int64_t lo, int64_t hi, F f) {
  int64_t i = lo;
  for (; i + SPIRAL_LANES <= hi; i += SPIRAL_LANES) f(Whole{}, i);
  if (i < hi) f(Part{(int)(hi - i)}, i);
}

static inline float fold_sum(Lanes v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float s = 0.f;
  for (int k = 0; k < SPIRAL_LANES; k++) s += v[k];
  return s;
#endif
}

// K sums over [0, n): f(io, sums, i) adds to Lanes sums[K]; a Part must add 0 for elements past the end.
// Four accumulators, as an add takes four cycles; blocks of 4096, so that long rows keep their digits.
template <int K, class F>
static inline void row_sums(int64_t n, float* total, F f) {
  for (int k = 0; k < K; k++) total[k] = 0.f;
  for (int64_t lo = 0; lo < n; lo += 4096) {
    int64_t hi = lo + 4096 < n ? lo + 4096 : n, i = lo;
    Lanes a[K] = {}, b[K] = {}, c[K] = {}, d[K] = {};
    for (; i + 4 * SPIRAL_LANES <= hi; i += 4 * SPIRAL_LANES) {
      f(Whole{}, a, i);
      f(Whole{}, b, i + SPIRAL_LANES);
      f(Whole{}, c, i + 2 * SPIRAL_LANES);
      f(Whole{}, d, i + 3 * SPIRAL_LANES);
    }
    for (; i + SPIRAL_LANES <= hi; i += SPIRAL_LANES) f(Whole{}, a, i);
    if (i < hi) f(Part{(int)(hi - i)}, b, i);
    for (int k = 0; k < K; k++) total[k] += fold_sum((a[k] + b[k]) + (c[k] + d[k]));
  }
}

static inline Lanes greater(Lanes a, Lanes b) {
#if defined(__AVX512F__)
  return (Lanes)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return a > b ? a : b;
#endif
}
// The largest of n numbers, -inf of none; any number when there is a NaN among them.
static inline float row_max(const float* x, int64_t n) {
  constexpr float least = -std::numeric_limits<float>::infinity();
  Lanes a = all<Lanes>(least), b = a;
  int64_t i = 0;
  for (; i + 2 * SPIRAL_LANES <= n; i += 2 * SPIRAL_LANES) {
    a = greater(Whole{}.load(x + i), a);
    b = greater(Whole{}.load(x + i + SPIRAL_LANES), b);
  }
  for_lanes(i, n, [&](auto io, int64_t j) { a = greater(io.load(x + j, least), a); });
  a = greater(a, b);
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)a);
#else
  float m = a[0];
  for (int k = 1; k < SPIRAL_LANES; k++) m = a[k] > m ? a[k] : m;
  return m;
#endif
}

}  // namespace spiral
