// Single-precision matrix product on row-major storage, tiled over the thread pool.
#pragma once
#include <cstdint>

namespace spiral {
enum Activation { ACT_NONE = 0, ACT_RELU = 1 };

// C (m, n) = alpha * op(A) (m, k) @ op(B) (k, n) + beta * C, then, tile by tile while it is in
// cache: + bias (n) if given, then the activation. Row-major; ta / tb: the operand is stored
// transposed. beta 0 never reads C. Calls from inside a tile run on the caller alone.
void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc, const float* bias = nullptr,
          Activation act = ACT_NONE);

// The same on the calling thread, for kernels that bring their own tiles (attention, convolution).
void gemm_one(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
              const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

// cblas_sgemm found at run time; `long_ints`: its integers have 64 bits. nullptr: none was found.
void set_cblas_sgemm(void* address, bool long_ints);
const char* gemm_kernel_name();  // what gemm() runs on: "openblas", "portable", ...
}  // namespace spiral
