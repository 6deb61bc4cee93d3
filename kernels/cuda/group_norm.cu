// Gradients of group normalisation (the forward is norm_rows of norm.cu, a row per sample and group).
//
// x, g: (N, C, S), dense; groups of C / groups channels share mean and rstd (N, groups); weight (C). In two readings of g
// and x: the sums of each channel of each sample, then dx from the sums of its group; dw and db from the same sums:
//   a = sum_S g * xhat   b = sum_S g   dx = rstd * (g * weight - sum_c(weight * b) / M - xhat * sum_c(weight * a) / M)
// with M elements in a group; dw = sum_N a, db = sum_N b. Nothing is added in an order that varies.
#include "rows.cuh"

namespace spiral {
enum { WEIGHT_WIDE = 2, STATISTICS_WIDE = 8 };  // as in norm.cu

// sums (2, rows) of the rows (sample, channel) of n elements: a, then b.
template <class T>
__global__ void __launch_bounds__(512)
group_norm_sums(const T* g, const T* x, const void* mean, const void* rstd, wide<T>* sums, i64 rows, i64 n, int channels,
                int group, int flags) {
  typedef wide<T> A;
  constexpr int N = Pack<T>::N;
  __shared__ A scratch[64];
  const RowLane r = row_lane(rows, group);
  g += r.row * n, x += r.row * n;
  const bool same = past16(x) == past16(g), full = flags & STATISTICS_WIDE;
  const i64 at = r.row / channels;
  const A m = load_as<T>(mean, at, full), k = load_as<T>(rstd, at, full);
  const i64 step = (i64)group * N;
  A a = 0, b = 0;
#pragma unroll 4
  for (i64 i = (i64)r.lane * N - past16(g); i < n; i += step) {
    const Pack<T> u = load_part(g, i, n, true), v = load_part(x, i, n, same);
#pragma unroll
    for (int j = 0; j < N; j++) {
      if (i + j < 0 || i + j >= n) continue;
      a += up(u.at[j]) * ((up(v.at[j]) - m) * k), b += up(u.at[j]);
    }
  }
  group_sum2(a, b, group, scratch);
  if (r.live && r.lane == 0) sums[r.row] = a, sums[rows + r.row] = b;
}

// dx of the rows (sample, channel) of n elements; overwritten.
template <class T>
__global__ void __launch_bounds__(512)
group_norm_dx(const T* g, const T* x, const void* weight, const void* mean, const void* rstd, const wide<T>* sums, T* dx,
              i64 rows, i64 n, int all_channels, int channels, int group, int flags) {
  typedef wide<T> A;
  constexpr int N = Pack<T>::N;
  __shared__ A scratch[64];
  const RowLane r = row_lane(rows, group);
  g += r.row * n, x += r.row * n, dx += r.row * n;
  const bool same_x = past16(x) == past16(g), same_dx = past16(dx) == past16(g), full = flags & STATISTICS_WIDE;
  const i64 at = r.row / channels;  // the group, among all samples'
  const int begin = (int)(at * channels % all_channels);
  const A m = load_as<T>(mean, at, full), k = load_as<T>(rstd, at, full);
  A slope = 0, sum = 0;
  for (int c = r.lane; c < channels; c += group) {
    const A w = weight ? load_as<T>(weight, begin + c, flags & WEIGHT_WIDE) : (A)1;
    slope += w * sums[at * channels + c], sum += w * sums[rows + at * channels + c];
  }
  group_sum2(slope, sum, group, scratch);
  if (!r.live) return;
  const A count = (A)n * (A)channels;
  slope /= count, sum /= count;
  const A w = weight ? load_as<T>(weight, (int)(r.row % all_channels), flags & WEIGHT_WIDE) : (A)1;
  const i64 step = (i64)group * N;
#pragma unroll 2
  for (i64 i = (i64)r.lane * N - past16(g); i < n; i += step) {
    Pack<T> u = load_part(g, i, n, true);
    const Pack<T> v = load_part(x, i, n, same_x);
#pragma unroll
    for (int j = 0; j < N; j++) u.at[j] = down<T>(k * (up(u.at[j]) * w - sum - (up(v.at[j]) - m) * k * slope));
    store_part(dx, i, n, same_dx, u);
  }
}
}  // namespace spiral
