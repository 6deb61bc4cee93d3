"""The registry of module types: found by name, category and text, and made from configurations."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from spiral import nn
from spiral.dtype import DEFAULT_FLOAT, DEFAULT_INT, DType
from spiral.errors import ArgumentError, ConfigError, RegistryError, ShapeError, SpiralError, received
from spiral.nn.discovery.entry import RESERVED, Factory, ModuleEntry, ShapeRule, check_entry, entry_of
from spiral.nn.discovery.metadata import ModuleCategory, ModuleMetadata, Shape, is_module_class, module_type_of
from spiral.nn.discovery.shapes import shape_after, shown
from spiral.nn.module import Module
from spiral.ownership import Addition, spirals_own
from spiral.registry import Catalog, UnknownName, catalog
from spiral.schema import Schema
from spiral.shape_evaluation import shapes_only

Found = list[ModuleMetadata]
_CONTAINERS = ("Module", "ModuleDict", "ModuleList", "Sequential")


class ModuleDiscoveryRegistry:
    """Module types by name; a view of a `Catalog`.

    Names are found in any spelling of their words (``MaxPool2d``, ``max_pool2d``, ``maxpool2d``), and without the
    number of dimensions two are meant (``maxpool``).

    Args:
        builtins: whether it starts with every layer of `spiral.nn`.

    Example:
        >>> registry = ModuleDiscoveryRegistry()
        >>> registry.create("linear", {"in_features": "3", "out_features": 2})
        Linear(3 -> 2, weight: (2, 3), bias: (2,))
        >>> registry.output_shape("conv2d", {"in_channels": 3, "out_channels": 8, "kernel_size": 3}, (3, 32, 32))
        (8, 30, 30)
    """

    def __init__(self, *, builtins: bool = True) -> None:
        self.catalog: Catalog[Any] = Catalog("module", check_entry)
        with spirals_own():
            if builtins:
                _add_builtins(self.catalog)
            self.catalog.watch(_announcer(self.catalog))

    @classmethod
    def shared(cls) -> ModuleDiscoveryRegistry:
        """The registry of the process, to which plugins add."""
        made = cls.__new__(cls)
        made.catalog = SHARED
        return made

    # ------------------------------------------------------------ changing
    def register(
        self,
        module: ModuleMetadata | type[Module] | Callable[..., Module],
        factory: Factory | None = None,
        *,
        name: str = "",
        category: ModuleCategory | str | None = None,
        output_shape: ShapeRule | None = None,
        replace: bool = False,
    ) -> Addition:
        """Adds a module type, and publishes `ModuleRegistered`.

        Args:
            module: a Module class, or a function that makes one from settings by name: everything else is derived
                from its signature and docstring. Or metadata.
            factory: with metadata, what makes the module: a Module class, or a function of one dictionary of settings.
                It also runs for checks, without weights, and so must do nothing else.
            name: the type's name; empty: the class's or the metadata's.
            category: its category, where there are no metadata.
            output_shape: ``output_shape(config, input_shape)``, both without the batch; only needed where running the
                module without values fails.
            replace: whether it may take the place of another type of the name.

        Raises:
            RegistryError: the name is taken, or an argument is something else.
        """
        if isinstance(module, ModuleMetadata):
            if not callable(factory):
                raise RegistryError(
                    f"module {module.module_type!r}: metadata need a factory; received {received(factory)}."
                )
            module = dataclasses.replace(module, module_type=name or module.module_type)
            name = module.module_type
            entry = ModuleEntry(factory, module, output_shape=output_shape)
        elif factory is not None:
            raise RegistryError(
                f"module: a factory goes with ModuleMetadata as its first argument; received {received(module)}."
            )
        elif not callable(module) or isinstance(module, Module):
            raise RegistryError(
                f"module: expected ModuleMetadata, a Module class or a function that makes one; "
                f"received {received(module)}."
            )
        else:
            name = name or module_type_of(getattr(module, "__name__", ""))
            entry = ModuleEntry(module, name=name, category=category, output_shape=output_shape)
        entry.metadata  # noqa: B018 (a signature or a docstring that cannot be read is told here, not at first use)
        return self.catalog.add(name, entry, replace=replace)

    def replace(self, module: Any, factory: Factory | None = None, **options: Any) -> Addition:
        """As `register`, in the place of another type, which comes back when this one is unregistered."""
        return self.register(module, factory, replace=True, **options)

    def unregister(self, module_type: str) -> None:
        """Takes a type away; what it had replaced comes back.

        Raises:
            RegistryError: there is no such type.
        """
        self.catalog.remove(self.name_of(module_type))

    # ------------------------------------------------------------ finding
    def name_of(self, module_type: str) -> str:
        """The registered name that is meant.

        Raises:
            RegistryError: there is none; the message lists similar ones.
        """
        if module_type in self.catalog or not isinstance(module_type, str):
            self.catalog[module_type]  # raises for what is no text
            return module_type
        plain = _plain(module_type)
        for wanted in (plain, f"{plain}2d"):
            found = [name for name in self.catalog if _plain(name) == wanted]
            if len(found) == 1:
                return found[0]
        self.catalog[module_type]
        raise UnknownName(f"module: there is no module {module_type!r}.")

    def entry(self, module_type: str) -> ModuleEntry:
        """The entry of a type."""
        name = self.name_of(module_type)
        return entry_of(name, self.catalog[name])

    def get(self, module_type: str) -> ModuleMetadata:
        """What is known of a type.

        Raises:
            RegistryError: there is no such type.
        """
        return self.entry(module_type).metadata

    def schema(self, module_type: str) -> Schema:
        """The settings of a type."""
        return self.get(module_type).parameters

    def list(self) -> Found:
        """Every type, by name."""
        return [entry_of(name, value).metadata for name, value in sorted(self.catalog.table().items())]

    def find(self, category: ModuleCategory | str | None = None, text: str = "") -> Found:
        """The types of a category whose name or description has the text in it."""
        wanted = None if category is None else ModuleCategory.of(category)
        return [
            m
            for m in self.list()
            if wanted in (None, m.category)
            and text.lower() in f"{m.module_type} {m.display_name} {m.description}".lower()
        ]

    def __contains__(self, module_type: object) -> bool:
        try:
            self.name_of(module_type)  # type: ignore[arg-type]
        except UnknownName:
            return False
        return True

    def __len__(self) -> int:
        return len(self.catalog)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.catalog))

    def __repr__(self) -> str:
        return f"<{len(self)} module types>"

    # ------------------------------------------------------------ making
    def create(self, module_type: str, config: Mapping[str, Any] | None = None) -> Module:
        """A module of a type.

        Raises:
            RegistryError: there is no such type.
            ConfigError: the settings do not fit; the message lists every problem.
        """
        return self.entry(module_type).make(config)

    def output_shape(
        self, module_type: str, config: Mapping[str, Any] | None, input_shape: Shape, dtype: DType | None = None
    ) -> Shape:
        """The shape that a module of these settings gives; no weight is allocated.

        Args:
            module_type: the type's name.
            config: its settings.
            input_shape: of one sample: ``(3, 32, 32)``.
            dtype: of the input; float32, or for embeddings int64, by default.

        Raises:
            ShapeError: the module does not take this shape, or cannot be evaluated without values.
            ConfigError: the settings do not fit.
        """
        entry = self.entry(module_type)
        if not isinstance(input_shape, (tuple, list)) or not all(type(n) is int and n >= 0 for n in input_shape):
            raise ArgumentError(
                f"output_shape: input_shape must be lengths without the batch; received {received(input_shape)}."
            )
        if dtype is None:
            dtype = DEFAULT_INT if entry.metadata.category is ModuleCategory.EMBEDDING else DEFAULT_FLOAT
        try:
            return evaluate(entry, config, tuple(input_shape), dtype)[0]
        except (ConfigError, RegistryError):
            raise
        except SpiralError as error:
            what = f"{entry.metadata.module_type}: does not take {dtype.name} {shown(tuple(input_shape))}"
            raise ShapeError(f"{what}: {error}") from error


def evaluate(entry: ModuleEntry, config: Mapping[str, Any] | None, shape: Shape, dtype: DType) -> tuple[Shape, DType]:
    """Shape and dtype after a module that is made without weights; the entry's own rule where it has one."""
    if entry.output_shape is not None:
        return tuple(entry.output_shape(entry.metadata.parameters.parse(config), shape)), dtype
    with shapes_only():
        module = entry.make(config)
    return shape_after(module.eval(), shape, dtype)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _add_builtins(into: Catalog[Any]) -> None:
    """Every layer of spiral.nn."""
    for name in nn.__all__:
        made_by = getattr(nn, name)
        if is_module_class(made_by) and name not in _CONTAINERS:
            into.add(module_type_of(name), ModuleEntry(made_by, name=module_type_of(name)))


def _announcer(of: Catalog[Any]) -> Callable[[str], None]:
    def announce(name: str) -> None:
        if name in of:
            from spiral.plugin import ModuleRegistered, event_bus

            event_bus.publish(ModuleRegistered(name))

    return announce


SHARED: Catalog[Any] = catalog("module", check_entry)
with spirals_own():  # also where a plugin's loading is the first to ask
    _add_builtins(SHARED)
    SHARED.watch(_announcer(SHARED))

__all__ = ["RESERVED", "SHARED", "ModuleDiscoveryRegistry", "evaluate"]
