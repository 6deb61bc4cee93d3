"""Directed graphs of names: cycles, names that are not there, and an order that follows the edges.

A graph maps each name to the names it needs.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping


def cycles(graph: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """One shortest cycle of every strongly connected component that has one.

    Args:
        graph: name → names it needs; names that are no key lead nowhere.

    Returns:
        Cycles ``(a, b, c)`` with a → b → c → a, in the order of the graph, each starting at its component's first
        name in the graph's order.

    Example:
        >>> cycles({"a": ["b"], "b": ["c", "d"], "c": ["a"], "d": ["d"], "e": ["a"]})
        [('a', 'b', 'c'), ('d',)]
    """
    edges = {name: [n for n in dict.fromkeys(needed) if n in graph] for name, needed in graph.items()}
    component = _components(edges)
    members: dict[int, list[str]] = {}  # in the graph's order, names within a component too
    for name in edges:
        members.setdefault(component[name], []).append(name)
    return [
        _shortest_cycle(edges, set(names), names[0])
        for names in members.values()
        if len(names) > 1 or names[0] in edges[names[0]]
    ]


def missing(graph: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Names that are needed but are not there, each with those that need it.

    Example:
        >>> missing({"a": ["b", "x"], "b": ["x"]})
        {'x': ('a', 'b')}
    """
    askers: dict[str, dict[str, None]] = {}
    for name, needed in graph.items():
        for other in needed:
            if other not in graph:
                askers.setdefault(other, {})[name] = None
    return {name: tuple(asking) for name, asking in askers.items()}


def dependencies_first(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Every name after all that it needs; among those that could come next, the first of the graph's order does.

    Args:
        graph: without cycles: names of a cycle, and those that need them, are left out.

    Example:
        >>> dependencies_first({"a": ["z"], "b": [], "z": []})
        ['b', 'z', 'a']
    """
    names = list(graph)
    place = {name: i for i, name in enumerate(names)}
    needed = {name: {n for n in graph[name] if n in place} for name in names}
    needing: dict[str, list[str]] = {name: [] for name in names}
    for name, others in needed.items():
        for other in others:
            needing[other].append(name)
    left = {name: len(others) for name, others in needed.items()}
    ready = [place[name] for name in names if not left[name]]  # sorted, hence a heap
    order = []
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        for other in needing[name]:
            left[other] -= 1
            if not left[other]:
                heapq.heappush(ready, place[other])
    return order


def _components(edges: Mapping[str, list[str]]) -> dict[str, int]:
    """The number of each name's strongly connected component (Tarjan 1972, without recursion)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    component: dict[str, int] = {}
    stack: list[str] = []
    for root in edges:
        if root in number:
            continue
        number[root] = low[root] = len(number)
        stack.append(root)
        walk = [(root, iter(edges[root]))]
        while walk:
            name, others = walk[-1]
            for other in others:
                if other not in number:
                    number[other] = low[other] = len(number)
                    stack.append(other)
                    walk.append((other, iter(edges[other])))
                    break
                if other not in component:
                    low[name] = min(low[name], number[other])
            else:
                walk.pop()
                if walk:
                    low[walk[-1][0]] = min(low[walk[-1][0]], low[name])
                if low[name] == number[name]:
                    while True:
                        member = stack.pop()
                        component[member] = number[name]
                        if member == name:
                            break
    return component


def _shortest_cycle(edges: Mapping[str, list[str]], members: set[str], start: str) -> tuple[str, ...]:
    before: dict[str, str] = {}
    queue = deque([start])
    while queue:
        name = queue.popleft()
        for other in edges[name]:
            if other == start:
                path = [name]
                while path[-1] != start:
                    path.append(before[path[-1]])
                return tuple(reversed(path))
            if other in members and other not in before:
                before[other] = name
                queue.append(other)
    raise AssertionError(f"{start!r} is in no cycle of its component")
