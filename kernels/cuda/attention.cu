// softmax(q k^T * scale + mask) v in blocks of queries and keys, and its gradients (Dao 2023); the T x S matrix is never
// stored.
#include "attention.cuh"

namespace spiral {
// One block per 16 TM queries of a head, the last first, which see most where attention is causal; grid x = B * H *
// ceil(T / (16 TM)). q (B, H, T, D), k and v (B, H / groups, S, D); y (B, H, T, D) and lse (B, H, T), the
// latter in float or double, dense, overwritten.
// Dynamic shared memory: 2 tiles and the scores. 4 D operations for each pair that sees each other; reads k and v
// T / (16 TM) times.
template <class Tiles>
__global__ void __launch_bounds__(256, 1)
attention(Heads<typename Tiles::T> q, Heads<typename Tiles::T> k, Heads<typename Tiles::T> v, Mask<typename Tiles::T> mask,
          typename Tiles::T* y, typename Tiles::W* lse, AttentionShape shape) {
  typedef typename Tiles::T T;
  typedef typename Tiles::W W;
  constexpr int B = Tiles::B, TM = Tiles::TM;
  W *const tile_q = dynamic_shared<W>(), *const tile_kv = tile_q + Tiles::TILE, *const p = tile_kv + Tiles::TILE;
  const int blocks = (shape.t + B - 1) / B, bh = blockIdx.x / blocks, batch = bh / shape.heads, head = bh % shape.heads;
  const int first = (blocks - 1 - (int)(blockIdx.x % blocks)) * B, kv_head = head / shape.groups;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const T *const keys = k.p + batch * k.b + kv_head * k.h, *const values = v.p + batch * v.b + kv_head * v.h;
  const W none = minus_infinity(), scale = (W)shape.scale;
  Tiles::load(tile_q, q.p + batch * q.b + head * q.h, q.t, first, shape.t, shape.d);
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
      lse[(i64)bh * shape.t + row] = total[i] == 0 ? none : (W)log(total[i]) + top[i];
    total[i] = total[i] == 0 ? (W)0 : 1 / total[i];
  }
  Tiles::store(y + (i64)bh * shape.t * shape.d, acc, total, first, shape.t, shape.d);
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

// dq (B, H, T, D) dense, overwritten; one block per 16 TM queries as in `attention`. Dynamic shared memory: 4 tiles and
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
  const int blocks = (shape.t + B - 1) / B, bh = blockIdx.x / blocks, batch = bh / shape.heads, head = bh % shape.heads;
  const int first = (blocks - 1 - (int)(blockIdx.x % blocks)) * B, kv_head = head / shape.groups;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const W scale = (W)shape.scale;
  Tiles::load(tile_q, q.p + batch * q.b + head * q.h, q.t, first, shape.t, shape.d);
  Tiles::load(tile_g, g.p + batch * g.b + head * g.h, g.t, first, shape.t, shape.d);
  W acc[TM][Tiles::C] = {}, of_row[TM], sum[TM], factor[TM];
#pragma unroll
  for (int i = 0; i < TM; i++) {
    const int row = first + ty + 16 * i;
    of_row[i] = row < shape.t ? lse[(i64)bh * shape.t + row] : (W)0;
    sum[i] = row < shape.t ? delta[(i64)bh * shape.t + row] : (W)0;
    factor[i] = scale;
  }
  int from, to;
  shape.keys(first, B, from, to);
  for (int s0 = from / B * B; s0 < to; s0 += B) {
    __syncthreads();
    Tiles::load(tile_k, k.p + batch * k.b + kv_head * k.h, k.t, s0, shape.s, shape.d);
    Tiles::load(tile_v, v.p + batch * v.b + kv_head * v.h, v.t, s0, shape.s, shape.d);
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
  Tiles::store(dq + (i64)bh * shape.t * shape.d, acc, factor, first, shape.t, shape.d);
}

// dk and dv (B, H / groups, S, D) dense, overwritten; one block per 16 TM keys of a key head, which goes through its
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
  const int blocks = (shape.s + B - 1) / B, kv_heads = shape.heads / shape.groups, bh = blockIdx.x / blocks;
  const int batch = bh / kv_heads, kv_head = bh % kv_heads, first = (int)(blockIdx.x % blocks) * B;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const W scale = (W)shape.scale;
  Tiles::load(tile_k, k.p + batch * k.b + kv_head * k.h, k.t, first, shape.s, shape.d);
  Tiles::load(tile_v, v.p + batch * v.b + kv_head * v.h, v.t, first, shape.s, shape.d);
  W acc_k[TM][Tiles::C] = {}, acc_v[TM][Tiles::C] = {}, one[TM], factor[TM];
#pragma unroll
  for (int i = 0; i < TM; i++) one[i] = 1, factor[i] = scale;
  int from, to;
  shape.queries(first, B, from, to);
  for (int head = kv_head * shape.groups; head < (kv_head + 1) * shape.groups; head++) {
    const i64 rows = ((i64)batch * shape.heads + head) * shape.t;
    for (int t0 = from / B * B; t0 < to; t0 += B) {
      __syncthreads();
      Tiles::load(tile_q, q.p + batch * q.b + head * q.h, q.t, t0, shape.t, shape.d);
      Tiles::load(tile_g, g.p + batch * g.b + head * g.h, g.t, t0, shape.t, shape.d);
      __syncthreads();
      W s[TM][TM], dp[TM][TM];
      Tiles::scores(s, tile_k, tile_q, shape.d);
      Tiles::scores(dp, tile_v, tile_g, shape.d);
#pragma unroll
      for (int j = 0; j < TM; j++) {
        const int row = t0 + tx + 16 * j;
        const W of_row = row < shape.t ? lse[rows + row] : (W)0, sum = row < shape.t ? delta[rows + row] : (W)0;
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
  const i64 offset = (i64)bh * shape.s * shape.d;
  Tiles::store(dk + offset, acc_k, factor, first, shape.s, shape.d);
  Tiles::store(dv + offset, acc_v, one, first, shape.s, shape.d);
}
}  // namespace spiral
