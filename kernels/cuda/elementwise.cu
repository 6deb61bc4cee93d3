// Arithmetic, comparisons, exponentials, logic, rounding, trigonometry: a structure per function.
//
// Element by element; the loops, and what they ask of their operands, are in elementwise.cuh. Bytes moved: the operands
// and the result, once. Functions of CUDA's library are the precise ones (CUDA's Programming Guide, appendix on
// mathematical functions: at most 4 ulp in float, 2 in double); no fast-math flag or intrinsic. Floating edge cases are
// NumPy's, integer ones too: x // 0 and x % 0 are 0, MIN // -1 is MIN, shifts by more than the width leave no bit of x.
#include "elementwise.cuh"

namespace spiral {
// whether numbers of type A have a fraction
template <class A>
__device__ constexpr bool fractional() { return sizeof(A) >= 4 && (A)0.5 != (A)0; }
template <class A>
__device__ constexpr A sign_bit() { return (A)((A)1 << (8 * sizeof(A) - 1)); }

// ---------------------------------------------------------------- two operands: numbers (Add, Max, Min: spiral.cuh)
SPIRAL_BINARY(Subtract, (A)(x - y))
SPIRAL_BINARY(Multiply, (A)(x * y))
SPIRAL_BINARY(Divide, x / y)
SPIRAL_BINARY(Hypot, hypot(x, y))
SPIRAL_BINARY(Atan2, atan2(x, y))
SPIRAL_BINARY(NextAfter, nextafter(x, y))

// log(e^x + e^y) = max + log(1 + e^-|x - y|); equal operands, infinite ones too: x + log 2
struct LogAddExp {
  template <class A>
  static __device__ A of(A x, A y) {
    if (x == y) return x + (A)0.69314718055994530942;
    const A d = x - y;
    return d > 0 ? x + log1p(exp(-d)) : d <= 0 ? y + log1p(exp(d)) : d;
  }
};

// x - floor(x / y) * y, with the sign of y, also where it is zero
struct Remainder {
  template <class A>
  static __device__ A of(A x, A y) {
    if constexpr (fractional<A>()) {
      const A r = fmod(x, y);
      if (y == 0) return r;
      return r == 0 ? copysign((A)0, y) : (r < 0) != (y < 0) ? r + y : r;
    } else {
      if (y == 0 || y == (A)-1 && (A)-1 < (A)0) return 0;
      const A r = (A)(x % y);
      return r != 0 && (r < 0) != (y < 0) ? (A)(r + y) : r;
    }
  }
};

// floor(x / y), exact where the quotient rounds to a whole number from below: through the remainder
struct FloorDivide {
  template <class A>
  static __device__ A of(A x, A y) {
    if constexpr (fractional<A>()) {
      if (y == 0 || x - x != 0 || y - y != 0) return floor(x / y);
      A r = fmod(x, y), q = (x - r) / y;
      if (r != 0 && (r < 0) != (y < 0)) q -= 1;
      if (q == 0) return copysign((A)0, x / y);
      const A whole = floor(q);
      return q - whole > (A)0.5 ? whole + 1 : whole;
    } else {
      if (y == 0) return 0;
      if (y == (A)-1 && (A)-1 < (A)0) return (A)((u64)0 - (u64)x);
      const A q = (A)(x / y);
      return x % y != 0 && (x < 0) != (y < 0) ? (A)(q - 1) : q;
    }
  }
};

// integers to a negative power: 1 / x^-y, cut to an integer
struct Power {
  template <class A>
  static __device__ A of(A x, A y) {
    if constexpr (fractional<A>()) {
      return pow(x, y);
    } else {
      if (y < 0) return x == 1 ? (A)1 : x == (A)-1 ? (y & 1 ? (A)-1 : (A)1) : (A)0;
      u64 power = 1, square = (u64)x;
      for (u64 n = (u64)y; n; n >>= 1, square *= square)
        if (n & 1) power *= square;
      return (A)power;
    }
  }
};

// ---------------------------------------------------------------- two operands: bits and truth values
SPIRAL_BINARY(CopySign, (A)((x & ~sign_bit<A>()) | (y & sign_bit<A>())))  // on the bits of a float
SPIRAL_BINARY(BitAnd, (A)(x & y))
SPIRAL_BINARY(BitOr, (A)(x | y))
SPIRAL_BINARY(BitXor, (A)(x ^ y))
// A unsigned
SPIRAL_BINARY(ShiftLeft, (A)(y < 8 * sizeof(A) ? (u64)x << y : (u64)0))
// A signed: the sign comes in from the left
SPIRAL_BINARY(ShiftRight, (A)((u64)y < 8 * sizeof(A) ? x >> y : x < 0 ? (A)-1 : (A)0))
SPIRAL_BINARY(Equal, x == y)
SPIRAL_BINARY(NotEqual, x != y)
SPIRAL_BINARY(Less, x < y)
SPIRAL_BINARY(LessEqual, x <= y)
SPIRAL_BINARY(LogicalAnd, x != 0 && y != 0)
SPIRAL_BINARY(LogicalOr, x != 0 || y != 0)
SPIRAL_BINARY(LogicalXor, (x != 0) != (y != 0))
// a signed x, given by its bits, with an unsigned y, both of 64 bits
SPIRAL_BINARY(MixedEqual, (i64)x >= 0 && x == y)
SPIRAL_BINARY(MixedNotEqual, (i64)x < 0 || x != y)
SPIRAL_BINARY(MixedLess, (i64)x < 0 || x < y)
SPIRAL_BINARY(MixedLessEqual, (i64)x < 0 || x <= y)
SPIRAL_BINARY(MixedGreater, (i64)x >= 0 && x > y)
SPIRAL_BINARY(MixedGreaterEqual, (i64)x >= 0 && x >= y)

// ---------------------------------------------------------------- one operand: numbers
SPIRAL_UNARY(Negate, (A)-x)          // integers, as unsigned
SPIRAL_UNARY(Magnitude, (A)(x < 0 ? -x : x))  // integers
SPIRAL_UNARY(FlipSign, (A)(x ^ sign_bit<A>()))    // on the bits of a float
SPIRAL_UNARY(ClearSign, (A)(x & ~sign_bit<A>()))  // on the bits of a float
SPIRAL_UNARY(Square, (A)(x * x))
SPIRAL_UNARY(Cube, (A)(x * x * x))
SPIRAL_UNARY(Reciprocal, (A)1 / x)
SPIRAL_UNARY(Sign, x > 0 ? (A)1 : x < 0 ? (A)-1 : x == 0 ? (A)0 : x)  // NaN stays
SPIRAL_UNARY(Floor, floor(x))
SPIRAL_UNARY(Ceil, ceil(x))
SPIRAL_UNARY(Round, rint(x))
SPIRAL_UNARY(Trunc, trunc(x))

// ---------------------------------------------------------------- one operand: exponentials, roots, angles
SPIRAL_UNARY(Exp, exp(x))
SPIRAL_UNARY(Expm1, expm1(x))
SPIRAL_UNARY(Log, log(x))
SPIRAL_UNARY(Log1p, log1p(x))
SPIRAL_UNARY(Log2, log2(x))
SPIRAL_UNARY(Log10, log10(x))
SPIRAL_UNARY(Sqrt, sqrt(x))
SPIRAL_UNARY(Rsqrt, (A)1 / sqrt(x))  // two roundings; CUDA's rsqrt has 2 ulp
// x to the power 1/2: 0 at -0 and infinity at -infinity (C17, F.10.4.4)
SPIRAL_UNARY(PowerHalf, x - x != 0 && x == x ? fabs(x) : sqrt(x + (A)0))
SPIRAL_UNARY(Erf, erf(x))
SPIRAL_UNARY(Sin, sin(x))
SPIRAL_UNARY(Cos, cos(x))
SPIRAL_UNARY(Tan, tan(x))
SPIRAL_UNARY(Asin, asin(x))
SPIRAL_UNARY(Acos, acos(x))
SPIRAL_UNARY(Atan, atan(x))
SPIRAL_UNARY(Sinh, sinh(x))
SPIRAL_UNARY(Cosh, cosh(x))
SPIRAL_UNARY(Tanh, tanh(x))
SPIRAL_UNARY(Asinh, asinh(x))
SPIRAL_UNARY(Acosh, acosh(x))
SPIRAL_UNARY(Atanh, atanh(x))

// ---------------------------------------------------------------- one operand: bits and truth values
SPIRAL_UNARY(BitInvert, (A)~x)
SPIRAL_UNARY(LogicalNot, x == 0)
SPIRAL_UNARY(SignBit, (x & sign_bit<A>()) != 0)  // on the bits of a float or an integer
SPIRAL_UNARY(IsNaN, x != x)
SPIRAL_UNARY(IsInf, x - x != 0 && x == x)
SPIRAL_UNARY(IsFinite, x - x == 0)

// ---------------------------------------------------------------- three operands, and none
// z = x where c is not zero, else y; elements of sizeof(T) bytes moved as they are. Where x or y is null its bits are `s`
// or `t`. Overwrites z. c lies at operand 0 of the layout. Moves 3 * n elements and n bytes.
template <class T>
__global__ void where(
    const u8* c, const T* x, const T* y, T* z, u32 n, u64 s, u64 t, const __grid_constant__ Layout<3> l) {
  constexpr int N = run_length<T, u8>();
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const u32 i = run_start<N>(k);
    if (i >= n) return;
    Run<u8, N> keep;
    Run<T, N> a, b, r;
    i64 offset[3];
    const u32 room = locate_run(l, i, offset);
    const int last = l.ndim - 1;
    if (room >= N) {
      keep = load_run<N>(&at(c, offset[0]), l.stride[0][last]);
      if (x) a = load_run<N>(&at(x, offset[1]), l.stride[1][last]);
      if (y) b = load_run<N>(&at(y, offset[2]), l.stride[2][last]);
    } else {
#pragma unroll 1
      for (int j = 0; j < N && i + j < n; j++) {
        if (j) locate_run(l, i + j, offset);
        put(keep, j, at(c, offset[0]));
        if (x) put(a, j, at(x, offset[1]));
        if (y) put(b, j, at(y, offset[2]));
      }
    }
#pragma unroll
    for (int j = 0; j < N; j++) r.at[j] = keep.at[j] ? (x ? a.at[j] : (T)s) : (y ? b.at[j] : (T)t);
    store_run<N>(z + i, r, n - i);
  }
}

