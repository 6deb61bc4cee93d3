// CUDA's mathematical functions, in the global namespace and overloaded as CUDA has them; from the C library, so the
// last bits may differ from a device's. Fast ones (__expf) are the precise ones here.
#pragma once

#define SPIRAL_1(name)                                                       \
  inline float name(float x) { return __builtin_##name##f(x); }              \
  inline double name(double x) { return __builtin_##name(x); }               \
  inline float name##f(float x) { return __builtin_##name##f(x); }
SPIRAL_1(sqrt) SPIRAL_1(cbrt) SPIRAL_1(exp) SPIRAL_1(exp2) SPIRAL_1(exp10) SPIRAL_1(expm1)
SPIRAL_1(log) SPIRAL_1(log2) SPIRAL_1(log10) SPIRAL_1(log1p) SPIRAL_1(logb)
SPIRAL_1(sin) SPIRAL_1(cos) SPIRAL_1(tan) SPIRAL_1(asin) SPIRAL_1(acos) SPIRAL_1(atan)
SPIRAL_1(sinh) SPIRAL_1(cosh) SPIRAL_1(tanh) SPIRAL_1(asinh) SPIRAL_1(acosh) SPIRAL_1(atanh)
SPIRAL_1(erf) SPIRAL_1(erfc) SPIRAL_1(tgamma) SPIRAL_1(lgamma)
SPIRAL_1(floor) SPIRAL_1(ceil) SPIRAL_1(trunc) SPIRAL_1(round) SPIRAL_1(rint) SPIRAL_1(nearbyint) SPIRAL_1(fabs)
#undef SPIRAL_1
#define SPIRAL_2(name)                                                                   \
  inline float name(float x, float y) { return __builtin_##name##f(x, y); }              \
  inline double name(double x, double y) { return __builtin_##name(x, y); }              \
  inline float name##f(float x, float y) { return __builtin_##name##f(x, y); }
SPIRAL_2(pow) SPIRAL_2(atan2) SPIRAL_2(fmod) SPIRAL_2(remainder) SPIRAL_2(fmin) SPIRAL_2(fmax) SPIRAL_2(fdim)
SPIRAL_2(copysign) SPIRAL_2(hypot) SPIRAL_2(nextafter)
#undef SPIRAL_2
inline float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
inline double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
inline float fmaf(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
inline float ldexp(float x, int n) { return __builtin_ldexpf(x, n); }
inline double ldexp(double x, int n) { return __builtin_ldexp(x, n); }
inline float ldexpf(float x, int n) { return __builtin_ldexpf(x, n); }
inline float scalbnf(float x, int n) { return __builtin_scalbnf(x, n); }
inline double scalbn(double x, int n) { return __builtin_scalbn(x, n); }
inline float frexpf(float x, int* n) { return __builtin_frexpf(x, n); }
inline double frexp(double x, int* n) { return __builtin_frexp(x, n); }
inline float modff(float x, float* whole) { return __builtin_modff(x, whole); }
inline double modf(double x, double* whole) { return __builtin_modf(x, whole); }
inline int ilogbf(float x) { return __builtin_ilogbf(x); }
inline int ilogb(double x) { return __builtin_ilogb(x); }
inline long lrintf(float x) { return __builtin_lrintf(x); }
inline long lrint(double x) { return __builtin_lrint(x); }
inline long long llrintf(float x) { return __builtin_llrintf(x); }
inline long long llrint(double x) { return __builtin_llrint(x); }
inline long lroundf(float x) { return __builtin_lroundf(x); }
inline long long llroundf(float x) { return __builtin_llroundf(x); }
inline void sincosf(float x, float* s, float* c) { *s = sinf(x), *c = cosf(x); }
inline void sincos(double x, double* s, double* c) { *s = sin(x), *c = cos(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float normcdff(float x) { return 0.5f * erfcf(x * -0.70710678118654752f); }
inline double normcdf(double x) { return 0.5 * erfc(x * -0.70710678118654752440); }
inline float sinpif(float x) { return (float)sin(3.14159265358979323846 * fmod((double)x, 2.0)); }
inline float cospif(float x) { return (float)cos(3.14159265358979323846 * fmod((double)x, 2.0)); }

inline bool isnan(float x) { return __builtin_isnan(x); }
inline bool isnan(double x) { return __builtin_isnan(x); }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isinf(double x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline bool isfinite(double x) { return __builtin_isfinite(x); }
inline bool signbit(float x) { return __builtin_signbit(x); }
inline bool signbit(double x) { return __builtin_signbit(x); }

// ---------------------------------------------------------------- fast and rounded variants
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline void __sincosf(float x, float* s, float* c) { sincosf(x, s, c); }
inline float __fdividef(float x, float y) { return x / y; }
inline float fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return (float)(1.0 / sqrt((double)x)); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline double __drcp_rn(double x) { return 1.0 / x; }
inline double __dsqrt_rn(double x) { return sqrt(x); }

// ---------------------------------------------------------------- conversions
#define SPIRAL_BITS(name, To, From)         \
  inline To name(From x) {                  \
    To y;                                   \
    __builtin_memcpy(&y, &x, sizeof y);     \
    return y;                               \
  }
SPIRAL_BITS(__float_as_int, int, float)
SPIRAL_BITS(__float_as_uint, unsigned, float)
SPIRAL_BITS(__int_as_float, float, int)
SPIRAL_BITS(__uint_as_float, float, unsigned)
SPIRAL_BITS(__double_as_longlong, long long, double)
SPIRAL_BITS(__longlong_as_double, double, long long)
#undef SPIRAL_BITS

namespace spiral_cpu {
// as a device converts: the nearest that fits, and 0 for NaN (in C++ both would be undefined)
template <class I, class F>
inline I to_integer(F x) {
  const I low = (I)-1 < 0 ? (I)(1ull << (8 * sizeof(I) - 1)) : (I)0, high = (I)~low;
  if (x != x) return 0;
  if (x <= (F)low) return low;
  return x >= (F)high ? high : (I)x;
}
}  // namespace spiral_cpu
#define SPIRAL_ROUNDINGS(prefix, F, I)                                                   \
  inline I prefix##_rn(F x) { return spiral_cpu::to_integer<I>(rint(x)); }               \
  inline I prefix##_rz(F x) { return spiral_cpu::to_integer<I>(trunc(x)); }              \
  inline I prefix##_rd(F x) { return spiral_cpu::to_integer<I>(floor(x)); }              \
  inline I prefix##_ru(F x) { return spiral_cpu::to_integer<I>(ceil(x)); }
SPIRAL_ROUNDINGS(__float2int, float, int)
SPIRAL_ROUNDINGS(__float2uint, float, unsigned)
SPIRAL_ROUNDINGS(__float2ll, float, long long)
SPIRAL_ROUNDINGS(__float2ull, float, unsigned long long)
SPIRAL_ROUNDINGS(__double2int, double, int)
SPIRAL_ROUNDINGS(__double2uint, double, unsigned)
SPIRAL_ROUNDINGS(__double2ll, double, long long)
SPIRAL_ROUNDINGS(__double2ull, double, unsigned long long)
#undef SPIRAL_ROUNDINGS
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline float __ll2float_rn(long long x) { return (float)x; }
inline float __ull2float_rn(unsigned long long x) { return (float)x; }
inline double __int2double_rn(int x) { return (double)x; }
inline double __ll2double_rn(long long x) { return (double)x; }
inline float __double2float_rn(double x) { return (float)x; }

// ---------------------------------------------------------------- min, max, abs
#define SPIRAL_MINMAX(T)                                      \
  inline T min(T a, T b) { return b < a ? b : a; }            \
  inline T max(T a, T b) { return a < b ? b : a; }
SPIRAL_MINMAX(int) SPIRAL_MINMAX(unsigned) SPIRAL_MINMAX(long) SPIRAL_MINMAX(unsigned long)
SPIRAL_MINMAX(long long) SPIRAL_MINMAX(unsigned long long)
#undef SPIRAL_MINMAX
inline unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
inline unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
inline unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double max(double a, float b) { return fmax(a, b); }
inline int abs(int x) { return x < 0 ? (int)-(unsigned)x : x; }
inline long abs(long x) { return x < 0 ? (long)-(unsigned long)x : x; }
inline long long abs(long long x) { return x < 0 ? (long long)-(unsigned long long)x : x; }
inline float abs(float x) { return fabsf(x); }
inline double abs(double x) { return fabs(x); }
inline long long llabs(long long x) { return abs(x); }

// ---------------------------------------------------------------- integers
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline unsigned __brev(unsigned x) {
  x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
  x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
  x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(x);
}
inline unsigned long long __brevll(unsigned long long x) {
  return (unsigned long long)__brev((unsigned)x) << 32 | __brev((unsigned)(x >> 32));
}
inline int __mulhi(int x, int y) { return (int)((long long)x * y >> 32); }
inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned)((unsigned long long)x * y >> 32); }
inline long long __mul64hi(long long x, long long y) { return (long long)((__int128)x * y >> 64); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return (unsigned long long)((unsigned __int128)x * y >> 64);
}
inline int __mul24(int x, int y) { return (int)((unsigned)(x << 8 >> 8) * (unsigned)(y << 8 >> 8)); }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return (unsigned)(((unsigned long long)high << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return (unsigned)(((unsigned long long)high << 32 | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const unsigned long long bytes = (unsigned long long)y << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) result |= (unsigned)(bytes >> (selector >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
  return result;
}
inline unsigned __sad(int x, int y, unsigned z) {
  return z + (x > y ? (unsigned)x - (unsigned)y : (unsigned)y - (unsigned)x);
}
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += (int)(signed char)(a >> (8 * i)) * (int)(signed char)(b >> (8 * i));
  return c;
}

// ---------------------------------------------------------------- 16-bit floats
namespace spiral_cpu {
// binary16 to binary32, exactly; NaN stays NaN (quiet)
inline float half_to_float(unsigned short h) {
  const unsigned sign = (unsigned)(h & 0x8000u) << 16, rest = h & 0x7fffu;
  if (rest > 0x7c00u) return __uint_as_float(sign | 0x7fc00000u | (rest & 0x3ffu) << 13);
  if (rest == 0x7c00u) return __uint_as_float(sign | 0x7f800000u);
  // the bits as a float's are 2^112 times too small, denormals included
  const float x = __uint_as_float(rest << 13) * 0x1p112f;
  return __uint_as_float(__float_as_uint(x) | sign);
}
// binary32 to binary16, to the nearest, ties to even
inline unsigned short float_to_half(float x) {
  const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return (unsigned short)(sign | 0x7e00u | (rest >> 13 & 0x3ffu));
  if (rest >= 0x47800000u) return (unsigned short)(sign | 0x7c00u);  // 65536 and more
  if (rest < 0x38800000u) {  // less than 2^-14: adding 0.5 leaves the multiple of 2^-24 in the low bits, rounded
    const float shifted = __uint_as_float(rest) + 0.5f;
    return (unsigned short)(sign | (__float_as_uint(shifted) - 0x3f000000u));
  }
  return (unsigned short)(sign | ((rest - 0x38000000u + 0xfffu + (rest >> 13 & 1)) >> 13));
}
}  // namespace spiral_cpu
