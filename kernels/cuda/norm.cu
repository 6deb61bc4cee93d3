// Layer, RMS and group normalisation with a residual added on the way, and the gradients of the row norms.
//
//   xhat = (x - mean) * rstd      rstd = 1 / sqrt(var + eps)      y = xhat * weight + bias
// RMS (flag): mean is 0 and var the mean of x^2. Statistics are in the wide type; mean and rstd are stored in it (flag) or
// as T. Weight and bias may be null, and of the wide type (flags) beside 16-bit x.
#include "reducers.cuh"

namespace spiral {
enum { RMS = 1, WEIGHT_WIDE = 2, BIAS_WIDE = 4, STATISTICS_WIDE = 8, WEIGHT_ALIGNED = 16, BIAS_ALIGNED = 32, ALIGNED = 64 };

// Weights of elements i to i + N - 1 of a row; `otherwise` outside of it and where there are none. spatial 0: one per
// element; else one per `spatial` elements, the row's first is number `channel`. `aligned`: p is, and i a multiple of N.
template <class T>
__device__ inline void load_weights(wide<T> (&w)[Pack<T>::N], const void* p, wide<T> otherwise, i64 i, i64 n, bool full,
                                    bool aligned, i64 spatial = 0, i64 channel = 0) {
  typedef wide<T> A;
  constexpr int N = Pack<T>::N, M = Pack<A>::N;
  if (p && aligned && i + N <= n) {
    if (full) {
#pragma unroll
      for (int k = 0; k < N / M; k++) {
        const Pack<A> v = load16((const A*)p + i + k * M);
#pragma unroll
        for (int j = 0; j < M; j++) w[k * M + j] = v.at[j];
      }
    } else {
      const Pack<T> v = load16((const T*)p + i);
#pragma unroll
      for (int j = 0; j < N; j++) w[j] = up(v.at[j]);
    }
    return;
  }
  i64 c = i, rest = 0;
  if (spatial) {
    const i64 from = i < 0 ? 0 : i;
    c = from >> 32 || spatial >> 32 ? from / spatial : (i64)((u32)from / (u32)spatial);
    rest = from - c * spatial, c += channel;
  }
#pragma unroll
  for (int j = 0; j < N; j++) {
    const bool inside = i + j >= 0 && i + j < n;
    w[j] = p && inside ? load_as<T>(p, c, full) : otherwise;
    if (!spatial)
      c++;
    else if (inside && ++rest == spatial)
      rest = 0, c++;
  }
}

// The moments of all elements of a group, the same bits in all its threads; `scratch` holds 32 states.
template <class T>
__device__ inline Moments<wide<T>> group_moments(Moments<wide<T>> s, int group, Moments<wide<T>>* scratch) {
  const int width = group < 32 ? group : 32;
  for (int d = width >> 1; d > 0; d >>= 1) s = Variance<T>::join(s, from_lane(s, d));
  if (group > 32) {
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    if (lane == 0) scratch[warp] = s;
    __syncthreads();
    s = lane < warps ? scratch[lane] : Variance<T>::none();
    for (int d = 16; d > 0; d >>= 1) s = Variance<T>::join(s, from_lane(s, d));
  }
  return {s.count, __shfl_sync(0xffffffffu, s.mean, 0, width), __shfl_sync(0xffffffffu, s.squares, 0, width)};
}

// x: (rows, n), dense. ADD: x + residual is what is normalised, before rounding; rounded it is written to `summed`.
// Overwrites y, summed, rstd (rows) and, unless RMS, mean (rows). Each input is read once while a row fits into registers
// (512 threads hold 32 KiB; of float32 64 KiB, of 16-bit sums 16 KiB), the rest of it twice: moves sizeof(T) * 2 bytes per element, ADD 4; about 10 operations.
// Group norm: rows are groups, `spatial` elements of which share a weight, `channels` such there are in a row, of
// which `groups` follow each other before the weights begin anew.
template <class T, bool ADD>
__global__ void __launch_bounds__(512, 1)  // the 1 keeps ptxas from aiming at two blocks and spilling
norm_rows(const T* x, const T* residual, T* summed, const void* weight, const void* bias, T* y, void* mean, void* rstd,
          i64 rows, i64 n, i64 spatial, i64 channels, int groups, int group, int flags, double eps) {
  typedef wide<T> A;
  constexpr int N = Pack<T>::N, HELD = ADD ? (sizeof(T) == 2 ? 2 : 4) : sizeof(T) == 4 ? 8 : 4;
  __shared__ Moments<A> scratch[32];
  const RowLane r = row_lane(rows, group);
  const i64 channel = spatial ? (r.row % groups) * channels : 0;
  x += r.row * n, y += r.row * n;
  if (ADD) residual += r.row * n, summed += r.row * n;
  const int shift = past16(x);
  const bool same_y = past16(y) == shift, same_r = ADD && past16(residual) == shift, same_s = ADD && past16(summed) == shift;
  const i64 step = (i64)group * N, first = (i64)r.lane * N - shift;
  Pack<T> held[HELD], other[ADD ? HELD : 1];
#pragma unroll
  for (int h = 0; h < HELD; h++) {
    held[h] = load_part(x, first + h * step, n, true);
    if (ADD) other[h] = load_part(residual, first + h * step, n, same_r);
  }
  auto value = [&](const Pack<T>& a, const Pack<T>& b, int j) { return ADD ? up(a.at[j]) + up(b.at[j]) : (A)up(a.at[j]); };
  const bool rms = flags & RMS;
  Moments<A> s = {0, 0, 0};
  if (!rms) {
#pragma unroll
    for (int h = 0; h < HELD; h++) {
      const i64 i = first + h * step, end = n - i < N ? n - i : N, begin = i < 0 ? -i : 0;
      s.count += (A)(int)(end > begin ? end - begin : 0);
#pragma unroll
      for (int j = 0; j < N; j++) s.mean += value(held[h], other[ADD ? h : 0], j);
    }
    s.mean = s.count > 0 ? s.mean / s.count : (A)0;
  }
#pragma unroll
  for (int h = 0; h < HELD; h++) {
    const i64 i = first + h * step;
#pragma unroll
    for (int j = 0; j < N; j++) {
      const A d = value(held[h], other[ADD ? h : 0], j) - s.mean;
      if (i + j >= 0 && i + j < n) s.squares += d * d;
    }
  }
  for (i64 i = first + HELD * step; i < n; i += step) {
    const Pack<T> a = load_part(x, i, n, true);
    const Pack<T> b = ADD ? load_part(residual, i, n, same_r) : a;
    const int count = n - i < N ? (int)(n - i) : N;
    A sum = 0, squares = 0;
    if (!rms) {
#pragma unroll
      for (int j = 0; j < N; j++) sum += value(a, b, j);
      sum /= (A)count;
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
      const A d = value(a, b, j) - sum;
      if (j < count) squares += d * d;
    }
    if (rms)
      s.squares += squares;
    else
      s = Variance<T>::join(s, {(A)count, sum, squares});
  }
  if (rms)
    s.squares = group_reduce<Add>(s.squares, (A)0, group, (A*)scratch);
  else
    s = group_moments<T>(s, group, scratch);
  if (!r.live) return;
  const A m = n ? s.mean : not_a_number<A>(), k = (A)1 / sqrt(s.squares / (A)n + (A)eps);
  if (r.lane == 0) {
    if (!rms) store_as<T>(mean, r.row, flags & STATISTICS_WIDE, m);
    store_as<T>(rstd, r.row, flags & STATISTICS_WIDE, k);
  }
  const bool aligned_w = flags & WEIGHT_ALIGNED && shift == 0, aligned_b = flags & BIAS_ALIGNED && shift == 0;
  auto write = [&](i64 i, Pack<T> a, Pack<T> b) {
    A w[N], c[N];
    load_weights<T>(w, weight, (A)1, i, n, flags & WEIGHT_WIDE, aligned_w, spatial, channel);
    load_weights<T>(c, bias, (A)0, i, n, flags & BIAS_WIDE, aligned_b, spatial, channel);
#pragma unroll
    for (int j = 0; j < N; j++) {
      const A v = value(a, b, j);
      if (ADD) b.at[j] = down<T>(v);
      a.at[j] = down<T>((v - m) * k * w[j] + c[j]);
    }
    if (ADD) store_part(summed, i, n, same_s, b);
    store_part(y, i, n, same_y, a);
  };
#pragma unroll
  for (int h = 0; h < HELD; h++)
    if (first + h * step < n) write(first + h * step, held[h], ADD ? other[h] : held[h]);
  for (i64 i = first + HELD * step; i < n; i += step) {
    const Pack<T> a = load_part(x, i, n, true);
    write(i, a, ADD ? load_part(residual, i, n, same_r) : a);
  }
}

// ---------------------------------------------------------------- gradients
//   gw = g * weight   dx = rstd * (gw - mean(gw) - xhat * mean(gw * xhat)) + more   dw = sum_rows g * xhat   db = sum_rows g
// RMS leaves mean(gw) out. `more`, the gradient that reaches the sum of a fused residual by itself, may be null.

// One pass for rows that fit into registers (16 elements a thread; 4 of float64): reads g, x and more once, overwrites dx, and
// leaves each block's share of dw and db in partial (2, gridDim.x, n; RMS: (1, …)), which norm_weights adds up. A block
// takes rows blockIdx.x, + gridDim.x, … (times the groups in a block). ALIGNED: all rows are, and n is a multiple of N.
template <class T>
__global__ void __launch_bounds__(512)
norm_grad_rows(const T* g, const T* more, const T* x, const void* weight, const void* mean, const void* rstd, T* dx,
               wide<T>* partial, i64 rows, i64 n, int group, int flags) {
  typedef wide<T> A;
  constexpr int N = Pack<T>::N, HELD = sizeof(T) == 4 ? 4 : 2;
  __shared__ A scratch[64];
  __shared__ A tile[2][32 * HELD * N];
  const int lane = threadIdx.x & (group - 1), per = blockDim.x / group;
  const bool aligned = flags & ALIGNED, rms = flags & RMS, full = flags & STATISTICS_WIDE;
  A dw[HELD][N], db[HELD][N];
#pragma unroll
  for (int h = 0; h < HELD; h++)
#pragma unroll
    for (int j = 0; j < N; j++) dw[h][j] = db[h][j] = 0;
  for (i64 base = (i64)blockIdx.x * per; base < rows; base += (i64)gridDim.x * per) {
    i64 row = base + threadIdx.x / group;
    const bool live = row < rows;
    if (!live) row = rows - 1;  // whole warps reach every shuffle
    Pack<T> u[HELD], v[HELD];
#pragma unroll
    for (int h = 0; h < HELD; h++) {
      u[h] = load_part(g + row * n, (i64)(h * group + lane) * N, n, aligned);
      v[h] = load_part(x + row * n, (i64)(h * group + lane) * N, n, aligned);
    }
    const A m = rms ? (A)0 : load_as<T>(mean, row, full), k = load_as<T>(rstd, row, full);
    A sum = 0, slope = 0;
#pragma unroll
    for (int h = 0; h < HELD; h++) {
      A w[N];
      load_weights<T>(w, weight, (A)1, (i64)(h * group + lane) * N, n, flags & WEIGHT_WIDE, flags & WEIGHT_ALIGNED);
#pragma unroll
      for (int j = 0; j < N; j++) {
        const A a = up(u[h].at[j]), xhat = (up(v[h].at[j]) - m) * k;
        sum += a * w[j], slope += a * w[j] * xhat;
        if (live) dw[h][j] += a * xhat, db[h][j] += a;
      }
    }
    group_sum2(sum, slope, group, scratch);
    sum = rms ? (A)0 : sum / (A)n, slope /= (A)n;
    if (!live) continue;
#pragma unroll
    for (int h = 0; h < HELD; h++) {
      const i64 i = (i64)(h * group + lane) * N;
      if (i >= n) break;
      A w[N];
      load_weights<T>(w, weight, (A)1, i, n, flags & WEIGHT_WIDE, flags & WEIGHT_ALIGNED);
      Pack<T> rest = {};
      if (more) rest = load_part(more + row * n, i, n, aligned);
#pragma unroll
      for (int j = 0; j < N; j++) {
        A d = k * (up(u[h].at[j]) * w[j] - sum - (up(v[h].at[j]) - m) * k * slope);
        if (more) d += up(rest.at[j]);
        u[h].at[j] = down<T>(d);
      }
      store_part(dx + row * n, i, n, aligned, u[h]);
    }
  }
  A* const to_w = partial + (i64)blockIdx.x * n;
  A* const to_b = to_w + (i64)gridDim.x * n;
  if (group > 32) {
#pragma unroll
    for (int h = 0; h < HELD; h++)
#pragma unroll
      for (int j = 0; j < N; j++) {
        const i64 i = (i64)(h * group + lane) * N + j;
        if (i >= n) continue;
        to_w[i] = dw[h][j];
        if (!rms) to_b[i] = db[h][j];
      }
    return;
  }
  // groups of a warp, then warps in turn
  for (int d = group; d < 32; d <<= 1)
#pragma unroll
    for (int h = 0; h < HELD; h++)
#pragma unroll
      for (int j = 0; j < N; j++) {
        dw[h][j] += __shfl_xor_sync(0xffffffffu, dw[h][j], d);
        db[h][j] += __shfl_xor_sync(0xffffffffu, db[h][j], d);
      }
  for (int warp = 0; warp < (int)blockDim.x >> 5; warp++) {
    if ((int)threadIdx.x >> 5 == warp && (threadIdx.x & 31) < (unsigned)group)
#pragma unroll
      for (int h = 0; h < HELD; h++)
#pragma unroll
        for (int j = 0; j < N; j++) {
          const int i = (h * group + lane) * N + j;
          tile[0][i] = warp ? tile[0][i] + dw[h][j] : dw[h][j];
          tile[1][i] = warp ? tile[1][i] + db[h][j] : db[h][j];
        }
    __syncthreads();
  }
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
    to_w[i] = tile[0][i];
    if (!rms) to_b[i] = tile[1][i];
  }
}

