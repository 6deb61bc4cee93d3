"""Two-dimensional convolution and pooling, channels first."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.dtype import int32
from spiral.errors import ArgumentError, ShapeError
from spiral.op import F, op
from spiral.ops.composite import constant
from spiral.ops.shapes import need_float, need_shape

Pair = tuple[int, int]


def _out(name: str, n: int, k: int, stride: int, pad: int, dil: int = 1) -> int:
    span = dil * (k - 1) + 1
    if stride < 1 or pad < 0 or dil < 1:
        raise ArgumentError(f"{name}: stride and dilation must be positive, padding at least 0.")
    if n + 2 * pad < span:
        raise ShapeError(f"{name}: a window of {span} does not fit a length of {n} with padding {pad}.")
    return (n + 2 * pad - span) // stride + 1


def _windows(x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, fill: float = 0.0) -> Any:
    """View (N, C, OH, OW, kh, kw) of a padded copy of x."""
    (ph, pw), (dh, dw) = padding, dilation
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
    span = (dh * (kernel[0] - 1) + 1, dw * (kernel[1] - 1) + 1)
    view = np.lib.stride_tricks.sliding_window_view(x, span, (2, 3))
    return view[:, :, :: stride[0], :: stride[1], ::dh, ::dw]


@op(
    "conv2d(x, weight, bias?, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), "
    "groups: int = 1) -> y"
)
class Conv2d:
    """Cross-correlation of x (N, C, H, W) with weight (O, C / groups, kh, kw)."""

    @staticmethod
    def meta(x: Any, weight: Any, bias: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Spec:
        need_float("conv2d", x=x, weight=weight)
        if x.ndim != 4 or weight.ndim != 4:
            raise ShapeError(
                f"conv2d: expected x (N, C, H, W) and weight (O, C / groups, kh, kw); received {tuple(x.shape)} and "
                f"{tuple(weight.shape)}."
            )
        n, c, h, w = x.shape
        o, cg, kh, kw = weight.shape
        if groups < 1 or c != cg * groups or o % groups:
            raise ShapeError(
                f"conv2d: x has {c} channels, weight {tuple(weight.shape)} with groups={groups} takes {cg * groups} "
                f"and makes {o}."
            )
        need_shape("conv2d", "bias", bias, (o,), "the first axis of weight")
        oh = _out("conv2d", h, kh, stride[0], padding[0], dilation[0])
        ow = _out("conv2d", w, kw, stride[1], padding[1], dilation[1])
        return Spec((n, o, oh, ow), x.dtype)

    @staticmethod
    def oracle(x: Any, weight: Any, bias: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Any:
        o, cg, kh, kw = weight.shape
        view = _windows(x, (kh, kw), stride, padding, dilation)
        n, _, oh, ow = view.shape[:4]
        view = view.reshape(n, groups, cg, oh, ow, kh, kw)
        y = np.einsum("ngchwij,gocij->ngohw", view, weight.reshape(groups, o // groups, cg, kh, kw), optimize=True)
        y = y.reshape(n, o, oh, ow)
        return y if bias is None else y + bias[:, None, None]

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, weight: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Any:
        dx, dw, db = F.conv2d_grad(
            g, x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups,
            need_x=need[0], need_weight=need[1], need_bias=need[2],
        )  # fmt: skip
        return dx if need[0] else None, dw if need[1] else None, db if need[2] else None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(2, 3, 7, 6), s.normal(4, 3, 3, 3), s.normal(4), (1, 1), (0, 0), (1, 1), 1
        yield s.normal(2, 4, 7, 6), s.normal(6, 2, 3, 2), None, (2, 1), (1, 2), (2, 1), 2
        yield s.normal(1, 1, 28, 28), s.normal(8, 1, 3, 3), s.normal(8), (1, 1), (1, 1), (1, 1), 1
        yield s.normal(2, 17, 9, 9), s.normal(5, 17, 3, 3), None, (1, 1), (0, 0), (1, 1), 1


@op(
    "conv2d_grad(g, x, weight, *, stride: Pair, padding: Pair, dilation: Pair, groups: int, need_x: bool, "
    "need_weight: bool, need_bias: bool) -> dx, dw, db"
)
class Conv2dGrad:
    """Gradients of conv2d; those not needed have no elements."""

    internal = True

    @staticmethod
    def meta(
        g: Any, x: Any, weight: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int, need_x: bool,
        need_weight: bool, need_bias: bool,
    ) -> tuple[Spec, Spec, Spec]:  # fmt: skip
        return (
            Spec(tuple(x.shape) if need_x else (0,), x.dtype),
            Spec(tuple(weight.shape) if need_weight else (0,), weight.dtype),
            Spec((weight.shape[0],) if need_bias else (0,), weight.dtype),
        )

    @staticmethod
    def oracle(
        g: Any, x: Any, weight: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int, need_x: bool,
        need_weight: bool, need_bias: bool,
    ) -> Any:  # fmt: skip
        o, cg, kh, kw = weight.shape
        n, _, oh, ow = g.shape
        gg = g.reshape(n, groups, o // groups, oh, ow)
        dx = dw = db = np.zeros(0, g.dtype)
        if need_weight:
            view = _windows(x, (kh, kw), stride, padding, dilation).reshape(n, groups, cg, oh, ow, kh, kw)
            dw = np.einsum("ngchwij,ngohw->gocij", view, gg, optimize=True).reshape(weight.shape)
        if need_bias:
            db = g.sum((0, 2, 3))
        if need_x:
            h, w = x.shape[2:]
            wide = np.zeros((n, x.shape[1], h + 2 * padding[0], w + 2 * padding[1]), g.dtype)
            wg = weight.reshape(groups, o // groups, cg, kh, kw)
            for i in range(kh):
                for j in range(kw):
                    part = np.einsum("ngohw,goc->ngchw", gg, wg[..., i, j], optimize=True)
                    top, left = i * dilation[0], j * dilation[1]
                    wide[:, :, top : top + oh * stride[0] : stride[0], left : left + ow * stride[1] : stride[1]] += (
                        part.reshape(n, -1, oh, ow)
                    )
            dx = wide[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + w]
        return dx, dw, db

    @staticmethod
    def vjp(
        need: Any, grads: Any, g: Any, x: Any, weight: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int,
        need_x: bool, need_weight: bool, need_bias: bool,
    ) -> Any:  # fmt: skip
        # <g, conv(x, w)> is linear in each of g, x and w, and dx and dw are its gradients: with cotangents u of dx,
        # a of dw and b of db, differentiate <g, conv(u, w)> + <g, conv(x, a)> + <g, b>
        window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        u, a, b = (v if asked else None for v, asked in zip(grads, (need_x, need_weight, need_bias), strict=True))

        def transposed(at: Any, kernel: Any, of_x: bool) -> Any:
            parts = F.conv2d_grad(
                g, at, kernel, **window, need_x=of_x, need_weight=not of_x, need_bias=False
            )  # fmt: skip
            return parts[0] if of_x else parts[1]

        terms = []
        if need[0] and u is not None:
            terms.append(F.conv2d(u, weight, b, **window))
        if need[0] and a is not None:
            terms.append(F.conv2d(x, a, b if u is None else None, **window))
        if need[0] and b is not None and not terms:
            terms.append(F.broadcast_to(F.reshape(b, (-1, 1, 1)), g.shape))
        dg = None if not terms else terms[0] if len(terms) == 1 else terms[0] + terms[1]
        dx = transposed(x, a, True) if need[1] and a is not None else None
        dw = transposed(u, weight, False) if need[2] and u is not None else None
        return dg, dx, dw

    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.normal(2, 4, 5, 4), s.normal(2, 3, 7, 6), s.normal(4, 3, 3, 3), (1, 1), (0, 0), (1, 1), 1,
               True, True, True)  # fmt: skip
        yield (s.normal(2, 6, 3, 9), s.normal(2, 4, 7, 6), s.normal(6, 2, 3, 2), (2, 1), (1, 2), (2, 1), 2,
               True, True, True)  # fmt: skip
        yield (s.normal(1, 2, 2, 2), s.normal(1, 1, 6, 6), s.normal(2, 1, 3, 3), (2, 2), (0, 0), (1, 1), 1,
               False, True, False)  # fmt: skip
        yield (s.normal(1, 2, 2, 2), s.normal(1, 1, 6, 6), s.normal(2, 1, 3, 3), (2, 2), (0, 0), (1, 1), 1,
               True, False, True)  # fmt: skip


class _Pool:
    @staticmethod
    def shape(name: str, x: Any, kernel: Pair, stride: Pair, padding: Pair) -> tuple[int, ...]:
        need_float(name, x=x)
        if x.ndim != 4:
            raise ShapeError(f"{name}: x must be (N, C, H, W); received {tuple(x.shape)}.")
        if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
            raise ArgumentError(f"{name}: padding must be at most half the kernel; received {padding} and {kernel}.")
        oh = _out(name, x.shape[2], kernel[0], stride[0], padding[0])
        ow = _out(name, x.shape[3], kernel[1], stride[1], padding[1])
        return (x.shape[0], x.shape[1], oh, ow)


@op("max_pool2d(x, *, kernel: Pair = (2, 2), stride: Pair = (2, 2), padding: Pair = (0, 0)) -> y, position:hidden")
class MaxPool2d:
    """Largest element of each window; NaN wins. Keeps the position in the H x W plane for the backward."""

    @staticmethod
    def meta(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> tuple[Spec, Spec]:
        shape = _Pool.shape("max_pool2d", x, kernel, stride, padding)
        return Spec(shape, x.dtype), Spec(shape, int32)

    @staticmethod
    def oracle(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
        view = _windows(x, kernel, stride, padding, (1, 1), fill=-np.inf)
        n, c, oh, ow = view.shape[:4]
        flat = view.reshape(n, c, oh, ow, -1)
        at = flat.argmax(-1)
        row = np.arange(oh)[:, None] * stride[0] - padding[0] + at // kernel[1]
        column = np.arange(ow) * stride[1] - padding[1] + at % kernel[1]
        return np.take_along_axis(flat, at[..., None], -1)[..., 0], (row * x.shape[3] + column).astype(np.int32)

    @staticmethod
    def decompose(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
        (_, _, oh, ow), (ph, pw) = _Pool.shape("max_pool2d", x, kernel, stride, padding), padding
        least = constant(np.full((), -np.inf).astype(x.dtype.numpy), x)
        for axis, width in ((2, ph), (3, pw)):
            if width:
                edge = F.broadcast_to(least, (*x.shape[:axis], width, *x.shape[axis + 1 :]))
                x = F.concat([edge, x, edge], axis=axis)
        y = None
        for i in range(kernel[0]):
            rows = slice(i, i + (oh - 1) * stride[0] + 1, stride[0])
            for j in range(kernel[1]):
                columns = slice(j, j + (ow - 1) * stride[1] + 1, stride[1])
                part = F.getitem(x, index=(Ellipsis, rows, columns))
                y = part if y is None else F.maximum(y, part)
        return y

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, position: Any) -> Any:
        return (F.max_pool2d_grad(g, position, shape=x_spec.shape),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(2, 3, 6, 8), (2, 2), (2, 2), (0, 0)
        yield s.normal(2, 3, 7, 7), (3, 2), (2, 1), (1, 1)


@op("max_pool2d_grad(g, position, *, shape: Shape) -> dx")
class MaxPool2dGrad:
    """g added at the positions that won."""

    internal = True
    nondifferentiable = True

    @staticmethod
    def meta(g: Any, position: Any, shape: tuple[int, ...]) -> Spec:
        return Spec(shape, g.dtype)

    @staticmethod
    def oracle(g: Any, position: Any, shape: tuple[int, ...]) -> Any:
        n, c, h, w = shape
        out = np.zeros((n * c, h * w), g.dtype)
        np.add.at(out, (np.arange(n * c)[:, None], position.reshape(n * c, -1)), g.reshape(n * c, -1))
        return out.reshape(shape)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(2, 3, 2, 2), s.integers(0, 16, 2, 3, 2, 2).astype(np.int32), (2, 3, 4, 4)


@op(
    "avg_pool2d(x, *, kernel: Pair = (2, 2), stride: Pair = (2, 2), padding: Pair = (0, 0), "
    "count_include_pad: bool = True) -> y"
)
class AvgPool2d:
    """Mean of each window; padding counts as zeros unless count_include_pad is False."""

    @staticmethod
    def meta(x: Any, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Spec:
        return Spec(_Pool.shape("avg_pool2d", x, kernel, stride, padding), x.dtype)

    @staticmethod
    def oracle(x: Any, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Any:
        total = _windows(x, kernel, stride, padding, (1, 1)).sum((-1, -2))
        return total / _counts(x.shape, kernel, stride, padding, count_include_pad).astype(x.dtype)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Any:
        return (
            F.avg_pool2d_grad(
                g, shape=x_spec.shape, kernel=kernel, stride=stride, padding=padding,
                count_include_pad=count_include_pad,
            ),
        )  # fmt: skip

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(2, 3, 6, 8), (2, 2), (2, 2), (0, 0), True
        yield s.normal(2, 3, 7, 7), (3, 3), (2, 2), (1, 1), False


def _counts(shape: Any, kernel: Pair, stride: Pair, padding: Pair, include: bool) -> Any:
    if include:
        return np.float64(kernel[0] * kernel[1])
    return _windows(np.ones((1, 1, *shape[2:])), kernel, stride, padding, (1, 1)).sum((-1, -2))


@op("avg_pool2d_grad(g, *, shape: Shape, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> dx")
class AvgPool2dGrad:
    """g spread evenly over each window."""

    internal = True

    @staticmethod
    def meta(g: Any, shape: Any, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Spec:
        return Spec(shape, g.dtype)

    @staticmethod
    def oracle(g: Any, shape: Any, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Any:
        n, c, h, w = shape
        (ph, pw), (oh, ow) = padding, g.shape[2:]
        share = g / _counts(shape, kernel, stride, padding, count_include_pad).astype(g.dtype)
        wide = np.zeros((n, c, h + 2 * ph, w + 2 * pw), g.dtype)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                wide[:, :, i : i + oh * stride[0] : stride[0], j : j + ow * stride[1] : stride[1]] += share
        return wide[:, :, ph : ph + h, pw : pw + w]

    @staticmethod
    def vjp(need: Any, g: Any, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Any:
        return (F.avg_pool2d(g, kernel=kernel, stride=stride, padding=padding, count_include_pad=count_include_pad),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(2, 3, 3, 4), (2, 3, 6, 8), (2, 2), (2, 2), (0, 0), True
