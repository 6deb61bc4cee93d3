"""Walks through the plan of a pipeline with a shape, before any weight is allocated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spiral.backend import Spec
from spiral.dtype import DEFAULT_FLOAT, DEFAULT_INT, DType
from spiral.errors import ConfigError, NoValueError, ShapeError, SpiralError
from spiral.nn.discovery.metadata import ModuleCategory, Shape
from spiral.nn.discovery.pipeline_modules import merged
from spiral.nn.discovery.registry import ModuleDiscoveryRegistry, evaluate
from spiral.nn.discovery.shapes import shape_after, shown
from spiral.nn.discovery.steps import Step, autos, leaves
from spiral.nn.module import Module
from spiral.shape_evaluation import shapes_only

_GUESSES = (32, 28, 64, 16, 8, 224)
_MOST_TRIES = 256


@dataclass(frozen=True)
class ShapeRow:
    """What one module does to the shape of a sample.

    Attributes:
        path: where it stands, as in the state dict.
        type: the module's type.
        input: the shape it gets; None: unknown.
        output: the shape it gives; None: unknown.
        dtype: of the output.
        parameters: numbers in its weights; None: unknown until it is built.
        note: why something is unknown.
    """

    path: str
    type: str
    input: Shape | None
    output: Shape | None
    dtype: str
    parameters: int | None
    note: str = ""


class ShapeReport(list[ShapeRow]):
    """The rows of a pipeline in order; prints as a table."""

    def __str__(self) -> str:
        table = [("module", "type", "input", "output", "parameters")]
        for r in self:
            count = "?" if r.parameters is None else f"{r.parameters:,}"
            table.append((r.path, r.type, shown(r.input), shown(r.output), count))
        widths = [max(len(row[i]) for row in table) for i in range(5)]
        lines = []
        for row in table:
            cells = [cell.ljust(width) for cell, width in zip(row[:4], widths, strict=False)]
            lines.append("  ".join([*cells, row[4].rjust(widths[4])]))
        lines += [f"{r.path}: {r.note}" for r in self if r.note]
        known = [r.parameters for r in self if r.parameters is not None]
        lines.append(f"{sum(known):,} parameters" + ("" if len(known) == len(self) else ", and those not known yet"))
        return "\n".join(lines)


@dataclass
class Flow:
    """What runs through the pipeline: a sample's shape (None: unknown), a dtype, and what gave it."""

    shape: Shape | None
    dtype: DType
    source: str = "the input"


