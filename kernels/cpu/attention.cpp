// Scaled dot-product attention and its gradient, a block of queries at a time.
//
// Contract: y, lse, dq, dk, dv are overwritten. q, k, v, g, y and the gradients are views with unit
// stride along the head size and any other strides (inputs that are not are copied). Query t stands at
// position t + S - T: with `causal` it sees the keys up to there (the last query sees every key; PyTorch
// aligns the first query with the first key instead), with `window` > 0 only keys above position - window.
// A query that sees nothing, or -inf only, gives y = 0, lse = -inf and gradients 0. An excluded key enters
// the product with weight 0, so inf or NaN in its value still shows, as 0 * inf does.
//
// No (T, S) matrix: a tile holds BLOCK x KEYS scores, which stay in the second-level cache between the
// two products. Forward: online softmax over key blocks (Milakov & Gimelshein 2018; Dao et al. 2022);
// backward: P recomputed from lse, dS = P * (dP - rowsum(g * y)) (Dao 2023, algorithm 2).
#include <atomic>

#include "gemm.h"
#include "native.h"
#include "vmath.h"

namespace spiral {
namespace {
constexpr i64 BLOCK = 128;  // most queries per tile
constexpr i64 KEYS = 512;   // keys per product: 256 KiB of scores
constexpr float INF = std::numeric_limits<float>::infinity();

// (B, H, rows, D) with unit stride along D; strides in floats.
struct Heads {
  PyObject* owned = nullptr;
  float* p = nullptr;
  i64 sb = 0, sh = 0, sr = 0;

  static bool fits(PyObject* o) {
    const npy_intp *st = PyArray_STRIDES(arr(o)), *n = dims(o);
    const npy_intp f = sizeof(float);
    if (size(o) == 0) return true;
    return (n[3] == 1 || st[3] == f) && (n[2] == 1 || (st[2] >= n[3] * f && st[2] % f == 0)) &&
           st[1] % f == 0 && st[0] % f == 0 && (uintptr_t)data<float>(o) % f == 0;
  }
  Heads(PyObject* o, bool output) {
    if (!is_f32(o) || ndim(o) != 4) {
      PyErr_Format(PyExc_TypeError, "attention: expected a float32 array with 4 axes, received %.80s",
                   Py_TYPE(o)->tp_name);
      return;
    }
    if (output && !fits(o)) {
      PyErr_SetString(PyExc_ValueError, "attention: outputs need unit stride along the head size");
      return;
    }
    if (fits(o))
      Py_INCREF(owned = o);
    else
      owned = contiguous_ref(o);
    if (!owned) return;
    const npy_intp *st = PyArray_STRIDES(arr(owned)), *n = dims(owned);
    p = data<float>(owned);
    sb = st[0] / 4, sh = st[1] / 4, sr = std::max<i64>(1, n[2] == 1 ? n[3] : st[2] / 4);
  }
  ~Heads() { Py_XDECREF(owned); }
  Heads(const Heads&) = delete;
  float* at(i64 b, i64 h, i64 row) const { return p + b * sb + h * sh + row * sr; }
  bool is(i64 b, i64 h, i64 rows, i64 d) const {
    return dim(owned, 0) == b && dim(owned, 1) == h && dim(owned, 2) == rows && dim(owned, 3) == d;
  }
};

// Additive mask, broadcast to (B, H, T, S); strides in bytes, 0 along an axis of length 1.
struct Mask {
  const char* p = nullptr;
  i64 s[4] = {0, 0, 0, 0};
  bool ok = true;
  Mask(PyObject* o, const i64* full) {
    if (o == Py_None) return;
    int nd = is_f32(o) ? (int)ndim(o) : 5;
    ok = nd <= 4;
    for (int i = 0; ok && i < nd; i++) {
      int axis = 4 - nd + i;
      ok = dims(o)[i] == 1 || dims(o)[i] == full[axis];
      s[axis] = dims(o)[i] == 1 ? 0 : PyArray_STRIDES(arr(o))[i];
    }
    if (!ok)
      PyErr_SetString(PyExc_ValueError, "attention: expected a float32 mask that broadcasts to (B, H, T, S)");
    p = ok ? data<char>(o) : nullptr;
  }
  void add(float* row, i64 b, i64 h, i64 t, i64 key, i64 n) const {
    const char* m = p + b * s[0] + h * s[1] + t * s[2] + key * s[3];
    if (s[3] == 4) {
      const float* f = (const float*)m;
      SPIRAL_INDEPENDENT
      for (i64 i = 0; i < n; i++) row[i] += f[i];
    } else {
      for (i64 i = 0; i < n; i++) row[i] += *(const float*)(m + i * s[3]);
    }
  }
};

struct Range {
  i64 lo, hi;
};

struct Attention {
  i64 batch, heads, kv_heads, rows, keys, d;
  i64 first, step;  // position of row r: first + r * step
  bool causal;
  i64 window;
  float scale;
  const Mask& mask;

