"""cross_entropy and nll_loss with class weights, ignored targets, smoothing and probabilities, against PyTorch."""

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.errors import ArgumentError, IndexingError, ShapeError

torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
F, TF = nn.functional, torch.nn.functional
WEIGHT = np.array([0.2, 1.5, 0.0, 1.0, 0.7], np.float32)


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def agree(ours, theirs, lead):
    """Values, and gradients with respect to scores (..., 5); PyTorch has the classes on the second axis."""
    x = normal(*lead, 5)
    a, b = sp.asarray(x).requires_grad_(), torch.tensor(x, requires_grad=True)
    y, t = ours(a), theirs(b.movedim(-1, 1) if len(lead) > 1 else b)
    assert y.shape == tuple(t.shape)
    np.testing.assert_allclose(y.numpy(), t.detach().numpy(), rtol=2e-5, atol=1e-6)
    y.sum().backward()
    t.sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("lead", [(), (6,), (2, 3)])
@pytest.mark.parametrize("ignore", [-100, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("weighted", [True, False])
def test_cross_entropy(reduction, lead, ignore, smoothing, weighted):
    if not lead and ignore == 3:
        ignore = -100  # PyTorch's mean over no target is NaN there, as ours; nothing to compare
    target = np.array([1, 3, 0, 4, 2, 3])[: int(np.prod(lead)) or 1].reshape(lead)
    w = WEIGHT if weighted else None
    agree(
        lambda x: F.cross_entropy(
            x,
            sp.asarray(target),
            None if w is None else sp.asarray(w),
            ignore_index=ignore,
            label_smoothing=smoothing,
            reduction=reduction,
        ),
        lambda x: TF.cross_entropy(
            x,
            torch.tensor(target),
            None if w is None else torch.tensor(w),
            ignore_index=ignore,
            label_smoothing=smoothing,
            reduction=reduction,
        ),
        lead,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_with_probabilities(reduction, weighted, smoothing):
    p = np.exp(normal(4, 5)) / np.exp(normal(4, 5)).sum(-1, keepdims=True)
    w = WEIGHT if weighted else None
    agree(
        lambda x: F.cross_entropy(
            x,
            sp.asarray(p),
            None if w is None else sp.asarray(w),
            label_smoothing=smoothing,
            reduction=reduction,
        ),
        lambda x: TF.cross_entropy(
            x,
            torch.tensor(p),
            None if w is None else torch.tensor(w),
            label_smoothing=smoothing,
            reduction=reduction,
        ),
        (4,),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("lead", [(6,), (2, 3)])
def test_nll_loss(reduction, lead):
    target = np.array([1, 3, 0, 4, 2, 3]).reshape(lead)
    agree(
        lambda x: F.nll_loss(x, sp.asarray(target), sp.asarray(WEIGHT), ignore_index=3, reduction=reduction),
        lambda x: TF.nll_loss(x, torch.tensor(target), torch.tensor(WEIGHT), ignore_index=3, reduction=reduction),
        lead,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
def test_ones_as_weights_change_nothing_also_with_z_loss(smoothing):
    x, target = sp.asarray(normal(6, 5)), sp.asarray([1, 3, 0, 4, 2, -100])
    settings = {"label_smoothing": smoothing, "z_loss": 0.01}
    for reduction in ("mean", "sum", "none"):
        np.testing.assert_allclose(
            F.cross_entropy(x, target, sp.ones(5), reduction=reduction, **settings).numpy(),
            F.cross_entropy(x, target, reduction=reduction, **settings).numpy(),
            rtol=1e-5,
        )


def test_the_module_keeps_its_weight_as_a_buffer():
    loss = nn.CrossEntropyLoss(sp.asarray(WEIGHT), label_smoothing=0.1)
    assert list(loss.state_dict()) == ["weight"] and list(nn.CrossEntropyLoss().state_dict()) == []
    assert loss.to(sp.float64).weight.dtype is sp.float64
    assert nn.NLLLoss(sp.asarray(WEIGHT))(sp.asarray(normal(2, 5)), sp.asarray([0, 1])).shape == ()


def test_a_loss_in_half_precision_keeps_its_dtype_whatever_the_weights():
    x = sp.asarray(normal(4, 5), dtype=sp.bfloat16).requires_grad_()
    loss = F.cross_entropy(x, sp.asarray([0, 1, 3, 4]), sp.asarray(WEIGHT), label_smoothing=0.1)
    loss.backward()
    assert loss.dtype is sp.bfloat16 and x.grad.dtype is sp.bfloat16


def test_wrong_weights_and_targets_are_refused():
    x, target = sp.ones((2, 3)), sp.asarray([0, 1])
    with pytest.raises(ArgumentError, match="weight must be a Tensor.*received int. ignore_index.*by name"):
        F.cross_entropy(x, target, -1)
    with pytest.raises(ShapeError, match=r"weight must be \(3,\), one per class; received \(2,\)"):
        F.cross_entropy(x, target, sp.ones(2))
    for bad in (3, -1):
        for call in (F.cross_entropy, F.nll_loss):
            for weight in (None, sp.ones(3)):
                with pytest.raises(IndexingError, match=f"{call.__name__}:.*{bad}"):
                    call(x, sp.asarray([0, bad]), weight)
