// What a reduction over elements computes: its partial result (State), how an element enters it, how two are joined.
//
// A reducer of elements In with results Out has
//   none()                      the state of no elements
//   many(s, v, at, step, a)     takes K elements, those at positions at, at + step, … of the reduced axis
//   join(s, t)                  the state of both; elements come in a fixed order, so results have the same bits every time
//   finish(s, a)                the result
// States are shuffled between lanes and kept in scratch memory between kernels.
#pragma once
#include "rows.cuh"

namespace spiral {
// What a call may change about a reducer.
struct Options {
  double divisor;  // sums and variances are divided by it
  u64 mask;        // see the reducers
};

template <class S>
__device__ inline S from_lane(S x, int d) { return __shfl_xor_sync(0xffffffffu, x, d); }

// ---------------------------------------------------------------- sums and products
// Floating elements: in the wide type, rounded once; the mean where divisor is their number.
template <class T>
struct Sum {
  typedef T In;
  typedef T Out;
  typedef wide<T> State;
  static __device__ State none() { return 0; }
  template <int K>
  static __device__ void many(State& s, const T (&v)[K], i64, i64, const Options&) {
    State a[K];
#pragma unroll
    for (int k = 0; k < K; k++) a[k] = up(v[k]);
#pragma unroll
    for (int h = K / 2; h > 0; h /= 2)
#pragma unroll
      for (int k = 0; k < h; k++) a[k] += a[k + h];
    s += a[0];
  }
  static __device__ State join(State s, State t) { return s + t; }
  static __device__ Out finish(State s, const Options& o) { return down<T>(s / (State)o.divisor); }
};

// Integers and bool: in 64 bits, where signed and unsigned sums are the same bits.
template <class T>
struct SumInteger {
  typedef T In;
  typedef u64 Out;
  typedef u64 State;
  static __device__ State none() { return 0; }
  template <int K>
  static __device__ void many(State& s, const T (&v)[K], i64, i64, const Options&) {
#pragma unroll
    for (int k = 0; k < K; k++) s += (u64)(i64)v[k];
  }
  static __device__ State join(State s, State t) { return s + t; }
  static __device__ Out finish(State s, const Options&) { return s; }
};

// T is floating, or u64.
template <class T, class A>
struct Product {
  typedef T In;
  typedef T Out;
  typedef A State;
  static __device__ State none() { return 1; }
  template <int K>
  static __device__ void many(State& s, const T (&v)[K], i64, i64, const Options&) {
#pragma unroll
    for (int k = 0; k < K; k++) s *= up(v[k]);
  }
  static __device__ State join(State s, State t) { return s * t; }
  static __device__ Out finish(State s, const Options&) { return down<T>(s); }
};

// ---------------------------------------------------------------- extremes
// What elements are compared as. The mask turns minima into maxima: for floating elements nonzero negates, for integers its
// bits are flipped (all of them: the order reversed; the sign bit: unsigned elements in the order of unsigned ones).
template <class T>
struct Ordered {
  typedef wide<T> Key;
  static __device__ Key key(T x, u64 mask) { return mask ? -up(x) : up(x); }
  static __device__ T element(Key k, u64 mask) { return down<T>(mask ? -k : k); }
  static __device__ Key least() { return minus_infinity<Key>(); }
};
template <class T, class K>
struct OrderedInteger {
  typedef K Key;
  static __device__ Key key(T x, u64 mask) { return (T)(x ^ (T)mask); }
  static __device__ T element(Key k, u64 mask) { return (T)((T)k ^ (T)mask); }
  static __device__ Key least() { return (K)((u64)1 << (8 * sizeof(K) - 1)); }
};
template <> struct Ordered<i8> : OrderedInteger<i8, int> {};
template <> struct Ordered<short> : OrderedInteger<short, int> {};
template <> struct Ordered<int> : OrderedInteger<int, int> {};
template <> struct Ordered<i64> : OrderedInteger<i64, i64> {};

// The largest element, NaN if there is one; with a mask the smallest.
template <class T>
struct Extreme {
  typedef T In;
  typedef T Out;
  typedef typename Ordered<T>::Key State;
  static __device__ State none() { return Ordered<T>::least(); }
  template <int K>
  static __device__ void many(State& s, const T (&v)[K], i64, i64, const Options& o) {
#pragma unroll
    for (int k = 0; k < K; k++) s = Max::of(s, Ordered<T>::key(v[k], o.mask));
  }
  static __device__ State join(State s, State t) { return Max::of(s, t); }
  static __device__ Out finish(State s, const Options& o) { return Ordered<T>::element(s, o.mask); }
};

template <class K>
struct Place {
  K key;
  i64 at;
};
template <class K>
__device__ inline Place<K> from_lane(Place<K> x, int d) { return {from_lane(x.key, d), from_lane(x.at, d)}; }

// Position of the first largest element, or of the first NaN.
template <class T>
struct WhereExtreme {
  typedef T In;
  typedef i64 Out;
  typedef typename Ordered<T>::Key Key;
  typedef Place<Key> State;
  static __device__ State none() { return {Ordered<T>::least(), 0x7fffffffffffffffll}; }
  static __device__ bool before(const State& s, const State& t) {  // s is the answer of the two
    const bool nan_s = s.key != s.key, nan_t = t.key != t.key;
    if (nan_s != nan_t) return nan_s;
    if (nan_s || s.key == t.key) return s.at < t.at;
    return s.key > t.key;
  }
  template <int K>
  static __device__ void many(State& s, const T (&v)[K], i64 at, i64 step, const Options& o) {
#pragma unroll
    for (int k = 0; k < K; k++) {
      const State t = {Ordered<T>::key(v[k], o.mask), at + k * step};
      if (!before(s, t)) s = t;
    }
  }
  static __device__ State join(const State& s, const State& t) { return before(s, t) ? s : t; }
  static __device__ Out finish(State s, const Options&) { return s.at; }
};

// ---------------------------------------------------------------- truth
// Elements as unsigned integers T, of which the mask says which bits make them true (all but the sign of floating ones).
// Whether any is true; with a divisor of -1 whether all are, that is whether none is false.
template <class T>
struct Truth {
  typedef T In;
  typedef bool Out;
  typedef u32 State;
  static __device__ State none() { return 0; }
  template <int K>
  static __device__ void many(State& s, const T (&v)[K], i64, i64, const Options& o) {
    const u32 all = o.divisor < 0;
#pragma unroll
    for (int k = 0; k < K; k++) s |= (u32)((v[k] & (T)o.mask) != 0) ^ all;
  }
  static __device__ State join(State s, State t) { return s | t; }
  static __device__ Out finish(State s, const Options& o) { return (s != 0) != (o.divisor < 0); }
};

// ---------------------------------------------------------------- variance
template <class A>
struct Moments {
  A count, mean, squares;  // squares: sum of (x - mean)^2
};
template <class A>
__device__ inline Moments<A> from_lane(Moments<A> x, int d) {
  return {from_lane(x.count, d), from_lane(x.mean, d), from_lane(x.squares, d)};
}

// Sum of squared distances from the mean, divided. K elements at a time are reduced in registers, mean first, and joined as
// in Chan, Golub & LeVeque 1983: no cancellation where the mean is far larger than the spread, and a division per K.
template <class T>
struct Variance {
  typedef T In;
  typedef T Out;
  typedef wide<T> A;
  typedef Moments<A> State;
  static __device__ State none() { return {0, 0, 0}; }
  template <int K>
  static __device__ void many(State& s, const T (&v)[K], i64, i64, const Options&) {
    A sum = 0, squares = 0;
#pragma unroll
    for (int k = 0; k < K; k++) sum += up(v[k]);
    const A mean = sum * ((A)1 / K);
#pragma unroll
    for (int k = 0; k < K; k++) {
      const A d = up(v[k]) - mean;
      squares += d * d;
    }
    s = join(s, {(A)K, mean, squares});
  }
  static __device__ State join(const State& s, const State& t) {
    if (t.count == 0) return s;
    if (s.count == 0) return t;
    const A count = s.count + t.count, d = t.mean - s.mean, share = t.count / count;
    return {count, s.mean + d * share, s.squares + t.squares + d * d * s.count * share};
  }
  static __device__ Out finish(State s, const Options& o) { return down<T>(s.squares / (A)o.divisor); }
};
}  // namespace spiral
