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
template <Along A, int V, class Last, int... I>
micro_fn pick(int rows, std::integer_sequence<int, I...>) {
  static const micro_fn table[] = {micro<I + 1, V, A, Last>...};
  return table[rows - 1];
}

template <Along A>
micro_fn pick_along(int columns, int rows) {
  std::make_integer_sequence<int, ROWS_MAX> all;
  if constexpr (WHOLE_KERNELS)
    if (columns == PANEL) return pick<A, 2, AllLanes>(rows, all);
  return columns > LANES ? pick<A, 2, Lanes>(rows, all) : pick<A, 1, Lanes>(rows, all);
}
}  // namespace

micro_fn gemm_detail::micro_for(Along along, int columns, int rows) {
  switch (along) {
    case Along::ROWS: return pick_along<Along::ROWS>(columns, rows);
    case Along::STEPS: return pick_along<Along::STEPS>(columns, rows);
    default: return pick_along<Along::STRIP>(columns, rows);
  }
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
constexpr i64 K_BLOCK = 512;  // steps of k per pass: a panel of them is 64 KiB with AVX-512, 32 KiB with AVX2
// a B stored by steps is copied when more rows use it and it has more elements than this
constexpr i64 IN_PLACE_ROWS = LANES == 16 ? 140 : 24, IN_PLACE_SIZE = LANES == 16 ? 1 << 17 : 1 << 11;
// An A stored by steps is copied into strips when more panels use it. With 14 rows a step fills most of a
// cache line and reading in place is as fast; with 6 it fills a third of one, and rows that lie a power of two
// apart evict each other (58 GF/s become 88, measured 2026-11 on an AVX2 core with a peak of 95).
constexpr i64 STRIP_PANELS = LANES == 16 ? 1 << 30 : 2;
constexpr bool PANEL_STAYS = LANES != 16;  // the inner loop goes over rows, and a panel of B stays in cache
constexpr i64 DOT_ROWS = 8;          // up to here rows against a transposed B are dot products
constexpr double TILE_FLOPS = 1e6;   // about 6 us; smaller tiles lose to the ticket counter

// Estimated core cycles with AVX-512 (constants measured 2026-11); only comparisons matter, and they
// depend on the shape alone.
double panel_cost(const Product& q) {
  i64 tail = q.n % PANEL;
  double columns = (double)(q.n - tail) + (tail == 0 ? 0 : tail <= LANES ? 0.6 * PANEL : PANEL);
  double rows = (double)std::max<i64>(q.m, 5);  // fewer do not hide the latency of the additions
  double compute = rows * columns * (double)q.k / (2 * LANES);
  double pack = q.b.column == 1 ? (q.m > IN_PLACE_ROWS ? 0.3 : 0.0) : 0.5;
  double write = q.f.across ? 0.8 * (double)q.m * (double)q.n : 0.0;
  double strips = q.a.column != 1 && STRIP_PANELS < 16 ? 0.4 * (double)q.m * (double)q.k : 0.0;
  return compute + pack * (double)q.n * (double)q.k + strips + write;
}
double dot_cost(const Product& q) {
  if (q.m > DOT_ROWS || (q.b.row != 1 && q.k != 1)) return 1e300;
  return (double)std::max<i64>(q.m, 2) * (double)q.n * ((double)q.k / (2 * LANES) * 1.1 + 4.0);
}

// ---------------------------------------------------------------- grid
// Micro blocks of rows and panels of columns, and how many tiles they form in each direction.
struct Grid {
  i64 blocks, panels, tile_rows, tile_columns, k_block;
};

Grid grid_for(const Product& q) {
  double work = 2.0 * (double)q.m * (double)q.n * (double)q.k;
  i64 want = 1;
  while (want < 16 && work > 2 * TILE_FLOPS * (double)want) want *= 2;
  const i64 blocks = ceil_div(q.m, ROWS_MAX), panels = ceil_div(q.n, PANEL);
  Grid best{};
  double lowest = 1e300;
  for (i64 r = 1; r <= want && r <= blocks; r++) {
    i64 c = std::min(panels, ceil_div(want, r));
    i64 per_tile = ceil_div(blocks, r);  // every tile gets as many blocks, of evenly divided rows
    double rows = (double)q.m / (double)r, columns = (double)(ceil_div(panels, c) * PANEL);
    double traffic = PANEL / rows + PANEL / columns;
    double uneven = columns * (double)c / (double)(panels * PANEL) - 1.0 + std::abs((double)(r * c - want)) / 64.0;
    double thin = std::max(0.0, 0.5 * ROWS_MAX - rows / (double)per_tile) / ROWS_MAX;
    double score = 0.2 * traffic + uneven + thin;
    if (score < lowest) lowest = score, best = Grid{r * per_tile, panels, r, c, K_BLOCK};
  }
  // a few rows of C stay in cache while B streams past, some whole rows of it at a time
  if (q.m <= DOT_ROWS && q.b.column == 1) best.k_block = 16;
  return best;
}

// ---------------------------------------------------------------- packing
// Panels of B, PANEL columns wide. A packed panel holds the values of one step of k side by side, then
// those of the next.
struct Panels {
  View b;
  i64 n, k, count, first;  // panels before `first` are read in place
  float* packed;
  Panels(const Product& q, i64 panels) : b(q.b), n(q.n), k(q.k), count(panels), first(panels), packed(nullptr) {
    if (b.column != 1 || (q.m > IN_PLACE_ROWS && n * k > IN_PLACE_SIZE))
      first = 0;
    else if (LANES < 8 && n % LANES)  // without masks a narrow panel has to be padded
      first = count - 1;
  }
  int width(i64 j) const { return (int)std::min<i64>(PANEL, n - j * PANEL); }
  bool in_place(i64 j) const { return j < first; }
  i64 step(i64 j) const { return in_place(j) ? b.row : width(j) <= LANES ? LANES : PANEL; }
  float* at(i64 j) const { return packed + (j - first) * PANEL * k; }
  const float* from(i64 j, i64 p) const { return (in_place(j) ? b.p + j * PANEL : at(j)) + p * step(j); }
  size_t floats() const { return (size_t)((count - first) * PANEL * k); }
};

// Steps [p0, p1) of a B stored by steps: eight at a time, so that both the rows read and the stretches
// written are long.
void pack_steps(const Panels& t, i64 p0, i64 p1) {
  for (i64 p = p0; p < p1; p += 8)
    for (i64 j = t.first; j < t.count; j++) {
      const i64 step = t.step(j), width = t.width(j), end = std::min(p + 8, p1);
      for (i64 v = 0; v < step; v += LANES) {
        const float* src = t.b.p + j * PANEL + v;
        float* dst = t.at(j) + v;
        const Lanes part(std::max<i64>(0, width - v));
        if (width - v >= LANES)
          for (i64 i = p; i < end; i++) {
            __builtin_prefetch(src + (i + 8) * t.b.row);  // rows are too short for the hardware to see them coming
            store(dst + i * step, load(src + i * t.b.row));
          }
        else
          for (i64 i = p; i < end; i++) store(dst + i * step, part.load(src + i * t.b.row));
      }
    }
}

// Steps [p0, p1) of one panel of a B stored by columns.
void pack_columns(const Panels& t, i64 j, i64 p0, i64 p1) {
  const i64 step = t.step(j), width = t.width(j);
  float* dst = t.at(j);
  for (i64 p = p0; p < p1; p += LANES)
    for (i64 v = 0; v < step; v += LANES)
      transpose(t.b.p + (j * PANEL + v) * t.b.column + p, t.b.column,
                (int)std::max<i64>(0, std::min<i64>(LANES, width - v)), (int)std::min<i64>(LANES, p1 - p),
                [&](int c, vec x) { store(dst + (p + c) * step + v, x); });
}

// Strips of an A stored by steps: the rows of one block, whose values of one step lie side by side, LANES apart.
struct Strips {
  View a;
  i64 m, k, count;
  float* packed;
  Strips(const Product& q, const Grid& g) : a(q.a), m(q.m), k(q.k), count(0), packed(nullptr) {
    if (a.column != 1 && g.panels > STRIP_PANELS) count = g.blocks;
  }
  i64 row(i64 r) const { return m * r / count; }
  float* at(i64 r, i64 p) const { return packed + (r * k + p) * LANES; }
  size_t floats() const { return (size_t)(count * k * LANES); }
};

void pack_strips(const Strips& t, i64 p0, i64 p1) {
  for (i64 p = p0; p < p1; p += 8)
    for (i64 r = 0; r < t.count; r++) {
      const i64 end = std::min(p + 8, p1), i = t.row(r);
      float* to = t.at(r, p);
      const float* from = t.a.p + i;
      if (i + LANES <= t.m)
        for (i64 s = p; s < end; s++, to += LANES) {
          __builtin_prefetch(from + (s + 8) * t.a.column);
          store(to, load(from + s * t.a.column));
        }
      else {
        const Lanes part(t.m - i);
        for (i64 s = p; s < end; s++, to += LANES) store(to, part.load(from + s * t.a.column));
      }
    }
}

template <bool PARALLEL, class F>
void tiles(i64 n, F f) {
  if (PARALLEL)
    parallel_tiles(n, f);
  else
    for (i64 t = 0; t < n; t++) f(t);
}

template <bool PARALLEL>
void pack(const Panels& t, const Strips& u) {
  const size_t floats = t.floats() + u.floats();
  if (floats == 0) return;
  const bool by_steps = t.b.column == 1;
  auto chunk_for = [](i64 width) { return std::max<i64>(8, 32768 / width / 8 * 8); };
  const i64 chunk = by_steps ? chunk_for(t.n) : 256, chunks = ceil_div(t.k, chunk);
  const i64 strip_chunk = chunk_for(u.m);
  const i64 n = t.floats() == 0 ? 0 : by_steps ? chunks : chunks * (t.count - t.first);
  const i64 extra = u.count == 0 ? 0 : ceil_div(u.k, strip_chunk);
  auto one = [&](i64 i) {
    if (i >= n) return pack_strips(u, (i - n) * strip_chunk, std::min(u.k, (i - n + 1) * strip_chunk));
    i64 p0 = i % chunks * chunk, p1 = std::min(t.k, p0 + chunk);
    by_steps ? pack_steps(t, p0, p1) : pack_columns(t, t.first + i / chunks, p0, p1);
  };
  floats > 32768 ? tiles<PARALLEL>(n + extra, one) : tiles<false>(n + extra, one);
}

// ---------------------------------------------------------------- tiles
void run_tile(const Product& q, const Grid& g, const Panels& panels, const Strips& strips, i64 tile) {
  i64 tr = tile % g.tile_rows, tc = tile / g.tile_rows;
  i64 r0 = tr * g.blocks / g.tile_rows, r1 = (tr + 1) * g.blocks / g.tile_rows;
  i64 j0 = tc * g.panels / g.tile_columns, j1 = (tc + 1) * g.panels / g.tile_columns;
  i64 passes = std::max<i64>(1, ceil_div(q.k, g.k_block));
  const Along along = q.a.column == 1 ? Along::ROWS : strips.count ? Along::STRIP : Along::STEPS;
  for (i64 pass = 0; pass < passes; pass++) {
    const i64 p0 = q.k * pass / passes;
    Finish f = q.f;
    if (pass > 0) f.beta = 1.f;
    if (pass + 1 < passes) f.bias = nullptr, f.relu = false;
    Block b;
    b.k = q.k * (pass + 1) / passes - p0;
    b.a_stride = along == Along::ROWS ? q.a.row : q.a.column;
    b.f = &f;
    auto one = [&](i64 r, i64 j) {
      const i64 i = q.m * r / g.blocks, rows = q.m * (r + 1) / g.blocks - i;
      if (rows == 0) return;
      b.a = strips.count ? strips.at(r, p0) : q.a.p + i * q.a.row + p0 * q.a.column;
      b.columns = panels.width(j);
      b.b_stride = panels.step(j);
      b.b = panels.from(j, p0);
      b.c = c_at(q, i, j * PANEL);
      b.bias = f.bias ? f.bias + (f.across ? i : j * PANEL) : nullptr;
      micro_for(along, b.columns, (int)rows)(b);
    };
    if (PANEL_STAYS)
      for (i64 j = j0; j < j1; j++)
        for (i64 r = r0; r < r1; r++) one(r, j);
    else
      for (i64 r = r0; r < r1; r++)
        for (i64 j = j0; j < j1; j++) one(r, j);
  }
}

template <bool PARALLEL>
void by_panels(const Product& q) {
  const Grid g = grid_for(q);
  Panels panels(q, g.panels);
  constexpr size_t NEAR = 8192;  // small products, mostly from inside tiles of other kernels, pack into the stack
  alignas(64) float near[NEAR];
  Strips strips(q, g);
  const size_t n = panels.floats() + strips.floats();
  panels.packed = n <= NEAR ? near : (float*)pool_alloc(n * sizeof(float));
  strips.packed = panels.packed + panels.floats();
  pack<PARALLEL>(panels, strips);
  tiles<PARALLEL>(g.tile_rows * g.tile_columns, [&](i64 t) { run_tile(q, g, panels, strips, t); });
  if (panels.packed != near) pool_free(panels.packed, n * sizeof(float));
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
