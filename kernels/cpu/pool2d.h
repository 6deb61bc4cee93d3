// Max and average pooling over the H x W planes of (N, C, H, W), included by conv.cpp.
//
// y, idx, dx overwritten. Max: idx is the position in the plane of the first largest element, the first
// NaN if there is one; the gradient is added there, so overlapping windows accumulate. Average: padding
// counts as zeros when count_include_pad, else the divisor is the number of elements. Bytes moved per
// output element, 2 x 2 stride 2: max 16 + 8, its gradient 8 + 16.
#pragma once
#include <atomic>

#include "lanes.h"
#include "native.h"

namespace spiral {
namespace {

struct Window {
  i64 planes, h, w, oh, ow;
  i64 kh, kw, sh, sw, ph, pw;
  bool two() const { return kh == 2 && kw == 2 && sh == 2 && sw == 2 && ph == 0 && pw == 0; }
};
struct Edges {
  i64 top, bottom, left, right;
};
// the part of the window of output (i, j) that lies in the plane
inline Edges edges(const Window& a, i64 i, i64 j) {
  i64 top = i * a.sh - a.ph, left = j * a.sw - a.pw;
  return {std::max<i64>(0, top), std::min(a.h, top + a.kh), std::max<i64>(0, left), std::min(a.w, left + a.kw)};
}

// whether v takes the place of the largest so far, m
inline bool beats(float v, float m) { return (v > m) | ((v != v) & (m == m)); }

void max_plane(const Window& a, const float* x, float* y, int32_t* idx) {
  for (i64 i = 0; i < a.oh; i++)
    for (i64 j = 0; j < a.ow; j++) {
      Edges e = edges(a, i, j);
      i64 at = e.top * a.w + e.left;
      float m = x[at];
      for (i64 r = e.top; r < e.bottom; r++)
        for (i64 c = e.left; c < e.right; c++)
          if (beats(x[r * a.w + c], m)) m = x[r * a.w + c], at = r * a.w + c;
      y[i * a.ow + j] = m;
      idx[i * a.ow + j] = (int32_t)at;
    }
}

void max_plane_2x2(const Window& a, const float* x, float* __restrict y, int32_t* __restrict idx) {
  for (i64 i = 0; i < a.oh; i++) {
    const float *p = x + 2 * i * a.w, *q = p + a.w;
    int32_t first = (int32_t)(2 * i * a.w), below = (int32_t)a.w;
    SPIRAL_INDEPENDENT
    for (i64 j = 0; j < a.ow; j++) {
      float m = p[2 * j], v = p[2 * j + 1], s = q[2 * j], t = q[2 * j + 1];
      int32_t at = 0;
      bool b = beats(v, m);
      at = b ? 1 : at, m = b ? v : m;
      b = beats(s, m);
      at = b ? below : at, m = b ? s : m;
      b = beats(t, m);
      at = b ? below + 1 : at, m = b ? t : m;
      y[i * a.ow + j] = m;
      idx[i * a.ow + j] = first + (int32_t)(2 * j) + at;
    }
  }
}

void average_plane(const Window& a, bool padded, const float* x, float* y) {
  for (i64 i = 0; i < a.oh; i++)
    for (i64 j = 0; j < a.ow; j++) {
      Edges e = edges(a, i, j);
      float s = 0.f;
      for (i64 r = e.top; r < e.bottom; r++)
        for (i64 c = e.left; c < e.right; c++) s += x[r * a.w + c];
      y[i * a.ow + j] = s / (float)(padded ? a.kh * a.kw : (e.bottom - e.top) * (e.right - e.left));
    }
}

void average_plane_2x2(const Window& a, const float* x, float* __restrict y) {
  for (i64 i = 0; i < a.oh; i++) {
    const float *p = x + 2 * i * a.w, *q = p + a.w;
    SPIRAL_INDEPENDENT
    for (i64 j = 0; j < a.ow; j++)
      y[i * a.ow + j] = ((p[2 * j] + p[2 * j + 1]) + (q[2 * j] + q[2 * j + 1])) * 0.25f;
  }
}

void average_plane_grad(const Window& a, bool padded, const float* g, float* dx) {
  std::fill(dx, dx + a.h * a.w, 0.f);
  for (i64 i = 0; i < a.oh; i++)
    for (i64 j = 0; j < a.ow; j++) {
      Edges e = edges(a, i, j);
      float v = g[i * a.ow + j] / (float)(padded ? a.kh * a.kw : (e.bottom - e.top) * (e.right - e.left));
      for (i64 r = e.top; r < e.bottom; r++)
        for (i64 c = e.left; c < e.right; c++) dx[r * a.w + c] += v;
    }
}

// false when a position lies outside the plane
bool max_plane_grad(i64 plane, i64 outputs, const float* g, const int32_t* idx, float* __restrict dx) {
  uint32_t largest = 0;
  for (i64 i = 0; i < outputs; i++) largest = std::max(largest, (uint32_t)idx[i]);
  std::fill(dx, dx + plane, 0.f);
  if (outputs && (i64)largest >= plane) return false;
  for (i64 i = 0; i < outputs; i++) dx[idx[i]] += g[i];
  return true;
}

// ---------------------------------------------------------------- calls
// x and y shapes and six arguments; false with an exception when they do not belong together
inline bool window(const char* name, Window& a, PyObject* x, PyObject* y, PyObject* const* args) {
  if (!is_f32(x) || !is_f32(y) || ndim(x) != 4 || ndim(y) != 4) {
    PyErr_Format(PyExc_TypeError, "%s: expected float32 arrays with 4 axes", name);
    return false;
  }
  i64 v[6];
  for (int i = 0; i < 6; i++) v[i] = as_int(args[i]);
  if (PyErr_Occurred()) return false;
  a = Window{dim(x, 0) * dim(x, 1), dim(x, 2), dim(x, 3), dim(y, 2), dim(y, 3), v[0], v[1], v[2], v[3], v[4], v[5]};
  bool ok = dim(x, 0) == dim(y, 0) && dim(x, 1) == dim(y, 1) && a.sh > 0 && a.sw > 0 && a.ph >= 0 && a.pw >= 0 &&
            a.ph < a.kh && a.pw < a.kw && a.oh > 0 && a.ow > 0 && a.oh == (a.h + 2 * a.ph - a.kh) / a.sh + 1 &&
            a.ow == (a.w + 2 * a.pw - a.kw) / a.sw + 1;
  // with stride beyond the kernel a last window could start outside the plane
  ok = ok && (a.oh - 1) * a.sh - a.ph < a.h && (a.ow - 1) * a.sw - a.pw < a.w;
  if (!ok)
    PyErr_Format(PyExc_ValueError,
                 "%s: a %lld x %lld window with stride (%lld, %lld) and padding (%lld, %lld) does not make %lld x %lld "
                 "of %lld x %lld",
                 name, (long long)a.kh, (long long)a.kw, (long long)a.sh, (long long)a.sw, (long long)a.ph,
                 (long long)a.pw, (long long)a.oh, (long long)a.ow, (long long)a.h, (long long)a.w);
  return ok;
}

// f(plane) for every plane, several to a tile
template <class F>
void each_plane(const Window& a, F f) {
  GilRelease nogil(8.0 * (double)a.planes * (double)(a.h * a.w + a.oh * a.ow));
  parallel_range(a.planes, row_grain(a.h * a.w), [&](i64 lo, i64 hi) {
    for (i64 p = lo; p < hi; p++) f(p);
  });
}

inline bool is_position(PyObject* o, PyObject* like) {
  if (is_array(o) && PyArray_TYPE(arr(o)) == NPY_INT32 && size(o) == size(like)) return true;
  PyErr_SetString(PyExc_TypeError, "max_pool2d: idx must be an int32 array of the output's shape");
  return false;
}

// x, kh, kw, sh, sw, ph, pw, y, idx
PyObject* max_pool2d(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("max_pool2d", count, 9, 9)) return nullptr;
  Window a;
  if (!window("max_pool2d", a, args[0], args[7], args + 1) || !is_position(args[8], args[7])) return nullptr;
  Contiguous x(args[0]);
  if (!x) return nullptr;
  const float* from = x.as<float>();
  float* y = data<float>(args[7]);
  int32_t* idx = data<int32_t>(args[8]);
  auto one = a.two() ? max_plane_2x2 : max_plane;
  each_plane(a, [&](i64 p) { one(a, from + p * a.h * a.w, y + p * a.oh * a.ow, idx + p * a.oh * a.ow); });
  Py_RETURN_NONE;
}

// g, idx, dx
PyObject* max_pool2d_grad(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("max_pool2d_grad", count, 3, 3)) return nullptr;
  PyObject *g_ = args[0], *dx = args[2];
  if (!is_f32(g_) || !is_f32(dx) || ndim(g_) != 4 || ndim(dx) != 4 || dim(g_, 0) * dim(g_, 1) != dim(dx, 0) * dim(dx, 1)) {
    PyErr_SetString(PyExc_TypeError, "max_pool2d_grad: expected float32 g (N, C, OH, OW) and dx (N, C, H, W)");
    return nullptr;
  }
  if (!is_position(args[1], g_)) return nullptr;
  Contiguous g(g_), idx(args[1]);
  if (!g || !idx) return nullptr;
  Window a{dim(dx, 0) * dim(dx, 1), dim(dx, 2), dim(dx, 3), dim(g_, 2), dim(g_, 3), 0, 0, 0, 0, 0, 0};
  std::atomic<bool> inside{true};
  float* to = data<float>(dx);
  each_plane(a, [&](i64 p) {
    if (!max_plane_grad(a.h * a.w, a.oh * a.ow, g.as<float>() + p * a.oh * a.ow, idx.as<int32_t>() + p * a.oh * a.ow,
                        to + p * a.h * a.w))
      inside = false;
  });
  if (!inside) {
    PyErr_Format(PyExc_IndexError, "max_pool2d_grad: expected positions from 0 to %lld, received one outside",
                 (long long)(a.h * a.w - 1));
    return nullptr;
  }
  Py_RETURN_NONE;
}

