// Rotary position embedding (Su et al. 2021, eq. 34) of (batch, heads, time, dim) arrays.
//
// y overwritten; 8 bytes per element. With c, s the rows offset + t of cos and sin, a pair (p, q) becomes
// (p c - q s, q c + p s). Pairs are (i, i + R / 2) within the R = 2 * cos.shape[1] rotated elements, or
// (2 i, 2 i + 1) when interleaved; elements from R on are copied (partial rotary). The inverse negates
// s: it is the rotation back, and the gradient. Arrays may have any strides but a unit one on dim, so
// that a head's view of a fused qkv product needs no copy. y may be x.
#include "native.h"
#include "vmath.h"

namespace spiral {
namespace {
template <int sign>
void rotate_halves(const float* x, const float* __restrict c, const float* __restrict s, float* y, i64 half) {
  const float* x2 = x + half;
  float* y2 = y + half;
  SPIRAL_INDEPENDENT
  for (i64 i = 0; i < half; i++) {
    float p = x[i], q = x2[i], ci = c[i], si = sign * s[i];
    y[i] = p * ci - q * si;
    y2[i] = q * ci + p * si;
  }
}
template <int sign>
void rotate_pairs(const float* x, const float* __restrict c, const float* __restrict s, float* y, i64 half) {
  SPIRAL_INDEPENDENT
  for (i64 i = 0; i < half; i++) {
    float p = x[2 * i], q = x[2 * i + 1], ci = c[i], si = sign * s[i];
    y[2 * i] = p * ci - q * si;
    y[2 * i + 1] = q * ci + p * si;
  }
}
typedef void (*Rotate)(const float*, const float*, const float*, float*, i64);

bool check_rope(PyObject* x, PyObject* c, PyObject* s, PyObject* y, i64 offset) {
  if (ndim(x) != 4 || ndim(y) != 4 || ndim(c) != 2 || ndim(s) != 2 ||
      !PyArray_CompareLists(dims(x), dims(y), 4) || !PyArray_CompareLists(dims(c), dims(s), 2)) {
    PyErr_SetString(PyExc_ValueError,
                    "rope: expected x and y (B, H, T, D) of one shape, cos and sin (positions, R / 2) of one "
                    "shape");
    return false;
  }
  if (size(x) > 0 && dim(x, 3) > 1 && (PyArray_STRIDE(arr(x), 3) != 4 || PyArray_STRIDE(arr(y), 3) != 4)) {
    PyErr_Format(PyExc_ValueError, "rope: expected a stride of 4 bytes on the last axis; received %zd and %zd",
                 (Py_ssize_t)PyArray_STRIDE(arr(x), 3), (Py_ssize_t)PyArray_STRIDE(arr(y), 3));
    return false;
  }
  if (2 * dim(c, 1) > dim(x, 3)) {
    PyErr_Format(PyExc_ValueError, "rope: expected at most D / 2 = %lld columns of cos; received %lld",
                 (long long)(dim(x, 3) / 2), (long long)dim(c, 1));
    return false;
  }
  if (offset < 0 || offset > dim(c, 0) - dim(x, 2)) {
    PyErr_Format(PyExc_IndexError, "rope: expected positions in [0, %lld); received %lld .. %lld",
                 (long long)dim(c, 0), (long long)offset, (long long)(offset + dim(x, 2) - 1));
    return false;
  }
  return true;
}

PyObject* rope(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("rope", count, 7, 7)) return nullptr;
  PyObject *x = args[0], *y = args[6];
  i64 offset = as_int(args[3]);
  bool interleaved = as_bool(args[4]), inverse = as_bool(args[5]);
  if (PyErr_Occurred() || !check_rope(x, args[1], args[2], y, offset)) return nullptr;
  Contiguous cos_(args[1]), sin_(args[2]);
  if (!cos_ || !sin_) return nullptr;
  const i64 B = dim(x, 0), H = dim(x, 1), T = dim(x, 2), D = dim(x, 3), half = dim(args[1], 1);
  if (B * H * T * D == 0) Py_RETURN_NONE;
  const float *c = cos_.as<float>() + offset * half, *s = sin_.as<float>() + offset * half;
  const npy_intp *xs = PyArray_STRIDES(arr(x)), *ys = PyArray_STRIDES(arr(y));
  const char* from = data<const char>(x);
  char* to = data<char>(y);
  const Rotate rotate = interleaved ? (inverse ? rotate_pairs<-1> : rotate_pairs<1>)
                                    : (inverse ? rotate_halves<-1> : rotate_halves<1>);
  // time outside, heads inside: a row of cos and sin serves all heads, and (B, T, H, D) memory is
  // walked in its order
  GilRelease nogil(8.0 * (double)(B * H * T) * (double)D);
  parallel_range(B * T, row_grain(H * D), [&](i64 lo, i64 hi) {
    for (i64 k = lo; k < hi; k++) {
      i64 b = k / T, t = k % T;
      for (i64 h = 0; h < H; h++) {
        const float* xp = (const float*)(from + b * xs[0] + h * xs[1] + t * xs[2]);
        float* yp = (float*)(to + b * ys[0] + h * ys[1] + t * ys[2]);
        rotate(xp, c + t * half, s + t * half, yp, half);
        if (2 * half < D && xp != yp) memcpy(yp + 2 * half, xp + 2 * half, (size_t)(D - 2 * half) * 4);
      }
    }
  });
  Py_RETURN_NONE;
}
}  // namespace

PyMethodDef rope_methods[] = {
    {"rope", (PyCFunction)(void*)rope, METH_FASTCALL,
     "rope(x (B, H, T, D), cos (positions, R / 2), sin, offset, interleaved: bool, inverse: bool, y)"},
    {nullptr, nullptr, 0, nullptr}};
}  // namespace spiral