// Every element of y, which is dense, becomes the one with these bits. Moves n elements.
template <class T>
__global__ void fill(T* y, u32 n, u64 bits) {
  constexpr int N = run_length<T, T>();
  Run<T, N> r;
#pragma unroll
  for (int j = 0; j < N; j++) r.at[j] = (T)bits;
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const u32 i = run_start<N>(k);
    if (i < n) store_run<N>(y + i, r, n - i);
  }
}

// y = x where column - row is between low and high, else 0; x and y dense, (matrices, rows, columns), elements of
// sizeof(T) bytes moved as they are. Overwrites y. Moves at most 2 * n elements: runs of zeros are not read.
template <class T>
__global__ void band(const T* x, T* y, u32 n, u32 rows, u32 columns, i64 low, i64 high) {
  constexpr int N = run_length<T, T>();
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const u32 i = run_start<N>(k);
    if (i >= n) return;
    u32 column = i % columns, row = i / columns % rows;
    const bool zeros = column + N <= columns && ((i64)column + N - 1 - row < low || (i64)column - row > high);
    Run<T, N> r;
    if (!zeros) {
      if (i + N <= n)
        r = load_run<N>(x + i, (i64)sizeof(T));
      else
        for (int j = 0; j < N && i + j < n; j++) r.at[j] = x[i + j];
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
      if (zeros || (i64)column - row < low || (i64)column - row > high) r.at[j] = 0;
      if (++column == columns) column = 0, row = row + 1 == rows ? 0 : row + 1;
    }
    store_run<N>(y + i, r, n - i);
  }
}
}  // namespace spiral
