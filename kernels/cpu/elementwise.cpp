// Elementwise arithmetic and functions with NumPy broadcasting, float32.
//
// binary f(a, b[, out]), unary f(x[, out]). An operand is a float32 array of any strides or a Python
// number (a weak scalar, rounded to float32). Without `out` the result comes from the buffer pool and
// is returned; with it, `out` (C-contiguous, of the broadcast shape) is overwritten and None is
// returned. `out` may be an operand itself, but not a shifted view of one. Operands are never copied.
// Bytes moved per element: 12 for two arrays, 8 for one. Exponentials and their like: vmath.h.
//
// This is the hot path for small arrays: the whole call on 16 elements is mostly the making of the
// result array, so equal contiguous shapes and scalars are tried before any broadcasting is computed.
#include "elementwise_functions.h"
#include "native.h"

namespace spiral {
namespace {
using namespace elementwise;

// o[i] = f(a[i * sa], b[i * sb]); unary functions ignore b
typedef void (*Loop)(const float* a, i64 sa, const float* b, i64 sb, float* o, i64 n);

struct Kernel {
  const char* name;
  Loop loop;
  i64 grain;  // elements of one tile
};

// ---------------------------------------------------------------- loops
template <class Op>
void loop2(const float* a, i64 sa, const float* b, i64 sb, float* o, i64 n) {
  if (sa == 1 && sb == 1) {
    SPIRAL_INDEPENDENT
    for (i64 i = 0; i < n; i++) o[i] = Op::f(a[i], b[i]);
  } else if (sa == 1 && sb == 0) {
    const float s = *b;
    SPIRAL_INDEPENDENT
    for (i64 i = 0; i < n; i++) o[i] = Op::f(a[i], s);
  } else if (sa == 0 && sb == 1) {
    const float s = *a;
    SPIRAL_INDEPENDENT
    for (i64 i = 0; i < n; i++) o[i] = Op::f(s, b[i]);
  } else {
    for (i64 i = 0; i < n; i++) o[i] = Op::f(a[i * sa], b[i * sb]);
  }
}

template <class Op>
void loop1(const float* x, i64 s, const float*, i64, float* o, i64 n) {
  if (s == 1) {
    SPIRAL_INDEPENDENT
    for (i64 i = 0; i < n; i++) o[i] = Op::f(x[i]);
  } else {
    for (i64 i = 0; i < n; i++) o[i] = Op::f(x[i * s]);
  }
}

template <class Op>
void loop_lanes(const float* x, i64 s, const float*, i64, float* o, i64 n) {
  if (s != 1) {  // gathered first, so that the same code makes the same bits of both
    for (i64 i = 0; i < n; i++) o[i] = x[i * s];
    x = o;
  }
  for_lanes(0, n, [=](auto io, i64 i) { io.store(o + i, Op::f(io.load(x + i))); });
}

template <class Op>
void loop_checked(const float* a, i64 sa, const float* b, i64 sb, float* o, i64 n) {
  constexpr i64 BLOCK = 256;
  float x[BLOCK], y[BLOCK];  // copies, as `o` may be an operand and the slow arguments are read again
  for (i64 lo = 0; lo < n; lo += BLOCK, o += BLOCK) {
    const i64 count = std::min(BLOCK, n - lo);
    int left = 0;
    for (i64 i = 0; i < count; i++) x[i] = a[(lo + i) * sa];
    for (i64 i = 0; i < count && (lo == 0 || sb != 0); i++) y[i] = b[(lo + i) * sb];
    for (i64 i = 0; i < count; i++) left |= !Op::covers(x[i], y[i]);
    if (Op::covers(1.f, 1.f)) {
      SPIRAL_INDEPENDENT
      for (i64 i = 0; i < count; i++) o[i] = Op::fast(x[i], y[i]);
    }
    for (i64 i = 0; left && i < count; i++)
      if (!Op::covers(x[i], y[i])) o[i] = Op::slow(x[i], y[i]);
  }
}

// ---------------------------------------------------------------- operands
struct Operand {
  const float* p;
  PyObject* array;  // nullptr: the number in `value`
  float value;
};

bool refuse(const char* name, const char* which, PyObject* o, const char* expected) {
  PyErr_Format(PyExc_TypeError, "%s: %s must be %s; received %s", name, which, expected,
               is_array(o) ? "an array of another dtype or layout" : Py_TYPE(o)->tp_name);
  return false;
}

inline bool take(const char* name, const char* which, PyObject* o, Operand* x) {
  if (is_f32(o)) {
    x->array = o;
    x->p = data<const float>(o);
    return PyArray_ISBEHAVED_RO(arr(o)) || refuse(name, which, o, "an aligned float32 array or a number");
  }
  double value;
  if (PyFloat_CheckExact(o))
    value = PyFloat_AS_DOUBLE(o);
  else if (PyFloat_Check(o) || PyLong_Check(o) || PyArray_IsScalar(o, Number)) {
    value = as_double(o);
    if (value == -1.0 && PyErr_Occurred()) return false;
  } else {
    return refuse(name, which, o, "an aligned float32 array or a number");
  }
  x->array = nullptr;
  x->value = (float)value;
  x->p = &x->value;
  return true;
}

inline bool same_shape(PyObject* a, PyObject* b) {
  return ndim(a) == ndim(b) && memcmp(dims(a), dims(b), (size_t)ndim(a) * sizeof(npy_intp)) == 0;
}

// New reference to the result array: `out` once it is found fit, else a pooled one
PyObject* result_for(const char* name, PyObject* out, int nd, const npy_intp* shape) {
  if (out == Py_None) return new_array(nd, shape, NPY_FLOAT32);
  if (!is_f32(out) || !PyArray_ISCARRAY(arr(out)) || ndim(out) != nd ||
      memcmp(dims(out), shape, (size_t)nd * sizeof(npy_intp)) != 0) {
    PyErr_Format(
        PyExc_ValueError,
        "%s: out must be a writable C-contiguous float32 array of the %d-dimensional broadcast shape", name,
        nd);
    return nullptr;
  }
  Py_INCREF(out);
  return out;
}

// what the caller gets: the new array, or None when it brought its own
inline PyObject* returned(PyObject* result, PyObject* out) {
  if (out == Py_None) return result;
  Py_DECREF(result);
  Py_RETURN_NONE;
}

void run_flat(const Kernel& k, const float* a, i64 sa, const float* b, i64 sb, float* o, i64 n) {
  if (n <= k.grain) {
    k.loop(a, sa, b, sb, o, n);
    return;
  }
  GilRelease gil(12.0 * (double)n);
  parallel_range(n, k.grain,
                 [&](i64 lo, i64 hi) { k.loop(a + lo * sa, sa, b + lo * sb, sb, o + lo, hi - lo); });
}

// ---------------------------------------------------------------- broadcasting
// Broadcast shape and strides in elements; 0 where an operand repeats. Axes of length 1 are left out
// and neighbours merged where both operands allow, so the last axis is as long as can be.
struct Plan {
  int nd = 0;
  i64 n[NPY_MAXDIMS], sa[NPY_MAXDIMS], sb[NPY_MAXDIMS];

