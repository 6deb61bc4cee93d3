// Rows of a table by index, and the gradient of the table.
//
// forward   y overwritten; 8 bytes per element of y.
// backward  dw overwritten: every row of it is the sum, in the order of the positions, of the rows of g
//           that point to it, 0 without any; 4 bytes per element of g and of dw. Positions are first
//           sorted by index (counting sort), so that each row of dw is written by one tile, once: no
//           atomics, no zeroing before, the same bits for any number of threads.
#include "native.h"
#include "lanes.h"

namespace spiral {
namespace {
bool check_indices(const char* name, const i64* idx, i64 n, i64 rows) {
  for (i64 i = 0; i < n; i++) {
    if (idx[i] >= 0 && idx[i] < rows) continue;
    PyErr_Format(PyExc_IndexError, "%s: expected indices in [0, %lld); received %lld at flat position %lld",
                 name, (long long)rows, (long long)idx[i], (long long)i);
    return false;
  }
  return true;
}

bool same_count(const char* name, PyObject* idx, PyObject* values, i64 columns) {
  if (size(values) == size(idx) * columns) return true;
  PyErr_Format(PyExc_ValueError, "%s: expected %lld rows of %lld elements; received %lld elements", name,
               (long long)size(idx), (long long)columns, (long long)size(values));
  return false;
}

PyObject* embedding(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("embedding", count, 3, 3)) return nullptr;
  Contiguous w(args[0]), index(args[1]);
  if (!w || !index) return nullptr;
  const i64 rows = dim(args[0], 0), n = dim(args[0], 1), positions = size(args[1]);
  const i64* idx = index.as<i64>();
  const float* from = w.as<float>();
  float* to = data<float>(args[2]);
  if (!same_count("embedding", args[1], args[2], n) || !check_indices("embedding", idx, positions, rows))
    return nullptr;
  GilRelease nogil(8.0 * (double)positions * (double)n);
  parallel_range(positions, row_grain(n), [&](i64 lo, i64 hi) {
    for (i64 i = lo; i < hi; i++) {
      const float* row = from + idx[i] * n;  // memcpy costs a call and a choice per row
      for_lanes(0, n, [&](auto io, i64 j) { io.store(to + i * n + j, io.load(row + j)); });
    }
  });
  Py_RETURN_NONE;
}

// order: the positions sorted by index, equal ones as they came; start[v]: where those of v begin
void sort_positions(const i64* idx, i64 positions, i64 rows, i64* start, i64* order) {
  std::fill_n(start, rows + 1, (i64)0);
  for (i64 i = 0; i < positions; i++) start[idx[i] + 1]++;
  for (i64 v = 0; v < rows; v++) start[v + 1] += start[v];
  // start[v] moves to the end of v while it is filled, which is the start of v + 1: shift back after
  for (i64 i = 0; i < positions; i++) order[start[idx[i]]++] = i;
  for (i64 v = rows; v > 0; v--) start[v] = start[v - 1];
  start[0] = 0;
}

// columns [lo, hi) of one row of dw
void sum_rows(const float* g, const i64* order, i64 n_rows, i64 columns, i64 lo, i64 hi,
              float* __restrict out) {
  if (n_rows == 0) {
    std::fill(out + lo, out + hi, 0.f);
    return;
  }
  memcpy(out + lo, g + order[0] * columns + lo, (size_t)(hi - lo) * 4);
  i64 k = 1;
  for (; k + 4 <= n_rows; k += 4) {  // four at a time: the row of dw is read and written a quarter as often
    const float *a = g + order[k] * columns, *b = g + order[k + 1] * columns;
    const float *c = g + order[k + 2] * columns, *d = g + order[k + 3] * columns;
    for (i64 j = lo; j < hi; j++) out[j] += (a[j] + b[j]) + (c[j] + d[j]);
  }
  for (; k < n_rows; k++) {
    const float* a = g + order[k] * columns;
    for (i64 j = lo; j < hi; j++) out[j] += a[j];
  }
}

PyObject* embedding_grad(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("embedding_grad", count, 3, 3)) return nullptr;
  Contiguous g(args[0]), index(args[1]);
  if (!g || !index) return nullptr;
  const i64 rows = dim(args[2], 0), n = dim(args[2], 1), positions = size(args[1]);
  const i64* idx = index.as<i64>();
  const float* from = g.as<float>();
  float* dw = data<float>(args[2]);
  const char* name = "embedding_grad";
  if (!same_count(name, args[1], args[0], n) || !check_indices(name, idx, positions, rows)) return nullptr;
  Scratch mem((size_t)(rows + 1 + positions) * 8);
  if (!mem.p) return PyErr_NoMemory();
  i64 *start = mem.as<i64>(), *order = start + rows + 1;
  GilRelease nogil(4.0 * (double)(positions + rows) * (double)n);
  sort_positions(idx, positions, rows, start, order);
  // Tiles: a share of the work (rows of dw and of g) times a block of columns, as one frequent index
  // must not end up with one thread. A row belongs to the share its first unit of work falls into.
  const i64 block = 256, blocks = (n + block - 1) / block, work = rows + positions;
  const i64 shares = std::max<i64>(1, std::min<i64>(64, work * std::min(n, block) / GRAIN));
  auto first_row = [&](i64 share) {  // the first v with v + start[v] >= share / shares of the work
    i64 target = work * share / shares, lo = 0, hi = rows;
    while (lo < hi) {
      i64 mid = (lo + hi) / 2;
      if (mid + start[mid] < target)
        lo = mid + 1;
      else
        hi = mid;
    }
    return lo;
  };
  parallel_tiles(shares * blocks, [&](i64 t) {
    i64 share = t / blocks, lo = t % blocks * block, hi = std::min(n, lo + block);
    for (i64 v = first_row(share), end = first_row(share + 1); v < end; v++)
      sum_rows(from, order + start[v], start[v + 1] - start[v], n, lo, hi, dw + v * n);
  });
  Py_RETURN_NONE;
}
}  // namespace

PyMethodDef embedding_methods[] = {
    {"embedding", (PyCFunction)(void*)embedding, METH_FASTCALL,
     "embedding(w (V, C), idx (...) int64, y (..., C))"},
    {"embedding_grad", (PyCFunction)(void*)embedding_grad, METH_FASTCALL,
     "embedding_grad(g (..., C), idx (...) int64, dw (V, C))"},
    {nullptr, nullptr, 0, nullptr}};
}  // namespace spiral
