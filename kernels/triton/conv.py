"""Two-dimensional convolution as matrix products whose operands are found in the images.

x is (images, channels, height, width), weight (groups * outs, ins, kh, kw) and y (images, groups * outs, oh, ow), all
dense; tap (i, j) of output (r, c) is the input's (r * sh - ph + i * dh, c * sw - pw + j * dw). Sums are in WIDE; a
program makes an M x N tile, K at a time.
"""

import triton
import triton.language as tl


@triton.jit
def split(p, plane, width):
    """Image, row and column of pixels that are counted through planes of a width."""
    image = p // plane
    rest = p - image * plane
    row = rest // width
    return image, row, rest - row * width


@triton.jit
def within(row, column, height, width):
    """Whether pixels are in a plane."""
    return (row >= 0) & (row < height) & (column >= 0) & (column < width)


@triton.jit
def tile_at(tiles_m, tiles_n):
    """Group, row and column of a program's tile."""
    tile = tl.program_id(0)
    group = tile // (tiles_m * tiles_n)
    rest = tile - group * (tiles_m * tiles_n)
    row = rest // tiles_n
    return group, row, rest - row * tiles_n


@triton.jit
def conv2d(
    x, weight, bias, y, images, groups, outs, ins, height, width, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, has_bias,
    WIDE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """y = the cross-correlation of x with weight, plus bias. Overwrites y.

    Rows of the product are a group's outputs, columns the pixels of all images, and its sums go over inputs and taps.
    """
    pixels, taps = images * oh * ow, kh * kw
    group, row, column = tile_at(tl.cdiv(outs, M), tl.cdiv(pixels, N))
    i, j = row * M + tl.arange(0, M), column * N + tl.arange(0, N)
    image, r, c = split(j, oh * ow, ow)
    top, left = r * sh - ph, c * sw - pw
    plane = height * width
    x += (image * groups + group) * ins * plane
    length = ins * taps
    acc = tl.zeros([M, N], WIDE)
    for start in range(0, length, K):
        k = start + tl.arange(0, K)
        channel, a, b = split(k, taps, kw)
        at_row, at_column = top[None, :] + (a * dh)[:, None], left[None, :] + (b * dw)[:, None]
        inside = within(at_row, at_column, height, width) & (k < length)[:, None] & (j < pixels)[None, :]
        patch = tl.load(x[None, :] + ((channel * plane)[:, None] + at_row * width + at_column), mask=inside, other=0.0)
        w = tl.load(
            weight + ((group * outs + i)[:, None] * length + k[None, :]),
            mask=(i < outs)[:, None] & (k < length)[None, :], other=0.0,
        )  # fmt: skip
        acc = tl.dot(w, patch, acc, input_precision="ieee", out_dtype=WIDE)
    if has_bias:
        acc += tl.load(bias + group * outs + i, mask=i < outs, other=0.0).to(WIDE)[:, None]
    to = ((image * groups + group) * outs * (oh * ow) + r * ow + c)[None, :] + i[:, None] * (oh * ow)
    tl.store(y + to, acc.to(y.dtype.element_ty), mask=(i < outs)[:, None] & (j < pixels)[None, :])


@triton.jit
def conv2d_dx(
    g, weight, dx, images, groups, outs, ins, height, width, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw,
    WIDE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """dx = the sum over outputs and taps of weight g, where a window has the pixel. Overwrites dx.

    Rows of the product are a group's inputs, columns the pixels of all images, and its sums go over outputs and taps.
    """
    pixels, taps = images * height * width, kh * kw
    group, row, column = tile_at(tl.cdiv(ins, M), tl.cdiv(pixels, N))
    i, j = row * M + tl.arange(0, M), column * N + tl.arange(0, N)
    image, r, c = split(j, height * width, width)
    plane = oh * ow
    g += (image * groups + group) * outs * plane
    length = outs * taps
    acc = tl.zeros([M, N], WIDE)
    for start in range(0, length, K):
        k = start + tl.arange(0, K)
        out, a, b = split(k, taps, kw)
        down, right = (r + ph)[None, :] - (a * dh)[:, None], (c + pw)[None, :] - (b * dw)[:, None]
        at_row, at_column = down // sh, right // sw
        inside = (down >= 0) & (right >= 0) & (at_row * sh == down) & (at_column * sw == right)
        inside = inside & within(at_row, at_column, oh, ow) & (k < length)[:, None] & (j < pixels)[None, :]
        spread = tl.load(g[None, :] + ((out * plane)[:, None] + at_row * ow + at_column), mask=inside, other=0.0)
        of_tap = ((group * outs + out) * ins) * taps + (k - out * taps)
        w = tl.load(
            weight + (of_tap[None, :] + (i * taps)[:, None]), mask=(i < ins)[:, None] & (k < length)[None, :], other=0.0
        )
        acc = tl.dot(w, spread, acc, input_precision="ieee", out_dtype=WIDE)
    to = ((image * groups + group) * ins * (height * width) + r * width + c)[None, :] + i[:, None] * (height * width)
    tl.store(dx + to, acc.to(dx.dtype.element_ty), mask=(i < ins)[:, None] & (j < pixels)[None, :])


@triton.jit
def conv2d_dw(
    g, x, dw, part, images, groups, outs, ins, height, width, oh, ow, kh, kw, sh, sw, ph, pw, dh, step_w, chunk, splits,
    WIDE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """dw = the sum over pixels of g times the patch of x under each. step_w: dw of the other kernels, the dilation.

    Rows of the product are a group's outputs, columns its inputs and taps, and its sums go over the pixels of all
    images: ``chunk`` of them for each program of axis 1. With splits > 1 overwrites part (splits, weight's shape) of
    WIDE, else dw.
    """
    pixels, taps = images * oh * ow, kh * kw
    length = ins * taps
    group, row, column = tile_at(tl.cdiv(outs, M), tl.cdiv(length, N))
    i, j = row * M + tl.arange(0, M), column * N + tl.arange(0, N)
    channel, a, b = split(j, taps, kw)
    plane, out_plane = height * width, oh * ow
    first = tl.program_id(1) * chunk
    last = min(first + chunk, pixels)
    acc = tl.zeros([M, N], WIDE)
    for start in range(first, last, K):
        k = start + tl.arange(0, K)
        image, r, c = split(k, out_plane, ow)
        at_row, at_column = (r * sh - ph)[:, None] + (a * dh)[None, :], (c * sw - pw)[:, None] + (b * step_w)[None, :]
        inside = within(at_row, at_column, height, width) & (k < last)[:, None] & (j < length)[None, :]
        of_image = (image * groups + group) * ins * plane
        patch = tl.load(
            x + (of_image[:, None] + (channel * plane)[None, :] + at_row * width + at_column), mask=inside, other=0.0
        )
        of_pixel = (image * groups + group) * outs * out_plane + r * ow + c
        of_g = tl.load(
            g + (of_pixel[None, :] + (i * out_plane)[:, None]),
            mask=(i < outs)[:, None] & (k < last)[None, :],
            other=0.0,
        )
        acc = tl.dot(of_g, patch, acc, input_precision="ieee", out_dtype=WIDE)
    to = (group * outs + i)[:, None] * length + j[None, :]
    known = (i < outs)[:, None] & (j < length)[None, :]
    if splits > 1:
        size = (groups * outs).to(tl.int64) * length
        tl.store(part + (tl.program_id(1) * size + to), acc, mask=known)
    else:
        tl.store(dw + to, acc.to(dw.dtype.element_ty), mask=known)


@triton.jit
def channel_sums(g, y, part, channels, plane, count, chunk, splits, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """y = the sums of g (images, channels, plane) over images and plane; programs of axis 1 take ``chunk`` of count.

    With splits > 1 overwrites part (splits, channels) of WIDE, else y (channels). Reads g once.
    """
    channel = tl.program_id(0)
    first = tl.program_id(1) * chunk
    last = min(first + chunk, count)
    acc = tl.zeros([BLOCK], WIDE)
    for start in range(first, last, BLOCK):
        i = start + tl.arange(0, BLOCK)
        image = i // plane
        at = image * channels * plane + channel * plane + (i - image * plane)
        acc += tl.load(g + at, mask=i < last, other=0.0).to(WIDE)
    total = tl.sum(acc, 0)
    if splits > 1:
        tl.store(part + tl.program_id(1) * channels + channel, total)
    else:
        tl.store(y + channel, total.to(y.dtype.element_ty))
