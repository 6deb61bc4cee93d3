"""Dropout from the streams of ``kernels/common/philox.h``: bit for bit the numbers of every other backend."""

import triton
import triton.language as tl

from spiral.kernels.triton.strided import load_block, store_block, widen


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10 (Salmon et al. 2011): four words from four words of a counter and a key; all uint32."""
    for _ in tl.static_range(10):
        high = tl.umulhi(c2, 0xCD9E8D57)
        low = tl.umulhi(c0, 0xD2511F53)
        d1 = c2 * 0xCD9E8D57
        d3 = c0 * 0xD2511F53
        c0 = high ^ c1 ^ k0
        c2 = low ^ c3 ^ k1
        c1 = d1
        c3 = d3
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def dropout(x, y, n, first, edge, scale, key0, key1, stream0, stream1, BLOCK: tl.constexpr):
    """y = x * scale where the word of the element's number, counted from ``first``, is at least ``edge``, else 0.

    Element i takes word i mod 4 of block i div 4 of the stream; ``first`` is a multiple of BLOCK. Overwrites y; may run
    in place. Moves 2 * n elements; about 100 integer operations for 4.
    """
    start = tl.program_id(0) * BLOCK
    block = ((first + start) // 4 + tl.arange(0, BLOCK // 4)).to(tl.uint64)
    zero = tl.zeros([BLOCK // 4], tl.uint32)
    c0 = (block & 0xFFFFFFFF).to(tl.uint32)
    c1 = (block >> 32).to(tl.uint32)
    w0, w1, w2, w3 = philox(c0, c1, zero + stream0, zero + stream1, zero + key0, zero + key1)
    words = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), [BLOCK])
    v = widen(load_block(x, start, n, BLOCK))
    store_block(y, start, n, tl.where(words >= edge, v * scale, 0.0).to(v.dtype), BLOCK)
