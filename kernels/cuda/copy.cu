// Copies, casts and fills.
#include "strided.cuh"

namespace spiral {
// A value of one element type as another: floating types round once, to floating integers go through the wide type; a
// bool is whether the value is not zero; what an integer does not hold is undefined, as in C.
template <class To, class From>
struct Cast {
  static __device__ To of(From x) { return down<To>(up(x)); }
};
template <class From>
struct Cast<bool, From> {
  static __device__ bool of(From x) { return up(x) != 0; }
};
template <class From>
struct Cast<f16, From> {
  static __device__ f16 of(From x) { return down<f16>((float)up(x)); }
};
template <class From>
struct Cast<bf16, From> {
  static __device__ bf16 of(From x) { return down<bf16>((float)up(x)); }
};

// y = x as another type; x and y dense, n elements. Overwrites y. Moves n * (size of From + size of To) bytes.
template <class To, class From>
__global__ void cast(const From* x, To* y, i64 n) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = Cast<To, From>::of(x[i]);
}

// y = x as another type, x with strides (one operand), y dense in the order of the layout's axes.
template <class To, class From>
__global__ void cast_strided(const From* x, To* y, i64 n, Layout<1> layout) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  i64 offset[1];
  locate(layout, i, offset);
  y[i] = Cast<To, From>::of(at(x, offset[0]));
}

// y = x where both have strides (operand 0 is x, 1 is y), elements of sizeof(T) bytes moved as they are.
template <class T>
__global__ void copy_strided(const T* x, T* y, i64 n, Layout<2> layout) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  i64 offset[2];
  locate(layout, i, offset);
  at(y, offset[1]) = at(x, offset[0]);
}
}  // namespace spiral
