"""Services and the types that callers expect; settings of plugins and of users."""

from __future__ import annotations

import collections.abc
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import pytest

from spiral.errors import ConfigError, RegistryError
from spiral.plugin import Configuration, Services, ServiceTypeError
from spiral.registry import Catalog

T = TypeVar("T")


class Named(Protocol):
    @property
    def name(self) -> str: ...


@runtime_checkable
class Store(Named, Protocol[T]):
    size: int

    def read(self, key: str) -> T: ...


class Complete:
    name = "complete"
    size = 1

    def read(self, key):
        return key


class Box(Generic[T]):
    pass


class Computed(Complete):
    @property
    def name(self):
        raise RuntimeError("not just now")


class NoMethod(Complete):
    read = 3


@pytest.fixture
def services():
    return Services(Catalog("service"))


FITTING: list[tuple[Any, Any]] = [
    (Complete(), Store), (Complete(), Store[int]), (Computed(), Store), (Complete(), Complete),
    (Box(), Box[int]), ([1], list[int]), (1, int | str), ("x", (int, str)), (print, collections.abc.Callable),
    (None, type(None)), (None, None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind"), FITTING)
def test_what_fits_is_given(services, value, kind):
    services.register("it", value)
    assert services.get("it", kind) is value


WRONG: list[tuple[Any, Any, str]] = [
    (object(), Store, "lacks name, read, size"),
    (NoMethod(), Store, "has no method read, but a value of this name"),
    (None, Store, "a NoneType, which lacks name, read, size"),
    (None, Complete, "a NoneType, which is no Complete"),
    ({}, list[int], "which is no list"),
    (1.5, int | str, r"which is no int \| str"),
    (1.5, (int, str), "which is none of int or str"),
    (1, "int", "the expected type is a class or a Protocol; received 'int'"),
]


@pytest.mark.parametrize(("value", "kind", "text"), WRONG)
def test_what_does_not_fit_is_an_error_that_says_why(services, value, kind, text):
    services.register("it", value)
    with pytest.raises(ServiceTypeError, match=text):
        services.get("it", kind)


# ---------------------------------------------------------------- settings
@pytest.fixture
def environment():
    return {}


@pytest.fixture
def settings(environment):
    return Configuration(Catalog("setting"), environment=environment)


def test_no_key_is_another_plugins_or_the_users(settings):
    settings.set("a", "b/c (user)", 1)
    settings.set("a", "b/c", 2)
    assert settings.get("a", "b/c") == 2 and settings.get("a", "b") is None
    settings.override("a", "b/c", 3)
    assert (settings.get("a", "b/c"), settings.get("a", "b/c (user)")) == (3, 1)
    assert settings.keys() == ["a/b/c", "a/b/c (user)"]


def test_an_override_outlives_what_it_overrides(settings):
    settings.set("a", "k", 1)
    override = settings.override("a", "k", 2)
    assert settings.unset("a", "k") and not settings.unset("a", "k")
    assert settings.get("a", "k") == 2 and settings.origin("a", "k") == "user"
    override.undo()
    assert settings.get("a", "k", "default") == "default"


def test_a_variable_that_stands_for_two_settings_is_refused(settings, environment):
    settings.set("a-b", "c", 1)
    settings.set("a_b", "c", 2)
    assert settings.get("a-b", "c") == 1
    environment["SPIRAL_CONFIG__A_B__C"] = "3"
    with pytest.raises(ConfigError, match="SPIRAL_CONFIG__A_B__C: stands for a-b/c and for a_b/c"):
        settings.get("a-b", "c")


def test_a_key_that_yaml_reads_as_a_number_is_named(settings, environment, tmp_path):
    path = tmp_path / "settings.yaml"
    environment["SPIRAL_PLUGIN_CONFIG"] = str(path)
    path.write_text("a: {8080: x}\n")
    with pytest.raises(ConfigError, match="a: a key is a string; received 8080"):
        settings.values("a")
    path.write_text("a: {'8080': x}\n")  # read again when it has changed
    assert settings.values("a") == {"8080": "x"}


def test_setting_a_plugins_value_from_outside_says_how(settings):
    from spiral.ownership import Ledger

    settings.set("a", "k", 1)
    with Ledger("a").recording(), pytest.raises(RegistryError, match=r"'a/k': was set by 'spiral'.*override"):
        settings.set("a", "k", 2)
