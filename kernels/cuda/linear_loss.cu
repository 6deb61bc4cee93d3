// Cross-entropy of a linear layer in tiles of its logits: x (N, K) and weight (V, K) of T, logits x weight^T never whole.
//
// The forward computes tiles of rows x classes, a row of tiles after the other, and joins each row's maximum and sum of
// exponentials; the backward computes them again from the rows' log-sum-exp (Wijmans et al. 2024). The products are the
// templates of the headers, or a library's; tiles hold their sums as they are, in wide<T>. The formulas, what is ignored
// and what gives NaN are those of loss.cu. Everything runs in a fixed order.
#include "product_tiles.cuh"
#include "rows.cuh"

namespace spiral {
// y[m][n] = value, or += value where `add`, dense. struct format "Pqi4x".
template <class W>
struct Added {
  W* y;
  i64 columns;
  int add;

  __device__ void select(i64) {}
  __device__ void put(i64, int m, int n, W v) const {
    W* const at = y + m * columns + n;
    *at = add ? *at + v : v;
  }
  __device__ void put2(i64 batch, int m, int n, W v, W w) const { put(batch, m, n, v), put(batch, m, n + 1, w); }
};

__device__ inline i64 class_of(const void* targets, i64 row, int small) {
  return small ? (i64)((const int*)targets)[row] : ((const i64*)targets)[row];
}

// What is known of a row's logits so far.
template <class A>
struct alignas(4 * sizeof(A)) RowState {
  A top, sum, total, picked;  // total: of the logits, where there is smoothing
};

// Takes logits x (rows, n) of the classes from `first` on into states (rows), which the first tile (first = 0) begins.
// A group of threads per row as in rows.cuh. Reads each logit once, one exponential for each.
template <class A>
__global__ void __launch_bounds__(512)
linear_loss_tile(const A* x, const void* targets, RowState<A>* states, i64 rows, i64 n, i64 first, int group, int small,
                 int smooth) {
  constexpr int N = Pack<A>::N, K = 4;  // loads in flight
  __shared__ A scratch[64];
  const RowLane r = row_lane(rows, group);
  x += r.row * n;
  const i64 step = (i64)group * N, begin = (i64)r.lane * N - past16(x);
  Online<A> s = {minus_infinity<A>(), 0};
  A total = 0;
  for (i64 i = begin; i < n; i += K * step) {
    Pack<A> v[K];
#pragma unroll
    for (int k = 0; k < K; k++) v[k] = load_part(x, i + k * step, n, true, minus_infinity<A>());
    Online<A> t = {minus_infinity<A>(), 0};
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
      for (int j = 0; j < N; j++) t.top = Larger::of(t.top, v[k].at[j]);
    const A base = base_of(t.top);
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
      for (int j = 0; j < N; j++) {
        const i64 at = i + k * step + j;
        t.sum += exp(v[k].at[j] - base);
        if (smooth && at >= 0 && at < n) total += v[k].at[j];
      }
    s = join(s, t);
  }
  s = group_join(s, group, scratch);
  if (smooth) total = group_reduce<Add>(total, (A)0, group, scratch);
  if (!r.live || r.lane != 0) return;
  RowState<A> state = {minus_infinity<A>(), 0, 0, 0};
  if (first) state = states[r.row];
  const Online<A> both = join(Online<A>{state.top, state.sum}, s);
  const i64 target = class_of(targets, r.row, small) - first;
  if (target >= 0 && target < n) state.picked = x[target];
  states[r.row] = {both.top, both.sum, state.total + total, state.picked};
}

// Overwrites loss and lse (rows) from the states; one thread per row. `classes`: V.
template <class A>
__global__ void linear_loss_rows(const RowState<A>* states, const void* targets, A* loss, A* lse, i64 rows, i64 classes,
                                 int small, i64 ignore, double smoothing, double z) {
  const i64 row = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const RowState<A> s = states[row];
  const A l = s.top + log(s.sum), e = (A)smoothing;
  lse[row] = l;
  const i64 target = class_of(targets, row, small);
  A y = 0;
  if (target != ignore) {
    y = not_a_number<A>();
    if (target >= 0 && target < classes) {
      y = l - s.picked;
      if (smoothing != 0) y = ((A)1 - e) * y + e * (l - s.total / (A)classes);
      if (z != 0) y += (A)z * l * l;
    }
  }
  loss[row] = y;
}

// What N values of another type than T become.
template <class T, int N>
struct alignas(N * sizeof(T)) Few {
  T at[N];
};

// Gradient d (rows, n) of the logits x (rows, n) of the classes from `first` on; lse (rows); g: one per row where
// `per_row`, else one; divided by counted[0] where that is given. d is overwritten, its rows `stride` apart as those of x;
// with T = A it may be the very buffer of x. blockIdx.y shares out the pieces of rows. Reads and writes each once, one
// exponential for each.
template <class T>
__global__ void __launch_bounds__(THREADS)
linear_loss_grad(const wide<T>* g, const wide<T>* x, const void* targets, const wide<T>* lse, T* d, const i64* counted,
                 i64 rows, i64 n, i64 first, i64 classes, int group, int small, int per_row, i64 ignore,
                 double smoothing, double z) {
  typedef wide<T> A;
  constexpr int N = Pack<A>::N, K = sizeof(A) == 8 ? 2 : 4;  // loads in flight
  const RowLane r = row_lane(rows, group);
  if (!r.live) return;
  x += r.row * n, d += r.row * n;
  const i64 target = class_of(targets, r.row, small);
  A scale = g[per_row ? r.row : 0];
  if (counted) scale /= (A)counted[0];
  const bool counts = target != ignore;
  if (counts && (target < 0 || target >= classes)) scale = not_a_number<A>();
  const A l = lse[r.row], e = (A)smoothing;
  const A of_p = scale * ((A)1 + (A)2 * (A)z * l), hot = scale * ((A)1 - e), uniform = scale * (e / (A)classes);
  const i64 step = (i64)group * N;
  const bool same = ((u64)(d - past16(x)) & (N * sizeof(T) - 1)) == 0;
  for (i64 i = (i64)r.lane * N - past16(x) + blockIdx.y * K * step; i < n; i += gridDim.y * K * step) {
    Pack<A> v[K];
#pragma unroll
    for (int k = 0; k < K; k++) v[k] = load_part(x, i + k * step, n, true);
#pragma unroll
    for (int k = 0; k < K; k++) {
      const i64 at = i + k * step;
      if (at >= n) continue;
      Few<T, N> y;
#pragma unroll
      for (int j = 0; j < N; j++) {
        const A p = exp(v[k].at[j] - l);
        const A back = p * of_p - uniform - (first + at + j == target ? hot : (A)0);
        y.at[j] = down<T>(counts ? back : (A)0);
      }
      if (same && at >= 0 && at + N <= n) {
        *(Few<T, N>*)(d + at) = y;
      } else {
#pragma unroll
        for (int j = 0; j < N; j++)
          if (at + j >= 0 && at + j < n) d[at + j] = y.at[j];
      }
    }
  }
}
}  // namespace spiral
