"""Triton kernels as Python callables on addresses.

    rms_norm = TritonKernel(kernels.rms_norm, {"x": "*fp32", "y": "*fp32", "n": "i32", "eps": "fp32"}, {"BLOCK": 1024})
    rms_norm(gpu, (rows, 1, 1), x.address, y.address, n, eps)

Triton compiles; loading and launching go through `spiral.gpu.Driver` as for CUDA C++, so that a launch costs what
packing the values costs, and torch is not needed. A kernel is compiled at its first launch on a device.

Each kernel has two variants. The one for launches where every address, and every integer declared ``divisible``, is a
multiple of 16 may use 16-byte accesses; the other takes anything. They are told apart at each launch by the bits of
those values or-ed together (0.05 µs per value), where Triton looks at the type and value of every argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from spiral.backends.triton import adapter, interpreter
from spiral.errors import KernelBuildError, KernelError
from spiral.gpu import Driver
from spiral.gpu.params import Params

KERNELS: list[TritonKernel] = []
"""Every kernel that was declared; what `make aot` compiles."""

_FORMATS = {
    "i1": "?", "i8": "b", "i16": "h", "i32": "i", "i64": "q", "u8": "B", "u16": "H", "u32": "I", "u64": "Q",
    "fp32": "f", "fp64": "d",
}  # fmt: skip


class Variant:
    """A kernel as it is loaded on a device."""

    __slots__ = ("_scratch", "block", "function", "scratch_size", "shared")

    def __init__(self, gpu: Driver, compiled: adapter.Compiled) -> None:
        most = gpu.facts.shared_memory
        if compiled.shared > most:
            raise KernelBuildError(
                f"{compiled.name}: wants {compiled.shared} bytes of shared memory for a block; "
                f"{gpu.facts.name} has {most}."
            )
        self.function = gpu.load(compiled.cubin, compiled.name, compiled.shared)
        self.block = (compiled.threads, 1, 1)
        self.shared = compiled.shared
        self.scratch_size = compiled.scratch
        self._scratch: list[Any] = []

    def scratch_for(self, gpu: Driver, grid: tuple[int, int, int]) -> int:
        """Address of the global scratch of a launch.

        Launches follow each other on one stream and so may share it. Blocks that have become too small are kept, for a
        recorded graph may hold their address; sizes double, so that all of them together are less than twice the last.
        """
        size = self.scratch_size * grid[0] * grid[1] * grid[2]
        if not self._scratch or self._scratch[-1].nbytes < size:
            self._scratch.append(gpu.allocate(max(size, 2 * self._scratch[-1].nbytes if self._scratch else 0)))
        return self._scratch[-1].address  # type: ignore[no-any-return]


class TritonKernel:
    """A decorated function with the types of its parameters and the values of its constants.

    Args:
        fn: result of ``@triton.jit``.
        params: type of each parameter that is no constant, as Triton spells it: ``*fp32``, ``i32``, ``fp32``, ...
        constants: values of the ``tl.constexpr`` parameters.
        divisible: integer parameters whose divisibility by 16 is worth a variant, such as the length of a row.
        aligned: addresses are worth one too; not those of kernels that read and write single elements.
        general: there is a variant for anything; False: another kernel takes what is not aligned, see `fits`.
        num_warps: a block has 32 times as many threads.
        num_stages: depth of software pipelines.
        fp_fusion: a product and a sum may become one operation.
        maxnreg: most registers of a thread.

    Raises:
        KernelError: the parameters are not those of the function, or have types that cannot be passed.
    """

    __slots__ = ("_here", "_tested", "constants", "divisible", "fn", "name", "options", "params", "variants")

    def __init__(
        self,
        fn: Any,
        params: Mapping[str, str],
        constants: Mapping[str, Any] | None = None,
        *,
        divisible: tuple[str, ...] = (),
        aligned: bool = True,
        general: bool = True,
        num_warps: int = 4,
        num_stages: int = 2,
        fp_fusion: bool = True,
        maxnreg: int | None = None,
    ) -> None:
        self.fn = fn
        self.params = dict(params)
        self.constants = dict(constants or {})
        self.options = adapter.Options(num_warps, num_stages, fp_fusion, maxnreg)
        names = list(self.params)
        wanted = [n for n in fn.arg_names if n not in self.constants]
        if wanted != names or not self.constants.keys() <= set(fn.arg_names):
            raise KernelError(
                f"{fn.__name__}: expected types or constants for {', '.join(fn.arg_names)}, in that order; "
                f"received params {', '.join(names)} and constants {', '.join(self.constants) or 'none'}."
            )
        for n in divisible:
            if not self.params.get(n, "").startswith(("i", "u")):
                raise KernelError(f"{fn.__name__}: divisible: expected an integer parameter; received {n!r}.")
        self.divisible = frozenset(divisible)
        if aligned:
            self.divisible |= {n for n, kind in self.params.items() if kind.startswith("*")}
        self.variants = (*((True,) if self.divisible else ()), *((False,) if general or not self.divisible else ()))
        self._tested = tuple([i for i, n in enumerate(names) if n in self.divisible])
        self._here = Params(*[self._format(n, kind) for n, kind in self.params.items()], *["P"] * adapter.HIDDEN).here
        fixed = [f"{k}={getattr(v, '__name__', v)}" for k, v in self.constants.items()]
        kinds = ",".join([*self.params.values(), *fixed])
        more = "" if fp_fusion else ",no fusion"
        more += f",maxnreg={maxnreg}" if maxnreg else ""
        self.name = f"{fn.__name__}<{kinds},warps={num_warps},stages={num_stages}{more}>"
        KERNELS.append(self)

    def _format(self, name: str, kind: str) -> str:
        if kind.startswith("*"):
            return "P"
        if kind not in _FORMATS:
            raise KernelError(
                f"{self.fn.__name__}: {name}: expected an address or one of {', '.join(_FORMATS)}; received {kind!r}."
            )
        return _FORMATS[kind]

    def __call__(self, gpu: Driver, grid: tuple[int, int, int], *values: Any) -> None:
        """Launches on a device.

        Args:
            gpu: the device.
            grid: three numbers of programs.
            values: addresses and numbers, in the order of ``params``.

        Raises:
            KernelBuildError: it cannot be compiled or loaded.
            struct.error: too many or too few values, or one that its type does not hold.
            IndexError: far too few values.
        """
        try:
            variants = gpu.functions[self]
        except KeyError:
            variants = self._prepare(gpu)
        if variants is None:
            self._interpret(gpu, grid, values)
            return
        bits = 0
        for i in self._tested:
            bits |= values[i]
        variant = variants[bits & 15 == 0]
        if variant is None:
            variant = variants[bits & 15 == 0] = Variant(gpu, self.compile(gpu.facts.cc, bits & 15 == 0))
        here = self._here
        here.write(*values, variant.scratch_for(gpu, grid) if variant.scratch_size else 0, 0)
        gpu.launch(variant.function, grid, variant.block, variant.shared, here.address)

    def fits(self, values: tuple[Any, ...]) -> bool:
        """Whether the variant for aligned addresses takes these values."""
        bits = 0
        for i in self._tested:
            bits |= values[i]
        return bits & 15 == 0

    def _interpret(self, gpu: Driver, grid: tuple[int, int, int], values: tuple[Any, ...]) -> None:
        """Runs it on host memory, now or whenever the graph is launched that the driver is making."""
        keep = getattr(gpu, "keep", None)
        call = (self.fn, self.params, self.constants, grid, values)
        if keep is None or not keep(interpreter.run, *call):
            interpreter.run(*call)

    def prepare(self, gpu: Driver) -> None:
        """Compiles the variant for aligned addresses, where that has not been done.

        An op that overwrites its inputs prepares what it launches before the first launch: a kernel that cannot be
        built then leaves them as they were, and another may do the work.

        Raises:
            KernelBuildError: it cannot be built.
        """
        variants = gpu.functions[self] if self in gpu.functions else self._prepare(gpu)
        if variants is not None and variants[True] is None:
            variants[True] = Variant(gpu, self.compile(gpu.facts.cc, aligned=True))

    def _prepare(self, gpu: Driver) -> list[Variant | None] | None:
        """Room for the two variants, compiled when they are needed; None where the interpreter runs."""
        interpreted = adapter.is_interpreted(self.fn)
        if interpreted != gpu.facts.more.get("on_processor", False):
            raise KernelError(
                f"{self.fn.__name__}: runs in Triton's interpreter on host memory, or compiled on a GPU; received "
                f"{gpu.facts.name} {'with' if interpreted else 'without'} TRITON_INTERPRET=1."
            )
        variants: list[Variant | None] | None = None if interpreted else [None, None]
        gpu.functions[self] = variants
        return variants

    def compile(self, cc: int, aligned: bool) -> adapter.Compiled:
        """The variant for a compute capability; Triton keeps results on disk.

        Raises:
            KernelError: the kernel has no such variant.
        """
        if aligned not in self.variants and self.divisible:
            raise KernelError(f"{self.name}: takes aligned addresses and numbers only.")
        chosen = self.divisible if aligned else frozenset()
        return adapter.compile_kernel(self.fn, self.params, self.constants, chosen, cc, self.options)


def compile_all(arch: int) -> Iterator[tuple[str, str, bytes, int, int, int]]:
    """Compiles every variant of every kernel ahead of time; needs no GPU.

    Args:
        arch: compute capability times ten.

    Yields:
        Name of the function, configuration, cubin, registers of a thread, bytes that it spills, and bytes of shared
        memory of a block.
    """
    from spiral.backends.triton import families

    families()
    for kernel in KERNELS:
        for aligned in kernel.variants:
            made = kernel.compile(arch, aligned)
            registers, spills = adapter.resources(made.cubin)
            config = f"{kernel.name}{' aligned' if aligned else ''}"
            yield kernel.fn.__name__, config, made.cubin, registers, spills, made.shared
