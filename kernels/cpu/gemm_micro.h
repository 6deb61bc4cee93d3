// Register-level parts of gemm(): one block of C kept in registers, transposition, dot products.
//
// micro<M, V, ROWS> computes M rows by V vectors of C over the whole inner range it is given: per step
// it loads V vectors of B, broadcasts M values of A and does M * V fused multiply-adds, so that with
// 14 x 2 (AVX-512) or 6 x 2 (AVX2) the two multiply-add ports are the only limit. Every element of C
// is one chain of additions in the order of k: its bits depend on neither M, V nor the tile.
// The multiply-adds are inline assembly: GCC 12 otherwise picks the form that overwrites the broadcast
// and spills accumulators (measured 2026-11 on one AVX-512 core: 115 GF/s instead of 175 of 178), and
// -fassociative-math may not touch them.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace spiral {
namespace gemm_detail {
typedef int64_t i64;

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS_MAX = 14;
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS_MAX = 6;
#elif defined(__aarch64__)
constexpr int LANES = 4, ROWS_MAX = 12;
#else
constexpr int LANES = 4, ROWS_MAX = 4;
#endif
constexpr int PANEL = 2 * LANES;  // columns of B that are packed side by side
typedef float vec __attribute__((vector_size(4 * LANES)));

#define SPIRAL_INLINE __attribute__((always_inline))
template <class F, int... I>
SPIRAL_INLINE inline void unroll_over(F f, std::integer_sequence<int, I...>) {
  (f(std::integral_constant<int, I>()), ...);
}
// f(0) ... f(N - 1) with constant arguments: accumulators are in registers from the first pass on
template <int N, class F>
SPIRAL_INLINE inline void unroll(F f) {
  unroll_over(f, std::make_integer_sequence<int, N>());
}

typedef vec vec_anywhere __attribute__((aligned(4), may_alias));
SPIRAL_INLINE inline vec load(const float* p) { return *(const vec_anywhere*)p; }
SPIRAL_INLINE inline void store(float* p, vec v) { *(vec_anywhere*)p = v; }
SPIRAL_INLINE inline vec splat(float s) { return s - vec{}; }

// Whether blocks of whole vectors have kernels of their own. AVX-512 needs none: masks cost nothing. With AVX2 a masked
// store takes 12 cycles and more on AMD's processors: 72 of the 500 of a block with 64 steps of k (2026-11).
#if defined(__AVX512F__)
constexpr bool WHOLE_KERNELS = false;
#else
constexpr bool WHOLE_KERNELS = true;
#endif

// All lanes of a vector, with the interface of Lanes
struct AllLanes {
  explicit AllLanes(i64) {}
  SPIRAL_INLINE vec load(const float* p) const { return gemm_detail::load(p); }
  SPIRAL_INLINE void store(float* p, vec v) const { gemm_detail::store(p, v); }
};

// The first n lanes of a vector. With masks in hardware a partial load is as cheap as a full one.
struct Lanes {
#if defined(__AVX512F__)
  __mmask16 mask;
  explicit Lanes(i64 n) : mask((__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1)) {}
  SPIRAL_INLINE vec load(const float* p) const { return (vec)_mm512_maskz_loadu_ps(mask, p); }
  SPIRAL_INLINE void store(float* p, vec v) const { _mm512_mask_storeu_ps(p, mask, (__m512)v); }
#elif defined(__AVX2__)
  __m256i mask;
  int n;
  explicit Lanes(i64 count)
      : mask(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))),
        n((int)count) {}
  SPIRAL_INLINE vec load(const float* p) const { return (vec)_mm256_maskload_ps(p, mask); }
  // in halves and quarters: no masked store, see WHOLE_KERNELS
  SPIRAL_INLINE void store(float* p, vec v) const {
    if (n >= LANES) return gemm_detail::store(p, v);
    __m128 part = _mm256_castps256_ps128((__m256)v);
    if (n & 4) _mm_storeu_ps(p, part), p += 4, part = _mm256_extractf128_ps((__m256)v, 1);
    if (n & 2) _mm_storel_pi((__m64*)p, part), p += 2, part = _mm_movehl_ps(part, part);
    if (n & 1) _mm_store_ss(p, part);
  }