  void push(i64 length, i64 a, i64 b) {
    if (length == 1) return;
    if (nd > 0 && sa[nd - 1] == a * length && sb[nd - 1] == b * length) {
      n[nd - 1] *= length;
      sa[nd - 1] = a;
      sb[nd - 1] = b;
      return;
    }
    n[nd] = length;
    sa[nd] = a;
    sb[nd] = b;
    nd++;
  }
};

// length and stride of an operand along an axis of the result, counted from the last one (-1)
inline i64 length_at(const Operand& x, int from_end) {
  int axis = x.array ? (int)ndim(x.array) + from_end : -1;
  return axis < 0 ? 1 : dims(x.array)[axis];
}
inline i64 stride_at(const Operand& x, int from_end) {
  if (length_at(x, from_end) == 1) return 0;
  return PyArray_STRIDE(arr(x.array), (int)ndim(x.array) + from_end) / (i64)sizeof(float);
}

PyObject* shape_tuple(const Operand& x) {
  return x.array ? PyObject_GetAttrString(x.array, "shape") : PyTuple_New(0);
}

// false with an exception when the shapes do not fit each other
bool broadcast(const char* name, const Operand& a, const Operand& b, int* nd, npy_intp* shape, Plan* plan) {
  *nd = (int)std::max(a.array ? ndim(a.array) : 0, b.array ? ndim(b.array) : 0);
  for (int i = 0; i < *nd; i++) {
    i64 la = length_at(a, i - *nd), lb = length_at(b, i - *nd);
    if (la != lb && la != 1 && lb != 1) {
      PyObject *ta = shape_tuple(a), *tb = shape_tuple(b);
      if (ta && tb) PyErr_Format(PyExc_ValueError, "%s: shapes %R and %R do not broadcast", name, ta, tb);
      Py_XDECREF(ta);
      Py_XDECREF(tb);
      return false;
    }
    shape[i] = la == 1 ? lb : la;
    plan->push(shape[i], stride_at(a, i - *nd), stride_at(b, i - *nd));
  }
  return true;
}

// Rows [row, row + rows) of the plan: all axes but the last, counted through like digits.
template <class F>
void for_rows(const Plan& p, i64 row, i64 rows, F f) {
  i64 index[NPY_MAXDIMS], a = 0, b = 0;
  for (int d = p.nd - 2; d >= 0; d--) {
    index[d] = row % p.n[d];
    row /= p.n[d];
    a += index[d] * p.sa[d];
    b += index[d] * p.sb[d];
  }
  for (i64 r = 0; r < rows; r++) {
    f(r, a, b);
    for (int d = p.nd - 2; d >= 0; d--) {
      a += p.sa[d];
      b += p.sb[d];
      if (++index[d] < p.n[d]) break;
      a -= p.n[d] * p.sa[d];
      b -= p.n[d] * p.sb[d];
      index[d] = 0;
    }
  }
}

// A short row against dense rows, (..., C) + (C,) with C up to 64: many rows are taken together, and
// the short one repeated to their length. 0.12 ns an element where a call of the loop for each row of 4
// costs 1.5.
bool run_narrow(const Kernel& k, const Plan& p, const float* a, const float* b, float* o, i64 total) {
  if (p.nd != 2 || p.n[1] > 64 || p.sa[1] != 1 || p.sb[1] != 1) return false;
  const i64 inner = p.n[1];
  const bool repeat_a = p.sa[0] == 0 && p.sb[0] == inner, repeat_b = p.sb[0] == 0 && p.sa[0] == inner;
  if (!repeat_a && !repeat_b) return false;
  constexpr i64 LONGEST = 1024;
  const i64 wide = std::min(LONGEST / inner * inner, total);
  float row[LONGEST];
  for (i64 i = 0; i < wide; i++) row[i] = i < inner ? (repeat_a ? a : b)[i] : row[i - inner];
  GilRelease gil(8.0 * (double)total);
  parallel_range(total, k.grain / wide * wide, [&](i64 lo, i64 hi) {
    for (i64 i = lo; i < hi; i += wide) {
      const i64 n = std::min(wide, hi - i);
      repeat_a ? k.loop(row, 1, b + i, 1, o + i, n) : k.loop(a + i, 1, row, 1, o + i, n);
    }
  });
  return true;
}

void run_plan(const Kernel& k, const Plan& p, const float* a, const float* b, float* o, i64 total) {
  if (total == 0) return;
  if (p.nd <= 1) {
    run_flat(k, a, p.nd ? p.sa[0] : 0, b, p.nd ? p.sb[0] : 0, o, total);
    return;
  }
  if (run_narrow(k, p, a, b, o, total)) return;
  const i64 inner = p.n[p.nd - 1], sa = p.sa[p.nd - 1], sb = p.sb[p.nd - 1], rows = total / inner;
  // a transposed operand: 64 columns at a time, so that the cache lines read for one row serve the next
  const bool across = (sa != 0 && sa != 1) || (sb != 0 && sb != 1);
  const i64 step = across ? 64 : k.grain;
  const i64 rows_of_tile = std::max<i64>(across ? 16 : 1, k.grain / inner);
  const i64 width_of_tile = std::min(inner, k.grain), chunks = (inner + width_of_tile - 1) / width_of_tile;
  GilRelease gil(12.0 * (double)total);
  parallel_tiles((rows + rows_of_tile - 1) / rows_of_tile * chunks, [&](i64 tile) {
    const i64 lo = tile / chunks * rows_of_tile, hi = std::min(rows, lo + rows_of_tile);
    const i64 left = tile % chunks * width_of_tile, right = std::min(inner, left + width_of_tile);
    for (i64 c = left; c < right; c += step) {
      const i64 width = std::min(step, right - c);
      for_rows(p, lo, hi - lo, [&](i64 r, i64 oa, i64 ob) {
        k.loop(a + oa + c * sa, sa, b + ob + c * sb, sb, o + (lo + r) * inner + c, width);
      });
    }
  });
}

PyObject* run_broadcast(const Kernel& k, const Operand& a, const Operand& b, PyObject* out) {
  int nd;
  npy_intp shape[NPY_MAXDIMS];
  Plan plan;
  if (!broadcast(k.name, a, b, &nd, shape, &plan)) return nullptr;
  PyObject* result = result_for(k.name, out, nd, shape);
  if (!result) return nullptr;
  run_plan(k, plan, a.p, b.p, data<float>(result), size(result));
  return returned(result, out);
}

// ---------------------------------------------------------------- calls
PyObject* call2(const Kernel& k, const Operand& a, const Operand& b, PyObject* out) {
  PyObject* like = nullptr;  // contiguous operand that has the result's shape
  if (a.array && contiguous(a.array) && (!b.array || (contiguous(b.array) && same_shape(a.array, b.array))))
    like = a.array;
  else if (!a.array && b.array && contiguous(b.array))
    like = b.array;
  else if (!a.array && !b.array) {
    PyErr_Format(PyExc_TypeError, "%s: expected at least one float32 array, received two numbers", k.name);
    return nullptr;
  }
  if (!like) return run_broadcast(k, a, b, out);
  PyObject* result = result_for(k.name, out, (int)ndim(like), dims(like));
  if (!result) return nullptr;
  run_flat(k, a.p, a.array ? 1 : 0, b.p, b.array ? 1 : 0, data<float>(result), size(result));
  return returned(result, out);
}

PyObject* call1(const Kernel& k, PyObject* x, PyObject* out) {
  if (!is_f32(x) || !PyArray_ISBEHAVED_RO(arr(x))) {
    refuse(k.name, "x", x, "an aligned float32 array");
    return nullptr;
  }
  Operand a{data<const float>(x), x, 0.f}, none{&none.value, nullptr, 0.f};
  if (!contiguous(x)) return run_broadcast(k, a, none, out);
  PyObject* result = result_for(k.name, out, (int)ndim(x), dims(x));
  if (!result) return nullptr;
  run_flat(k, a.p, 1, a.p, 0, data<float>(result), size(result));
  return returned(result, out);
}

constexpr i64 COSTLY = GRAIN / 4;  // tiles of functions that take over a nanosecond an element

// name, loop, elements of a tile
#define SPIRAL_ELEMENTWISE_BINARY(X)                                                              \
  X(add, loop2<Add>, GRAIN)                                                                       \
  X(sub, loop2<Sub>, GRAIN)                                                                       \
  X(mul, loop2<Mul>, GRAIN)                                                                       \
  X(div, loop2<Div>, GRAIN)                                                                       \
  X(maximum, loop2<Maximum>, GRAIN)                                                               \
  X(minimum, loop2<Minimum>, GRAIN)
#define SPIRAL_ELEMENTWISE_UNARY(X)                                                               \
  X(neg, loop1<Neg>, GRAIN)                                                                       \
  X(exp, loop_lanes<Exp>, GRAIN)                                                                  \
  X(log, loop1<Log>, GRAIN)                                                                       \
  X(sqrt, loop1<Sqrt>, GRAIN)                                                                     \
  X(rsqrt, loop1<Rsqrt>, GRAIN)                                                                   \
  X(tanh, loop_lanes<Tanh>, GRAIN)                                                                \
  X(sigmoid, loop_lanes<Sigmoid>, GRAIN)                                                          \
  X(abs, loop1<Abs>, GRAIN)                                                                       \
  X(square, loop1<Square>, GRAIN)                                                                 \
  X(relu, loop1<Relu>, GRAIN)                                                                     \
  X(reciprocal, loop1<Reciprocal>, GRAIN)                                                         \
  X(erf, loop_lanes<Erf>, GRAIN)                                                                  \
  X(sin, loop_checked<Sine<0>>, COSTLY)                                                           \
  X(cos, loop_checked<Sine<1>>, COSTLY)

#define X(name, loop, grain)                                                     \
  PyObject* py_##name(PyObject*, PyObject* const* args, Py_ssize_t n) {          \
    static const Kernel k{#name, loop, grain};                                   \
    Operand a, b;                                                                \
    if (!arity(#name, n, 2, 3) || !take(#name, "a", args[0], &a) ||              \
        !take(#name, "b", args[1], &b))                                          \
      return nullptr;                                                            \
    return call2(k, a, b, n == 3 ? args[2] : Py_None);                           \
  }
SPIRAL_ELEMENTWISE_BINARY(X)
#undef X

#define X(name, loop, grain)                                                     \
  PyObject* py_##name(PyObject*, PyObject* const* args, Py_ssize_t n) {          \
    static const Kernel k{#name, loop, grain};                                   \
    if (!arity(#name, n, 1, 2)) return nullptr;                                  \
    return call1(k, args[0], n == 2 ? args[1] : Py_None);                        \
  }
SPIRAL_ELEMENTWISE_UNARY(X)
#undef X

// The exponents that have an instruction of their own.
const Kernel* pow_kernel(const Operand& b) {
  static const Kernel general{"pow", loop_checked<Pow>, COSTLY}, square{"pow", loop1<Square>, GRAIN},
      root{"pow", loop1<PowerHalf>, GRAIN}, cube{"pow", loop1<Cube>, GRAIN},
      inverse{"pow", loop1<Reciprocal>, GRAIN}, inverse_root{"pow", loop1<PowerMinusHalf>, GRAIN},
      same{"pow", loop1<Same>, GRAIN};
  if (b.array) return &general;
  return b.value == 2.f    ? &square
         : b.value == 0.5f  ? &root
         : b.value == 3.f   ? &cube
         : b.value == -1.f  ? &inverse
         : b.value == -0.5f ? &inverse_root
         : b.value == 1.f   ? &same
                            : &general;
}

PyObject* py_pow(PyObject*, PyObject* const* args, Py_ssize_t n) {
  Operand a, b;
  if (!arity("pow", n, 2, 3) || !take("pow", "a", args[0], &a) || !take("pow", "b", args[1], &b))
    return nullptr;
  return call2(*pow_kernel(b), a, b, n == 3 ? args[2] : Py_None);
}

// add_into(a, b): a += b, for gradients that meet
PyObject* py_add_into(PyObject*, PyObject* const* args, Py_ssize_t n) {
  static const Kernel k{"add_into", loop2<Add>, GRAIN};
  if (!arity("add_into", n, 2, 2)) return nullptr;
  if (!is_f32(args[0]) || !is_f32(args[1]) || !same_shape(args[0], args[1])) {
    PyErr_SetString(PyExc_ValueError, "add_into: expected two float32 arrays of one shape");
    return nullptr;
  }
  Operand a, b;
  if (!take(k.name, "a", args[0], &a) || !take(k.name, "b", args[1], &b)) return nullptr;
  return call2(k, a, b, args[0]);
}
}  // namespace

#define BINARY(name, loop, grain) \
  {#name, (PyCFunction)(void*)py_##name, METH_FASTCALL, #name "(a, b[, out])"},
#define UNARY(name, loop, grain) \
  {#name, (PyCFunction)(void*)py_##name, METH_FASTCALL, #name "(x[, out])"},
PyMethodDef elementwise_methods[] = {
    SPIRAL_ELEMENTWISE_BINARY(BINARY) SPIRAL_ELEMENTWISE_UNARY(UNARY)
    {"pow", (PyCFunction)(void*)py_pow, METH_FASTCALL, "pow(a, b[, out])"},
    {"add_into", (PyCFunction)(void*)py_add_into, METH_FASTCALL, "add_into(a, b): a += b in place"},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace spiral
