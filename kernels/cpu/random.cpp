// Random numbers and dropout from Philox4x32-10 streams; ../common/philox.h defines every number
// exactly: element i depends on (seed, stream, i) alone, never on tiles, threads or instruction set (all
// arithmetic is on integers or in double, rounded to float once).
//
// Outputs are overwritten; C-contiguous. Written once: 4 bytes an element (integers 8, dropout 8).
// A block of four words takes 2 ns with AVX-512, a normal number 1.8 (AVX-512 core at 2.3 GHz).
#include "../common/philox.h"

#include "native.h"
#include "lanes.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace spiral {
namespace {
constexpr i64 CHUNK = 1024;  // words made at a time; they stay in the L1 cache

// ---------------------------------------------------------------- the generator
#if defined(__AVX512F__) || defined(__AVX2__)
// One block per 64-bit lane: the product of two low halves is what the instruction computes, and the
// high halves of the words may hold anything until the end.
#if defined(__AVX512F__)
typedef __m512i Wide;
constexpr i64 WIDE = 8;
inline Wide wide(uint64_t x) { return _mm512_set1_epi64((long long)x); }
inline Wide wide_iota() { return _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7); }
inline Wide wide_add(Wide a, Wide b) { return _mm512_add_epi64(a, b); }
inline Wide wide_mul(Wide a, Wide b) { return _mm512_mul_epu32(a, b); }
inline Wide wide_high(Wide a) { return _mm512_srli_epi64(a, 32); }
inline Wide wide_xor(Wide a, Wide b, Wide c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
inline Wide wide_pair(Wide low, Wide high) {
  return _mm512_mask_blend_epi32(0xAAAA, low, _mm512_slli_epi64(high, 32));
}
// pairs a and b of every block, in memory order
inline void wide_store(uint32_t* out, Wide a, Wide b) {
  const Wide first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), second = wide_add(first, wide(4));
  _mm512_storeu_si512(out, _mm512_permutex2var_epi64(a, first, b));
  _mm512_storeu_si512(out + 16, _mm512_permutex2var_epi64(a, second, b));
}
#else
typedef __m256i Wide;
constexpr i64 WIDE = 4;
inline Wide wide(uint64_t x) { return _mm256_set1_epi64x((long long)x); }
inline Wide wide_iota() { return _mm256_setr_epi64x(0, 1, 2, 3); }
inline Wide wide_add(Wide a, Wide b) { return _mm256_add_epi64(a, b); }
inline Wide wide_mul(Wide a, Wide b) { return _mm256_mul_epu32(a, b); }
inline Wide wide_high(Wide a) { return _mm256_srli_epi64(a, 32); }
inline Wide wide_xor(Wide a, Wide b, Wide c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
inline Wide wide_pair(Wide low, Wide high) {
  return _mm256_blend_epi32(low, _mm256_slli_epi64(high, 32), 0xAA);
}
inline void wide_store(uint32_t* out, Wide a, Wide b) {
  Wide low = _mm256_unpacklo_epi64(a, b), high = _mm256_unpackhi_epi64(a, b);  // blocks 0, 2 and 1, 3
  _mm256_storeu_si256((__m256i*)out, _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_storeu_si256((__m256i*)(out + 8), _mm256_permute2x128_si256(low, high, 0x31));
}
#endif

// 2 * WIDE blocks: two independent chains hide the multiplier's latency of 5 cycles
inline void wide_blocks(uint64_t seed, uint64_t stream, uint64_t block, uint32_t* out) {
  const Wide m0 = wide(SPIRAL_PHILOX_M0), m1 = wide(SPIRAL_PHILOX_M1);
  Wide c0[2], c1[2], c2[2], c3[2];
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int j = 0; j < 2; j++) {
    c0[j] = wide_add(wide(block + (uint64_t)(j * WIDE)), wide_iota());
    c1[j] = wide_high(c0[j]);
    c2[j] = wide(stream);
    c3[j] = wide_high(c2[j]);
  }
  for (int round = 0; round < SPIRAL_PHILOX_ROUNDS; round++) {
    for (int j = 0; j < 2; j++) {
      Wide p0 = wide_mul(c0[j], m0), p1 = wide_mul(c2[j], m1);
      c0[j] = wide_xor(wide_high(p1), c1[j], wide(k0));
      c1[j] = p1;
      c2[j] = wide_xor(wide_high(p0), c3[j], wide(k1));
      c3[j] = p0;
    }
    k0 += SPIRAL_PHILOX_W0;
    k1 += SPIRAL_PHILOX_W1;
  }
  for (int j = 0; j < 2; j++)
    wide_store(out + j * 4 * WIDE, wide_pair(c0[j], c1[j]), wide_pair(c2[j], c3[j]));
}
#else
constexpr i64 WIDE = 4;
// plain loops over blocks, for compilers to make of them what the processor has
inline void wide_blocks(uint64_t seed, uint64_t stream, uint64_t block, uint32_t* out) {
  for (int j = 0; j < 2 * WIDE; j++) philox_block(seed, stream, block + (uint64_t)j, out + 4 * j);
}
#endif

// words of blocks [block, block + n) to out
void fill_blocks(uint64_t seed, uint64_t stream, uint64_t block, i64 n, uint32_t* out) {
  i64 i = 0;
  for (; i + 2 * WIDE <= n; i += 2 * WIDE) wide_blocks(seed, stream, block + (uint64_t)i, out + 4 * i);
  for (; i < n; i++) philox_block(seed, stream, block + (uint64_t)i, out + 4 * i);
}

struct Stream {
  uint64_t seed, id, start;
};

// For every element range in turn: f(words, first, count, lead), where words[lead] belongs to element
// `first` of the output; words begins at a block and holds whole blocks.
template <class F>
void for_words(const Stream& s, i64 n, F f) {
  parallel_range(n, GRAIN, [&](i64 lo, i64 hi) {
    alignas(64) uint32_t words[CHUNK];
    while (lo < hi) {
      uint64_t element = s.start + (uint64_t)lo;
      i64 lead = (i64)(element & 3), count = std::min(hi - lo, CHUNK - lead);
      fill_blocks(s.seed, s.id, element >> 2, (lead + count + 3) / 4, words);
      f(words, lo, count, lead);
      lo += count;
    }
  });
}

// ---------------------------------------------------------------- normal numbers
// ln(w / 2^25) for odd w < 2^25: 2 atanh(f / (2 + f)) of the reduced number, 1e-14
inline double log_word(int32_t w) {
  int32_t bits = to_bits((float)w) - 0x3f3504f3;  // sqrt(1/2) .. sqrt(2)
  int32_t e = bits >> 23;
  double f = (double)w * (double)from_bits((127 - e) << 23) - 1.0;
  double s = f / (2.0 + f), z = s * s;
  double p = 1.0 / 17;
  p = p * z + 1.0 / 15;
  p = p * z + 1.0 / 13;
  p = p * z + 1.0 / 11;
  p = p * z + 1.0 / 9;
  p = p * z + 1.0 / 7;
  p = p * z + 1.0 / 5;
  p = p * z + 1.0 / 3;
  p = p * z + 1.0;
  return 2.0 * s * p + (double)(e - 25) * 0.6931471805599453;
}

// Taylor series of sine and cosine on |x| <= pi / 4: 3e-14
inline double sine(double x, double z) {
  double p = 1.0 / 6227020800;
  p = p * z - 1.0 / 39916800;
  p = p * z + 1.0 / 362880;
  p = p * z - 1.0 / 5040;
  p = p * z + 1.0 / 120;
  p = p * z - 1.0 / 6;
  return x + x * z * p;
}
inline double cosine(double z) {
  double p = -1.0 / 87178291200;
  p = p * z + 1.0 / 479001600;
  p = p * z - 1.0 / 3628800;
  p = p * z + 1.0 / 40320;
  p = p * z - 1.0 / 720;
  p = p * z + 1.0 / 24;
  p = p * z - 0.5;
  return 1.0 + z * p;
}

// out[2i], out[2i + 1] from words 2i, 2i + 1
void box_muller(const uint32_t* words, i64 pairs, double mean, double std, float* out) {
  SPIRAL_INDEPENDENT
  for (i64 i = 0; i < pairs; i++) {
    int32_t a = (int32_t)(words[2 * i] >> 8), b = (int32_t)(words[2 * i + 1] >> 8);
    double r = std * std::sqrt(-2.0 * log_word(2 * a + 1));
    int32_t quarter = (b + (1 << 21)) >> 22;  // nearest quarter turn; the rest is exact
    double x = (double)(b - quarter * (1 << 22)) * (6.283185307179586 / 16777216), z = x * x;
    double s = sine(x, z), c = cosine(z);
    bool swap = quarter & 1;
    double cs = swap ? s : c, sn = swap ? c : s;
    cs = (quarter + 1) & 2 ? -cs : cs;
    sn = quarter & 2 ? -sn : sn;
    out[2 * i] = (float)(mean + r * cs);
    out[2 * i + 1] = (float)(mean + r * sn);
  }
}

// ---------------------------------------------------------------- arguments
bool output_ok(const char* name, PyObject* o, int type, const char* type_name) {
  if (is_array(o) && PyArray_TYPE(arr(o)) == type && PyArray_ISCARRAY(arr(o))) return true;
  PyErr_Format(PyExc_ValueError, "%s: the output must be a writable C-contiguous %s array", name, type_name);
  return false;
}

bool word64(PyObject* o, uint64_t* value) {
  *value = PyLong_AsUnsignedLongLong(o);
  return !(*value == (uint64_t)-1 && PyErr_Occurred());
}

// seed, stream, start at args[0..2]
bool stream_args(PyObject* const* args, Stream* s) {
  return word64(args[0], &s->seed) && word64(args[1], &s->id) && word64(args[2], &s->start);
}

// ---------------------------------------------------------------- kernels
PyObject* random_bits(PyObject*, PyObject* const* args, Py_ssize_t n) {
  Stream s;
  if (!arity("random_bits", n, 4, 4) || !stream_args(args, &s)) return nullptr;
  if (!output_ok("random_bits", args[3], NPY_UINT32, "uint32")) return nullptr;
  uint32_t* out = data<uint32_t>(args[3]);
  i64 count = size(args[3]);
  {
    GilRelease gil(8.0 * (double)count);
    for_words(s, count, [=](const uint32_t* words, i64 at, i64 k, i64 lead) {
      memcpy(out + at, words + lead, (size_t)k * 4);
    });
  }
  Py_RETURN_NONE;
}

PyObject* random_uniform(PyObject*, PyObject* const* args, Py_ssize_t n) {
  Stream s;
  if (!arity("random_uniform", n, 6, 6) || !stream_args(args, &s)) return nullptr;
  if (!output_ok("random_uniform", args[5], NPY_FLOAT32, "float32")) return nullptr;
  float low = (float)as_double(args[3]), high = (float)as_double(args[4]);
  if (PyErr_Occurred()) return nullptr;
  double base = (double)low, step = (double)(high - low) * (1.0 / 16777216);
  float last = high > low ? std::nextafter(high, low) : low;
  float* out = data<float>(args[5]);
  i64 count = size(args[5]);
  {
    GilRelease gil(8.0 * (double)count);
    for_words(s, count, [=](const uint32_t* words, i64 at, i64 k, i64 lead) {
      float* o = out + at;
      const uint32_t* w = words + lead;
      SPIRAL_INDEPENDENT
      for (i64 i = 0; i < k; i++) {
        float u = (float)(base + step * (double)(int32_t)(w[i] >> 8));
        o[i] = u > last ? last : u;
      }
    });
  }
  Py_RETURN_NONE;
}

PyObject* random_normal(PyObject*, PyObject* const* args, Py_ssize_t n) {
  Stream s;
  if (!arity("random_normal", n, 6, 6) || !stream_args(args, &s)) return nullptr;
  if (!output_ok("random_normal", args[5], NPY_FLOAT32, "float32")) return nullptr;
  double mean = as_double(args[3]), std = as_double(args[4]);
  if (PyErr_Occurred()) return nullptr;
  float* out = data<float>(args[5]);
  i64 count = size(args[5]);
  {
    GilRelease gil(32.0 * (double)count);
    for_words(s, count, [=](const uint32_t* words, i64 at, i64 k, i64 lead) {
      alignas(64) float z[CHUNK];
      box_muller(words, (lead + k + 1) / 2, mean, std, z);
      memcpy(out + at, z + lead, (size_t)k * 4);
    });
  }
  Py_RETURN_NONE;
}

PyObject* random_integers(PyObject*, PyObject* const* args, Py_ssize_t n) {
  Stream s;
  if (!arity("random_integers", n, 6, 6) || !stream_args(args, &s)) return nullptr;
  if (!output_ok("random_integers", args[5], NPY_INT64, "int64")) return nullptr;
  i64 low = as_int(args[3]), high = as_int(args[4]);
  if (PyErr_Occurred()) return nullptr;
  uint64_t range = (uint64_t)high - (uint64_t)low;
  if (high <= low || range > 0xffffffffu) {
    PyErr_Format(PyExc_ValueError,
                 "random_integers: expected low < high with high - low < 2**32; received low=%lld, high=%lld",
                 (long long)low, (long long)high);
    return nullptr;
  }
  i64* out = data<i64>(args[5]);
  i64 count = size(args[5]);
  {
    GilRelease gil(8.0 * (double)count);
    for_words(s, count, [=](const uint32_t* words, i64 at, i64 k, i64 lead) {
      i64* o = out + at;
      const uint32_t* w = words + lead;
      SPIRAL_INDEPENDENT
      for (i64 i = 0; i < k; i++) o[i] = low + (i64)(((uint64_t)w[i] * (uint64_t)(uint32_t)range) >> 32);
    });
  }
  Py_RETURN_NONE;
}

// A dropped element is 0 whatever it was. The gradient is this very function of the gradient.
PyObject* dropout(PyObject*, PyObject* const* args, Py_ssize_t n) {
  Stream s{0, 0, 0};
  if (!arity("dropout", n, 5, 5) || !word64(args[2], &s.seed) || !word64(args[3], &s.id)) return nullptr;
  double p = as_double(args[1]);
  if (PyErr_Occurred()) return nullptr;
  if (!is_f32(args[0])) {
    PyErr_SetString(PyExc_TypeError, "dropout: x must be a float32 array");
    return nullptr;
  }
  if (!output_ok("dropout", args[4], NPY_FLOAT32, "float32")) return nullptr;
  if (!(p >= 0 && p <= 1) || size(args[4]) != size(args[0])) {
    PyErr_Format(PyExc_ValueError,
                 "dropout: expected 0 <= p <= 1 and as many outputs as inputs; received p=%R, %zd and %zd",
                 args[1], (Py_ssize_t)size(args[4]), (Py_ssize_t)size(args[0]));
    return nullptr;
  }
  Contiguous source(args[0]);
  if (!source) return nullptr;
  const float* x = source.as<float>();
  float* y = data<float>(args[4]);
  i64 count = size(args[4]);
  double edge = std::floor(p * 4294967296.0 + 0.5);
  if (edge >= 4294967296.0) {
    std::fill(y, y + count, 0.f);
    Py_RETURN_NONE;
  }
  uint32_t threshold = (uint32_t)edge;
  float scale = (float)(1.0 / (1.0 - p));
  {
    GilRelease gil(16.0 * (double)count);
    for_words(s, count, [=](const uint32_t* words, i64 at, i64 k, i64 lead) {
      const float* a = x + at;
      float* o = y + at;
      const uint32_t* w = words + lead;
      SPIRAL_INDEPENDENT
      for (i64 i = 0; i < k; i++) {
        const float kept = a[i] * scale;  // before the choice, or the loop would not vectorise
        o[i] = w[i] >= threshold ? kept : 0.f;
      }
    });
  }
  Py_RETURN_NONE;
}
}  // namespace

PyMethodDef random_methods[] = {
    {"random_bits", (PyCFunction)(void*)random_bits, METH_FASTCALL,
     "random_bits(seed, stream, start, out: uint32)"},
    {"random_uniform", (PyCFunction)(void*)random_uniform, METH_FASTCALL,
     "random_uniform(seed, stream, start, low, high, out): in [low, high)"},
    {"random_normal", (PyCFunction)(void*)random_normal, METH_FASTCALL,
     "random_normal(seed, stream, start, mean, std, out)"},
    {"random_integers", (PyCFunction)(void*)random_integers, METH_FASTCALL,
     "random_integers(seed, stream, start, low, high, out: int64): in [low, high)"},
    {"dropout", (PyCFunction)(void*)dropout, METH_FASTCALL,
     "dropout(x, p, seed, stream, y): y = x / (1 - p) where kept, else 0"},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace spiral
