// Two-dimensional convolution (cross-correlation), its gradients, and pooling; channels first.
//
// Contract: y, dx, dw, db are overwritten. x (n, c, h, w), weight (o, c / groups, kh, kw). Three ways:
//   direct   conv_direct.h, when a group has at least MIN_CHANNELS outputs. dx at stride 1 is the same
//            product with channels swapped and taps mirrored, on g padded by dil * (k - 1) - pad.
//   1 x 1    stride 1, no padding: one matrix product per sample, nothing is copied.
//   im2col   the rest: the taps of one sample as a matrix, then a product (Chellapilla et al. 2006).
// dw: samples are dealt to a number of tiles that depends on shapes only; each has its own sum, and
// the sums are added in tile order. Nothing is moved that is not read anyway, except g and x padded
// (x only where there is padding or a stride): 8 bytes per element.
// Measured, x (64, 32, 26, 26), 64 filters of 3 x 3, one core that multiplies and adds at 188 GF/s: y 137,
// dw 148, dx 118 GF/s (a seventh of its products are with padding); by im2col 112, 101 and 107. (2026-11)
#include <atomic>

#include "conv_direct.h"
#include "gemm.h"
#include "native.h"
#include "pool2d.h"

namespace spiral {
namespace {
constexpr i64 MIN_CHANNELS = 6;            // with fewer, more than half of the lanes would be idle
constexpr i64 PARTIAL_BYTES = 64ll << 20;  // room for the partial sums of dw

bool is_1x1(const Conv& a) { return a.kh * a.kw == 1 && a.sh * a.sw == 1 && a.ph + a.pw == 0; }
bool is_direct(const Conv& a) {
  return !is_1x1(a) && a.og() >= MIN_CHANNELS &&
         a.cg() * Planes(a, a.oh).plane <= INT32_MAX;  // offsets are int32
}

// ---------------------------------------------------------------- im2col
// f(column row, tap's plane, u offset, v offset) for every tap of a group
template <class F>
void each_tap(const Conv& a, F f) {
  for (i64 k = 0; k < a.taps(); k++)
    f(k, k / (a.kh * a.kw), k / a.kw % a.kh * a.dh - a.ph, k % a.kw * a.dw - a.pw);
}

// f(output row, output column range, input row) of the pixels whose input (i * sh + u, j * sw + v) exists
template <class F>
void each_row(const Conv& a, i64 u, i64 v, F f) {
  i64 lo = v >= 0 ? 0 : (-v + a.sw - 1) / a.sw;
  i64 hi = a.w - v <= 0 ? 0 : (a.w - v + a.sw - 1) / a.sw;
  lo = std::min(lo, a.ow), hi = std::max(lo, std::min(hi, a.ow));
  for (i64 i = 0; i < a.oh; i++) {
    i64 row = i * a.sh + u;
    bool inside = row >= 0 && row < a.h;
    f(i, inside ? lo : 0, inside ? hi : 0, row);
  }
}

// col (taps, pixels) from one sample's group
void im2col(const Conv& a, const float* x, float* col) {
  each_tap(a, [&](i64 k, i64 c, i64 u, i64 v) {
    each_row(a, u, v, [&](i64 i, i64 lo, i64 hi, i64 row) {
      float* to = col + k * a.pixels() + i * a.ow;
      const float* from = x + (c * a.h + row) * a.w + v;
      std::fill(to, to + lo, 0.f);
      for (i64 j = lo; j < hi; j++) to[j] = from[j * a.sw];
      std::fill(to + hi, to + a.ow, 0.f);
    });
  });
}

void col2im(const Conv& a, const float* col, float* dx) {
  std::fill(dx, dx + a.cg() * a.h * a.w, 0.f);
  each_tap(a, [&](i64 k, i64 c, i64 u, i64 v) {
    each_row(a, u, v, [&](i64 i, i64 lo, i64 hi, i64 row) {
      const float* from = col + k * a.pixels() + i * a.ow;
      float* to = dx + (c * a.h + row) * a.w + v;
      for (i64 j = lo; j < hi; j++) to[j * a.sw] += from[j];
    });
  });
}

// Every sample and group in a tile of its own: f(x offset, y offset, group, col), col (taps, pixels)
template <class F>
bool each_sample(const Conv& a, F f) {
  std::atomic<bool> enough{true};
  parallel_tiles(a.n * a.groups, [&](i64 t) {
    i64 sample = t / a.groups, group = t % a.groups;
    Scratch col((size_t)(a.taps() * a.pixels()) * 4);
    if (!col.p)
      enough = false;
    else
      f((sample * a.c + group * a.cg()) * a.h * a.w, (sample * a.o + group * a.og()) * a.pixels(), group,
        col.as<float>());
  });
  return enough;
}

bool forward(const Conv& a, const float* x, const float* w, const float* bias, Activation act, float* y) {
  if (is_direct(a)) return direct(a, x, w, false, bias, act, y);
  return each_sample(a, [&](i64 at_x, i64 at_y, i64 group, float* col) {
    const float* b = x + at_x;
    if (!is_1x1(a)) im2col(a, b, col), b = col;
    gemm_one(false, false, a.og(), a.pixels(), a.taps(), 1.f, w + group * a.og() * a.taps(), a.taps(), b,
             a.pixels(), 0.f, y + at_y, a.pixels());
    if (!bias && act == ACT_NONE) return;
    for (i64 o = 0; o < a.og(); o++) {
      float *row = y + at_y + o * a.pixels(), add = bias ? bias[group * a.og() + o] : 0.f;
      float least = act == ACT_RELU ? 0.f : -std::numeric_limits<float>::infinity();
      for (i64 i = 0; i < a.pixels(); i++) {
        float v = row[i] + add;
        row[i] = v < least ? least : v;  // NaN stays NaN
      }
    }
  });
}

bool input_grad(const Conv& a, const float* g, const float* w, float* dx) {
  i64 ph = a.dh * (a.kh - 1) - a.ph, pw = a.dw * (a.kw - 1) - a.pw;
  Conv t{a.n, a.o, a.oh, a.ow, a.c, a.kh, a.kw, a.h, a.w, 1, 1, ph, pw, a.dh, a.dw, a.groups};
  if (!is_1x1(a) && a.sh * a.sw == 1 && ph >= 0 && pw >= 0 && is_direct(t))
    return direct(t, g, w, true, nullptr, ACT_NONE, dx);
  return each_sample(a, [&](i64 at_x, i64 at_y, i64 group, float* col) {
    float* to = is_1x1(a) ? dx + at_x : col;
    gemm_one(true, false, a.taps(), a.pixels(), a.og(), 1.f, w + group * a.og() * a.taps(), a.taps(),
             g + at_y, a.pixels(), 0.f, to, a.pixels());
    if (!is_1x1(a)) col2im(a, col, dx + at_x);
  });
}

void bias_grad(const Conv& a, const float* g, float* db) {
  parallel_range(a.o, std::max<i64>(1, GRAIN / std::max<i64>(1, a.n * a.pixels())), [&](i64 lo, i64 hi) {
    for (i64 o = lo; o < hi; o++) {
      float total = 0.f;
      for (i64 n = 0; n < a.n; n++) {
        const float* p = g + (n * a.o + o) * a.pixels();
        float s = 0.f;
        for (i64 i = 0; i < a.pixels(); i++) s += p[i];
        total += s;
      }
      db[o] = total;
    }
  });
}

// dw over samples [lo, hi) of one group, added to sum: (block, tap, lane) when direct, else (og, taps)
void weight_grad_tile(const Conv& a, const Blocks& blocks, const int32_t* off, const float* x, const float* g,
                      i64 group, i64 lo, i64 hi, float* mem, float* sum) {
  Planes planes(a, a.oh);
  for (i64 n = lo; n < hi; n++) {
    const float* xn = x + (n * a.c + group * a.cg()) * a.h * a.w;
    const float* gn = g + (n * a.o + group * a.og()) * a.pixels();
    if (is_direct(a)) {
      direct_weight_grad(a, blocks, planes, off, xn, gn, mem, sum);
    } else {
      if (!is_1x1(a)) im2col(a, xn, mem);
      gemm_one(false, true, a.og(), a.taps(), a.pixels(), 1.f, gn, a.pixels(), is_1x1(a) ? xn : mem,
               a.pixels(), 1.f, sum, a.taps());
    }
  }
}

// sums[group][deal][part] added up over the deals, in their order, into the first of them
void add_deals(i64 groups, i64 deals, i64 part, float* sums) {
  parallel_range(groups * part, std::max<i64>(1, GRAIN / deals), [&](i64 lo, i64 hi) {
    while (lo < hi) {
      i64 n = std::min(hi - lo, part - lo % part);
      float* first = sums + lo / part * deals * part + lo % part;
      for (i64 d = 1; d < deals; d++)
        for (i64 i = 0; i < n; i++) first[i] += first[d * part + i];
      lo += n;
    }
  });
}

bool weight_grad(const Conv& a, const float* x, const float* g, float* dw) {
  Blocks blocks(a.og());
  Planes planes(a, a.oh);
  i64 k = a.taps(), width = blocks.width(), part = is_direct(a) ? blocks.count * k * width : a.og() * k;
  i64 room = std::max<i64>(2, PARTIAL_BYTES / std::max<i64>(4, part * a.groups * 4));
  i64 deals = std::max<i64>(1, std::min({a.n, (i64)16, room})), per = (a.n + deals - 1) / deals;
  i64 need = is_direct(a) ? planes.scratch(a) + gradient_rows(a, blocks) * a.ow * width : k * a.pixels();
  Scratch sums((size_t)(a.groups * deals * part) * 4), off((size_t)k * 4);
  if (!sums.p || !off.p) return false;
  if (is_direct(a)) planes.offsets(a, off.as<int32_t>());
  std::atomic<bool> enough{true};
  parallel_tiles(a.groups * deals, [&](i64 t) {
    float* sum = sums.as<float>() + t * part;
    std::fill(sum, sum + part, 0.f);
    Scratch mem((size_t)need * 4);
    if (!mem.p)
      enough = false;
    else
      weight_grad_tile(a, blocks, off.as<int32_t>(), x, g, t / deals, t % deals * per,
                       std::min(a.n, (t % deals + 1) * per), mem.as<float>(), sum);
  });
  add_deals(a.groups, deals, part, sums.as<float>());
  parallel_tiles(a.groups, [&](i64 group) {
    const float* sum = sums.as<float>() + group * deals * part;
    float* to = dw + group * a.og() * k;
    if (!is_direct(a)) std::copy(sum, sum + part, to);
    for (i64 b = 0; is_direct(a) && b < blocks.count; b++)
      transpose(sum + b * k * width, width, k, std::min(width, a.og() - b * width), to + b * width * k, k,
                as_is);
  });
  return enough;
}

// ---------------------------------------------------------------- calls
// Reads stride, padding, dilation, groups from seven arguments and shapes from arrays; false with an
// exception when they do not belong together.
bool geometry(Conv& a, const npy_intp* x, const npy_intp* w, const npy_intp* y, PyObject* const* args) {
  i64 v[7];
  for (int i = 0; i < 7; i++) v[i] = as_int(args[i]);
  if (PyErr_Occurred()) return false;
  a = Conv{x[0], x[1], x[2], x[3], w[0], w[2], w[3], y[2], y[3], v[0], v[1], v[2], v[3], v[4], v[5], v[6]};
  auto length = [](i64 n, i64 k, i64 s, i64 p, i64 d) { return (n + 2 * p - d * (k - 1) - 1) / s + 1; };
  bool ok = a.groups > 0 && a.sh > 0 && a.sw > 0 && a.ph >= 0 && a.pw >= 0 && a.dh > 0 && a.dw > 0 &&
            a.kh > 0 && a.kw > 0 && a.c == w[1] * a.groups && a.o % a.groups == 0 && y[0] == a.n &&
            y[1] == a.o && a.oh > 0 && a.ow > 0 && a.oh == length(a.h, a.kh, a.sh, a.ph, a.dh) &&
            a.ow == length(a.w, a.kw, a.sw, a.pw, a.dw);
  if (!ok)
    PyErr_Format(
        PyExc_ValueError,
        "conv2d: x (%lld, %lld, %lld, %lld), weight (%lld, %lld, %lld, %lld) and y (%lld, %lld, %lld, %lld) "
        "do not belong together",
        (long long)x[0], (long long)x[1], (long long)x[2], (long long)x[3], (long long)w[0], (long long)w[1],
        (long long)w[2], (long long)w[3], (long long)y[0], (long long)y[1], (long long)y[2], (long long)y[3]);
  return ok;
}

bool four_axes(PyObject* o, const char* name, bool optional = true) {
  if ((optional && o == Py_None) || (is_f32(o) && ndim(o) == 4)) return true;
  PyErr_Format(PyExc_TypeError, "%s: expected a float32 array with 4 axes, received %.80s", name,
               Py_TYPE(o)->tp_name);
  return false;
}

// x, w, b, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w, groups, act, y
PyObject* conv2d(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("conv2d", count, 12, 12)) return nullptr;
  PyObject* out = args[11];
  for (PyObject* o : {args[0], args[1], out})
    if (!four_axes(o, "conv2d", false)) return nullptr;
  Contiguous x(args[0]), w(args[1]), b(args[2]);
  Conv a;
  if (!x || !w || !b || !geometry(a, dims(args[0]), dims(args[1]), dims(out), args + 3)) return nullptr;
  i64 act = as_int(args[10]);
  if (act < 0 || act > 1 || (b.o != Py_None && size(b.o) != a.o)) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "conv2d: expected a bias (o,) and act 0 or 1");
    return nullptr;
  }
  bool enough;
  {
    GilRelease nogil(a.flops());
    enough = forward(a, x.as<float>(), w.as<float>(), b.as<float>(), (Activation)act, data<float>(out));
  }
  if (!enough) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

