// What the wrappers of mma.cuh do, each in a kernel of one warp.
#include "mma.cuh"

using namespace spiral;

template <class T>
__global__ void product(const T* a, const T* b, float* c) {  // a: (16, 16), b: (16, 8), c: (16, 8) all row by row
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  u32 ra[4], rb[2];
  for (int i = 0; i < 4; i++) {
    const T* p = a + (g + 8 * (i & 1)) * 16 + 2 * t + 8 * (i >> 1);
    ra[i] = pack2(p[0], p[1]);
  }
  for (int i = 0; i < 2; i++) rb[i] = pack2(b[(2 * t + 8 * i) * 8 + g], b[(2 * t + 8 * i + 1) * 8 + g]);
  float r[4];
  for (int i = 0; i < 4; i++) r[i] = c[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)];
  mma_m16n8k16<T>(r, ra, rb);
  for (int i = 0; i < 4; i++) c[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = r[i];
}
__global__ void product_tf32(const float* a, const float* b, float* c) {  // a: (16, 8), b: (8, 8)
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  u32 ra[4], rb[2];
  for (int i = 0; i < 4; i++) ra[i] = to_tf32(a[(g + 8 * (i & 1)) * 8 + t + 4 * (i >> 1)]);
  for (int i = 0; i < 2; i++) rb[i] = to_tf32(b[(t + 4 * i) * 8 + g]);
  float r[4];
  for (int i = 0; i < 4; i++) r[i] = c[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)];
  mma_m16n8k8(r, ra, rb);
  for (int i = 0; i < 4; i++) c[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = r[i];
}
template <class T>  // through shared memory, as a matrix product does it: A with ldmatrix, B with its transposed form
__global__ void product_through_shared(const T* a, const T* b, float* c) {
  __shared__ __align__(16) T sa[16 * 16], sb[16 * 8];
  const int lane = threadIdx.x;
  cp_async16(sa + lane * 8, a + lane * 8);
  cp_async_commit();
  cp_async16(sb + lane % 16 * 8, b + lane % 16 * 8);
  cp_async_commit();
  cp_async_wait();
  __syncthreads();
  u32 ra[4], rb[4];
  ldmatrix_x4(ra, sa + lane % 16 * 16 + lane / 16 * 8);
  ldmatrix_x4<true>(rb, sb + lane % 16 * 8);
  float r[4] = {0, 0, 0, 0};
  mma_m16n8k16<T>(r, ra, {rb[0], rb[1]});
  for (int i = 0; i < 4; i++) c[(lane / 4 + 8 * (i >> 1)) * 8 + 2 * (lane % 4) + (i & 1)] = r[i];
}
__global__ void copies(const float* x, float* y, int waited) {  // 3 groups of one copy each, then all but `waited`
  __shared__ __align__(16) float s[4 * 4];
  if (threadIdx.x == 0) {
    for (int i = 0; i < 3; i++) cp_async16(s + 4 * i, x + 4 * i), cp_async_commit();
    cp_async16(s + 12, x, false);
    cp_async_commit();
    if (waited == 2) cp_async_wait<2>();
    else if (waited == 1) cp_async_wait<1>();
    else if (waited == 0) cp_async_wait<0>();
    for (int i = 0; i < 16; i++) y[i] = s[i];
  }
}
__global__ void misaligned(const float* x, float* y) {
  __shared__ __align__(16) float s[8];
  cp_async16(s + 1, x);
}
__global__ void half_a_warp(float* y) {
  float c[4];
  u32 a[4] = {0, 0, 0, 0}, b[2] = {0, 0};
  if (threadIdx.x < 16) mma_m16n8k8(c, a, b);
}
__global__ void rounded(const float* x, u32* y) { y[threadIdx.x] = to_tf32(x[threadIdx.x]); }