#else
  i64 n;
  explicit Lanes(i64 count) : n(count) {}
  SPIRAL_INLINE vec load(const float* p) const {
    if (n >= LANES) return gemm_detail::load(p);
    vec v{};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
  }
  SPIRAL_INLINE void store(float* p, vec v) const {
    if (n >= LANES) return gemm_detail::store(p, v);
    for (int i = 0; i < n; i++) p[i] = v[i];
  }
#endif
};

#if defined(__AVX512F__)
#define SPIRAL_REG "v"  // any of the 32 vector registers
#else
#define SPIRAL_REG "x"
#endif
SPIRAL_INLINE inline vec multiply_add(vec acc, vec x, vec y) {
#if defined(__AVX2__)
  asm("vfmadd231ps %2, %1, %0" : "+" SPIRAL_REG(acc) : SPIRAL_REG(x), SPIRAL_REG(y));
#else
  acc += x * y;
#endif
  return acc;
}

// The float at p + index * SCALE + OFFSET bytes in every lane. The address is spelled out because the
// compiler otherwise computes fourteen of them in every step.
template <int SCALE, int OFFSET>
SPIRAL_INLINE inline vec broadcast(const char* p, i64 index) {
#if defined(__AVX2__)
  vec v;
  if constexpr (SCALE == 0) {
    (void)index;
    asm("vbroadcastss %c2(%1), %0" : "=" SPIRAL_REG(v) : "r"(p), "i"(OFFSET));
  } else {
    asm("vbroadcastss %c3(%1,%2,%c4), %0" : "=" SPIRAL_REG(v) : "r"(p), "r"(index), "i"(OFFSET), "i"(SCALE));
  }
  return v;
#else
  float f;
  memcpy(&f, p + index * SCALE + OFFSET, sizeof f);
  return splat(f);
#endif
}

// What happens to a block of C: c = alpha * sum + beta * c + bias, then relu. `across`: C is stored
// transposed (the operands were exchanged) and bias runs along the rows of the block.
struct Finish {
  float alpha, beta;
  const float* bias;
  bool relu, across;
  i64 ldc;
};

struct Block {
  i64 k;
  const float* a;
  i64 a_stride;  // between rows (ROWS) or between steps of k, where the rows of a step are adjacent
  const float* b;
  i64 b_stride;  // between steps of k
  float* c;
  int columns;
  const Finish* f;
  const float* bias;  // of this block
};

SPIRAL_INLINE inline vec relu(vec v) { return v < vec{} ? vec{} : v; }  // NaN stays NaN

static void store_across(const float* tile, int width, int rows, const Block& q);

// How the values of A lie: along rows; by steps (the rows of a step are adjacent); by steps LANES apart.
enum class Along { ROWS, STEPS, STRIP };

