// softmax(q k^T * scale + mask) v in blocks of queries and keys, and its gradients (Dao 2023); the T x S matrix is never
// stored.
#include "attention.cuh"

namespace spiral {
// One block per 16 TM queries of a head; shapes and grid as in AttentionShape. y and lse are overwritten. Dynamic shared
// memory: 2 tiles and the scores. 4 D operations for each pair that sees each other; reads k and v T / (16 TM) times.
template <class Tiles>
__global__ void __launch_bounds__(256, 1)
attention(Heads<typename Tiles::T> q, Heads<typename Tiles::T> k, Heads<typename Tiles::T> v, Mask<typename Tiles::T> mask,
          typename Tiles::T* y, typename Tiles::W* lse, AttentionShape shape) {
  typedef typename Tiles::T T;
  typedef typename Tiles::W W;
  constexpr int B = Tiles::B, TM = Tiles::TM;
  W *const tile_q = dynamic_shared<W>(), *const tile_kv = tile_q + Tiles::TILE, *const p = tile_kv + Tiles::TILE;
  AttentionBlock here;
  if (!shape.find(here, B, false)) return;
  const int batch = here.batch, head = here.head, first = here.first, kv_head = head / shape.groups;
  const i64 row0 = here.row + head * here.rows;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const T* const keys = k.p + batch * k.b + kv_head * k.h + here.token * k.t;
  const T* const values = v.p + batch * v.b + kv_head * v.h + here.token * v.t;
  const W none = minus_infinity(), scale = (W)shape.scale;
  Tiles::load(tile_q, q.p + batch * q.b + head * q.h + here.token * q.t, q.t, first, shape.t, shape.d);
  W acc[TM][Tiles::C] = {}, top[TM], total[TM];
#pragma unroll
  for (int i = 0; i < TM; i++) top[i] = none, total[i] = 0;
  int from, to;
  shape.keys(first, B, from, to);
  for (int s0 = from / B * B; s0 < to; s0 += B) {
    __syncthreads();
    Tiles::load(tile_kv, keys, k.t, s0, shape.s, shape.d);
    __syncthreads();
    W s[TM][TM];
    Tiles::scores(s, tile_q, tile_kv, shape.d);
#pragma unroll
    for (int i = 0; i < TM; i++) {
      W best = none;
#pragma unroll
      for (int j = 0; j < TM; j++) {
        const int row = first + ty + 16 * i, key = s0 + tx + 16 * j;
        const bool sees = shape.sees(row, key);
        s[i][j] *= scale;
        if (mask.p && sees) s[i][j] += up(mask.p[batch * mask.b + head * mask.h + row * mask.t + key * mask.s]);
        if (!sees) s[i][j] = none;
        best = Max::of(best, s[i][j]);
      }
      best = Max::of(top[i], reduce16<Max>(best));
      const W offset = best == none ? (W)0 : best, shrink = exp(top[i] - offset);
      top[i] = best, total[i] *= shrink;
#pragma unroll
      for (int j = 0; j < TM; j++) total[i] += s[i][j] = exp(s[i][j] - offset);
#pragma unroll
      for (int c = 0; c < Tiles::C; c++) acc[i][c] *= shrink;
    }
    Tiles::put_scores(p, s);
    __syncthreads();
    Tiles::load(tile_kv, values, v.t, s0, shape.s, shape.d);
    __syncthreads();
    Tiles::accumulate(acc, p, tile_kv);
  }
#pragma unroll
  for (int i = 0; i < TM; i++) {
    total[i] = reduce16<Add>(total[i]);
    const int row = first + ty + 16 * i;
    if (tx == 0 && row < shape.t)
      lse[row0 + row] = total[i] == 0 ? none : (W)log(total[i]) + top[i];
    total[i] = total[i] == 0 ? (W)0 : 1 / total[i];
  }
  Tiles::store(y + here.out, here.stride, acc, total, first, shape.t, shape.d);
}

// delta (B * H * T) = sum over D of g * y, both (B, H, T, D); one warp per row, 8 rows per block. Overwrites delta.
template <class T>
__global__ void attention_delta(Heads<T> g, Heads<T> y, wide<T>* delta, int heads, int t, int d, i64 rows) {
  const i64 i = (i64)blockIdx.x * 8 + threadIdx.x / 32;
  if (i >= rows) return;
  const i64 bh = i / t;
  const int row = (int)(i - bh * t), batch = (int)(bh / heads), head = (int)(bh % heads);
  const T *const a = g.p + batch * g.b + head * g.h + row * g.t, *const b = y.p + batch * y.b + head * y.h + row * y.t;
  wide<T> sum = 0;
  for (int c = threadIdx.x % 32; c < d; c += 32) sum += up(a[c]) * up(b[c]);
  sum = warp_reduce<Add>(sum);
  if (threadIdx.x % 32 == 0) delta[i] = sum;
}

// Probability and the gradient of the score before scaling, of one pair; lse is -inf where a query sees nothing.
template <class W>
__device__ inline void back(W& s, W& dp, bool sees, W lse, W delta) {
  s = sees && lse != (W)minus_infinity() ? (W)exp(s - lse) : (W)0;
  dp = s == 0 ? (W)0 : s * (dp - delta);
}

// dq is overwritten; one block per 16 TM queries as in `attention`. Dynamic shared memory: 4 tiles and
// the scores. 6 D operations for each pair that sees each other.
template <class Tiles>
__global__ void __launch_bounds__(256, 1)
attention_dq(Heads<typename Tiles::T> g, Heads<typename Tiles::T> q, Heads<typename Tiles::T> k, Heads<typename Tiles::T> v,
             Mask<typename Tiles::T> mask, const typename Tiles::W* lse, const typename Tiles::W* delta,
             typename Tiles::T* dq, AttentionShape shape) {
  typedef typename Tiles::T T;
  typedef typename Tiles::W W;
  constexpr int B = Tiles::B, TM = Tiles::TM, TILE = Tiles::TILE;
  W *const tile_q = dynamic_shared<W>(), *const tile_g = tile_q + TILE, *const tile_k = tile_g + TILE;
  W *const tile_v = tile_k + TILE, *const p = tile_v + TILE;
  AttentionBlock here;
  if (!shape.find(here, B, false)) return;
  const int batch = here.batch, head = here.head, first = here.first, kv_head = head / shape.groups;
  const i64 row0 = here.row + head * here.rows;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const W scale = (W)shape.scale;
  Tiles::load(tile_q, q.p + batch * q.b + head * q.h + here.token * q.t, q.t, first, shape.t, shape.d);
  Tiles::load(tile_g, g.p + batch * g.b + head * g.h + here.token * g.t, g.t, first, shape.t, shape.d);
  W acc[TM][Tiles::C] = {}, of_row[TM], sum[TM], factor[TM];
#pragma unroll
  for (int i = 0; i < TM; i++) {
    const int row = first + ty + 16 * i;
    of_row[i] = row < shape.t ? lse[row0 + row] : (W)0;
    sum[i] = row < shape.t ? delta[row0 + row] : (W)0;
    factor[i] = scale;
  }
  int from, to;
  shape.keys(first, B, from, to);
  for (int s0 = from / B * B; s0 < to; s0 += B) {
    __syncthreads();
    Tiles::load(tile_k, k.p + batch * k.b + kv_head * k.h + here.token * k.t, k.t, s0, shape.s, shape.d);
    Tiles::load(tile_v, v.p + batch * v.b + kv_head * v.h + here.token * v.t, v.t, s0, shape.s, shape.d);
    __syncthreads();
    W s[TM][TM], dp[TM][TM];
    Tiles::scores(s, tile_q, tile_k, shape.d);
    Tiles::scores(dp, tile_g, tile_v, shape.d);
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
      for (int j = 0; j < TM; j++) {
        const int row = first + ty + 16 * i, key = s0 + tx + 16 * j;
        const bool sees = shape.sees(row, key);
        s[i][j] *= scale;
        if (mask.p && sees) s[i][j] += up(mask.p[batch * mask.b + head * mask.h + row * mask.t + key * mask.s]);
        back(s[i][j], dp[i][j], sees, of_row[i], sum[i]);
      }
    Tiles::put_scores(p, dp);
    Tiles::accumulate(acc, p, tile_k);
  }
  Tiles::store(dq + here.out, here.stride, acc, factor, first, shape.t, shape.d);
}

// dk and dv are overwritten; one block per 16 TM keys of a key head, which goes through its
// groups of query heads in order. Rows of tiles are keys, columns queries. Dynamic shared memory: 4 tiles and the scores.
// 8 D operations for each pair that sees each other.
template <class Tiles>
__global__ void __launch_bounds__(256, 1)
attention_dkv(Heads<typename Tiles::T> g, Heads<typename Tiles::T> q, Heads<typename Tiles::T> k,
              Heads<typename Tiles::T> v, Mask<typename Tiles::T> mask, const typename Tiles::W* lse,
              const typename Tiles::W* delta, typename Tiles::T* dk, typename Tiles::T* dv, AttentionShape shape) {
  typedef typename Tiles::T T;
  typedef typename Tiles::W W;
  constexpr int B = Tiles::B, TM = Tiles::TM, TILE = Tiles::TILE;
  W *const tile_q = dynamic_shared<W>(), *const tile_g = tile_q + TILE, *const tile_k = tile_g + TILE;
  W *const tile_v = tile_k + TILE, *const p = tile_v + TILE;
  AttentionBlock here;
  if (!shape.find(here, B, true)) return;
  const int batch = here.batch, kv_head = here.head, first = here.first;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const W scale = (W)shape.scale;
  Tiles::load(tile_k, k.p + batch * k.b + kv_head * k.h + here.token * k.t, k.t, first, shape.s, shape.d);
  Tiles::load(tile_v, v.p + batch * v.b + kv_head * v.h + here.token * v.t, v.t, first, shape.s, shape.d);
  W acc_k[TM][Tiles::C] = {}, acc_v[TM][Tiles::C] = {}, one[TM], factor[TM];
#pragma unroll
  for (int i = 0; i < TM; i++) one[i] = 1, factor[i] = scale;
  int from, to;
  shape.queries(first, B, from, to);
  for (int head = kv_head * shape.groups; head < (kv_head + 1) * shape.groups; head++) {
    const i64 rows = here.row + head * here.rows;
    for (int t0 = from / B * B; t0 < to; t0 += B) {
      __syncthreads();
      Tiles::load(tile_q, q.p + batch * q.b + head * q.h + here.token * q.t, q.t, t0, shape.t, shape.d);
      Tiles::load(tile_g, g.p + batch * g.b + head * g.h + here.token * g.t, g.t, t0, shape.t, shape.d);
      __syncthreads();
      W s[TM][TM], dp[TM][TM];
      Tiles::scores(s, tile_k, tile_q, shape.d);
      Tiles::scores(dp, tile_v, tile_g, shape.d);
#pragma unroll
      for (int j = 0; j < TM; j++) {
        const int row = t0 + tx + 16 * j;
        const W of_row = row < shape.t ? lse[rows + row] : (W)0;
        const W sum = row < shape.t ? delta[rows + row] : (W)0;
#pragma unroll
        for (int i = 0; i < TM; i++) {
          const int key = first + ty + 16 * i;
          const bool sees = shape.sees(row, key);
          s[i][j] *= scale;
          if (mask.p && sees) s[i][j] += up(mask.p[batch * mask.b + head * mask.h + row * mask.t + key * mask.s]);
          back(s[i][j], dp[i][j], sees, of_row, sum);
        }
      }
      Tiles::put_scores(p, s);
      Tiles::accumulate(acc_v, p, tile_g);
      Tiles::put_scores(p, dp);
      Tiles::accumulate(acc_k, p, tile_q);
    }
  }
  Tiles::store(dk + here.out, here.stride, acc_k, factor, first, shape.s, shape.d);
  Tiles::store(dv + here.out, here.stride, acc_v, one, first, shape.s, shape.d);
}
}  // namespace spiral
