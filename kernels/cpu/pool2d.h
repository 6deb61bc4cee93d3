// Max and average pooling over the H x W planes of (N, C, H, W), included by conv.cpp.
//
// y, idx, dx overwritten. Max: idx is the position in the plane of the first largest element, the first
// NaN if there is one; the gradient is added there, so overlapping windows accumulate. Average: padding
// counts as zeros when count_include_pad, else the divisor is the number of elements. Bytes moved per
// output element, 2 x 2 stride 2: max 16 + 8, its gradient 8 + 16.
#pragma once
#include <atomic>
#include <limits>
#include <type_traits>

#include "lanes.h"
#include "native.h"

namespace spiral {
namespace {

struct Window {
  i64 planes, h, w, oh, ow;
  i64 kh, kw, sh, sw, ph, pw;
  bool two() const { return kh == 2 && kw == 2 && sh == 2 && sw == 2 && ph == 0 && pw == 0; }
};

// f(input row) for the rows of the windows of output row i that lie in the plane, top to bottom
template <class F>
inline void window_rows(const Window& a, i64 i, F f) {
  for (i64 u = 0; u < a.kh; u++) {
    i64 row = i * a.sh - a.ph + u;
    if (row >= 0 && row < a.h) f(row);
  }
}
// f(v, lo, hi): tap column v falls inside the plane for the output columns [lo, hi)
template <class F>
inline void window_columns(const Window& a, F f) {
  for (i64 v = 0; v < a.kw; v++) {
    i64 lo = v < a.pw ? (a.pw - v + a.sw - 1) / a.sw : 0;
    i64 hi = a.w + a.pw > v ? (a.w + a.pw - v + a.sw - 1) / a.sw : 0;
    lo = std::min(lo, a.ow), hi = std::min(hi, a.ow);
    if (lo < hi) f(v - a.pw, lo, hi);
  }
}
// Calls f with the column stride as a constant where it is a usual one: then loads are shuffles
template <class F>
inline void with_stride(i64 s, F f) {
  if (s == 1)
    f(std::integral_constant<i64, 1>());
  else if (s == 2)
    f(std::integral_constant<i64, 2>());
  else
    f(s);
}

// A row of outputs at a time, branch-free: unpredictable branches cost 13 ns an output
void max_plane(const Window& a, const float* x, float* y, int32_t* idx) {
  with_stride(a.sw, [&](auto stride) {
    for (i64 i = 0; i < a.oh; i++) {
      float* __restrict m = y + i * a.ow;
      int32_t* __restrict at = idx + i * a.ow;
      std::fill(m, m + a.ow, -std::numeric_limits<float>::infinity());
      std::fill(at, at + a.ow, -1);
      window_rows(a, i, [&](i64 row) {
        window_columns(a, [&](i64 shift, i64 lo, i64 hi) {
          const float* p = x + row * a.w + shift;
          int32_t first = (int32_t)(row * a.w + shift), step = (int32_t)stride;
          SPIRAL_INDEPENDENT
          for (i64 j = lo; j < hi; j++) {
            float v = p[j * stride], most = m[j];
            bool wins =
                (v > most) | ((v != v) & (most == most)) | (at[j] < 0);  // NaN wins, the first of them
            m[j] = wins ? v : most;
            at[j] = wins ? first + (int32_t)j * step : at[j];
          }
        });
      });
    }
  });
}

// even and odd elements of a followed by b
static inline void split(Lanes a, Lanes b, Lanes& even, Lanes& odd) {
#if defined(__AVX512F__)
  const __m512i e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  even = (Lanes)_mm512_permutex2var_ps((__m512)a, e, (__m512)b);
  odd = (Lanes)_mm512_permutex2var_ps((__m512)a, _mm512_add_epi32(e, _mm512_set1_epi32(1)), (__m512)b);
#else
  for (int k = 0; k < SPIRAL_LANES; k++) {
    even[k] = 2 * k < SPIRAL_LANES ? a[2 * k % SPIRAL_LANES] : b[2 * k % SPIRAL_LANES];
    odd[k] = 2 * k < SPIRAL_LANES ? a[(2 * k + 1) % SPIRAL_LANES] : b[(2 * k + 1) % SPIRAL_LANES];
  }
#endif
}
static inline void load_pairs(Whole io, const float* p, Lanes& even, Lanes& odd) {
  split(io.load(p), io.load(p + SPIRAL_LANES), even, odd);
}
static inline void load_pairs(Part io, const float* p, Lanes& even, Lanes& odd) {
  int n = 2 * io.n, more = n - SPIRAL_LANES;
  split(more < 0 ? Part{n}.load(p) : Whole{}.load(p), more > 0 ? Part{more}.load(p + SPIRAL_LANES) : Lanes{},
        even, odd);
}

void max_plane_2x2(const Window& a, const float* x, float* y, int32_t* idx) {
  auto take = [](Lanes v, int32_t where, Lanes& m, IntLanes& at) {
    IntLanes wins = (v > m) | ((v != v) & (m == m));
    m = wins ? v : m;
    at = wins ? IntLanes{} + where : at;
  };
  IntLanes twice;
  for (int k = 0; k < SPIRAL_LANES; k++) twice[k] = 2 * k;
  for (i64 i = 0; i < a.oh; i++) {
    const float *p = x + 2 * i * a.w, *q = p + a.w;
    int32_t below = (int32_t)a.w;
    for_lanes(0, a.ow, [&](auto io, i64 j) {
      Lanes m, right, low, corner;
      load_pairs(io, p + 2 * j, m, right);
      load_pairs(io, q + 2 * j, low, corner);
      IntLanes at = {};
      take(right, 1, m, at);
      take(low, below, m, at);
      take(corner, below + 1, m, at);
      io.store(y + i * a.ow + j, m);
      io.store((float*)(idx + i * a.ow + j), (Lanes)(at + twice + (int32_t)(2 * (i * a.w + j))));
    });
  }
}

// 1 / (elements of the window) splits into rows and columns: columns[j] counts those of output column j
void count_columns(const Window& a, bool padded, float* columns) {
  std::fill(columns, columns + a.ow, padded ? (float)a.kw : 0.f);
  if (!padded)
    window_columns(a, [&](i64, i64 lo, i64 hi) {
      for (i64 j = lo; j < hi; j++) columns[j] += 1.f;
    });
}
float count_rows(const Window& a, bool padded, i64 i) {
  i64 n = padded ? a.kh : 0;
  if (!padded) window_rows(a, i, [&](i64) { n++; });
  return (float)n;
}

void average_plane(const Window& a, bool padded, const float* columns, const float* x, float* y) {
  with_stride(a.sw, [&](auto stride) {
    for (i64 i = 0; i < a.oh; i++) {
      float* __restrict s = y + i * a.ow;
      std::fill(s, s + a.ow, 0.f);
      window_rows(a, i, [&](i64 row) {
        window_columns(a, [&](i64 shift, i64 lo, i64 hi) {
          const float* p = x + row * a.w + shift;
          for (i64 j = lo; j < hi; j++) s[j] += p[j * stride];
        });
      });
      float rows = count_rows(a, padded, i);
      for (i64 j = 0; j < a.ow; j++) s[j] /= rows * columns[j];
    }
  });
}

// share: room for a row of outputs
void average_plane_grad(const Window& a, bool padded, const float* columns, const float* g,
                        float* __restrict dx, float* __restrict share) {
  std::fill(dx, dx + a.h * a.w, 0.f);
  with_stride(a.sw, [&](auto stride) {
    for (i64 i = 0; i < a.oh; i++) {
      float rows = count_rows(a, padded, i);
      for (i64 j = 0; j < a.ow; j++) share[j] = g[i * a.ow + j] / (rows * columns[j]);
      window_rows(a, i, [&](i64 row) {
        window_columns(a, [&](i64 shift, i64 lo, i64 hi) {
          float* p = dx + row * a.w + shift;
          SPIRAL_INDEPENDENT
          for (i64 j = lo; j < hi; j++) p[j * stride] += share[j];
        });
      });
    }
  });
}

void average_plane_grad_2x2(const Window& a, const float* g, float* __restrict dx) {
  if (a.h > 2 * a.oh || a.w > 2 * a.ow) std::fill(dx, dx + a.h * a.w, 0.f);  // the last row or column
  for (i64 i = 0; i < a.oh; i++) {
    float* __restrict p = dx + 2 * i * a.w;
    float* __restrict q = p + a.w;
    const float* v = g + i * a.ow;
    for (i64 j = 0; j < a.ow; j++) {
      float quarter = v[j] * 0.25f;
      p[2 * j] = quarter, p[2 * j + 1] = quarter;
      q[2 * j] = quarter, q[2 * j + 1] = quarter;
    }
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
  a = Window{
      dim(x, 0) * dim(x, 1), dim(x, 2), dim(x, 3), dim(y, 2), dim(y, 3), v[0], v[1], v[2], v[3], v[4], v[5]};
  bool ok = dim(x, 0) == dim(y, 0) && dim(x, 1) == dim(y, 1) && a.sh > 0 && a.sw > 0 && a.ph >= 0 &&
            a.pw >= 0 && a.ph < a.kh && a.pw < a.kw && a.oh > 0 && a.ow > 0 &&
            a.oh == (a.h + 2 * a.ph - a.kh) / a.sh + 1 && a.ow == (a.w + 2 * a.pw - a.kw) / a.sw + 1;
  // with stride beyond the kernel a last window could start outside the plane; positions are int32
  ok = ok && (a.oh - 1) * a.sh - a.ph < a.h && (a.ow - 1) * a.sw - a.pw < a.w && a.h * a.w <= INT32_MAX;
  if (!ok)
    PyErr_Format(PyExc_ValueError,
                 "%s: a %lld x %lld window with stride (%lld, %lld) and padding (%lld, %lld) does not make "
                 "%lld x %lld "
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
  if (!is_f32(g_) || !is_f32(dx) || ndim(g_) != 4 || ndim(dx) != 4 ||
      dim(g_, 0) * dim(g_, 1) != dim(dx, 0) * dim(dx, 1)) {
    PyErr_SetString(PyExc_TypeError,
                    "max_pool2d_grad: expected float32 g (N, C, OH, OW) and dx (N, C, H, W)");
    return nullptr;
  }
  if (!is_position(args[1], g_)) return nullptr;
  Contiguous g(g_), idx(args[1]);
  if (!g || !idx) return nullptr;
  Window a{dim(dx, 0) * dim(dx, 1), dim(dx, 2), dim(dx, 3), dim(g_, 2), dim(g_, 3), 0, 0, 0, 0, 0, 0};
  std::atomic<bool> inside{true};
  float* to = data<float>(dx);
  each_plane(a, [&](i64 p) {
    if (!max_plane_grad(a.h * a.w, a.oh * a.ow, g.as<float>() + p * a.oh * a.ow,
                        idx.as<int32_t>() + p * a.oh * a.ow, to + p * a.h * a.w))
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
  bool padded = as_bool(args[7]);
  const float* from = x.as<float>();
  float* y = data<float>(args[8]);
  Scratch columns((size_t)a.ow * 4);
  if (!columns.p) return PyErr_NoMemory();
  count_columns(a, padded, columns.as<float>());
  each_plane(a, [&](i64 p) {
    average_plane(a, padded, columns.as<float>(), from + p * a.h * a.w, y + p * a.oh * a.ow);
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
  bool padded = as_bool(args[7]), two = a.two();
  const float* from = g.as<float>();
  float* dx = data<float>(args[8]);
  Scratch columns((size_t)a.ow * 4);
  if (!columns.p) return PyErr_NoMemory();
  count_columns(a, padded, columns.as<float>());
  std::atomic<bool> enough{true};
  each_plane(a, [&](i64 p) {
    if (two) return average_plane_grad_2x2(a, from + p * a.oh * a.ow, dx + p * a.h * a.w);
    Scratch share((size_t)a.ow * 4);
    if (!share.p)
      enough = false;
    else
      average_plane_grad(a, padded, columns.as<float>(), from + p * a.oh * a.ow, dx + p * a.h * a.w,
                         share.as<float>());
  });
  if (!enough) return PyErr_NoMemory();
  Py_RETURN_NONE;
}
}  // namespace
}  // namespace spiral
