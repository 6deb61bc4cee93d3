"""Gradients of gradients of layers and losses, against differences in float64."""

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.autograd import grad_of

F = nn.functional


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def slopes(fn, arrays, weights, graph):
    """The gradients of sum(fn(*arrays)^2) and their product with fixed weights."""
    leaves = [sp.asarray(a).requires_grad_() for a in arrays]
    y = fn(*leaves)
    grads = grad_of([(y * y).sum()], leaves, create_graph=graph)
    if not weights:
        weights.extend(normal(*a.shape, seed=7) for a in arrays)
    return leaves, sum((g * sp.asarray(w)).sum() for g, w in zip(grads, weights, strict=True))


def check(fn, *arrays):
    weights = []
    leaves, s = slopes(fn, arrays, weights, True)
    exact = grad_of([s], leaves)
    directions = [normal(*a.shape, seed=8) for a in arrays]
    h = 1e-5
    up = slopes(fn, [a + h * d for a, d in zip(arrays, directions, strict=True)], weights, False)[1].item()
    down = slopes(fn, [a - h * d for a, d in zip(arrays, directions, strict=True)], weights, False)[1].item()
    analytic = sum(float((g.numpy() * d).sum()) for g, d in zip(exact, directions, strict=True))
    scale = sum(float(np.abs(g.numpy() * d).sum()) for g, d in zip(exact, directions, strict=True))
    assert scale > 0.0
    assert analytic == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-6 * scale)


MASK = np.zeros((5, 7))
MASK[1] = -np.inf
MASK[2, 3:] = -np.inf
CLASSES = sp.asarray([0, 3, -100, 2])
CLASS_WEIGHT = sp.asarray([0.5, 1.0, 2.0, 0.1], dtype=sp.float64)

FUNCTIONS = {
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, 2, (1, 0), (1, 2)), (2, 3, 7, 8), (4, 3, 3, 2), (4,)),
    "conv2d-groups": (lambda x, w: F.conv2d(x, w, None, 1, 1, 1, 2), (2, 4, 5, 5), (6, 2, 3, 3)),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, 2, 1, 2), (2, 3, 9), (4, 3, 3), (4,)),
    "conv-relu-conv": (
        lambda x, v, w: F.conv2d(sp.tanh(F.conv2d(x, v, None, 1, 1)), w),
        (1, 2, 5, 5),
        (3, 2, 3, 3),
        (2, 3, 2, 2),
    ),
    "max-pool": (lambda x: F.max_pool2d(x * x * x, 3, 2, 1), (2, 2, 7, 6)),
    "max-pool-1d": (lambda x: F.max_pool1d(x * x * x, 2), (2, 2, 6)),
    "avg-pool": (lambda x: F.avg_pool2d(x * x, 3, 2, 1, False), (2, 2, 7, 6)),
    "adaptive-pool": (lambda x: F.adaptive_avg_pool2d(x * x, (2, 3)), (1, 2, 5, 4)),
    "attention-grouped": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, window=3),
        (2, 4, 5, 3),
        (2, 2, 7, 3),
        (2, 2, 7, 3),
    ),
    "attention-with-empty-row": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, sp.asarray(MASK)),
        (1, 2, 5, 3),
        (1, 2, 7, 3),
        (1, 2, 7, 4),
    ),
    "attention-mask": (F.scaled_dot_product_attention, (1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4), (2, 3, 5)),
    "layer-norm": (lambda x, w, b: F.layer_norm(x, 6, w, b), (3, 6), (6,), (6,)),
    "rms-norm-2-axes": (lambda x, w: F.rms_norm(x, (2, 3), w), (4, 2, 3), (2, 3)),
    "group-norm": (lambda x: nn.GroupNorm(2, 4, affine=False)(x), (2, 4, 3)),
    "batch-norm": (lambda x: nn.BatchNorm1d(3, affine=False, track_running_stats=False)(x), (5, 3)),
    "embedding": (lambda w: F.embedding(sp.asarray([[0, 2, 2], [1, 0, 3]]), w * w, padding_idx=1), (4, 3)),
    "cross-entropy": (
        lambda x: F.cross_entropy(x, CLASSES, label_smoothing=0.1, z_loss=0.01),
        (4, 4),
    ),
    "weighted-cross-entropy": (
        lambda x: F.cross_entropy(x, CLASSES, CLASS_WEIGHT, label_smoothing=0.1, z_loss=0.01),
        (4, 4),
    ),
    "lstm": (lambda x: LSTM(x)[0], (3, 2, 2)),
    "gelu": (F.gelu, (3, 4)),
    "swiglu": (sp.swiglu, (3, 4), (3, 4)),
    "softplus": (F.softplus, (3, 4)),
    "rope": (lambda x: ROPE(x * x), (1, 2, 3, 4)),
    "rope-interleaved": (lambda x: ROPE_INTERLEAVED(x * x), (1, 2, 3, 4)),
    "linear": (lambda x, w, b: sp.linear(x, w, b, activation="relu"), (3, 4), (5, 4), (5,)),
    "concat": (lambda a, b: sp.concat([a * b, b * b * b]), (3, 2), (3, 2)),
    "stack": (lambda a, b: sp.stack([a * b, b * b * b], axis=-1), (3, 2), (3, 2)),
}
LSTM = nn.LSTM(2, 3, bidirectional=True).to(sp.float64)
ROPE = nn.RotaryEmbedding(4).to(sp.float64)
ROPE_INTERLEAVED = nn.RotaryEmbedding(4, interleaved=True).to(sp.float64)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivative_agrees_with_differences(name):
    fn, *shapes = FUNCTIONS[name]
    check(fn, *(normal(*s, seed=i) for i, s in enumerate(shapes)))


