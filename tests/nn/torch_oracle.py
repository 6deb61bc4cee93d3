"""Runs a module here and its twin in PyTorch on the same numbers, forward and backward."""

import numpy as np
import torch

import spiral as sp


def tensors(*arrays):
    """The arrays as leaves here and in PyTorch; integers collect no gradients."""
    ours, theirs = [], []
    for a in arrays:
        floating = a.dtype.kind == "f"
        ours.append(sp.asarray(a).requires_grad_(floating))
        theirs.append(torch.tensor(a, requires_grad=floating))
    return ours, theirs


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def copy_weights(module, twin):
    """Gives PyTorch's module our parameters and buffers; the names must be the same."""
    state = {k: torch.tensor(np.array(v.numpy())) for k, v in module.state_dict().items()}
    twin.load_state_dict(state, strict=True)


def close(ours, theirs, tolerance=2e-5):
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=tolerance, atol=tolerance)


def compare(fn, twin, *arrays, tolerance=2e-5):
    """Values and input gradients of two functions, for a random incoming gradient."""
    ours, theirs = tensors(*arrays)
    y, t = fn(*ours), twin(*theirs)
    assert y.shape == tuple(t.shape)
    close(y, t, tolerance)
    g = normal(*y.shape, seed=9)
    y.backward(sp.asarray(g))
    t.backward(torch.tensor(g))
    for a, b in zip(ours, theirs, strict=True):
        if b.grad is not None:
            close(a.grad, b.grad, tolerance)


def compare_module(module, twin, *arrays, tolerance=2e-5):
    """As `compare`, with the same weights on both sides, and the weights' gradients too."""
    copy_weights(module, twin)
    compare(module, twin, *arrays, tolerance=tolerance)
    theirs = dict(twin.named_parameters())
    for name, p in module.named_parameters():
        close(p.grad, theirs[name].grad, tolerance)
