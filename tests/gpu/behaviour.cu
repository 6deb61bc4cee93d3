// Kernels that do something right or wrong; the tests say which.
#include "spiral.cuh"

using namespace spiral;

// ---------------------------------------------------------------- right
__global__ void indices(int* y) {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  y[block * (blockDim.x * blockDim.y * blockDim.z) + thread] = 1000 * block + thread;
}
template <class T>
__global__ void shuffles(const T* x, T* y) {  // y: (8, 32)
  const int i = threadIdx.x;
  const T v = x[i];
  y[i] = __shfl_sync(0xffffffffu, v, 5);
  y[32 + i] = __shfl_up_sync(0xffffffffu, v, 3);
  y[64 + i] = __shfl_down_sync(0xffffffffu, v, 3);
  y[96 + i] = __shfl_xor_sync(0xffffffffu, v, 9);
  y[128 + i] = __shfl_sync(0xffffffffu, v, 5, 8);
  y[160 + i] = __shfl_up_sync(0xffffffffu, v, 3, 8);
  y[192 + i] = __shfl_down_sync(0xffffffffu, v, 3, 8);
  y[224 + i] = __shfl_xor_sync(0xffffffffu, v, 9, 8);
}
__global__ void votes(const int* x, u32* y) {  // y: (6, 32)
  const int i = threadIdx.x;
  y[i] = __ballot_sync(0xffffffffu, x[i] > 3);
  y[32 + i] = __any_sync(0xffffffffu, x[i] > 3);
  y[64 + i] = __all_sync(0xffffffffu, x[i] >= 0);
  y[96 + i] = __match_any_sync(0xffffffffu, x[i]);
  y[128 + i] = i < 16 ? __ballot_sync(0x0000ffffu, 1) : __ballot_sync(0xffff0000u, x[i] > 3);
  y[160 + i] = __activemask() >> i & 1;
}
__global__ void predicates(const int* x, int* y) {  // y: (3)
  const int count = __syncthreads_count(x[threadIdx.x]), all = __syncthreads_and(x[threadIdx.x]);
  const int any = __syncthreads_or(x[threadIdx.x]);
  if (threadIdx.x == 77) y[0] = count, y[1] = all, y[2] = any;
}
__global__ void half_exits(float* y) {  // odd threads leave before the barriers
  __shared__ float s[256];
  if (threadIdx.x % 2) return;
  s[threadIdx.x] = threadIdx.x;
  __syncthreads();
  y[threadIdx.x] = s[(threadIdx.x + 64) % 256] + __shfl_xor_sync(0xffffffffu, 1.0f, 2);
}
__global__ void atomics(float* sum, int* count, u64* most, double* exact) {
  atomicAdd(sum, 1.0f);
  atomicAdd(exact, 0.5);
  atomicMax(most, (u64)blockIdx.x * 1000 + threadIdx.x);
  if (atomicAdd(count, 1) == (int)(gridDim.x * blockDim.x) - 1) atomicExch(count, -7);
}
struct Shape { i64 size[3], stride[3]; float scale; u8 flag; };
__global__ void by_value(u8 first, Shape shape, double last, float* y) {
  y[0] = first, y[1] = shape.size[2], y[2] = shape.stride[0], y[3] = shape.scale, y[4] = shape.flag, y[5] = last;
}
template <class T>
__global__ void through_dynamic(const T* x, T* y) {
  T* s = dynamic_shared<T>();
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
}
template <class T>
__global__ void rms_norm(const T* x, const T* weight, T* y, T* rstd, int n, double eps) {  // a block per row
  typedef wide<T> A;
  __shared__ A scratch[32];
  x += (i64)blockIdx.x * n, y += (i64)blockIdx.x * n;
  A sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += up(x[i]) * up(x[i]);
  sum = block_reduce<Add>(sum, (A)0, scratch);
  const A r = (A)1 / (A)sqrt((double)(sum / n + (A)eps));
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = down<T>(up(x[i]) * r * up(weight[i]));
  if (threadIdx.x == 0) rstd[blockIdx.x] = down<T>(r);
}
template <class T>
__global__ void widen(const T* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = up(x[i]);
}
template <class T>
__global__ void narrow(const float* x, T* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = down<T>(x[i]);
}
__global__ void mathematics(const float* x, float* y) {  // y: (12, 32)
  const int i = threadIdx.x;
  const float v = x[i];
  const float all[] = {rsqrtf(v), __expf(v), erff(v), tanhf(v), log1pf(v), exp2f(v),
                       fmaf(v, v, 1.0f), __fdividef(1.0f, v), fmaxf(v, 2.0f), (float)__float2int_rn(v),
                       (float)__umulhi(1u << 31, (u32)i), (float)__clz(i)};
  for (int j = 0; j < 12; j++) y[j * 32 + i] = all[j];
}
__global__ void deep_stack(float* y) {  // 160 KiB of variables in each thread
  float local[40000];
  for (int i = 0; i < 40000; i++) local[i] = i;
  __syncthreads();
  y[threadIdx.x] = local[threadIdx.x * 100];
}

// ---------------------------------------------------------------- wrong
__global__ void reads_unwritten_shared(float* y) {
  __shared__ float s[64];
  if (threadIdx.x < 32) s[threadIdx.x] = 1;
  __syncthreads();
  y[blockIdx.x * 64 + threadIdx.x] = s[threadIdx.x];
  __syncthreads();
  s[threadIdx.x] = 2;  // the next block must not find it
}
__global__ void writes(u8* y, i64 at) { y[at] = 1; }
__global__ void writes_past_dynamic(int bytes) {
  dynamic_shared<u8>()[bytes] = 0;
}
__global__ void indexes_past_an_array() {
  __shared__ float s[8];
  s[threadIdx.x] = 0;
  if (s[0] != 0) __trap();
}
__global__ void reads_misaligned(const float* x, float* y) { y[0] = load16(x + 1).at[0]; }
__global__ void divides(int* y, int by) { y[0] = 7 / by; }
__global__ void overflows_its_stack(volatile float* y) {
  volatile float local[200000];
  local[0] = y[0];
  y[0] = local[0];
}
__global__ void divergent_barrier() {
  if (threadIdx.x != 40)
    __syncthreads();
  else
    __syncwarp();
}
__global__ void two_barriers(float* y) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void mask_without_itself(float* y) { y[threadIdx.x] = __shfl_sync(0xfffeu, 1.0f, 0); }
__global__ void lane_that_takes_no_part(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0x0000ffffu, 1.0f, threadIdx.x + 8);
}
__global__ void traps() {
  if (threadIdx.x == 3 && blockIdx.x == 1) __trap();
}
__global__ void shifts(int* y, int by) { y[0] = 1 << by; }