// x, kh, kw, sh, sw, ph, pw, count_include_pad, y
PyObject* avg_pool2d(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("avg_pool2d", count, 9, 9)) return nullptr;
  Window a;
  if (!window("avg_pool2d", a, args[0], args[8], args + 1)) return nullptr;
  Contiguous x(args[0]);
  if (!x) return nullptr;
  bool padded = as_bool(args[7]), two = a.two();
  const float* from = x.as<float>();
  float* y = data<float>(args[8]);
  each_plane(a, [&](i64 p) {
    if (two)
      average_plane_2x2(a, from + p * a.h * a.w, y + p * a.oh * a.ow);
    else
      average_plane(a, padded, from + p * a.h * a.w, y + p * a.oh * a.ow);
  });
  Py_RETURN_NONE;
}

// g, kh, kw, sh, sw, ph, pw, count_include_pad, dx
PyObject* avg_pool2d_grad(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("avg_pool2d_grad", count, 9, 9)) return nullptr;
  Window a;
  if (!window("avg_pool2d_grad", a, args[8], args[0], args + 1)) return nullptr;
  Contiguous g(args[0]);
  if (!g) return nullptr;
  bool padded = as_bool(args[7]);
  const float* from = g.as<float>();
  float* dx = data<float>(args[8]);
  each_plane(a, [&](i64 p) { average_plane_grad(a, padded, from + p * a.oh * a.ow, dx + p * a.h * a.w); });
  Py_RETURN_NONE;
}
}  // namespace
}  // namespace spiral
