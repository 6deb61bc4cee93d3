"""Triton kernels with a choice of launch configurations; see `spiral.gpu.tuning`.

    RMS = Tuned("rms_norm", fn, params, ("num_warps",), {
        ("fp32", 1024): ({"BLOCK": 1024}, ((4,), (2,), (8,))),
    }, file="norm.py", trial=...)
    kernel = RMS.kernel(gpu, ("fp32", 1024))

An option is one of ``num_warps``, ``num_stages``, ``maxnreg``, or a constant of the function, such as ``BLOCK``, which
a launcher then finds in ``kernel.constants``. Kernels are compiled when they are launched; `make aot` compiles all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spiral.backends.triton.launching import TritonKernel
from spiral.gpu import Driver
from spiral.gpu.sources import triton_digest
from spiral.gpu.tuning import Choice, Config, Key, Trial, declare

_OPTIONS = ("num_warps", "num_stages", "maxnreg")


class Tuned:
    """A function's kernels for several classes of shapes, each in several configurations.

    Args:
        name: of the choice, without the backend; unique among Triton's.
        fn: result of ``@triton.jit``.
        params: types of its parameters, or a function of a class of shapes that gives them.
        options: what the numbers of a configuration are.
        classes: for each class of shapes, the constants that do not vary, and the configurations, heuristic first.
        file: of ``kernels/triton``, where the function stands.
        trial: what `spiral tune` runs for a class, on about so many bytes.
        more: of `TritonKernel`, for all.
    """

    __slots__ = ("_kernels", "choice")

    def __init__(
        self,
        name: str,
        fn: Any,
        params: Callable[[Key], Mapping[str, str]],
        options: tuple[str, ...],
        classes: Mapping[Key, tuple[Mapping[str, Any], tuple[Config, ...]]],
        *,
        file: str,
        trial: Callable[[Key, int], Trial],
        **more: Any,
    ) -> None:
        self.choice = declare(
            Choice(
                f"triton/{name}", options, {key: configs for key, (_, configs) in classes.items()},
                lambda: triton_digest(file), trial,
            )
        )  # fmt: skip
        self._kernels: dict[Key, dict[Config, TritonKernel]] = {}
        for key, (constants, configs) in classes.items():
            self._kernels[key] = {}
            for config in configs:
                chosen = dict(zip(options, config, strict=True))
                launch: dict[str, Any] = {o: chosen.pop(o) for o in _OPTIONS if o in chosen}
                self._kernels[key][config] = TritonKernel(fn, params(key), {**constants, **chosen}, **launch, **more)

    def kernel(self, gpu: Driver, key: Key) -> TritonKernel:
        """The kernel for a class of shapes on a device."""
        return self._kernels[key][self.choice.at(gpu, key)]