  i64 group() const { return heads / kv_heads; }
  Range seen(i64 r) const {
    i64 at = first + r * step;
    i64 hi = causal ? std::max<i64>(0, std::min(keys, at + 1)) : keys;
    return {window > 0 ? std::min(hi, std::max<i64>(0, at - window + 1)) : 0, hi};
  }
  Range seen_by(i64 r0, i64 r1) const { return {seen(r0).lo, seen(r1 - 1).hi}; }
};

i64 round_lanes(i64 n) { return (n + SPIRAL_LANES - 1) / SPIRAL_LANES * SPIRAL_LANES; }

// Part of a row of scores that is looked at, in whole vectors.
struct Span {
  i64 lo, hi;  // columns seen
  i64 from, to;
  Span(Range seen, i64 key, i64 n) {
    lo = std::min(n, std::max<i64>(0, seen.lo - key)), hi = std::max(lo, std::min(n, seen.hi - key));
    from = lo / SPIRAL_LANES * SPIRAL_LANES, to = lo == hi ? from : round_lanes(hi);
  }
  // -inf for what the first and the last vector have too much. Without a loop: how long it runs would
  // differ from row to row, and cost a mispredicted branch in each.
  void pad(float* row) const {
    if (lo > from || hi < to)
      for (i64 i : {from, to - SPIRAL_LANES}) {
        IntLanes column = IOTA + (int32_t)i;
        Lanes x = Whole{}.load(row + i), none = all<Lanes>(-INF);
        x = column < (int32_t)lo ? none : x;
        Whole{}.store(row + i, column < (int32_t)hi ? x : none);
      }
  }
  // 0 for vectors that are not looked at; rows have room up to a multiple of a vector
  void clear_rest(float* row, i64 n) const {
    for (i64 i = 0; i < from; i += SPIRAL_LANES) Whole{}.store(row + i, Lanes{});
    for (i64 i = to; i < n; i += SPIRAL_LANES) Whole{}.store(row + i, Lanes{});
  }

