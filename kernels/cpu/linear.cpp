// Affine layers and matrix products on top of gemm(); nothing here multiplies by itself.
//
// Contract: outputs are overwritten, never accumulated into, and must not share memory with inputs.
// linear reads x, w once and writes y once: bias and activation are applied while a block of y is in
// registers. linear_grad reads g once per wanted product and once more for db. Rows of x, g and y are
// flattened: (..., k) is used as (rows, k).
// Formulas: y = act(x w^T + b);  dx = g w,  dw = g^T x,  db = sum of g over rows.
#include "gemm.h"
#include "native.h"

namespace spiral {
namespace {

// The last two axes of an array as gemm wants them: unit stride on one axis, `ld` on the other.
// A view that fits neither way is copied.
struct Matrix {
  PyObject* owned = nullptr;  // keeps the copy (or the original) alive
  const float* p = nullptr;
  i64 rows = 0, cols = 0, ld = 0;
  bool transposed = false;  // stored (cols, rows)
  explicit Matrix(PyObject* o) {
    int nd = PyArray_NDIM(arr(o));
    const npy_intp* st = PyArray_STRIDES(arr(o));
    rows = dim(o, -2), cols = dim(o, -1);
    i64 sr = st[nd - 2], sc = st[nd - 1], f = (i64)sizeof(float);
    auto fits = [&](i64 unit, i64 n_unit, i64 lead, i64 n_lead) {
      return (unit == f || n_unit == 1) && (n_lead == 1 || (lead >= n_unit * f && lead % f == 0));
    };
    if (fits(sc, cols, sr, rows)) {
      Py_INCREF(owned = o);
      ld = rows == 1 ? cols : sr / f;
    } else if (fits(sr, rows, sc, cols)) {
      Py_INCREF(owned = o);
      transposed = true;
      ld = cols == 1 ? rows : sc / f;
    } else {
      owned = contiguous_ref(o);
      ld = cols;
    }
    if (owned) p = data<float>(owned);
  }
  ~Matrix() { Py_XDECREF(owned); }
  Matrix(const Matrix&) = delete;
};

bool expect(bool ok, const char* op, const char* what, i64 wanted, i64 received) {
  if (!ok)
    PyErr_Format(PyExc_ValueError, "%s: expected %s %lld, received %lld", op, what, (long long)wanted,
                 (long long)received);
  return ok;
}
bool expect_eq(const char* op, const char* what, i64 wanted, i64 received) {
  return expect(wanted == received, op, what, wanted, received);
}
bool expect_array(PyObject* o, const char* op, const char* what, int min_ndim) {
  if (is_f32(o) && ndim(o) >= min_ndim) return true;
  PyErr_Format(PyExc_TypeError, "%s: %s must be a float32 array with at least %d axes, received %.80s", op, what,
               min_ndim, Py_TYPE(o)->tp_name);
  return false;
}
bool expect_output(PyObject* o, const char* op, const char* what) {
  if (is_f32(o) && contiguous(o) && PyArray_ISWRITEABLE(arr(o))) return true;
  PyErr_Format(PyExc_ValueError, "%s: %s must be a writable C-contiguous float32 array", op, what);
  return false;
}

// (..., k) -> number of rows
i64 rows_of(PyObject* o) {
  i64 r = 1;
  for (i64 i = 0; i < ndim(o) - 1; i++) r *= dims(o)[i];
  return r;
}

// db[j] = sum over rows of g[:, j]. Blocks of rows give partial sums, added in block order.
void column_sums(const float* g, i64 rows, i64 n, float* db) {
  i64 grain = std::max<i64>(16, row_grain(n)), blocks = std::max<i64>(1, (rows + grain - 1) / grain);
  Scratch scratch((size_t)(blocks * n) * sizeof(float));
  float* part = scratch.as<float>();
  parallel_tiles(blocks, [&](i64 t) {
    float* s = part + t * n;
    i64 r = t * grain, end = std::min(rows, r + grain);
    std::fill(s, s + n, 0.f);
    for (; r + 4 <= end; r += 4) {  // four rows a pass: a quarter of the traffic on s, and pairwise sums
      const float *a = g + r * n, *b = a + n, *c = b + n, *d = c + n;
      for (i64 j = 0; j < n; j++) s[j] += (a[j] + b[j]) + (c[j] + d[j]);
    }
    for (; r < end; r++)
      for (i64 j = 0; j < n; j++) s[j] += g[r * n + j];
  });
  std::copy(part, part + n, db);
  for (i64 t = 1; t < blocks; t++)
    for (i64 j = 0; j < n; j++) db[j] += part[t * n + j];
}

// ---------------------------------------------------------------- linear
PyObject* linear(PyObject*, PyObject* const* args, Py_ssize_t count) {
  const char* op = "linear";
  if (!arity(op, count, 5, 5)) return nullptr;
  PyObject *x = args[0], *w = args[1], *bias = args[2], *y = args[4];
  i64 act = as_int(args[3]);
  if (act == -1 && PyErr_Occurred()) return nullptr;
  if (!expect_array(x, op, "x", 1) || !expect_array(w, op, "w", 2) || !expect_output(y, op, "y")) return nullptr;
  if (!expect_eq(op, "axes of w", 2, ndim(w))) return nullptr;
  i64 m = rows_of(x), k = dim(x, -1), n = dim(w, 0);
  if (!expect_eq(op, "last axis of w", k, dim(w, 1)) || !expect_eq(op, "elements of y", m * n, size(y)) ||
      !expect(act == ACT_NONE || act == ACT_RELU, op, "act at most", ACT_RELU, act))
    return nullptr;
  if (bias != Py_None && (!expect_array(bias, op, "bias", 1) || !expect_eq(op, "elements of bias", n, size(bias))))
    return nullptr;
  Contiguous xc(x), bc(bias);
  Matrix wm(w);
  if (!xc || !bc || !wm.owned) return nullptr;
  GilRelease nogil(2.0 * (double)m * n * k);
  gemm(false, !wm.transposed, m, n, k, 1.f, xc.as<float>(), k, wm.p, wm.ld, 0.f, data<float>(y), n, bc.as<float>(),
       (Activation)act);
  Py_RETURN_NONE;
}

// linear_grad(g, x|None, w|None, dx|None, dw|None, db|None)
PyObject* linear_grad(PyObject*, PyObject* const* args, Py_ssize_t count) {
  const char* op = "linear_grad";
  if (!arity(op, count, 6, 6)) return nullptr;
  PyObject *g = args[0], *x = args[1], *w = args[2], *dx = args[3], *dw = args[4], *db = args[5];
  if (!expect_array(g, op, "g", 1)) return nullptr;
  i64 m = rows_of(g), n = dim(g, -1), k = 0;
  if (dx != Py_None) {
    if (!expect_array(w, op, "w (needed for dx)", 2) || !expect_output(dx, op, "dx")) return nullptr;
    k = dim(w, 1);
    if (!expect_eq(op, "axes of w", 2, ndim(w)) || !expect_eq(op, "first axis of w", n, dim(w, 0)) ||
        !expect_eq(op, "elements of dx", m * k, size(dx)))
      return nullptr;
  }
  if (dw != Py_None) {
    if (!expect_array(x, op, "x (needed for dw)", 1) || !expect_output(dw, op, "dw")) return nullptr;
    k = dim(x, -1);
    if (!expect_eq(op, "rows of x", m, rows_of(x)) || !expect_eq(op, "elements of dw", n * k, size(dw)))
      return nullptr;
  }
  if (db != Py_None && (!expect_output(db, op, "db") || !expect_eq(op, "elements of db", n, size(db))))
    return nullptr;
  Contiguous gc(g), xc(dw != Py_None ? x : Py_None);
  if (!gc || !xc) return nullptr;
  const float* gp = gc.as<float>();
  if (dx != Py_None) {
    Matrix wm(w);
    if (!wm.owned) return nullptr;
    k = wm.cols;
    GilRelease nogil(2.0 * (double)m * n * k);
    gemm(false, wm.transposed, m, k, n, 1.f, gp, n, wm.p, wm.ld, 0.f, data<float>(dx), k);
  }
  if (dw != Py_None || db != Py_None) {
    k = dw != Py_None ? dim(x, -1) : 1;
    GilRelease nogil(2.0 * (double)m * n * k);
    if (dw != Py_None) gemm(true, false, n, k, m, 1.f, gp, n, xc.as<float>(), k, 0.f, data<float>(dw), k);
    if (db != Py_None) column_sums(gp, m, n, data<float>(db));
  }
  Py_RETURN_NONE;
}

// ---------------------------------------------------------------- matmul
// Where product number i of a batch reads its operand: the leading axes of y, right-aligned, with
// stride 0 where the operand is broadcast.
struct BatchWalk {
  int axes;
  i64 extent[NPY_MAXDIMS], stride[NPY_MAXDIMS];  // in elements
  bool init(PyObject* operand, PyObject* y) {
    axes = (int)ndim(y) - 2;
    int lead = (int)ndim(operand) - 2;
    if (lead > axes) return false;
    const npy_intp* st = PyArray_STRIDES(arr(operand));
    for (int i = 0; i < axes; i++) {
      int j = i - (axes - lead);
      extent[i] = dims(y)[i];
      i64 e = j < 0 ? 1 : dims(operand)[j];
      if (e != 1 && e != extent[i]) return false;
      stride[i] = e == 1 ? 0 : st[j] / (i64)sizeof(float);
    }
    return true;
  }
  i64 offset(i64 i) const {
    i64 o = 0;
    for (int a = axes - 1; a >= 0; a--) {
      o += i % extent[a] * stride[a];
      i /= extent[a];
    }
    return o;
  }
  bool constant() const {
    return std::all_of(stride, stride + axes, [](i64 s) { return s == 0; });
  }
  // one product after the other at a distance of `step`
  bool even(i64 step) const {
    for (int a = axes - 1; a >= 0; a--) {
      if (extent[a] != 1 && stride[a] != step) return false;
      step *= extent[a];
    }
    return true;
  }
};

struct Products {
  i64 batch, m, n, k;
  bool ta, tb;
  const float *a, *b;
  i64 lda, ldb;
  float* y;
};

// Products too small to share threads: each tile does a few of them alone.
void many_products(const Products& q, const BatchWalk& wa, const BatchWalk& wb) {
  double flops = 2.0 * (double)q.m * q.n * q.k;
  parallel_range(q.batch, std::max<i64>(1, (i64)(2e5 / std::max(flops, 1.0))), [&](i64 lo, i64 hi) {
    for (i64 i = lo; i < hi; i++)
      gemm_one(q.ta, q.tb, q.m, q.n, q.k, 1.f, q.a + wa.offset(i), q.lda, q.b + wb.offset(i), q.ldb, 0.f,
               q.y + i * q.m * q.n, q.n);
  });
}

PyObject* matmul(PyObject*, PyObject* const* args, Py_ssize_t count) {
  const char* op = "matmul";
  if (!arity(op, count, 5, 5)) return nullptr;
  PyObject *a = args[0], *b = args[1], *y = args[4];
  if (!expect_array(a, op, "a", 2) || !expect_array(b, op, "b", 2) || !expect_output(y, op, "y")) return nullptr;
  bool ta = as_bool(args[2]), tb = as_bool(args[3]);
  Matrix am(a), bm(b);
  if (!am.owned || !bm.owned) return nullptr;
  Products q;
  q.m = ta ? am.cols : am.rows, q.k = ta ? am.rows : am.cols, q.n = tb ? bm.rows : bm.cols;
  i64 kb = tb ? bm.cols : bm.rows;
  if (!expect_eq(op, "inner axis of b", q.k, kb) || !expect(ndim(y) >= 2, op, "axes of y", 2, ndim(y)) ||
      !expect_eq(op, "rows of y", q.m, dim(y, -2)) || !expect_eq(op, "columns of y", q.n, dim(y, -1)))
    return nullptr;
  BatchWalk wa, wb;
  if (!wa.init(am.owned, y) || !wb.init(bm.owned, y)) {
    PyErr_SetString(PyExc_ValueError, "matmul: leading axes of a and b must broadcast to those of y");
    return nullptr;
  }
  if (size(y) == 0) Py_RETURN_NONE;
  q.batch = size(y) / (q.m * q.n);
  q.ta = ta != am.transposed, q.tb = tb != bm.transposed;
  q.a = am.p, q.lda = am.ld, q.b = bm.p, q.ldb = bm.ld, q.y = data<float>(y);
  // a stack of a against one b is one tall product
  if (q.batch > 1 && wb.constant() && !q.ta && q.lda == q.k && wa.even(q.m * q.k)) q.m *= q.batch, q.batch = 1;
  double flops = 2.0 * (double)q.m * q.n * q.k;
  GilRelease nogil(flops * (double)q.batch);
  // few large products: all threads on each in turn
  if (q.batch == 1 || (q.batch < 16 && flops > 2e6)) {
    for (i64 i = 0; i < q.batch; i++)
      gemm(q.ta, q.tb, q.m, q.n, q.k, 1.f, q.a + wa.offset(i), q.lda, q.b + wb.offset(i), q.ldb, 0.f,
           q.y + i * q.m * q.n, q.n);
  } else {
    many_products(q, wa, wb);
  }
  Py_RETURN_NONE;
}
}  // namespace

PyMethodDef linear_methods[] = {
    {"linear", (PyCFunction)(void*)linear, METH_FASTCALL, "linear(x, w, bias|None, act: int, y): act(x @ w.T + bias)"},
    {"linear_grad", (PyCFunction)(void*)linear_grad, METH_FASTCALL,
     "linear_grad(g, x|None, w|None, dx|None, dw|None, db|None): g @ w, g.T @ x, column sums of g"},
    {"matmul", (PyCFunction)(void*)matmul, METH_FASTCALL, "matmul(a, b, ta: bool, tb: bool, y): batched product"},
    {nullptr, nullptr, 0, nullptr}};
}  // namespace spiral
