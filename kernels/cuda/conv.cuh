// Convolution as a matrix product (Chetlur et al. 2014): operands that find an image's elements instead of copying them
// into rows. A pixel is (n * height + y) * width + x; an element of a window is (channel * kh + i) * kw + j.
#pragma once
#include "operands.cuh"

namespace spiral {
// n / d for n < 2^31 by a multiplication (Granlund & Montgomery 1994): a division takes some 20 instructions.
// struct format "3I".
struct Divider {
  u32 d, multiplier, shift;
  __device__ int by(int n) const { return (int)((__umulhi((u32)n, multiplier) + (u32)n) >> shift); }
};

// struct format "10i" + 4 * "3I": outer is the plane that pixels count (of y for Patches, of x for Spread), inner the one
// that elements are taken from; channels and groups are of the inner one.
struct Window {
  int channels, per_group, height, width;  // of the inner plane
  int stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  Divider outer_plane, outer_width, taps, kernel_width;
};

// x (N, C, H, W): row = output pixel and k = element of its window, or, TRANSPOSED, the other way round. Batch = group.
// struct format "P2i" + Window's.
template <class T_, bool TRANSPOSED>
struct Patches : Unwalked<Patches<T_, TRANSPOSED>, T_> {
  typedef T_ T;
  const T* p;
  int rows, ks;
  Window w;

  __device__ T at(int r, int k) const {
    if (r >= rows || k >= ks) return T{};
    const int pixel = TRANSPOSED ? k : r, element = TRANSPOSED ? r : k;
    const int n = w.outer_plane.by(pixel), in_plane = pixel - n * (int)w.outer_plane.d;
    const int oy = w.outer_width.by(in_plane), ox = in_plane - oy * (int)w.outer_width.d;
    const int c = w.taps.by(element), tap = element - c * (int)w.taps.d;
    const int i = w.kernel_width.by(tap), j = tap - i * (int)w.kernel_width.d;
    const int y = oy * w.stride_h - w.pad_h + i * w.dilation_h, x = ox * w.stride_w - w.pad_w + j * w.dilation_w;
    if ((u32)y >= (u32)w.height || (u32)x >= (u32)w.width) return T{};
    return p[(((i64)n * w.channels + c) * w.height + y) * w.width + x];
  }
  __device__ bool along_k() const { return TRANSPOSED; }
  __device__ void select(i64 group) { p += group * w.per_group * w.height * w.width; }
};

// g (N, O, OH, OW): row = input pixel, k = (o * kh + i) * kw + j, the output that this pixel reached through tap (i, j),
// or 0. Batch = group.
template <class T_>
struct Spread : Unwalked<Spread<T_>, T_> {
  typedef T_ T;
  const T* p;
  int rows, ks;
  Window w;

  __device__ T at(int r, int k) const {
    if (r >= rows || k >= ks) return T{};
    const int n = w.outer_plane.by(r), in_plane = r - n * (int)w.outer_plane.d;
    const int iy = w.outer_width.by(in_plane), ix = in_plane - iy * (int)w.outer_width.d;
    const int o = w.taps.by(k), tap = k - o * (int)w.taps.d;
    const int i = w.kernel_width.by(tap), j = tap - i * (int)w.kernel_width.d;
    const int y = iy + w.pad_h - i * w.dilation_h, x = ix + w.pad_w - j * w.dilation_w;
    if (y < 0 || x < 0) return T{};
    const int oy = w.stride_h == 1 ? y : y / w.stride_h, ox = w.stride_w == 1 ? x : x / w.stride_w;
    if (oy * w.stride_h != y || ox * w.stride_w != x || oy >= w.height || ox >= w.width) return T{};
    return p[(((i64)n * w.channels + o) * w.height + oy) * w.width + ox];
  }
  __device__ bool along_k() const { return false; }
  __device__ void select(i64 group) { p += group * w.per_group * w.height * w.width; }
};

// weight (O, C / groups, kh, kw): row = channel c, k = (o * kh + i) * kw + j. Batch = group.
// struct format "P2i3I2i4x".
template <class T_>
struct Flipped : Unwalked<Flipped<T_>, T_> {
  typedef T_ T;
  const T* p;
  int rows, ks;
  Divider taps;
  int per_output, per_group;  // elements of weight

  __device__ T at(int r, int k) const {
    if (r >= rows || k >= ks) return T{};
    const int o = taps.by(k);
    return p[(i64)o * per_output + r * (int)taps.d + (k - o * (int)taps.d)];
  }
  __device__ bool along_k() const { return true; }
  __device__ void select(i64 group) { p += group * per_group; }
};

// (N, O, OH, OW): row = channel of the group, k = pixel. Batch = group. struct format "P2i3I2i4x".
template <class T_>
struct Pixels : Unwalked<Pixels<T_>, T_> {
  typedef T_ T;
  const T* p;
  int rows, ks;
  Divider plane;
  int channels, per_group;

  __device__ T at(int r, int k) const {
    if (r >= rows || k >= ks) return T{};
    const int n = plane.by(k);
    return p[((i64)n * channels + r) * plane.d + (k - n * (int)plane.d)];
  }
  __device__ bool along_k() const { return true; }
  __device__ void select(i64 group) { p += group * per_group * plane.d; }
};

// y (N, O, OH, OW)[pixel n][channel m of the group] = value + bias; bias (O) may be null. struct format "PP3I2i4x".
template <class T>
struct Planes {
  T* y;
  const T* bias;
  Divider plane;
  int channels, per_group;

  __device__ void select(i64) {}
  template <class W>
  __device__ void put(i64 group, int m, int pixel, W v) const {
    const int n = plane.by(pixel);
    const i64 channel = group * per_group + m;
    if (bias) v += up(bias[channel]);
    y[((i64)n * channels + channel) * plane.d + (pixel - n * (int)plane.d)] = down<T>(v);
  }
  template <class W>
  __device__ void put2(i64 group, int m, int pixel, W v, W w) const {
    put(group, m, pixel, v), put(group, m, pixel + 1, w);
  }
};
}  // namespace spiral
