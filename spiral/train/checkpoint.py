"""Checkpoints: one folder each, complete or not there at all.

A checkpoint is written to a folder with another name, flushed to the disk and renamed; a process that
is killed at any moment leaves the previous ones untouched. It holds ``model.safetensors``,
``optimizer.safetensors`` and ``state.json`` (step, loader, random numbers, configuration, versions).
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiral.errors import DataError, FormatError, SaveError

_FOLDER = re.compile(r"step-(\d{8})")
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What training needs to go on as if it had never stopped.

    Args:
        step: Steps taken.
        weights: The model's, by name.
        optimizer: The optimizer's arrays, by name.
        state: Loader, random numbers, configuration and whatever else is plain data.
    """

    step: int
    weights: dict[str, NDArray[Any]]
    optimizer: dict[str, NDArray[Any]]
    state: dict[str, Any]


def versions() -> dict[str, str]:
    """What a run's bits may depend on."""
    import spiral
    from spiral import storage

    return {
        "spiral": spiral.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "kernels": str(storage.native.isa) if storage.native is not None else "numpy",
    }


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint into a folder of checkpoints and remove all but the newest.

    Args:
        folder: Where the run's checkpoints are; made if need be.
        checkpoint: What to write.
        keep: How many to leave.

    Returns:
        The checkpoint's own folder.

    Raises:
        SaveError: It cannot be written; older ones are untouched.
    """
    from spiral.io import save_safetensors

    folder = Path(folder)
    target = folder / f"step-{checkpoint.step:08d}"
    partial = folder / f".{target.name}.{os.getpid()}.partial"
    plain = {"format": _FORMAT, "step": checkpoint.step, "versions": versions(), **checkpoint.state}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".step-*"):  # of a process that was killed while writing
            shutil.rmtree(left_over)
        partial.mkdir()
        save_safetensors(partial / "model.safetensors", checkpoint.weights)
        save_safetensors(partial / "optimizer.safetensors", checkpoint.optimizer)
        with (partial / "state.json").open("w", encoding="utf-8") as file:
            json.dump(plain, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():  # resumed from an older one: this step is reached again
            target.rename(partial.with_suffix(".replaced"))
        partial.rename(target)
        shutil.rmtree(partial.with_suffix(".replaced"), ignore_errors=True)
        _flush_folder(folder)
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(f"checkpoint {target}: cannot be written: {error.strerror}; older ones are intact.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def list_checkpoints(folder: str | Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _FOLDER.fullmatch(path.name))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read one checkpoint, or the newest of a folder of them.

    Raises:
        DataError: There is none.
        FormatError: It is damaged or from a newer version.
    """
    from spiral.io import load_safetensors

    path = Path(path)
    if not _FOLDER.fullmatch(path.name):
        found = list_checkpoints(path)
        if not found:
            raise DataError(f"load_checkpoint: {path}: there is no checkpoint; start without resuming.")
        path = found[-1]
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        weights = load_safetensors(path / "model.safetensors", mmap=False).arrays
        optimizer = load_safetensors(path / "optimizer.safetensors", mmap=False).arrays
    except (OSError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"load_checkpoint: {path}: cannot be read: {error}.") from error
    if state.get("format") != _FORMAT:
        raise FormatError(
            f"load_checkpoint: {path}: expected format {_FORMAT}; received {state.get('format')!r}; "
            "read it with the version of spiral that wrote it."
        )
    return Checkpoint(int(state["step"]), weights, optimizer, state)


def flatten(tree: Any) -> tuple[dict[str, NDArray[Any]], Any]:
    """Split a nested state into its tensors and plain data that says where they belong.

    Args:
        tree: Dictionaries, lists, tensors, arrays and plain values.

    Returns:
        Arrays by name, and the rest for `unflatten`, which JSON can hold.

    Example:
        >>> arrays, rest = flatten({"m": np.ones(2), "step": 3})
        >>> unflatten(rest, arrays)["m"].tolist(), unflatten(rest, arrays)["step"]
        ([1.0, 1.0], 3)
    """
    from spiral.tensor import Tensor

    arrays: dict[str, NDArray[Any]] = {}

    def split(node: Any, path: str) -> Any:
        if isinstance(node, Tensor):
            node = node.detach().numpy()
        if isinstance(node, np.ndarray):
            arrays[path] = node
            return {"array": path}
        if isinstance(node, Mapping):
            return {
                "items": [[key, split(value, f"{path}/{key}" if path else str(key))] for key, value in node.items()]
            }
        if isinstance(node, (list, tuple)):
            return {"list": [split(value, f"{path}/{i}") for i, value in enumerate(node)]}
        return {"value": node}

    return arrays, split(tree, "")


def unflatten(rest: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The inverse of `flatten`; tensors come back as tensors, sequences as lists."""
    import spiral as sp

    if "array" in rest:
        return sp.asarray(arrays[rest["array"]])
    if "items" in rest:
        return {key: unflatten(value, arrays) for key, value in rest["items"]}
    if "list" in rest:
        return [unflatten(value, arrays) for value in rest["list"]]
    return rest["value"]


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
