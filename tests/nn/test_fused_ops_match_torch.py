"""Fused ops against what they are made of, in PyTorch."""

import math

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.errors import ArgumentError, DTypeError, IndexingError, ShapeError
from spiral.ops import linear_loss

torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
from torch_oracle import close, compare, normal, tensors  # noqa: E402

functional = torch.nn.functional
REDUCTIONS = ["mean", "sum", "none"]
TARGETS = np.array([[0, 4, 2], [1, -1, 3]])


def theirs_linear(**options):
    def loss(x, w, t):
        logits = (x @ w.T).reshape(-1, w.shape[0])
        found = functional.cross_entropy(logits, t.reshape(-1), ignore_index=-1, **options)
        return found.reshape(t.shape) if options.get("reduction") == "none" else found

    return loss


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_linear_cross_entropy(reduction, smoothing):
    compare(
        nn.LinearCrossEntropyLoss(-1, smoothing, reduction=reduction),
        theirs_linear(label_smoothing=smoothing, reduction=reduction),
        normal(2, 3, 7),
        normal(5, 7, seed=1),
        TARGETS,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_linear_cross_entropy_in_chunks(monkeypatch, reduction, rows):
    monkeypatch.setattr(linear_loss, "_WHOLE", 0)
    monkeypatch.setattr(linear_loss, "_CHUNK", 5 * rows)
    assert linear_loss.rows_at_once(6, 5) <= rows
    compare(
        nn.LinearCrossEntropyLoss(-1, 0.1, reduction=reduction),
        theirs_linear(label_smoothing=0.1, reduction=reduction),
        normal(2, 3, 7),
        normal(5, 7, seed=1),
        TARGETS,
    )


def test_chunks_hold_no_more_logits_than_they_may(monkeypatch):
    monkeypatch.setattr(linear_loss, "_WHOLE", 0)
    monkeypatch.setattr(linear_loss, "_CHUNK", 1 << 14)
    x, w = sp.asarray(normal(1024, 4)).requires_grad_(), sp.asarray(normal(1024, 4, seed=1)).requires_grad_()
    sizes = []
    sp.dispatch.observe_ops(lambda name, inputs, outputs, backend: sizes.extend(math.prod(s) for s in outputs))
    try:
        sp.linear_cross_entropy(x, w, sp.asarray(np.arange(1024))).backward()
    finally:
        sp.dispatch.observe_ops(None)
    assert len(sizes) > 100 and max(sizes) <= 1 << 14


def test_chunked_loss_has_second_derivatives(monkeypatch):
    def slope(x, w):
        loss = sp.linear_cross_entropy(x, w, sp.asarray([0, 4, 2]), z_loss=0.1)
        return sp.autograd.grad_of([loss], [x], create_graph=True)[0]

    found = []
    for whole in (1 << 20, 0):
        monkeypatch.setattr(linear_loss, "_WHOLE", whole)
        monkeypatch.setattr(linear_loss, "_CHUNK", 5)
        x, w = sp.asarray(normal(3, 7)).requires_grad_(), sp.asarray(normal(5, 7, seed=1)).requires_grad_()
        (slope(x, w) ** 2).sum().backward()
        found.append((x.grad.numpy(), w.grad.numpy()))
    for whole, chunked in zip(*found, strict=True):
        np.testing.assert_allclose(chunked, whole, rtol=1e-4, atol=1e-6)


def test_loss_of_16_bit_features_is_float32_and_as_exact_as_that():
    x, w = normal(6, 64), normal(300, 64, seed=1)
    targets = sp.asarray(np.arange(6) * 50)
    for dtype in (sp.bfloat16, sp.float16):
        ours = [sp.asarray(a).astype(dtype).requires_grad_() for a in (x, w)]
        loss = sp.nn.functional.linear_cross_entropy(*ours, targets)
        loss.backward()
        wide = [sp.asarray(t.detach().astype(sp.float32).numpy()).requires_grad_() for t in ours]
        exact = sp.nn.functional.linear_cross_entropy(*wide, targets)
        exact.backward()
        assert loss.dtype is sp.float32
        tolerance = 2e-3 if dtype is sp.float16 else 2e-2
        np.testing.assert_allclose(loss.item(), exact.item(), rtol=tolerance)
        for a, b in zip(ours, wide, strict=True):
            assert a.grad.dtype is dtype
            np.testing.assert_allclose(a.grad.astype(sp.float32).numpy(), b.grad.numpy(), atol=tolerance)


def test_mean_over_no_targets_is_nan_as_in_torch():
    assert np.isnan(sp.linear_cross_entropy(sp.ones((2, 3)), sp.ones((4, 3)), sp.asarray([-100, -100])).item())


def test_linear_cross_entropy_refuses_what_does_not_fit():
    loss = nn.functional.linear_cross_entropy
    x, w, t = sp.ones((2, 3)), sp.ones((5, 3)), sp.asarray([0, 4])
    with pytest.raises(IndexingError, match="5"):
        loss(x, w, sp.asarray([0, 5]))
    with pytest.raises(ShapeError, match=r"received \(2, 3\), \(5, 4\) and \(2,\)"):
        loss(x, sp.ones((5, 4)), t)
    with pytest.raises(ShapeError, match=r"received \(2, 3\) and \(1,\)"):
        loss(x, w, sp.asarray([0]))
    with pytest.raises(DTypeError, match="targets must be integers"):
        loss(x, w, sp.asarray([0.0, 1.0]))
    with pytest.raises(ArgumentError, match="reduction"):
        loss(x, w, t, reduction="max")
    with pytest.raises(ArgumentError, match="label_smoothing"):
        nn.LinearCrossEntropyLoss(label_smoothing=1.5)


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (2, 6, 4, 5)], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_group_norm(shape, affine):
    given = [normal(*shape), *([normal(6, seed=1), normal(6, seed=2)] if affine else [])]
    compare(
        lambda *a: nn.functional.group_norm(a[0], 3, *a[1:]), lambda *a: functional.group_norm(a[0], 3, *a[1:]), *given
    )


