"""Which plugins fit together, in which order they load, and how a set that does not fit is explained."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiral.errors import RegistryError
from spiral.plugin.dependencies import (
    DependencyError,
    Node,
    Requirement,
    check_specifier,
    cycles,
    missing,
    parse_version,
    resolve,
    satisfies,
    validate,
)


def node(text: str, *needs: str, conflicts: tuple[str, ...] = (), provides: tuple[tuple[str, str], ...] = ()) -> Node:
    id, version = text.split()
    return Node(id, version, tuple(map(need, needs)), tuple(map(need, conflicts)), provides)


def need(text: str) -> Requirement:
    """``metrics >=1``, ``?metrics >=1`` where optional."""
    id, _, specifier = text.removeprefix("?").partition(" ")
    return Requirement(id, specifier, text.startswith("?"))


def by_id(*nodes: Node) -> dict[str, Node]:
    return {n.id: n for n in nodes}


# ---------------------------------------------------------------- versions
@pytest.mark.parametrize("text", ["", "one", "1..2", "1.0-", "v", "1.0 beta gamma", "１.二", None, 1.0, b"1.0", ["1"]])
def test_malformed_version_is_refused_with_the_plugin_named(text):
    with pytest.raises(RegistryError, match=r"plugin 'metrics'.*PEP 440") as caught:
        parse_version(text, "metrics")
    assert str(text)[:10] in str(caught.value)


@pytest.mark.parametrize("text", ["1.0", ">=", "=>1", ">=1;<2", "^1.0", ">=1 or <2", ">1.*", "metrics>=1", None, 3])
def test_malformed_specifier_is_refused_with_the_plugin_named(text):
    with pytest.raises(RegistryError, match=r"plugin 'metrics'.*PEP 440") as caught:
        check_specifier(text, "metrics")
    assert str(text) in str(caught.value)


@pytest.mark.parametrize(
    ("version", "specifier", "fits"),
    [
        ("1.10", ">=1.9", True), ("1.4", "", True), ("1.4", ">=1.2,<2", True), ("2.0", ">=1.2,<2", False),
        ("2.0rc1", "", True), ("2.0rc1", ">=1", True), ("2.0rc1", ">=2", False), ("1.4.5", "~=1.4", True),
        ("1.4.post1", ">=1.4", True), ("1.4+local", "==1.4", True), ("1!1.0", ">5", True), ("1.4", "!=1.4.*", False),
    ],
)  # fmt: skip
def test_versions_compare_as_pep_440_says_and_a_prerelease_that_is_there_counts(version, specifier, fits):
    assert satisfies(version, specifier) is fits


def test_importing_the_module_does_not_import_packaging():
    code = "import sys, spiral.plugin.dependencies, spiral.plugin.version_choice; sys.exit('packaging' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---------------------------------------------------------------- order
def test_dependencies_come_first_and_ties_stay_as_given():
    nodes = [node("c 1", "z"), node("b 1"), node("z 1"), node("a 1", "b")]
    assert resolve(nodes) == ["b", "z", "c", "a"]


def test_what_is_loaded_satisfies_and_is_not_loaded_again():
    assert resolve([node("a 1", "b >=2")], by_id(node("b 2.1"))) == ["a"]


def test_nothing_to_load_is_no_error():
    assert resolve([]) == [] and validate([]).ok


def test_optional_dependency_orders_only_where_present():
    assert resolve([node("a 1", "?b")]) == ["a"]
    assert resolve([node("a 1", "?b"), node("b 1")]) == ["b", "a"]


def test_present_optional_dependency_of_the_wrong_version_is_an_error():
    with pytest.raises(DependencyError, match=r"a 1 needs b >=2 \(optional\); there is b 1"):
        resolve([node("a 1", "?b >=2"), node("b 1")])
    with pytest.raises(DependencyError, match=r"loaded is b 1"):
        resolve([node("a 1", "?b >=2")], by_id(node("b 1")))


def test_newcomer_that_a_loaded_plugin_cannot_stand_is_refused():
    with pytest.raises(DependencyError, match=r"dashboard 1 needs metrics <2 \(optional\); there is metrics 2"):
        resolve([node("metrics 2")], by_id(node("dashboard 1", "?metrics <2")))


def test_replacement_must_content_those_that_are_loaded():
    loaded = by_id(node("metrics 1"), node("dashboard 1", "metrics <2"))
    assert resolve([node("metrics 1.5")], loaded) == ["metrics"]
    with pytest.raises(DependencyError, match=r"dashboard 1 needs metrics <2; there is metrics 2"):
        resolve([node("metrics 2")], loaded)


def test_replacement_that_no_longer_provides_what_a_loaded_plugin_needs_is_refused():
    loaded = by_id(node("fast 1", provides=(("metrics", "1"),)), node("dashboard 1", "metrics"))
    with pytest.raises(DependencyError, match="dashboard 1 needs metrics; there is no metrics"):
        resolve([node("fast 2")], loaded)


def test_what_was_wrong_before_among_the_loaded_does_not_stop_a_stranger():
    assert resolve([node("new 1")], by_id(node("a 1", "gone"))) == ["new"]


def test_order_among_replacements_goes_through_plugins_that_stay():
    loaded = by_id(node("a 1", "b"), node("b 1", "c"), node("c 1"))
    assert resolve([node("a 2", "b"), node("c 2")], loaded) == ["c", "a"]


def test_replacement_that_closes_a_cycle_through_loaded_plugins_is_refused():
    with pytest.raises(DependencyError, match="m → d → m|d → m → d"):
        resolve([node("m 2", "d")], by_id(node("m 1"), node("d 1", "m")))


def test_id_given_twice_is_refused():
    with pytest.raises(DependencyError, match="'a': is given twice, as a 1 and as a 2"):
        resolve([node("a 1"), node("a 2")])


def test_ten_thousand_plugins_in_a_chain_are_ordered():
    nodes = [node(f"p{i} 1", f"p{i + 1}") for i in range(10_000)] + [node("p10000 1")]
    assert resolve(nodes) == [f"p{i}" for i in range(10_000, -1, -1)]


# ---------------------------------------------------------------- provides
def test_provider_stands_for_another_id():
    nodes = [node("a 1", "metrics >=1,<2"), node("fast 9", provides=(("metrics", "1.5"),))]
    assert resolve(nodes) == ["fast", "a"]


def test_provider_in_the_wrong_version_is_named_with_what_it_provides():
    with pytest.raises(DependencyError, match=r"there is fast 9, which provides metrics 1.5"):
        resolve([node("a 1", "metrics >=2"), node("fast 9", provides=(("metrics", "1.5"),))])


def test_provider_helps_out_where_the_id_itself_is_too_old():
    nodes = [node("a 1", "metrics >=2"), node("fast 9", provides=(("metrics", "2"),)), node("metrics 1")]
    assert resolve(nodes) == ["fast", "a", "metrics"]


def test_wrapper_may_need_the_id_that_it_provides():
    nodes = [node("wrapper 1", "metrics", provides=(("metrics", "3"),)), node("metrics 1"), node("a 1", "metrics")]
    assert resolve(nodes) == ["metrics", "wrapper", "a"]


def test_no_plugin_satisfies_its_own_requirement():
    with pytest.raises(DependencyError, match="there is no metrics"):
        resolve([node("wrapper 1", "metrics", provides=(("metrics", "3"),))])


# ---------------------------------------------------------------- explanations
def test_whole_unsatisfiable_set_is_explained():
    nodes = [
        node("trainer 2.0", "metrics >=2,<3", "loger"), node("dashboard 1.1", "metrics <2"), node("logger 1.0"),
        node("x 1", "y"), node("y 1", "x", conflicts=("logger <2",)),
    ]  # fmt: skip
    with pytest.raises(DependencyError) as caught:
        resolve(nodes, by_id(node("metrics 1.4")))
    assert str(caught.value).splitlines()[1:] == [
        "  - trainer 2.0 needs loger; there is no loger; similar: logger",
        "  - trainer 2.0 needs metrics >=2,<3; loaded is metrics 1.4 (also asked for by dashboard 1.1: metrics <2)",
        "  - y 1 conflicts with logger <2; there is logger 1.0",
        "  - x → y → x is a cycle: each needs the next",
    ]


def test_all_who_ask_for_a_missing_plugin_are_named():
    report = validate([node("a 1", "z"), node("b 2", "z >=1")])
    assert not report.ok
    assert str(report) == "a 1 needs z, b 2 needs z >=1; there is no z"


def test_report_of_a_sound_set_says_so():
    assert str(validate([node("a 1")])) == "all dependencies are satisfied"


@pytest.mark.parametrize("declaring", ["new", "loaded"])
def test_conflict_counts_whichever_side_declares_it(declaring):
    new = node("new 1", conflicts=("old",) if declaring == "new" else ())
    old = node("old 1", conflicts=("new >=1",) if declaring == "loaded" else ())
    with pytest.raises(DependencyError, match="conflicts with"):
        resolve([new], by_id(old))


def test_conflict_with_other_versions_or_with_what_one_provides_oneself_is_none():
    nodes = [node("a 1", conflicts=("b <2", "slot"), provides=(("slot", "1"),)), node("b 2")]
    assert resolve(nodes) == ["a", "b"]


def test_two_that_provide_one_exclusive_thing_conflict():
    slot = {"conflicts": ("slot",), "provides": (("slot", "1"),)}
    with pytest.raises(DependencyError, match="b 1, which provides slot 1"):
        resolve([node("a 1", **slot), node("b 1", **slot)])


def test_dependency_on_itself_is_a_cycle_of_one():
    with pytest.raises(DependencyError, match="a → a is a cycle"):
        resolve([node("a 1", "a")])


def test_malformed_specifier_of_a_plugin_is_named():
    with pytest.raises(RegistryError, match=r"plugin 'a'.*'=>2'"):
        resolve([node("a 1", "b =>2"), node("b 1")])


# ---------------------------------------------------------------- graphs
def test_missing_names_come_with_those_that_need_them():
    assert missing({"a": ["b", "x"], "b": ["x", "y"]}) == {"x": ("a", "b"), "y": ("b",)}


def test_one_cycle_of_each_component_is_given():
    assert cycles({"a": ["b"], "b": ["a", "c"], "c": ["d"], "d": ["c"], "e": ["a"], "f": ["gone"]}) == [
        ("a", "b"),
        ("c", "d"),
    ]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Acyclic: names need only names before them; given in any order."""
    n = draw(st.integers(1, 12))
    edges = {f"p{i}": [f"p{j}" for j in range(i) if draw(st.booleans())] for i in range(n)}
    return {name: edges[name] for name in draw(st.permutations(list(edges)))}


