// Sums, means, maxima and minima over any axes of a float32 array of any strides; argmax and argmin.
//
// sum(x, axes, out): out (float32, C-contiguous, as many elements as the kept axes have) is overwritten;
// only its flat order counts, so reduced axes may be there with length 1 or not at all.
// Bytes moved: 4 per element of x. x is read in its memory order whatever the axes are.
//
// Accuracy: float lanes take at most 19 additions, then doubles go on (Higham 1993, blocked summation),
// so the error does not grow with the length. Blocks depend on shapes only and tiles are added in their
// order: the same bits for any number of threads. NaN wins every maximum and minimum, as in NumPy.
#include "native.h"
#include "reduce_rows.h"

#include <limits>

namespace spiral {
namespace {
using namespace reduction;

template <class Total>
inline float result(Total t, double divisor) {
  return divisor == 1.0 ? (float)t : (float)((double)t / divisor);
}

// ---------------------------------------------------------------- axes
// Some axes with their strides in x and in out; `count` places are walked through like digits.
struct Axes {
  int nd = 0;
  i64 count = 1, n[NPY_MAXDIMS], sx[NPY_MAXDIMS], so[NPY_MAXDIMS];
  void push(i64 length, i64 x, i64 o) {
    n[nd] = length;
    sx[nd] = x;
    so[nd] = o;
    nd++;
    count *= length;
  }
};

struct Walk {
  const Axes& axes;
  i64 index[NPY_MAXDIMS], x = 0, o = 0;
  Walk(const Axes& a, i64 at) : axes(a) {
    for (int d = a.nd - 1; d >= 0; d--) {
      index[d] = at % a.n[d];
      at /= a.n[d];
      x += index[d] * a.sx[d];
      o += index[d] * a.so[d];
    }
  }
  void next() {
    for (int d = axes.nd - 1; d >= 0; d--) {
      x += axes.sx[d];
      o += axes.so[d];
      if (++index[d] < axes.n[d]) return;
      x -= axes.n[d] * axes.sx[d];
      o -= axes.n[d] * axes.so[d];
      index[d] = 0;
    }
  }
};

// x in its memory order: the innermost axis apart, the others kept or reduced
struct Plan {
  Axes kept, reduced;
  bool inner_reduced = true;
  i64 inner = 1, inner_x = 1, inner_o = 0;
};

struct Axis {
  i64 n, sx, so;
  bool reduced;
};

Plan make_plan(PyObject* x, const bool* reduced) {
  Axis list[NPY_MAXDIMS];
  int count = 0;
  i64 so = 1;
  for (int d = (int)ndim(x) - 1; d >= 0; d--) {
    i64 n = dims(x)[d];
    if (n != 1)
      list[count++] = {n, PyArray_STRIDE(arr(x), d) / (i64)sizeof(float), reduced[d] ? 0 : so, reduced[d]};
    if (!reduced[d]) so *= n;
  }
  // largest stride first; axes that repeat (stride 0) outermost, where they cost a second pass but no gather
  std::stable_sort(list, list + count, [](const Axis& a, const Axis& b) {
    i64 sa = a.sx < 0 ? -a.sx : a.sx, sb = b.sx < 0 ? -b.sx : b.sx;
    return sa == sb ? false : sa == 0 ? true : sb == 0 ? false : sa > sb;
  });
  int merged = 0;
  for (int i = 0; i < count; i++) {
    Axis& b = list[i];
    if (merged > 0) {
      Axis& a = list[merged - 1];
      if (a.reduced == b.reduced && a.sx == b.sx * b.n && a.so == b.so * b.n) {
        a = {a.n * b.n, b.sx, b.so, b.reduced};
        continue;
      }
    }
    list[merged++] = b;
  }
  Plan p;
  for (int i = 0; i + 1 < merged; i++)
    (list[i].reduced ? p.reduced : p.kept).push(list[i].n, list[i].sx, list[i].so);
  if (merged > 0) {
    const Axis& last = list[merged - 1];
    p.inner_reduced = last.reduced;
    p.inner = last.n;
    p.inner_x = last.sx;
    p.inner_o = last.so;
  }
  return p;
}

// ---------------------------------------------------------------- innermost axis reduced
// A unit is a row, or GRAIN elements of a long one. A tile has several outputs or a part of one.
template <class Op>
void reduce_rows(const Plan& p, const float* x, float* out, double divisor) {
  typedef typename Op::Total Total;
  const i64 length = std::min(p.inner, GRAIN), chunks = (p.inner + length - 1) / length;
  const i64 units = p.reduced.count * chunks, units_of_tile = std::max<i64>(1, GRAIN / length);
  const i64 outputs = p.kept.count, parts = (units + units_of_tile - 1) / units_of_tile;

  auto total_of = [&](const float* base, i64 lo, i64 hi) {  // units [lo, hi) of one output
    Total total = Op::zero;
    Walk w(p.reduced, lo / chunks);
    for (i64 u = lo, c = lo % chunks; u < hi; u++) {
      i64 at = c * length;
      Op::join(total, row<Op>(base + w.x + at * p.inner_x, p.inner_x, std::min(length, p.inner - at)));
      if (++c == chunks) {
        c = 0;
        w.next();
      }
    }
    return total;
  };
  if (parts == 1) {
    parallel_range(outputs, std::max<i64>(1, units_of_tile / units), [&](i64 lo, i64 hi) {
      if (units == 1 && p.kept.nd <= 1) {  // plain rows
        const i64 sx = p.kept.nd ? p.kept.sx[0] : 0, so = p.kept.nd ? p.kept.so[0] : 0;
        for (i64 i = lo; i < hi; i++)
          out[i * so] = result<Total>(row<Op>(x + i * sx, p.inner_x, p.inner), divisor);
        return;
      }
      Walk w(p.kept, lo);
      for (i64 i = lo; i < hi; i++, w.next()) out[w.o] = result(total_of(x + w.x, 0, units), divisor);
    });
    return;
  }
  Scratch scratch((size_t)(outputs * parts) * sizeof(Total));
  Total* partial = scratch.as<Total>();
  parallel_tiles(outputs * parts, [&](i64 t) {
    Walk w(p.kept, t / parts);
    i64 lo = t % parts * units_of_tile;
    partial[t] = total_of(x + w.x, lo, std::min(units, lo + units_of_tile));
  });
  Walk w(p.kept, 0);
  for (i64 i = 0; i < outputs; i++, w.next()) {
    Total total = Op::zero;
    for (i64 k = 0; k < parts; k++) Op::join(total, partial[i * parts + k]);
    out[w.o] = result(total, divisor);
  }
}

// ---------------------------------------------------------------- innermost axis kept
constexpr i64 COLUMNS = 1024;  // of one tile: accumulators stay in the L1 cache

// Eight rows at once, so that an accumulator is loaded and stored once for eight elements
template <class Op>
void eight_rows(const float* const* p, i64 width, float* acc, bool first) {
  const float *a = p[0], *b = p[1], *c = p[2], *d = p[3], *e = p[4], *f = p[5], *g = p[6], *h = p[7];
  auto pass = [&](auto start) {
    SPIRAL_INDEPENDENT
    for (i64 j = 0; j < width; j++) {
      float s = a[j], t = c[j], u = e[j], v = g[j];
      Op::join(s, b[j]);
      Op::join(t, d[j]);
      Op::join(u, f[j]);
      Op::join(v, h[j]);
      Op::join(s, t);
      Op::join(u, v);
      Op::join(s, u);
      if (!start.value) Op::join(s, acc[j]);
      acc[j] = s;
    }
  };
  first ? pass(std::true_type()) : pass(std::false_type());
}

// total[j] joins with column j of `rows` rows; w stands at the first of them
template <class Op>
void columns_of(const float* x, i64 stride, Walk w, i64 rows, i64 width, typename Op::Total* total) {
  typedef typename Op::Total Total;
  alignas(64) float acc[COLUMNS];
  i64 r = 0;
  while (stride == 1 && r + 8 <= rows) {
    // 16 groups of 8 rows, 19 additions, in float
    for (int group = 0; group < 16 && r + 8 <= rows; group++, r += 8) {
      const float* p[8];
      for (int k = 0; k < 8; k++, w.next()) p[k] = x + w.x;
      eight_rows<Op>(p, width, acc, group == 0);
    }
    SPIRAL_INDEPENDENT
    for (i64 j = 0; j < width; j++) Op::join(total[j], (Total)acc[j]);
  }
  for (; r < rows; r++, w.next()) {
    const float* a = x + w.x;
    SPIRAL_INDEPENDENT
    for (i64 j = 0; j < width; j++) Op::join(total[j], (Total)a[j * stride]);
  }
}

// The same for few columns that lie side by side in memory: k rows make one wide row, which the loops
// over columns like better, and whose columns are then added k by k.
template <class Op>
void narrow_columns_of(const float* x, i64 rows, i64 width, typename Op::Total* total) {
  typedef typename Op::Total Total;
  const i64 k = 256 / width, wide = k * width;
  Axes axes;
  axes.push(rows / k, wide, 0);
  Total sums[256];
  std::fill(sums, sums + wide, (Total)Op::zero);
  columns_of<Op>(x, 1, Walk(axes, 0), rows / k, wide, sums);
  for (i64 i = 0; i < wide; i++) Op::join(total[i % width], sums[i]);
  for (i64 i = rows / k * wide; i < rows * width; i++) Op::join(total[i % width], (Total)x[i]);
}

template <class Op>
void reduce_columns(const Plan& p, const float* x, float* out, double divisor) {
  typedef typename Op::Total Total;
  const i64 width = p.inner, block = std::min(width, COLUMNS), blocks = (width + block - 1) / block;
  const i64 rows = p.reduced.count, rows_of_tile = std::max<i64>(16, GRAIN / block / 8 * 8);
  const i64 outputs = p.kept.count, parts = (rows + rows_of_tile - 1) / rows_of_tile;
  const bool narrow = p.reduced.nd == 1 && p.inner_x == 1 && p.reduced.sx[0] == width && width <= 64;

  // rows [lo, hi) of column block b
  auto tile = [&](const float* base, i64 b, i64 lo, i64 hi, Total* total) {
    const i64 c = b * block, w = std::min(block, width - c);
    std::fill(total, total + w, (Total)Op::zero);
    if (narrow && (hi - lo) * width >= 512)
      narrow_columns_of<Op>(base + lo * width, hi - lo, width, total);
    else
      columns_of<Op>(base + c * p.inner_x, p.inner_x, Walk(p.reduced, lo), hi - lo, w, total);
  };
  auto finish = [&](float* o, const Total* total, i64 n) {
    for (i64 j = 0; j < n; j++) o[j * p.inner_o] = result(total[j], divisor);
  };
  if (parts == 1) {
    parallel_range(outputs * blocks, std::max<i64>(1, GRAIN / (rows * block)), [&](i64 lo, i64 hi) {
      Total total[COLUMNS];
      Walk w(p.kept, lo / blocks);
      for (i64 t = lo, b = lo % blocks; t < hi; t++) {
        tile(x + w.x, b, 0, rows, total);
        finish(out + w.o + b * block * p.inner_o, total, std::min(block, width - b * block));
        if (++b == blocks) {
          b = 0;
          w.next();
        }
      }
    });
    return;
  }
  Scratch scratch((size_t)(outputs * parts * width) * sizeof(Total));
  Total* partial = scratch.as<Total>();  // [output][part][column]
  parallel_tiles(outputs * parts * blocks, [&](i64 t) {
    const i64 b = t % blocks, part = t / blocks % parts, output = t / blocks / parts;
    const i64 lo = part * rows_of_tile, hi = std::min(rows, lo + rows_of_tile);
    tile(x + Walk(p.kept, output).x, b, lo, hi, partial + (output * parts + part) * width + b * block);
  });
  parallel_tiles(outputs * blocks, [&](i64 t) {
    const i64 c = t % blocks * block, w = std::min(block, width - c), output = t / blocks;
    Total* total = partial + output * parts * width + c;
    for (i64 k = 1; k < parts; k++) {
      const Total* more = total + k * width;
      SPIRAL_INDEPENDENT
      for (i64 j = 0; j < w; j++) Op::join(total[j], more[j]);
    }
    finish(out + Walk(p.kept, output).o + c * p.inner_o, total, w);
  });
}

// ---------------------------------------------------------------- calls
bool refuse(const char* name, const char* message) {
  PyErr_Format(PyExc_ValueError, "%s: %s", name, message);
  return false;
}

bool input_ok(const char* name, PyObject* x) {
  if (is_f32(x) && PyArray_ISBEHAVED_RO(arr(x))) return true;
  PyErr_Format(PyExc_TypeError, "%s: x must be an aligned float32 array", name);
  return false;
}

// marks the axes to reduce (None: all of them) and checks that out has the elements of the others
bool read_axes(const char* name, PyObject* x, PyObject* axes, PyObject* out, bool* reduced) {
  const int nd = (int)ndim(x);
  if (axes != Py_None && !PyTuple_Check(axes)) return refuse(name, "axes must be a tuple or None");
  for (int d = 0; d < nd; d++) reduced[d] = axes == Py_None;
  for (Py_ssize_t i = 0; axes != Py_None && i < PyTuple_GET_SIZE(axes); i++) {
    i64 axis = as_int(PyTuple_GET_ITEM(axes, i));
    if (axis == -1 && PyErr_Occurred()) return false;
    i64 d = axis < 0 ? axis + nd : axis;
    if (d < 0 || d >= nd || reduced[d]) {
      PyErr_Format(PyExc_ValueError,
                   "%s: axes %R of an array of %d dimensions: %lld is out of range or repeated", name, axes,
                   nd, (long long)axis);
      return false;
    }
    reduced[d] = true;
  }
  i64 kept = 1;
  for (int d = 0; d < nd; d++) kept *= reduced[d] ? 1 : dims(x)[d];
  if (!is_f32(out) || !PyArray_ISCARRAY(arr(out)) || size(out) != kept) {
    PyErr_Format(PyExc_ValueError, "%s: out must be a writable C-contiguous float32 array of %lld elements",
                 name, (long long)kept);
    return false;
  }
  return true;
}

template <class Op, bool MEAN>
PyObject* reduce(const char* name, PyObject* const* args, Py_ssize_t nargs) {
  bool reduced[NPY_MAXDIMS];
  if (!arity(name, nargs, 3, 3) || !input_ok(name, args[0])) return nullptr;
  PyObject *x = args[0], *out = args[2];
  if (!read_axes(name, x, args[1], out, reduced)) return nullptr;
  const i64 total = size(x), outputs = size(out);
  const float* from = data<const float>(x);
  float* to = data<float>(out);
  if (total == 0) {
    if (std::is_same<typename Op::Total, float>::value && outputs > 0) {
      refuse(name, "nothing to choose from: x has no elements along the reduced axes");
      return nullptr;
    }
    std::fill(to, to + outputs, MEAN ? std::numeric_limits<float>::quiet_NaN() : 0.f);
    Py_RETURN_NONE;
  }
  const double divisor = MEAN ? (double)(total / outputs) : 1.0;
  if (outputs == 1 && total <= GRAIN && contiguous(x)) {  // no plan for what is a row already
    to[0] = result(contiguous_row<Op>(from, total), divisor);
    Py_RETURN_NONE;
  }
  Plan plan = make_plan(x, reduced);
  {
    GilRelease gil(4.0 * (double)total);
    if (plan.inner_reduced)
      reduce_rows<Op>(plan, from, to, divisor);
    else
      reduce_columns<Op>(plan, from, to, divisor);
  }
  Py_RETURN_NONE;
}

PyObject* py_sum(PyObject*, PyObject* const* a, Py_ssize_t n) { return reduce<Sum, false>("sum", a, n); }
PyObject* py_mean(PyObject*, PyObject* const* a, Py_ssize_t n) { return reduce<Sum, true>("mean", a, n); }
PyObject* py_max(PyObject*, PyObject* const* a, Py_ssize_t n) {
  return reduce<Extreme<true>, false>("max", a, n);
}
PyObject* py_min(PyObject*, PyObject* const* a, Py_ssize_t n) {
  return reduce<Extreme<false>, false>("min", a, n);
}

// ---------------------------------------------------------------- argmax, argmin
// first place where `value` stands, which must be there; NaN is found too
i64 find(const float* x, i64 n, float value) {
  const bool nan = value != value;
  auto hit = [&](float v) { return nan ? v != v : v == value; };
  i64 i = 0;
  for (; i + 64 <= n; i += 64) {
    int any = 0;
    for (int k = 0; k < 64; k++) any |= hit(x[i + k]);
    if (any) break;
  }
  while (i < n && !hit(x[i])) i++;
  return i;
}

// rows of n elements each; long ones in parts, which are compared in their order
template <class Op>
void arg_rows(const float* x, i64 outer, i64 n, i64* out) {
  const i64 length = std::min<i64>(n, 4 * GRAIN), parts = (n + length - 1) / length;
  if (parts == 1) {
    parallel_range(outer, row_grain(n), [&](i64 lo, i64 hi) {
      for (i64 i = lo; i < hi; i++) out[i] = find(x + i * n, n, contiguous_row<Op>(x + i * n, n));
    });
    return;
  }
  Scratch scratch((size_t)(outer * parts) * sizeof(float));
  float* best = scratch.as<float>();
  parallel_tiles(outer * parts, [&](i64 t) {
    const i64 at = t % parts * length;
    best[t] = contiguous_row<Op>(x + t / parts * n + at, std::min(length, n - at));
  });
  for (i64 i = 0; i < outer; i++) {
    const i64 part = find(best + i * parts, parts, contiguous_row<Op>(best + i * parts, parts));
    const i64 at = part * length;
    out[i] = at + find(x + i * n + at, std::min(length, n - at), best[i * parts + part]);
  }
}

// x (outer, n, inner), over the middle axis; 256 columns and 2^24 rows at a time, so that places are exact
// int32
template <class Op>
void arg_columns(const float* x, i64 outer, i64 n, i64 inner, i64* out) {
  constexpr i64 width = 256;
  const i64 blocks = (inner + width - 1) / width;
  parallel_tiles(outer * blocks, [&](i64 t) {
    const i64 c = t % blocks * width, w = std::min(width, inner - c);
    const float* base = x + t / blocks * n * inner + c;
    i64* o = out + t / blocks * inner + c;
    float best[width];
    int32_t place[width];
    std::fill(o, o + w, (i64)0);
    std::copy(base, base + w, best);
    for (i64 start = 0; start < n; start += 1 << 24) {
      std::fill(place, place + w, -1);
      const i64 end = std::min(n, start + (1 << 24));
      for (i64 r = start; r < end; r++) {
        const float* a = base + r * inner;
        const int32_t here = (int32_t)(r - start);
        SPIRAL_INDEPENDENT
        for (i64 j = 0; j < w; j++) {
          float joined = best[j];
          Op::join(joined, a[j]);
          // it changed: greater, or the first NaN
          bool taken = (joined != best[j]) & (best[j] == best[j]);
          best[j] = taken ? joined : best[j];
          place[j] = taken ? here : place[j];
        }
      }
      for (i64 j = 0; j < w; j++) o[j] = place[j] >= 0 ? start + place[j] : o[j];
    }
  });
}

template <class Op>
PyObject* arg(const char* name, PyObject* const* args, Py_ssize_t nargs) {
  if (!arity(name, nargs, 3, 3) || !input_ok(name, args[0])) return nullptr;
  PyObject *x = args[0], *out = args[2];
  i64 outer = 1, n = size(x), inner = 1;
  if (args[1] != Py_None) {
    i64 axis = as_int(args[1]);
    if (axis == -1 && PyErr_Occurred()) return nullptr;
    if (axis < -ndim(x) || axis >= ndim(x)) {
      PyErr_Format(PyExc_ValueError, "%s: axis %lld is out of range for %lld dimensions", name,
                   (long long)axis, (long long)ndim(x));
      return nullptr;
    }
    axis += axis < 0 ? ndim(x) : 0;
    n = dims(x)[axis];
    for (i64 d = 0; d < axis; d++) outer *= dims(x)[d];
    for (i64 d = axis + 1; d < ndim(x); d++) inner *= dims(x)[d];
  }
  if (!is_array(out) || PyArray_TYPE(arr(out)) != NPY_INT64 || !PyArray_ISCARRAY(arr(out)) ||
      size(out) != outer * inner) {
    PyErr_Format(PyExc_ValueError, "%s: out must be a writable C-contiguous int64 array of %lld elements",
                 name, (long long)(outer * inner));
    return nullptr;
  }
  if (outer * inner == 0) Py_RETURN_NONE;
  if (n == 0) {
    refuse(name, "nothing to choose from: x has no elements along the axis");
    return nullptr;
  }
  Contiguous source(x);
  if (!source) return nullptr;
  {
    GilRelease gil(4.0 * (double)size(x));
    if (inner == 1)
      arg_rows<Op>(source.as<float>(), outer, n, data<i64>(out));
    else
      arg_columns<Op>(source.as<float>(), outer, n, inner, data<i64>(out));
  }
  Py_RETURN_NONE;
}

PyObject* py_argmax(PyObject*, PyObject* const* a, Py_ssize_t n) {
  return arg<Extreme<true>>("argmax", a, n);
}
PyObject* py_argmin(PyObject*, PyObject* const* a, Py_ssize_t n) {
  return arg<Extreme<false>>("argmin", a, n);
}
}  // namespace

PyMethodDef reduce_methods[] = {
    {"sum", (PyCFunction)(void*)py_sum, METH_FASTCALL, "sum(x, axes, out)"},
    {"mean", (PyCFunction)(void*)py_mean, METH_FASTCALL, "mean(x, axes, out)"},
    {"max", (PyCFunction)(void*)py_max, METH_FASTCALL, "max(x, axes, out)"},
    {"min", (PyCFunction)(void*)py_min, METH_FASTCALL, "min(x, axes, out)"},
    {"argmax", (PyCFunction)(void*)py_argmax, METH_FASTCALL, "argmax(x, axis | None, out: int64)"},
    {"argmin", (PyCFunction)(void*)py_argmin, METH_FASTCALL, "argmin(x, axis | None, out: int64)"},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace spiral