template <int M, int V, Along A, class Last>
__attribute__((noinline)) void micro(const Block& q) {
  constexpr bool ROWS = A == Along::ROWS, STRIP = A == Along::STRIP;
  const Last last(q.columns - (V - 1) * LANES);
  const Finish& f = *q.f;
  asm volatile("" : : "r"(q.a) : "memory");  // broadcast() reads A behind the compiler's back
  vec acc[M][V];
  unroll<M>([&](auto i) SPIRAL_INLINE { unroll<V>([&](auto v) SPIRAL_INLINE { acc[i][v] = vec{}; }); });
  if (!f.across)
    for (int i = 0; i < M; i++)
      for (int v = 0; v < V; v++) __builtin_prefetch(q.c + i * f.ldc + v * LANES, 1);
  // rows 0-6 and 7-13 are reached from two pointers with three strides
  const i64 s1 = q.a_stride * 4, s3 = s1 * 3, s5 = s1 * 5;
  const char *p0 = (const char*)q.a, *p1 = p0 + 7 * s1;
  const float* b = q.b;
  const i64 b_stride = q.b_stride, k = q.k;
  auto value = [&](auto row, auto step) SPIRAL_INLINE -> vec {
    constexpr int r = decltype(row)::value % 7, at = decltype(step)::value * 4;
    const char* p = decltype(row)::value < 7 ? p0 : p1;
    if constexpr (STRIP)
      return broadcast<0, decltype(row)::value * 4 + at * LANES>(p0, 0);
    else if constexpr (!ROWS)
      return broadcast<0, decltype(row)::value * 4>(p0, 0);
    else if constexpr (r == 0)
      return broadcast<0, at>(p, 0);
    else if constexpr (r == 1 || r == 2 || r == 4)
      return broadcast<r, at>(p, s1);
    else if constexpr (r == 3 || r == 6)
      return broadcast<r / 3, at>(p, s3);
    else
      return broadcast<1, at>(p, s5);
  };
  auto step = [&](auto s) SPIRAL_INLINE {
    vec bv[V];
    // steps are often too far apart for the hardware to prefetch (150 GF/s become 175); the values of
    // one step may straddle two cache lines
    if (A == Along::STEPS) __builtin_prefetch(p0 + 16 * s1), __builtin_prefetch(p0 + 16 * s1 + 4 * (M - 1));
    for (int v = 0; v < V; v++) __builtin_prefetch(b + 8 * b_stride + v * LANES);
    unroll<V>([&](auto v) SPIRAL_INLINE { bv[v] = v == V - 1 ? last.load(b + v * LANES) : load(b + v * LANES); });
    unroll<M>([&](auto i) SPIRAL_INLINE {
      vec x = value(i, s);
      unroll<V>([&](auto v) SPIRAL_INLINE { acc[i][v] = multiply_add(acc[i][v], x, bv[v]); });
    });
    b += b_stride;
    if (A == Along::STEPS) p0 += s1;
  };
  i64 p = 0;
  for (; p + 4 <= k; p += 4) {
    unroll<4>(step);
    if (ROWS) p0 += 16, p1 += 16;
    if (STRIP) p0 += 16 * LANES;
  }
  for (; p < k; p++) {
    step(std::integral_constant<int, 0>());
    if (ROWS) p0 += 4, p1 += 4;
    if (STRIP) p0 += 4 * LANES;
  }
  auto each = [&](auto g) SPIRAL_INLINE {
    unroll<M>([&](auto i) SPIRAL_INLINE { unroll<V>([&](auto v) SPIRAL_INLINE { acc[i][v] = g(i, v, acc[i][v]); }); });
  };
  if (f.alpha != 1.f) each([&](auto, auto, vec x) SPIRAL_INLINE { return x * f.alpha; });
  if (f.across) {
    alignas(64) float tile[(M > LANES ? M : LANES) * V * LANES];
    each([&](auto i, auto v, vec x) SPIRAL_INLINE { return store(tile + (i * V + v) * LANES, x), x; });
    Block part = q;
    for (int r = 0; r < M; r += LANES) {  // a register transposes LANES rows at a time
      store_across(tile + r * V * LANES, V * LANES, M - r < LANES ? M - r : LANES, part);
      part.c += LANES;
      if (part.bias) part.bias += LANES;
    }
    return;
  }
  if (f.beta != 0.f)
    each([&](auto i, auto v, vec x) SPIRAL_INLINE {
      const float* c = q.c + i * f.ldc + v * LANES;
      return x + f.beta * (v == V - 1 ? last.load(c) : load(c));
    });
  if (q.bias)
    unroll<V>([&](auto v) SPIRAL_INLINE {
      vec add = v == V - 1 ? last.load(q.bias + v * LANES) : load(q.bias + v * LANES);
      unroll<M>([&](auto i) SPIRAL_INLINE { acc[i][v] += add; });
    });
  if (f.relu) each([&](auto, auto, vec x) SPIRAL_INLINE { return relu(x); });
  each([&](auto i, auto v, vec x) SPIRAL_INLINE {
    float* c = q.c + i * f.ldc + v * LANES;
    v == V - 1 ? last.store(c, x) : store(c, x);
    return x;
  });
}