def test_group_norm_refuses_groups_that_do_not_divide():
    with pytest.raises(ArgumentError, match="groups must divide 6"):
        nn.functional.group_norm(sp.ones((2, 6)), 4)
    with pytest.raises(ShapeError, match=r"group_norm: weight must be \(6,\)"):
        nn.functional.group_norm(sp.ones((2, 6)), 3, sp.ones(5))


@pytest.mark.parametrize("use", ["both", "norm alone", "sum alone"])
@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_norm_of_a_sum(kind, use):
    def mix(y, summed):
        return y + summed * 2.0 if use == "both" else y if use == "norm alone" else summed * 2.0

    def theirs(x, r, w, b):
        s = x + r
        if kind == "rms":
            return mix(functional.rms_norm(s, (7,), w, 1e-6), s) + b
        return mix(functional.layer_norm(s, (7,), w, b), s)

    def ours(x, r, w, b):
        if kind == "rms":
            return mix(*nn.functional.add_rms_norm(x, r, 7, w)) + b
        return mix(*nn.functional.add_layer_norm(x, r, (7,), w, b))

    if use == "sum alone" and kind == "layer":  # weight and bias get no gradient there, and 0 here
        compare(
            lambda x, r: ours(x, r, None, None),
            lambda x, r: theirs(x, r, None, None),
            normal(2, 3, 7),
            normal(2, 3, 7, seed=1),
        )
        return
    given = normal(2, 3, 7), normal(2, 3, 7, seed=1), normal(7, seed=2), normal(7, seed=3)
    if use == "sum alone":
        compare(lambda x, r: ours(x, r, None, 0.0), lambda x, r: theirs(x, r, None, 0.0), *given[:2])
    else:
        compare(ours, theirs, *given)


def test_norm_layers_take_a_residual_and_keep_their_hooks():
    x, r = sp.asarray(normal(2, 7)), sp.asarray(normal(2, 7, seed=1))
    for layer in (nn.RMSNorm(7), nn.LayerNorm(7), nn.LayerNorm((2, 7)), nn.RMSNorm((2, 7))):
        seen = []
        layer.register_forward_hook(lambda module, args, output, seen=seen: seen.append(len(args)))
        y, summed = layer(x, r)
        assert seen == [2] and summed.tolist() == (x + r).tolist()
        np.testing.assert_allclose(y.numpy(), layer(x + r).numpy(), rtol=1e-6)
    with pytest.raises(ShapeError, match="x and residual must have one shape"):
        nn.RMSNorm(7)(x, r[:1])


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_geglu(approximate):
    theirs = lambda a, b: functional.gelu(a, approximate=approximate) * b  # noqa: E731
    ours = lambda a, b: sp.geglu(a, b, approximate=approximate)  # noqa: E731
    compare(ours, theirs, normal(3, 65), normal(3, 65, seed=1))
    compare(ours, theirs, normal(3, 1), normal(5, seed=1))  # broadcast
    with pytest.raises(ArgumentError, match="geglu: approximate"):
        sp.geglu(sp.ones(2), sp.ones(2), approximate="fast")


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("k", "axis"), [(1, -1), (3, 1), (0, 1), (9, 1), (2, 0)])
def test_top_k(k, axis, largest):
    x = np.random.default_rng(0).permutation(36).reshape(4, 9).astype(np.float32)
    compare(
        lambda x: sp.top_k(x, k, axis=axis, largest=largest)[0], lambda x: torch.topk(x, k, axis, largest=largest)[0], x
    )
    ours, theirs = sp.top_k(sp.asarray(x), k, axis=axis, largest=largest), torch.topk(torch.tensor(x), k, axis, largest)
    assert ours[1].tolist() == theirs[1].tolist()


