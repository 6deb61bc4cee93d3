// The extension module: buffer-pool arrays, thread control, and the methods of every kernel file.
#define SPIRAL_NATIVE_MAIN
#include "native.h"

#include "gemm.h"

#ifndef SPIRAL_ISA
#error "SPIRAL_ISA names the instruction set: baseline, avx2 or avx512"
#endif
#define SPIRAL_STR2(x) #x
#define SPIRAL_STR(x) SPIRAL_STR2(x)
#define SPIRAL_JOIN2(a, b) a##b
#define SPIRAL_JOIN(a, b) SPIRAL_JOIN2(a, b)

namespace spiral {
// one per kernel file; may be narrowed on the command line to try one file alone
#ifndef SPIRAL_KERNEL_FILES
#define SPIRAL_KERNEL_FILES(X) \
  X(elementwise)               \
  X(reduce)                    \
  X(linear)                    \
  X(norm)                      \
  X(softmax)                   \
  X(loss)                      \
  X(embedding)                 \
  X(activation)                \
  X(attention)                 \
  X(rope)                      \
  X(conv)                      \
  X(optim)                     \
  X(random)                    \
  X(concat)                    \
  X(call)
#endif
#define X(name) extern PyMethodDef name##_methods[];
SPIRAL_KERNEL_FILES(X)
#undef X

// ---------------------------------------------------------------- pooled arrays
namespace {
// Base object of a pooled array. The block returns to the pool when the last view dies.
struct Block {
  PyObject_HEAD
  void* data;
  size_t bytes;
  uint64_t stamp;  // when an op that declares `mutates` last wrote here; see autograd
};

void block_dealloc(PyObject* self) {
  Block* b = (Block*)self;
  pool_free(b->data, b->bytes);
  PyObject_Free(self);
}

PyTypeObject BlockType = {PyVarObject_HEAD_INIT(nullptr, 0)};

// the Block at the end of an array's chain of bases, or nullptr for memory that is not ours
Block* block_of(PyObject* a) {
  PyObject* o = a;
  while (o && PyArray_Check(o)) o = PyArray_BASE(arr(o));
  return o && Py_TYPE(o) == &BlockType ? (Block*)o : nullptr;
}
}  // namespace

bool stamp_of(PyObject* array, uint64_t* stamp) {
  Block* b = block_of(array);
  *stamp = b ? b->stamp : 0;
  return b != nullptr;
}

PyObject* new_array(int nd, const npy_intp* shape, PyArray_Descr* descr) {
  size_t bytes = (size_t)PyDataType_ELSIZE(descr);
  for (int i = 0; i < nd; i++) {
    if (shape[i] < 0 || (shape[i] > 0 && bytes > (size_t)PTRDIFF_MAX / (size_t)shape[i])) {
      PyErr_SetString(PyExc_MemoryError, "array is larger than the address space");
      return nullptr;
    }
    bytes *= (size_t)shape[i];
  }
  Block* b = PyObject_New(Block, &BlockType);
  if (!b) return nullptr;
  b->bytes = bytes;
  b->stamp = 0;
  b->data = pool_alloc(bytes);
  if (!b->data) {
    Py_DECREF(b);
    PyErr_Format(PyExc_MemoryError, "out of memory: %zu bytes for one array", bytes);
    return nullptr;
  }
  Py_INCREF(descr);
  PyObject* a = PyArray_NewFromDescr(&PyArray_Type, descr, nd, (npy_intp*)shape, nullptr, b->data,
                                     NPY_ARRAY_CARRAY, nullptr);
  if (!a) {
    Py_DECREF(b);
    return nullptr;
  }
  if (PyArray_SetBaseObject(arr(a), (PyObject*)b) < 0) {
    Py_DECREF(a);
    return nullptr;
  }
  return a;
}

PyObject* new_array(int nd, const npy_intp* shape, int type_num) {
  PyArray_Descr* d = PyArray_DescrFromType(type_num);
  PyObject* a = new_array(nd, shape, d);
  Py_DECREF(d);
  return a;
}

PyObject* contiguous_ref(PyObject* o) {
  if (o == Py_None || contiguous(o)) {
    Py_INCREF(o);
    return o;
  }
  PyObject* a = new_array(PyArray_NDIM(arr(o)), PyArray_DIMS(arr(o)), PyArray_DESCR(arr(o)));
  if (a && PyArray_CopyInto(arr(a), arr(o)) < 0) {
    Py_DECREF(a);
    return nullptr;
  }
  return a;
}

bool arity(const char* name, Py_ssize_t n, Py_ssize_t lo, Py_ssize_t hi) {
  if (n >= lo && n <= hi) return true;
  PyErr_Format(PyExc_TypeError, "%s: expected %zd to %zd arguments, received %zd", name, lo, hi, n);
  return false;
}

// ---------------------------------------------------------------- module functions
namespace {
// empty(shape: tuple, dtype: np.dtype) -> ndarray
PyObject* py_empty(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!arity("empty", n, 2, 2)) return nullptr;
  if (!PyTuple_Check(args[0]) || !PyArray_DescrCheck(args[1])) {
    PyErr_SetString(PyExc_TypeError, "empty: expected (tuple, dtype)");
    return nullptr;
  }
  npy_intp shape[NPY_MAXDIMS];
  Py_ssize_t nd = PyTuple_GET_SIZE(args[0]);
  if (nd > NPY_MAXDIMS) {
    PyErr_Format(PyExc_ValueError, "empty: at most %d dimensions, received %zd", NPY_MAXDIMS, nd);
    return nullptr;
  }
  for (Py_ssize_t i = 0; i < nd; i++) {
    shape[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(args[0], i));
    if (shape[i] == -1 && PyErr_Occurred()) return nullptr;
  }
  return new_array((int)nd, shape, (PyArray_Descr*)args[1]);
}

// contiguous(a) -> a itself when C-contiguous, else a pooled copy
PyObject* py_contiguous(PyObject*, PyObject* a) {
  if (!is_array(a)) {
    PyErr_SetString(PyExc_TypeError, "contiguous: expected an array");
    return nullptr;
  }
  return contiguous_ref(a);
}

// copy(a) -> pooled C-contiguous copy
PyObject* py_copy(PyObject*, PyObject* o) {
  if (!is_array(o)) {
    PyErr_SetString(PyExc_TypeError, "copy: expected an array");
    return nullptr;
  }
  PyObject* a = new_array(PyArray_NDIM(arr(o)), PyArray_DIMS(arr(o)), PyArray_DESCR(arr(o)));
  if (!a) return nullptr;
  if (contiguous(o)) {
    i64 bytes = PyArray_NBYTES(arr(o));
    const char* from = data<char>(o);
    char* to = data<char>(a);
    parallel_range(bytes, 1 << 20, [&](i64 lo, i64 hi) { memcpy(to + lo, from + lo, (size_t)(hi - lo)); });
  } else if (PyArray_CopyInto(arr(a), arr(o)) < 0) {
    Py_DECREF(a);
    return nullptr;
  }
  return a;
}

// stamp(a, t): notes that a's memory was overwritten at time t. False when the memory is not pooled.
PyObject* py_stamp(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!arity("stamp", n, 2, 2)) return nullptr;
  Block* b = block_of(args[0]);
  if (b) b->stamp = (uint64_t)as_int(args[1]);
  return PyBool_FromLong(b != nullptr);
}

