"""Puts models together from registered module types; the plan is a file, and is checked before weights exist."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spiral.dtype import DType, as_dtype
from spiral.errors import ConfigError, DTypeError, NoValueError, SpiralError, received
from spiral.nn.discovery.metadata import Shape
from spiral.nn.discovery.pipeline_modules import Parallel, Pipeline, Residual
from spiral.nn.discovery.registry import ModuleDiscoveryRegistry
from spiral.nn.discovery.shape_check import Flow, ShapeReport, Walk, dtype_for, likely_inputs
from spiral.nn.discovery.steps import Reader, Step, autos, check_keys, check_name, free_name, leaves, parallel_step
from spiral.nn.module import Module
from spiral.plain_files import load_plain, save_plain

_log = logging.getLogger("spiral")
_VERSION = 1
Branch = "ModulePipelineBuilder | Sequence[Any] | Callable[[ModulePipelineBuilder], Any]"


class ModulePipelineBuilder:
    """Builds a model of module types, one after the other and in branches.

    Args:
        registry: where the types are; by default the one of the process.

    Example:
        >>> model = (
        ...     ModulePipelineBuilder()
        ...     .with_input((3, 8, 8))
        ...     .add_module("conv2d", {"in_channels": "auto", "out_channels": "4", "kernel_size": "3"})
        ...     .add_module("flatten")
        ...     .add_module("linear", {"in_features": "auto", "out_features": 10})
        ...     .build()
        ... )
        >>> import spiral as sp
        >>> model(sp.ones((2, 3, 8, 8))).shape
        (2, 10)
    """

    def __init__(self, registry: ModuleDiscoveryRegistry | None = None) -> None:
        if registry is not None and not isinstance(registry, ModuleDiscoveryRegistry):
            raise ConfigError(f"pipeline: expected a ModuleDiscoveryRegistry; received {received(registry)}.")
        self.registry = ModuleDiscoveryRegistry.shared() if registry is None else registry
        self.name = ""
        self.input_shape: Shape | None = None
        self.dtype: DType | None = None
        self._steps: tuple[Step, ...] = ()

    # ------------------------------------------------------------ the plan
    def with_name(self, name: str) -> ModulePipelineBuilder:
        """Names the pipeline."""
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"pipeline: a name is a text that is not empty; received {received(name)}.")
        self.name = name
        return self

    def with_input(self, shape: Sequence[int], dtype: DType | str | None = None) -> ModulePipelineBuilder:
        """Says what comes in.

        Args:
            shape: of one sample, without the batch: ``(3, 32, 32)``.
            dtype: float32 by default, or int64 where an embedding comes first.

        Raises:
            ConfigError: it is something else.
        """
        if not isinstance(shape, (list, tuple)) or not all(type(n) is int and n > 0 for n in shape):
            raise ConfigError(
                f"{self._owner}: the input is a sample's shape, without the batch, in positive lengths such as "
                f"(3, 32, 32); received {received(shape)}."
            )
        try:
            self.dtype = None if dtype is None else as_dtype(dtype)
        except DTypeError as error:
            raise ConfigError(f"{self._owner}: dtype: {error}") from None
        self.input_shape = tuple(shape)
        return self

    def add_module(
        self, module_type: str, config: Mapping[str, Any] | None = None, *, name: str | None = None
    ) -> ModulePipelineBuilder:
        """Adds a module behind those there are.

        Args:
            module_type: its registered type.
            config: its settings; texts are converted. ``auto`` is the length of the input that fits.
            name: its name in the state dict; by default ``<type>_<k>``, the k-th of its type.

        Raises:
            RegistryError: there is no such type.
            ConfigError: the settings do not fit.
        """
        value: dict[str, Any] = {"type": module_type, "name": name, "config": config}
        if module_type in ("parallel", "residual") or not isinstance(module_type, str):
            self.registry.name_of(module_type)
        step = Reader(self.registry).step(value, self._steps, f"{self._owner}: module {len(self._steps) + 1}")
        self._steps = (*self._steps, step)
        return self

    def parallel(
        self, branches: Sequence[Any], merge: str = "concat", *, axis: int = 1, name: str | None = None
    ) -> ModulePipelineBuilder:
        """Adds branches that all get the same input, and merges what they give.

        Args:
            branches: each a builder, a function that adds modules to the builder it is given, or a list of types, pairs
                of type and settings, and mappings as in a file; an empty one hands its input on.
            merge: ``concat``, ``add``, ``mean`` or ``multiply``; the last three want equal shapes.
            axis: of the tensors, along which to concatenate; 1 is the first behind the batch.
            name: see `add_module`.
        """
        where = f"{self._owner}: module {len(self._steps) + 1}"
        if not isinstance(branches, (list, tuple)):
            raise ConfigError(f"{where}: expected a list of branches; received {received(branches)}.")
        name = free_name("parallel", self._steps) if name is None else check_name(name, self._steps, where)
        made = tuple(self._branch(b, f"{where} {name!r}: branch {i}") for i, b in enumerate(branches, 1))
        self._steps = (*self._steps, parallel_step(made, merge, axis, name, where))
        return self

    def residual(self, branch: Any, *, name: str | None = None) -> ModulePipelineBuilder:
        """Adds x + branch(x); the branch is given as in `parallel`, and must keep the shape."""
        where = f"{self._owner}: module {len(self._steps) + 1}"
        name = free_name("residual", self._steps) if name is None else check_name(name, self._steps, where)
        self._steps = (
            *self._steps,
            Step("residual", name, branches=(self._branch(branch, f"{where} {name!r}"),)),
        )
        return self

    def _branch(self, given: Any, where: str) -> tuple[Step, ...]:
        if isinstance(given, ModulePipelineBuilder):
            return given._steps
        if callable(given):
            builder = ModulePipelineBuilder(self.registry)
            given(builder)
            return builder._steps
        return Reader(self.registry).steps(given, where)

    # ------------------------------------------------------------ checking and building
    @property
    def _owner(self) -> str:
        return f"pipeline {self.name!r}" if self.name else "pipeline"

    def __len__(self) -> int:
        return len(self._steps)

    def check(self) -> ShapeReport:
        """The shape before and behind every module; no weight is allocated.

        Without `with_input` a shape is taken that the first module declares, or one that all modules take.

        Raises:
            ConfigError: there is no module, or a size cannot be told.
            ShapeError: neighbours do not fit.
        """
        return self._walk()[1]

    def build(self) -> Pipeline:
        """The model, after a `check`. The same plan and seed give the same weights.

        Raises:
            ConfigError: there is no module, or a size cannot be told.
            ShapeError: neighbours do not fit; nothing was allocated.
        """
        steps, report, flow = self._walk()
        model = self._pipeline(steps)
        model.name = self.name
        if flow is not None and any(row.note for row in report):
            self._check_built(model, steps, flow)
        return model

    def _walk(self) -> tuple[tuple[Step, ...], ShapeReport, Flow | None]:
        if not self._steps:
            raise ConfigError(f"{self._owner}: there is no module in it; add one with add_module().")
        dtype = dtype_for(self.registry, self._steps) if self.dtype is None else self.dtype
        if self.input_shape is not None:
            flow = Flow(self.input_shape, dtype)
            walk = Walk(self._owner, self.registry)
            return walk.steps(self._steps, flow)[0], walk.rows, flow
        unknown = [f"{s.name}: {', '.join(autos(s.config))}" for s in leaves(self._steps) if autos(s.config)]
        if unknown:
            raise ConfigError(f"{self._owner}: auto ({'; '.join(unknown)}) needs the input's shape: with_input().")
        best: tuple[int, Shape, SpiralError] | None = None
        for shape in likely_inputs(self.registry, self._steps):
            walk = Walk(self._owner, self.registry)
            try:
                return walk.steps(self._steps, Flow(shape, dtype))[0], walk.rows, Flow(shape, dtype)
            except ConfigError:
                raise
            except SpiralError as error:
                if best is None or len(walk.rows) > best[0]:
                    best = (len(walk.rows), shape, error)
        assert best is not None
        text = f"{best[2]} No input was declared and {best[1]} was tried; with_input() says the right one."
        raise type(best[2])(text) from best[2]

    def _pipeline(self, steps: Sequence[Step]) -> Pipeline:
        made: dict[str, Module] = {}
        for step in steps:
            if step.type == "parallel":
                made[step.name] = Parallel([self._pipeline(b) for b in step.branches], step.merge, step.axis)
            elif step.type == "residual":
                made[step.name] = Residual(self._pipeline(step.branches[0]))
            else:
                made[step.name] = self.registry.create(step.type, step.config)
        return Pipeline(made)

    def _check_built(self, model: Pipeline, steps: Sequence[Step], flow: Flow) -> None:
        """For modules whose constructors look at values: once more, with the built ones."""
        walk = Walk(self._owner, self.registry, model)
        try:
            walk.steps(steps, flow)
        except NoValueError as error:
            _log.warning("%s: its shapes cannot be checked: %s", self._owner, error)
            return
        for row in walk.rows:
            if row.output is None:
                _log.warning("%s: the shape behind %s cannot be checked: %s", self._owner, row.path, row.note)

    def __repr__(self) -> str:
        shape = "" if self.input_shape is None else f", input {self.input_shape}"
        return f"<{self._owner} of {sum(step.count() for step in self._steps)} modules{shape}>"

    # ------------------------------------------------------------ as data
    def to_config(self) -> dict[str, Any]:
        """The plan in plain values.

        Raises:
            ConfigError: a setting is an object that no file can hold.
        """
        made: dict[str, Any] = {"version": _VERSION}
        if self.name:
            made["name"] = self.name
        if self.input_shape is not None:
            made["input"] = list(self.input_shape)
        if self.dtype is not None:
            made["dtype"] = self.dtype.name
        made["modules"] = [step.to_config(self.registry) for step in self._steps]
        return made

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], registry: ModuleDiscoveryRegistry | None = None
    ) -> ModulePipelineBuilder:
        """A builder with a plan in plain values, such as `to_config` gives.

        Raises:
            ConfigError: something in it is wrong; the message says where.
            RegistryError: a module's type is unknown.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(f"pipeline: expected a mapping with the key modules; received {received(config)}.")
        check_keys(config, ("version", "name", "input", "dtype", "modules"), "pipeline")
        version = config.get("version", _VERSION)
        if version != _VERSION or isinstance(version, bool):
            raise ConfigError(f"pipeline: this spiral reads version {_VERSION}; received {received(version)}.")
        builder = cls(registry)
        if config.get("name") is not None:
            builder.with_name(config["name"])
        if config.get("input") is not None:
            builder.with_input(config["input"], config.get("dtype"))
        elif config.get("dtype") is not None:
            raise ConfigError(f"{builder._owner}: dtype goes with input.")
        builder._steps = Reader(builder.registry).steps(config.get("modules"), "modules")
        return builder

    def save(self, path: str | Path) -> None:
        """Writes the plan to a ``.yaml``, ``.yml`` or ``.json`` file."""
        save_plain(self.to_config(), path)

    @classmethod
    def load(cls, path: str | Path, registry: ModuleDiscoveryRegistry | None = None) -> ModulePipelineBuilder:
        """A builder with the plan of a file; see `from_config`.

        Raises:
            ConfigError: the file cannot be read, or something in it is wrong.
        """
        try:
            return cls.from_config(load_plain(path), registry)
        except ConfigError as error:
            if str(path) in str(error):
                raise
            raise ConfigError(f"{path}: {error}") from error
