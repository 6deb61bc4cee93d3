"""Every name of the array API standard 2024.12 exists with the standard's parameters.

``standard_2024_12.json`` holds names and signatures as facts; complex dtypes and the fft extension, which needs
them, are left out.
"""

import inspect
import json
from pathlib import Path

import pytest

import spiral as sp

STANDARD = json.loads((Path(__file__).parent / "standard_2024_12.json").read_text())


def parameters(function, skip_self=False):
    """Kind, default, and name where the name can be used."""
    out = []
    for p in inspect.signature(function).parameters.values():
        if skip_self and p.name == "self":
            continue
        name = None if p.kind is p.POSITIONAL_ONLY else p.name
        out.append((p.kind.name, name, None if p.default is p.empty else repr(p.default)))
    return out


def as_written(text):
    scope = {}
    exec(f"def f({text}): pass", scope)
    return parameters(scope["f"])


@pytest.mark.parametrize("name", sorted(STANDARD["functions"]))
def test_function_has_the_standard_signature(name):
    assert parameters(getattr(sp, name)) == as_written(STANDARD["functions"][name])


@pytest.mark.parametrize("name", sorted(STANDARD["linalg"]))
def test_linalg_function_has_the_standard_signature(name):
    assert parameters(getattr(sp.linalg, name)) == as_written(STANDARD["linalg"][name])


@pytest.mark.parametrize("name", sorted(STANDARD["methods"]))
def test_method_has_the_standard_signature(name):
    assert parameters(getattr(sp.Tensor, name), skip_self=True) == as_written(STANDARD["methods"][name])


@pytest.mark.parametrize("name", sorted(STANDARD["operators"]))
def test_reflected_and_in_place_operator_exists(name):
    got = parameters(getattr(sp.Tensor, name), skip_self=True)
    assert [p[0] for p in got] == ["POSITIONAL_ONLY"]


def test_constants_dtypes_and_attributes_exist():
    assert [n for n in STANDARD["constants_and_dtypes"] if not hasattr(sp, n)] == []
    assert [n for n in STANDARD["attributes"] if not hasattr(sp.ones((1, 1)), n)] == []
    assert sp.__array_api_version__ == "2024.12"


def test_linalg_exports_nothing_else():
    assert sorted(sp.linalg.__all__) == sorted(STANDARD["linalg"])
