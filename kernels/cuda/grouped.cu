// Products of groups of rows, each with a matrix of its own. How many rows a group has is known on the device alone: the
// grid has room for any sizes, and a block finds its group by going through them.
#include "product_tiles.cuh"

namespace spiral {
// Tile v of the rows, when every group begins a tile of its own; rows after the last group are a group more.
struct GroupTile {
  int group, first, rows;  // rows: of the tile, 0 where there is no tile v

  __device__ GroupTile(const int* sizes, int groups, int total, int tile, i64 v) : first(0), rows(0) {
    for (group = 0; group <= groups; group++) {
      const int size = group < groups ? sizes[group] : total - first, tiles = (size + tile - 1) / tile;
      if (v < tiles) {
        const int inside = (int)v * tile, left = size - inside;
        first += inside, rows = left < tile ? left : tile;
        return;
      }
      v -= tiles, first += size;
    }
  }
};

// Rows of x (T, K) that belong to a tile; batch = tile. struct format: Strided's + "P3i4x".
template <class T_>
struct GroupRows : Strided<T_> {
  const int* sizes;
  int groups, total, tile;
  __device__ void select(i64 v) {
    const GroupTile t(sizes, groups, total, tile, v);
    this->p += (i64)t.first * this->row, this->rows = t.rows;
    if (t.group >= groups) this->ks = 0;  // no matrix, sums of nothing
  }
};

// The matrix (N, K) of a tile's group; the last batch axis is the groups'. struct format: Strided's + "P3i4x".
template <class T_>
struct GroupMatrix : Strided<T_> {
  const int* sizes;
  int groups, total, tile;
  __device__ void select(i64 v) {
    const GroupTile t(sizes, groups, total, tile, v);
    if (t.group < groups) this->p += t.group * this->step[BATCH_AXES - 1];
  }
};

// Where a tile's rows go in y (T, N), dense. struct format "PP4i".
template <class T>
struct GroupResult {
  T* y;
  const int* sizes;
  int groups, total, tile, columns;

  __device__ void select(i64 v) {
    const GroupTile t(sizes, groups, total, tile, v);
    y += (i64)t.first * columns, total = t.rows;
  }
  template <class W>
  __device__ void put(i64, int m, int n, W v) const {
    if (m < total) y[(i64)m * columns + n] = down<T>(v);
  }
  template <class W>
  __device__ void put2(i64 v, int m, int n, W a, W b) const { put(v, m, n, a), put(v, m, n + 1, b); }
};

// The rows of a group as what is summed over: (columns, T) of which k begins at the group's first; batch = group.
// struct format: Strided's + "P".
template <class T_>
struct GroupSpan : Strided<T_> {
  const int* sizes;
  __device__ void select(i64 group) {
    int first = 0;
    for (int i = 0; i < group; i++) first += sizes[i];
    this->p += (i64)first * this->k, this->ks = sizes[group];
  }
};
}  // namespace spiral
