"""Choosing among several versions: the newest that fit, or the reason why none do."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiral.errors import RegistryError
from spiral.plugin.dependencies import DependencyError, Node, Requirement, validate
from spiral.plugin.version_choice import choose


def need(text: str) -> Requirement:
    id, _, specifier = text.removeprefix("?").partition(" ")
    return Requirement(id, specifier, text.startswith("?"))


def node(text: str, *needs: str, conflicts: tuple[str, ...] = (), provides: tuple[tuple[str, str], ...] = ()) -> Node:
    id, version = text.split()
    return Node(id, version, tuple(map(need, needs)), tuple(map(need, conflicts)), provides)


def pool(*nodes: Node) -> dict[str, list[Node]]:
    return {id: [n for n in nodes if n.id == id] for id in dict.fromkeys(n.id for n in nodes)}


def chosen(wanted: list[str], *nodes: Node, prefer: dict[str, str] | None = None) -> list[str]:
    return [str(n) for n in choose([need(w) for w in wanted], pool(*nodes), prefer)]


def test_newest_version_by_number_not_by_text():
    assert chosen(["a"], node("a 1.9"), node("a 1.10"), node("a 1.2")) == ["a 1.10"]


def test_older_version_is_taken_where_another_requirement_asks_for_it():
    there = [node("m 1.4"), node("m 2.1"), node("d 1", "m <2")]
    assert chosen(["m", "d"], *there) == ["m 1.4", "d 1"]
    assert chosen(["d", "m"], *there) == ["m 1.4", "d 1"]


def test_older_asker_is_taken_where_its_newest_needs_what_is_not_there():
    assert chosen(["t"], node("t 2", "m >=3"), node("t 1", "m"), node("m 2")) == ["m 2", "t 1"]


def test_prerelease_only_where_asked_for_or_nothing_else_fits():
    there = [node("a 1"), node("a 2rc1")]
    assert chosen(["a"], *there) == ["a 1"]
    assert chosen(["a >=2rc1"], *there) == ["a 2rc1"]
    assert chosen(["a >1"], *there) == ["a 2rc1"]


def test_installed_version_is_kept_where_it_fits():
    there = [node("a 1"), node("a 2"), node("b 1", "a"), node("c 1", "a >=2")]
    assert chosen(["b"], *there, prefer={"a": "1"}) == ["a 1", "b 1"]
    assert chosen(["c"], *there, prefer={"a": "1"}) == ["a 2", "c 1"]


def test_optional_requirement_adds_nothing_but_is_obeyed():
    there = [node("a 1", "?m <2"), node("m 1"), node("m 2"), node("b 1", "m")]
    assert chosen(["a"], *there) == ["a 1"]
    assert chosen(["a", "b"], *there) == ["m 1", "a 1", "b 1"]
    assert chosen(["b", "a"], *there) == ["m 1", "b 1", "a 1"]


def test_provider_is_taken_where_the_id_itself_does_not_fit():
    there = [node("a 1", "m >=2"), node("m 1"), node("fast 5", provides=(("m", "2.0"),))]
    assert chosen(["a"], *there) == ["fast 5", "a 1"]


def test_conflicting_versions_are_avoided():
    there = [node("a 2", conflicts=("b",)), node("a 1"), node("b 1")]
    assert chosen(["a", "b"], *there) == ["a 1", "b 1"]
    assert chosen(["b", "a"], *there) == ["b 1", "a 1"]


def test_missing_plugin_is_explained_with_similar_names():
    with pytest.raises(DependencyError, match="you asked for metrcs; there is no metrcs; similar: metrics"):
        chosen(["metrcs"], node("metrics 1"))


def test_missing_dependency_is_explained_for_all_versions_that_need_it():
    with pytest.raises(DependencyError, match=r"t 2, 1 needs? m >=3; there is m 2"):
        chosen(["t"], node("t 2", "m >=3"), node("t 1", "m >=3"), node("m 2"))


def test_unsatisfiable_set_names_all_who_ask():
    with pytest.raises(DependencyError) as caught:
        chosen(["t", "d"], node("t 2", "m >=2"), node("d 1.1", "m <2"), node("m 1.4"), node("m 2.1"))
    message = str(caught.value)
    for part in ("t 2 needs m >=2", "d 1.1 needs m <2", "m 2.1, m 1.4", "you asked for t", "you asked for d"):
        assert part in message


def test_explanation_leaves_out_what_has_nothing_to_do_with_it():
    others = [node(f"other{i} 1", "library") for i in range(5)] + [node("library 1"), node("library 2")]
    with pytest.raises(DependencyError) as caught:
        chosen([*(f"other{i}" for i in range(5)), "t"], *others, node("t 1", "gone"))
    assert "gone" in str(caught.value) and "other" not in str(caught.value) and "library" not in str(caught.value)


def test_conflict_is_explained_with_who_declares_it():
    with pytest.raises(DependencyError, match="a 2 excludes b; there would be b 1"):
        chosen(["a", "b"], node("a 2", conflicts=("b",)), node("b 1"))


def test_cycle_among_the_chosen_is_explained():
    with pytest.raises(DependencyError, match="a → b → a"):
        chosen(["a"], node("a 1", "b"), node("b 1", "a"))


def test_malformed_version_is_named():
    with pytest.raises(RegistryError, match="plugin 'a'.*'one'"):
        chosen(["a"], node("a one"))


def test_irrelevant_choices_are_not_gone_through_again():
    there = [node(f"p{i} {v}") for i in range(30) for v in range(1, 30)] + [node("z 1", "p0 >99")]
    start = time.perf_counter()
    with pytest.raises(DependencyError, match="z 1 needs p0 >99"):
        chosen([*(f"p{i}" for i in range(30)), "z"], *there)
    assert time.perf_counter() - start < 5  # 29³⁰ ways without going back to the culprit


def test_hopeless_search_ends_with_advice():
    n = 9  # pigeons and holes: exponential for any search of this kind
    there = [
        node(f"p{i} {v + 1}", f"hole{v} =={i + 1}") for i in range(n) for v in range(n - 1)
    ] + [node(f"hole{v} {i + 1}") for i in range(n) for v in range(n - 1)]  # fmt: skip
    start = time.perf_counter()
    with pytest.raises(DependencyError):
        chosen([f"p{i}" for i in range(n)], *there)
    assert time.perf_counter() - start < 30


SPECIFIERS = ["", "==1", "==2", "==3", ">=2", "<3", "!=2"]


@st.composite
def pools(draw: st.DrawFn) -> list[Node]:
    ids = ["a", "b", "c", "d"]
    nodes = []
    for place, id in enumerate(ids):
        for version in ("1", "2", "3")[: draw(st.integers(1, 3))]:
            later = ids[place + 1 :]  # no cycles
            needs = [
                Requirement(other, draw(st.sampled_from(SPECIFIERS)), draw(st.booleans()))
                for other in later
                if draw(st.booleans())
            ]
            against = [
                Requirement(other, draw(st.sampled_from(SPECIFIERS)))
                for other in ids
                if other != id and draw(st.integers(0, 5)) == 0
            ]
            nodes.append(Node(id, version, tuple(needs), tuple(against)))
    return nodes


@settings(max_examples=200, deadline=None)
@given(pools(), st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True))
def test_set_is_found_exactly_where_there_is_one(nodes, wanted):
    there = pool(*nodes)
    fitting = [
        picked
        for options in itertools.product(*([None, *versions] for versions in there.values()))
        if (picked := [n for n in options if n is not None])
        and {n.id for n in picked} >= set(wanted)
        and validate(picked).ok
    ]
    try:
        found = choose([Requirement(w) for w in wanted], there)
    except DependencyError as error:
        assert not fitting, error
    else:
        assert fitting and validate(found).ok and {n.id for n in found} >= set(wanted)
