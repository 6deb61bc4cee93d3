"""The conformance suite notices what backends get wrong: each kernel here has one mistake."""

import numpy as np
import pytest
from island import Island, kernel_of, seen

import spiral as sp
from spiral.backend import Cap, Kernel
from spiral.backends_registry import unregister_backend
from spiral.testing import conformance_suite

F32 = Cap((sp.float32,))
rng = np.random.default_rng(0)


def unary(op, formula, cap=F32):
    """A kernel with destination passing."""

    def run(x, y):
        formula(seen(x), seen(y))

    return Kernel(op, run, cap)


def last_element_left_out(x, y):
    y.reshape(-1)[:-1] = np.exp(x).reshape(-1)[:-1]


def dense_assumed(x, y):
    base = x if x.base is None else x.base
    start = (x.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // 4
    stretch = base.view(np.float32)[max(0, start) :][: x.size]
    y[...] = np.exp(np.resize(stretch, x.shape) if x.size else x)


def noisy(x, y):
    y[...] = np.exp(x) * (1.0 + 1e-7 * rng.integers(-1, 2, x.shape))


def wrong_everywhere(x, y):
    y[...] = np.exp2(x)


def one_too_many(x, y):
    y[...] = -x if x.dtype == np.float32 else x + 1


def softmax_grad(g, y, axis, dx):
    seen(dx)[...] = seen(y) * seen(g)  # without the sum


def adamw(params, grads, m, v, lr, beta1, beta2, eps, weight_decay, step, decoupled):
    for p, g, mi, vi in zip(*map(seen, (params, grads, m, v)), strict=True):
        mi += (1 - beta1) * (g - mi)
        vi += (1 - beta2) * (g * g - vi)
        p -= lr * (mi / (np.sqrt(vi) + eps) + weight_decay * p)  # without bias correction


def dropout(x, p, seed, stream, y):
    keep = np.random.default_rng(seed + stream).random(x.shape) >= p
    seen(y)[...] = np.where(keep, seen(x) / (1 - p), 0.0)


def narrow_sum(x, axis, keepdims, y):
    a, out = seen(x), seen(y)
    total = np.zeros(out.shape, out.dtype)
    for part in np.moveaxis(a, axis, 0) if isinstance(axis, int) and not keepdims else [a.sum(axis, keepdims=keepdims)]:
        total = (total.astype(np.float32) + np.asarray(part, np.float32)).astype(out.dtype)
    out[...] = total


def swapped(x, y, z):
    seen(z)[...] = seen(y) - seen(x)


MISTAKES = [
    ("a wrong formula", unary("exp", wrong_everywhere), "test_op_agrees_with_the_oracle[exp-float32]"),
    ("an element left out", unary("exp", last_element_left_out), "test_op_agrees_with_the_oracle[exp-float32]"),
    ("strides ignored", unary("exp", dense_assumed), "test_kernel_takes_every_layout_or_says_why_not[exp-gaps]"),
    ("a race", unary("exp", noisy), "test_same_inputs_give_same_bits[exp]"),
    ("operands swapped", Kernel("subtract", swapped, F32), "test_op_agrees_with_the_oracle[subtract-float32]"),
    ("integers as floats", unary("negative", one_too_many, Cap((sp.float32,), (sp.int32,))),
     "test_kernel_takes_the_integers_it_declares[negative]"),
    ("a wrong derivative", Kernel("softmax_grad", softmax_grad, F32), "test_gradient_agrees_with_the_cpu[softmax]"),
    ("no bias correction", Kernel("adamw", adamw, F32), "test_optimizer_steps_as_on_the_cpu[AdamW]"),
    ("other random bits", Kernel("dropout", dropout, F32), "test_random_numbers_are_those_of_the_cpu"),
    ("a sum in 16 bits", Kernel("sum", narrow_sum, Cap((sp.bfloat16,))),
     "test_op_agrees_with_the_oracle[sum-bfloat16]"),
    ("a kernel that nothing reaches", Kernel("exp", print, Cap((sp.float32,), where=lambda x: x.ndim > 40)),
     "test_kernel_is_reached[exp]"),
    ("a kernel that crashes", Kernel("exp", lambda x, y: 1 // 0, F32), "test_op_agrees_with_the_oracle[exp-float32]"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "kernel", "test"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_caught(mistake, kernel, test):
    suite = conformance_suite(Island("wrong", replaced=[kernel]))
    try:
        with pytest.raises((AssertionError, ZeroDivisionError)):
            dict(suite.checks())[test]()
    finally:
        unregister_backend("wrong")


class LeakyMemory:
    """Hands out the host's arrays instead of copies."""

    def __init__(self, memory, **mistakes):
        self.memory, self.unified = memory, memory.unified
        self.__dict__.update(mistakes)

    def __getattr__(self, name):
        return getattr(self.memory, name)


@pytest.mark.parametrize("mistake", ["a buffer is the host's array", "a shape is forgotten"])
def test_a_mistake_of_the_memory_is_caught(mistake):
    from spiral.backend import DeviceInfo, Spec, UnifiedMemory

    class Shared:
        name = device_type = "shared"
        priority = 0

        def probe(self):
            memory = UnifiedMemory(bytearray)
            if mistake == "a shape is forgotten":
                memory = LeakyMemory(
                    memory, empty=lambda spec: UnifiedMemory(bytearray).empty(Spec((spec.size,), spec.dtype))
                )
            else:
                memory = LeakyMemory(memory, from_host=lambda array: array)
            return [DeviceInfo("shared", 0, "shared", {}, memory)]

        def kernels(self):
            return ()

    suite = conformance_suite(Shared())
    try:
        with pytest.raises(AssertionError, match="memory"):
            dict(suite.checks())["test_memory_keeps_shapes_dtypes_and_values[check_memory]"]()
    finally:
        unregister_backend("shared")


def test_the_right_kernels_pass_the_same_tests():
    suite = conformance_suite(Island("right"))
    try:
        tests = dict(suite.checks())
        for _, kernel, test in MISTAKES:
            tests.get(test, lambda: None)()
            assert kernel_of(kernel.op, None).op == kernel.op
    finally:
        unregister_backend("right")


def test_run_gives_the_traceback_of_each_failure():
    suite = conformance_suite(Island("wrong", replaced=[unary("exp", wrong_everywhere)]))
    suite.checks = classmethod(lambda cls, all=suite.checks: ((n, t) for n, t in all() if "oracle[exp-float32" in n))
    try:
        failed = suite.run()
    finally:
        unregister_backend("wrong")
    assert "test_op_agrees_with_the_oracle[exp-float32]" in failed
    assert "the oracle says" in failed["test_op_agrees_with_the_oracle[exp-float32]"]
