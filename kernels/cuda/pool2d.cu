// Pooling of (N, C, H, W) planes, and its gradients. Threads have consecutive outputs, so that a warp reads neighbours.
#include "spiral.cuh"

namespace spiral {
// struct format "10i": of the input, of the output, the window.
struct PoolShape {
  int height, width, out_height, out_width, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;

  // rows (or columns) of a window that lie inside
  static __device__ void range(int out, int kernel, int stride, int pad, int length, int& from, int& to) {
    from = out * stride - pad, to = from + kernel;
    from = from < 0 ? 0 : from, to = to > length ? length : to;
  }
};

// y = the largest element of each window, NaN wins, the first of equals; position = where it is in its H x W plane.
// One thread per output; n outputs. Overwrites both. Reads each window (from the cache where they overlap).
template <class T>
__global__ void max_pool2d(const T* x, T* y, int* position, PoolShape s, i64 n) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int plane = s.out_height * s.out_width;
  const i64 image = i / plane;
  const int rest = (int)(i - image * plane), oy = rest / s.out_width, ox = rest - oy * s.out_width;
  int y0, y1, x0, x1;
  PoolShape::range(oy, s.kernel_h, s.stride_h, s.pad_h, s.height, y0, y1);
  PoolShape::range(ox, s.kernel_w, s.stride_w, s.pad_w, s.width, x0, x1);
  x += image * s.height * s.width;
  int at = y0 * s.width + x0;
  wide<T> best = up(x[at]);
  for (int r = y0; r < y1; r++)
    for (int c = x0; c < x1; c++) {
      const wide<T> v = up(x[r * s.width + c]);
      if (v > best || (v != v && best == best)) best = v, at = r * s.width + c;
    }
  y[i] = x[at], position[i] = at;
}

// dx (planes, size) += g (planes, outputs) at position; dx holds zeros. One warp per plane takes 32 outputs at a time and
// adds those of one position in order, so that the sums have one order; blocks of 8 warps.
template <class T>
__global__ void max_pool2d_grad(const T* g, const int* position, wide<T>* dx, int outputs, int size, i64 planes) {
  const i64 plane = (i64)blockIdx.x * 8 + threadIdx.x / 32;
  if (plane >= planes) return;
  g += plane * outputs, position += plane * outputs, dx += plane * size;
  const int lane = threadIdx.x % 32;
  for (int first = 0; first < outputs; first += 32) {
    const int i = first + lane;
    const int at = i < outputs ? position[i] : -1 - lane;  // lanes without an output are alone
    const wide<T> mine = i < outputs ? up(g[i]) : (wide<T>)0;
    const u32 same = __match_any_sync(0xffffffffu, at);
    wide<T> sum = 0;
    for (int other = 0; other < 32; other++) {
      const wide<T> v = __shfl_sync(0xffffffffu, mine, other);
      if (same >> other & 1) sum += v;
    }
    if (i < outputs && __ffs((int)same) - 1 == lane) dx[at] += sum;
    __syncwarp();
  }
}

// elements that a window's sum is divided by
__device__ inline int window_count(const PoolShape& s, int oy, int ox, bool include_pad) {
  if (include_pad) return s.kernel_h * s.kernel_w;
  int y0, y1, x0, x1;
  PoolShape::range(oy, s.kernel_h, s.stride_h, s.pad_h, s.height, y0, y1);
  PoolShape::range(ox, s.kernel_w, s.stride_w, s.pad_w, s.width, x0, x1);
  return (y1 - y0) * (x1 - x0);
}

// y = mean of each window. One thread per output; n outputs.
template <class T>
__global__ void avg_pool2d(const T* x, T* y, PoolShape s, int include_pad, i64 n) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int plane = s.out_height * s.out_width;
  const i64 image = i / plane;
  const int rest = (int)(i - image * plane), oy = rest / s.out_width, ox = rest - oy * s.out_width;
  int y0, y1, x0, x1;
  PoolShape::range(oy, s.kernel_h, s.stride_h, s.pad_h, s.height, y0, y1);
  PoolShape::range(ox, s.kernel_w, s.stride_w, s.pad_w, s.width, x0, x1);
  x += image * s.height * s.width;
  wide<T> sum = 0;
  for (int r = y0; r < y1; r++)
    for (int c = x0; c < x1; c++) sum += up(x[r * s.width + c]);
  y[i] = down<T>(sum / window_count(s, oy, ox, include_pad));
}

// dx = sum over the windows that an input lies in of g / count. One thread per input; n inputs.
template <class T>
__global__ void avg_pool2d_grad(const T* g, T* dx, PoolShape s, int include_pad, i64 n) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int plane = s.height * s.width;
  const i64 image = i / plane;
  const int rest = (int)(i - image * plane), iy = rest / s.width + s.pad_h, ix = rest % s.width + s.pad_w;
  // windows o with o * stride <= i < o * stride + kernel
  const int y0 = iy < s.kernel_h ? 0 : (iy - s.kernel_h) / s.stride_h + 1, y1 = iy / s.stride_h;
  const int x0 = ix < s.kernel_w ? 0 : (ix - s.kernel_w) / s.stride_w + 1, x1 = ix / s.stride_w;
  g += image * s.out_height * s.out_width;
  wide<T> sum = 0;
  for (int oy = y0; oy <= y1 && oy < s.out_height; oy++)
    for (int ox = x0; ox <= x1 && ox < s.out_width; ox++)
      sum += up(g[oy * s.out_width + ox]) / window_count(s, oy, ox, include_pad);
  dx[i] = down<T>(sum);
}
}  // namespace spiral
