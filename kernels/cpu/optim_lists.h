// Lists of arrays as kernels over all parameters take them, their common tiles, and sums of squares.
#pragma once
#include <initializer_list>
#include <vector>

#include "lanes.h"
#include "native.h"

namespace spiral {
namespace optim {
// ---------------------------------------------------------------- lists of arrays
// `label` names the argument in errors. A written array must be contiguous; of others a copy is made.
struct Argument {
  const char* label;
  PyObject* list;
  bool written;
};

struct Tensors {
  static constexpr i64 ALIGN = 16;  // tiles begin at whole cache lines of a parameter
  std::vector<float*> p[4];         // by argument, then by parameter
  std::vector<i64> n;               // elements of each parameter
  std::vector<i64> start;  // its place in the row of all elements, rounded up to ALIGN; total at the end
  std::vector<i64> index;           // its place in the caller's lists
  std::vector<PyObject*> held;
  ~Tensors() {
    for (PyObject* o : held) Py_DECREF(o);
  }

  double total() const { return start.empty() ? 0.0 : (double)start.back(); }
  i64 tiles() const { return start.empty() ? 0 : (start.back() + GRAIN - 1) / GRAIN; }

  // f(tile, parameter, lo, hi) for the element ranges of every tile, in parallel over tiles
  template <class F>
  void for_tiles(F f) const {
    parallel_tiles(tiles(), [&](i64 tile) {
      const i64 begin = tile * GRAIN, end = begin + GRAIN;
      size_t t = (size_t)(std::upper_bound(start.begin(), start.end(), begin) - start.begin()) - 1;
      for (; t < n.size() && start[t] < end; t++) {
        const i64 lo = std::max<i64>(0, begin - start[t]), hi = std::min(n[t], end - start[t]);
        if (lo < hi) f(tile, t, lo, hi);
      }
    });
  }

  bool load(const char* name, std::initializer_list<Argument> arguments);

 private:
  bool take(const char* name, const Argument& a, i64 i, i64 expected, int column);
};

inline bool is_list(PyObject* o) { return PyList_Check(o) || PyTuple_Check(o); }
inline Py_ssize_t length(PyObject* list) { return PySequence_Fast_GET_SIZE(list); }
inline PyObject* item(PyObject* list, i64 i) { return PySequence_Fast_GET_ITEM(list, i); }

inline bool same_lengths(const char* name, std::initializer_list<Argument> arguments) {
  for (const Argument& a : arguments) {
    if (!is_list(a.list)) {
      PyErr_Format(PyExc_TypeError, "%s: %s must be a list of arrays, received %s", name, a.label,
                   Py_TYPE(a.list)->tp_name);
      return false;
    }
    if (length(a.list) != length(arguments.begin()->list)) {
      PyErr_Format(PyExc_ValueError, "%s: %s has %zd entries, %s has %zd", name, arguments.begin()->label,
                   length(arguments.begin()->list), a.label, length(a.list));
      return false;
    }
  }
  return true;
}

inline bool Tensors::take(const char* name, const Argument& a, i64 i, i64 expected, int column) {
  PyObject* o = item(a.list, i);
  if (!is_f32(o) || !(a.written ? PyArray_ISCARRAY(arr(o)) : PyArray_ISBEHAVED_RO(arr(o)))) {
    PyErr_Format(PyExc_ValueError, "%s: %s[%lld] must be %s float32 array, received %s", name, a.label,
                 (long long)i, a.written ? "a writable C-contiguous" : "an aligned",
                 is_array(o) ? "an array of another dtype or layout" : Py_TYPE(o)->tp_name);
    return false;
  }
  if (expected >= 0 && size(o) != expected) {
    PyErr_Format(PyExc_ValueError, "%s: %s[%lld] has %lld elements, expected %lld", name, a.label,
                 (long long)i, (long long)size(o), (long long)expected);
    return false;
  }
  PyObject* c = contiguous_ref(o);
  if (!c) return false;
  held.push_back(c);
  p[column].push_back(data<float>(c));
  return true;
}

// Parameters with a None among their arguments are left out.
inline bool Tensors::load(const char* name, std::initializer_list<Argument> arguments) {
  if (!same_lengths(name, arguments)) return false;
  i64 place = 0;
  for (i64 i = 0; i < length(arguments.begin()->list); i++) {
    bool skip = false;
    for (const Argument& a : arguments) skip |= item(a.list, i) == Py_None && !a.written;
    if (skip) continue;
    i64 elements = -1;
    int column = 0;
    for (const Argument& a : arguments) {
      if (!take(name, a, i, elements, column++)) return false;
      elements = size(item(a.list, i));
    }
    n.push_back(elements);
    index.push_back(i);
    start.push_back(place);
    place += (elements + ALIGN - 1) / ALIGN * ALIGN;
  }
  start.push_back(place);
  return true;
}

// ---------------------------------------------------------------- sums of squares in double
typedef float V8 __attribute__((vector_size(32)));
typedef double D8 __attribute__((vector_size(64)));

// v as doubles; g++ 12 by itself makes two short conversions of it
inline void widen(D8& d, const V8& v) {
#if defined(__AVX512F__)
  d = (D8)_mm512_cvtps_pd((__m256)v);
#else
  d = __builtin_convertvector(v, D8);
#endif
}

inline void read(V8& v, const float* p) { memcpy(&v, p, sizeof v); }

// sum of the squares of n numbers: value(i), or eight of them by eight(i, V8&)
template <class F, class F8>
double squares(i64 n, F value, F8 eight) {
  D8 sums[4] = {};
  i64 i = 0;
  for (; i + 32 <= n; i += 32) {
    for (int k = 0; k < 4; k++) {
      V8 v;
      D8 d;
      eight(i + 8 * k, v);
      widen(d, v);
      sums[k] += d * d;
    }
  }
  D8 a = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double sum = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
  for (; i < n; i++) sum += (double)value(i) * (double)value(i);
  return sum;
}

inline double sum_of_squares(const float* p, i64 n) {
  return squares(n, [=](i64 i) { return p[i]; }, [=](i64 i, V8& v) { read(v, p + i); });
}

inline double in_order(const std::vector<double>& parts) {
  double sum = 0;
  for (double x : parts) sum += x;
  return sum;
}

}  // namespace optim
}  // namespace spiral
