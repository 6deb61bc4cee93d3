"""Taking, setting and summing by position on a device, beyond the samples: NumPy's rules, errors, determinism."""

import os
import subprocess
import sys

import numpy as np
import pytest

import spiral as sp
from spiral.placement import host_copy

CUDA = "cuda"


def on_device(a):
    return sp.asarray(a, device=CUDA)


def driver():
    return on_device(np.zeros(1, np.float32))._a.memory


INDICES = {
    "list": ([0, 2, 2],),
    "negative": (np.array([-1, 0, -4]),),
    "two arrays": (np.array([0, 3]), np.array([1, -1])),
    "arrays around a slice": (np.array([[0], [3]]), slice(None), np.array([1, 2, 0])),
    "arrays in the middle": (slice(1, None), np.array([4, 0]), np.array([0, 2])),
    "integer with array": (2, slice(None, None, -2), np.array([0, 1])),
    "mask": (np.array([True, False, True, True]),),
    "mask of two axes": (np.arange(20).reshape(4, 5) % 3 == 0,),
    "mask and array": (slice(None), np.array([True, False, False, True, True]), np.array([0, 2, 1])),
    "no element": (np.array([], np.int64),),
    "new axis": (None, np.array([1, 0]), Ellipsis, None),
    "ellipsis first": (Ellipsis, np.array([2, 0])),
    "arrays around an ellipsis": (np.array([1, 0]), Ellipsis, np.array([2, 0])),
    "arrays around a new axis": (np.array([1, 0]), None, np.array([2, 0])),
    "true": (True, np.array([1, 2])),
    "false": (False,),
    "column slice": (np.array([3, 1]), slice(3, 0, -1), slice(0, 3, 2)),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
@pytest.mark.parametrize("layout", ["dense", "transposed", "reversed"])
def test_indexing_follows_numpy(index, layout):
    a = np.arange(60, dtype=np.float32).reshape(4, 5, 3)
    x = on_device(a)
    if layout == "transposed":
        a = np.ascontiguousarray(a.transpose(2, 1, 0)).transpose(2, 1, 0)
        x = sp.permute_dims(on_device(a.transpose(2, 1, 0)), (2, 1, 0))
    elif layout == "reversed":
        a, x = a[::-1, :, ::-1], x[::-1, :, ::-1]
    wanted = a[index]
    assert host_copy(x[index]).tolist() == wanted.tolist()

    value = np.random.default_rng(0).standard_normal(wanted.shape).astype(np.float32)
    expected = a.copy()
    expected[index] = value
    got = sp.asarray(x, copy=True)
    got[index] = on_device(value)
    assert host_copy(got).tolist() == expected.tolist()  # of repeated positions the last value stays, as in NumPy

    summed = np.zeros(a.shape)
    np.add.at(summed, tuple(np.asarray(i) if isinstance(i, list) else i for i in index), value)
    leaf = on_device(a.copy()).requires_grad_()
    leaf[index].backward(on_device(value))
    assert np.allclose(host_copy(leaf.grad), summed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint16, np.int32, np.uint64, np.float16, np.float64])
def test_elements_of_any_size_are_taken_also_where_they_are_misaligned(dtype):
    a = (np.arange(7 * 33) % 5).astype(dtype).reshape(7, 33)
    rows = np.array([6, 0, 0, 3])
    x = on_device(a)
    for part in (np.s_[:, :32], np.s_[:, 1:], np.s_[1:, 1:17], np.s_[::2, ::3]):
        b = a[part]
        at = rows % len(b)
        assert np.array_equal(host_copy(sp.take(x[part], on_device(at), axis=0)), b[at])
        assert np.array_equal(host_copy(x[part][at]), b[at])


def test_tensor_index_stays_on_the_device():
    x = on_device(np.arange(12, dtype=np.float32).reshape(4, 3)).requires_grad_()
    i = on_device(np.array([[2, 0], [-1, 2]]))
    before = driver().synchronizations
    y = x[i]
    y.sum().backward()
    assert driver().synchronizations == before
    assert y.shape == (2, 2, 3)
    assert x.grad.tolist() == [[1.0] * 3, [0.0] * 3, [2.0] * 3, [1.0] * 3]


