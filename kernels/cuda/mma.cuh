// Tensor-core instructions of sm_80 and later, and what feeds them: products of small matrices whose elements are
// spread over the registers of a warp, loads of such fragments from shared memory, asynchronous copies into it.
//
// All 32 lanes must call together (except for the copies). Layouts are those of the PTX ISA, chapter "Matrix
// multiply-accumulate operation using mma instruction"; with g = lane / 4, t = lane % 4:
//
//   m16n8k16   A (16 x 16): a[0] = A[g][2t, 2t+1]      a[1] = A[g+8][2t, 2t+1]
//              a[2] = A[g][2t+8, 2t+9]                 a[3] = A[g+8][2t+8, 2t+9]
//              B (16 x 8):  b[0] = B[2t, 2t+1][g]      b[1] = B[2t+8, 2t+9][g]
//              the lower index in the register's low half
//   m16n8k8    A (16 x 8):  a[0] = A[g][t]  a[1] = A[g+8][t]  a[2] = A[g][t+4]  a[3] = A[g+8][t+4]
//              B (8 x 8):   b[0] = B[t][g]  b[1] = B[t+4][g]
//   both       C (16 x 8):  c[0], c[1] = C[g][2t, 2t+1]    c[2], c[3] = C[g+8][2t, 2t+1]
//
// On the processor the same functions exchange registers between fibers, so tests see wrong layouts, and a copy that
// nothing has waited for leaves NaN.
#pragma once
#include "spiral.cuh"

namespace spiral {
// two 16-bit values in a register, the first in the low half
template <class T>
__device__ inline u32 pack2(T low, T high) { return (u32)low.bits | (u32)high.bits << 16; }

// float to tf32, which has 10 bits of mantissa: to the nearest, ties away from zero
__device__ inline u32 to_tf32(float x) {
#ifdef SPIRAL_ON_CPU
  const u32 u = bits_of(x);
  return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & 0xffffe000u;
#else
  u32 y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
#endif
}

#ifdef SPIRAL_ON_CPU
struct MmaRegisters { u32 a[4], b[2]; };

// element (m, k) of A and (k, n) of B, as floats
template <class T>
struct MmaOperands {
  static constexpr int K = 16;
  static float a(const MmaRegisters* lanes, int m, int k) {
    const u32 pair = lanes[(m & 7) * 4 + (k & 7) / 2].a[(m >> 3) + 2 * (k >> 3)];
    return up(T{(u16)(pair >> 16 * (k & 1))});
  }
  static float b(const MmaRegisters* lanes, int k, int n) {
    return up(T{(u16)(lanes[n * 4 + (k & 7) / 2].b[k >> 3] >> 16 * (k & 1))});
  }
};
template <>
struct MmaOperands<float> {  // tf32; the low 13 bits are not looked at
  static constexpr int K = 8;
  static float a(const MmaRegisters* lanes, int m, int k) {
    return float_of(lanes[(m & 7) * 4 + (k & 3)].a[(m >> 3) + 2 * (k >> 2)] & 0xffffe000u);
  }
  static float b(const MmaRegisters* lanes, int k, int n) {
    return float_of(lanes[n * 4 + (k & 3)].b[k >> 2] & 0xffffe000u);
  }
};

template <class T>
inline void mma_on_cpu(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  const MmaRegisters mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const MmaRegisters* lanes = (const MmaRegisters*)spiral_cpu::exchange(&mine, sizeof mine);
  const int lane = spiral_cpu::lane();
  for (int i = 0; i < 4; i++) {
    const int m = (lane >> 2) + 8 * (i >> 1), n = 2 * (lane & 3) + (i & 1);
    for (int k = 0; k < MmaOperands<T>::K; k++) c[i] += MmaOperands<T>::a(lanes, m, k) * MmaOperands<T>::b(lanes, k, n);
  }
}
#endif

// C += A B with 16-bit operands; T: f16 or bf16
template <class T>
__device__ inline void mma_m16n8k16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]);
// C += A B with tf32 operands, as to_tf32 gives them
__device__ inline void mma_m16n8k8(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]);

#ifdef SPIRAL_ON_CPU
template <class T>
inline void mma_m16n8k16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) { mma_on_cpu<T>(c, a, b); }
inline void mma_m16n8k8(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) { mma_on_cpu<float>(c, a, b); }
#else
#define SPIRAL_MMA(shape, type)                                                                                       \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, " \
               "{%0,%1,%2,%3};"                                                                                       \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
template <>
__device__ inline void mma_m16n8k16<f16>(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  SPIRAL_MMA("m16n8k16", "f16");
}
template <>
__device__ inline void mma_m16n8k16<bf16>(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  SPIRAL_MMA("m16n8k16", "bf16");
}
__device__ inline void mma_m16n8k8(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  SPIRAL_MMA("m16n8k8", "tf32");
}
#undef SPIRAL_MMA
#endif

// ---------------------------------------------------------------- fragments from shared memory
// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8 in shared memory, 16
// bytes aligned to 16. r[m] of a lane is elements [g][2t, 2t+1] of matrix m; with `transposed` it is [2t, 2t+1][g].
template <bool transposed = false>
__device__ inline void ldmatrix_x4(u32 (&r)[4], const void* row) {
#ifdef SPIRAL_ON_CPU
  const Pack<u16>* rows = (const Pack<u16>*)spiral_cpu::exchange((const Pack<u16>*)row, sizeof(Pack<u16>));
  const int lane = spiral_cpu::lane(), g = lane >> 2, t = lane & 3;
  for (int m = 0; m < 4; m++) {
    const u16 low = transposed ? rows[8 * m + 2 * t].at[g] : rows[8 * m + g].at[2 * t];
    const u16 high = transposed ? rows[8 * m + 2 * t + 1].at[g] : rows[8 * m + g].at[2 * t + 1];
    r[m] = (u32)low | (u32)high << 16;
  }
#else
  const u32 address = (u32)__cvta_generic_to_shared(row);
  if (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
#endif
}

// ---------------------------------------------------------------- asynchronous copies
// Begins to copy 16 bytes, aligned to 16, from global to shared memory; zeros where not `inside`: then nothing is read.
// They are there once the group that they belong to was waited for, for the calling thread, and for others after a
// barrier that follows.
__device__ inline void cp_async16(void* shared, const void* global, bool inside = true) {
#ifdef SPIRAL_ON_CPU
  spiral_cpu::copy_later((Pack<u8>*)shared, inside ? (const Pack<u8>*)global : (const Pack<u8>*)nullptr, 16);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               : : "r"((u32)__cvta_generic_to_shared(shared)), "l"(global), "r"(inside ? 16 : 0) : "memory");
#endif
}
// Ends a group of copies, which may be empty.
__device__ inline void cp_async_commit() {
#ifdef SPIRAL_ON_CPU
  spiral_cpu::end_copy_group();
#else
  asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}
// Waits until at most `groups` of the calling thread's groups, the latest, are still under way.
template <int groups = 0>
__device__ inline void cp_async_wait() {
#ifdef SPIRAL_ON_CPU
  spiral_cpu::wait_for_copies(groups);
#else
  asm volatile("cp.async.wait_group %0;" : : "n"(groups) : "memory");
#endif
}
}  // namespace spiral
