// The tiles that products are computed in; backends/cuda/products.py lists the same.
#pragma once
#include "mma_tiles.cuh"
#include "tiles.cuh"

namespace spiral {
typedef Tile<float, 128, 128, 8, 8, 8> LargeFloat;
typedef Tile<float, 64, 64, 16, 4, 4> SmallFloat;
typedef Tile<float, 64, 128, 8, 4, 8> WideFloat;  // where operands need the registers
typedef Tile<double, 64, 64, 8, 4, 4> Double;
typedef Tile<int, 64, 64, 16, 4, 4> Int;
typedef Tile<i64, 64, 64, 8, 4, 4> Long;
template <class T> using LargeMma = MmaTile<T, 128, 128, 2, 4, 4>;
template <class T> using SmallMma = MmaTile<T, 64, 64, 2, 2, 4>;
typedef MmaTile<float, 128, 128, 2, 4, 3> LargeTf32;
typedef MmaTile<float, 64, 64, 2, 2, 3> SmallTf32;
}  // namespace spiral
