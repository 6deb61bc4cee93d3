// Optimizer steps over all tensors of a group in one launch.
//
// A table names what each block works on: a span of neighbours of up to four tensors of one shape (the parameter, its
// gradient and its state), each float16, bfloat16, float32 or float64. Arithmetic is in A: float, or double where a
// tensor is float64; one rounding at the end. Spans are multiples of 2048 elements but for a tensor's last.
#include "kinds.cuh"

namespace spiral {
constexpr int OPERANDS = 4, LANES = 8, THREADS = 256;

struct Span {  // struct format "4Q2i"
  void* at[OPERANDS];
  int n;
  int kinds;  // four bits for the Kind of each operand; bit 16: 16 divides all addresses
  __device__ int kind(int k) const { return kinds >> 4 * k & 15; }
  __device__ bool aligned() const { return kinds >> 16 & 1; }
};

// Eight elements as they lie in memory: PARTS is 2, or 4 where float64 may be among them.
template <int PARTS>
struct Raw { Pack<u32> part[PARTS]; };

template <int PARTS>
__device__ inline Raw<PARTS> load_raw(const void* p, int kind, int i) {
  Raw<PARTS> r;
  const u32* q = (const u32*)((const char*)p + (i64)i * size_of(kind));
  r.part[0] = load16(q);
  if (kind >= F32) r.part[1] = load16(q + 4);
  if (PARTS == 4 && kind == F64) r.part[PARTS - 2] = load16(q + 8), r.part[PARTS - 1] = load16(q + 12);
  return r;
}

__device__ inline double double_of(u32 low, u32 high) {
#ifdef SPIRAL_ON_CPU
  const u64 u = (u64)high << 32 | low;
  double x;
  __builtin_memcpy(&x, &u, 8);
  return x;
#else
  return __hiloint2double((int)high, (int)low);
#endif
}
__device__ inline u64 bits_of(double x) {
#ifdef SPIRAL_ON_CPU
  u64 u;
  __builtin_memcpy(&u, &x, 8);
  return u;
#else
  return (u64)__double_as_longlong(x);
#endif
}

template <class A, int PARTS>
__device__ inline void decode(const Raw<PARTS>& r, int kind, A* x) {
#pragma unroll
  for (int j = 0; j < LANES; j++) {
    const u32 half = r.part[0].at[j / 2] >> 16 * (j % 2) & 0xffffu;
    if (kind == F32)
      x[j] = float_of(r.part[j / 4].at[j % 4]);
    else if (kind == BF16)
      x[j] = float_of(half << 16);
    else if (kind == F16)
      x[j] = up(f16{(u16)half});
    else if (PARTS == 4)
      x[j] = (A)double_of(r.part[j / 2 % PARTS].at[2 * (j % 2)], r.part[j / 2 % PARTS].at[2 * (j % 2) + 1]);
  }
}

template <class A, int PARTS>
__device__ inline Raw<PARTS> encode(int kind, const A* x) {
  Raw<PARTS> r;
  if (kind <= BF16) {
#pragma unroll
    for (int j = 0; j < LANES; j += 2) {
      const u32 low = kind == F16 ? down<f16>((float)x[j]).bits : down<bf16>((float)x[j]).bits;
      const u32 high = kind == F16 ? down<f16>((float)x[j + 1]).bits : down<bf16>((float)x[j + 1]).bits;
      r.part[0].at[j / 2] = low | high << 16;
    }
  } else if (kind == F32) {
#pragma unroll
    for (int j = 0; j < LANES; j++) r.part[j / 4].at[j % 4] = bits_of((float)x[j]);
  } else if (PARTS == 4) {
#pragma unroll
    for (int j = 0; j < LANES; j++) {
      const u64 u = bits_of((double)x[j]);
      r.part[j / 2 % PARTS].at[2 * (j % 2)] = (u32)u, r.part[j / 2 % PARTS].at[2 * (j % 2) + 1] = (u32)(u >> 32);
    }
  }
  return r;
}

template <int PARTS>
__device__ inline void store_raw(void* p, int kind, int i, const Raw<PARTS>& r) {
  u32* q = (u32*)((char*)p + (i64)i * size_of(kind));
  store16(q, r.part[0]);
  if (kind >= F32) store16(q + 4, r.part[1]);
  if (PARTS == 4 && kind == F64) store16(q + 8, r.part[PARTS - 2]), store16(q + 12, r.part[PARTS - 1]);
}

// ---------------------------------------------------------------- steps
// A step has how many OPERANDS it takes, WRITES, a bit for each that it overwrites, and the change of one element.

// p, g, m, v (Loshchilov & Hutter 2019): keep = 1 - lr * weight_decay, or 1 and l2 = weight_decay (Kingma & Ba 2015);
// rate = lr / (1 - beta1^step), root = 1 / sqrt(1 - beta2^step). 14 operations.
template <class A>
struct AdamW {
  static constexpr int COUNT = 4, WRITES = 0b1101;
  A keep, l2, rest1, beta2, rest2, rate, root, eps;
  __device__ void of(A* x) const {
    const A g = x[1] + l2 * x[0];
    x[2] += rest1 * (g - x[2]);
    x[3] = beta2 * x[3] + rest2 * g * g;
    x[0] = x[0] * keep - rate * x[2] / ((A)sqrt(x[3]) * root + eps);
  }
};

template <class A>
struct Sgd {  // p, g; 4 operations
  static constexpr int COUNT = 2, WRITES = 0b01;
  A lr, weight_decay;
  __device__ void of(A* x) const { x[0] -= lr * (x[1] + weight_decay * x[0]); }
};

// p, g, b (Sutskever et al. 2013, in PyTorch's form): b = old * b + fresh * d with d = g + weight_decay * p, then
// p -= lr * (b, or d + momentum * b where nesterov); in the first step fresh is 1 and whatever b holds is left out.
// 8 operations.
template <class A>
struct Momentum {
  static constexpr int COUNT = 3, WRITES = 0b101;
  A lr, weight_decay, fresh, momentum;
  int nesterov, first;
  __device__ void of(A* x) const {
    const A d = x[1] + weight_decay * x[0];
    x[2] = first ? d : momentum * x[2] + fresh * d;
    x[0] -= lr * (nesterov ? d + momentum * x[2] : x[2]);
  }
};

template <class A>
struct Lion {  // p, g, m (Chen et al. 2023, algorithm 2); 12 operations
  static constexpr int COUNT = 3, WRITES = 0b101;
  A lr, beta1, rest1, beta2, rest2, weight_decay;
  __device__ void of(A* x) const {
    const A u = beta1 * x[2] + rest1 * x[1];
    const A sign = u > 0 ? (A)1 : u < 0 ? (A)-1 : u;  // NaN stays
    x[0] -= lr * (sign + weight_decay * x[0]);
    x[2] = beta2 * x[2] + rest2 * x[1];
  }
};

template <class A>
struct Scale {  // t *= factor
  static constexpr int COUNT = 1, WRITES = 0b1;
  A factor;
  __device__ void of(A* x) const { x[0] *= factor; }
};

template <class A>
struct Ema {  // average, parameter: average += rest * (parameter - average)
  static constexpr int COUNT = 2, WRITES = 0b01;
  A rest;
  __device__ void of(A* x) const { x[0] += rest * (x[1] - x[0]); }
};

// update: applies a step to every element of the table's spans, one block each. Overwrites the operands that the step
// writes. Reads COUNT elements and writes those per element; 16-byte accesses where the span's addresses allow them.
template <class A, template <class> class Step>
__global__ void update(const Span* table, Step<A> step) {
  typedef Step<A> S;
  constexpr int PARTS = sizeof(A) == 8 ? 4 : 2;
  const Span span = table[blockIdx.x];
  int done = 0;
  if (span.aligned()) {
    done = span.n / LANES * LANES;
    for (int i = threadIdx.x * LANES; i < done; i += THREADS * LANES) {
      Raw<PARTS> raw[S::COUNT];
      A x[S::COUNT][LANES];
#pragma unroll
      for (int k = 0; k < S::COUNT; k++) raw[k] = load_raw<PARTS>(span.at[k], span.kind(k), i);
#pragma unroll
      for (int k = 0; k < S::COUNT; k++) decode<A, PARTS>(raw[k], span.kind(k), x[k]);
#pragma unroll
      for (int j = 0; j < LANES; j++) {
        A one[S::COUNT];
#pragma unroll
        for (int k = 0; k < S::COUNT; k++) one[k] = x[k][j];
        step.of(one);
#pragma unroll
        for (int k = 0; k < S::COUNT; k++) x[k][j] = one[k];
      }
#pragma unroll
      for (int k = 0; k < S::COUNT; k++)
        if (S::WRITES >> k & 1) store_raw(span.at[k], span.kind(k), i, encode<A, PARTS>(span.kind(k), x[k]));
    }
  }
  for (int i = done + threadIdx.x; i < span.n; i += THREADS) {
    A one[S::COUNT];
    for (int k = 0; k < S::COUNT; k++) one[k] = load_one<A>(span.at[k], span.kind(k), i);
    step.of(one);
    for (int k = 0; k < S::COUNT; k++)
      if (S::WRITES >> k & 1) store_one<A>(span.at[k], span.kind(k), i, one[k]);
  }
}

// ---------------------------------------------------------------- finite or not
template <class A>
__device__ inline bool infinite(A x) { return !(x - x == 0); }  // or NaN

// check_finite: finite[0] = 0 if an element of the table's spans is infinite or NaN, else it is left as it is (the caller
// has set it to 1; every block that writes writes the same). With `scaled` the spans are multiplied by factor first, and
// what is looked at is the rounded result. Reads, or reads and writes, every element once; 2 operations per element.
template <class A, bool scaled>
__global__ void check_finite(const Span* table, bool* finite, A factor) {
  constexpr int PARTS = sizeof(A) == 8 ? 4 : 2;
  const Span span = table[blockIdx.x];
  const int kind = span.kind(0);
  bool bad = false;
  int done = 0;
  if (span.aligned()) {
    done = span.n / LANES * LANES;
#pragma unroll 2
    for (int i = threadIdx.x * LANES; i < done; i += THREADS * LANES) {
      A x[LANES];
      Raw<PARTS> raw = load_raw<PARTS>(span.at[0], kind, i);
      decode<A, PARTS>(raw, kind, x);
      if (scaled) {
        for (int j = 0; j < LANES; j++) x[j] *= factor;
        raw = encode<A, PARTS>(kind, x);
        store_raw(span.at[0], kind, i, raw);
        decode<A, PARTS>(raw, kind, x);
      }
      for (int j = 0; j < LANES; j++) bad |= infinite(x[j]);
    }
  }
  for (int i = done + threadIdx.x; i < span.n; i += THREADS) {
    A x = load_one<A>(span.at[0], kind, i);
    if (scaled) {
      store_one<A>(span.at[0], kind, i, x * factor);
      x = load_one<A>(span.at[0], kind, i);
    }
    bad |= infinite(x);
  }
  if (bad) *finite = false;
}

// ---------------------------------------------------------------- norm
// square_sums: partial[block] = the sum of the squares of a span's first operand, in double. Overwrites partial (blocks).
// Reads every element once; a conversion and 2 operations in double per element.
template <class A>
__global__ void square_sums(const Span* table, double* partial) {
  constexpr int PARTS = sizeof(A) == 8 ? 4 : 2;
  __shared__ double scratch[32];
  const Span span = table[blockIdx.x];
  const int kind = span.kind(0);
  double sum = 0;
  int done = 0;
  if (span.aligned()) {
    done = span.n / LANES * LANES;
#pragma unroll 2
    for (int i = threadIdx.x * LANES; i < done; i += THREADS * LANES) {
      A x[LANES];
      decode<A, PARTS>(load_raw<PARTS>(span.at[0], kind, i), kind, x);
      for (int j = 0; j < LANES; j++) sum += (double)x[j] * (double)x[j];
    }
  }
  for (int i = done + threadIdx.x; i < span.n; i += THREADS) {
    const double x = load_one<A>(span.at[0], kind, i);
    sum += x * x;
  }
  sum = block_reduce<Add>(sum, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// root_of_sum: norm[0] = sqrt(the sum of partial (n)), by one block in a fixed order.
__global__ void root_of_sum(const double* partial, double* norm, int n) {
  __shared__ double scratch[32];
  double sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += partial[i];
  sum = block_reduce<Add>(sum, 0.0, scratch);
  if (threadIdx.x == 0) norm[0] = sqrt(sum);
}
}  // namespace spiral
