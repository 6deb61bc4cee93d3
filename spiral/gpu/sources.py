"""The CUDA C++ files of the kernels: where they are, what they include, and a digest of what they are built from."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

CUDA_FOLDER = Path(__file__).resolve().parents[1] / "kernels" / "cuda"
"""Where the names of `spiral.gpu.CudaSource` are looked up."""

TRITON_FOLDER = CUDA_FOLDER.parent / "triton"

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)


def with_includes(file: Path, *folders: Path) -> list[Path]:
    """A file and every file that it includes in quotes, in order of first mention.

    Args:
        file: where to start.
        folders: where included names are looked up after the including file's own folder.

    Raises:
        FileNotFoundError: an included file is in none of the folders.
    """
    found: list[Path] = []

    def visit(path: Path) -> None:
        if path in found:
            return
        found.append(path)
        for name in _INCLUDE.findall(path.read_text()):
            for folder in (path.parent, *folders):
                if (folder / name).is_file():
                    visit((folder / name).resolve())
                    break
            else:
                raise FileNotFoundError(f'{path}: includes "{name}", which is not in {path.parent} or an include path')

    visit(file.resolve())
    return found


def digest(files: list[Path], *more: str) -> str:
    """A digest of the contents of files and of whatever else decides what is built from them.

    Example:
        >>> digest([], "a", "b") == digest([], "ab", "")
        False
    """
    sha = hashlib.sha256()
    for part in [*(f.read_bytes() for f in files), *(m.encode() for m in more)]:
        sha.update(len(part).to_bytes(8, "little") + part)
    return sha.hexdigest()[:24]


def triton_digest(file: str) -> str:
    """Digest of a file of Triton kernels and of its neighbours that it imports."""
    seen: list[Path] = []

    def visit(path: Path) -> None:
        if path in seen:
            return
        seen.append(path)
        for name in re.findall(r"spiral\.kernels\.triton(?:\.(\w+)| import (\w+))", path.read_text()):
            visit(TRITON_FOLDER / f"{name[0] or name[1]}.py")

    visit(TRITON_FOLDER / file)
    return digest(seen)