// dx of longer rows, a block each; reads g and x twice.
template <class T>
__global__ void __launch_bounds__(512)
norm_grad_long(const T* g, const T* more, const T* x, const void* weight, const void* mean, const void* rstd, T* dx, i64 n,
               int flags) {
  typedef wide<T> A;
  constexpr int N = Pack<T>::N;
  __shared__ A scratch[64];
  const i64 row = blockIdx.x, step = (i64)blockDim.x * N;
  const bool aligned = flags & ALIGNED, rms = flags & RMS, full = flags & STATISTICS_WIDE;
  g += row * n, x += row * n, dx += row * n;
  if (more) more += row * n;
  const A m = rms ? (A)0 : load_as<T>(mean, row, full), k = load_as<T>(rstd, row, full);
  A sum = 0, slope = 0;
#pragma unroll 2
  for (i64 i = (i64)threadIdx.x * N; i < n; i += step) {
    const Pack<T> u = load_part(g, i, n, aligned), v = load_part(x, i, n, aligned);
    A w[N];
    load_weights<T>(w, weight, (A)1, i, n, flags & WEIGHT_WIDE, flags & WEIGHT_ALIGNED);
#pragma unroll
    for (int j = 0; j < N; j++) {
      const A a = up(u.at[j]) * w[j];
      sum += a, slope += a * ((up(v.at[j]) - m) * k);
    }
  }
  group_sum2(sum, slope, (int)blockDim.x, scratch);
  sum = rms ? (A)0 : sum / (A)n, slope /= (A)n;
  for (i64 i = (i64)threadIdx.x * N; i < n; i += step) {
    Pack<T> u = load_part(g, i, n, aligned), v = load_part(x, i, n, aligned), rest = {};
    if (more) rest = load_part(more, i, n, aligned);
    A w[N];
    load_weights<T>(w, weight, (A)1, i, n, flags & WEIGHT_WIDE, flags & WEIGHT_ALIGNED);
#pragma unroll
    for (int j = 0; j < N; j++) {
      A d = k * (up(u.at[j]) * w[j] - sum - (up(v.at[j]) - m) * k * slope);
      if (more) d += up(rest.at[j]);
      u.at[j] = down<T>(d);
    }
    store_part(dx, i, n, aligned, u);
  }
}

