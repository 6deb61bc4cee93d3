// The frame every CPU kernel file is written in: arrays, outputs, threads, GIL.
//
// A kernel is a METH_FASTCALL function `PyObject* f(PyObject*, PyObject* const* args, Py_ssize_t n)`
// that receives inputs, then attributes, then outputs, in the order of the op's schema
// (destination passing: the caller allocates). Elementwise functions may also be called without
// outputs and then allocate from the buffer pool and return the array.
//
// Work is cut into tiles by shape only, never by thread count: results have the same bits for
// any number of threads.
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define PY_ARRAY_UNIQUE_SYMBOL spiral_ARRAY_API
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#ifndef SPIRAL_NATIVE_MAIN
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "pool.h"
#include "threads.h"

namespace spiral {

typedef int64_t i64;

// ---------------------------------------------------------------- arguments
inline PyArrayObject* arr(PyObject* o) { return (PyArrayObject*)o; }
inline bool is_array(PyObject* o) { return PyArray_Check(o); }
inline i64 ndim(PyObject* o) { return PyArray_NDIM(arr(o)); }
inline const npy_intp* dims(PyObject* o) { return PyArray_DIMS(arr(o)); }
inline i64 dim(PyObject* o, int axis) {
  return PyArray_DIM(arr(o), axis < 0 ? PyArray_NDIM(arr(o)) + axis : axis);
}
inline i64 size(PyObject* o) { return PyArray_SIZE(arr(o)); }
template <class T>
inline T* data(PyObject* o) {
  return o == Py_None ? nullptr : (T*)PyArray_DATA(arr(o));
}
inline bool contiguous(PyObject* o) { return PyArray_IS_C_CONTIGUOUS(arr(o)); }
inline bool is_f32(PyObject* o) { return is_array(o) && PyArray_TYPE(arr(o)) == NPY_FLOAT32; }
// numbers that are attributes
inline double as_double(PyObject* o) { return PyFloat_AsDouble(o); }
inline i64 as_int(PyObject* o) { return PyLong_AsLongLong(o); }
inline bool as_bool(PyObject* o) { return PyObject_IsTrue(o) == 1; }

// Raises TypeError and returns false unless the call has between `lo` and `hi` arguments.
bool arity(const char* name, Py_ssize_t n, Py_ssize_t lo, Py_ssize_t hi);

// Owned reference to a C-contiguous array with the same values: `o` itself when it already is
// one, else a pooled copy. None passes through. nullptr with an exception on failure.
PyObject* contiguous_ref(PyObject* o);

// Holds the results of contiguous_ref for the length of a kernel.
struct Contiguous {
  PyObject* o;
  explicit Contiguous(PyObject* x) : o(contiguous_ref(x)) {}
  ~Contiguous() { Py_XDECREF(o); }
  Contiguous(const Contiguous&) = delete;
  explicit operator bool() const { return o != nullptr; }
  template <class T>
  const T* as() const {
    return data<const T>(o);
  }
};

// New uninitialised C-contiguous array from the buffer pool.
PyObject* new_array(int nd, const npy_intp* shape, int type_num);
PyObject* new_array(int nd, const npy_intp* shape, PyArray_Descr* borrowed);

// When an op that declares `mutates` last wrote to an array's memory (0: never); false when it is not pooled.
bool stamp_of(PyObject* array, uint64_t* stamp);
bool call_ready();  // prepares the type of call.cpp

// Scratch memory from the pool for the length of a scope; usable without the GIL.
struct Scratch {
  void* p;
  size_t n;
  explicit Scratch(size_t bytes) : p(pool_alloc(bytes)), n(bytes) {}
  ~Scratch() { pool_free(p, n); }
  Scratch(const Scratch&) = delete;
  template <class T>
  T* as() {
    return (T*)p;
  }
};

// Releases the GIL for its scope when the work is worth it: giving it up and taking it back costs
// about 0.1 us, and up to 5 ms when another thread grabs it, so short kernels keep it.
struct GilRelease {
  PyThreadState* s;
  explicit GilRelease(double flops_or_bytes) : s(flops_or_bytes > 1e6 ? PyEval_SaveThread() : nullptr) {}
  ~GilRelease() {
    if (s) PyEval_RestoreThread(s);
  }
};

// Elements below which an elementwise job is one tile: 16,384 f32 are 64 KiB, half an L2 share.
constexpr i64 GRAIN = 16384;

// parallel over [0, n) in ranges of `grain`: f(begin, end)
template <class F>
inline void parallel_range(i64 n, i64 grain, F f) {
  i64 tiles = (n + grain - 1) / grain;
  parallel_tiles(tiles, [&](i64 t) { f(t * grain, std::min(n, (t + 1) * grain)); });
}

// rows per tile so that a tile has about GRAIN elements
inline i64 row_grain(i64 columns) { return std::max<i64>(1, GRAIN / std::max<i64>(1, columns)); }

}  // namespace spiral
