"""The ops that are compared, with their shapes, the most important first.

``bytes`` and operations are the least that an implementation can do: each input read once, each output written once;
products in full, causal attention by half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from typing import Any

from benchmarks.gpu.case import (
    Case,
    Input,
    forward_spiral,
    forward_torch,
    gradient_spiral,
    gradient_torch,
    with_liger,
)
from benchmarks.gpu.optimizers import adamw_spiral, adamw_torch, gpt2_shapes

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2, "float16": 2e-3}


def _text(*lengths: int) -> str:
    return "x".join(map(str, lengths))


def _simple(
    name: str, ops: tuple[str, ...], shapes: tuple[tuple[int, ...], ...], dtype: str, ours: Any, theirs: Any,
    out: int | None = None, **more: Any,
) -> Case:  # fmt: skip
    """A forward pass that reads its inputs once and writes as much as the first one has."""
    elements = sum(map(prod, shapes)) + (prod(shapes[0]) if out is None else out)
    moved = elements * _BYTES[dtype]
    more.setdefault("tolerance", _TOLERANCE[dtype])
    return Case(
        name, _text(*shapes[0]), dtype, ops, tuple([Input(s) for s in shapes]), forward_spiral(ours),
        forward_torch(theirs), moved=moved, large=moved >= 64 << 20, **more,
    )  # fmt: skip


def _functional(torch: Any) -> Any:
    return torch.nn.functional


# ---------------------------------------------------------------- losses
def _losses(rows: int, dim: int, vocabulary: int, dtype: str) -> Iterator[Case]:
    # PyTorch rounds 16-bit logits before the softmax; spiral does not
    size, tolerance = _BYTES[dtype], 1e-3 if dtype == "float32" else 3e-2
    yield Case(
        "linear + cross-entropy, fwd + bwd", _text(rows, dim, vocabulary), dtype,
        ("linear_cross_entropy", "linear_cross_entropy_grad"),
        (Input((rows, dim)), Input((vocabulary, dim), scale=0.05), Input((rows,), below=vocabulary), Input((1,))),
        gradient_spiral(lambda sp, x, w, t: sp.linear_cross_entropy(x, w, t), (0, 1)),
        gradient_torch(lambda torch, x, w, t: _functional(torch).cross_entropy((x @ w.T).float(), t), (0, 1)),
        with_liger("liger_fused_linear_cross_entropy", leaves=(0, 1)),
        moved=(2 * rows * dim + 2 * vocabulary * dim) * size, flops=3 * 2 * rows * dim * vocabulary,
        tolerance=tolerance, speed_aim=1.0, memory_aim=0.35,
    )  # fmt: skip
    yield Case(
        "cross-entropy, fwd + bwd", _text(rows, vocabulary), dtype, ("cross_entropy", "cross_entropy_grad"),
        (Input((rows, vocabulary)), Input((rows,), below=vocabulary), Input((1,))),
        gradient_spiral(lambda sp, x, t: sp.cross_entropy(x, t), (0,)),
        gradient_torch(lambda torch, x, t: _functional(torch).cross_entropy(x, t), (0,)),
        # Liger's overwrites its logits with their gradient: repeated runs would see other inputs
        moved=3 * rows * vocabulary * size, tolerance=tolerance, large=3 * rows * vocabulary * size >= 64 << 20,
    )  # fmt: skip


# ---------------------------------------------------------------- rows
def _norms(rows: int, n: int, dtype: str) -> Iterator[Case]:
    size = _BYTES[dtype]
    more: dict[str, Any] = {"tolerance": _TOLERANCE[dtype], "large": 2 * rows * n * size >= 64 << 20}
    x, w = Input((rows, n)), Input((n,))
    yield Case(
        "rms_norm", _text(rows, n), dtype, ("rms_norm",), (x, w),
        forward_spiral(lambda sp, x, w: sp.rms_norm(x, w, eps=1e-6)),
        forward_torch(lambda torch, x, w: _functional(torch).rms_norm(x, (n,), w, 1e-6)),
        with_liger("liger_rms_norm", 1e-6, in_place=False), moved=2 * rows * n * size, **more,
    )  # fmt: skip
    yield Case(
        "rms_norm, fwd + bwd", _text(rows, n), dtype, ("rms_norm", "rms_norm_grad"), (x, w, x),
        gradient_spiral(lambda sp, x, w: sp.rms_norm(x, w, eps=1e-6), (0, 1)),
        gradient_torch(lambda torch, x, w: _functional(torch).rms_norm(x, (n,), w, 1e-6), (0, 1)),
        with_liger("liger_rms_norm", 1e-6, in_place=False, leaves=(0, 1)), moved=5 * rows * n * size, **more,
    )  # fmt: skip
    yield Case(
        "layer_norm", _text(rows, n), dtype, ("layer_norm",), (x, w, w),
        forward_spiral(lambda sp, x, w, b: sp.layer_norm(x, w, b, eps=1e-5)),
        forward_torch(lambda torch, x, w, b: _functional(torch).layer_norm(x, (n,), w, b, 1e-5)),
        with_liger("liger_layer_norm", 1e-5), moved=2 * rows * n * size, **more,
    )  # fmt: skip
    yield Case(
        "layer_norm, fwd + bwd", _text(rows, n), dtype, ("layer_norm", "layer_norm_grad"), (x, w, w, x),
        gradient_spiral(lambda sp, x, w, b: sp.layer_norm(x, w, b, eps=1e-5), (0, 1, 2)),
        gradient_torch(lambda torch, x, w, b: _functional(torch).layer_norm(x, (n,), w, b, 1e-5), (0, 1, 2)),
        with_liger("liger_layer_norm", 1e-5, leaves=(0, 1, 2)), moved=5 * rows * n * size, **more,
    )  # fmt: skip
    yield _simple(
        "softmax", ("softmax",), ((rows, n),), dtype, lambda sp, x: sp.softmax(x, axis=-1),
        lambda torch, x: torch.softmax(x, -1), liger=with_liger("liger_softmax"),
    )  # fmt: skip
    yield _simple(
        "sum over the last axis", ("sum",), ((rows, n),), dtype, lambda sp, x: sp.sum(x, axis=-1),
        lambda torch, x: x.sum(-1), out=rows,
    )  # fmt: skip
    yield _simple(
        "sum over the first axis", ("sum",), ((rows, n),), dtype, lambda sp, x: sp.sum(x, axis=0),
        lambda torch, x: x.sum(0), out=n,
    )  # fmt: skip


# ---------------------------------------------------------------- elementwise
def _elementwise(rows: int, n: int, dtype: str) -> Iterator[Case]:
    shape = (rows, n)
    yield _simple("add", ("add",), (shape, shape), dtype, lambda sp, x, y: x + y, lambda torch, x, y: x + y)
    yield _simple("bias broadcast", ("add",), (shape, (n,)), dtype, lambda sp, x, b: x + b, lambda torch, x, b: x + b)
    yield _simple("gelu", ("gelu",), (shape,), dtype, lambda sp, x: sp.gelu(x), lambda t, x: _functional(t).gelu(x))
    yield _simple(
        "swiglu", ("swiglu",), (shape, shape), dtype, lambda sp, a, b: sp.swiglu(a, b),
        lambda torch, a, b: _functional(torch).silu(a) * b, liger=with_liger("liger_swiglu"),
    )  # fmt: skip
    yield _simple(
        "dropout", ("dropout",), (shape,), dtype, lambda sp, x: sp.dropout(x, p=0.1, seed=1, stream=2),
        lambda torch, x: _functional(torch).dropout(x, 0.1, True), matches=False,
    )  # fmt: skip


# ---------------------------------------------------------------- products
def _products(m: int, n: int, k: int, dtype: str) -> Iterator[Case]:
    size = _BYTES[dtype]
    more: dict[str, Any] = {
        "moved": (m * k + k * n + m * n) * size, "flops": 2 * m * n * k, "tolerance": max(1e-3, _TOLERANCE[dtype]),
        "compiled": False,
    }  # fmt: skip
    yield Case(
        "matmul", _text(m, k, n), dtype, ("matmul",), (Input((m, k)), Input((k, n))),
        forward_spiral(lambda sp, a, b: a @ b), forward_torch(lambda torch, a, b: a @ b), **more,
    )  # fmt: skip
    yield Case(
        "linear with bias", _text(m, k, n), dtype, ("linear",), (Input((m, k)), Input((n, k)), Input((n,))),
        forward_spiral(lambda sp, x, w, b: sp.linear(x, w, b)),
        forward_torch(lambda torch, x, w, b: _functional(torch).linear(x, w, b)), **more,
    )  # fmt: skip


def _attention(batch: int, heads: int, time: int, dim: int, dtype: str) -> Iterator[Case]:
    shape, scale = (batch, heads, time, dim), dim**-0.5
    x, size = Input(shape), prod(shape) * _BYTES[dtype]
    flops = 2 * batch * heads * time * time * dim  # two products, half of each

    def ours(sp: Any, q: Any, k: Any, v: Any) -> Any:
        return sp.attention(q, k, v, scale=scale, causal=True)

    def theirs(torch: Any, q: Any, k: Any, v: Any) -> Any:
        return _functional(torch).scaled_dot_product_attention(q, k, v, is_causal=True)

    more: dict[str, Any] = {"tolerance": max(1e-3, _TOLERANCE[dtype]), "compiled": False}
    yield Case(
        "causal attention", _text(*shape), dtype, ("attention",), (x, x, x), forward_spiral(ours),
        forward_torch(theirs), moved=4 * size, flops=flops, **more,
    )  # fmt: skip
    yield Case(
        "causal attention, fwd + bwd", _text(*shape), dtype, ("attention", "attention_grad"), (x, x, x, x),
        gradient_spiral(ours, (0, 1, 2)), gradient_torch(theirs, (0, 1, 2)), moved=12 * size,
        flops=flops * 7 // 2, **{**more, "tolerance": 2 * more["tolerance"]},
    )  # fmt: skip


# ---------------------------------------------------------------- the rest
def _rope_torch(torch: Any, x: Any, cos: Any, sin: Any) -> Any:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def _rest(rows: int, n: int, vocabulary: int, dtype: str) -> Iterator[Case]:
    size = _BYTES[dtype]
    weight, index = Input((vocabulary, n)), Input((rows,), below=vocabulary)
    yield Case(
        "embedding", _text(rows, vocabulary, n), dtype, ("embedding",), (weight, index),
        forward_spiral(lambda sp, w, i: sp.embedding(w, i)),
        forward_torch(lambda torch, w, i: _functional(torch).embedding(i, w)), moved=2 * rows * n * size,
    )  # fmt: skip
    yield Case(
        "embedding, fwd + bwd", _text(rows, vocabulary, n), dtype, ("embedding", "embedding_grad"),
        (weight, index, Input((rows, n))),
        gradient_spiral(lambda sp, w, i: sp.embedding(w, i), (0,)),
        gradient_torch(lambda torch, w, i: _functional(torch).embedding(i, w), (0,)),
        moved=(3 * rows * n + vocabulary * n) * size, tolerance=max(1e-3, _TOLERANCE[dtype]),
    )  # fmt: skip
    time, dim = min(rows, 1024), 64
    heads = max(1, rows * n // (time * dim))
    yield Case(
        "rope", _text(1, heads, time, dim), dtype, ("rope",),
        (Input((1, heads, time, dim)), Input((time, dim // 2)), Input((time, dim // 2))),
        forward_spiral(lambda sp, x, c, s: sp.rope(x, c, s)), forward_torch(_rope_torch),
        moved=2 * heads * time * dim * size, tolerance=_TOLERANCE[dtype],
    )  # fmt: skip
    yield _simple(
        "cumulative sum", ("cumulative_sum",), ((rows, n),), dtype, lambda sp, x: sp.cumulative_sum(x, axis=-1),
        lambda torch, x: x.cumsum(-1), compiled=False, tolerance=1e-3 if dtype == "float32" else 5e-2,
    )  # fmt: skip
    yield _simple(
        "sort", ("sort",), ((rows, n),), dtype, lambda sp, x: sp.sort(x, axis=-1),
        lambda torch, x: x.sort(-1).values, compiled=False,
    )  # fmt: skip


def _adamw(shapes: tuple[tuple[int, ...], ...], size: str) -> Case:
    arrays = Input(shapes=shapes)
    return Case(
        "adamw", size, "float32", ("adamw",), (arrays, arrays, arrays, replace(arrays, positive=True)),
        adamw_spiral, adamw_torch, moved=7 * 4 * sum(map(prod, shapes)), compiled=False, mutates=True, large=True,
        tolerance=1e-4,
    )  # fmt: skip


def full() -> list[Case]:
    """Every case at the sizes of GPT-2 124M and of a layer of a 7B model."""
    groups: list[Callable[[], Iterator[Case]]] = [
        lambda: _losses(8192, 768, 50257, "bfloat16"),
        lambda: iter([_adamw(gpt2_shapes(), "GPT-2 124M")]),
        lambda: _attention(8, 12, 1024, 64, "bfloat16"),
        lambda: _products(8192, 3072, 768, "bfloat16"),
        lambda: _norms(16384, 4096, "bfloat16"),
        lambda: _elementwise(16384, 4096, "bfloat16"),
        lambda: _products(8192, 8192, 8192, "bfloat16"),
        lambda: _rest(8192, 768, 50257, "bfloat16"),
        lambda: _norms(8192, 768, "float32"),
        lambda: _elementwise(8192, 3072, "float32"),
        lambda: _products(4096, 4096, 4096, "float32"),
        lambda: _attention(4, 32, 4096, 128, "bfloat16"),
        lambda: _losses(4096, 4096, 32000, "bfloat16"),
        lambda: _rest(8192, 1024, 32000, "float32"),
        lambda: _elementwise(512, 768, "float32"),
        lambda: _norms(512, 768, "float32"),
    ]
    return [case for group in groups for case in group()]


def tiny() -> list[Case]:
    """The same at sizes that the processor does in milliseconds, to see that it runs."""
    groups = [
        _losses(6, 16, 37, "float32"), iter([_adamw(((5, 3), (4,)), "two")]), _attention(1, 2, 8, 16, "float32"),
        _products(8, 6, 16, "float32"), _norms(3, 33, "float32"), _elementwise(4, 33, "float32"),
        _rest(8, 16, 11, "float32"), _norms(3, 33, "bfloat16"),
    ]  # fmt: skip
    return [case for group in groups for case in group]
