// Optimizer steps, each over all parameters in one call; gradient norm, scaling, finiteness, averages.
//
// Lists hold float32 arrays, entry i of each belonging to parameter i. Parameters and states are updated
// in place and must be C-contiguous; gradients are only read, have any strides, and where one is None the
// parameter is left alone. Attributes are Python numbers; what follows from them is computed in
// double and rounded once. Bytes moved per parameter: AdamW 28 (reads 4 arrays, writes 3), Lion 20, SGD 12,
// with momentum 20, average 12, scaling 8, norm 4, Adafactor of a matrix 16.
//
// The elements of all parameters, one after the other, are cut into tiles of GRAIN, so a thousand small
// biases cost what one matrix of their size does. Tiles depend on the shapes alone, and sums are added tile
// by tile: the same bits for any number of threads.
#include <atomic>

#include "optim_lists.h"

namespace spiral {
namespace {
using namespace optim;

// ---------------------------------------------------------------- AdamW
struct AdamScalars {
  float decay, l2, w1, beta2, w2, root, eps, step;
};

template <bool L2>
void adam_range(const AdamScalars& s, float* p, const float* g, float* m, float* v, i64 n) {
  SPIRAL_INDEPENDENT
  for (i64 i = 0; i < n; i++) {
    float pi = p[i] * s.decay, gi = g[i];
    if (L2) gi += s.l2 * p[i];
    float mi = m[i] + s.w1 * (gi - m[i]);
    float vi = v[i] * s.beta2 + s.w2 * gi * gi;
    m[i] = mi;
    v[i] = vi;
    p[i] = pi - s.step * mi / (std::sqrt(vi) * s.root + s.eps);
  }
}

// Kingma & Ba 2015; decoupled: Loshchilov & Hutter 2019. Order of operations as in PyTorch's fused kernels,
// with one product by 1 / sqrt(1 - beta2^t) where they divide.
PyObject* adamw(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (!arity("adamw", nargs, 11, 11)) return nullptr;
  double lr = as_double(args[4]), beta1 = as_double(args[5]), beta2 = as_double(args[6]),
         eps = as_double(args[7]);
  double weight_decay = as_double(args[8]);
  i64 step = as_int(args[9]);
  bool decoupled = as_bool(args[10]);
  if (PyErr_Occurred()) return nullptr;
  if (step < 1) {
    PyErr_Format(PyExc_ValueError, "adamw: step counts from 1, received %lld", (long long)step);
    return nullptr;
  }
  Tensors t;
  if (!t.load(
          "adamw",
          {{"params", args[0], true}, {"grads", args[1], false}, {"m", args[2], true}, {"v", args[3], true}}))
    return nullptr;
  AdamScalars s;
  s.decay = (float)(decoupled ? 1.0 - lr * weight_decay : 1.0);
  s.l2 = (float)(decoupled ? 0.0 : weight_decay);
  s.w1 = (float)(1.0 - beta1);
  s.beta2 = (float)beta2;
  s.w2 = (float)(1.0 - beta2);
  s.root = (float)(1.0 / std::sqrt(1.0 - std::pow(beta2, (double)step)));
  s.eps = (float)eps;
  s.step = (float)(lr / (1.0 - std::pow(beta1, (double)step)));
  const bool l2 = s.l2 != 0.f;
  {
    GilRelease gil(28.0 * t.total());
    t.for_tiles([&](i64, size_t i, i64 lo, i64 hi) {
      (l2 ? adam_range<true> : adam_range<false>)(s, t.p[0][i] + lo, t.p[1][i] + lo, t.p[2][i] + lo,
                                                  t.p[3][i] + lo, hi - lo);
    });
  }
  Py_RETURN_NONE;
}

// ---------------------------------------------------------------- SGD
struct SgdScalars {
  float lr, momentum, undamped, weight_decay;
};

template <bool FIRST, bool NESTEROV>
void momentum_range(const SgdScalars& s, float* p, const float* g, float* buffer, i64 n) {
  SPIRAL_INDEPENDENT
  for (i64 i = 0; i < n; i++) {
    float gi = g[i] + s.weight_decay * p[i];
    float b = FIRST ? gi : s.momentum * buffer[i] + s.undamped * gi;
    buffer[i] = b;
    p[i] -= s.lr * (NESTEROV ? gi + s.momentum * b : b);
  }
}

// Sutskever et al. 2013 in PyTorch's form: the first step sets the buffer to the gradient, undamped
PyObject* sgd(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (!arity("sgd", nargs, 9, 9)) return nullptr;
  SgdScalars s;
  s.lr = (float)as_double(args[3]);
  s.momentum = (float)as_double(args[4]);
  s.undamped = (float)(1.0 - as_double(args[5]));
  s.weight_decay = (float)as_double(args[6]);
  bool nesterov = as_bool(args[7]), first = as_bool(args[8]);
  if (PyErr_Occurred()) return nullptr;
  Tensors t;
  const bool buffers = args[2] != Py_None;
  if (buffers ? !t.load("sgd", {{"params", args[0], true},
                                {"grads", args[1], false},
                                {"momentum_buffers", args[2], true}})
              : !t.load("sgd", {{"params", args[0], true}, {"grads", args[1], false}}))
    return nullptr;
  auto range = first ? (nesterov ? momentum_range<true, true> : momentum_range<true, false>)
                     : (nesterov ? momentum_range<false, true> : momentum_range<false, false>);
  {
    GilRelease gil(20.0 * t.total());
    t.for_tiles([&](i64, size_t i, i64 lo, i64 hi) {
      float* p = t.p[0][i] + lo;
      const float* g = t.p[1][i] + lo;
      if (buffers) {
        range(s, p, g, t.p[2][i] + lo, hi - lo);
        return;
      }
      SPIRAL_INDEPENDENT
      for (i64 j = 0; j < hi - lo; j++) p[j] -= s.lr * (g[j] + s.weight_decay * p[j]);
    });
  }
  Py_RETURN_NONE;
}

// ---------------------------------------------------------------- Lion
// Chen et al. 2023, algorithm 2; the sign of 0 is 0, and of NaN is NaN
PyObject* lion(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (!arity("lion", nargs, 7, 7)) return nullptr;
  double rate = as_double(args[3]), beta1 = as_double(args[4]), beta2 = as_double(args[5]),
         wd = as_double(args[6]);
  if (PyErr_Occurred()) return nullptr;
  Tensors t;
  if (!t.load("lion", {{"params", args[0], true}, {"grads", args[1], false}, {"m", args[2], true}}))
    return nullptr;
  const float lr = (float)rate, decay = (float)(1.0 - rate * wd);
  const float b1 = (float)beta1, w1 = (float)(1.0 - beta1), b2 = (float)beta2, w2 = (float)(1.0 - beta2);
  {
    GilRelease gil(20.0 * t.total());
    t.for_tiles([&](i64, size_t i, i64 lo, i64 hi) {
      float *p = t.p[0][i] + lo, *m = t.p[2][i] + lo;
      const float* g = t.p[1][i] + lo;
      SPIRAL_INDEPENDENT
      for (i64 j = 0; j < hi - lo; j++) {
        float u = b1 * m[j] + w1 * g[j];
        float sign = u > 0.f ? 1.f : (u < 0.f ? -1.f : u);
        p[j] = p[j] * decay - lr * sign;
        m[j] = b2 * m[j] + w2 * g[j];
      }
    });
  }
  Py_RETURN_NONE;
}

// ---------------------------------------------------------------- gradients together
// Root of the sum of all squares, in double: neither overflows nor depends on the order of threads
PyObject* grad_norm(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  Tensors t;
  if (!arity("grad_norm", nargs, 1, 1) || !t.load("grad_norm", {{"grads", args[0], false}})) return nullptr;
  std::vector<double> parts((size_t)t.tiles(), 0.0);
  {
    GilRelease gil(4.0 * t.total());
    t.for_tiles([&](i64 tile, size_t i, i64 lo, i64 hi) {
      parts[(size_t)tile] += sum_of_squares(t.p[0][i] + lo, hi - lo);
    });
  }
  return PyFloat_FromDouble(std::sqrt(in_order(parts)));
}

PyObject* scale(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (!arity("scale", nargs, 2, 2)) return nullptr;
  const float factor = (float)as_double(args[1]);
  if (PyErr_Occurred()) return nullptr;
  Tensors t;
  if (!same_lengths("scale", {{"arrays", args[0], true}})) return nullptr;
  // None is an entry that has no gradient, so it is passed over here too
  PyObject* present = PyList_New(0);
  if (!present) return nullptr;
  for (i64 i = 0; i < length(args[0]); i++)
    if (item(args[0], i) != Py_None && PyList_Append(present, item(args[0], i)) < 0) break;
  bool ok = !PyErr_Occurred() && t.load("scale", {{"arrays", present, true}});
  Py_DECREF(present);
  if (!ok) return nullptr;
  {
    GilRelease gil(8.0 * t.total());
    t.for_tiles([&](i64, size_t i, i64 lo, i64 hi) {
      float* a = t.p[0][i];
      SPIRAL_INDEPENDENT
      for (i64 j = lo; j < hi; j++) a[j] *= factor;
    });
  }
  Py_RETURN_NONE;
}

PyObject* all_finite(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  Tensors t;
  if (!arity("all_finite", nargs, 1, 1) || !t.load("all_finite", {{"arrays", args[0], false}}))
    return nullptr;
  std::atomic<bool> found{false};
  {
    GilRelease gil(4.0 * t.total());
    t.for_tiles([&](i64, size_t i, i64 lo, i64 hi) {
      if (found.load(std::memory_order_relaxed)) return;
      const float* a = t.p[0][i];
      int32_t bad = 0;
      for (i64 j = lo; j < hi; j++) bad |= (to_bits(a[j]) & 0x7f800000) == 0x7f800000;
      if (bad) found.store(true, std::memory_order_relaxed);
    });
  }
  return PyBool_FromLong(!found.load());
}

// avg += (1 - decay) * (param - avg)
PyObject* ema(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (!arity("ema", nargs, 3, 3)) return nullptr;
  const float weight = (float)(1.0 - as_double(args[2]));
  if (PyErr_Occurred()) return nullptr;
  Tensors t;
  if (!t.load("ema", {{"avg", args[0], true}, {"params", args[1], false}})) return nullptr;
  {
    GilRelease gil(12.0 * t.total());
    t.for_tiles([&](i64, size_t i, i64 lo, i64 hi) {
      float* a = t.p[0][i];
      const float* p = t.p[1][i];
      SPIRAL_INDEPENDENT
      for (i64 j = lo; j < hi; j++) a[j] += weight * (p[j] - a[j]);
    });
  }
  Py_RETURN_NONE;
}

// ---------------------------------------------------------------- Adafactor
// Shazeer & Stern 2018, algorithms 4 and 5, with means of rows and columns where they have sums (the same
// estimate, and eps1 and the states do not depend on the width). Arrays of more than two dimensions are
// stacks of matrices over their last two. With a row mean r, a column mean c and the mean R of r,
//   v = r c / R,   u = g / sqrt(v),   p = p (1 - lr wd) - lr u / max(1, rms(u) / clip_threshold).
struct Matrices {
  i64 count, rows, columns;
};

struct FactoredScalars {
  double lr, beta2, eps1, clip, weight_decay;
};

// rms(u) from the sums of squares of the tiles -> what to multiply u by
float clipped_rate(const FactoredScalars& s, const std::vector<double>& parts, i64 n) {
  double rms = std::sqrt(in_order(parts) / (double)n);
  double over = rms / s.clip;
  return (float)(s.lr / (over > 1.0 || over != over ? over : 1.0));
}

// row[i] and col[j] become moving averages; by_row, by_col: the factors of 1 / sqrt(v)
void factored_statistics(const FactoredScalars& s, const Matrices& m, const float* g, float* row, float* col,
                         float* by_row, float* by_col) {
  const float b2 = (float)s.beta2, w2 = (float)(1.0 - s.beta2), eps1 = (float)s.eps1;
  const i64 grain = row_grain(m.columns), parts = (m.rows + grain - 1) / grain;
  Scratch scratch((size_t)(m.count * parts * m.columns) * sizeof(float));
  float* partial = scratch.as<float>();  // sums of columns, tile by tile
  parallel_tiles(m.count * parts, [&](i64 tile) {
    const i64 matrix = tile / parts, lo = tile % parts * grain, hi = std::min(m.rows, lo + grain);
    float* sums = partial + tile * m.columns;
    std::fill(sums, sums + m.columns, 0.f);
    for (i64 i = lo; i < hi; i++) {
      const float* a = g + (matrix * m.rows + i) * m.columns;
      SPIRAL_INDEPENDENT
      for (i64 j = 0; j < m.columns; j++) sums[j] += a[j] * a[j];
      float& r = row[matrix * m.rows + i];
      r = b2 * r + w2 * ((float)(sum_of_squares(a, m.columns) / (double)m.columns) + eps1);
    }
  });
  for (i64 matrix = 0; matrix < m.count; matrix++) {
    const float* sums = partial + matrix * parts * m.columns;
    for (i64 j = 0; j < m.columns; j++) {
      double sum = 0;
      for (i64 k = 0; k < parts; k++) sum += (double)sums[k * m.columns + j];
      float& c = col[matrix * m.columns + j];
      c = b2 * c + w2 * ((float)(sum / (double)m.rows) + eps1);
      by_col[matrix * m.columns + j] = 1.f / std::sqrt(c);
    }
    double mean = 0;
    const float* r = row + matrix * m.rows;
    for (i64 i = 0; i < m.rows; i++) mean += (double)r[i];
    mean /= (double)m.rows;
    for (i64 i = 0; i < m.rows; i++) by_row[matrix * m.rows + i] = (float)std::sqrt(mean / (double)r[i]);
  }
}

void factored_step(const FactoredScalars& s, const Matrices& m, float* p, const float* g, float* row,
                   float* col) {
  Scratch factors((size_t)(m.count * (m.rows + m.columns)) * sizeof(float));
  float *by_row = factors.as<float>(), *by_col = by_row + m.count * m.rows;
  factored_statistics(s, m, g, row, col, by_row, by_col);
  const i64 all_rows = m.count * m.rows, grain = row_grain(m.columns);
  std::vector<double> parts((size_t)((all_rows + grain - 1) / grain), 0.0);
  parallel_range(all_rows, grain, [&](i64 lo, i64 hi) {
    double sum = 0;
    for (i64 i = lo; i < hi; i++) {
      const float *a = g + i * m.columns, *c = by_col + i / m.rows * m.columns, r = by_row[i];
      sum += squares(m.columns, [=](i64 j) { return a[j] * r * c[j]; },
                     [=](i64 j, V8& v) {
                       V8 w;
                       read(v, a + j);
                       read(w, c + j);
                       v *= r * w;
                     });
    }
    parts[(size_t)(lo / grain)] = sum;
  });
  const float rate = clipped_rate(s, parts, all_rows * m.columns),
              decay = (float)(1.0 - s.lr * s.weight_decay);
  parallel_range(all_rows, grain, [&](i64 lo, i64 hi) {
    for (i64 i = lo; i < hi; i++) {
      const float *a = g + i * m.columns, *c = by_col + i / m.rows * m.columns, r = rate * by_row[i];
      float* o = p + i * m.columns;
      SPIRAL_INDEPENDENT
      for (i64 j = 0; j < m.columns; j++) o[j] = o[j] * decay - a[j] * r * c[j];
    }
  });
}

void unfactored_step(const FactoredScalars& s, float* p, const float* g, float* v, i64 n) {
  const float b2 = (float)s.beta2, w2 = (float)(1.0 - s.beta2), eps1 = (float)s.eps1;
  std::vector<double> parts((size_t)((n + GRAIN - 1) / GRAIN), 0.0);
  parallel_range(n, GRAIN, [&](i64 lo, i64 hi) {
    double sum = 0;
    for (i64 i = lo; i < hi; i++) {
      v[i] = b2 * v[i] + w2 * (g[i] * g[i] + eps1);
      sum += (double)g[i] * (double)g[i] / (double)v[i];
    }
    parts[(size_t)(lo / GRAIN)] = sum;
  });
  const float rate = clipped_rate(s, parts, n), decay = (float)(1.0 - s.lr * s.weight_decay);
  parallel_range(n, GRAIN, [&](i64 lo, i64 hi) {
    SPIRAL_INDEPENDENT
    for (i64 i = lo; i < hi; i++) p[i] = p[i] * decay - rate * g[i] / std::sqrt(v[i]);
  });
}

// a state of parameter i: a contiguous array of `elements`, or nullptr with an exception
float* state_of(const char* label, PyObject* list, i64 i, i64 elements) {
  PyObject* o = item(list, i);
  if (is_f32(o) && PyArray_ISCARRAY(arr(o)) && size(o) == elements) return data<float>(o);
  PyErr_Format(PyExc_ValueError,
               "adafactor: %s[%lld] must be a writable C-contiguous float32 array of %lld elements", label,
               (long long)i, (long long)elements);
  return nullptr;
}

// A parameter with a row state is factored, one with None there has an entry in v.
PyObject* adafactor(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (!arity("adafactor", nargs, 10, 10)) return nullptr;
  FactoredScalars s{as_double(args[5]), as_double(args[6]), as_double(args[7]), as_double(args[8]),
                    as_double(args[9])};
  if (PyErr_Occurred()) return nullptr;
  PyObject *rows = args[2], *cols = args[3], *vs = args[4];
  Tensors t;
  if (!same_lengths("adafactor",
                    {{"params", args[0], true}, {"row", rows, true}, {"col", cols, true}, {"v", vs, true}}) ||
      !t.load("adafactor", {{"params", args[0], true}, {"grads", args[1], false}}))
    return nullptr;
  struct Job {
    Matrices m;
    float *row, *col, *v;
  };
  std::vector<Job> jobs;  // all of them are checked before the first parameter changes
  for (size_t k = 0; k < t.n.size(); k++) {
    const i64 i = t.index[k], n = t.n[k];
    PyObject* p = item(args[0], i);
    Job job{{0, 0, 0}, nullptr, nullptr, nullptr};
    if (item(rows, i) == Py_None) {
      if (!(job.v = state_of("v", vs, i, n))) return nullptr;
    } else {
      if (ndim(p) < 2) {
        PyErr_Format(PyExc_ValueError,
                     "adafactor: row[%lld] belongs to an array of %lld dimensions, expected 2 or more",
                     (long long)i, (long long)ndim(p));
        return nullptr;
      }
      const i64 r = dim(p, -2), c = dim(p, -1), count = r && c ? n / (r * c) : 0;
      job.m = {count, r, c};
      if (n > 0 && (!(job.row = state_of("row", rows, i, count * r)) ||
                    !(job.col = state_of("col", cols, i, count * c))))
        return nullptr;
    }
    jobs.push_back(job);
  }
  {
    GilRelease gil(20.0 * t.total());
    for (size_t k = 0; k < jobs.size(); k++) {
      const Job& job = jobs[k];
      if (t.n[k] == 0) continue;
      if (job.v)
        unfactored_step(s, t.p[0][k], t.p[1][k], job.v, t.n[k]);
      else
        factored_step(s, job.m, t.p[0][k], t.p[1][k], job.row, job.col);
    }
  }
  Py_RETURN_NONE;
}
}  // namespace

PyMethodDef optim_methods[] = {
    {"adamw", (PyCFunction)(void*)adamw, METH_FASTCALL,
     "adamw(params, grads, m, v, lr, beta1, beta2, eps, weight_decay, step, decoupled)"},
    {"sgd", (PyCFunction)(void*)sgd, METH_FASTCALL,
     "sgd(params, grads, momentum_buffers | None, lr, momentum, dampening, weight_decay, nesterov, first)"},
    {"lion", (PyCFunction)(void*)lion, METH_FASTCALL,
     "lion(params, grads, m, lr, beta1, beta2, weight_decay)"},
    {"adafactor", (PyCFunction)(void*)adafactor, METH_FASTCALL,
     "adafactor(params, grads, row, col, v, lr, beta2, eps1, clip_threshold, weight_decay)"},
    {"grad_norm", (PyCFunction)(void*)grad_norm, METH_FASTCALL, "grad_norm(grads) -> float"},
    {"scale", (PyCFunction)(void*)scale, METH_FASTCALL, "scale(arrays, factor): in place"},
    {"all_finite", (PyCFunction)(void*)all_finite, METH_FASTCALL, "all_finite(arrays) -> bool"},
    {"ema", (PyCFunction)(void*)ema, METH_FASTCALL, "ema(avg, params, decay): in place"},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace spiral
