// Cross-entropy of logits with integer targets: forward and gradient.
//
// loss, lse, dlogits overwritten; forward 4 bytes per logit, gradient 8. With p = softmax(x),
// lse = log sum exp x, e = label_smoothing and V classes (PyTorch's definition, Szegedy et al. 2016):
//   loss_i = (1 - e) * (lse - x_t) + e / V * sum_v (lse - x_v) + z * lse^2
//   dx_v   = g_i * (p_v * (1 + 2 z lse) - (1 - e) * [v = t] - e / V)
// the z term is that of PaLM (Chowdhery et al. 2022). Rows whose target is ignore_index give loss 0 and
// gradient 0; the mean divides by the number of the others (none of them: NaN).
#include "native.h"
#include "vmath.h"

namespace spiral {
namespace {
enum Reduction { NONE = 0, MEAN = 1, SUM = 2 };

struct Row {
  float log_sum, max, rest;  // lse = max + log_sum; rest = sum of x - max
};
template <bool with_rest>
Row row_statistics(const float* x, i64 n) {
  const float m = row_max(x, n);
  float s[2];
  row_sums<2>(n, s, [&](auto io, Lanes* t, i64 i) {
    t[0] += exp_negative(io.load(x + i, -INFINITY) - m);
    if (with_rest) t[1] += io.load(x + i, m) - m;
  });
  return {std::log(s[0]), m, s[1]};
}

// Number of targets that count; -1 with an exception when one is out of range.
i64 count_targets(const char* name, const i64* t, i64 rows, i64 classes, i64 ignore) {
  i64 counted = 0;
  for (i64 i = 0; i < rows; i++) {
    if (t[i] == ignore) continue;
    if (t[i] < 0 || t[i] >= classes) {
      PyErr_Format(PyExc_IndexError,
                   "%s: expected targets in [0, %lld) or ignore_index %lld; received %lld in row %lld", name,
                   (long long)classes, (long long)ignore, (long long)t[i], (long long)i);
      return -1;
    }
    counted++;
  }
  return counted;
}

struct Options {
  i64 ignore;
  float smoothing, z;
  int reduction;
};
// ignore_index, label_smoothing, z_loss, reduction; false with an exception
bool read_options(const char* name, PyObject* const* args, Options* o) {
  o->ignore = as_int(args[0]);
  o->smoothing = (float)as_double(args[1]);
  o->z = (float)as_double(args[2]);
  o->reduction = (int)as_int(args[3]);
  if (PyErr_Occurred()) return false;
  if (o->reduction >= NONE && o->reduction <= SUM) return true;
  PyErr_Format(PyExc_ValueError, "%s: expected reduction 0 (none), 1 (mean) or 2 (sum); received %d", name,
               o->reduction);
  return false;
}
bool same_rows(const char* name, PyObject* logits, PyObject* targets) {
  if (size(targets) == (dim(logits, -1) ? size(logits) / dim(logits, -1) : size(targets))) return true;
  PyErr_Format(PyExc_ValueError, "%s: expected one target per row of logits; received %lld targets", name,
               (long long)size(targets));
  return false;
}

float row_loss(const float* x, i64 n, i64 target, const Options& o, float* lse) {
  Row r = o.smoothing != 0.f ? row_statistics<true>(x, n) : row_statistics<false>(x, n);
  *lse = r.max + r.log_sum;
  if (target == o.ignore) return 0.f;
  float loss = r.log_sum - (x[target] - r.max);
  if (o.smoothing != 0.f) loss = (1.f - o.smoothing) * loss + o.smoothing * (r.log_sum - r.rest / (float)n);
  if (o.z != 0.f) loss += o.z * *lse * *lse;
  return loss;
}

PyObject* cross_entropy(PyObject*, PyObject* const* args, Py_ssize_t count) {
  const char* name = "cross_entropy";
  Options o;
  if (!arity(name, count, 8, 8) || !same_rows(name, args[0], args[1]) || !read_options(name, args + 2, &o))
    return nullptr;
  Contiguous logits(args[0]), targets(args[1]);
  if (!logits || !targets) return nullptr;
  const i64 n = dim(args[0], -1), rows = size(args[1]);
  const i64* t = targets.as<i64>();
  const float* x = logits.as<float>();
  float *loss = data<float>(args[6]), *lse = data<float>(args[7]);
  i64 counted = count_targets(name, t, rows, n, o.ignore);
  if (counted < 0) return nullptr;
  const i64 grain = row_grain(n), tiles = (rows + grain - 1) / grain;
  Scratch partial((size_t)tiles * 8 + 8);
  if (!partial.p) return PyErr_NoMemory();
  {
    GilRelease nogil(8.0 * (double)rows * (double)n);
    parallel_tiles(tiles, [&](i64 tile) {
      double sum = 0;
      for (i64 i = tile * grain, end = std::min(rows, i + grain); i < end; i++) {
        if (n == 0) {  // every target is ignored
          lse[i] = -INFINITY;
          if (o.reduction == NONE) loss[i] = 0.f;
          continue;
        }
        float l = row_loss(x + i * n, n, t[i], o, lse + i);
        if (o.reduction == NONE)
          loss[i] = l;
        else
          sum += l;
      }
      partial.as<double>()[tile] = sum;
    });
  }
  if (o.reduction != NONE) {
    double sum = 0;
    for (i64 k = 0; k < tiles; k++) sum += partial.as<double>()[k];
    loss[0] = (float)(o.reduction == MEAN ? sum / (double)counted : sum);
  }
  Py_RETURN_NONE;
}

PyObject* cross_entropy_grad(PyObject*, PyObject* const* args, Py_ssize_t count) {
  const char* name = "cross_entropy_grad";
  Options o;
  if (!arity(name, count, 9, 9) || !same_rows(name, args[1], args[2]) || !read_options(name, args + 4, &o))
    return nullptr;
  Contiguous g(args[0]), logits(args[1]), targets(args[2]), lse_(args[3]);
  if (!g || !logits || !targets || !lse_) return nullptr;
  const i64 n = dim(args[1], -1), rows = size(args[2]);
  if (size(args[0]) != (o.reduction == NONE ? rows : 1) || size(args[3]) != rows) {
    PyErr_Format(PyExc_ValueError, "%s: expected g of %lld elements and lse of %lld; received %lld and %lld",
                 name, (long long)(o.reduction == NONE ? rows : 1), (long long)rows, (long long)size(args[0]),
                 (long long)size(args[3]));
    return nullptr;
  }
  const i64* t = targets.as<i64>();
  const float *x = logits.as<float>(), *gp = g.as<float>(), *lse = lse_.as<float>();
  float* dx = data<float>(args[8]);
  i64 counted = count_targets(name, t, rows, n, o.ignore);
  if (counted < 0) return nullptr;
  GilRelease nogil(12.0 * (double)rows * (double)n);
  parallel_range(rows, row_grain(n), [&](i64 lo, i64 hi) {
    for (i64 i = lo; i < hi; i++) {
      float* out = dx + i * n;
      const float* in = x + i * n;
      if (t[i] == o.ignore) {
        std::fill_n(out, n, 0.f);
        continue;
      }
      float gi = o.reduction == NONE ? gp[i] : o.reduction == MEAN ? gp[0] / (float)counted : gp[0];
      float l = lse[i], scale = gi * (1.f + 2.f * o.z * l), uniform = gi * (o.smoothing / (float)n);
      for_lanes(0, n, [&](auto io, i64 j) {
        io.store(out + j, vexp(io.load(in + j) - l) * scale - uniform);
      });
      out[t[i]] -= gi * (1.f - o.smoothing);
    }
  });
  Py_RETURN_NONE;
}
}  // namespace

PyMethodDef loss_methods[] = {
    {"cross_entropy", (PyCFunction)(void*)cross_entropy, METH_FASTCALL,
     "cross_entropy(logits (N, V), targets (N,) int64, ignore_index, label_smoothing, z_loss, "
     "reduction: 0 none, 1 mean, 2 sum, loss () or (N,), lse (N,))"},
    {"cross_entropy_grad", (PyCFunction)(void*)cross_entropy_grad, METH_FASTCALL,
     "cross_entropy_grad(g () or (N,), logits, targets, lse, ignore_index, label_smoothing, z_loss, "
     "reduction, dlogits)"},
    {nullptr, nullptr, 0, nullptr}};
}  // namespace spiral