// stamp_of(a) -> time of the last declared overwrite of a's memory, 0 when never
PyObject* py_stamp_of(PyObject*, PyObject* a) {
  Block* b = block_of(a);
  return PyLong_FromUnsignedLongLong(b ? b->stamp : 0);
}

PyObject* py_memory(PyObject*, PyObject*) {
  PoolStats s = pool_stats();
  return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K}", "live", s.live, "cached", s.cached, "peak", s.peak, "cap", s.cap,
                       "allocations", s.allocations, "reuses", s.reuses);
}
PyObject* py_reset_peak(PyObject*, PyObject*) {
  pool_reset_peak();
  Py_RETURN_NONE;
}
PyObject* py_trim(PyObject*, PyObject*) {
  pool_trim();
  Py_RETURN_NONE;
}
PyObject* py_set_pool_cap(PyObject*, PyObject* o) {
  unsigned long long v = PyLong_AsUnsignedLongLong(o);
  if (PyErr_Occurred()) return nullptr;
  pool_set_cap(v);
  Py_RETURN_NONE;
}
PyObject* py_set_num_threads(PyObject*, PyObject* o) {
  long n = PyLong_AsLong(o);
  if (n == -1 && PyErr_Occurred()) return nullptr;
  set_num_threads((int)n);
  Py_RETURN_NONE;
}
PyObject* py_num_threads(PyObject*, PyObject*) { return PyLong_FromLong(num_threads()); }
// set_cblas(address: int, long_ints: bool)
PyObject* py_set_cblas(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!arity("set_cblas", n, 2, 2)) return nullptr;
  void* p = PyLong_AsVoidPtr(args[0]);
  if (!p && PyErr_Occurred()) return nullptr;
  set_cblas_sgemm(p, as_bool(args[1]));
  Py_RETURN_NONE;
}
PyObject* py_gemm_kernel(PyObject*, PyObject*) { return PyUnicode_FromString(gemm_kernel_name()); }