// Shares of dw and db of longer rows: blockIdx.x counts 256 pieces of 16 bytes of columns, blockIdx.y parts of `part`
// rows; overwrites partial (2, gridDim.y, n; RMS: (1, …)). Reads g and x once.
template <class T>
__global__ void __launch_bounds__(THREADS)
norm_grad_columns(const T* g, const T* x, const void* mean, const void* rstd, wide<T>* partial, i64 rows, i64 n, i64 part,
                  int flags) {
  typedef wide<T> A;
  constexpr int N = Pack<T>::N;
  const i64 i = ((i64)blockIdx.x * THREADS + threadIdx.x) * N;
  if (i >= n) return;
  const bool aligned = flags & ALIGNED, rms = flags & RMS, full = flags & STATISTICS_WIDE;
  const i64 from = blockIdx.y * part, to = from + part < rows ? from + part : rows;
  A dw[N], db[N];
#pragma unroll
  for (int j = 0; j < N; j++) dw[j] = db[j] = 0;
#pragma unroll 2
  for (i64 row = from; row < to; row++) {
    const A m = rms ? (A)0 : load_as<T>(mean, row, full), k = load_as<T>(rstd, row, full);
    const Pack<T> u = load_part(g + row * n, i, n, aligned), v = load_part(x + row * n, i, n, aligned);
#pragma unroll
    for (int j = 0; j < N; j++) dw[j] += up(u.at[j]) * ((up(v.at[j]) - m) * k), db[j] += up(u.at[j]);
  }
  A* const to_w = partial + (i64)blockIdx.y * n;
  A* const to_b = to_w + (i64)gridDim.y * n;
#pragma unroll
  for (int j = 0; j < N; j++) {
    if (i + j >= n) continue;
    to_w[i + j] = dw[j];
    if (!rms) to_b[i + j] = db[j];
  }
}

// dw (blockIdx.y 0) and db (1) from partial (…, count, n), added in order; a block has 32 columns. count may be 0.
template <class T>
__global__ void __launch_bounds__(THREADS) norm_weights(const wide<T>* partial, T* dw, T* db, i64 count, i64 n) {
  typedef wide<T> A;
  __shared__ A tile[THREADS];
  const i64 i = (i64)blockIdx.x * 32 + (threadIdx.x & 31);
  partial += blockIdx.y * count * n;
  A sum = 0;
  if (i < n)
#pragma unroll 4
    for (i64 r = threadIdx.x >> 5; r < count; r += THREADS / 32) sum += partial[r * n + i];
  tile[threadIdx.x] = sum;
  for (int half = THREADS / 2; half >= 32; half >>= 1) {
    __syncthreads();
    if ((int)threadIdx.x < half) tile[threadIdx.x] += tile[threadIdx.x + half];
  }
  if (threadIdx.x < 32 && i < n) (blockIdx.y ? db : dw)[i] = down<T>(tile[threadIdx.x]);
}
}  // namespace spiral
