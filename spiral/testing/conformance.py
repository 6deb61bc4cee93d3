"""The test suite that a backend inherits: ``TestMine = conformance_suite("mine")`` in a test file is all of it.

Every op × dtype × layout against the float64 oracle, gradients against the CPU's, views, transfers, mutation,
optimizer steps, random bits, determinism, training, reasons and errors, on the backend's own device.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any

from spiral.backend import Backend
from spiral.backends_registry import BACKENDS, backends, check_names, register_backend
from spiral.device import as_device
from spiral.dtype import ALL, FLOATS, DType
from spiral.errors import CapabilityError
from spiral.op import OPS
from spiral.testing import on_device
from spiral.testing.layouts import LAYOUTS
from spiral.testing.oracle import check_on_device

Cases = Callable[["type[BackendConformance]"], list[Any]]


def over(cases: Cases) -> Callable[[Any], Any]:
    """Marks a test as one that runs for each of some cases, tuples of arguments."""

    def mark(test: Any) -> Any:
        test.cases = cases
        return test

    return mark


class BackendConformance:
    """The suite; made for one backend by `conformance_suite`, or by subclassing it.

    Attributes:
        backend: its name.
        device: one of its devices.
        dtypes: floating dtypes of the inputs.
    """

    backend: str
    device: str
    dtypes: tuple[DType, ...] = FLOATS

    # ------------------------------------------------------------ pytest, and without it
    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Called by pytest: the cases of each test."""
        cases = getattr(metafunc.function, "cases", None)
        if cases is not None:
            names = metafunc.function.__code__.co_varnames[1 : metafunc.function.__code__.co_argcount]
            rows = cases(type(self))
            metafunc.parametrize(names, rows, ids=["-".join(map(_label, row)) for row in rows])

    @classmethod
    def checks(cls) -> Iterator[tuple[str, Callable[[], None]]]:
        """Every test of the suite: its name, and what runs it."""
        for name in dir(cls):
            if not name.startswith("test_"):
                continue
            test = getattr(cls, name)
            for row in test.cases(cls) if hasattr(test, "cases") else [()]:
                label = f"{name}[{'-'.join(map(_label, row))}]" if row else name
                yield label, lambda test=test, row=row: test(cls(), *row)  # type: ignore[misc]

    @classmethod
    def run(cls) -> dict[str, str]:
        """Runs the suite without pytest; gives the traceback of each test that failed, by name."""
        failed = {}
        for name, test in cls.checks():
            try:
                test()
            except Exception:  # whatever a kernel raises is its test's failure
                failed[name] = traceback.format_exc()
        return failed

    @classmethod
    def own_kernels(cls) -> list[str]:
        """Ops that the backend itself has a kernel for."""
        return sorted(backends()[cls.backend].kernels)

    # ------------------------------------------------------------ ops
    @over(lambda cls: [(op, d) for op in on_device.ops_to_check() for d in cls.dtypes])
    def test_op_agrees_with_the_oracle(self, op: str, dtype: DType) -> None:
        """Whoever runs it: the backend's kernel, the op's decomposition, or the host where memory is shared."""
        check_on_device(OPS[op], self.backend, dtype, self.device)

    @over(lambda cls: [(op, layout) for op in cls.own_kernels() for layout in LAYOUTS[1:]])
    def test_kernel_takes_every_layout_or_says_why_not(self, op: str, layout: str) -> None:
        """Transposed inputs, inputs with gaps and backwards, on every floating dtype that the kernels take."""
        for dtype in self._dtypes_of(op):
            check_on_device(OPS[op], self.backend, dtype, self.device, layout)

    @over(lambda cls: [(op,) for op in cls.own_kernels()])
    def test_kernel_is_reached(self, op: str) -> None:
        """A kernel that none of the op's samples reaches is not tested by anything."""
        dtypes = [*self._dtypes_of(op), *self._integers_of(op)]
        reached = any(check_on_device(OPS[op], self.backend, d, self.device, others=False).own for d in dtypes)
        assert reached, f"{op}: no sample reaches the kernel: {[k.cap for k in backends()[self.backend].kernels[op]]}"

    @over(lambda cls: [(op,) for op in cls.own_kernels() if cls._integers_of(op)])
    def test_kernel_takes_the_integers_it_declares(self, op: str) -> None:
        """The samples in whole numbers, for each dtype in ``Cap.integers``."""
        for dtype in self._integers_of(op):
            check_on_device(OPS[op], self.backend, dtype, self.device)

    @over(lambda cls: [(op,) for op in on_device.ops_to_check()])
    def test_every_candidate_that_is_not_chosen_has_a_reason(self, op: str) -> None:
        """`spiral.explain` is never empty."""
        on_device.check_explanations(OPS[op], self.backend, self.device)

    @over(lambda cls: [(op,) for op in cls.own_kernels()])
    def test_same_inputs_give_same_bits(self, op: str) -> None:
        """Under ``prefer(deterministic=True)``."""
        on_device.check_determinism(OPS[op], self.backend, self.device)

    @over(lambda cls: [(n,) for n in on_device.ops_to_check() if not OPS[n].nondifferentiable])
    def test_gradient_agrees_with_the_cpu(self, op: str) -> None:
        """float32 on the device against float64 on the CPU."""
        on_device.check_device_gradient(OPS[op], self.backend, self.device)

    # ------------------------------------------------------------ the device
    @over(lambda cls: [("check_memory",)] if cls.device != "cpu" else [])
    def test_memory_keeps_shapes_dtypes_and_values(self, check: str) -> None:
        """The three methods of `spiral.backend.Memory`."""
        getattr(on_device, check)(self.device)

    @over(lambda cls: [("check_transfers",), ("check_errors",)] if cls.device != "cpu" else [])
    def test_other_devices_are_elsewhere(self, check: str) -> None:
        """Values move when told to, bit for bit, and never silently."""
        getattr(on_device, check)(self.device)

    def test_views_have_the_values_and_gradients_of_the_cpu(self) -> None:
        """Slices, transposes, reshapes and what is made of them."""
        on_device.check_views(self.device)

    def test_tensors_are_values(self) -> None:
        """Assignment, copies, pickles, printing."""
        on_device.check_values(self.device)

    def test_mutation_is_seen_and_noticed(self) -> None:
        """`Tensor.copy_`, and backward after it."""
        on_device.check_mutation(self.device)

    def test_threads_do_not_disturb_each_other(self) -> None:
        """Four at once."""
        on_device.check_threads(self.device)

    # ------------------------------------------------------------ training
    def test_random_numbers_are_those_of_the_cpu(self) -> None:
        """Seeds, and dropout's bits."""
        on_device.check_randomness(self.device)

    @over(lambda cls: [(name,) for name in on_device.OPTIMIZERS])
    def test_optimizer_steps_as_on_the_cpu(self, optimizer: str) -> None:
        """Three steps, with clipping, saving and loading."""
        on_device.check_optimizer(optimizer, self.device)

    def test_second_derivative_agrees_with_the_cpu(self) -> None:
        """Through a fused op and an elementwise one."""
        on_device.check_second_derivative(self.device)

    @over(lambda cls: [("check_training",), ("check_language_model",)])
    def test_training_gives_the_losses_of_the_cpu(self, check: str) -> None:
        """A network with norms and dropout; a decoder with attention."""
        getattr(on_device, check)(self.device)

    # ------------------------------------------------------------ what kernels declare
    @classmethod
    def _dtypes_of(cls, op: str) -> list[DType]:
        caps = [k.cap for k in backends()[cls.backend].kernels[op]]
        return [d for d in cls.dtypes if any(d in cap.dtypes for cap in caps)]

    @classmethod
    def _integers_of(cls, op: str) -> list[DType]:
        caps = [k.cap for k in backends()[cls.backend].kernels[op]]
        return [d for d in ALL if d.kind != "float" and any(d in cap.integers for cap in caps)]