PyMethodDef module_methods[] = {
    {"empty", (PyCFunction)(void*)py_empty, METH_FASTCALL, "empty(shape, dtype): uninitialised pooled array"},
    {"contiguous", py_contiguous, METH_O, "contiguous(a): a, or a pooled C-contiguous copy"},
    {"copy", py_copy, METH_O, "copy(a): pooled C-contiguous copy"},
    {"stamp", (PyCFunction)(void*)py_stamp, METH_FASTCALL, "stamp(a, t): note a declared overwrite"},
    {"stamp_of", py_stamp_of, METH_O, "stamp_of(a): time of the last declared overwrite"},
    {"memory", py_memory, METH_NOARGS, "memory(): buffer pool figures in bytes"},
    {"reset_peak", py_reset_peak, METH_NOARGS, "reset_peak()"},
    {"trim", py_trim, METH_NOARGS, "trim(): give cached blocks back"},
    {"set_pool_cap", py_set_pool_cap, METH_O, "set_pool_cap(bytes)"},
    {"set_num_threads", py_set_num_threads, METH_O, "set_num_threads(n)"},
    {"num_threads", py_num_threads, METH_NOARGS, "num_threads()"},
    {"set_cblas", (PyCFunction)(void*)py_set_cblas, METH_FASTCALL, "set_cblas(address, long_ints)"},
    {"gemm_kernel", py_gemm_kernel, METH_NOARGS, "gemm_kernel(): what products run on"},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module_def = {PyModuleDef_HEAD_INIT, "_native", "spiral's CPU kernels", -1, module_methods,
                          nullptr, nullptr, nullptr, nullptr};
}  // namespace
}  // namespace spiral

PyMODINIT_FUNC SPIRAL_JOIN(PyInit__native_, SPIRAL_ISA)() {
  using namespace spiral;
  import_array();
  BlockType.tp_name = "spiral.Block";
  BlockType.tp_basicsize = sizeof(Block);
  BlockType.tp_dealloc = block_dealloc;
  BlockType.tp_flags = Py_TPFLAGS_DEFAULT;
  BlockType.tp_doc = "Owner of one pooled memory block";
  if (PyType_Ready(&BlockType) < 0 || !call_ready()) return nullptr;
  PyObject* m = PyModule_Create(&module_def);
  if (!m) return nullptr;
#define X(name) \
  if (PyModule_AddFunctions(m, name##_methods) < 0) return nullptr;
  SPIRAL_KERNEL_FILES(X)
#undef X
  PyModule_AddStringConstant(m, "isa", SPIRAL_STR(SPIRAL_ISA));
  return m;
}
