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
#include "native.h"
#include "vmath.h"

namespace spiral {
namespace {
// o[i] = f(a[i * sa], b[i * sb]); unary functions ignore b
typedef void (*Loop)(const float* a, i64 sa, const float* b, i64 sb, float* o, i64 n);

struct Kernel {
  const char* name;
  Loop loop;
  i64 grain;  // elements of one tile
};

// ---------------------------------------------------------------- functions
// NaN is not above anything: the second comparison keeps one that stands on the left
struct Add { static float f(float a, float b) { return a + b; } };
struct Sub { static float f(float a, float b) { return a - b; } };
struct Mul { static float f(float a, float b) { return a * b; } };
struct Div { static float f(float a, float b) { return a / b; } };
struct Maximum { static float f(float a, float b) { return (a > b) | (a != a) ? a : b; } };
struct Minimum { static float f(float a, float b) { return (a < b) | (a != a) ? a : b; } };
struct Pow { static float f(float a, float b) { return std::pow(a, b); } };

struct Neg { static float f(float x) { return -x; } };
struct Exp { static float f(float x) { return vexp(x); } };
struct Log { static float f(float x) { return vlog(x); } };
struct Sqrt { static float f(float x) { return std::sqrt(x); } };
struct Rsqrt { static float f(float x) { return 1.f / std::sqrt(x); } };
struct Tanh { static float f(float x) { return vtanh(x); } };
struct Sigmoid { static float f(float x) { return vsigmoid(x); } };
struct Abs { static float f(float x) { return std::fabs(x); } };
struct Square { static float f(float x) { return x * x; } };
struct Cube { static float f(float x) { return x * x * x; } };
struct Same { static float f(float x) { return x; } };
struct Relu { static float f(float x) { return x < 0.f ? 0.f : x; } };  // this way round keeps NaN
struct Reciprocal { static float f(float x) { return 1.f / x; } };
struct Erf { static float f(float x) { return verf(x); } };
struct Sin { static float f(float x) { return std::sin(x); } };
struct Cos { static float f(float x) { return std::cos(x); } };

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

// ---------------------------------------------------------------- operands
struct Operand {
  const float* p;
  PyObject* array;  // nullptr: the number in `value`
  float value;
};

bool refuse(const char* name, const char* which, PyObject* o) {
  if (PyErr_Occurred()) return false;
  PyErr_Format(PyExc_TypeError, "%s: %s must be an aligned float32 array or a number; received %s", name, which,
               is_array(o) ? "an array of another dtype or layout" : Py_TYPE(o)->tp_name);
  return false;
}

inline bool take(const char* name, const char* which, PyObject* o, Operand* x) {
  if (is_f32(o)) {
    x->array = o;
    x->p = data<const float>(o);
    return PyArray_ISBEHAVED_RO(arr(o)) ? true : refuse(name, which, o);
  }
  double value;
  if (PyFloat_CheckExact(o))
    value = PyFloat_AS_DOUBLE(o);
  else if (PyFloat_Check(o) || PyLong_Check(o) || PyArray_IsScalar(o, Number)) {
    value = as_double(o);
    if (value == -1.0 && PyErr_Occurred()) return false;
  } else {
    return refuse(name, which, o);
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
    PyErr_Format(PyExc_ValueError,
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
  parallel_range(n, k.grain, [&](i64 lo, i64 hi) { k.loop(a + lo * sa, sa, b + lo * sb, sb, o + lo, hi - lo); });
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

void run_plan(const Kernel& k, const Plan& p, const float* a, const float* b, float* o, i64 total) {
  if (total == 0) return;
  if (p.nd <= 1) {
    run_flat(k, a, p.nd ? p.sa[0] : 0, b, p.nd ? p.sb[0] : 0, o, total);
    return;
  }
  const i64 inner = p.n[p.nd - 1], sa = p.sa[p.nd - 1], sb = p.sb[p.nd - 1], rows = total / inner;
  // a transposed operand: 64 columns at a time, so that the cache lines read for one row serve the next
  const bool across = (sa != 0 && sa != 1) || (sb != 0 && sb != 1);
  const i64 columns = across ? 64 : k.grain;
  const i64 rows_of_tile = std::max<i64>(across ? 16 : 1, k.grain / inner);
  GilRelease gil(12.0 * (double)total);
  parallel_range(rows, rows_of_tile, [&](i64 lo, i64 hi) {
    for (i64 c = 0; c < inner; c += columns) {
      const i64 width = std::min(columns, inner - c);
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
    refuse(k.name, "x", x);
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

#define SPIRAL_ELEMENTWISE_BINARY(X)                                                          \
  X(add, Add, GRAIN) X(sub, Sub, GRAIN) X(mul, Mul, GRAIN) X(div, Div, GRAIN)                 \
  X(maximum, Maximum, GRAIN) X(minimum, Minimum, GRAIN)
#define SPIRAL_ELEMENTWISE_UNARY(X)                                                           \
  X(neg, Neg, GRAIN) X(exp, Exp, GRAIN) X(log, Log, GRAIN) X(sqrt, Sqrt, GRAIN)               \
  X(rsqrt, Rsqrt, GRAIN) X(tanh, Tanh, GRAIN) X(sigmoid, Sigmoid, GRAIN) X(abs, Abs, GRAIN)   \
  X(square, Square, GRAIN) X(relu, Relu, GRAIN) X(reciprocal, Reciprocal, GRAIN)              \
  X(erf, Erf, GRAIN) X(sin, Sin, COSTLY) X(cos, Cos, COSTLY)

#define X(name, Op, grain)                                                       \
  PyObject* py_##name(PyObject*, PyObject* const* args, Py_ssize_t n) {          \
    static const Kernel k{#name, loop2<Op>, grain};                              \
    Operand a, b;                                                                \
    if (!arity(#name, n, 2, 3) || !take(#name, "a", args[0], &a) ||              \
        !take(#name, "b", args[1], &b))                                          \
      return nullptr;                                                            \
    return call2(k, a, b, n == 3 ? args[2] : Py_None);                           \
  }
SPIRAL_ELEMENTWISE_BINARY(X)
#undef X

#define X(name, Op, grain)                                                       \
  PyObject* py_##name(PyObject*, PyObject* const* args, Py_ssize_t n) {          \
    static const Kernel k{#name, loop1<Op>, grain};                              \
    if (!arity(#name, n, 1, 2)) return nullptr;                                  \
    return call1(k, args[0], n == 2 ? args[1] : Py_None);                        \
  }
SPIRAL_ELEMENTWISE_UNARY(X)
#undef X

// The exponents that have an instruction of their own. As in NumPy and PyTorch, x ** 0.5 is the square
// root: it differs from C's pow at -inf alone.
const Kernel* pow_kernel(const Operand& b) {
  static const Kernel general{"pow", loop2<Pow>, COSTLY}, square{"pow", loop1<Square>, GRAIN},
      root{"pow", loop1<Sqrt>, GRAIN}, cube{"pow", loop1<Cube>, GRAIN}, inverse{"pow", loop1<Reciprocal>, GRAIN},
      inverse_root{"pow", loop1<Rsqrt>, GRAIN}, same{"pow", loop1<Same>, GRAIN};
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
  if (!arity("pow", n, 2, 3) || !take("pow", "a", args[0], &a) || !take("pow", "b", args[1], &b)) return nullptr;
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

#define BINARY(name, Op, grain) \
  {#name, (PyCFunction)(void*)py_##name, METH_FASTCALL, #name "(a, b[, out])"},
#define UNARY(name, Op, grain) \
  {#name, (PyCFunction)(void*)py_##name, METH_FASTCALL, #name "(x[, out])"},
PyMethodDef elementwise_methods[] = {
    SPIRAL_ELEMENTWISE_BINARY(BINARY) SPIRAL_ELEMENTWISE_UNARY(UNARY)
    {"pow", (PyCFunction)(void*)py_pow, METH_FASTCALL, "pow(a, b[, out])"},
    {"add_into", (PyCFunction)(void*)py_add_into, METH_FASTCALL, "add_into(a, b): a += b in place"},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace spiral
