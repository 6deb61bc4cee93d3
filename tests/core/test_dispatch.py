"""Dispatch: choice by capability with reasons, preference, refusal, registration."""

import numpy as np
import pytest

import spiral as sp
from spiral.backend import Cap, DeviceInfo, Kernel, Unavailable
from spiral.backends_registry import register_backend, unregister_backend
from spiral.dispatch import clear_tables
from spiral.errors import CapabilityError, DTypeError, KernelBuildError, RegistryError
from spiral.set_aside import kernels_set_aside


class Recorder:
    """A CPU backend with one kernel that notes its calls."""

    name = "recorder"
    device_type = "cpu"
    priority = 100

    def __init__(self, cap, op="add"):
        self.cap, self.op, self.calls = cap, op, 0

    def probe(self):
        return [DeviceInfo("cpu")]

    def kernels(self):
        def run(x, y):
            self.calls += 1
            return x + y

        yield Kernel(self.op, run, self.cap, allocates=True)


@pytest.fixture
def recorder():
    made = []

    def make(cap):
        made.append(Recorder(cap))
        register_backend(made[-1])
        return made[-1]

    yield make
    for b in made:
        unregister_backend(b.name)


def test_highest_priority_that_can_run_is_chosen(recorder):
    b = recorder(Cap())
    assert (sp.ones(2) + sp.ones(2)).tolist() == [2.0, 2.0]
    assert b.calls == 1
    assert (sp.ones(2, dtype=sp.float64) + sp.ones(2, dtype=sp.float64)).dtype is sp.float64
    assert b.calls == 1


def test_explain_lists_every_candidate_with_its_reason(recorder):
    recorder(Cap(dtypes=(sp.float16,)))
    rows = {r.backend: r for r in sp.explain("add", sp.ones(2), sp.ones(2))}
    assert rows["recorder"].reason == "takes float16; received float32"
    assert sum(r.chosen for r in rows.values()) == 1
    assert not rows["recorder"].chosen


def test_guard_that_refuses_falls_to_the_next_kernel(recorder):
    b = recorder(Cap(where=lambda x, y: x.shape == (3,), where_text="takes three elements"))
    assert (sp.ones(3) + sp.ones(3)).tolist() == [2.0] * 3 and b.calls == 1
    assert (sp.ones(4) + sp.ones(4)).tolist() == [2.0] * 4 and b.calls == 1
    rows = {r.backend: r for r in sp.explain("add", sp.ones(4), sp.ones(4))}
    assert rows["recorder"].reason == "takes three elements"


def test_prefer_reorders_within_its_block_only(recorder):
    b = recorder(Cap())
    with sp.prefer("numpy"):
        sp.ones(2) + sp.ones(2)
    assert b.calls == 0
    sp.ones(2) + sp.ones(2)
    assert b.calls == 1


def test_unknown_backend_and_op_are_errors_that_list_what_exists():
    with pytest.raises(RegistryError, match="numpy"), sp.prefer("nonsense"):
        pass
    with pytest.raises(RegistryError, match="rms_norm"):
        sp.explain("rms_nrom", sp.ones(2))


def test_forbidden_decomposition_is_a_capability_error(recorder):
    class Nothing(Recorder):
        name = "nothing"

    unregister = []
    try:
        with sp.prefer(fallback="error"):
            assert sp.silu(sp.ones(2)).shape == (2,)  # has a kernel: nothing falls back
    finally:
        for n in unregister:
            unregister_backend(n)


def test_backend_without_the_contract_is_refused_and_names_are_unique(recorder):
    with pytest.raises(RegistryError, match="contract"):
        register_backend(object())
    recorder(Cap())
    with pytest.raises(RegistryError, match="already"):
        register_backend(Recorder(Cap()))


def test_unavailable_backend_keeps_its_reason():
    class Absent(Recorder):
        name = "absent"

        def probe(self):
            return Unavailable("no such device", "buy one")

    register_backend(Absent(Cap()))
    try:
        assert sp.backends()["absent"].unavailable.reason == "no such device"
        assert (sp.ones(1) + sp.ones(1)).item() == 2.0
    finally:
        unregister_backend("absent")


def test_wrong_argument_types_are_typed_errors():
    with pytest.raises(DTypeError, match="x must be a Tensor"):
        sp.exp("text")
    with pytest.raises((DTypeError, CapabilityError)):
        sp.embedding(sp.ones((3, 2)), sp.ones(2))


def test_strict_fallback_lets_a_guarded_kernel_run_and_forbids_only_the_decomposition(monkeypatch):
    if sp.explain("softmax", sp.ones((2, 3))).chosen.backend != "cpu":
        pytest.skip("the guarded kernel is a C++ one, and there are none here")
    monkeypatch.setattr(sp.backends()["numpy"].backend, "kernels_of", lambda op: ())
    clear_tables()
    try:
        with sp.prefer(fallback="error"):
            assert sp.softmax(sp.ones((2, 3)), axis=-1).shape == (2, 3)
            with pytest.raises(CapabilityError, match="takes the last axis only"):
                sp.softmax(sp.ones((2, 3)), axis=0)
    finally:
        monkeypatch.undo()
        clear_tables()


