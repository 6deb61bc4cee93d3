// Activation functions with their gradients, and gated ones.
//
// Elementwise; every output is overwritten and may be one of the inputs. Bytes per element: 8 for
// f(x), 12 for its gradient, 12 for f(a) * b, 20 for its two gradients. GELU (Hendrycks & Gimpel 2016) is
// x * Phi(x), or with `tanh` x * sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3), which is the same as
// x / 2 * (1 + tanh u) but keeps its digits for negative x. SiLU is x * sigmoid(x); SwiGLU and GEGLU
// (Shazeer 2020) multiply it, or GELU, by b.
#include "native.h"
#include "vmath.h"

namespace spiral {
namespace {
struct Value {
  Lanes y, slope;
};
struct Silu {
  static Lanes y(Lanes x) { return x * vsigmoid(x); }
  static Value both(Lanes x) {
    Logistic<Lanes> s = vlogistic(x);
    return {x * s.p, s.p * fmadd(x, s.rest, all<Lanes>(1.f))};
  }
  static Lanes slope(Lanes x) { return both(x).slope; }
};
#if defined(__AVX512F__)
// A function of |x| up to 7.87 by 32 polynomials of degree 6 about the multiples of 1/4, their coefficients
// looked up in registers: a third of the cost of vnormal() (0.23 ns against 0.64). Relative error of GELU:
// 2 ulp, for x < -5 up to 7, for x < -6 up to 51. Made once, by interpolation at Chebyshev nodes. 0 beyond,
// where the functions tabled here are below 1e-13.
struct Table {
  Lanes c[7][2];
  template <class F>
  explicit Table(F f) {
    for (int k = 0; k < 32; k++) {
      double z[7], d[7], p[7] = {};
      for (int i = 0; i < 7; i++) {
        z[i] = 0.125 * std::cos(M_PI * (i + 0.5) / 7);
        d[i] = f(0.25 * k + z[i]);
      }
      for (int j = 1; j < 7; j++)  // Newton's divided differences
        for (int i = 6; i >= j; i--) d[i] = (d[i] - d[i - 1]) / (z[i] - z[i - j]);
      for (int i = 6; i >= 0; i--) {  // p = p * (r - z_i) + d_i
        for (int j = 6; j > 0; j--) p[j] = p[j - 1] - z[i] * p[j];
        p[0] = d[i] - z[i] * p[0];
      }
      for (int j = 0; j < 7; j++) c[j][k / 16][k % 16] = (float)p[j];
    }
  }
  Lanes operator()(Lanes x) const {
    Lanes a = absolute(x), t = at_most(a, 7.87f);
    // the last bits of m are t's table entry
    Lanes m = fmadd(t, all<Lanes>(4.f), all<Lanes>(ROUND_MAGIC));
    Lanes r = fmadd(m - ROUND_MAGIC, all<Lanes>(-0.25f), t), y = pick(6, m);
    for (int j = 5; j >= 0; j--) y = fmadd(y, r, pick(j, m));
    return a > 7.87f ? Lanes{} : y;
  }
  Lanes pick(int j, Lanes m) const {
    return (Lanes)_mm512_permutex2var_ps((__m512)c[j][0], (__m512i)m, (__m512)c[j][1]);
  }
};
const Table& lower_tail() {  // Phi(-t)
  static const Table t([](double t) { return 0.5 * std::erfc(t * M_SQRT1_2); });
  return t;
}
const Table& lower_slope() {  // derivative of x Phi(x) at -t
  static const Table t([](double t) {
    return 0.5 * std::erfc(t * M_SQRT1_2) - t * std::exp(-0.5 * t * t) * 0.3989422804014327;
  });
  return t;
}
struct GeluErf {
  Table tail = lower_tail(), low_slope = lower_slope();
  Lanes mirrored(Lanes x, Lanes v) const { return x > 0.f ? 1.f - v : v; }
  Lanes y(Lanes x) const { return x * mirrored(x, tail(x)); }
  Lanes slope(Lanes x) const { return mirrored(x, low_slope(x)); }
  Value both(Lanes x) const { return {y(x), slope(x)}; }
};
#else
struct GeluErf {
  static Lanes y(Lanes x) { return x * vnormal(x).cdf; }
  static Lanes slope(Lanes x) { return both(x).slope; }
  static Value both(Lanes x) {
    Normal<Lanes> p = vnormal(x);
    return {x * p.cdf, fmadd(x * 0.398942280f, p.bell, p.cdf)};  // 1 / sqrt(2 pi)
  }
};
#endif
struct GeluTanh {
  static constexpr float k = 1.59576912f, k3 = 0.0713548163f;  // 2 sqrt(2 / pi), and 0.044715 times it
  static Lanes y(Lanes x) { return x * vsigmoid(x * fmadd(k3 * x, x, all<Lanes>(k))); }
  static Value both(Lanes x) {
    Lanes z = x * x;
    Logistic<Lanes> s = vlogistic(x * fmadd(all<Lanes>(k3), z, all<Lanes>(k)));
    return {x * s.p, fmadd(s.p * s.rest * x, fmadd(all<Lanes>(3.f * k3), z, all<Lanes>(k)), s.p)};
  }
  static Lanes slope(Lanes x) { return both(x).slope; }
};

// f(io, i) over n elements, in parallel
template <class F>
PyObject* each(i64 n, double cost, F f) {
  GilRelease nogil(cost * (double)n);
  parallel_range(n, GRAIN, [=](i64 lo, i64 hi) { for_lanes(lo, hi, f); });
  return Py_None;
}

// y = f(x)
template <class A>
PyObject* plain(PyObject* x_, PyObject* y_) {
  const A f{};
  Contiguous x(x_);
  if (!x) return nullptr;
  const float* xp = x.as<float>();
  float* y = data<float>(y_);
  return each(size(x_), 16, [=](auto io, i64 i) { io.store(y + i, f.y(io.load(xp + i))); });
}
// dx = g * f'(x)
template <class A>
PyObject* plain_grad(PyObject* g_, PyObject* x_, PyObject* dx_) {
  const A f{};
  Contiguous g(g_), x(x_);
  if (!g || !x) return nullptr;
  const float *gp = g.as<float>(), *xp = x.as<float>();
  float* dx = data<float>(dx_);
  return each(size(x_), 20, [=](auto io, i64 i) {
    io.store(dx + i, io.load(gp + i) * f.slope(io.load(xp + i)));
  });
}
// y = f(a) * b
template <class A>
PyObject* gated(PyObject* a_, PyObject* b_, PyObject* y_) {
  const A f{};
  Contiguous a(a_), b(b_);
  if (!a || !b) return nullptr;
  const float *ap = a.as<float>(), *bp = b.as<float>();
  float* y = data<float>(y_);
  return each(size(a_), 16, [=](auto io, i64 i) {
    io.store(y + i, f.y(io.load(ap + i)) * io.load(bp + i));
  });
}
// da = g * b * f'(a), db = g * f(a); either may be None
template <class A>
PyObject* gated_grad(PyObject* g_, PyObject* a_, PyObject* b_, PyObject* da_, PyObject* db_) {
  const A f{};
  Contiguous g(g_), a(a_), b(b_);
  if (!g || !a || !b) return nullptr;
  const float *gp = g.as<float>(), *ap = a.as<float>(), *bp = b.as<float>();
  float *da = data<float>(da_), *db = data<float>(db_);
  return each(size(a_), 24, [=](auto io, i64 i) {
    Lanes gi = io.load(gp + i), bi = io.load(bp + i);
    Value v = f.both(io.load(ap + i));
    if (da) io.store(da + i, gi * bi * v.slope);
    if (db) io.store(db + i, gi * v.y);
  });
}

PyObject* owned(PyObject* r) {
  Py_XINCREF(r);
  return r;
}
PyObject* gelu(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!arity("gelu", n, 3, 3)) return nullptr;
  return owned(as_bool(args[1]) ? plain<GeluTanh>(args[0], args[2]) : plain<GeluErf>(args[0], args[2]));
}
PyObject* gelu_grad(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!arity("gelu_grad", n, 4, 4)) return nullptr;
  return owned(as_bool(args[2]) ? plain_grad<GeluTanh>(args[0], args[1], args[3])
                                : plain_grad<GeluErf>(args[0], args[1], args[3]));
}
PyObject* silu(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return arity("silu", n, 2, 2) ? owned(plain<Silu>(args[0], args[1])) : nullptr;
}
PyObject* silu_grad(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return arity("silu_grad", n, 3, 3) ? owned(plain_grad<Silu>(args[0], args[1], args[2])) : nullptr;
}
PyObject* swiglu(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return arity("swiglu", n, 3, 3) ? owned(gated<Silu>(args[0], args[1], args[2])) : nullptr;
}
PyObject* swiglu_grad(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!arity("swiglu_grad", n, 5, 5)) return nullptr;
  return owned(gated_grad<Silu>(args[0], args[1], args[2], args[3], args[4]));
}
PyObject* geglu(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!arity("geglu", n, 4, 4)) return nullptr;
  return owned(as_bool(args[2]) ? gated<GeluTanh>(args[0], args[1], args[3])
                                : gated<GeluErf>(args[0], args[1], args[3]));
}
PyObject* geglu_grad(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!arity("geglu_grad", n, 6, 6)) return nullptr;
  return owned(as_bool(args[3]) ? gated_grad<GeluTanh>(args[0], args[1], args[2], args[4], args[5])
                                : gated_grad<GeluErf>(args[0], args[1], args[2], args[4], args[5]));
}
PyObject* relu_grad(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!arity("relu_grad", n, 3, 3)) return nullptr;
  Contiguous g(args[0]), y(args[1]);
  if (!g || !y) return nullptr;
  const float *gp = g.as<float>(), *yp = y.as<float>();
  float* dx = data<float>(args[2]);
  return owned(each(size(args[1]), 12, [=](auto io, i64 i) {
    Lanes gi = io.load(gp + i);
    io.store(dx + i, io.load(yp + i) > 0.f ? gi : Lanes{});
  }));
}
}  // namespace

#define METHOD(name, signature) {#name, (PyCFunction)(void*)name, METH_FASTCALL, signature}
PyMethodDef activation_methods[] = {
    METHOD(gelu, "gelu(x, tanh: bool, y)"),
    METHOD(gelu_grad, "gelu_grad(g, x, tanh: bool, dx)"),
    METHOD(silu, "silu(x, y)"),
    METHOD(silu_grad, "silu_grad(g, x, dx)"),
    METHOD(swiglu, "swiglu(a, b, y): silu(a) * b"),
    METHOD(swiglu_grad, "swiglu_grad(g, a, b, da|None, db|None)"),
    METHOD(geglu, "geglu(a, b, tanh: bool, y): gelu(a) * b"),
    METHOD(geglu_grad, "geglu_grad(g, a, b, tanh: bool, da|None, db|None)"),
    METHOD(relu_grad, "relu_grad(g, y, dx): g where y > 0, else 0"),
    {nullptr, nullptr, 0, nullptr}};
#undef METHOD
}  // namespace spiral
