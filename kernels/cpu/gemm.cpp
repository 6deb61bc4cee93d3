// Single-precision GEMM; contract in gemm.h.
//
// A product is cut into tiles (row range x range of column panels) by its shape alone. Within a tile:
// blocks of k so that a strip of B stays in cache, panels of PANEL columns, blocks of up to ROWS_MAX rows
// (gemm_micro.h). B is packed panel by panel once, by all threads, when it is stored transposed; stored
// by rows it is read in place. A is always read in place: broadcasts do not care how far apart rows are.
// The operands may be exchanged (C^T = B^T A^T) so that the smaller one is packed and the longer side
// of C fills the vectors; the block is then transposed on its way to C.
// Few rows against a transposed B (a token at a time through a Linear) are dot products: each weight is
// read once, straight from where it lies. Every element of C has a fixed order of additions.
#include "gemm.h"

#include <algorithm>
#include <cstring>

#include "gemm_micro.h"
#include "pool.h"
#include "threads.h"

namespace spiral {
using namespace gemm_detail;
namespace {
// ---------------------------------------------------------------- a BLAS found at run time
typedef void (*sgemm32)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
typedef void (*sgemm64)(int, int, int, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*, int64_t,
                        float, float*, int64_t);
sgemm32 blas32 = nullptr;
sgemm64 blas64 = nullptr;

// Without fused multiply-add instructions known at compile time a BLAS that picks its kernels at run
// time is faster than ours.
#if defined(__AVX2__)
constexpr bool PREFER_BLAS = false;
#else
constexpr bool PREFER_BLAS = true;
#endif

// ---------------------------------------------------------------- kernels by size
template <bool ROWS, int V, int... I>
micro_fn pick(int rows, std::integer_sequence<int, I...>) {
  static const micro_fn table[] = {micro<I + 1, V, ROWS>...};
  return table[rows - 1];
}
}  // namespace

micro_fn gemm_detail::micro_for(bool along_rows, int vectors, int rows) {
  std::make_integer_sequence<int, ROWS_MAX> all;
  if (along_rows) return vectors == 1 ? pick<true, 1>(rows, all) : pick<true, 2>(rows, all);
  return vectors == 1 ? pick<false, 1>(rows, all) : pick<false, 2>(rows, all);
}

namespace {
// Element (i, j) lies at p[i * row + j * column]; one of the two is 1.
struct View {
  const float* p;
  i64 row, column;
};

struct Product {
  i64 m, n, k;
  View a, b;  // (m, k) and (k, n)
  float* c;
  Finish f;
};

Product exchanged(const Product& q) {
  Product r = q;
  r.m = q.n, r.n = q.m;
  r.a = View{q.b.p, q.b.column, q.b.row}, r.b = View{q.a.p, q.a.column, q.a.row};
  r.f.across = !q.f.across;
  return r;
}

float* c_at(const Product& q, i64 i, i64 j) { return q.c + (q.f.across ? j * q.f.ldc + i : i * q.f.ldc + j); }

i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }

// ---------------------------------------------------------------- plan
constexpr i64 K_BLOCK = 512;         // steps of k per pass: a panel of them is 64 KiB
constexpr i64 DOT_ROWS = 8;          // up to here rows against a transposed B are dot products
constexpr double TILE_FLOPS = 1e6;   // about 6 us; smaller tiles lose to the ticket counter

// Estimated core cycles with AVX-512 (constants measured 2026-11); only comparisons matter, and they
// depend on the shape alone.
double panel_cost(const Product& q) {
  i64 tail = q.n % PANEL;
  double columns = (double)(q.n - tail) + (tail == 0 ? 0 : tail <= LANES ? 0.6 * PANEL : PANEL);
  double rows = (double)std::max<i64>(q.m, 5);  // fewer do not hide the latency of the additions
  double compute = rows * columns * (double)q.k / (2 * LANES);
  double pack = q.b.column == 1 ? (q.m > 2 * ROWS_MAX ? 0.1 : 0.0) : 0.25;
  double write = q.f.across ? 0.6 * (double)q.m * (double)q.n : 0.0;
  return compute + pack * (double)q.n * (double)q.k + write;
}
double dot_cost(const Product& q) {
  if (q.m > DOT_ROWS || (q.b.row != 1 && q.k != 1)) return 1e300;
  return (double)std::max<i64>(q.m, 2) * (double)q.n * ((double)q.k / (2 * LANES) * 1.1 + 4.0);
}

// ---------------------------------------------------------------- packing B
bool packed_in_place(const Product& q, i64 columns) {
  if (q.b.column != 1 || q.m > 2 * ROWS_MAX) return false;
  return LANES >= 8 || columns % LANES == 0;  // without masks partial loads are slow: pad instead
}

// panel columns [j, j + width) and steps [p0, p1) of B to dst, `step` floats per step of k
void pack_panel(const Product& q, i64 j, int width, i64 p0, i64 p1, float* dst, int step) {
  if (q.b.column == 1) {
    for (i64 p = p0; p < p1; p++)
      for (int v = 0; v < step; v += LANES)
        store(dst + p * step + v, Lanes(std::max(0, width - v)).load(q.b.p + p * q.b.row + j + v));
    return;
  }
  for (i64 p = p0; p < p1; p += LANES)
    for (int v = 0; v < step; v += LANES) {
      const float* src = q.b.p + (j + v) * q.b.column + p;
      transpose(src, q.b.column, std::max(0, std::min(LANES, width - v)), (int)std::min<i64>(LANES, p1 - p),
                [&](int c, vec x) { store(dst + (p + c) * step + v, x); });
    }
}

// ---------------------------------------------------------------- tiles
struct Grid {
  i64 row_blocks, panels, across_rows, across_panels;  // micro blocks and panels; tiles in each direction
  i64 k_block;
};

Grid grid_for(const Product& q) {
  Grid g;
  double work = 2.0 * (double)q.m * (double)q.n * (double)q.k;
  i64 want = 1;
  while (want < 16 && work > 2 * TILE_FLOPS * (double)want) want *= 2;
  i64 blocks = ceil_div(q.m, ROWS_MAX);
  g.panels = ceil_div(q.n, PANEL);
  g.across_rows = std::min(want, blocks);
  g.across_panels = std::min(g.panels, ceil_div(want, g.across_rows));
  g.row_blocks = ceil_div(blocks, g.across_rows) * g.across_rows;  // all tiles get as many
  // a few rows of C stay in cache while B streams past, some whole rows of it at a time
  g.k_block = q.m <= DOT_ROWS && q.b.column == 1 ? 16 : K_BLOCK;
  return g;
}

struct Panels {
  const Product& q;
  float* packed;
  i64 count;
  int width(i64 j) const { return (int)std::min<i64>(PANEL, q.n - j * PANEL); }
  int step(i64 j) const { return width(j) <= LANES ? LANES : PANEL; }
  bool in_place(i64 j) const { return packed_in_place(q, width(j)); }
  float* at(i64 j) const { return packed + j * PANEL * q.k; }
};

// Rows [i, i + rows) and steps [p0, p0 + k) of A, stored by steps, to dst[step][row].
void pack_rows(const Product& q, i64 i, i64 rows, i64 p0, i64 k, float* dst) {
  const Lanes part(rows);
  const float* src = q.a.p + p0 * q.a.column + i;
  for (i64 p = 0; p < k; p++) part.store(dst + p * rows, part.load(src + p * q.a.column));
}

void run_tile(const Product& q, const Grid& g, const Panels& panels, i64 tile) {
  i64 tr = tile % g.across_rows, tp = tile / g.across_rows;
  i64 r0 = tr * g.row_blocks / g.across_rows, r1 = (tr + 1) * g.row_blocks / g.across_rows;
  i64 j0 = tp * g.panels / g.across_panels, j1 = (tp + 1) * g.panels / g.across_panels;
  auto row = [&](i64 r) { return q.m * r / g.row_blocks; };
  i64 passes = std::max<i64>(1, ceil_div(q.k, g.k_block));
  const bool along_rows = q.a.column == 1, copy = !along_rows && j1 - j0 > 1;
  size_t bytes = copy ? (size_t)((row(r1) - row(r0)) * ceil_div(q.k, passes)) * sizeof(float) : 0;
  float* rows_packed = copy ? (float*)pool_alloc(bytes) : nullptr;
  for (i64 pass = 0; pass < passes; pass++) {
    i64 p0 = q.k * pass / passes, k = q.k * (pass + 1) / passes - p0;
    Finish f = q.f;
    if (pass > 0) f.beta = 1.f;
    if (pass + 1 < passes) f.bias = nullptr, f.relu = false;
    for (i64 r = r0; copy && r < r1; r++)
      pack_rows(q, row(r), row(r + 1) - row(r), p0, k, rows_packed + (row(r) - row(r0)) * k);
    for (i64 j = j0; j < j1; j++) {
      Block b;
      b.k = k;
      b.columns = panels.width(j);
      b.b_stride = panels.in_place(j) ? q.b.row : panels.step(j);
      b.b = panels.in_place(j) ? q.b.p + p0 * q.b.row + j * PANEL : panels.at(j) + p0 * b.b_stride;
      b.f = &f;
      for (i64 r = r0; r < r1; r++) {
        i64 i = row(r), rows = row(r + 1) - i;
        if (rows == 0) continue;
        b.a = copy ? rows_packed + (i - row(r0)) * k : q.a.p + i * q.a.row + p0 * q.a.column;
        b.a_stride = copy ? rows : along_rows ? q.a.row : q.a.column;
        b.c = c_at(q, i, j * PANEL);
        b.bias = f.bias ? f.bias + (f.across ? i : j * PANEL) : nullptr;
        micro_for(along_rows, b.columns > LANES ? 2 : 1, (int)rows)(b);
      }
    }
  }
  if (copy) pool_free(rows_packed, bytes);
}

template <bool PARALLEL, class F>
void tiles(i64 n, F f) {
  if (PARALLEL)
    parallel_tiles(n, f);
  else
    for (i64 t = 0; t < n; t++) f(t);
}

template <bool PARALLEL>
void by_panels(const Product& q) {
  Grid g = grid_for(q);
  i64 to_pack = 0;  // leading panels are full, so only the last can differ
  bool all = !packed_in_place(q, std::min<i64>(PANEL, q.n));
  bool last = !packed_in_place(q, q.n - (g.panels - 1) * PANEL);
  to_pack = all ? g.panels : last ? 1 : 0;
  alignas(64) float near[4096];
  size_t floats = (size_t)(to_pack * PANEL * q.k);
  float* memory = floats <= 4096 ? near : (float*)pool_alloc(floats * sizeof(float));
  Panels panels{q, memory - (g.panels - to_pack) * PANEL * q.k, g.panels};
  if (to_pack) {
    i64 chunk = 256, chunks = std::max<i64>(1, ceil_div(q.k, chunk));
    auto pack = [&](i64 t) {
      i64 j = g.panels - to_pack + t / chunks, p0 = t % chunks * chunk;
      pack_panel(q, j * PANEL, panels.width(j), p0, std::min(q.k, p0 + chunk), panels.at(j), panels.step(j));
    };
    if (floats > 32768)
      tiles<PARALLEL>(to_pack * chunks, pack);
    else
      tiles<false>(to_pack * chunks, pack);
  }
  tiles<PARALLEL>(g.across_rows * g.across_panels, [&](i64 t) { run_tile(q, g, panels, t); });
  if (memory != near) pool_free(memory, floats * sizeof(float));
}

// ---------------------------------------------------------------- few rows: dot products
// out[i] = sum of the lanes of acc[i]
template <int N>
void sum_lanes(const vec* acc, float* out) {
  for (int g = 0; g < N; g += LANES) {
    vec s[4] = {};
    transpose((const float*)(acc + g), LANES, N - g < LANES ? N - g : LANES, LANES,
              [&](int j, vec x) SPIRAL_INLINE { s[j % 4] += x; });
    Lanes(N - g).store(out + g, (s[0] + s[1]) + (s[2] + s[3]));
  }
}

// C[0..M) x [j, j + J): A (M, k) and the columns of B both lie along k
template <int M, int J>
void dots(const Product& q, const float* a, i64 lda, i64 j) {
  vec acc[M][J];
  unroll<M>([&](auto i) SPIRAL_INLINE { unroll<J>([&](auto c) SPIRAL_INLINE { acc[i][c] = vec{}; }); });
  const float* b = q.b.p + j * q.b.column;
  auto step = [&](i64 p, auto get) SPIRAL_INLINE {
    vec bv[J];
    unroll<J>([&](auto c) SPIRAL_INLINE { bv[c] = get(b + c * q.b.column + p); });
    unroll<M>([&](auto i) SPIRAL_INLINE {
      vec x = get(a + i * lda + p);
      unroll<J>([&](auto c) SPIRAL_INLINE { acc[i][c] = multiply_add(acc[i][c], x, bv[c]); });
    });
  };
  i64 p = 0;
  for (; p + LANES <= q.k; p += LANES) step(p, [](const float* s) SPIRAL_INLINE { return load(s); });
  const Lanes rest((int)(q.k - p));
  if (p < q.k) step(p, [&](const float* s) SPIRAL_INLINE { return rest.load(s); });
  float sums[M * J];
  sum_lanes<M * J>(&acc[0][0], sums);
  for (int i = 0; i < M; i++)
    for (int c = 0; c < J; c++) {
      float* to = c_at(q, i, j + c);
      float s = q.f.alpha * sums[i * J + c];
      if (q.f.beta != 0.f) s += q.f.beta * *to;
      if (q.f.bias) s += q.f.bias[q.f.across ? i : j + c];
      *to = q.f.relu && s < 0.f ? 0.f : s;
    }
}

template <int M>
void dot_range(const Product& q, const float* a, i64 lda, i64 lo, i64 hi) {
  constexpr int J = LANES == 16 ? (M <= 2 ? 8 : M <= 6 ? 4 : 2) : (M <= 2 ? 4 : M <= 4 ? 2 : 1);
  i64 j = lo;
  for (; j + J <= hi; j += J) dots<M, J>(q, a, lda, j);
  for (; j < hi; j++) dots<M, 1>(q, a, lda, j);
}

template <int... I>
auto dot_range_for(i64 rows, std::integer_sequence<int, I...>) {
  typedef void (*range_fn)(const Product&, const float*, i64, i64, i64);
  static const range_fn table[] = {dot_range<I + 1>...};
  return table[rows - 1];
}

template <bool PARALLEL>
void by_dots(const Product& q) {
  auto range = dot_range_for(q.m, std::make_integer_sequence<int, DOT_ROWS>());
  float* copy = nullptr;
  const float* a = q.a.p;
  i64 lda = q.a.row;
  size_t bytes = (size_t)(q.m * q.k) * sizeof(float);
  if (q.a.column != 1) {  // few numbers: bring them into rows
    a = copy = (float*)pool_alloc(bytes);
    lda = q.k;
    for (i64 i = 0; i < q.m; i++)
      for (i64 p = 0; p < q.k; p++) copy[i * q.k + p] = q.a.p[i * q.a.row + p * q.a.column];
  }
  i64 grain = std::max<i64>(8, 65536 / std::max<i64>(q.k, 1) / 8 * 8);
  tiles<PARALLEL>(ceil_div(q.n, grain), [&](i64 t) { range(q, a, lda, t * grain, std::min(q.n, (t + 1) * grain)); });
  if (copy) pool_free(copy, bytes);
}

template <bool PARALLEL>
void multiply(bool ta, bool tb, i64 m, i64 n, i64 k, float alpha, const float* a, i64 lda, const float* b, i64 ldb,
              float beta, float* c, i64 ldc, const float* bias, Activation act) {
  if (m <= 0 || n <= 0) return;
  Product q{m, n, k, ta ? View{a, 1, lda} : View{a, lda, 1}, tb ? View{b, 1, ldb} : View{b, ldb, 1}, c,
            Finish{alpha, beta, bias, act == ACT_RELU, false, ldc}};
  Product x = exchanged(q);
  double panels = panel_cost(q), panels_x = panel_cost(x), dot = dot_cost(q), dot_x = dot_cost(x);
  if (std::min(dot, dot_x) < std::min(panels, panels_x))
    by_dots<PARALLEL>(dot <= dot_x ? q : x);
  else
    by_panels<PARALLEL>(panels <= panels_x ? q : x);
}

bool call_blas(bool ta, bool tb, i64 m, i64 n, i64 k, float alpha, const float* a, i64 lda, const float* b, i64 ldb,
               float beta, float* c, i64 ldc) {
  const i64 biggest = std::max({m, n, k, lda, ldb, ldc});
  if (!PREFER_BLAS || m <= 0 || n <= 0 || k <= 0) return false;
  if (blas32 && biggest < (1ll << 31))
    blas32(101, ta ? 112 : 111, tb ? 112 : 111, (int)m, (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb, beta, c,
           (int)ldc);
  else if (blas64)
    blas64(101, ta ? 112 : 111, tb ? 112 : 111, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  else
    return false;
  return true;
}

void finish(i64 m, i64 n, float* c, i64 ldc, const float* bias, Activation act) {
  for (i64 i = 0; i < m; i++) {
    float* ci = c + i * ldc;
    if (bias)
      for (i64 j = 0; j < n; j++) ci[j] += bias[j];
    if (act == ACT_RELU)
      for (i64 j = 0; j < n; j++) ci[j] = ci[j] < 0.f ? 0.f : ci[j];  // NaN stays NaN
  }
}

// few, tall tiles: each sgemm call packs B anew (four tiles cost 4-9 %)
void blas_tiles(bool ta, bool tb, i64 m, i64 n, i64 k, float alpha, const float* a, i64 lda, const float* b, i64 ldb,
                float beta, float* c, i64 ldc, const float* bias, Activation act) {
  bool rows = m >= n;
  i64 d = rows ? m : n, parts = (double)m * n * k < 2e5 ? 1 : 2;
  i64 step = std::max<i64>(1, ((d + parts - 1) / parts + 15) / 16 * 16);
  parallel_tiles(ceil_div(d, step), [&](i64 t) {
    i64 lo = t * step, h = std::min(step, d - lo);
    if (rows) {
      call_blas(ta, tb, h, n, k, alpha, ta ? a + lo : a + lo * lda, lda, b, ldb, beta, c + lo * ldc, ldc);
      finish(h, n, c + lo * ldc, ldc, bias, act);
    } else {
      call_blas(ta, tb, m, h, k, alpha, a, lda, tb ? b + lo * ldb : b + lo, ldb, beta, c + lo, ldc);
      finish(m, h, c + lo, ldc, bias ? bias + lo : nullptr, act);
    }
  });
}
}  // namespace

void gemm_one(bool ta, bool tb, i64 m, i64 n, i64 k, float alpha, const float* a, i64 lda, const float* b, i64 ldb,
              float beta, float* c, i64 ldc) {
  if (!call_blas(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc))
    multiply<false>(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, nullptr, ACT_NONE);
}

void gemm(bool ta, bool tb, i64 m, i64 n, i64 k, float alpha, const float* a, i64 lda, const float* b, i64 ldb,
          float beta, float* c, i64 ldc, const float* bias, Activation act) {
  if (PREFER_BLAS && (blas32 || blas64) && m > 0 && n > 0 && k > 0)
    blas_tiles(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, bias, act);
  else
    multiply<true>(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, bias, act);
}

void set_cblas_sgemm(void* address, bool long_ints) {
  blas32 = long_ints ? nullptr : (sgemm32)address;
  blas64 = long_ints ? (sgemm64)address : nullptr;
}

const char* gemm_kernel_name() {
  if (PREFER_BLAS && (blas32 || blas64)) return "openblas";
  return LANES == 16 ? "avx512 14x32" : LANES == 8 ? "avx2 6x16" : "portable";
}

}  // namespace spiral
