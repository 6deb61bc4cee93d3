"""A registered module type: its metadata, and how one is made from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from spiral.errors import ArgumentError, ConfigError, RegistryError, kind_of, received
from spiral.nn.discovery.metadata import ModuleCategory, ModuleMetadata, Shape, is_module_class
from spiral.nn.module import Module
from spiral.schema import Schema

Factory = Callable[..., Any]
ShapeRule = Callable[[Mapping[str, Any], Shape], Shape]
RESERVED = ("parallel", "residual")
"""What pipelines call their branches."""


class ModuleEntry:
    """What a catalog of modules holds.

    Args:
        factory: a `Module` class or function called with the settings by name; or, with metadata, a function of one
            dictionary of settings.
        metadata: what is known of it; None: derived from the factory at the first question.
        name: its type's name where the metadata are derived.
        category: its category where the metadata are derived.
        output_shape: ``output_shape(config, input_shape)``, without the batch, for a module that cannot be evaluated
            without values.
    """

    def __init__(
        self,
        factory: Factory,
        metadata: ModuleMetadata | None = None,
        *,
        name: str = "",
        category: ModuleCategory | str | None = None,
        output_shape: ShapeRule | None = None,
    ) -> None:
        self.factory = factory
        self.output_shape = output_shape
        self._given, self._name, self._category = metadata, name, category

    @cached_property
    def metadata(self) -> ModuleMetadata:
        """What is known of it."""
        given = self._given
        if given is None:
            return ModuleMetadata.of(self.factory, name=self._name, category=self._category)
        if not is_module_class(self.factory) or not (given.parameters.open and not given.parameters):
            return given
        return ModuleMetadata(
            given.module_type,
            given.display_name,
            given.description,
            given.input_shape,
            given.output_shape,
            Schema.of(self.factory, owner=given.module_type),
            given.category,
        )

    def make(self, config: Mapping[str, Any] | None) -> Module:
        """A module of these settings.

        Raises:
            ConfigError: the settings do not fit, by the schema or by the module's own checks.
            RegistryError: the factory gave something else.
        """
        name = self.metadata.module_type
        settings = self.metadata.parameters.parse(config)
        by_name = self._given is None or is_module_class(self.factory)
        try:
            made = self.factory(**settings) if by_name else self.factory(self._complete(settings))
        except ArgumentError as error:
            raise ConfigError(f"{name}: {error}") from error
        except (ValueError, TypeError, AssertionError) as error:  # a foreign constructor's way to refuse a setting
            raise ConfigError(f"{name}: {type(error).__name__}: {error}") from error
        if not isinstance(made, Module):
            raise RegistryError(f"module {name!r}: its factory must give a Module; it gave {kind_of(made)}.")
        return made

    def _complete(self, settings: dict[str, Any]) -> dict[str, Any]:
        """With the declared defaults: a function of settings, unlike a constructor, has none of its own."""
        declared = self.metadata.parameters.values()
        return {**{f.name: f.default for f in declared if not f.required}, **settings}

    def __repr__(self) -> str:
        return f"<module {self.metadata.module_type} by {getattr(self.factory, '__qualname__', self.factory)}>"


def check_entry(name: str, value: Any) -> None:
    """Raises RegistryError for what a catalog of modules does not take: a module class, a factory, or an entry."""
    if name in RESERVED:
        raise RegistryError(f"module {name!r}: the name stands for branches of a pipeline; choose another.")
    if not isinstance(value, ModuleEntry) and not callable(value):
        raise RegistryError(
            f"module {name!r}: expected a Module class, or a function that makes one; received {received(value)}."
        )


def entry_of(name: str, value: Any) -> ModuleEntry:
    """The entry; a bare class or function, put into the catalog as it is, has one derived."""
    return value if isinstance(value, ModuleEntry) else ModuleEntry(value, name=name)