def test_top_k_takes_the_first_of_equal_elements_and_nan_as_largest():
    assert sp.top_k(sp.asarray([1.0, 2.0, 2.0, 2.0]), 2)[1].tolist() == [1, 2]
    assert sp.top_k(sp.asarray([1.0, 1.0, 0.0, 0.0]), 3, largest=False)[1].tolist() == [2, 3, 0]
    assert sp.top_k(sp.asarray([1.0, sp.nan, sp.inf]), 2)[1].tolist() == [1, 2]
    assert not sp.top_k(sp.ones(3).requires_grad_(), 2)[1].requires_grad
    for k in (-1, 5, True, 2.0):
        with pytest.raises(ArgumentError, match=r"top_k: k must be in \[0, 4\]"):
            sp.top_k(sp.ones(4), k)
    with pytest.raises(DTypeError, match="top_k: x must be a Tensor"):
        sp.top_k([1.0], 1)


def test_grouped_products():
    sizes = [4, 0, 3]

    def theirs(x, w):
        parts = [p @ m for p, m in zip(x[:7].split(sizes), w, strict=True)]
        return torch.cat([*parts, torch.zeros(2, 5)])

    compare(lambda x, w: sp.grouped_matmul(x, w, sp.asarray(sizes)), theirs, normal(9, 6), normal(3, 6, 5, seed=1))


@pytest.mark.parametrize("sizes", [[5, 5], [-1, 3], [9, 1]])
@pytest.mark.parametrize("dtype", [sp.float32, sp.float64])
def test_group_sizes_that_do_not_fit_are_an_error(sizes, dtype):
    with pytest.raises(ArgumentError, match="grouped_matmul: groups must follow each other within the 9 rows"):
        sp.grouped_matmul(sp.ones((9, 2), dtype=dtype), sp.ones((2, 2, 3), dtype=dtype), sp.asarray(sizes))


def test_grouped_products_refuse_other_shapes_and_dtypes():
    x, w = sp.ones((9, 2)), sp.ones((2, 2, 3))
    with pytest.raises(ShapeError, match=r"sizes must be \(2,\), one per matrix"):
        sp.grouped_matmul(x, w, sp.asarray([9]))
    with pytest.raises(DTypeError, match="sizes must be integers"):
        sp.grouped_matmul(x, w, sp.asarray([4.0, 5.0]))
    with pytest.raises(ShapeError, match=r"expected x \(T, K\) and weight \(G, K, N\)"):
        sp.grouped_matmul(x, sp.ones((2, 3, 3)), sp.asarray([4, 5]))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("starts", [[0, 5, 5, 70, 72], [3, 20, 60]], ids=str)
def test_attention_of_packed_sequences(starts, causal):
    def theirs(q, k, v):
        k, v = (x.repeat_interleave(2, 1) for x in (k, v))
        y = torch.zeros_like(q)
        for a, b in zip(starts, starts[1:], strict=False):
            if b > a:
                one = (x[a:b].transpose(0, 1)[None] for x in (q, k, v))
                y[a:b] = functional.scaled_dot_product_attention(*one, is_causal=causal)[0].transpose(0, 1)
        return y

    def ours(q, k, v):
        return sp.attention_varlen(q, k, v, sp.asarray(starts), scale=16**-0.5, causal=causal)

    given = normal(72, 4, 16), normal(72, 2, 16, seed=1), normal(72, 2, 16, seed=2)
    compare(ours, theirs, *given)
    (q, k, v), other = tensors(*given)
    ours(q, k, v).sum().backward()  # a gradient without memory of its own
    theirs(*other).sum().backward()
    for a, b in zip((q, k, v), other, strict=True):
        close(a.grad, b.grad)


@pytest.mark.parametrize("dtype", [sp.float32, sp.float64])
def test_starts_that_fall_or_leave_the_tokens_are_an_error(dtype):
    x = sp.ones((6, 1, 4), dtype=dtype)
    for starts in ([0, 7], [0, 4, 3], [-1, 6]):
        with pytest.raises(ArgumentError, match="attention_varlen: groups must follow each other within the 6 rows"):
            sp.attention_varlen(x, x, x, sp.asarray(starts), scale=1.0)
    with pytest.raises(ShapeError, match="starts must be"):
        sp.attention_varlen(x, x, x, sp.asarray([[0, 6]]), scale=1.0)
    with pytest.raises(DTypeError, match="starts must be integers"):
        sp.attention_varlen(x, x, x, sp.asarray([0.0, 6.0]), scale=1.0)