class Walk:
    """One walk through a plan; `steps` afterwards has every ``auto`` replaced.

    Args:
        owner: the pipeline, for messages.
        registry: where the types are.
        built: a pipeline that was built of the plan, whose modules are asked instead of new ones.
    """

    def __init__(self, owner: str, registry: ModuleDiscoveryRegistry, built: Module | None = None) -> None:
        self.owner, self.registry, self.built = owner, registry, built
        self.rows = ShapeReport()

    def steps(self, steps: Sequence[Step], flow: Flow, path: str = "") -> tuple[tuple[Step, ...], Flow]:
        """The steps with every size known, and what comes out.

        Raises:
            ShapeError: neighbours do not fit.
        """
        made = []
        for number, step in enumerate(steps, 1):
            here = f"module {number} {path + step.name!r} ({step.type})"
            walk = self._branches if step.branches else self._module
            step, flow = walk(step, flow, f"{path}{step.name}", here)
            made.append(step)
        return tuple(made), replace(flow)

    # ------------------------------------------------------------ one module
    def _module(self, step: Step, flow: Flow, path: str, here: str) -> tuple[Step, Flow]:
        if autos(step.config):
            step = self._with_sizes(step, flow, here)
        entry = self.registry.entry(step.type)
        shape, dtype, note, count = None, flow.dtype, "", None
        try:
            count = self._count(step, path)
            if flow.shape is not None:
                shape, dtype = self._after(step, flow, path)
        except NoValueError as error:
            shape = entry.metadata.output_shape
            note = f"it is checked when it is built: {error}" if shape is None else ""
        except SpiralError as error:
            raise self._mismatch(error, here, flow) from error
        if flow.shape is None and not note:
            note = "the shape before it is unknown"
        self.rows.append(ShapeRow(path, step.type, flow.shape, shape, dtype.name, count, note))
        return step, Flow(shape, dtype, here)

    def _after(self, step: Step, flow: Flow, path: str) -> tuple[Shape, DType]:
        assert flow.shape is not None
        entry = self.registry.entry(step.type)
        if self.built is None or entry.output_shape is not None:
            return evaluate(entry, step.config, flow.shape, flow.dtype)
        module = self._built(path)
        training = module.training
        try:
            return shape_after(module.eval(), flow.shape, flow.dtype)
        finally:
            module.train(training)

    def _count(self, step: Step, path: str) -> int:
        if self.built is not None:
            return self._built(path).num_parameters()
        with shapes_only():
            return self.registry.create(step.type, step.config).num_parameters()

    def _built(self, path: str) -> Module:
        module: Any = self.built
        for name in path.split("."):
            module = getattr(module, name)
        return module  # type: ignore[no-any-return]

    def _mismatch(self, error: SpiralError, here: str, flow: Flow) -> SpiralError:
        if isinstance(error, ConfigError):
            return ConfigError(f"{self.owner}: {here}: {error}")
        what = f"{flow.dtype.name} {shown(flow.shape)}"
        return ShapeError(f"{self.owner}: {here} does not take {what}, which comes from {flow.source}: {error}")

    def _with_sizes(self, step: Step, flow: Flow, here: str) -> Step:
        """``auto`` as the one length of the input with which the module takes it."""
        keys = autos(step.config)
        if flow.shape is None:
            raise ConfigError(
                f"{self.owner}: {here}: {', '.join(keys)}: auto needs the shape before it, which is unknown; "
                "give it with with_input(), or the size itself."
            )
        sizes, fitting = sorted(set(flow.shape)), []
        for values in itertools.islice(itertools.product(sizes, repeat=len(keys)), _MOST_TRIES):
            config = {**step.config, **dict(zip(keys, values, strict=True))}
            try:
                evaluate(self.registry.entry(step.type), config, flow.shape, flow.dtype)
            except SpiralError:
                continue
            fitting.append(config)
        if len(fitting) != 1:
            found = "none fits" if not fitting else " and ".join(str([c[k] for k in keys]) for c in fitting) + " fit"
            raise ConfigError(
                f"{self.owner}: {here}: {', '.join(keys)}: auto: of the lengths of {shown(flow.shape)}, which comes "
                f"from {flow.source}, {found}; give the size itself."
            )
        return replace(step, config=fitting[0])

    # ------------------------------------------------------------ branches
    def _branches(self, step: Step, flow: Flow, path: str, here: str) -> tuple[Step, Flow]:
        names = ["branch"] if step.type == "residual" else [f"branch_{i}" for i in range(1, len(step.branches) + 1)]
        made, ends = [], [replace(flow)] if step.type == "residual" else []
        for name, branch in zip(names, step.branches, strict=True):
            steps, end = self.steps(branch, replace(flow), f"{path}.{name}.")
            made.append(steps)
            ends.append(end)
        step = replace(step, branches=tuple(made))
        if any(end.shape is None for end in ends):
            return step, Flow(None, flow.dtype, here)
        merge = "add" if step.type == "residual" else step.merge
        specs = [Spec(end.shape, end.dtype) for end in ends if end.shape is not None]
        try:
            shape, dtype = shape_after(_Merge(specs, merge, step.axis), (), DEFAULT_FLOAT)
        except SpiralError as error:
            given = " and ".join(f"{end.dtype.name} {shown(end.shape)} from {end.source}" for end in ends)
            raise ShapeError(f"{self.owner}: {here} cannot {merge} {given}: {error}") from error
        return step, Flow(shape, dtype, here)


class _Merge:
    """Merges stand-ins of what branches give; its argument tells the batch."""

    def __init__(self, specs: Sequence[Spec], merge: str, axis: int) -> None:
        self.specs, self.merge, self.axis = specs, merge, axis

    def __call__(self, batch: Any) -> Any:
        from spiral.abstract import valueless

        n = batch.shape[0]
        return merged([valueless((n, *s.shape), s.dtype) for s in self.specs], self.merge, self.axis)


def dtype_for(registry: ModuleDiscoveryRegistry, steps: Sequence[Step]) -> DType:
    """What a pipeline takes where nobody says it: int64 where an embedding comes first, else float32."""
    first = next(leaves(steps), None)
    if first is not None and registry.get(first.type).category is ModuleCategory.EMBEDDING:
        return DEFAULT_INT
    return DEFAULT_FLOAT


def likely_inputs(registry: ModuleDiscoveryRegistry, steps: Sequence[Step]) -> Iterator[Shape]:
    """Shapes that the first modules might take: what they declare, else what their sizes suggest."""
    first = next(leaves(steps))
    declared = registry.get(first.type).input_shape
    if declared is not None:
        yield declared
        return
    sizes: list[int] = []
    for step in leaves(steps):
        values = registry.schema(step.type).parse(_without_autos(step.config), partial=True).values()
        sizes = [v for v in dict.fromkeys(_integers(values)) if v > 0]
        if sizes:
            break
    for guess in _GUESSES:
        for size in sizes[:4]:
            yield from ((size,), (size, guess, guess), (guess, size), (size, guess))
        yield (guess,)
        yield (3, guess, guess)


def _without_autos(config: Mapping[str, Any]) -> dict[str, Any]:
    unknown = autos(config)
    return {key: value for key, value in config.items() if key not in unknown}


def _integers(values: Any) -> Iterator[int]:
    for value in values:
        if type(value) is int and value < math.inf:
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _integers(value)
