"""First values: their ranges, moments and structure."""

import math

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.errors import ArgumentError, ShapeError

init = nn.init


@pytest.fixture(autouse=True)
def seed():
    sp.random.manual_seed(5)


@pytest.mark.parametrize(
    "fill, std",
    [
        (lambda t: init.uniform_(t, -1.0, 1.0), 1.0 / math.sqrt(3.0)),
        (lambda t: init.normal_(t, 0.0, 0.3), 0.3),
        (init.xavier_uniform_, math.sqrt(2.0 / 500)),
        (init.xavier_normal_, math.sqrt(2.0 / 500)),
        (lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(2.0 / 200)),
        (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), math.sqrt(2.0 / 300)),
        (lambda t: init.kaiming_uniform_(t, a=math.sqrt(5.0)), 1.0 / math.sqrt(3.0 * 200)),
        (init.trunc_normal_, 0.8796),
    ],
)
def test_mean_and_standard_deviation(fill, std):
    values = fill(sp.zeros((300, 200))).numpy()
    assert abs(values.mean()) < 0.02 * std
    assert values.std() == pytest.approx(std, rel=0.02)


def test_linear_starts_in_torchs_range():
    layer = nn.Linear(100, 200)
    for p in layer.parameters():
        assert np.abs(p.numpy()).max() <= 0.1
        assert np.abs(p.numpy()).max() > 0.095


def test_trunc_normal_stays_inside_and_refuses_an_empty_interval():
    values = init.trunc_normal_(sp.zeros(5000), std=2.0, a=-1.0, b=1.5).numpy()
    assert values.min() >= -1.0 and values.max() <= 1.5
    with pytest.raises(ArgumentError, match="holds less than 1 %"):
        init.trunc_normal_(sp.zeros(3), a=8.0, b=9.0)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (4, 2, 3)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    m = init.orthogonal_(sp.zeros(shape), gain=2.0).numpy().reshape(shape[0], -1)
    product = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    np.testing.assert_allclose(product, 4.0 * np.eye(len(product)), atol=1e-5)


def test_constants_and_the_same_seed_gives_the_same_values():
    assert init.ones_(sp.zeros(2)).tolist() == [1.0, 1.0]
    assert init.zeros_(sp.ones(2)).tolist() == [0.0, 0.0]
    sp.random.manual_seed(1)
    first = nn.Linear(3, 3).weight.tolist()
    sp.random.manual_seed(1)
    assert nn.Linear(3, 3).weight.tolist() == first


def test_fan_needs_a_matrix():
    with pytest.raises(ShapeError, match=r"xavier_uniform_: expected at least 2 axes"):
        init.xavier_uniform_(sp.zeros(3))
