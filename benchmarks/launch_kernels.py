"""Kernels with 2, 8, 16 and 30 parameters for `benchmarks.launch`: addresses first, then integers, then a float."""

import triton
import triton.language as tl


@triton.jit
def with_2(a, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(a + i, 1.0, mask=i < n)


@triton.jit
def with_8(a, b, c, d, n, s0, s1, eps, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(a + i * s0, (tl.load(b + i * s1) + tl.load(c + i) + tl.load(d + i)) * eps, mask=i < n)


@triton.jit
def with_16(a, b, c, d, e, f, g, h, n, s0, s1, s2, s3, s4, s5, eps, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(b + i * s1) + tl.load(c + i * s2) + tl.load(d + i * s3) + tl.load(e + i * s4) + tl.load(f + i * s5)
    tl.store(a + i * s0, (v + tl.load(g + i) + tl.load(h + i)) * eps, mask=i < n)


@triton.jit
def with_30(
    a, b, c, d, e, f, g, h, p, q, r, s, t, u, n, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, eps,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(b + i * s1) + tl.load(c + i * s2) + tl.load(d + i * s3) + tl.load(e + i * s4) + tl.load(f + i * s5)
    v += tl.load(g + i * s6) + tl.load(h + i * s7) + tl.load(p + i * s8) + tl.load(q + i * s9) + tl.load(r + i * s10)
    v += tl.load(s + i * s11) + tl.load(t + i * s12) + tl.load(u + i * s13)
    tl.store(a + i * s0, v * eps, mask=i < n)


KERNELS = {2: with_2, 8: with_8, 16: with_16, 30: with_30}
