// attention.cu for 16-bit operands on tensor cores.
#include "attention_mma.cuh"

namespace spiral {
// As `attention` in attention.cu, for 64 queries and STEP keys at a time. Scores are in units of log 2, for exp2.
// Dynamic shared memory: 64 + 4 STEP rows.
template <class Tiles>
__global__ void __launch_bounds__(Tiles::THREADS, 1)
attention_mma(Heads<typename Tiles::T> q, Heads<typename Tiles::T> k, Heads<typename Tiles::T> v,
              Mask<typename Tiles::T> mask, typename Tiles::T* y, float* lse, AttentionShape shape) {
  typedef typename Tiles::T T;
  constexpr int ROWS = Tiles::ROWS, STEP = Tiles::STEP, STAGE = Tiles::STAGE;
  T *const tile_q = dynamic_shared<T>(), *const stages = tile_q + Tiles::RESIDENT;
  AttentionBlock here;
  if (!shape.find(here, ROWS, false)) return;
  const int batch = here.batch, head = here.head, first = here.first, kv = head / shape.groups;
  const i64 row0 = here.row + head * here.rows;
  const int lane = threadIdx.x & 31, top_row = first + Tiles::row() + (lane >> 2);
  const T* const keys = k.p + batch * k.b + kv * k.h + here.token * k.t;
  const T* const values = v.p + batch * v.b + kv * v.h + here.token * v.t;
  const float none = minus_infinity(), scale = (float)shape.scale * LOG2_E;
  int from, to;
  shape.keys(first, ROWS, from, to);
  from = from / STEP * STEP;
  auto bring = [&](int s0, int stage) {
    T* const at = stages + stage * 2 * STAGE;
    if (s0 < to) {
      Tiles::template fill<STEP>(at, k, keys, s0, shape.s, shape.d);
      Tiles::template fill<STEP>(at + STAGE, v, values, s0, shape.s, shape.d);
    }
    cp_async_commit();
  };
  Tiles::template fill<ROWS>(tile_q, q, q.p + batch * q.b + head * q.h + here.token * q.t, first, shape.t, shape.d);
  bring(from, 0);
  typename Tiles::Sums acc = {};
  float top[2] = {none, none}, total[2] = {0, 0};
  int stage = 0;
  for (int s0 = from; s0 < to; s0 += STEP, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads();
    bring(s0 + STEP, stage ^ 1);
    const T* const tile_k = stages + stage * 2 * STAGE;
    typename Tiles::Scores s;
    Tiles::scores(s, tile_q, tile_k, shape.d);
    const bool whole = s0 + STEP <= shape.s && first + ROWS <= shape.t && !mask.p && !shape.window &&
                       (!shape.causal || s0 + STEP - 1 <= shape.position(first));
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = top_row + 8 * half;
      float best = none;
#pragma unroll
      for (int j = 0; j < STEP / 8; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float& x = s[j][2 * half + e];
          x *= scale;
          if (!whole) {
            const int key = s0 + 8 * j + 2 * (lane & 3) + e;
            const bool sees = shape.sees(row, key);
            if (mask.p && sees)
              x += up(mask.p[batch * mask.b + head * mask.h + row * mask.t + key * mask.s]) * LOG2_E;
            if (!sees) x = none;
          }
          best = Max::of(best, x);
        }
      best = Max::of(top[half], reduce4<Max>(best));
      const float offset = best == none ? 0.0f : best, shrink = exp2f(top[half] - offset);
      top[half] = best, total[half] *= shrink;
#pragma unroll
      for (int j = 0; j < STEP / 8; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) total[half] += s[j][2 * half + e] = exp2f(s[j][2 * half + e] - offset);
#pragma unroll
      for (int j = 0; j < Tiles::COLUMNS / 8; j++) acc[j][2 * half] *= shrink, acc[j][2 * half + 1] *= shrink;
    }
    Tiles::accumulate(acc, s, tile_k + STAGE, shape.d);
  }
  cp_async_wait<0>();
  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const float sum = reduce4<Add>(total[half]);
    const int row = top_row + 8 * half;
    if ((lane & 3) == 0 && Tiles::column() == 0 && row < shape.t)
      lse[row0 + row] = sum == 0 ? none : (log2f(sum) + top[half]) * LN_2;
    factor[half] = sum == 0 ? 0.0f : 1 / sum;
  }
  Tiles::store(y + here.out, here.stride, acc, factor[0], factor[1], first, shape.t, shape.d);
}

