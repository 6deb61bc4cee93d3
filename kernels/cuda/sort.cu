// Stable sorting of rows, and insertion points in a sorted vector.
//
// Values become unsigned keys of the same order (0 and -0 are equal, NaN is last), a descending order inverts them, and
// (key, position) pairs are sorted: as no two are equal, any merge is stable. Up to 2048 elements a block sorts a row in
// shared memory; longer rows are sorted in such tiles, which log2(n / 2048) passes merge.
#include "spiral.cuh"

namespace spiral {
// ---------------------------------------------------------------- keys
template <class T> struct Key { typedef u32 type; };
template <> struct Key<i64> { typedef u64 type; };
template <> struct Key<u64> { typedef u64 type; };
template <> struct Key<double> { typedef u64 type; };

__device__ inline u32 key_of(bool x) { return x; }
__device__ inline u32 key_of(u8 x) { return x; }
__device__ inline u32 key_of(u16 x) { return x; }
__device__ inline u32 key_of(u32 x) { return x; }
__device__ inline u64 key_of(u64 x) { return x; }
__device__ inline u32 key_of(int x) { return (u32)x ^ 0x80000000u; }
__device__ inline u32 key_of(i8 x) { return key_of((int)x); }
__device__ inline u32 key_of(short x) { return key_of((int)x); }
__device__ inline u64 key_of(i64 x) { return (u64)x ^ 0x8000000000000000ull; }
__device__ inline u32 key_of(float x) {
  if (x != x) return 0xffffffffu;
  const u32 u = x == 0 ? 0 : bits_of(x);
  return u >> 31 ? ~u : u | 0x80000000u;
}
__device__ inline u32 key_of(f16 x) { return key_of(up(x)); }
__device__ inline u32 key_of(bf16 x) { return key_of(up(x)); }
__device__ inline u64 key_of(double x) {
  if (x != x) return ~0ull;
  u64 u = 0;
  if (x != 0) {
#ifdef SPIRAL_ON_CPU
    __builtin_memcpy(&u, &x, 8);
#else
    u = (u64)__double_as_longlong(x);
#endif
  }
  return u >> 63 ? ~u : u | 0x8000000000000000ull;
}

template <class U>
__device__ inline bool before(U key, u32 at, U other, u32 other_at) {
  return key < other || (key == other && at < other_at);
}

// How many of the first `diagonal` elements of the merged sequence come from a (na elements; b has nb).
template <class U>
__device__ inline i64 merge_path(const U* ka, const u32* pa, i64 na, const U* kb, const u32* pb, i64 nb, i64 diagonal) {
  i64 low = diagonal > nb ? diagonal - nb : 0, high = diagonal < na ? diagonal : na;
  while (low < high) {
    const i64 i = (low + high) / 2, j = diagonal - 1 - i;
    if (before(kb[j], pb[j], ka[i], pa[i]))
      high = i;
    else
      low = i + 1;
  }
  return low;
}

// Merges ITEMS elements from position `diagonal` of the merged sequence of two runs in shared memory into registers.
template <class U, int ITEMS>
__device__ inline void merge_items(
    const U* ka, const u32* pa, int na, const U* kb, const u32* pb, int nb, int diagonal, U* key, u32* at) {
  int i = (int)merge_path(ka, pa, (i64)na, kb, pb, (i64)nb, (i64)diagonal), j = diagonal - i;
  for (int s = 0; s < ITEMS; s++) {
    if (i >= na && j >= nb) break;
    const bool a = j >= nb || (i < na && before(ka[i], pa[i], kb[j], pb[j]));
    key[s] = a ? ka[i] : kb[j];
    at[s] = a ? pa[i++] : pb[j++];
  }
}

// ---------------------------------------------------------------- sorting
// sort_tile: sorts tiles of THREADS * ITEMS neighbours of x (rows, n); `tiles` per row, one block each. What is not null
// is overwritten: y = the first `kept` values in order, position = where in the row each was (both (rows, kept), for
// tiles == 1); key and order = the first `kept` of each tile as keys and 32-bit positions in the row, one tile after the
// other in rows of `width`, where a short tile is filled up with keys that sort last. Reads x once from memory and again from the
// cache; about log2(THREADS * ITEMS)^2 / 2 comparisons per element in shared memory.
template <class T, int THREADS, int ITEMS>
__global__ void sort_tile(
    const T* x, T* y, i64* position, typename Key<T>::type* key, u32* order, i64 n, i64 kept, i64 tiles,
    i64 width, int descending) {
  typedef typename Key<T>::type U;
  constexpr int SIZE = THREADS * ITEMS;
  __shared__ U keys[SIZE];
  __shared__ u32 from[SIZE];
  const i64 row = blockIdx.x / tiles, tile = blockIdx.x - row * tiles, start = tile * SIZE;
  const int count = n - start < SIZE ? (int)(n - start) : SIZE, t = threadIdx.x;
  x += row * n;
  for (int i = t; i < SIZE; i += THREADS) {
    U k = (U)~(U)0;  // what is beyond the row's end comes last: its position is larger than any
    if (i < count) {
      k = key_of(x[start + i]);
      if (descending) k = ~k;
    }
    keys[i] = k, from[i] = (u32)(start + i);
  }
  __syncthreads();
  U k[ITEMS];
  u32 p[ITEMS];
  for (int s = 0; s < ITEMS; s++) k[s] = keys[t * ITEMS + s], p[s] = from[t * ITEMS + s];
#pragma unroll
  for (int pass = 0; pass < ITEMS; pass++) {  // odd-even transposition
#pragma unroll
    for (int s = pass & 1; s + 1 < ITEMS; s += 2)
      if (before(k[s + 1], p[s + 1], k[s], p[s])) {
        const U ks = k[s];
        const u32 ps = p[s];
        k[s] = k[s + 1], p[s] = p[s + 1], k[s + 1] = ks, p[s + 1] = ps;
      }
  }
  for (int run = ITEMS; run < SIZE && run < count; run *= 2) {
    __syncthreads();
    for (int s = 0; s < ITEMS; s++) keys[t * ITEMS + s] = k[s], from[t * ITEMS + s] = p[s];
    __syncthreads();
    const int base = t * ITEMS / (2 * run) * (2 * run);
    merge_items<U, ITEMS>(
        keys + base, from + base, run, keys + base + run, from + base + run, run, t * ITEMS - base, k, p);
  }
  __syncthreads();
  for (int s = 0; s < ITEMS; s++) keys[t * ITEMS + s] = k[s], from[t * ITEMS + s] = p[s];
  __syncthreads();
  for (int i = t; i < count && i < kept; i += THREADS) {
    if (y) y[row * kept + i] = x[from[i]];
    if (position) position[row * kept + i] = from[i];
  }
  if (!key) return;
  const i64 at = tile * kept, room = width - at < kept ? width - at : kept;
  for (int i = t; i < room; i += THREADS) {
    key[row * width + at + i] = i < count ? keys[i] : (U)~(U)0;
    order[row * width + at + i] = i < count ? from[i] : 0;
  }
}

// merge_runs: key, order (rows, n), sorted in runs of `width` elements -> the same sorted in runs of 2 * width; width is
// a multiple of THREADS * ITEMS, and a block makes that many elements of the result (`tiles` blocks a row). Overwrites
// to_key, to_order. Moves 2 * (sizeof(U) + 4) bytes per element.
template <class U, int THREADS, int ITEMS>
__global__ void merge_runs(
    const U* key, const u32* order, U* to_key, u32* to_order, i64 n, i64 tiles, i64 width) {
  constexpr int SIZE = THREADS * ITEMS;
  __shared__ U keys[SIZE];
  __shared__ u32 from[SIZE];
  __shared__ i64 split[2];
  const i64 row = blockIdx.x / tiles, start = (blockIdx.x - row * tiles) * SIZE;
  const int count = n - start < SIZE ? (int)(n - start) : SIZE, t = threadIdx.x;
  const i64 base = start / (2 * width) * (2 * width);
  const i64 na = n - base < width ? n - base : width;
  const i64 nb = n - base - na < width ? n - base - na : width;
  const U *ka = key + row * n + base, *kb = ka + na;
  const u32 *pa = order + row * n + base, *pb = pa + na;
  if (t % 32 == 0 && t < 64) split[t / 32] = merge_path(ka, pa, na, kb, pb, nb, start - base + (t ? count : 0));
  __syncthreads();
  const i64 a0 = split[0], b0 = start - base - a0;
  const int from_a = (int)(split[1] - a0), from_b = count - from_a;
  for (int i = t; i < count; i += THREADS) {
    const bool a = i < from_a;
    keys[i] = a ? ka[a0 + i] : kb[b0 + i - from_a];
    from[i] = a ? pa[a0 + i] : pb[b0 + i - from_a];
  }
  __syncthreads();
  U k[ITEMS];
  u32 p[ITEMS];
  const int mine = t * ITEMS < count ? t * ITEMS : count;
  merge_items<U, ITEMS>(keys, from, from_a, keys + from_a, from + from_a, from_b, mine, k, p);
  __syncthreads();
  for (int s = 0; s < ITEMS; s++)
    if (mine + s < count) keys[mine + s] = k[s], from[mine + s] = p[s];
  __syncthreads();
  for (int i = t; i < count; i += THREADS) {
    to_key[row * n + start + i] = keys[i];
    to_order[row * n + start + i] = from[i];
  }
}

// search: position[i] = how many elements of the sorted vector x1 (n) are less than x2[i] (right: not greater).
// Overwrites position (count). Reads x2 once and log2(n) elements of x1 for each, mostly from the cache.
template <class T>
__global__ void search(const T* x1, const T* x2, i64* position, i64 n, i64 count, int right) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const typename Key<T>::type k = key_of(x2[i]);
  i64 low = 0, high = n;
  while (low < high) {
    const i64 middle = (low + high) / 2;
    const typename Key<T>::type m = key_of(x1[middle]);
    if (m < k || (right && m == k))
      low = middle + 1;
    else
      high = middle;
  }
  position[i] = low;
}
}  // namespace spiral