def test_a_fused_op_decomposes_before_its_oracle_and_after_every_kernel():
    x = sp.ones((2, 6))
    rows = [r.backend for r in sp.explain("group_norm", x, groups=3)]
    assert rows == ["decomposition", "numpy"]
    with sp.prefer("numpy"):
        assert sp.explain("group_norm", x, groups=3).chosen.backend == "numpy"
        np.testing.assert_allclose(sp.group_norm(x, groups=3).numpy(), np.zeros((2, 6)), atol=1e-6)
    mine = Recorder(Cap(where=lambda x, *rest: x.shape[0] == 2, where_text="takes two rows"), "group_norm")
    mine.kernels = lambda: [Kernel("group_norm", lambda x, *rest: (x, x[:, :3], x[:, :3]), mine.cap, allocates=True)]
    register_backend(mine)
    try:
        assert sp.group_norm(x, groups=3).tolist() == x.tolist()
        assert sp.group_norm(sp.ones((3, 6)), groups=3).tolist() == [[0.0] * 6] * 3  # its guard refuses: decomposed
    finally:
        unregister_backend(mine.name)


def test_a_fused_op_runs_its_oracle_where_decompositions_are_forbidden():
    with sp.prefer(fallback="error"):
        assert sp.explain("group_norm", sp.ones((2, 6)), groups=3).chosen.backend == "numpy"
        assert sp.group_norm(sp.ones((2, 6)), groups=3).shape == (2, 6)


@pytest.mark.parametrize("backend", ["decomposition", "numpy"])
def test_an_op_that_overwrites_may_also_return(backend):
    a, b = sp.asarray([2.0, 4.0]), sp.asarray([3e38])
    with sp.prefer(*([backend] if backend == "numpy" else [])):
        assert sp.explain("unscale_", [a, b], factor=0.5).chosen.backend == backend
        assert sp.ops.unscale_([a, None, b], factor=0.5).item() is True
        assert a.tolist() == [1.0, 2.0]
        assert sp.ops.unscale_([a, b], factor=4.0).item() is False  # overflows
        assert a.tolist() == [4.0, 8.0] and b.item() == float("inf")


def test_all_finite_sees_what_a_norm_would_not():
    large = sp.asarray([3e38, -3e38])
    assert sp.ops.all_finite([large, large]).item() is True
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert sp.ops.all_finite([large, sp.asarray([0.0] * 1024 + [bad])]).item() is False


class Unbuildable:
    """A CPU backend whose kernel no compiler takes."""

    name = "unbuildable"
    device_type = "cpu"
    priority = 100

    def __init__(self):
        self.attempts = 0

    def probe(self):
        return [DeviceInfo("cpu")]

    def _run(self, x, y):
        self.attempts += 1
        raise KernelBuildError("add.cu: the compiler refuses it:\nadd.cu(3): error: no such thing")

    def kernels(self):
        yield Kernel("add", self._run, Cap(dtypes=(sp.float32, sp.float64)), allocates=True)


class UnbuildableAnew(Unbuildable):
    """Makes its kernels at every question."""

    def kernels_of(self, op):
        if op == "add":
            yield Kernel("add", lambda x, y: self._run(x, y), Cap(), allocates=True)


@pytest.fixture
def unbuildable():
    made = []

    def make(cls=Unbuildable):
        made.append(cls())
        register_backend(made[-1])
        return made[-1]

    yield make
    for b in made:
        unregister_backend(b.name)


def test_a_kernel_that_cannot_be_built_is_set_aside_for_the_dtypes_it_was_tried_with(unbuildable, caplog):
    b, x = unbuildable(), sp.ones(2)
    assert sp.explain("add", x, x).chosen.backend == "unbuildable"
    for _ in range(3):
        assert (x + x).tolist() == [2.0, 2.0]
    assert b.attempts == 1
    rows = {r.backend: r for r in sp.explain("add", x, x)}
    assert rows["unbuildable"].reason == (
        "cannot be built here: add.cu: the compiler refuses it: add.cu(3): error: no such thing"
    )
    assert caplog.text.count("add: the kernel of unbuildable is set aside on cpu for float32") == 1
    y = x.astype(sp.float64)
    assert sp.explain("add", y, y).chosen.backend == "unbuildable"
    with sp.prefer("unbuildable"):  # of no use
        assert (x + x).tolist() == [2.0, 2.0]


def test_a_kernel_that_cannot_be_built_is_an_error_where_fallbacks_are(unbuildable):
    b, x = unbuildable(), sp.ones(2)
    with sp.prefer(fallback="error"):
        for _ in range(2):
            with pytest.raises(
                KernelBuildError, match=r"(?s)add: the kernel of unbuildable .* forbids another.\nadd.cu"
            ):
                x + x
    assert b.attempts == 2
    with sp.prefer(fallback="warn"):
        assert (x + x).tolist() == [2.0, 2.0]
    with sp.prefer(fallback="error"), pytest.raises(KernelBuildError):
        x + x  # also after others went on without it


def test_a_backend_that_comes_again_is_tried_again():
    x, b = sp.ones(2), Unbuildable()
    for attempts in (1, 2):
        register_backend(b)
        try:
            assert (x + x).tolist() == [2.0, 2.0] and b.attempts == attempts
        finally:
            unregister_backend(b.name)
        assert kernels_set_aside() == ()


def test_a_kernel_made_anew_at_every_question_is_not_tried_for_ever(unbuildable):
    b, x = unbuildable(UnbuildableAnew), sp.ones(2)
    with pytest.raises(KernelBuildError, match="the compiler refuses it"):
        x + x
    assert b.attempts == 1