@pytest.mark.parametrize(
    "name", ["conv2d", "conv2d-groups", "conv1d", "max-pool", "attention-grouped", "layer-norm", "swiglu", "linear"]
)
def test_the_float32_kernels_have_the_float64_second_derivatives(name):
    fn, *shapes = FUNCTIONS[name]

    def second(dtype):
        leaves = [sp.asarray(normal(*s, seed=i), dtype=dtype).requires_grad_() for i, s in enumerate(shapes)]
        y = fn(*leaves)
        grads = grad_of([(y * y).sum()], leaves, create_graph=True)
        return [g.numpy() for g in grad_of([sum((g * g).sum() for g in grads)], leaves)]

    for narrow, wide in zip(second(sp.float32), second(sp.float64), strict=True):
        np.testing.assert_allclose(narrow, wide, atol=1e-5 * np.abs(wide).max())


def test_third_derivative_of_a_convolution():
    w = sp.asarray(normal(1, 1, 2, 2))

    def f(x):
        return (F.conv2d(x, w) ** 3.0).sum()

    def second(x):
        return sp.grad(lambda t: sp.grad(f)(t).sum())(x)

    x0, d, h = normal(1, 1, 3, 3), normal(1, 1, 3, 3, seed=1), 1e-5
    third = sp.grad(lambda x: (second(x) * sp.asarray(d)).sum())(sp.asarray(x0)).numpy()
    up, down = second(sp.asarray(x0 + h * d)).numpy(), second(sp.asarray(x0 - h * d)).numpy()
    np.testing.assert_allclose(third, (up - down) / (2 * h), rtol=1e-5, atol=1e-7)


def test_a_gradient_penalty_of_a_convnet_matches_torch():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x0 = normal(2, 1, 8, 8)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 1)).to(sp.float64)
    twin = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.Tanh(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(27, 1)
    ).double()
    twin.load_state_dict({k: torch.tensor(np.array(v.numpy())) for k, v in model.state_dict().items()})
    x, t = sp.asarray(x0).requires_grad_(), torch.tensor(x0, requires_grad=True)
    (g,) = grad_of([model(x).sum()], [x], create_graph=True)
    ((g * g).sum() - 1.0).backward()
    (gt,) = torch.autograd.grad(twin(t).sum(), t, create_graph=True)
    ((gt * gt).sum() - 1.0).backward()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        if q.grad is not None:
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)