// g, x, w, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w, groups, dx, dw, db
PyObject* conv2d_grad(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("conv2d_grad", count, 13, 13)) return nullptr;
  PyObject *x_ = args[1], *w_ = args[2], *dx = args[10], *dw = args[11], *db = args[12];
  for (PyObject* o : {args[0], x_, w_, dx, dw})
    if (!four_axes(o, "conv2d_grad")) return nullptr;
  if (args[0] == Py_None || (dx != Py_None && w_ == Py_None) || (dw != Py_None && x_ == Py_None)) {
    PyErr_SetString(PyExc_ValueError,
                    "conv2d_grad: dx needs g and w, dw needs g and x, db needs g; received None");
    return nullptr;
  }
  Contiguous g(args[0]), x(x_), w(w_);
  if (!g || !x || !w) return nullptr;
  Conv a{dim(g.o, 0), 0, 0, 0, dim(g.o, 1), 1, 1, dim(g.o, 2), dim(g.o, 3), 1, 1, 0, 0, 1, 1, 1};
  bool filters = dx != Py_None || dw != Py_None;
  const npy_intp *xs = dims(dx != Py_None ? dx
                            : filters     ? x_
                                          : g.o),
                 *ws = dims(dw != Py_None ? dw
                            : filters     ? w_
                                          : g.o);
  if (filters && !geometry(a, xs, ws, dims(g.o), args + 3)) return nullptr;
  auto same = [](PyObject* p, const npy_intp* shape) {
    return p == Py_None || std::equal(shape, shape + 4, dims(p));
  };
  if ((filters && (!same(x_, xs) || !same(w_, ws))) || (db != Py_None && (!is_f32(db) || size(db) != a.o))) {
    PyErr_SetString(PyExc_ValueError, "conv2d_grad: gradients must have the shapes of what they belong to");
    return nullptr;
  }
  bool enough = true;
  {
    GilRelease nogil(filters ? a.flops() : (double)size(g.o));
    if (dx != Py_None) enough = enough && input_grad(a, g.as<float>(), w.as<float>(), data<float>(dx));
    if (dw != Py_None) enough = enough && weight_grad(a, x.as<float>(), g.as<float>(), data<float>(dw));
    if (db != Py_None) bias_grad(a, g.as<float>(), data<float>(db));
  }
  if (!enough) return PyErr_NoMemory();
  Py_RETURN_NONE;
}
}  // namespace

