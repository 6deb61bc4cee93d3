"""What is known of a module type: its names, category, settings and shapes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from spiral.docstrings import summary
from spiral.errors import RegistryError, received
from spiral.schema import MISSING, Field, Schema

Shape = tuple[int, ...]


class ModuleCategory(Enum):
    """What kind of module it is."""

    LAYER = "Layer"
    LOSS = "Loss"
    OPTIMIZER = "Optimizer"
    ACTIVATION = "Activation"
    NORMALIZATION = "Normalization"
    ATTENTION = "Attention"
    CONVOLUTION = "Convolution"
    POOLING = "Pooling"
    EMBEDDING = "Embedding"
    ENCODER = "Encoder"
    DECODER = "Decoder"
    CUSTOM = "Custom"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def of(cls, category: ModuleCategory | str) -> ModuleCategory:
        """The category of a name such as ``"pooling"``.

        Raises:
            RegistryError: there is no such category.
        """
        if isinstance(category, cls):
            return category
        for member in cls:
            if isinstance(category, str) and category.strip().lower() == member.value.lower():
                return member
        raise RegistryError(f"category: expected one of {', '.join(map(str, cls))}; received {received(category)}.")


@dataclass(frozen=True)
class ModuleMetadata:
    """A module type.

    Attributes:
        module_type: its name in configurations, such as ``conv2d``.
        display_name: its name for people; made from `module_type` where it is empty.
        description: one sentence.
        input_shape: what it takes, without the batch, where that is fixed: ``(3, 224, 224)``.
        output_shape: what it gives, without the batch.
        parameters: its settings, a `Schema`. Given as a mapping, a value is a `Field`, a type (a required setting) or a
            default; an empty one lets every setting through as it is, and is filled from the signature of a class.
        category: see `ModuleCategory`, also by name.

    Raises:
        RegistryError: one of these is something else.
    """

    module_type: str
    display_name: str = ""
    description: str = ""
    input_shape: Shape | None = None
    output_shape: Shape | None = None
    parameters: Schema = field(default_factory=lambda: Schema("", open=True))
    category: ModuleCategory = ModuleCategory.CUSTOM

    def __post_init__(self) -> None:
        name = self.module_type
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*([.-]\w+)*", name):
            raise RegistryError(
                f"module: module_type must be a word such as 'custom_conv' (letters, digits, _, - and .); "
                f"received {received(name)}."
            )
        put = object.__setattr__
        put(self, "display_name", self.display_name or name.replace("_", " ").title())
        put(self, "category", ModuleCategory.of(self.category))
        put(self, "input_shape", _shape(name, "input_shape", self.input_shape))
        put(self, "output_shape", _shape(name, "output_shape", self.output_shape))
        put(self, "parameters", _parameters(name, self.parameters, self.description))

    @classmethod
    def of(
        cls, made_by: Callable[..., Any], *, name: str = "", category: ModuleCategory | str | None = None
    ) -> ModuleMetadata:
        """Metadata derived from a class or function: name, docstring, signature, and the category of its bases."""
        plain = getattr(made_by, "__name__", type(made_by).__name__)
        name = name or module_type_of(plain)
        return cls(
            name,
            plain,
            summary(made_by),
            parameters=Schema.of(made_by, owner=name),
            category=ModuleCategory.of(category) if category is not None else _category_of(made_by),
        )


def module_type_of(class_name: str) -> str:
    """The name in configurations of a class.

    Example:
        >>> [module_type_of(n) for n in ("Conv2d", "LeakyReLU", "GELU", "RMSNorm", "SwiGLU", "BCELoss", "L1Loss")]
        ['conv2d', 'leaky_relu', 'gelu', 'rms_norm', 'swiglu', 'bce_loss', 'l1_loss']
    """
    name = re.sub(r"(Re|Si|Swi|Ge|GE|G|E)(LU|GLU)\b", lambda m: m[0].capitalize(), class_name)
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


_BY_FILE = {
    "activation": ModuleCategory.ACTIVATION,
    "attention": ModuleCategory.ATTENTION,
    "conv": ModuleCategory.CONVOLUTION,
    "embedding": ModuleCategory.EMBEDDING,
    "rotary": ModuleCategory.EMBEDDING,
    "loss": ModuleCategory.LOSS,
    "norm": ModuleCategory.NORMALIZATION,
    "pool": ModuleCategory.POOLING,
}
_LAYERS = ("Identity", "Flatten")  # in the activations' file, and none


def _category_of(made_by: Any) -> ModuleCategory:
    """By the file of the nearest class of spiral.nn among the bases; its own classes elsewhere are layers."""
    for base in getattr(made_by, "__mro__", ()):
        package, _, file = base.__module__.rpartition(".")
        if package != "spiral.nn" or file in ("module", "container"):
            continue
        if base.__name__ in _LAYERS:
            return ModuleCategory.LAYER
        return _BY_FILE.get(file, ModuleCategory.LAYER)
    return ModuleCategory.CUSTOM


def _shape(owner: str, what: str, value: Any) -> Shape | None:
    if value is None:
        return None
    if isinstance(value, (list, tuple)) and all(type(n) is int and n >= 0 for n in value):
        return tuple(value)
    raise RegistryError(
        f"module {owner!r}: {what} must be lengths without the batch, or None; received {received(value)}."
    )


def _parameters(owner: str, given: Any, description: str) -> Schema:
    if isinstance(given, Schema):
        return Schema(owner, tuple(given.values()), given.description or description, open=given.open)
    if not isinstance(given, Mapping) or not all(isinstance(k, str) for k in given):
        raise RegistryError(
            f"module {owner!r}: parameters must be a Schema, or fields by name; received {received(given)}."
        )
    fields = []
    for name, value in given.items():
        if isinstance(value, Field):
            made = Field(name, value.hint, value.default, value.help)
        elif isinstance(value, type):
            made = Field(name, value, MISSING)
        else:
            made = Field(name, Any if value is None else type(value), value)
        fields.append(made)
    return Schema(owner, fields, description, open=not fields)


def is_module_class(value: Any) -> bool:
    """Whether it is a class of modules."""
    from spiral.nn.module import Module

    return inspect.isclass(value) and issubclass(value, Module)
