"""Schemas derived from callables: what they take from texts, files and Python, and how they refuse the rest."""

import enum
import functools
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import numpy as np
import pytest

from spiral import nn, optim
from spiral.docstrings import argument_help, summary
from spiral.errors import ArgumentError, ConfigError
from spiral.schema import MISSING, Field, InvalidConfig, OneOf, Range, Schema

if TYPE_CHECKING:
    from nowhere import Ghost


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


def thing(
    count: Annotated[int, Range(1, 8)],
    rate: float = 0.5,
    flag: bool = False,
    name: str = "x",
    mode: Literal["near", "far"] | None = None,
    size: int | tuple[int, int] = 1,
    colour: Colour = Colour.RED,
    betas: tuple[float, float] = (0.9, 0.99),
    sizes: Sequence[int] = (),
    folder: Path | None = None,
    label: Optional[str] = None,  # noqa: UP045
    kind: Annotated[str, OneOf("a", "b")] = "a",
    after: Callable[..., Any] | None = None,
    table: dict[str, int] | None = None,
) -> None:
    """A thing.

    Args:
        count: How many,
            over two lines.
        rate: Per second.

    Returns:
        Nothing: really.
    """


SCHEMA = Schema.of(thing)


@pytest.mark.parametrize(
    ("key", "given", "wanted"),
    [
        ("count", "3", 3),
        ("count", " +3 ", 3),
        ("count", np.int8(3), 3),
        ("rate", 1, 1.0),
        ("rate", "1e-3", 0.001),
        ("rate", ".5", 0.5),
        ("rate", np.float32(0.5), 0.5),
        ("flag", "yes", True),
        ("flag", "FALSE", False),
        ("flag", np.True_, True),
        ("name", "3", "3"),
        ("mode", "near", "near"),
        ("mode", "null", None),
        ("mode", None, None),
        ("size", "3", 3),
        ("size", "(3, 4)", (3, 4)),
        ("size", "3x4", (3, 4)),
        ("size", [3, 4], (3, 4)),
        ("colour", "red", Colour.RED),
        ("colour", "BLUE", Colour.BLUE),
        ("colour", 2, Colour.BLUE),
        ("betas", "0.8,1", (0.8, 1.0)),
        ("sizes", "1,2,3", (1, 2, 3)),
        ("sizes", "", ()),
        ("folder", "/tmp", Path("/tmp")),
        ("folder", "none", None),
        ("label", "none", "none"),
        ("label", "null", None),
        ("kind", "b", "b"),
        ("after", print, print),
        ("table", '{"a": 1}', {"a": 1}),
    ],
)
def test_values_from_texts_files_and_python_are_converted(key, given, wanted):
    made = SCHEMA.parse({key: given}, partial=True)[key]
    assert made == wanted and type(made) is type(wanted)


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("count", 2.5), ("count", 2.0), ("count", "2.5"), ("count", True), ("count", "0x3"), ("count", ""),
        ("count", 0), ("count", 9), ("count", "9" * 5000), ("count", None), ("count", "__import__('os')"),
        ("rate", True), ("rate", "fast"), ("rate", float("nan")), ("rate", "inf"), ("rate", 10**400), ("rate", "1e999"),
        ("flag", 1), ("flag", "maybe"), ("flag", None), ("name", 3), ("name", None),
        ("mode", "middle"), ("size", [1, 2, 3]), ("size", "1,2,3"), ("size", [1.5, 2]), ("size", "((((1"),
        ("colour", "green"), ("colour", True), ("betas", "0.9"), ("betas", 0.9), ("sizes", "1,x"), ("sizes", {1: 2}),
        ("folder", "a\0b"), ("folder", 3), ("kind", "c"), ("after", "print"), ("table", "[1]"), ("table", '{"a": "b"}'),
    ],
)  # fmt: skip
def test_other_values_are_refused_by_key_with_what_is_allowed(key, given):
    with pytest.raises(ConfigError, match=f"^thing: {key} must be .+; received .+"):
        SCHEMA.parse({key: given}, partial=True)


def test_all_problems_are_told_at_once():
    with pytest.raises(InvalidConfig) as caught:
        SCHEMA.parse({"rat": 1, "flag": "perhaps", "size": "big", 3: 4})
    problems = caught.value.problems
    assert len(problems) == 5 and "did you mean rate?" in problems[0]
    assert any("flag must be true or false" in p for p in problems) and any("count is missing" in p for p in problems)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_limits_are_told_in_words():
    with pytest.raises(ConfigError, match="count must be an integer of at least 1 and at most 8; received 9"):
        SCHEMA.parse({"count": 9})


def test_a_configuration_that_is_no_mapping_is_refused():
    with pytest.raises(ConfigError, match="expected settings by name"):
        SCHEMA.parse([("count", 1)])


def test_help_comes_from_the_docstring_and_stops_at_the_next_section():
    assert SCHEMA["count"].help == "How many, over two lines." and SCHEMA["rate"].help == "Per second."
    assert summary(thing) == "A thing." and "Nothing" not in argument_help(thing)


def test_what_a_class_refers_to_is_followed():
    assert Schema.of(nn.GRU)["hidden_size"].help == Schema.of(nn.LSTM)["hidden_size"].help != ""
    assert Schema.of(nn.BatchNorm1d)["momentum"].help.startswith("Share of the batch")