// Probability (into s) and gradient of the score before scaling (into dp) of one pair.
__device__ inline void back(float& s, float& dp, bool sees, float scale, float added, float lse, float delta) {
  s = sees && lse != minus_infinity() ? exp2f((s * scale + added - lse) * LOG2_E) : 0.0f;
  dp = s == 0 ? 0.0f : s * (dp - delta);
}

// As `attention_dq` in attention.cu. Dynamic shared memory: 128 + 4 STEP rows.
template <class Tiles>
__global__ void __launch_bounds__(Tiles::THREADS, 1)
attention_dq_mma(Heads<typename Tiles::T> g, Heads<typename Tiles::T> q, Heads<typename Tiles::T> k,
                 Heads<typename Tiles::T> v, Mask<typename Tiles::T> mask, const float* lse,
                 const float* delta, typename Tiles::T* dq, AttentionShape shape) {
  typedef typename Tiles::T T;
  constexpr int ROWS = Tiles::ROWS, STEP = Tiles::STEP, STAGE = Tiles::STAGE;
  T *const tile_q = dynamic_shared<T>(), *const tile_g = tile_q + Tiles::RESIDENT;
  T* const stages = tile_g + Tiles::RESIDENT;
  AttentionBlock here;
  if (!shape.find(here, ROWS, false)) return;
  const int batch = here.batch, head = here.head, first = here.first, kv = head / shape.groups;
  const i64 row0 = here.row + head * here.rows;
  const int lane = threadIdx.x & 31, top_row = first + Tiles::row() + (lane >> 2);
  const T* const keys = k.p + batch * k.b + kv * k.h + here.token * k.t;
  const T* const values = v.p + batch * v.b + kv * v.h + here.token * v.t;
  const float scale = (float)shape.scale;
  int from, to;
  shape.keys(first, ROWS, from, to);
  from = from / STEP * STEP;
  auto bring = [&](int s0, int stage) {
    T* const at = stages + stage * 2 * STAGE;
    if (s0 < to) {
      Tiles::template fill<STEP>(at, k, keys, s0, shape.s, shape.d);
      Tiles::template fill<STEP>(at + STAGE, v, values, s0, shape.s, shape.d);
    }
    cp_async_commit();
  };
  Tiles::template fill<ROWS>(tile_q, q, q.p + batch * q.b + head * q.h + here.token * q.t, first, shape.t, shape.d);
  Tiles::template fill<ROWS>(tile_g, g, g.p + batch * g.b + head * g.h + here.token * g.t, first, shape.t, shape.d);
  bring(from, 0);
  float of_row[2], sum[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = top_row + 8 * half;
    of_row[half] = row < shape.t ? lse[row0 + row] : 0.0f;
    sum[half] = row < shape.t ? delta[row0 + row] : 0.0f;
  }
  typename Tiles::Sums acc = {};
  int stage = 0;
  for (int s0 = from; s0 < to; s0 += STEP, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads();
    bring(s0 + STEP, stage ^ 1);
    const T* const tile_k = stages + stage * 2 * STAGE;
    typename Tiles::Scores s, dp;
    Tiles::scores(s, tile_q, tile_k, shape.d);
    Tiles::scores(dp, tile_g, tile_k + STAGE, shape.d);
#pragma unroll
    for (int j = 0; j < STEP / 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int row = top_row + 8 * (e / 2), key = s0 + 8 * j + 2 * (lane & 3) + e % 2;
        const bool sees = shape.sees(row, key);
        const float added =
            mask.p && sees ? up(mask.p[batch * mask.b + head * mask.h + row * mask.t + key * mask.s]) : 0.0f;
        back(s[j][e], dp[j][e], sees, scale, added, of_row[e / 2], sum[e / 2]);
      }
    Tiles::accumulate(acc, dp, tile_k, shape.d);
  }
  cp_async_wait<0>();
  Tiles::store(dq + here.out, here.stride, acc, scale, scale, first, shape.t, shape.d);
}