// Calls emit(j, vec) for j in [0, columns) with column j of a (rows, columns) block, rows <= LANES,
// columns <= LANES; lanes past `rows` hold zeros.
template <class Emit>
inline void transpose(const float* src, i64 ld, int rows, int columns, Emit emit) {
#if defined(__AVX512F__) || defined(__AVX2__)
  alignas(64) float edge[LANES * LANES];
  if (rows < LANES || columns < LANES) {
    const Lanes part(columns);
    for (int r = 0; r < LANES; r++) store(edge + r * LANES, r < rows ? part.load(src + r * ld) : vec{});
    src = edge, ld = LANES;
  }
  // 4 x 4 blocks: gather one from every fourth row into the 128-bit lanes, then transpose within lanes
  for (int q = 0; q < LANES / 4; q++) {
    if (4 * q >= columns) break;
    vec t[4];
    for (int r = 0; r < 4; r++) {
      const float* p = src + r * ld + 4 * q;
#if defined(__AVX512F__)
      __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(p));
      v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 4 * ld), 1);
      v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 8 * ld), 2);
      t[r] = (vec)_mm512_insertf32x4(v, _mm_loadu_ps(p + 12 * ld), 3);
#else
      t[r] = (vec)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * ld), 1);
#endif
    }
#if defined(__AVX512F__)
#define SPIRAL_LOW(x, y) _mm512_maskz_unpacklo_ps(0xffff, (__m512)x, (__m512)y)
#define SPIRAL_HIGH(x, y) _mm512_maskz_unpackhi_ps(0xffff, (__m512)x, (__m512)y)
#define SPIRAL_PAIR(x, y, m) (vec) _mm512_shuffle_ps(x, y, m)
    typedef __m512 reg;
#else
#define SPIRAL_LOW(x, y) _mm256_unpacklo_ps((__m256)x, (__m256)y)
#define SPIRAL_HIGH(x, y) _mm256_unpackhi_ps((__m256)x, (__m256)y)
#define SPIRAL_PAIR(x, y, m) (vec) _mm256_shuffle_ps(x, y, m)
    typedef __m256 reg;
#endif
    reg a = SPIRAL_LOW(t[0], t[1]), b = SPIRAL_LOW(t[2], t[3]);
    reg c = SPIRAL_HIGH(t[0], t[1]), d = SPIRAL_HIGH(t[2], t[3]);
    int left = columns - 4 * q;
    emit(4 * q, SPIRAL_PAIR(a, b, 0x44));
    if (left > 1) emit(4 * q + 1, SPIRAL_PAIR(a, b, 0xee));
    if (left > 2) emit(4 * q + 2, SPIRAL_PAIR(c, d, 0x44));
    if (left > 3) emit(4 * q + 3, SPIRAL_PAIR(c, d, 0xee));
  }
#else
  for (int j = 0; j < columns; j++) {
    vec v{};
    for (int r = 0; r < rows; r++) v[r] = src[r * ld + j];
    emit(j, v);
  }
#endif
}

__attribute__((noinline, unused)) static void store_across(const float* tile, int width, int rows, const Block& q) {
  const Lanes part(rows);
  const Finish& f = *q.f;
  const vec bias = q.bias ? part.load(q.bias) : vec{};
  for (int j0 = 0; j0 < q.columns; j0 += LANES)
    transpose(tile + j0, width, rows, q.columns - j0 < LANES ? q.columns - j0 : LANES, [&](int j, vec x) {
      float* c = q.c + (j0 + j) * f.ldc;
      if (f.beta != 0.f) x += f.beta * part.load(c);
      if (q.bias) x += bias;
      part.store(c, f.relu ? relu(x) : x);
    });
}

typedef void (*micro_fn)(const Block&);
// kernel for `rows` in [1, ROWS_MAX] and up to PANEL columns
micro_fn micro_for(Along along, int columns, int rows);

}  // namespace gemm_detail
}  // namespace spiral
