// Joining arrays along an axis.
//
// Contract: y is overwritten; it has the dtype of every input and the sum of their lengths along the axis. Inputs
// may have any strides (those that are not C-contiguous are copied first). Bytes: each element read and written
// once. Rows are cut into tiles by the shape alone; NumPy does the same on one thread, at a third of the speed
// for the short rows that a joined gradient has (2026-11).
#include <memory>
#include <vector>

#include "native.h"

namespace spiral {
namespace {
// concat(arrays: list, axis, y)
PyObject* concat(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("concat", count, 3, 3)) return nullptr;
  PyObject *list = args[0], *y = args[2];
  i64 axis = as_int(args[1]);
  if (PyErr_Occurred()) return nullptr;
  if (!PyList_Check(list) || !is_array(y) || !contiguous(y)) {
    PyErr_SetString(PyExc_TypeError, "concat: expected (list of arrays, axis, C-contiguous array)");
    return nullptr;
  }
  const i64 n = PyList_GET_SIZE(list), item = PyArray_ITEMSIZE(arr(y));
  if (axis < 0) axis += ndim(y);
  if (axis < 0 || axis >= ndim(y)) {
    PyErr_Format(PyExc_ValueError, "concat: there is no axis %lld", (long long)axis);
    return nullptr;
  }
  i64 outer = 1, inner = item;
  for (i64 i = 0; i < axis; i++) outer *= dims(y)[i];
  for (i64 i = axis + 1; i < ndim(y); i++) inner *= dims(y)[i];
  struct Piece {
    std::unique_ptr<Contiguous> array;
    const char* from;
    i64 bytes, at;
  };
  std::vector<Piece> pieces;
  i64 row = 0;
  for (i64 i = 0; i < n; i++) {
    PyObject* a = PyList_GET_ITEM(list, i);
    if (!is_array(a) || ndim(a) != ndim(y) || PyArray_TYPE(arr(a)) != PyArray_TYPE(arr(y)) ||
        size(a) * item != outer * inner * dims(a)[axis]) {
      PyErr_Format(PyExc_ValueError, "concat: array %lld does not fit the result", (long long)i);
      return nullptr;
    }
    auto held = std::make_unique<Contiguous>(a);
    if (!held->o) return nullptr;
    const i64 bytes = inner * dims(a)[axis];
    const char* from = held->as<char>();
    if (bytes > 0) pieces.push_back({std::move(held), from, bytes, row});
    row += bytes;
  }
  if (row != inner * dims(y)[axis]) {
    PyErr_SetString(PyExc_ValueError, "concat: the lengths do not add up to the result's");
    return nullptr;
  }
  char* to = data<char>(y);
  GilRelease nogil((double)(outer * row));
  parallel_range(outer, std::max<i64>(1, 4 * GRAIN / std::max<i64>(1, row)), [&](i64 lo, i64 hi) {
    for (i64 r = lo; r < hi; r++)
      for (const Piece& p : pieces) memcpy(to + r * row + p.at, p.from + r * p.bytes, (size_t)p.bytes);
  });
  Py_RETURN_NONE;
}
}  // namespace

PyMethodDef concat_methods[] = {
    {"concat", (PyCFunction)(void*)concat, METH_FASTCALL, "concat(arrays: list, axis, y): join along an axis"},
    {nullptr, nullptr, 0, nullptr}};
}  // namespace spiral
