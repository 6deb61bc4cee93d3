"""Puts the example distribution on the path as pip would install it: its modules, and its entry point."""

import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "backend_opencl"


def installed(folder):
    """Writes the metadata of the example into a folder; gives the folders to look in."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = Path(folder, f"spiral_opencl-{project['version']}.dist-info")
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["spiral.backends"]
    lines = ["[spiral.backends]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return [str(EXAMPLE / "src"), str(folder)]


FOLDER = tempfile.mkdtemp()
sys.path[:0] = PATHS = installed(FOLDER)


def pytest_unconfigure():
    shutil.rmtree(FOLDER, ignore_errors=True)
