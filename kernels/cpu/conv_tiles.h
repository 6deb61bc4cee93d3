// Register-blocked convolution: the products behind conv.cpp.
//
// Lanes are output channels. A tile of the output, P pixels x V vectors of channels, stays in registers
// while the taps (c, u, v) go by: V loads of packed weights, P broadcasts of input, P * V multiply-adds,
// 24 of them with 512-bit registers, which is what two FMA units need to be busy. No im2col matrix: a tap
// is an offset into a zero-padded copy of the input, whose columns are split by stride phase, so that
// neighbouring outputs read neighbouring floats for any stride and dilation. The result is transposed
// to channel planes on its way out, with bias and activation. The inner
// loops alone reach 183 to 190 of a core's 188 GF/s; whole convolutions: see conv.cpp.
#pragma once
#include <utility>

#include "native.h"
#include "lanes.h"

#if defined(__clang__)
#define SPIRAL_UNROLL _Pragma("unroll")
#else
#define SPIRAL_UNROLL _Pragma("GCC unroll 16")
#endif

namespace spiral {
namespace {

// x (n, c, h, w), weight (o, c / groups, kh, kw), y (n, o, oh, ow)
struct Conv {
  i64 n, c, h, w, o, kh, kw, oh, ow;
  i64 sh, sw, ph, pw, dh, dw, groups;
  i64 cg() const { return c / groups; }
  i64 og() const { return o / groups; }
  i64 taps() const { return cg() * kh * kw; }
  i64 pixels() const { return oh * ow; }
  double flops() const { return 2.0 * (double)(n * o * pixels()) * (double)taps(); }
};

#if defined(__AVX512F__) || defined(__aarch64__)  // 32 vector registers
constexpr int MAX_V = 4;
constexpr int pixels_for(int v) { return v == 4 ? 6 : v == 3 ? 8 : 12; }
constexpr int taps_for(int v) { return v == 4 ? 6 : v == 3 ? 8 : 10; }
#else
constexpr int MAX_V = 2;
constexpr int pixels_for(int v) { return v == 2 ? 5 : 8; }
constexpr int taps_for(int v) { return v == 2 ? 5 : 8; }
#endif

// How channels are cut into blocks of `v` vectors: as few blocks as possible, then as little waste.
struct Blocks {
  int v;
  i64 count;
  explicit Blocks(i64 channels) {
    i64 vectors = (channels + SPIRAL_LANES - 1) / SPIRAL_LANES;
    count = std::max<i64>(1, (vectors + MAX_V - 1) / MAX_V);
    v = (int)std::max<i64>(1, (vectors + count - 1) / count);
  }
  i64 width() const { return v * SPIRAL_LANES; }
};

// ---------------------------------------------------------------- transposition
static inline void interleave(Lanes a, Lanes b, Lanes& lo, Lanes& hi) {
#if defined(__AVX512F__)
  const __m512i l = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i h = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  lo = (Lanes)_mm512_permutex2var_ps((__m512)a, l, (__m512)b);
  hi = (Lanes)_mm512_permutex2var_ps((__m512)a, h, (__m512)b);
#elif defined(__AVX2__)
  __m256 l = _mm256_unpacklo_ps((__m256)a, (__m256)b), h = _mm256_unpackhi_ps((__m256)a, (__m256)b);
  lo = (Lanes)_mm256_permute2f128_ps(l, h, 0x20);
  hi = (Lanes)_mm256_permute2f128_ps(l, h, 0x31);
#else
  lo = Lanes{a[0], b[0], a[1], b[1]};
  hi = Lanes{a[2], b[2], a[3], b[3]};
#endif
}

// At most SPIRAL_LANES rows and columns: to[c * ld_to + r] = finish(from[r * ld_from + c], c).
// log2(lanes) rounds of interleaving row i with row i + lanes / 2 transpose.
template <class Columns, class Rows, class F>
inline void transpose_block(const float* from, i64 ld_from, Rows rows, int nr, float* to, i64 ld_to,
                            Columns cols, int nc, F finish) {
  Lanes a[SPIRAL_LANES], b[SPIRAL_LANES];
  SPIRAL_UNROLL
  for (int r = 0; r < SPIRAL_LANES; r++) a[r] = r < nr ? cols.load(from + r * ld_from) : Lanes{};
  SPIRAL_UNROLL
  for (int s = 1; s < SPIRAL_LANES; s *= 2) {
    SPIRAL_UNROLL
    for (int r = 0; r < SPIRAL_LANES / 2; r++)
      interleave(a[r], a[r + SPIRAL_LANES / 2], b[2 * r], b[2 * r + 1]);
    SPIRAL_UNROLL
    for (int r = 0; r < SPIRAL_LANES; r++) a[r] = b[r];
  }
  SPIRAL_UNROLL
  for (int c = 0; c < SPIRAL_LANES; c++)
    if (c < nc) rows.store(to + c * ld_to, finish(a[c], c));
}

// to (cols, rows) = finish(from (rows, cols) transposed, column)
template <class F>
inline void transpose(const float* from, i64 ld_from, i64 rows, i64 cols, float* to, i64 ld_to, F finish) {
  constexpr int L = SPIRAL_LANES;
  for (i64 c = 0; c < cols; c += L)
    for (i64 r = 0; r < rows; r += L) {
      const float* f = from + r * ld_from + c;
      float* t = to + c * ld_to + r;
      int nr = (int)std::min<i64>(L, rows - r), nc = (int)std::min<i64>(L, cols - c);
      auto done = [&](Lanes v, int k) { return finish(v, c + k); };
      if (nr == L && nc == L)
        transpose_block(f, ld_from, Whole{}, L, t, ld_to, Whole{}, L, done);
      else if (nr == L)
        transpose_block(f, ld_from, Whole{}, L, t, ld_to, Part{nc}, nc, done);
      else if (nc == L)
        transpose_block(f, ld_from, Part{nr}, nr, t, ld_to, Whole{}, L, done);
      else
        transpose_block(f, ld_from, Part{nr}, nr, t, ld_to, Part{nc}, nc, done);
    }
}
constexpr auto as_is = [](Lanes v, i64) { return v; };

// ---------------------------------------------------------------- the padded input
// What `rows` output rows read: planes of `height` rows; a row is `sw` phases of `length` floats. The
// input itself is that already when it needs no padding and columns have stride 1.
struct Planes {
  i64 height, length, pitch, plane;
  bool in_place;
  Planes(const Conv& a, i64 rows) {
    height = (rows - 1) * a.sh + a.dh * (a.kh - 1) + 1;
    i64 width = (a.ow - 1) * a.sw + a.dw * (a.kw - 1) + 1;
    in_place = a.ph == 0 && a.pw == 0 && a.sw == 1;
    length = (width + a.sw - 1) / a.sw, pitch = in_place ? a.w : length * a.sw;
    plane = in_place ? a.h * a.w : height * pitch;
  }
  i64 scratch(const Conv& a) const { return in_place ? 0 : a.cg() * plane; }
  // where tap (c, u, v) of output (0, 0) is
  i64 offset(const Conv& a, i64 c, i64 u, i64 v) const {
    return c * plane + u * a.dh * pitch + v * a.dw % a.sw * length + v * a.dw / a.sw;
  }
  void offsets(const Conv& a, int32_t* off) const {
    for (i64 c = 0; c < a.cg(); c++)
      for (i64 u = 0; u < a.kh; u++)
        for (i64 v = 0; v < a.kw; v++) *off++ = (int32_t)offset(a, c, u, v);
  }
  void copy_row(const Conv& a, const float* x, float* to) const {
    auto zero = [&](i64 lo, i64 hi) {
      for_lanes(lo, hi, [&](auto io, i64 j) { io.store(to + j, Lanes{}); });
    };
    if (a.sw == 1) {  // vectors by hand: rows are short, and memcpy costs a call
      i64 lo = std::min(a.pw, length), hi = std::max(lo, std::min(length, a.pw + a.w));
      zero(0, lo);
      for_lanes(lo, hi, [&](auto io, i64 j) { io.store(to + j, io.load(x + j - a.pw)); });
      zero(hi, length);
      return;
    }
    for (i64 phase = 0; phase < a.sw; phase++)
      for (i64 j = 0; j < length; j++) {
        i64 column = j * a.sw + phase - a.pw;
        to[phase * length + j] = column >= 0 && column < a.w ? x[column] : 0.f;
      }
  }
  // The planes from output row r0 on; x: the first channel of a sample's group
  const float* read(const Conv& a, const float* x, i64 r0, float* mem) const {
    if (in_place) return x + r0 * a.sh * a.w;
    for (i64 c = 0; c < a.cg(); c++)
      for (i64 i = 0; i < height; i++) {
        i64 row = r0 * a.sh - a.ph + i;
        float* t = mem + c * plane + i * pitch;
        if (row < 0 || row >= a.h)
          std::fill(t, t + pitch, 0.f);
        else
          copy_row(a, x + (c * a.h + row) * a.w, t);
      }
    return mem;
  }
};

// Asks for n floats in each of the planes [lo, hi): transposing walks many planes at once, too many for
// the processor to see what comes next. Beside the products it costs nothing: 10 % of a convolution.
template <bool writing>
inline void prefetch(const float* p, i64 plane, i64 lo, i64 hi, i64 n) {
  for (i64 c = lo; c < hi; c++)
    for (i64 i = 0; i < n; i += 16) __builtin_prefetch(p + c * plane + i, writing ? 1 : 0, 2);
}

// ---------------------------------------------------------------- the inner loops
// y (P, V vectors) = (add ? y : 0) + sum over k of x[off[k] + p] * w[k]
template <int V, int P>
void tap_sum(const float* x, const int32_t* off, i64 taps, const float* w, float* y, bool add) {
  constexpr int L = SPIRAL_LANES;
  Lanes acc[P][V] = {};
  for (i64 k = 0; k < taps; k++, w += V * L) {
    const float* xk = x + off[k];
    Lanes wk[V];
    SPIRAL_UNROLL
    for (int v = 0; v < V; v++) wk[v] = Whole{}.load(w + v * L);
    SPIRAL_UNROLL
    for (int p = 0; p < P; p++) {
      Lanes b = all<Lanes>(xk[p]);
      SPIRAL_UNROLL
      for (int v = 0; v < V; v++) acc[p][v] = fmadd(b, wk[v], acc[p][v]);
    }
  }
  SPIRAL_UNROLL
  for (int p = 0; p < P; p++) SPIRAL_UNROLL
  for (int v = 0; v < V; v++) {
    float* to = y + (p * V + v) * L;
    Whole{}.store(to, add ? acc[p][v] + Whole{}.load(to) : acc[p][v]);
  }
}

// dw (T, V vectors) += sum over `rows` x `ow` pixels of x[off[t] + pixel] * gt[pixel]
template <int V, int T>
void pixel_sum(const float* x, i64 row_step, const int32_t* off, i64 rows, i64 ow, const float* gt,
               float* dw) {
  constexpr int L = SPIRAL_LANES;
  Lanes acc[T][V] = {};
  for (i64 i = 0; i < rows; i++, x += row_step) {
    const float* xt[T];
    SPIRAL_UNROLL
    for (int t = 0; t < T; t++) xt[t] = x + off[t];
    for (i64 j = 0; j < ow; j++, gt += V * L) {
      Lanes g[V];
      SPIRAL_UNROLL
      for (int v = 0; v < V; v++) g[v] = Whole{}.load(gt + v * L);
      SPIRAL_UNROLL
      for (int t = 0; t < T; t++) {
        Lanes b = all<Lanes>(xt[t][j]);
        SPIRAL_UNROLL
        for (int v = 0; v < V; v++) acc[t][v] = fmadd(b, g[v], acc[t][v]);
      }
    }
  }
  SPIRAL_UNROLL
  for (int t = 0; t < T; t++) SPIRAL_UNROLL
  for (int v = 0; v < V; v++) {
    float* to = dw + (t * V + v) * L;
    Whole{}.store(to, acc[t][v] + Whole{}.load(to));
  }
}

typedef void (*TapSum)(const float*, const int32_t*, i64, const float*, float*, bool);
typedef void (*PixelSum)(const float*, i64, const int32_t*, i64, i64, const float*, float*);
template <int V, size_t... P>
const TapSum* tap_sums(std::index_sequence<P...>) {
  static const TapSum table[] = {tap_sum<V, (int)P + 1>...};
  return table;
}
template <int V, size_t... T>
const PixelSum* pixel_sums(std::index_sequence<T...>) {
  static const PixelSum table[] = {pixel_sum<V, (int)T + 1>...};
  return table;
}
// table[p - 1]: the loop for p pixels (taps) and blocks of v vectors
template <int V = MAX_V>
const TapSum* tap_sums(int v) {
  if constexpr (V == 0)
    return nullptr;
  else
    return v == V ? tap_sums<V>(std::make_index_sequence<pixels_for(V)>()) : tap_sums<V - 1>(v);
}
template <int V = MAX_V>
const PixelSum* pixel_sums(int v) {
  if constexpr (V == 0)
    return nullptr;
  else
    return v == V ? pixel_sums<V>(std::make_index_sequence<taps_for(V)>()) : pixel_sums<V - 1>(v);
}

// f(start, count) over [0, n) in nearly equal pieces of at most `most`
template <class F>
inline void pieces(i64 n, i64 most, F f) {
  i64 count = (n + most - 1) / most;
  for (i64 i = 0, at = 0; i < count; i++) {
    i64 size = (n - at + count - i - 1) / (count - i);
    f(at, size);
    at += size;
  }
}

}  // namespace
}  // namespace spiral