@pytest.mark.parametrize("bad", [5, -6, 2**40, -(2**40)])
def test_index_out_of_range_is_told_when_a_value_is_read(bad):
    x = on_device(np.ones((5, 4), np.float32))
    y = sp.take(x, on_device(np.array([0, bad, 1])), axis=0)
    with pytest.raises(sp.errors.IndexingError, match=rf"take: index {bad} is not in \[-5, 5\)"):
        y.tolist()
    assert y.tolist()[0] == [1.0] * 4  # told once
    g = on_device(np.ones((2, 4), np.float32))
    summed = sp.ops.take_grad(g, on_device(np.array([1, bad])), shape=(5, 4), axis=0)
    with pytest.raises(sp.errors.IndexingError, match=rf"take_grad: index {bad}"):
        host_copy(summed)
    assert sp.take(x, on_device(np.array([0])), axis=0).tolist() == [[1.0] * 4]


def test_embedding_refuses_negative_indices():
    weight = on_device(np.ones((5, 4), np.float32))
    y = sp.ops.embedding(weight, on_device(np.array([0, -1])))
    with pytest.raises(sp.errors.IndexingError, match=r"embedding: index -1 is not in \[0, 5\)"):
        y.tolist()


def test_nothing_is_read_from_an_axis_without_positions():
    y = sp.take(on_device(np.ones((0, 4), np.float32)), on_device(np.array([0])), axis=0)
    with pytest.raises(sp.errors.IndexingError, match=r"\[0, 0\)"):
        y.tolist()


def test_reads_without_indexing_wait_once():
    x = on_device(np.ones(3, np.float32))
    x.tolist()
    before = driver().synchronizations
    x.tolist()
    assert driver().synchronizations == before + 1


@pytest.mark.parametrize("tokens, columns", [(3000, 40), (2049, 3), (70000, 1)])
def test_embedding_gradient_of_many_tokens(tokens, columns):
    """Several sorted tiles, and runs of one row over many chunks."""
    rng = np.random.default_rng(tokens)
    rows = 50
    indices = np.where(rng.random(tokens) < 0.5, 7, rng.integers(0, rows, tokens))
    g = rng.standard_normal((tokens, columns)).astype(np.float32)
    expected = np.zeros((rows, columns))
    np.add.at(expected, indices, g.astype(np.float64))
    got = host_copy(sp.ops.embedding_grad(on_device(g), on_device(indices), rows=rows))
    magnitude = np.zeros((rows, columns))
    np.add.at(magnitude, indices, np.abs(g))
    assert (np.abs(got - expected) <= 1e-6 * magnitude + 1e-6).all()


_PROGRAM = """
import hashlib, numpy as np, spiral as sp
rng = np.random.default_rng(0)
dev = lambda a: sp.asarray(a, device="cuda")
h = hashlib.sha256()
def add(t): h.update(np.ascontiguousarray(t.to("cpu").numpy()).tobytes())
i = rng.integers(0, 9, 700)
g = rng.standard_normal((700, 5)).astype(np.float32)
add(sp.ops.embedding_grad(dev(g), dev(i), rows=9))
add(sp.ops.take_along_axis_grad(dev(g), dev(rng.integers(0, 3, (700, 5))), shape=(700, 3), axis=1))
add(sp.ops.scatter_index(dev(g), shape=(9, 5), index=(i,)))
x = rng.integers(0, 50, (2, 2100)).astype(np.float32)
add(sp.argsort(dev(x), axis=1)); add(sp.sort(dev(x), axis=0, descending=True))
add(sp.ops.grad_norm([dev(g), dev(x)]))
print(h.hexdigest())
"""


@pytest.mark.on_processor
def test_results_do_not_depend_on_the_order_of_threads():
    seen = set()
    for order in ("forward", "reverse", "shuffle:3"):
        env = {**os.environ, "SPIRAL_CUDA_ORDER": order}
        done = subprocess.run([sys.executable, "-c", _PROGRAM], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout)
    assert len(seen) == 1
