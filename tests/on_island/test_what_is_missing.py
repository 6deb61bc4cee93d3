"""Ops that a device without shared memory has no kernel for."""

import pytest
from island import Island

import spiral as sp
from spiral.backends_registry import register_backend, unregister_backend
from spiral.errors import CapabilityError
from spiral.testing import conformance_suite


@pytest.fixture
def bare():
    backend = Island("bare", without=("sort", "softmax", "exp", "astype"))
    register_backend(backend)
    yield backend
    unregister_backend("bare")


def test_an_op_without_kernel_or_decomposition_says_so(bare):
    with pytest.raises(CapabilityError, match="sort: no backend can run it on bare:0"):
        sp.sort(sp.ones(3, device="bare"))


def test_a_decomposition_names_the_part_that_is_missing(bare):
    with pytest.raises(CapabilityError, match="exp: no backend can run it"):
        sp.softmax(sp.ones(3, device="bare"))


def test_nothing_reads_the_device_behind_its_back(bare):
    x = sp.ones((4, 5), device="bare")
    before = bare.heap.reads
    y = (x @ x.mT).reshape(2, 8)[:, ::2] + 1.0
    assert bare.heap.reads == before
    assert y.to("cpu").tolist() == [[6.0] * 4] * 2
    assert bare.heap.reads == before + 1


def test_the_suite_accepts_a_refusal_with_reasons(bare):
    tests = dict(conformance_suite(bare).checks())
    for name in ("test_op_agrees_with_the_oracle[sort-float32]", "test_gradient_agrees_with_the_cpu[softmax]"):
        tests[name]()


def test_blocks_are_returned_when_tensors_die(bare):
    blocks = len(bare.heap.blocks)
    x = sp.ones((4, 5), device="bare")
    part = x[1]
    del x
    assert len(bare.heap.blocks) == blocks + 1
    del part
    assert len(bare.heap.blocks) == blocks
