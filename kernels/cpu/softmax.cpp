// Softmax and log-softmax over the last axis, and their gradients.
//
// y, dx overwritten; forward 8 bytes per element, gradient 12; a row is swept two or three times while
// it is in L1. A row of nothing but -inf gives NaN: there is no distribution to return. Sources:
// softmax dx = y * (g - sum(g * y)); log-softmax dx = g - exp(y) * sum(g).
#include "native.h"
#include "vmath.h"

namespace spiral {
namespace {
// the sum of exp(x - m), for m the row's maximum; the terms go to y if there is one
template <bool keep>
float exp_row(const float* x, float m, float* y, i64 n) {
  float sum;
  row_sums<1>(n, &sum, [&](auto io, Lanes* t, i64 i) {
    Lanes e = exp_negative(io.load(x + i, -INFINITY) - m);
    if (keep) io.store(y + i, e);
    t[0] += e;
  });
  return sum;
}

void softmax_row(const float* x, float* y, i64 n) {
  float r = 1.f / exp_row<true>(x, row_max(x, n), y, n);
  for_lanes(0, n, [&](auto io, i64 i) { io.store(y + i, io.load(y + i) * r); });
}

void log_softmax_row(const float* x, float* y, i64 n) {
  const float m = row_max(x, n);
  // not x - (m + l): that sum would lose digits of l where m is large
  const Lanes one = all<Lanes>(1.f), minus_l = all<Lanes>(-std::log(exp_row<false>(x, m, nullptr, n)));
  for_lanes(0, n, [&](auto io, i64 i) { io.store(y + i, fmadd(io.load(x + i) - m, one, minus_l)); });
}

void softmax_grad_row(const float* g, const float* y, float* dx, i64 n) {
  float s;
  row_sums<1>(n, &s, [&](auto io, Lanes* t, i64 i) { t[0] = fmadd(io.load(g + i), io.load(y + i), t[0]); });
  for_lanes(0, n, [&](auto io, i64 i) { io.store(dx + i, io.load(y + i) * (io.load(g + i) - s)); });
}

void log_softmax_grad_row(const float* g, const float* y, float* dx, i64 n) {
  float s;
  row_sums<1>(n, &s, [&](auto io, Lanes* t, i64 i) { t[0] += io.load(g + i); });
  for_lanes(0, n, [&](auto io, i64 i) {
    io.store(dx + i, io.load(g + i) - vexp(io.load(y + i)) * s);
  });
}

PyObject* unary(const char* name, PyObject* const* args, Py_ssize_t count,
                void (*row)(const float*, float*, i64)) {
  if (!arity(name, count, 2, 2)) return nullptr;
  Contiguous x(args[0]);
  if (!x) return nullptr;
  i64 n = dim(args[0], -1), rows = n ? size(args[0]) / n : 0;
  const float* from = x.as<float>();
  float* to = data<float>(args[1]);
  GilRelease nogil(16.0 * (double)rows * (double)n);
  parallel_range(rows, row_grain(n), [&](i64 lo, i64 hi) {
    for (i64 i = lo; i < hi; i++) row(from + i * n, to + i * n, n);
  });
  Py_INCREF(Py_None);
  return Py_None;
}

PyObject* gradient(const char* name, PyObject* const* args, Py_ssize_t count,
                   void (*row)(const float*, const float*, float*, i64)) {
  if (!arity(name, count, 3, 3)) return nullptr;
  Contiguous g(args[0]), y(args[1]);
  if (!g || !y) return nullptr;
  i64 n = dim(args[1], -1), rows = n ? size(args[1]) / n : 0;
  const float *gp = g.as<float>(), *yp = y.as<float>();
  float* dx = data<float>(args[2]);
  GilRelease nogil(12.0 * (double)rows * (double)n);
  parallel_range(rows, row_grain(n), [&](i64 lo, i64 hi) {
    for (i64 i = lo; i < hi; i++) row(gp + i * n, yp + i * n, dx + i * n, n);
  });
  Py_INCREF(Py_None);
  return Py_None;
}

PyObject* softmax(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return unary("softmax", args, n, softmax_row);
}
PyObject* log_softmax(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return unary("log_softmax", args, n, log_softmax_row);
}
PyObject* softmax_grad(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return gradient("softmax_grad", args, n, softmax_grad_row);
}
PyObject* log_softmax_grad(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return gradient("log_softmax_grad", args, n, log_softmax_grad_row);
}
}  // namespace

PyMethodDef softmax_methods[] = {
    {"softmax", (PyCFunction)(void*)softmax, METH_FASTCALL, "softmax(x (..., C), y): over the last axis"},
    {"softmax_grad", (PyCFunction)(void*)softmax_grad, METH_FASTCALL, "softmax_grad(g, y, dx)"},
    {"log_softmax", (PyCFunction)(void*)log_softmax, METH_FASTCALL,
     "log_softmax(x (..., C), y): over the last axis"},
    {"log_softmax_grad", (PyCFunction)(void*)log_softmax_grad, METH_FASTCALL, "log_softmax_grad(g, y, dx)"},
    {nullptr, nullptr, 0, nullptr}};
}  // namespace spiral
