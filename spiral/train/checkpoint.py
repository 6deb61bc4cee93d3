"""Checkpoints: one folder each, complete or not there at all.

A checkpoint is written to a folder with another name, flushed to the disk and renamed; a process that
is killed at any moment leaves the previous ones untouched. It holds ``model.safetensors``,
``optimizer.safetensors`` and ``state.json`` (step, loader, random numbers, configuration, versions, tuning
table, and the SHA-256 of the others and of itself, so that damage is found and not trained on).
"""

from __future__ import annotations

import hashlib
import json
import logging
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
_FORMAT = 2
_FILES = ("model.safetensors", "optimizer.safetensors")

logger = logging.getLogger("spiral.train")


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
    """What a run's bits may depend on; the number of threads is not among it."""
    import ml_dtypes

    import spiral
    from spiral import storage
    from spiral.gpu.tuning import table_hash

    return {
        "spiral": spiral.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "ml_dtypes": ml_dtypes.__version__,
        "machine": platform.machine(),
        "kernels": _fact(storage.native, "isa") if storage.native is not None else "numpy",
        "tuning": table_hash() or "heuristics",
    }


def _fact(native: Any, name: str) -> str:
    """A fact that the extension tells as a value or through a function."""
    value = getattr(native, name)
    return str(value() if callable(value) else value)


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
    from spiral.gpu.tuning import table_hash
    from spiral.io import save_safetensors

    folder = Path(folder)
    target = folder / f"step-{checkpoint.step:08d}"
    partial = folder / f".{target.name}.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".step-*"):  # of a process that was killed while writing
            shutil.rmtree(left_over)
        partial.mkdir()
        save_safetensors(partial / _FILES[0], checkpoint.weights)
        save_safetensors(partial / _FILES[1], checkpoint.optimizer)
        plain = {
            "format": _FORMAT,
            "step": checkpoint.step,
            "versions": versions(),
            "tuning_table": table_hash(),  # of measured kernel choices; None: all are those of the code
            "sha256": {name: _sha256(partial / name) for name in _FILES},
            **checkpoint.state,
        }
        with (partial / "state.json").open("w", encoding="utf-8") as file:
            json.dump({**plain, "own_sha256": _own_sha256(plain)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():  # resumed from an older one, because this one is damaged
            target.rename(partial.with_suffix(".replaced"))
        partial.rename(target)
        _flush_folder(folder)
        for old in list_checkpoints(folder)[:-keep]:
            old.rename(old.with_name(f".{old.name}.removed"))  # killed halfway, it must not look like a whole one
        for left_over in folder.glob(".step-*"):
            shutil.rmtree(left_over)
    except SaveError as error:
        raise SaveError(f"checkpoint {target.name} was not written, older ones are intact: {error}") from error
    except OSError as error:
        raise SaveError(f"checkpoint {target}: cannot be written: {error.strerror}; older ones are intact.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def list_checkpoints(folder: str | Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _FOLDER.fullmatch(path.name) and path.is_dir())


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read one checkpoint, or the newest of a folder of them that is whole.

    A damaged one is named in a warning of the logger ``spiral.train`` and the one before it is taken:
    the steps between are trained again, to the same bits.

    Raises:
        DataError: There is none.
        FormatError: It, or every one of the folder, is damaged or from another version.
    """
    path = Path(path)
    if _FOLDER.fullmatch(path.name):
        return _load_one(path)
    found = list_checkpoints(path)
    if not found:
        raise DataError(f"load_checkpoint: {path}: there is no checkpoint; start without resuming.")
    damaged: list[FormatError] = []
    for candidate in reversed(found):
        try:
            loaded = _load_one(candidate)
        except FormatError as error:
            damaged.append(error)
            continue
        for problem in damaged:
            logger.warning("%s Going back to %s.", problem, candidate.name)
        return loaded
    if len(damaged) == 1:
        raise damaged[0]
    raise FormatError(f"load_checkpoint: {path}: all {len(damaged)} checkpoints are damaged; the newest: {damaged[0]}")


def _load_one(path: Path) -> Checkpoint:
    from spiral.io import load_safetensors

    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            received = state.get("format") if isinstance(state, dict) else type(state).__name__
            raise FormatError(
                f"load_checkpoint: {path / 'state.json'}: expected format {_FORMAT}; received {received!r}; "
                "read it with the version of spiral that wrote it."
            )
        if state.pop("own_sha256", None) != _own_sha256(state):
            raise FormatError(f"load_checkpoint: {path / 'state.json'}: damaged: its SHA-256 is not what it says.")
        for name in _FILES:
            if _sha256(path / name) != state["sha256"][name]:
                raise FormatError(f"load_checkpoint: {path / name}: damaged: its SHA-256 is not what state.json says.")
        weights, optimizer = (load_safetensors(path / name, mmap=False).arrays for name in _FILES)
    except FormatError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        file = getattr(error, "filename", None) or path / "state.json"
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"load_checkpoint: {file}: cannot be read: {reason}.") from error
    return Checkpoint(int(state["step"]), weights, optimizer, state)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_sha256(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode("utf-8")).hexdigest()


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
            node = node.detach().to("cpu").numpy()
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
