"""Losses and functions against PyTorch's."""

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.errors import ArgumentError, ShapeError

torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
from torch_oracle import compare, normal, tensors  # noqa: E402

REDUCTIONS = ["mean", "sum", "none"]


def probabilities(*shape):
    e = np.exp(normal(*shape, seed=3))
    return (e / e.sum(-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss"])
def test_regression_losses(name, reduction):
    ours, theirs = getattr(nn, name), getattr(torch.nn, name)
    compare(ours(reduction=reduction), theirs(reduction=reduction), normal(4, 3), normal(4, 3, seed=1))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_huber_with_another_delta(reduction):
    compare(nn.HuberLoss(0.3, reduction), torch.nn.HuberLoss(reduction, 0.3), normal(9), normal(9, seed=1))


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_smooth_l1_with_another_beta(beta):
    compare(nn.SmoothL1Loss(beta), torch.nn.SmoothL1Loss(beta=beta), normal(9), normal(9, seed=1))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_sequences(reduction, smoothing):
    targets = np.array([[0, 4, 2], [1, -1, 3]])
    compare(
        nn.CrossEntropyLoss(None, -1, smoothing, reduction=reduction),
        lambda x, t: torch.nn.functional.cross_entropy(
            x.transpose(1, 2), t, ignore_index=-1, label_smoothing=smoothing, reduction=reduction
        ),
        normal(2, 3, 5),
        targets,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll_loss(reduction):
    compare(
        nn.NLLLoss(ignore_index=-1, reduction=reduction),
        torch.nn.NLLLoss(ignore_index=-1, reduction=reduction),
        normal(4, 5),
        np.array([0, -1, 2, 4]),
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary_cross_entropy_with_logits_at_zero_and_far_out(reduction):
    x = np.array([-200.0, -3.0, 0.0, 0.0, 2.0, 200.0], np.float32)
    y = np.array([0.0, 0.3, 1.0, 0.0, 0.9, 0.0], np.float32)
    compare(nn.BCEWithLogitsLoss(reduction=reduction), torch.nn.BCEWithLogitsLoss(reduction=reduction), x, y)
    compare(
        lambda x: nn.BCEWithLogitsLoss(3.0, reduction)(x, sp.asarray(y)),
        lambda x: torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0), reduction=reduction)(x, torch.tensor(y)),
        x,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary_cross_entropy(reduction):
    target = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    compare(
        lambda p: nn.BCELoss(reduction)(p, sp.asarray(target)),
        lambda p: torch.nn.BCELoss(reduction=reduction)(p, torch.tensor(target)),
        probabilities(4, 3),
    )


def test_binary_cross_entropy_stays_finite_at_its_ends():
    p, y = sp.asarray([0.0, 1.0, 0.0]).requires_grad_(), sp.asarray([1.0, 0.0, 0.0])
    loss = nn.functional.binary_cross_entropy(p, y, "none")
    assert loss.tolist() == [100.0, 100.0, 0.0]
    loss.sum().backward()
    assert np.isfinite(p.grad.numpy()).all()


@pytest.mark.filterwarnings("ignore:reduction. .mean. divides")
@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_divergence(reduction, log_target):
    target = probabilities(4, 5)
    target = np.log(target) if log_target else target
    compare(
        nn.KLDivLoss(reduction, log_target),
        torch.nn.KLDivLoss(reduction=reduction, log_target=log_target),
        normal(4, 5),
        target,
    )


def test_kl_divergence_of_a_zero_target_is_zero():
    loss = nn.functional.kl_div(sp.asarray([-1.0, -2.0]), sp.asarray([0.0, 1.0]), "none")
    assert loss.tolist() == [0.0, 2.0]


def test_a_loss_names_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"mse_loss: target must have the input's shape \(2,\); received \(3,\)"):
        nn.MSELoss()(sp.ones(2), sp.ones(3))
    with pytest.raises(ArgumentError, match="L1Loss: reduction must be"):
        nn.L1Loss("average")(sp.ones(2), sp.ones(2))
    with pytest.raises(ShapeError, match=r"cross_entropy: expected logits \(..., V\) and targets \(...\)"):
        nn.CrossEntropyLoss()(sp.ones((2, 3)), sp.asarray([0]))


@pytest.mark.parametrize("kind", ["causal", "bool", "float", "scale"])
def test_scaled_dot_product_attention(kind):
    mask = np.tril(np.ones((5, 5), bool))
    settings = {"is_causal": kind == "causal", "scale": 0.7 if kind == "scale" else None}
    (ours, theirs) = tensors(mask if kind == "bool" else normal(2, 1, 5, 5, seed=4))
    with_mask = kind in ("bool", "float")
    compare(
        lambda *a: nn.functional.scaled_dot_product_attention(*a, ours[0] if with_mask else None, **settings),
        lambda *a: torch.nn.functional.scaled_dot_product_attention(*a, theirs[0] if with_mask else None, **settings),
        *(normal(2, 3, 5, 4, seed=i) for i in range(3)),
    )
    if kind == "float":
        np.testing.assert_allclose(ours[0].grad.numpy(), theirs[0].grad.numpy(), atol=2e-5)