PyMethodDef conv_methods[] = {
    {"conv2d", (PyCFunction)(void*)conv2d, METH_FASTCALL,
     "conv2d(x, w, b|None, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w, groups, act, y): act 0 none, 1 "
     "relu"},
    {"conv2d_grad", (PyCFunction)(void*)conv2d_grad, METH_FASTCALL,
     "conv2d_grad(g, x|None, w|None, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w, groups, dx|None, "
     "dw|None, "
     "db|None)"},
    {"max_pool2d", (PyCFunction)(void*)max_pool2d, METH_FASTCALL,
     "max_pool2d(x, kh, kw, sh, sw, ph, pw, y, idx): idx int32, position in the H x W plane"},
    {"max_pool2d_grad", (PyCFunction)(void*)max_pool2d_grad, METH_FASTCALL, "max_pool2d_grad(g, idx, dx)"},
    {"avg_pool2d", (PyCFunction)(void*)avg_pool2d, METH_FASTCALL,
     "avg_pool2d(x, kh, kw, sh, sw, ph, pw, count_include_pad, y)"},
    {"avg_pool2d_grad", (PyCFunction)(void*)avg_pool2d_grad, METH_FASTCALL,
     "avg_pool2d_grad(g, kh, kw, sh, sw, ph, pw, count_include_pad, dx)"},
    {nullptr, nullptr, 0, nullptr}};
}  // namespace spiral