 private:
#if SPIRAL_LANES == 16
  static constexpr IntLanes IOTA = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif SPIRAL_LANES == 8
  static constexpr IntLanes IOTA = {0, 1, 2, 3, 4, 5, 6, 7};
#else
  static constexpr IntLanes IOTA = {0, 1, 2, 3};
#endif
};

// x = exp(x - m) over whole vectors; returns the sum
float exp_row(float* x, float m, i64 n) {
  Lanes s = {};
  for (i64 i = 0; i < n; i += SPIRAL_LANES) {
    Lanes e = vexp(Whole{}.load(x + i) - m);
    Whole{}.store(x + i, e);
    s += e;
  }
  return fold_sum(s);
}

void scale_row(float* x, float a, i64 n) {
  for (i64 i = 0; i < n; i++) x[i] *= a;
}

// Running maxima and sums of a block's queries
struct Online {
  float m[BLOCK], sum[BLOCK];
};

// One more block of scores: they become weights relative to the new maximum, and what y holds so far
// is scaled down to it.
void online_row(float& top, float& sum, float* s, const Span& span, i64 n, float* y, i64 d, bool started) {
  if (span.lo < span.hi) {
    float* x = s + span.from;
    i64 wide = span.to - span.from;
    span.pad(s);
    float here = row_max(x, wide), m = here > top ? here : top;
    if (started && m != top) {
      float shrink = vexp(top - m);
      scale_row(y, shrink, d);
      sum *= shrink;
    }
    top = m;
    sum += exp_row(x, m == -INF ? 0.f : m, wide);
  }
  span.clear_rest(s, n);
}

void forward_block(const Attention& a, const Heads& q, const Heads& k, const Heads& v, const Heads& y,
                   float* lse, float* s, i64 b, i64 h, i64 r0, i64 r1) {
  i64 hk = h / a.group(), rows = r1 - r0;
  Range all = a.seen_by(r0, r1);
  i64 ld = round_lanes(std::max<i64>(1, std::min(KEYS, all.hi - all.lo)));
  Online o;
  std::fill(o.m, o.m + rows, -INF), std::fill(o.sum, o.sum + rows, 0.f);
  for (i64 key = all.lo; key < all.hi; key += KEYS) {
    i64 n = std::min(KEYS, all.hi - key);
    bool started = key > all.lo;
    gemm_one(false, true, rows, n, a.d, a.scale, q.at(b, h, r0), q.sr, k.at(b, hk, key), k.sr, 0.f, s, ld);
    for (i64 r = 0; r < rows; r++) {
      Span span(a.seen(r0 + r), key, n);
      if (a.mask.p) a.mask.add(s + r * ld + span.lo, b, h, r0 + r, key + span.lo, span.hi - span.lo);
      online_row(o.m[r], o.sum[r], s + r * ld, span, n, y.at(b, h, r0 + r), a.d, started);
    }
    gemm_one(false, false, rows, a.d, n, 1.f, s, ld, v.at(b, hk, key), v.sr, started ? 1.f : 0.f,
             y.at(b, h, r0), y.sr);
  }
  for (i64 r = 0; r < rows; r++) {
    float* row = y.at(b, h, r0 + r);
    if (o.sum[r] == 0.f)
      std::fill(row, row + a.d, 0.f);
    else
      scale_row(row, 1.f / o.sum[r], a.d);
  }
  float* out = lse + (b * a.heads + h) * a.rows + r0;
  // the log of 0 is -inf, and so is the maximum of nothing
  for (i64 r = 0; r < rows; r++) out[r] = o.m[r] + vlog(o.sum[r]);
}

struct Gradient {
  const Heads &g, &q, &k, &v, &y, &dq, &dk, &dv;
  const float* lse;
};

// p: scores -> weights; ds: g v^T -> gradient of the scaled scores
void gradient_row(float* p, float* ds, const Span& span, i64 n, float lse, float delta, float scale) {
  if (span.lo < span.hi && lse != -INF) {
    span.pad(p);
    float *e = p + span.from, *t = ds + span.from;
    for (i64 i = 0; i < span.to - span.from; i += SPIRAL_LANES) {
      Lanes w = vexp(Whole{}.load(e + i) - lse);
      Whole{}.store(e + i, w);
      Whole{}.store(t + i, w * (Whole{}.load(t + i) - delta) * scale);
    }
    span.clear_rest(p, n);
    span.clear_rest(ds, n);
  } else {
    std::fill(p, p + n, 0.f);
    std::fill(ds, ds + n, 0.f);
  }
}

void backward_block(const Attention& a, const Gradient& x, float* p, float* ds, i64 b, i64 h, i64 r0,
                    i64 r1) {
  i64 hk = h / a.group(), rows = r1 - r0;
  Range all = a.seen_by(r0, r1);
  i64 ld = round_lanes(std::max<i64>(1, std::min(KEYS, all.hi - all.lo)));
  float delta[BLOCK];
  const float *q = x.q.at(b, h, r0), *g = x.g.at(b, h, r0);
  float* dq = x.dq.at(b, h, r0);
  for (i64 r = 0; r < rows; r++)
    row_sums<1>(a.d, delta + r, [gr = g + r * x.g.sr, yr = x.y.at(b, h, r0 + r)](auto io, Lanes* sum, i64 i) {
      sum[0] += io.load(gr + i) * io.load(yr + i);
    });
  if (all.lo >= all.hi)
    for (i64 r = 0; r < rows; r++) std::fill(dq + r * x.dq.sr, dq + r * x.dq.sr + a.d, 0.f);
  for (i64 key = all.lo; key < all.hi; key += KEYS) {
    i64 n = std::min(KEYS, all.hi - key);
    const float *k = x.k.at(b, hk, key), *v = x.v.at(b, hk, key);
    gemm_one(false, true, rows, n, a.d, a.scale, q, x.q.sr, k, x.k.sr, 0.f, p, ld);
    gemm_one(false, true, rows, n, a.d, 1.f, g, x.g.sr, v, x.v.sr, 0.f, ds, ld);
    for (i64 r = 0; r < rows; r++) {
      Span span(a.seen(r0 + r), key, n);
      if (a.mask.p) a.mask.add(p + r * ld + span.lo, b, h, r0 + r, key + span.lo, span.hi - span.lo);
      gradient_row(p + r * ld, ds + r * ld, span, n, x.lse[(b * a.heads + h) * a.rows + r0 + r], delta[r],
                   a.scale);
    }
    gemm_one(true, false, n, a.d, rows, 1.f, p, ld, g, x.g.sr, 1.f, x.dv.at(b, hk, key), x.dv.sr);
    gemm_one(true, false, n, a.d, rows, 1.f, ds, ld, q, x.q.sr, 1.f, x.dk.at(b, hk, key), x.dk.sr);
    gemm_one(false, false, rows, a.d, n, 1.f, ds, ld, k, x.k.sr, key > all.lo ? 1.f : 0.f, dq, x.dq.sr);
  }
}

bool same_shapes(bool ok) {
  if (!ok)
    PyErr_SetString(
        PyExc_ValueError,
        "attention: expected q, y (B, H, T, D), k, v (B, Hk, S, D) with Hk dividing H, lse (B, H, T)");
  return ok;
}
bool lse_fits(PyObject* o, i64 n) { return is_f32(o) && contiguous(o) && size(o) == n; }

// Short sequences: small blocks, which cut away more of what causality excludes. Long ones: large blocks,
// as every product packs its keys anew.
i64 block_rows(i64 rows) { return rows >= 512 ? BLOCK : rows >= 256 ? 64 : 32; }

// bytes of a block of scores
size_t block_bytes(const Attention& a) {
  return (size_t)(std::min(block_rows(a.rows), a.rows) *
                  round_lanes(std::max<i64>(1, std::min(KEYS, a.keys)))) *
         sizeof(float);
}

// q, k, v, mask, causal, window, scale, y, lse
PyObject* attention(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("attention", count, 9, 9)) return nullptr;
  Heads q(args[0], false), k(args[1], false), v(args[2], false), y(args[7], true);
  if (!q.owned || !k.owned || !v.owned || !y.owned) return nullptr;
  i64 b = dim(args[0], 0), h = dim(args[0], 1), t = dim(args[0], 2), d = dim(args[0], 3),
      hk = dim(args[1], 1);
  i64 s = dim(args[1], 2), full[4] = {b, h, t, s};
  if (!same_shapes(hk > 0 && h % hk == 0 && k.is(b, hk, s, d) && v.is(b, hk, s, d) && y.is(b, h, t, d) &&
                   lse_fits(args[8], b * h * t)))
    return nullptr;
  Mask mask(args[3], full);
  Attention a{b,   h, hk, t, s, d, s - t, 1, as_bool(args[4]), as_int(args[5]), (float)as_double(args[6]),
              mask};
  if (!mask.ok || PyErr_Occurred()) return nullptr;
  if (t == 1 && h > hk && q.sh >= d && y.sh >= d) {
    // One new token: the queries of a group share their keys, so they are the rows of one product.
    i64 n = h / hk;
    a.heads = hk, a.rows = n, a.first = s - 1, a.step = 0;
    for (Heads* x : {&q, &y}) x->sr = x->sh, x->sh *= n;
    mask.s[2] = mask.s[1], mask.s[1] *= n;
  }
  float* lse = data<float>(args[8]);
  i64 block = block_rows(a.rows), blocks = (a.rows + block - 1) / block;
  std::atomic<bool> enough{true};
  {
    GilRelease nogil(4.0 * (double)size(args[0]) * (double)s);
    parallel_tiles(b * a.heads * blocks, [&](i64 tile) {
      // a head's long rows first: the short ones fill the gaps at the end
      i64 bh = tile / blocks, r0 = (blocks - 1 - tile % blocks) * block;
      Scratch scores(block_bytes(a));
      if (scores.p)
        forward_block(a, q, k, v, y, lse, scores.as<float>(), bh / a.heads, bh % a.heads, r0,
                      std::min(a.rows, r0 + block));
      else
        enough = false;
    });
  }
  if (!enough) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

// g, q, k, v, y, lse, mask, causal, window, scale, dq, dk, dv, dmask = None
PyObject* attention_grad(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("attention_grad", count, 13, 14)) return nullptr;
  if (count == 14 && args[13] != Py_None) {
    PyErr_SetString(PyExc_NotImplementedError,
                    "attention_grad: the mask's gradient is not computed; pass None");
    return nullptr;
  }
  Heads g(args[0], false), q(args[1], false), k(args[2], false), v(args[3], false), y(args[4], false);
  Heads dq(args[10], true), dk(args[11], true), dv(args[12], true);
  for (const Heads* x : {&g, &q, &k, &v, &y, &dq, &dk, &dv})
    if (!x->owned) return nullptr;
  Contiguous lse(args[5]);
  if (!lse) return nullptr;
  i64 b = dim(args[1], 0), h = dim(args[1], 1), t = dim(args[1], 2), d = dim(args[1], 3),
      hk = dim(args[2], 1);
  i64 s = dim(args[2], 2), full[4] = {b, h, t, s};
  bool fit = hk > 0 && h % hk == 0 && lse_fits(lse.o, b * h * t);
  for (const Heads* x : {&g, &y, &dq}) fit = fit && x->is(b, h, t, d);
  for (const Heads* x : {&k, &v, &dk, &dv}) fit = fit && x->is(b, hk, s, d);
  if (!same_shapes(fit)) return nullptr;
  Mask mask(args[6], full);
  Attention a{b,   h, hk, t, s, d, s - t, 1, as_bool(args[7]), as_int(args[8]), (float)as_double(args[9]),
              mask};
  if (!mask.ok || PyErr_Occurred()) return nullptr;
  Gradient x{g, q, k, v, y, dq, dk, dv, lse.as<float>()};
  std::atomic<bool> enough{true};
  {
    GilRelease nogil(10.0 * (double)size(args[1]) * (double)s);
    i64 block = block_rows(t);
    // a tile owns a key head: nobody else adds to its dk and dv
    parallel_tiles(b * hk, [&](i64 tile) {
      i64 bi = tile / hk, ki = tile % hk;
      for (const Heads* out : {&dk, &dv})
        for (i64 r = 0; r < s; r++) std::fill(out->at(bi, ki, r), out->at(bi, ki, r) + d, 0.f);
      Scratch p(block_bytes(a)), ds(block_bytes(a));
      if (!p.p || !ds.p) {
        enough = false;
        return;
      }
      for (i64 hi = ki * a.group(); hi < (ki + 1) * a.group(); hi++)
        for (i64 r0 = 0; r0 < t; r0 += block)
          backward_block(a, x, p.as<float>(), ds.as<float>(), bi, hi, r0, std::min(t, r0 + block));
    });
  }
  if (!enough) return PyErr_NoMemory();
  Py_RETURN_NONE;
}
}  // namespace

PyMethodDef attention_methods[] = {
    {"attention", (PyCFunction)(void*)attention, METH_FASTCALL,
     "attention(q (B, H, T, D), k (B, Hk, S, D), v, mask|None, causal, window, scale, y, lse (B, H, T))"},
    {"attention_grad", (PyCFunction)(void*)attention_grad, METH_FASTCALL,
     "attention_grad(g, q, k, v, y, lse, mask|None, causal, window, scale, dq, dk, dv, dmask = None)"},
    {nullptr, nullptr, 0, nullptr}};
}  // namespace spiral
