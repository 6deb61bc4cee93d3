"""What the samples do not reach: sums that are split, rows longer than a tile, runs longer than a chunk."""

import numpy as np
import pytest

import spiral as sp
from spiral.device import as_device
from spiral.errors import IndexingError
from spiral.op import OPS, F


def on(x, dtype=None):
    t = sp.asarray(x).to("cuda")
    return t if dtype is None else t.astype(dtype)


def host(t):
    return np.array(t.to("cpu").astype(sp.float64).numpy() if t.dtype.kind == "float" else t.to("cpu").numpy())


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def close(got, want, rtol):
    np.testing.assert_allclose(host(got), want, rtol=rtol, atol=rtol * np.abs(want).max())


# ---------------------------------------------------------------- products
@pytest.mark.parametrize(("dtype", "rtol"), [(sp.float32, 1e-6), (sp.float16, 1e-3), (sp.bfloat16, 8e-3)])
def test_a_long_sum_is_split_and_added_in_order(rng, dtype, rtol):
    x, w, b = (on(rng.standard_normal(s), dtype) for s in ((5, 1100), (7, 1100), (7,)))
    with sp.prefer("triton"):
        y = F.linear(x, w, b, activation="relu")
        again = F.linear(x, w, b, activation="relu")
    close(y, np.maximum(host(x) @ host(w).T + host(b), 0), rtol)
    assert (host(y) == host(again)).all()


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2), (3, 1, 0, 2)])
def test_any_strides_are_multiplied(rng, axes):
    x = rng.standard_normal((2, 3, 20, 36))
    moved = x.transpose(axes)
    w = rng.standard_normal((moved.shape[1], moved.shape[3], 5))
    with sp.prefer("triton"):
        y = F.matmul(F.permute_dims(on(x, sp.float32), axes), on(w, sp.float32))
    close(y, moved @ w, 1e-6)


def test_rows_that_are_no_multiple_of_16_bytes_apart(rng):
    x = on(rng.standard_normal((70, 67)), sp.float16)[3:, 1:]
    w = on(rng.standard_normal((66, 9)), sp.float16)
    with sp.prefer("triton"):
        close(F.matmul(x, w), host(x) @ host(w), 1e-3)


def test_bias_gradients_sum_thousands_of_rows(rng):
    g, x, w = (on(rng.standard_normal(s), sp.float32) for s in ((1000, 3), (1000, 2), (3, 2)))
    with sp.prefer("triton"):
        dx, dw, db = F.linear_grad(g, x, w, need_x=True, need_weight=True, need_bias=True)
    close(db, host(g).sum(0), 1e-6)
    close(dw, host(g).T @ host(x), 1e-6)
    close(dx, host(g) @ host(w), 1e-6)


# ---------------------------------------------------------------- order
@pytest.mark.parametrize(
    ("dtype", "n", "descending"),
    [(sp.float32, 1300, False), (sp.int8, 513, True), (sp.float64, 600, True), (sp.uint64, 600, False)],
)
def test_rows_of_several_tiles_are_sorted_and_equal_elements_keep_their_order(rng, dtype, n, descending):
    x = rng.integers(-60 if dtype.kind != "uint" else 0, 60, (2, n)).astype(dtype.numpy)
    if dtype.itemsize == 8:  # beyond what 32 bits tell apart
        x = x * x.dtype.type(2**40 + 1)
    with sp.prefer("triton"):
        order = host(F.argsort(on(x), descending=descending))
        got = F.sort(on(x), descending=descending).to("cpu").numpy()
    want = np.argsort(x, axis=-1, kind="stable")
    if descending:
        want = n - 1 - np.argsort(x[:, ::-1], axis=-1, kind="stable")[:, ::-1]
    np.testing.assert_array_equal(order, want)
    np.testing.assert_array_equal(got, np.take_along_axis(x, want, -1))


# ---------------------------------------------------------------- sums by index
@pytest.mark.parametrize("width", [3, 40])
def test_runs_longer_than_a_chunk_are_summed(rng, width):
    indices = np.concatenate([np.full(100, 2), rng.integers(0, 5, 9), np.full(70, 4)])
    g = rng.standard_normal((179, width))
    with sp.prefer("triton"):
        dw = F.embedding_grad(on(g, sp.float32), on(indices), rows=5)
        again = F.embedding_grad(on(g, sp.float32), on(indices), rows=5)
    want = np.zeros((5, width))
    np.add.at(want, indices, g)
    close(dw, want, 1e-6)
    assert (host(dw) == host(again)).all()


def test_an_index_out_of_range_is_told_when_a_value_is_read(rng):
    with sp.prefer("triton"):
        y = F.take(on(rng.standard_normal(5)), on(np.array([0, 7])))
        with pytest.raises(IndexingError, match=r"take: index 7 is not in \[-5, 5\)"):
            host(y)


# ---------------------------------------------------------------- steps
@pytest.mark.parametrize("dtypes", [(sp.float32,) * 4, (sp.bfloat16, sp.bfloat16, sp.float32, sp.float32)])
def test_a_step_changes_spans_of_every_length_and_dtype(rng, dtypes):
    sizes = (5000, 1, 2048, 777)
    lists = [[on(rng.uniform(0.1, 1, n), d) for n in sizes] for d in dtypes]
    lists[0][3] = on(rng.uniform(0.1, 1, 778), dtypes[0])[1:]  # not aligned
    wide = [[host(t) for t in row] for row in lists]
    attrs = dict(lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1, step=3, decoupled=True)
    with sp.prefer("triton"):
        F.adamw(*lists, **attrs)
        norm = F.grad_norm(lists[1])
    OPS["adamw"].oracle(*wide, *attrs.values())
    for row, want in zip(lists, wide, strict=True):
        for t, w in zip(row, want, strict=True):
            np.testing.assert_allclose(host(t), w, rtol=1e-2 if t.dtype is sp.bfloat16 else 1e-5)
    assert float(host(norm)) == pytest.approx(np.sqrt(sum((g**2).sum() for g in wide[1])), rel=1e-6)


def test_one_infinite_gradient_among_many_is_found():
    tensors = [on(np.ones(n, np.float32)) for n in (3000, 5)]
    bad = np.ones(2049, np.float32)
    bad[-1] = np.inf
    with sp.prefer("triton"):
        assert host(F.all_finite(tensors))
        assert not host(F.unscale_([*tensors, on(bad)], factor=0.5))
    assert (host(tensors[0]) == 0.5).all()


def test_steps_are_one_launch_whatever_the_number_of_tensors():
    memory = as_device("cuda").memory.driver
    lists = [[on(np.ones(3, np.float32)) for _ in range(20)] for _ in range(2)]
    with sp.prefer("triton"):
        F.ema_(*lists, decay=0.5)  # makes the table
        memory.calls.clear()
        F.ema_(*lists, decay=0.5)
    assert not memory.named("write") and not memory.named("allocate")
