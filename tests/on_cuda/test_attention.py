"""Attention on the CUDA backend: several blocks of queries and keys, every size of tile, layouts that samples lack."""

import numpy as np
import pytest

import spiral as sp
from spiral.backend import Spec
from spiral.device_array import DeviceArray
from spiral.dtype import as_dtype
from spiral.gpu import drivers
from spiral.op import OPS

TOLERANCE = {"float32": 2e-5, "float64": 1e-12, "float16": 4e-3, "bfloat16": 3e-2}


def kernel(op, *inputs_and_attrs):
    """An op's kernel called with device arrays; all of its outputs, the hidden ones too."""
    fn = sp.backends()["cuda"].kernels[op][0].fn
    outputs = [DeviceArray.of_spec(drivers()[0], spec) for spec in OPS[op].meta(*map(as_spec, inputs_and_attrs))]
    fn(*inputs_and_attrs, *outputs)
    return outputs


def as_spec(x):
    return Spec(x.shape, as_dtype(x.dtype)) if isinstance(x, DeviceArray) else x


def wide(x):
    return x.to_host().astype(np.float64)


def run(dtype, arrays, attrs):
    """The op and its gradient on the device, and by the oracles from the same rounded inputs."""
    q, k, v, g = (DeviceArray.from_host(drivers()[0], a.astype(np.float32).astype(dtype.numpy)) for a in arrays)
    y, lse = kernel("attention", q, k, v, None, *attrs)
    grads = kernel("attention_grad", g, q, k, v, y, lse, None, *attrs)
    inputs = [wide(x) for x in (q, k, v)]
    want = OPS["attention"].oracle(*inputs, None, *attrs)
    want_grads = OPS["attention_grad"].oracle(wide(g), *inputs, wide(y), wide(lse), None, *attrs)
    return [wide(x) for x in (y, lse, *grads)], [*want, *want_grads]


def check(dtype, got, want):
    for g, w in zip(got, want, strict=True):
        finite = np.isfinite(w)
        np.testing.assert_array_equal(np.isfinite(g), finite)
        scale = np.abs(w[finite]).max(initial=1.0)
        np.testing.assert_allclose(g[finite], w[finite], rtol=0, atol=TOLERANCE[dtype.name] * scale)


@pytest.mark.parametrize("dtype", [sp.float32, sp.float64, sp.float16, sp.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("d", [1, 40, 72, 130, 256])
def test_every_tile_with_blocks_that_are_cut_off(dtype, d):
    rng = np.random.default_rng(d)
    arrays = [rng.standard_normal(shape) for shape in ((1, 2, 67, d), (1, 1, 70, d), (1, 1, 70, d), (1, 2, 67, d))]
    check(dtype, *run(dtype, arrays, (d**-0.5, True, 0)))


@pytest.mark.parametrize("dtype", [sp.float32, sp.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("t, s, causal, window", [
    (130, 130, True, 0), (130, 130, True, 33), (130, 130, False, 70), (1, 200, True, 0), (100, 20, True, 0),
    (65, 129, False, 0), (3, 200, True, 5),
])  # fmt: skip
def test_blocks_that_are_left_out_hold_nothing(dtype, t, s, causal, window):
    rng = np.random.default_rng(t + s)
    arrays = [rng.standard_normal((1, 1, n, 16)) for n in (t, s, s, t)]
    check(dtype, *run(dtype, arrays, (0.25, causal, window)))


@pytest.mark.parametrize("dtype", [sp.float32, sp.float16], ids=lambda d: d.name)
def test_no_query_and_no_key(dtype):
    def ones(n):
        return DeviceArray.from_host(drivers()[0], np.ones((1, 2, n, 8), dtype.numpy))

    y, lse = kernel("attention", ones(5), ones(0), ones(0), None, 1.0, False, 0)
    assert not wide(y).any() and np.isneginf(wide(lse)).all()
    assert kernel("attention", ones(0), ones(5), ones(5), None, 1.0, False, 0)[0].shape == (1, 2, 0, 8)
    dq, dk, _ = kernel("attention_grad", ones(5), ones(5), ones(0), ones(0), y, lse, None, 1.0, False, 0)
    assert not wide(dq).any() and dk.shape == (1, 2, 0, 8)


def test_heads_wider_than_the_tiles_run_as_their_decomposition_and_say_why():
    q = sp.zeros((1, 1, 2, 257)).to("cuda")
    told = str(sp.explain("attention", q, q, q, None, scale=1.0))
    assert "at most 256" in told


def test_gradients_flow_through_views_of_heads():
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.standard_normal((2, 9, h, 8)).astype(np.float32) for h in (4, 2, 2, 4))
    results = []
    for device in ("cpu", "cuda"):
        leaves = [sp.asarray(a).to(device).detach() for a in (q, k, v)]
        for leaf in leaves:
            leaf.requires_grad = True
        y = sp.attention(*(sp.permute_dims(x, (0, 2, 1, 3)) for x in leaves), scale=0.3, causal=True)
        y.backward(sp.permute_dims(sp.asarray(g).to(device), (0, 2, 1, 3)))
        results.append([leaf.grad.to("cpu").numpy() for leaf in leaves])
    for on_cpu, on_cuda in zip(*results, strict=True):
        np.testing.assert_allclose(on_cuda, on_cpu, atol=1e-5)


@pytest.mark.parametrize("dtype", [sp.float32, sp.float64, sp.float16, sp.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("starts, causal, window", [
    ([0, 70, 135, 135, 136, 200], True, 0), ([3, 131, 190], False, 40), ([65], True, 0), ([0, 200], False, 0),
])  # fmt: skip
def test_packed_sequences_of_several_blocks(dtype, starts, causal, window):
    rng = np.random.default_rng(len(starts))
    arrays = [rng.standard_normal((200, heads, 24)) for heads in (4, 2, 2, 4)]
    q, k, v, g = (DeviceArray.from_host(drivers()[0], a.astype(np.float32).astype(dtype.numpy)) for a in arrays)
    ends, attrs = DeviceArray.from_host(drivers()[0], np.array(starts)), (0.2, causal, window)
    y, lse = kernel("attention_varlen", q, k, v, ends, *attrs)
    grads = kernel("attention_varlen_grad", g, q, k, v, ends, y, lse, *attrs)
    inputs = [wide(x) for x in (q, k, v)]
    want = OPS["attention_varlen"].oracle(*inputs, np.array(starts), *attrs)
    seen = (np.array(starts), wide(y), wide(lse), *attrs)
    check(
        dtype,
        [wide(x) for x in (y, lse, *grads)],
        [*want, *OPS["attention_varlen_grad"].oracle(wide(g), *inputs, *seen)],
    )


def test_starts_that_are_wrong_touch_no_other_memory():
    q = DeviceArray.from_host(drivers()[0], np.ones((9, 2, 8), np.float32))
    y, _ = kernel(
        "attention_varlen", q, q, q, DeviceArray.from_host(drivers()[0], np.array([-5, 7, 2, 900])), 1.0, True, 0
    )
    assert np.isfinite(wide(y)).all()