// As `attention_dkv` in attention.cu. Dynamic shared memory: 128 + 4 STEP rows.
template <class Tiles>
__global__ void __launch_bounds__(Tiles::THREADS, 1)
attention_dkv_mma(Heads<typename Tiles::T> g, Heads<typename Tiles::T> q, Heads<typename Tiles::T> k,
                  Heads<typename Tiles::T> v, Mask<typename Tiles::T> mask, const float* lse,
                  const float* delta, typename Tiles::T* dk, typename Tiles::T* dv, AttentionShape shape) {
  typedef typename Tiles::T T;
  constexpr int ROWS = Tiles::ROWS, STEP = Tiles::STEP, STAGE = Tiles::STAGE;
  T *const tile_k = dynamic_shared<T>(), *const tile_v = tile_k + Tiles::RESIDENT;
  T* const stages = tile_v + Tiles::RESIDENT;
  AttentionBlock here;
  if (!shape.find(here, ROWS, true)) return;
  const int batch = here.batch, kv = here.head, first = here.first;
  const int lane = threadIdx.x & 31, top_key = first + Tiles::row() + (lane >> 2);
  const float scale = (float)shape.scale;
  int from, to;
  shape.queries(first, ROWS, from, to);
  from = from / STEP * STEP;
  const int steps = from < to ? (to - from + STEP - 1) / STEP : 0, all = steps * shape.groups;
  auto bring = [&](int step, int stage) {
    T* const at = stages + stage * 2 * STAGE;
    if (step < all) {
      const int head = kv * shape.groups + step / steps, t0 = from + step % steps * STEP;
      const T* const queries = q.p + batch * q.b + head * q.h + here.token * q.t;
      const T* const gradients = g.p + batch * g.b + head * g.h + here.token * g.t;
      Tiles::template fill<STEP>(at, q, queries, t0, shape.t, shape.d);
      Tiles::template fill<STEP>(at + STAGE, g, gradients, t0, shape.t, shape.d);
    }
    cp_async_commit();
  };
  Tiles::template fill<ROWS>(tile_k, k, k.p + batch * k.b + kv * k.h + here.token * k.t, first, shape.s, shape.d);
  Tiles::template fill<ROWS>(tile_v, v, v.p + batch * v.b + kv * v.h + here.token * v.t, first, shape.s, shape.d);
  bring(0, 0);
  typename Tiles::Sums acc_k = {}, acc_v = {};
  for (int step = 0; step < all; step++) {
    cp_async_wait<0>();
    __syncthreads();
    bring(step + 1, (step + 1) & 1);
    const int head = kv * shape.groups + step / steps, t0 = from + step % steps * STEP;
    const i64 rows = here.row + head * here.rows;
    const T* const tile_q = stages + (step & 1) * 2 * STAGE;
    typename Tiles::Scores s, dp;
    Tiles::scores(s, tile_k, tile_q, shape.d);
    Tiles::scores(dp, tile_v, tile_q + STAGE, shape.d);
#pragma unroll
    for (int j = 0; j < STEP / 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int key = top_key + 8 * (e / 2), row = t0 + 8 * j + 2 * (lane & 3) + e % 2;
        const bool sees = shape.sees(row, key);
        const float added =
            mask.p && sees ? up(mask.p[batch * mask.b + head * mask.h + row * mask.t + key * mask.s]) : 0.0f;
        const float of_row = row < shape.t ? lse[rows + row] : 0.0f;
        const float sum = row < shape.t ? delta[rows + row] : 0.0f;
        back(s[j][e], dp[j][e], sees, scale, added, of_row, sum);
      }
    Tiles::accumulate(acc_v, s, tile_q + STAGE, shape.d);
    Tiles::accumulate(acc_k, dp, tile_q, shape.d);
  }
  cp_async_wait<0>();
  Tiles::store(dk + here.out, here.stride, acc_k, scale, scale, first, shape.s, shape.d);
  Tiles::store(dv + here.out, here.stride, acc_v, 1.0f, 1.0f, first, shape.s, shape.d);
}
}  // namespace spiral
