"""Every public name that other people's scripts use, exactly as they write it."""

import numpy as np
import pytest

import spiral as sp
from spiral import nn, optim


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(784, 256), nn.Linear(256, 10)

    def forward(self, x):
        return self.fc2(nn.functional.relu(self.fc1(x)))


def test_the_first_script():
    x = np.random.default_rng(0).random((64, 784), np.float32)
    y = np.random.default_rng(1).integers(0, 10, 64)
    model = MLP()
    state = model.state_dict()
    assert list(state) == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    model.load_state_dict({name: np.array(values.numpy()) for name, values in state.items()})
    opt = optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(sp.asarray(x)), sp.asarray(y))
        opt.zero_grad()
        loss.backward()
        opt.step()
        loss.item()
        loss.numpy()  # noqa: E702 (as written)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert loss.numpy().shape == ()


def test_functions_and_layers():
    x = sp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4, 8)).astype(np.float32))
    for name in ("gelu", "silu", "relu"):
        assert getattr(nn.functional, name)(x).shape == x.shape
    assert nn.functional.layer_norm(x, 8).shape == x.shape
    assert nn.functional.layer_norm(x, (8,), sp.ones(8), sp.zeros(8), 1e-5).shape == x.shape
    assert nn.functional.rms_norm(x, (8,), sp.ones(8)).shape == x.shape
    q = k = v = x
    assert nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).shape == x.shape
    assert nn.Embedding(5, 3)(sp.asarray([[0, 4]])).shape == (1, 2, 3)
    assert nn.LayerNorm(8)(x).shape == x.shape
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    assert len(layers) == 2 and len(list(layers.parameters())) == 4
    assert nn.Parameter(sp.zeros(3)).requires_grad


def test_functions_of_the_package(capsys):
    assert sp.reshape(sp.arange(6), (2, 3)).shape == (2, 3)
    assert sp.permute_dims(sp.zeros((2, 3, 4)), (2, 0, 1)).shape == (4, 2, 3)
    w = sp.asarray([1.0, 2.0]).requires_grad_()
    with sp.no_grad():
        assert not (w * 2.0).requires_grad
    assert sp.grad(lambda t: (t * t).sum())(sp.asarray([1.0, 2.0])).tolist() == [2.0, 4.0]
    value, slope = sp.value_and_grad(lambda t: (t * t).sum())(sp.asarray([1.0, 2.0]))
    assert value.item() == 5.0 and slope.tolist() == [2.0, 4.0]
    print(sp.explain("rms_norm", sp.ones((2, 3)), sp.ones(3)))
    assert "rms_norm" in capsys.readouterr().out
    names = list(sp.backends())
    assert "numpy" in names
    with sp.prefer("numpy"):
        assert sp.explain("add", sp.ones(2), sp.ones(2)).chosen.backend == "numpy"


def test_members_of_a_tensor():
    x = sp.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    x.requires_grad = True
    (x * x).sum().backward()
    assert x.requires_grad and x.grad.tolist() == [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]
    assert x.shape == (2, 3) and x.dtype == sp.float32 and str(x.device) in ("cpu", "cpu:0")
    assert x.ndim == 2 and x.size == 6 and x.T.shape == (3, 2) and x.mT.shape == (3, 2)
    assert x.astype(sp.float64).dtype == sp.float64
    assert x.to(sp.float16).dtype == sp.float16 and x.to("cpu").shape == x.shape
    assert not x.detach().requires_grad
    assert sp.asarray([3.0]).item() == 3.0
    assert isinstance(x.numpy(), np.ndarray) and x.tolist()[1] == [4.0, 5.0, 6.0]


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "any", "all", "argmax", "argmin", "var", "std"])
def test_reducing_methods_agree_with_numpys(name):
    a = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]], np.float32)
    x = sp.asarray(a)
    for options in ({}, {"axis": 0}, {"axis": 1, "keepdims": True}):
        got, want = getattr(x, name)(**options), getattr(a, name)(**options)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)


def test_shape_methods_agree_with_numpys():
    a = np.arange(24.0).reshape(2, 3, 4)
    x = sp.asarray(a)
    assert x.reshape(4, 6).tolist() == a.reshape(4, 6).tolist()
    assert x.reshape((6, -1)).tolist() == a.reshape(6, -1).tolist()
    assert x.flatten().tolist() == a.flatten().tolist()