def test_fields_know_type_default_range_choices():
    count, kind = SCHEMA["count"], SCHEMA["kind"]
    assert (count.type, count.default, count.range, count.required) == ("integer", MISSING, Range(1, 8), True)
    assert (kind.choices, kind.default, SCHEMA["mode"].choices) == (("a", "b"), "a", ("near", "far"))
    assert Schema.of(nn.Conv2d)["padding"].range == Range(0) and Schema.of(nn.Conv2d)["padding"].choices == ("same",)


def test_json_schema_is_json_and_has_limits():
    made = json.loads(json.dumps(SCHEMA.to_json()))
    assert made["properties"]["count"] == {
        "type": "integer", "minimum": 1, "maximum": 8, "description": "How many, over two lines.",
    }  # fmt: skip
    assert made["required"] == ["count"] and made["additionalProperties"] is False
    assert made["properties"]["colour"] == {"enum": ["red", "BLUE"], "default": "red"}


def test_the_table_lists_every_field():
    lines = SCHEMA.table().splitlines()
    assert len(lines) == 1 + len(SCHEMA) and "at least 1 and at most 8" in lines[1] and "required" in lines[1]
    assert Schema.of(nn.ReLU).table() == "(no settings)"


def test_plain_values_stand_in_a_file_and_come_back():
    values = SCHEMA.parse({"count": 3, "colour": "BLUE", "betas": "0.1,0.2", "folder": "/x"})
    plain = SCHEMA.plain(values)
    assert json.loads(json.dumps(plain)) == plain and SCHEMA.parse(plain) == values
    with pytest.raises(ConfigError, match="after cannot stand in a file"):
        SCHEMA.plain({"after": print})


def test_optimizers_dataclasses_partials_and_callables_have_schemas():
    adam = Schema.of(optim.AdamW, skip=("params",))
    assert adam.parse({"lr": "1e-3", "betas": [0.9, 0.95]}) == {"lr": 0.001, "betas": (0.9, 0.95)}

    @dataclass
    class Settings:
        width: int
        depth: int = 2

    assert Schema.of(Settings).parse({"width": "3"}) == {"width": 3}
    assert Schema.of(functools.partial(thing, rate=1.0), owner="part")["rate"].default == 1.0

    class Caller:
        def __call__(self, level: int = 3) -> None: ...

    assert Schema.of(Caller())["level"].type == "integer"


def test_an_annotation_that_cannot_be_resolved_allows_anything_and_spoils_no_other():
    def ghostly(ghost: "Ghost", count: int = 1) -> None: ...

    schema = Schema.of(ghostly)
    assert schema.parse({"ghost": object, "count": "2"}) == {"ghost": object, "count": 2}
    with pytest.raises(ConfigError):
        schema.parse({"ghost": 1, "count": "x"})


def test_further_keywords_are_let_through_only_where_the_callable_takes_them():
    def loose(a: int, **rest: Any) -> None: ...

    assert Schema.of(loose).parse({"a": "1", "b": "2"}) == {"a": 1, "b": "2"}
    with pytest.raises(ConfigError, match="unknown key 'not a name'"):
        Schema.of(loose).parse({"a": 1, "not a name": 2})


@pytest.mark.parametrize("bad", [3, "Linear", None])
def test_what_cannot_be_called_has_no_schema(bad):
    with pytest.raises(ArgumentError):
        Schema.of(bad)


def test_a_plain_field_takes_anything():
    assert Field("x").parse(object) is object


@pytest.mark.parametrize(
    ("make", "good"),
    [
        (nn.Linear, {"in_features": 3, "out_features": 2}),
        (nn.Conv2d, {"in_channels": 2, "out_channels": 2, "kernel_size": 3}),
        (nn.Conv1d, {"in_channels": 2, "out_channels": 2, "kernel_size": 3}),
        (nn.LSTM, {"input_size": 3, "hidden_size": 2}),
        (nn.LayerNorm, {"normalized_shape": 3}),
        (nn.BatchNorm2d, {"num_features": 3}),
        (nn.GroupNorm, {"num_groups": 1, "num_channels": 3}),
        (nn.MultiHeadAttention, {"d_model": 8, "n_head": 2}),
        (nn.RotaryEmbedding, {"dim": 4}),
        (nn.Dropout, {}),
        (nn.MaxPool2d, {"kernel_size": 2}),
        (nn.HuberLoss, {}),
        (nn.KLDivLoss, {}),
        (nn.CrossEntropyLoss, {}),
        (nn.GELU, {}),
        (nn.Softplus, {}),
    ],
)
def test_the_limits_of_built_in_modules_are_those_that_their_constructors_keep(make, good):
    for field in Schema.of(make).values():
        limits, outside = field.range, []
        if limits is not None:
            outside += [limits.low if limits.open_low else limits.low - 1] if limits.low is not None else []
            outside += [limits.high + 1] if limits.high is not None else []
        if field.choices:
            outside.append("no such choice")
        for value in outside:
            with pytest.raises(ConfigError):
                Schema.of(make).parse({**good, field.name: value})
            with pytest.raises(ArgumentError):
                make(**{**good, field.name: value})
        if field.choices:
            for value in field.choices:
                make(**{**good, field.name: value})