def _label(x: Any) -> str:
    return x.name if isinstance(x, DType) else str(x)


def conformance_suite(
    backend: str | Backend, device: str | None = None, *, dtypes: tuple[DType, ...] = FLOATS
) -> type[BackendConformance]:
    """The conformance suite of a backend, as a class that pytest collects.

    Args:
        backend: the name of an installed backend, or a backend, which is registered if it is not yet.
        device: one of its devices; None for its first.
        dtypes: floating dtypes of the inputs.

    Raises:
        RegistryError: there is no such backend.
        CapabilityError: it cannot run here; the message has the reason.
        DeviceError: there is no such device.

    Example:
        >>> TestReference = conformance_suite("numpy")
        >>> len(list(TestReference.checks())) > 1000
        True
    """
    name = backend if isinstance(backend, str) else backend.name
    if not isinstance(backend, str) and (name not in BACKENDS or BACKENDS[name].backend is not backend):
        register_backend(backend)
    check_names((name,))
    entry = backends()[name]
    if entry.unavailable is not None:
        raise CapabilityError(f"{name}: cannot be tested here: {entry.unavailable.reason} {entry.unavailable.remedy}")
    found = as_device(device if device is not None else f"{entry.devices[0].type}:{entry.devices[0].index}")
    return type("TestConformance", (BackendConformance,), {"backend": name, "device": str(found), "dtypes": dtypes})
