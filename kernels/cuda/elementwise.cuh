// Every element of a result from the elements of the operands that stand in its place: the loops; the functions are in
// elementwise.cu and activation.cu.
//
// Results are dense, in C order. Operands have strides (a Layout over the result's axes, stride 0 where an operand is
// broadcast), or are numbers: where an address is null, the kernel's number stands for every element. A thread makes
// ROUNDS times N elements that follow each other in the result, N as many of the widest type as 16 bytes hold, at most 8. Where such
// a run stays within the last axis it is read with one access per operand if its elements lie side by side and are
// aligned, with one load if they are all the same one, else one by one; dense operands are the layout with one axis, and
// a row that is added to every row of a matrix costs one 32-bit division per run. All loads of a thread are under way
// before its first result: 32 bytes per operand and thread. Indices have 32 bits:
// what has 2^31 elements or more comes in several launches.
#pragma once
#include "strided.cuh"

// A function as a structure: A is what arithmetic on its elements runs in.
#define SPIRAL_UNARY(Name, expression)                                       \
  struct Name {                                                              \
    template <class A> static __device__ auto of(A x) { return expression; } \
  };
#define SPIRAL_BINARY(Name, expression)                                           \
  struct Name {                                                                   \
    template <class A> static __device__ auto of(A x, A y) { return expression; } \
  };

namespace spiral {
constexpr int ROUNDS = 2;

// N elements side by side
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Run {
  T at[N];
};

// N for types A and B; 8 at most, or runs of single bytes would fill the registers
template <class A, class B>
__device__ constexpr int run_length() {
  return sizeof(A) > 2 || sizeof(B) > 2 ? 16 / (int)(sizeof(A) > sizeof(B) ? sizeof(A) : sizeof(B)) : 8;
}

// the type of a number that stands for an operand of elements T
template <class T> struct Number { typedef i64 type; };
template <> struct Number<f16> { typedef double type; };
template <> struct Number<bf16> { typedef double type; };
template <> struct Number<float> { typedef double type; };
template <> struct Number<double> { typedef double type; };
template <class T> using number = typename Number<T>::type;

// the type that functions of elements T take and give
template <class T> using Arithmetic = decltype(up(T()));

// Byte offsets of element i in each operand; gives how many elements of its row begin there.
template <int K>
__device__ inline u32 locate_run(const Layout<K>& l, u32 i, i64* offset) {
  const int last = l.ndim - 1;
  for (int k = 0; k < K; k++) offset[k] = 0;
  u32 room = 0;
#pragma unroll 1
  for (int d = last; d > 0; d--) {
    const u32 n = (u32)l.shape[d], q = i / n, r = i - q * n;
    for (int k = 0; k < K; k++) offset[k] += r * l.stride[k][d];
    if (d == last) room = n - r;
    i = q;
  }
  for (int k = 0; k < K; k++) offset[k] += i * l.stride[k][0];
  return last ? room : (u32)l.shape[0] - i;
}

// N elements, `step` bytes from one to the next
template <int N, class T>
__device__ inline Run<T, N> load_run(const T* p, i64 step) {
  typedef Run<T, N> R;
  if (step == (i64)sizeof(T) && ((u64)p & (alignof(R) - 1)) == 0) return *(const R*)p;
  R r;
  if (step == 0) {
    const T v = *p;
    for (int j = 0; j < N; j++) r.at[j] = v;
  } else {
    for (int j = 0; j < N; j++) r.at[j] = at(p, j * step);
  }
  return r;
}

template <int N, class T>
__device__ inline void store_run(T* p, const Run<T, N>& r, u32 count) {
  typedef Run<T, N> R;
  if (count >= N && ((u64)p & (alignof(R) - 1)) == 0) {
    *(R*)p = r;
    return;
  }
  for (int j = 0; j < N; j++)
    if (j < count) p[j] = r.at[j];
}

// r.at[j] = v, where j is not known to the compiler: an index would move the run from registers to memory
template <int N, class T>
__device__ inline void put(Run<T, N>& r, int j, T v) {
#pragma unroll
  for (int m = 0; m < N; m++)
    if (m == j) r.at[m] = v;
}

// Elements i to i + N of K operands of one type; what lies beyond the last is the last again.
template <int N, int K, class T>
__device__ inline void load_runs(const T* const* p, u32 i, u32 n, const Layout<K>& l, Run<T, N>* r) {
  i64 offset[K];
  const u32 room = locate_run(l, i, offset);
  if (room >= N) {
    for (int k = 0; k < K; k++)
      if (p[k]) r[k] = load_run<N>(&at(p[k], offset[k]), l.stride[k][l.ndim - 1]);
    return;
  }
#pragma unroll 1
  for (int j = 0; j < N; j++) {
    if (j) locate_run(l, i + j < n ? i + j : n - 1, offset);
    for (int k = 0; k < K; k++)
      if (p[k]) put(r[k], j, at(p[k], offset[k]));
  }
}

// The first element of a thread's run in a round.
template <int N>
__device__ inline u32 run_start(int round) {
  return ((blockIdx.x * ROUNDS + round) * blockDim.x + threadIdx.x) * N;
}

// y = Op(x), n elements. Overwrites y.
template <class Op, class T, class Out>
__global__ void unary(const T* x, Out* y, u32 n, const __grid_constant__ Layout<1> l) {
  constexpr int N = run_length<T, Out>();
  const T* const p[1] = {x};
  Run<T, N> a[ROUNDS][1];
#pragma unroll
  for (int k = 0; k < ROUNDS; k++)
    if (run_start<N>(k) < n) load_runs<N, 1>(p, run_start<N>(k), n, l, a[k]);
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const u32 i = run_start<N>(k);
    if (i >= n) return;
    Run<Out, N> r;
#pragma unroll
    for (int j = 0; j < N; j++) r.at[j] = down<Out>(Op::of(up(a[k][0].at[j])));
    store_run<N>(y + i, r, n - i);
  }
}

// z = Op(x, y), n elements; `s` stands for x or y where that is null. Overwrites z.
template <class Op, class T, class Out>
__global__ void binary(const T* x, const T* y, Out* z, u32 n, number<T> s, const __grid_constant__ Layout<2> l) {
  constexpr int N = run_length<T, Out>();
  typedef Arithmetic<T> A;
  const T* const p[2] = {x, y};
  Run<T, N> a[ROUNDS][2];
#pragma unroll
  for (int k = 0; k < ROUNDS; k++)
    if (run_start<N>(k) < n) load_runs<N, 2>(p, run_start<N>(k), n, l, a[k]);
  const A c = (A)s;
#pragma unroll
  for (int k = 0; k < ROUNDS; k++) {
    const u32 i = run_start<N>(k);
    if (i >= n) return;
    Run<Out, N> r;
#pragma unroll
    for (int j = 0; j < N; j++)
      r.at[j] = down<Out>(Op::of(x ? up(a[k][0].at[j]) : c, y ? up(a[k][1].at[j]) : c));
    store_run<N>(z + i, r, n - i);
  }
}
}  // namespace spiral