def nodes_of(graph: dict[str, list[str]]) -> list[Node]:
    return [node(f"{name} 1", *needed) for name, needed in graph.items()]


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_order_of_any_acyclic_graph_respects_its_edges(graph):
    order = resolve(nodes_of(graph))
    assert sorted(order) == sorted(graph)
    place = {name: i for i, name in enumerate(order)}
    assert all(place[other] < place[name] for name, needed in graph.items() for other in needed)
    assert order == resolve(nodes_of(graph))


@settings(max_examples=150, deadline=None)
@given(graphs(), st.data())
def test_edge_that_closes_a_cycle_is_found_as_one_that_really_is(graph, data):
    name = data.draw(st.sampled_from(sorted(graph)))
    reached, todo = {name}, [name]
    while todo:
        for other in graph[todo.pop()]:
            if other not in reached:
                reached.add(other)
                todo.append(other)
    deepest = data.draw(st.sampled_from(sorted(reached)))
    graph[deepest] = [*graph[deepest], name]
    found = cycles(graph)
    assert len(found) == 1
    assert len(set(found[0])) == len(found[0])
    assert all(after in graph[before] for before, after in itertools.pairwise((*found[0], found[0][0])))
    with pytest.raises(DependencyError, match=" → ".join((*found[0], found[0][0]))):
        resolve(nodes_of(graph))
