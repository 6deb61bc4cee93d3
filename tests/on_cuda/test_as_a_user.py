"""What users do with tensors and modules on a device beside the ops' samples."""

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.errors import ShapeError
from spiral.op import F

DEVICES = ("cpu", "cuda")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("index", "length"),
    [(0, 3), (slice(0, 2), 3), ((slice(None), 0), 2), ([0, 1], 3), ((..., None), 2), (([0, 1], [1, 2]), 3)],
)
def test_a_value_that_does_not_broadcast_is_not_assigned(device, index, length):
    x = sp.zeros((3, 4), device=device)
    with pytest.raises(ShapeError, match="item assignment"):
        x[index] = sp.ones(length, device=device)
    view = x[:]  # not in place
    with pytest.raises(ShapeError, match="item assignment"):
        view[index] = sp.ones(length, device=device)
    assert x.tolist() == np.zeros((3, 4)).tolist()


@pytest.mark.parametrize("device", DEVICES)
def test_a_mask_takes_as_many_values_as_it_has_places(device):
    x = sp.arange(6.0, device=device)
    with pytest.raises(ShapeError, match="item assignment"):
        x[x > 2] = sp.asarray([1.0, 2.0], device=device)
    with pytest.raises(ShapeError, match="item assignment"):
        F.set_index(x, sp.ones((2, 6), device=device), index=(slice(None),))
    x[x > 2] = sp.asarray([7.0, 8.0, 9.0], device=device)
    x[:2] = sp.asarray([[[5.0]]], device=device)  # leading axes of length 1 are dropped
    assert x.tolist() == [5.0, 5.0, 2.0, 7.0, 8.0, 9.0]


def test_weights_of_positives_move_with_their_loss():
    weight, logits, target = np.float32([1, 2, 3]), np.float32([[0, 1, -1]]), np.float32([[1, 0, 1]])
    loss = nn.BCEWithLogitsLoss(pos_weight=sp.asarray(weight))
    here = loss(sp.asarray(logits), sp.asarray(target)).item()
    loss.to("cuda")
    assert str(loss.pos_weight.device) == "cuda:0" and list(loss.state_dict()) == ["pos_weight"]
    there = loss(sp.asarray(logits, device="cuda"), sp.asarray(target, device="cuda")).item()
    assert there == pytest.approx(here, rel=1e-6)
    assert nn.BCEWithLogitsLoss(pos_weight=2.0).pos_weight == 2.0 and nn.BCEWithLogitsLoss().state_dict() == {}


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "bfloat16", "float32"])
def test_positive_runs_on_the_device(dtype):
    x = sp.asarray([0, 1, 1], dtype=dtype, device="cuda")
    y = sp.positive(x)
    assert y.dtype == x.dtype and str(y.device) == "cuda:0" and y.tolist() == x.tolist()


def test_repeats_may_be_a_tensor_of_the_device():
    x = sp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], device="cuda")
    y = sp.repeat(x, sp.asarray([2, 0, 1], device="cuda"), axis=0)
    assert str(y.device) == "cuda:0" and y.tolist() == [[1.0, 2.0], [1.0, 2.0], [5.0, 6.0]]
