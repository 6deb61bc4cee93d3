// Vectors of the reductions: sum, maximum and minimum of a row. See reduce.cpp for the accuracy.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "lanes.h"

namespace spiral {
namespace reduction {
typedef int64_t i64;
// 16 lanes on every processor: the compiler splits them where registers are shorter
typedef float V __attribute__((vector_size(64)));
typedef float V8 __attribute__((vector_size(32)));
typedef float V4 __attribute__((vector_size(16)));
typedef double D __attribute__((vector_size(64)));
typedef double D4 __attribute__((vector_size(32)));
typedef double D2 __attribute__((vector_size(16)));

inline void read(V& v, const float* p) { memcpy(&v, p, sizeof v); }
// the first n < 16 lanes; the others are `rest`
inline void read_part(V& v, const float* p, i64 n, float rest) {
#if defined(__AVX512F__)
  v = (V)_mm512_mask_loadu_ps(_mm512_set1_ps(rest), (__mmask16)((1 << n) - 1), p);
#else
  v = V{} + rest;
  for (i64 k = 0; k < n; k++) v[k] = p[k];
#endif
}
// the two halves of a vector; without the builtin they take a way through memory
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SPIRAL_SPLIT_2(v, l, h) \
  l = __builtin_shufflevector(v, v, 0, 1), h = __builtin_shufflevector(v, v, 2, 3)
#define SPIRAL_SPLIT_4(v, l, h) \
  l = __builtin_shufflevector(v, v, 0, 1, 2, 3), h = __builtin_shufflevector(v, v, 4, 5, 6, 7)
#define SPIRAL_SPLIT_8(v, l, h)                                 \
  l = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),    \
  h = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)
#endif
#endif
#if !defined(SPIRAL_SPLIT_2)
#define SPIRAL_SPLIT_2(v, l, h) memcpy(&l, &v, sizeof l), memcpy(&h, (const char*)&v + sizeof l, sizeof l)
#define SPIRAL_SPLIT_4 SPIRAL_SPLIT_2
#define SPIRAL_SPLIT_8 SPIRAL_SPLIT_2
#endif

// ---------------------------------------------------------------- the four reductions
struct Sum {
  typedef double Total;
  typedef D Wide;  // collects blocks of lanes
  static constexpr double zero = 0.0;
  template <class T>
  static inline void join(T& a, const T& x) { a += x; }
  static inline void collect(Wide& w, const V& v) {
    V8 low, high;
    SPIRAL_SPLIT_8(v, low, high);
#if defined(__AVX512F__)  // g++ 12 makes two short conversions of each
    w += (D)_mm512_cvtps_pd((__m256)low) + (D)_mm512_cvtps_pd((__m256)high);
#else
    w += __builtin_convertvector(low, D) + __builtin_convertvector(high, D);
#endif
  }
  static inline Total fold(const Wide& w) {
    D4 a, b;
    D2 c, d;
    SPIRAL_SPLIT_4(w, a, b);
    a += b;
    SPIRAL_SPLIT_2(a, c, d);
    c += d;
    return c[0] + c[1];
  }
};

template <bool MAX>
struct Extreme {
  typedef float Total;
  typedef V Wide;
  static constexpr float zero =
      MAX ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::infinity();
  // NaN compares false: the second test takes it, and then nothing replaces it. Two tests in a row, as the
  // first is one instruction, and a branch on the second is always foreseen.
  template <class T>
  static inline void join(T& a, const T& x) {
    const T more = MAX ? (x > a ? x : a) : (x < a ? x : a);
    a = x != x ? x : more;
  }
  static inline void collect(Wide& w, const V& v) { join(w, v); }
  static inline Total fold(const Wide& w) {
    V8 a, b;
    V4 c, d;
    SPIRAL_SPLIT_8(w, a, b);
    join(a, b);
    SPIRAL_SPLIT_4(a, c, d);
    join(c, d);
    d = V4{c[2], c[3], c[0], c[1]};
    join(c, d);
    d = V4{c[1], c[0], c[3], c[2]};
    join(c, d);
    return c[0];
  }
};

// ---------------------------------------------------------------- along a row
template <class Op>
typename Op::Total contiguous_row(const float* p, i64 n) {
  typedef typename Op::Wide Wide;
  Wide wide = Wide{} + Op::zero;
  V a, b, c, d, x;
  const i64 whole = n / 64 * 64;
  i64 i = 0;
  while (i < whole) {  // 1024 elements: four accumulators of 16 lanes and 16 terms
    const i64 end = std::min(whole, i + 1024);
    read(a, p + i);
    read(b, p + i + 16);
    read(c, p + i + 32);
    read(d, p + i + 48);
    for (i += 64; i < end; i += 64) {
      read(x, p + i);
      Op::join(a, x);
      read(x, p + i + 16);
      Op::join(b, x);
      read(x, p + i + 32);
      Op::join(c, x);
      read(x, p + i + 48);
      Op::join(d, x);
    }
    Op::join(a, b);
    Op::join(c, d);
    Op::join(a, c);
    Op::collect(wide, a);
  }
  for (; i + 16 <= n; i += 16) {
    read(x, p + i);
    Op::collect(wide, x);
  }
  if (i < n) {
    read_part(x, p + i, n - i, (float)Op::zero);
    Op::collect(wide, x);
  }
  return Op::fold(wide);
}

template <class Op>
typename Op::Total row(const float* x, i64 stride, i64 n) {
  typedef typename Op::Total Total;
  if (stride == 1) return contiguous_row<Op>(x, n);
  Total t[4] = {Op::zero, Op::zero, Op::zero, Op::zero};
  i64 i = 0;
  for (; i + 4 <= n; i += 4)
    for (int k = 0; k < 4; k++) Op::join(t[k], (Total)x[(i + k) * stride]);
  for (; i < n; i++) Op::join(t[0], (Total)x[i * stride]);
  Op::join(t[0], t[1]);
  Op::join(t[2], t[3]);
  Op::join(t[0], t[2]);
  return t[0];
}

}  // namespace reduction
}  // namespace spiral
