// Cross-entropy of logits with integer targets, and its gradient.
//
// With p = softmax(x), lse = log sum exp x, e = label_smoothing, z = z_loss and V classes (PyTorch's definition of
// smoothing, Szegedy et al. 2016; the z term is that of PaLM, Chowdhery et al. 2022):
//   loss_i = lse - (1 - e) * x_t - e * mean(x) + z * lse^2
//   dx_v   = g_i * (p_v * (1 + 2 z lse) - (1 - e) * [v = t] - e / V)
// Rows whose target is ignore_index give loss 0 and gradient 0; the mean divides by the number of the others (none of
// them: NaN). A target outside of [0, V), which the CPU refuses, gives NaN: a device cannot raise. Targets are int64, or
// int32 where `small`. Sums run in a fixed order.
#include "rows.cuh"

namespace spiral {
__device__ inline i64 target_of(const void* targets, i64 row, int small) {
  return small ? (i64)((const int*)targets)[row] : ((const i64*)targets)[row];
}

// Overwrites lse (rows) and the rows' losses (rows): `losses` in the wide type where it is given, else `loss` as T.
// Reads each logit once (sizeof(T) bytes), one exponential for each.
template <class T>
__global__ void __launch_bounds__(512)
cross_entropy_rows(const T* x, const void* targets, T* loss, wide<T>* losses, void* lse, i64 rows, i64 n, int group,
                   int small, int full, i64 ignore, double smoothing, double z) {
  typedef wide<T> A;
  constexpr int N = Pack<T>::N, K = 4;  // loads in flight
  __shared__ A scratch[64];
  const RowLane r = row_lane(rows, group);
  x += r.row * n;
  const i64 step = (i64)group * N, first = (i64)r.lane * N - past16(x);
  const T least = down<T>(minus_infinity<A>());
  Online<A> s = {minus_infinity<A>(), 0};
  A total = 0;  // of the logits
  for (i64 i = first; i < n; i += K * step) {
    Pack<T> v[K];
#pragma unroll
    for (int k = 0; k < K; k++) v[k] = load_part(x, i + k * step, n, true, least);
    Online<A> t = {minus_infinity<A>(), 0};
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
      for (int j = 0; j < N; j++) t.top = Larger::of(t.top, up(v[k].at[j]));
    const A base = base_of(t.top);
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
      for (int j = 0; j < N; j++) {
        const i64 at = i + k * step + j;
        t.sum += exp(up(v[k].at[j]) - base);
        if (smoothing != 0 && at >= 0 && at < n) total += up(v[k].at[j]);
      }
    s = join(s, t);
  }
  s = group_join(s, group, scratch);
  if (smoothing != 0) total = group_reduce<Add>(total, (A)0, group, scratch);
  if (!r.live || r.lane != 0) return;
  const A l = s.top + log(s.sum), e = (A)smoothing;
  store_as<T>(lse, r.row, full, l);
  const i64 target = target_of(targets, r.row, small);
  A y = 0;
  if (target != ignore) {
    y = not_a_number<A>();
    if (target >= 0 && target < n) {
      y = l - up(x[target]);
      if (smoothing != 0) y = ((A)1 - e) * y + e * (l - total / (A)n);
      if (z != 0) y += (A)z * l * l;
    }
  }
  if (losses)
    losses[r.row] = y;
  else
    loss[r.row] = down<T>(y);
}

// One block: overwrites loss[0] with the sum of the losses, divided where `mean` by the number of targets that count, and
// counted[0] with that number; `losses` may be null.
template <class T>
__global__ void __launch_bounds__(1024)
cross_entropy_total(const wide<T>* losses, const void* targets, T* loss, i64* counted, i64 rows, int small, i64 ignore, int mean) {
  __shared__ double scratch[32];
  double sum = 0, count = 0;
#pragma unroll 4
  for (i64 i = threadIdx.x; i < rows; i += blockDim.x) {
    if (losses) sum += (double)losses[i];
    count += target_of(targets, i, small) != ignore;
  }
  sum = block_reduce<Add>(sum, 0.0, scratch);
  count = block_reduce<Add>(count, 0.0, scratch);
  if (threadIdx.x != 0) return;
  if (losses) loss[0] = down<T>((wide<T>)(mean ? sum / count : sum));
  if (counted) counted[0] = (i64)count;
}

// dx (rows, n) from logits x and what cross_entropy_rows left in lse. g: one per row where `per_row`, else one; divided by
// counted[0] where that is given. dx is overwritten and may be the very buffer of x (each thread writes only what it
// has read itself): the gradient then costs no memory. Moves 2 * sizeof(T) bytes per logit, one exponential for each.
// blockIdx.y shares out the pieces of long rows.
template <class T>
__global__ void __launch_bounds__(THREADS)
cross_entropy_grad(const T* g, const T* x, const void* targets, const void* lse, T* dx, const i64* counted, i64 rows, i64 n,
                   int group, int small, int full, int per_row, i64 ignore, double smoothing, double z) {
  typedef wide<T> A;
  constexpr int N = Pack<T>::N, K = 4;  // loads in flight
  const RowLane r = row_lane(rows, group);
  if (!r.live) return;
  x += r.row * n, dx += r.row * n;
  const bool same = past16(x) == past16(dx);
  const i64 target = target_of(targets, r.row, small);
  A scale = up(g[per_row ? r.row : 0]);
  if (counted) scale /= (A)counted[0];
  const bool counts = target != ignore;
  if (counts && (target < 0 || target >= n)) scale = not_a_number<A>();
  const A l = load_as<T>(lse, r.row, full), e = (A)smoothing;
  const A of_p = scale * ((A)1 + (A)2 * (A)z * l), hot = scale * ((A)1 - e), uniform = scale * (e / (A)n);
  const i64 step = (i64)group * N;
  for (i64 i = (i64)r.lane * N - past16(x) + blockIdx.y * K * step; i < n; i += gridDim.y * K * step) {
    Pack<T> v[K];
#pragma unroll
    for (int k = 0; k < K; k++) v[k] = load_part(x, i + k * step, n, true);
#pragma unroll
    for (int k = 0; k < K; k++) {
#pragma unroll
      for (int j = 0; j < N; j++) {
        const A p = exp(up(v[k].at[j]) - l);
        const A y = p * of_p - uniform - (i + k * step + j == target ? hot : (A)0);
        v[k].at[j] = down<T>(counts ? y : (A)0);
      }
      if (i + k * step < n) store_part(dx, i + k * step, n, same, v[k]);
    }
  }
}
}  // namespace spiral
