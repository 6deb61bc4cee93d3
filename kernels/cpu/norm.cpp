// Layer norm (Ba et al. 2016) and root-mean-square norm (Zhang & Sennrich 2019, eq. 4) over the last axis.
//
// forward   y, mean, rstd overwritten; 8 bytes moved per element, three sweeps over a row in L1.
// backward  dx, dw, db overwritten, each optional; 12 bytes per element. With h = (x - mean) * rstd and
//           u = g * w:  dx = rstd * (u - mean(u) - h * mean(u * h)), dw = sum g * h, db = sum g;
//           the root-mean-square norm is the same without mean and db.
//
// The mean is found twice: the second sweep sums x - mean too, and that rest is taken off. Where the
// mean is 1e4 standard deviations one float holds it to 1e-3 of them only. The backward does the same
// with the stored mean. dw and db: partial sums per tile of rows, then added in tile order.
#include "native.h"
#include "vmath.h"

namespace spiral {
namespace {
struct Norm {
  i64 rows, columns;
  const float *x, *w, *b;
  float eps;
  float *y, *mean, *rstd;
};

// Scratch row of one value, which stands in for a weight or bias that is not given
struct Filled {
  Scratch mem;
  Filled(i64 n, float v) : mem((size_t)n * 4) { std::fill_n(mem.as<float>(), n, v); }
};

template <bool centered>
void norm_row(const Norm& a, i64 row) {
  const i64 n = a.columns;
  const float *x = a.x + row * n, *w = a.w, *b = a.b;
  float* y = a.y + row * n;
  float m = 0.f, rest = 0.f, s[2];
  if (centered) {
    row_sums<1>(n, s, [&](auto io, Lanes* t, i64 i) { t[0] += io.load(x + i); });
    m = s[0] / (float)n;
  }
  row_sums<2>(n, s, [&](auto io, Lanes* t, i64 i) {
    Lanes d = io.load(x + i, m) - m;
    if (centered) t[0] += d;
    t[1] = fmadd(d, d, t[1]);
  });
  if (centered) rest = s[0] / (float)n;
  const float r = 1.f / std::sqrt(s[1] / (float)n - rest * rest + a.eps);
  const float shift = opaque(-rest * r);  // else it is (x - (m + rest)) * r again
  for_lanes(0, n, [&](auto io, i64 i) {
    if (centered)
      io.store(y + i, fmadd((io.load(x + i) - m) * r + shift, io.load(w + i), io.load(b + i)));
    else
      io.store(y + i, (io.load(x + i) * r) * io.load(w + i));
  });
  if (centered) a.mean[row] = m + rest;
  a.rstd[row] = r;
}

struct NormGrad {
  i64 columns;
  const float *g, *x, *w, *mean, *rstd;
};

// gradient of `R` rows from `row` on: dx written, dw and db accumulated
template <bool centered, int R>
void norm_grad_rows(const NormGrad& a, i64 row, float* dx, float* dw, float* db) {
  const i64 n = a.columns;
  const float *g = a.g + row * n, *x = a.x + row * n, *w = a.w;
  float m[R], r[R], rest[R], slope[R], level[R];
  for (int k = 0; k < R; k++) {
    const float *gk = g + k * n, *xk = x + k * n;
    const float mk = centered ? a.mean[row + k] : 0.f, rk = a.rstd[row + k];
    float s[3];
    row_sums<3>(n, s, [&](auto io, Lanes* t, i64 i) {
      Lanes d = io.load(xk + i, mk) - mk, u = io.load(gk + i) * io.load(w + i);
      t[1] = fmadd(u, d, t[1]);
      if (centered) {
        t[0] += u;
        t[2] += d;
      }
    });
    const float inverse = 1.f / (float)n, su = s[0] * inverse;
    m[k] = mk;
    r[k] = rk;
    rest[k] = opaque(s[2] * inverse * rk);
    const float suh = s[1] * inverse * rk - rest[k] * su;
    slope[k] = -rk * rk * suh;  // dx = r u + slope (x - m) + level
    level[k] = opaque(rk * (suh * rest[k] - su));
  }
  for_lanes(0, n, [&](auto io, i64 i) {
    Lanes wi = io.load(w + i), dwi = io.load(dw + i), dbi = io.load(db + i);
    for (int k = 0; k < R; k++) {
      Lanes gi = io.load(g + k * n + i), d = io.load(x + k * n + i) - m[k];
      Lanes rest_dx = fmadd(d, all<Lanes>(slope[k]), all<Lanes>(level[k]));
      io.store(dx + k * n + i, fmadd(gi * wi, all<Lanes>(r[k]), rest_dx));
      dwi = fmadd(gi, d * r[k] - rest[k], dwi);
      if (centered) dbi += gi;
    }
    io.store(dw + i, dwi);
    if (centered) io.store(db + i, dbi);
  });
}

// Tiles of rows: about GRAIN elements, but at least 16 rows and at most 64 tiles, which bounds what the
// partial sums cost.
template <bool centered>
bool norm_grad_all(const NormGrad& a, i64 rows, float* dx, float* dw, float* db) {
  const i64 n = a.columns, per_tile = std::max({(row_grain(n) + 3) / 4 * 4, (i64)16, (rows + 63) / 64});
  const i64 tiles = (rows + per_tile - 1) / per_tile;
  // per tile: dw, db, and four rows for a dx that nobody wants
  Scratch mem((size_t)(tiles * n * 6) * 4 + 4);
  if (!mem.p) return false;
  float* partial = mem.as<float>();
  parallel_tiles(tiles, [&](i64 t) {
    float *pw = partial + t * 2 * n, *pb = pw + n, *unwanted = partial + (tiles * 2 + t * 4) * n;
    std::fill_n(pw, 2 * n, 0.f);
    i64 i = t * per_tile, end = std::min(rows, i + per_tile);
    for (; i + 4 <= end; i += 4) norm_grad_rows<centered, 4>(a, i, dx ? dx + i * n : unwanted, pw, pb);
    for (; i < end; i++) norm_grad_rows<centered, 1>(a, i, dx ? dx + i * n : unwanted, pw, pb);
  });
  parallel_range(n, 1024, [&](i64 lo, i64 hi) {
    auto total = [&](float* out, i64 offset) {
      if (!out) return;
      std::fill(out + lo, out + hi, 0.f);
      for (i64 t = 0; t < tiles; t++) {
        const float* p = partial + t * 2 * n + offset;
        for (i64 i = lo; i < hi; i++) out[i] += p[i];
      }
    };
    total(dw, 0);
    total(db, n);
  });
  return true;
}

// layer_norm: args = x, w, b, eps, y, mean, rstd; rms_norm: x, w, eps, y, rstd
template <bool centered>
PyObject* norm(PyObject* const* args) {
  PyObject *x_ = args[0], *w_ = args[1], *b_ = centered ? args[2] : Py_None;
  PyObject* const* rest = args + (centered ? 3 : 2);
  Contiguous x(x_), w(w_), b(b_);
  float eps = (float)as_double(rest[0]);
  if (!x || !w || !b || PyErr_Occurred()) return nullptr;
  i64 n = dim(x_, -1);
  Filled one(w_ == Py_None ? n : 0, 1.f), zero(b_ == Py_None ? n : 0, 0.f);
  if (!one.mem.p || !zero.mem.p) return PyErr_NoMemory();
  Norm a{size(rest[centered ? 3 : 2]), n, x.as<float>(), w_ == Py_None ? one.mem.as<float>() : w.as<float>(),
         b_ == Py_None ? zero.mem.as<float>() : b.as<float>(), eps, data<float>(rest[1]),
         centered ? data<float>(rest[2]) : nullptr, data<float>(rest[centered ? 3 : 2])};
  GilRelease nogil(8.0 * (double)a.rows * (double)n);
  parallel_range(a.rows, row_grain(n), [&](i64 lo, i64 hi) {
    for (i64 i = lo; i < hi; i++) norm_row<centered>(a, i);
  });
  return Py_None;
}

// layer_norm_grad: args = g, x, w, mean, rstd, dx, dw, db; rms_norm_grad: g, x, w, rstd, dx, dw
template <bool centered>
PyObject* norm_grad(PyObject* const* args) {
  PyObject* const* rest = args + (centered ? 4 : 3);  // rstd, dx, dw, db
  Contiguous g(args[0]), x(args[1]), w(args[2]), mean(centered ? args[3] : Py_None), rstd(rest[0]);
  if (!g || !x || !w || !mean || !rstd) return nullptr;
  i64 n = dim(args[1], -1), rows = size(rest[0]);
  Filled one(args[2] == Py_None ? n : 0, 1.f);
  if (!one.mem.p) return PyErr_NoMemory();
  NormGrad a{n, g.as<float>(), x.as<float>(), args[2] == Py_None ? one.mem.as<float>() : w.as<float>(),
             mean.as<float>(), rstd.as<float>()};
  bool enough;
  {
    GilRelease nogil(12.0 * (double)rows * (double)n);
    enough = norm_grad_all<centered>(a, rows, data<float>(rest[1]), data<float>(rest[2]),
                                     centered ? data<float>(rest[3]) : nullptr);
  }
  return enough ? Py_None : PyErr_NoMemory();
}

PyObject* none(PyObject* r) {
  Py_XINCREF(r);
  return r;
}
PyObject* layer_norm(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return arity("layer_norm", n, 7, 7) ? none(norm<true>(args)) : nullptr;
}
PyObject* rms_norm(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return arity("rms_norm", n, 5, 5) ? none(norm<false>(args)) : nullptr;
}
PyObject* layer_norm_grad(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return arity("layer_norm_grad", n, 8, 8) ? none(norm_grad<true>(args)) : nullptr;
}
PyObject* rms_norm_grad(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return arity("rms_norm_grad", n, 6, 6) ? none(norm_grad<false>(args)) : nullptr;
}
}  // namespace

PyMethodDef norm_methods[] = {
    {"layer_norm", (PyCFunction)(void*)layer_norm, METH_FASTCALL,
     "layer_norm(x (..., C), w (C,)|None, b (C,)|None, eps, y, mean (...), rstd (...))"},
    {"layer_norm_grad", (PyCFunction)(void*)layer_norm_grad, METH_FASTCALL,
     "layer_norm_grad(g, x, w|None, mean, rstd, dx|None, dw|None, db|None)"},
    {"rms_norm", (PyCFunction)(void*)rms_norm, METH_FASTCALL,
     "rms_norm(x (..., C), w (C,)|None, eps, y, rstd (...))"},
    {"rms_norm_grad", (PyCFunction)(void*)rms_norm_grad, METH_FASTCALL,
     "rms_norm_grad(g, x, w|None, rstd, dx|None, dw|None)"},
    {nullptr, nullptr, 0, nullptr}};
}  // namespace spiral
