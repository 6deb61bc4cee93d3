"""Optimizer: groups of parameters, state per parameter, one fused call per group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from spiral.autograd import no_grad
from spiral.creation import asarray, zeros_like
from spiral.errors import ArgumentError, kind_of, received
from spiral.nn.arguments import real, tensor_list
from spiral.nn.state import StateDictError, is_array, need_mapping
from spiral.placement import copied, is_own
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore


def _is_count(value: Any) -> bool:
    """Whether a value, perhaps an array of one element, is a number of steps."""
    if isinstance(value, bool) or getattr(value, "size", 1) != 1:
        return False
    try:
        return int(value) >= 0
    except (TypeError, ValueError):
        return False


Params = Iterable[Tensor] | Iterable[Mapping[str, Any]]
Batch = tuple[int, list[Tensor], list[Tensor], dict[str, list[Tensor]]]


def _own_memory(p: Tensor) -> None:
    """Gives a transposed, broadcast or read-only parameter memory that a fused step can overwrite."""
    if not is_own(p._a):
        p._a = copied(p._a, p.device)


def pair_of(owner: str, what: str, value: Any) -> tuple[Any, Any]:
    """The two settings of a pair.

    Raises:
        ArgumentError: it is none.
    """
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ArgumentError(f"{owner}: {what} must be two numbers; received {received(value)}.")
    return value[0], value[1]


class Optimizer:
    """Base of all optimizers.

    Args:
        params: Tensors, or mappings with ``"params"`` and settings of their own.
        defaults: Settings of the groups that do not have their own.

    Attributes:
        param_groups: A dict per group: ``"params"`` and its settings; schedules write ``"lr"``.
        state: For each parameter that has been stepped, its number of steps and its tensors.

    Raises:
        ArgumentError: no parameters, one twice, one that collects no gradients, or an unknown or bad setting.
    """

    #: tensors kept per parameter, in the fused op's order
    slots: tuple[str, ...] = ()

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        name = type(self).__name__
        if not isinstance(params, Iterable) or isinstance(params, (str, np.ndarray)):
            raise ArgumentError(f"{name}: params must be tensors or groups; received {kind_of(params)}.")
        given = [params] if isinstance(params, (TensorCore, Mapping)) else list(params)
        if not given:
            raise ArgumentError(f"{name}: expected parameters; received none.")
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            if not isinstance(group, Mapping):
                raise ArgumentError(f"{name}: give either tensors or groups, not both.")
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Adds a group: ``"params"``, and the settings in which it differs from the defaults."""
        name = type(self).__name__
        if not isinstance(group, Mapping):
            raise ArgumentError(f"{name}: a group must be a mapping with 'params'; received {kind_of(group)}.")
        if "params" not in group:
            raise ArgumentError(f"{name}: a group needs 'params'; received {', '.join(map(str, group)) or 'none'}.")
        params = tensor_list(name, "params", group["params"])
        unknown = [k for k in group if k not in self.defaults and k not in ("params", "name")]
        if unknown:
            raise ArgumentError(
                f"{name}: settings must be among {', '.join(self.defaults)}; received {received(unknown)}."
            )
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for i, p in enumerate(params):
            if not p.is_leaf or p.dtype.kind != "float":
                raise ArgumentError(
                    f"{name}: params[{i}] {p.shape} must be a floating leaf, not a result; use .detach()."
                )
            if id(p) in known:
                raise ArgumentError(f"{name}: params[{i}] {p.shape} is given twice.")
            known.add(id(p))
            _own_memory(p)
        settings = {**self.defaults, **{k: v for k, v in group.items() if k != "params"}}
        self._check(settings)
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        self.param_groups.append({"params": params, **settings})

    def _check(self, settings: Mapping[str, Any]) -> None:
        """Raises ArgumentError for a setting out of range; a class with others of its own extends it."""
        name = type(self).__name__
        for key in ("lr", "weight_decay", "eps", "momentum"):
            if key in settings:
                real(name, key, settings[key], 0.0)
        if "betas" in settings:
            for i, beta in enumerate(pair_of(name, "betas", settings["betas"])):
                real(name, f"betas[{i}]", beta, 0.0, 1.0, below=True)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets every gradient, or fills it with zeros if not ``set_to_none``."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad = None if set_to_none else zeros_like(p.grad)

    def step(self) -> None:
        """Changes every parameter that has a gradient."""
        with no_grad():
            for group in self.param_groups:
                for batch in self._batches(group):
                    self._update(group, *batch)

    def _batches(self, group: dict[str, Any]) -> Iterator[Batch]:
        """The group's parameters with gradients by number of steps: one batch unless some were left out before."""
        by_step: dict[int, tuple[list[Tensor], list[Tensor], list[dict[str, Any]]]] = {}
        state = self.state
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            mine = state.get(p)
            if mine is None:
                mine = state[p] = {"step": 0, **self._fresh(p, group)}
            mine["step"] = step = mine["step"] + 1
            batch = by_step.get(step)
            if batch is None:
                batch = by_step[step] = ([], [], [])
            batch[0].append(p)
            batch[1].append(grad)
            batch[2].append(mine)
        for step, (params, grads, states) in by_step.items():
            yield step, params, grads, {slot: [s[slot] for s in states if slot in s] for slot in self.slots}

    def _fresh(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """First state of a parameter."""
        return {slot: zeros_like(p) for slot in self.slots}

    def _update(
        self,
        group: dict[str, Any],
        step: int,
        params: list[Tensor],
        grads: list[Tensor],
        slots: dict[str, list[Tensor]],
    ) -> None:
        raise NotImplementedError(f"{type(self).__name__}: write _update.")

    # ------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Any]:
        """State by number of the parameter, and the groups' settings. The tensors share memory with the optimizer."""
        params = [p for g in self.param_groups for p in g["params"]]
        groups, first = [], 0
        for g in self.param_groups:
            numbers = list(range(first, first + len(g["params"])))
            groups.append({**{k: v for k, v in g.items() if k != "params"}, "params": numbers})
            first += len(numbers)
        return {
            "state": {i: dict(self.state[p]) for i, p in enumerate(params) if p in self.state},
            "param_groups": groups,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned; tensors are copied.

        Raises:
            StateDictError: the groups or shapes are others; it lists all of them, and nothing was loaded.
        """
        name = type(self).__name__
        need_mapping(f"{name}.load_state_dict", state)
        absent = [key for key in ("param_groups", "state") if key not in state]
        if absent:
            raise StateDictError(f"{name}.load_state_dict: missing {', '.join(absent)}.", missing=tuple(absent))
        groups = self._groups_of(state["param_groups"])
        need_mapping(f"{name}.load_state_dict: state", state["state"])
        by_number = dict(
            zip(
                (i for g in groups for i in g["params"]),
                (p for g in self.param_groups for p in g["params"]),
                strict=True,
            )
        )
        fresh: dict[Tensor, dict[str, Any]] = {}
        problems = []
        for key, entries in state["state"].items():
            p = by_number.get(int(key) if str(key).isdecimal() else None)
            if p is None:
                problems.append(f"state of parameter {received(key)}, which is in no group")
                continue
            if not isinstance(entries, Mapping):
                problems.append(f"parameter {key}: expected a mapping; received {kind_of(entries)}")
                continue
            wanted = self._fresh(p, self.defaults | self._group_of(p))
            problems += [f"parameter {key}: missing {slot}" for slot in ("step", *wanted) if slot not in entries]
            before = len(problems)
            for slot, value in entries.items():
                if slot == "step":
                    if not _is_count(value):
                        problems.append(f"parameter {key}: step must be a number of steps; received {received(value)}")
                elif slot not in wanted:
                    problems.append(f"parameter {key}: unexpected {slot}")
                elif not is_array(value):
                    problems.append(f"parameter {key}: {slot} must be a tensor; received {kind_of(value)}")
                elif tuple(value.shape) != wanted[slot].shape:
                    problems.append(
                        f"parameter {key}: {slot} must be {wanted[slot].shape}; received {tuple(value.shape)}"
                    )
            if len(problems) > before:
                continue
            fresh[p] = {
                slot: int(value) if slot == "step" else asarray(value, dtype=p.dtype, device=p.device, copy=True)
                for slot, value in entries.items()
            }
        if problems:
            raise StateDictError(f"{name}.load_state_dict: " + "".join(f"\n  {problem}" for problem in problems))
        self.state = fresh
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            mine.update({k: v for k, v in theirs.items() if k != "params"})

    def _groups_of(self, groups: Any) -> list[Mapping[str, Any]]:
        """The groups of a state dict, which must have the numbers of parameters and the settings of ours."""
        name = f"{type(self).__name__}.load_state_dict"
        if not isinstance(groups, (list, tuple)):
            raise StateDictError(f"{name}: param_groups must be a list; received {kind_of(groups)}.")
        for i, g in enumerate(groups):
            if not isinstance(g, Mapping) or not isinstance(g.get("params"), (list, tuple)):
                raise StateDictError(f"{name}: param_groups[{i}] must be a mapping with a list of 'params'.")
        sizes, given = [len(g["params"]) for g in self.param_groups], [len(g["params"]) for g in groups]
        if sizes != given:
            raise StateDictError(f"{name}: expected groups of {sizes} parameters; received {given}.")
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            try:
                self._check({**mine, **theirs})
            except ArgumentError as error:
                raise StateDictError(f"{name}: {error}") from error
        return list(groups)

    def _group_of(self, p: Tensor) -> dict[str, Any]:
        return next(g for g in self.param_groups if any(q is p for q in g["params"]))

    def __repr__(self) -> str:
        lines = [
            f"  group {i}: {len(g['params'])} tensors, " + ", ".join(f"{k}={v}" for k, v in g.items() if k != "params")
            for i, g in enumerate(self.param_groups)
        ]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])
